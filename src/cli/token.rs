//! `headwater token` makes a token for development, or for a publisher on the same machine.

use super::access::Secret;
use super::units::duration;
use super::{fail, misused};
use crate::access::scope::{Right, Scope};
use crate::access::token::{self, Requirements};
use crate::core::pattern::Pattern;
use crate::sync::clock::Clock;
use crate::sync::random::random;
use clap::Args;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Args, Debug)]
pub struct TokenArguments {
    /// Secret that the origin has as --token-secret, or @FILE that holds it
    #[arg(long, env = "HEADWATER_TOKEN_SECRET", hide_env_values = true)]
    token_secret: Secret,
    /// Channels that the token may publish to: a name, prices.* or *; repeat for more
    #[arg(long)]
    publish: Vec<Pattern>,
    /// Channels that the token may read: a name, prices.* or *; repeat for more
    #[arg(long)]
    subscribe: Vec<Pattern>,
    /// How long the token is valid (time)
    #[arg(long, default_value = "1h", value_parser = duration)]
    ttl: Duration,
    /// Subject of the token (`sub`), for the origin's limits and logs
    #[arg(long)]
    subject: Option<String>,
    /// Issuer that the origin requires (its --token-issuer)
    #[arg(long, env = "HEADWATER_TOKEN_ISSUER")]
    token_issuer: Option<String>,
    /// Audience that the origin requires (its --token-audience)
    #[arg(long, env = "HEADWATER_TOKEN_AUDIENCE")]
    token_audience: Option<String>,
}

pub fn run(arguments: TokenArguments) -> ExitCode {
    let publish = arguments.publish.into_iter().map(|pattern| (Right::Publish, pattern));
    let subscribe = arguments.subscribe.into_iter().map(|pattern| (Right::Subscribe, pattern));
    let rights: Vec<_> = publish.chain(subscribe).collect();
    if arguments.ttl.as_secs() == 0 {
        return misused("--ttl takes a second or more: a token of less is never good");
    }
    if rights.is_empty() {
        return misused("a token without --publish and --subscribe would be good for nothing");
    }
    let requirements = Requirements {
        issuer: arguments.token_issuer,
        audience: arguments.token_audience,
        ..Requirements::default()
    };
    let now = Clock::default().machine_now();
    let valid = now / 1_000..(now + arguments.ttl.as_millis() as u64) / 1_000;
    let id = format!("{:016x}", random());
    let minted = arguments.token_secret.read("--token-secret").and_then(|secret| {
        let scope = Scope::of(rights);
        let subject = arguments.subject.as_deref();
        token::mint(secret.as_bytes(), &scope, subject, &requirements, &id, valid)
            .map_err(|error| format!("--token-secret: {error}"))
    });
    match minted {
        Ok(token) => {
            println!("{token}");
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error),
    }
}
