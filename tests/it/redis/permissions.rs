//! A user of Redis with the permissions that `docs/redis.md` lists: nothing more is needed, and each
//! one that is missing is named when an origin starts.

use crate::kit::redis::{Cluster, RedisServer, Sentinels, wait_until};
use crate::kit::{BINARY, Origin, next_message};
use headwater::store::redis::{ACL_OF_CLUSTER, ACL_OF_SENTINEL, ACL_RULES};
use hyper::Method;
use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};

const KEYS: &str = "~{headwater:*";
const KINDS: [&str; 11] = [
    "log:*",
    "meta:*",
    "state:*",
    "once:*",
    "firehose",
    "head",
    "sizes",
    "key-counts",
    "self-test:*",
    "shards",
    "settings",
];

/// Makes a user with these rules beside the default user.
fn make_user(server: &RedisServer, name: &str, rules: &[&str]) {
    let words = [&["ACL", "SETUSER", name, "reset", "on", ">secret"], rules].concat();
    assert_eq!(server.command(&words), "OK", "{rules:?}");
}

fn rules(more: &'static str) -> Vec<&'static str> {
    ACL_RULES.split_whitespace().chain(more.split_whitespace()).chain([KEYS]).collect()
}

fn url_of(server: &RedisServer, name: &str) -> String {
    format!("redis://{name}:secret@127.0.0.1:{}", server.port)
}

/// Uses everything that an origin does with Redis.
async fn use_everything(origin: &mut Origin) {
    let mut source = origin.source("/channels/a?after=0-0", None);
    let first = origin.publish_with("a", "key=k", "1").await;
    assert_eq!(next_message(&mut source).await.data, "1");
    origin.publish_lines("a", "{\"data\":\"2\",\"key\":\"l\"}\n{\"data\":\"3\"}\n").await;
    origin.publish_with("a", "key=l&remove=true", "").await;
    for status in [201, 200] {
        let answer = origin.post("/channels/a", &[("idempotency-key", "i")], "4").await;
        assert_eq!(answer.status, status, "{}", answer.body);
    }
    assert_eq!(origin.get("/channels/a/state").await.json()["events"][0]["id"], first);
    assert_eq!(origin.get("/channels/a/history?limit=2&before=9999999999999-0").await.status, 200);
    assert_eq!(origin.get("/channels/a?last=2&mode=hold").await.status, 200);
    // From half of --max-channels on, expired channels are looked for.
    for channel in ["b", "c", "d", "e", "f", "g"] {
        origin.publish(channel, "x").await;
    }
    for path in ["/channels/b", "/channels/b"] {
        let ended = origin.request(Method::DELETE, path, &[], "").await;
        assert!(ended.status.is_success(), "{}", ended.body);
    }
    let admin = format!("http://{}", origin.admin);
    let mut list = tokio::process::Command::new(BINARY);
    let list =
        list.args(["channels", "list", "--admin-url", &admin]).output().await.expect("it runs");
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(["a", "b", "g"].iter().all(|name| list.contains(name)), "{list}");
    origin.becomes(200).await;
    origin.kill();
    origin.start_again();
    assert_eq!(origin.log("a").await.len(), 5);
    origin.publish("a", "after the restart").await;
}

/// The commands that were run since the statistics were reset.
fn commands_run(server: &RedisServer) -> BTreeSet<String> {
    let stats = server.command(&["INFO", "commandstats"]);
    let names = stats.lines().filter_map(|line| line.strip_prefix("cmdstat_")?.split(':').next());
    names.map(|name| format!("+{name}")).collect()
}

fn assert_nothing_refused(server: &RedisServer) {
    let refused = server.command(&["ACL", "LOG"]);
    assert!(refused.is_empty(), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_listed_permissions_suffice_and_each_is_used() {
    let (redis, valkey) = (RedisServer::start(), RedisServer::valkey());
    for server in [&redis, &valkey] {
        let of_server = format!("127.0.0.1 {}", server.port);
        let replica = RedisServer::with(&["--save", "", "--replicaof", &of_server]);
        wait_until("the replica follows", || {
            let info = server.command(&["INFO", "replication"]);
            info.contains("state=online") || server.port == valkey.port
        });
        make_user(server, "headwater", &rules(""));
        server.command(&["CONFIG", "RESETSTAT"]);
        let is_redis = server.port == redis.port;
        let wait = if is_redis { "1" } else { "0" };
        let url = url_of(server, "headwater");
        let flags = ["--store", &url, "--max-channels", "12", "--redis-wait-replicas", wait];
        let mut origin = Origin::with(&flags);
        use_everything(&mut origin).await;
        wait_until("the channels are examined", || commands_run(server).contains("+hscan"));
        assert_nothing_refused(server);
        let run = commands_run(server);
        let unused: Vec<_> =
            ACL_RULES.split_whitespace().filter(|rule| !run.contains(*rule)).collect();
        assert!(unused.is_empty() || unused == ["+wait"] && !is_redis, "{unused:?} of {run:?}");
        drop(replica);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_listed_permissions_suffice_in_a_cluster() {
    let cluster = Cluster::start(0);
    for node in &cluster.nodes {
        make_user(node, "headwater", &rules(ACL_OF_CLUSTER));
    }
    let url = cluster.url().replace("://", "://headwater:secret@");
    let mut origin = Origin::with(&["--store", &url, "--max-channels", "12"]);
    use_everything(&mut origin).await;
    let run: BTreeSet<_> = cluster
        .nodes
        .iter()
        .inspect(|node| assert_nothing_refused(node))
        .flat_map(commands_run)
        .collect();
    let unused: Vec<_> =
        ACL_OF_CLUSTER.split_whitespace().filter(|rule| !run.contains(*rule)).collect();
    assert!(unused.is_empty(), "{unused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_listed_permissions_suffice_over_a_failover() {
    let mut sentinels = Sentinels::start();
    for server in [&sentinels.master, &sentinels.replica] {
        make_user(server, "headwater", &rules(ACL_OF_SENTINEL));
    }
    let url = sentinels.url().replace("://", "://headwater:secret@");
    let mut origin =
        Origin::with(&["--store", &url, "--max-channels", "12", "--redis-wait-replicas", "1"]);
    use_everything(&mut origin).await;
    assert_nothing_refused(&sentinels.master);
    let before = origin.log("a").await;
    sentinels.fail_over();
    origin.becomes(200).await;
    assert_eq!(origin.log("a").await, before);
    assert_nothing_refused(&sentinels.replica);
    assert!(commands_run(&sentinels.replica).contains(ACL_OF_SENTINEL));
}

/// Starts an origin that is expected to end at once.
fn start(url: &str) -> Child {
    let mut command = Command::new(BINARY);
    command.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    command.args(["--store", url, "--redis-wait-replicas", "1", "--redis-shards", "2"]);
    command.args(["--store-timeout", "20s"]);
    command.env("HEADWATER_CONFIG", "").stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().expect("it starts")
}

/// Starts an origin as each of these users, and returns what it says before it ends.
fn refusals(redis: &RedisServer, users: &[String]) -> Vec<String> {
    let mut said = Vec::new();
    for users in users.chunks(6) {
        let origins: Vec<_> = users.iter().map(|user| start(&url_of(redis, user))).collect();
        said.extend(origins.into_iter().map(|origin| {
            let output = origin.wait_with_output().expect("it ends");
            assert_eq!(output.status.code(), Some(1));
            String::from_utf8_lossy(&output.stderr).into_owned()
        }));
    }
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_missing_permission_is_named_at_the_start() {
    let redis = RedisServer::start();
    // Streams and publishes need none of these.
    let spared = ["+client|id", "+config|get", "+info", "+scan"];
    let (mut users, mut expected) = (Vec::new(), Vec::new());
    for rule in ACL_RULES.split_whitespace().filter(|rule| !spared.contains(rule)) {
        let name = format!("without{}", &rule[1..]);
        let left: Vec<_> = rules("").into_iter().filter(|other| *other != rule).collect();
        make_user(&redis, &name, &left);
        users.push(name);
        expected.push(format!("(ACL SETUSER <name> {rule})"));
    }
    let commands: Vec<_> = ACL_RULES.split_whitespace().collect();
    for kind in KINDS {
        let name = format!("without-{}", kind.trim_end_matches(":*"));
        let others = KINDS.iter().filter(|other| **other != kind);
        let keys: Vec<_> = others.map(|kind| format!("~{{headwater:*}}:{kind}")).collect();
        let keys: Vec<_> = keys.iter().map(String::as_str).collect();
        make_user(&redis, &name, &[&commands[..], &keys[..]].concat());
        users.push(name);
        expected.push(format!("(ACL SETUSER <name> {KEYS})"));
    }
    make_user(&redis, "reader", &[&commands[..], &["%R~{headwater:*"]].concat());
    users.push("reader".to_owned());
    expected.push(format!("(ACL SETUSER <name> {KEYS})"));
    for (said, (user, expected)) in refusals(&redis, &users).iter().zip(users.iter().zip(&expected))
    {
        assert!(said.contains(expected), "{user}: {expected} is not in: {said}");
    }
    let stored = redis.command(&["--scan", "--pattern", "*"]);
    let is_test = |key: &str| key.is_empty() || key.contains(":self-test:");
    assert!(stored.lines().all(is_test), "nothing is stored: {stored}");

    for (rule, words) in [
        ("+client|id", ""),
        ("+info", ""),
        ("+config|get", "maxmemory-policy cannot be looked at"),
        ("+scan", "the channels cannot be listed"),
    ] {
        let left: Vec<_> = rules("").into_iter().filter(|other| *other != rule).collect();
        make_user(&redis, "spared", &left);
        let origin = Origin::with(&["--store", &url_of(&redis, "spared")]);
        origin.publish("a", "x").await;
        origin.logs(words).await;
    }
}

#[test]
fn documents_and_the_compose_file_list_the_same_permissions() {
    let flat = |name: &str| {
        let text = std::fs::read_to_string(name).expect("a file");
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let document = flat("docs/redis.md");
    for rules in [ACL_RULES, ACL_OF_CLUSTER, ACL_OF_SENTINEL] {
        assert!(document.contains(rules), "{rules} is not in docs/redis.md");
    }
    let line = format!("{KEYS} {ACL_RULES}");
    assert!(flat("deploy/compose/generate").contains(&line), "{line} is not in generate");
}
