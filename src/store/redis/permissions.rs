//! The permissions that the Redis user (ACL) of the origin needs, and the check of these
//! permissions at the start.
//!
//! If Redis refuses a command in the middle of a script, the commands before it have already taken
//! effect. Every command that a publish needs is therefore tried before the first publish.

use super::RedisStore;
use super::reply::{array, text};
use crate::store::StoreError;
use fred::error::Error;

/// The commands that the user needs, as rules of `ACL SETUSER`. `docs/redis.md` and
/// `deploy/compose/generate` have the same text.
pub const ACL_RULES: &str = "+client|id +config|get +eval +evalsha +exists +get +hdel +hget \
                             +hgetall +hlen +hmget +hscan +hset +hstrlen +info +persist +pexpire \
                             +scan +set +time +wait +xadd +xlen +xrange +xread +xrevrange +xtrim";
/// The commands that the user of a cluster needs in addition.
pub const ACL_OF_CLUSTER: &str = "+cluster|info +cluster|slots";
/// The commands that the user of a server behind sentinels needs in addition.
pub const ACL_OF_SENTINEL: &str = "+role";

impl RedisStore {
    /// Checks that this user may run all commands of a publish, on all keys.
    pub async fn check_permissions(&self) -> Result<(), StoreError> {
        let shards = 0..self.keys.shards();
        let refused = shards.map(|shard| self.refused_commands(shard));
        let refused = futures_util::future::try_join_all(refused).await?;
        if let Some(names) = refused.into_iter().find(|names| !names.is_empty()) {
            let (names, rules) = (names.join(", "), names.join(" +"));
            return Err(StoreError::Down(format!(
                "redis: this user may not run {names}; allow it (ACL SETUSER <name> +{rules})"
            )));
        }
        let (slot, step) = (self.keys.slot(0), ["0", "COUNT", "1"]);
        if self.connection.refuses("SCAN", &step, slot).await {
            tracing::warn!(
                "the redis user may not run scan: the channels cannot be listed; allow it \
                 (ACL SETUSER <name> +scan)"
            );
        }
        Ok(())
    }

    async fn refused_commands(&self, shard: usize) -> Result<Vec<String>, StoreError> {
        let (slot, [string, stream, hash]) = (self.keys.slot(shard), self.keys.self_test(shard));
        let mut keys = vec![string, stream, hash];
        keys.extend(self.keys.of_each_kind(shard));
        // A later script is run by its digest, which may be known to Redis already. `EVAL` is
        // needed again when Redis has been restarted.
        let answer = self.connection.run_text(&self.scripts.self_test, slot, &keys).await;
        let refused = array(answer.map_err(|error| self.not_permitted(&error))?)?;
        let mut refused = refused.into_iter().map(text).collect::<Result<Vec<_>, _>>()?;
        let by_digest = self.connection.run(&self.scripts.self_test, slot, &keys, &[]).await;
        by_digest.map_err(|error| self.not_permitted(&error))?;
        let waits = self.config.wait_replicas > 0;
        if waits && self.connection.refuses("WAIT", &["0", "1"], slot).await {
            refused.push("wait".to_owned());
        }
        Ok(refused)
    }

    /// Explains why the script with which the permissions are tested was refused as a whole.
    fn not_permitted(&self, error: &Error) -> StoreError {
        let problem = error.details();
        if !problem.starts_with("NOPERM") {
            return self.connection.down(error);
        }
        let command =
            problem.split_once("to run the '").and_then(|(_, rest)| rest.split_once('\''));
        StoreError::Down(match command {
            Some((command, _)) => format!(
                "redis: this user may not run {command}; allow it (ACL SETUSER <name> +{command})"
            ),
            None => format!(
                "redis: this user may not use all keys of --redis-prefix; allow them (ACL SETUSER \
                 <name> {})",
                self.keys.acl_rule()
            ),
        })
    }
}
