//! Reads the settings of a running `serve` again: on SIGHUP, and for `headwater reload`, which asks
//! for it over the admin listener.

use super::config_file::settings_of;
use super::loaded::Loaded;
use super::logging::Log;
use super::{admin, block_on, fail};
use crate::client::http::Address;
use crate::origin::{Reloaded, Reloader};
use crate::telemetry::process::memory_limit;
use clap::{Args, CommandFactory};
use hyper::Method;
use serde_json::Value;
use std::process::ExitCode;

/// The flags whose new values are used by requests and connections that begin after the reload.
/// Files that they name are read again, too.
const RELOADED: [&str; 36] = [
    "allowed-host",
    "body-timeout",
    "client-header",
    "cookie-name",
    "cors-origin",
    "edge-auth",
    "heartbeat",
    "idempotency-keys-per-subject",
    "log",
    "long-poll-bytes",
    "long-poll-linger",
    "long-poll-timeout",
    "max-batch",
    "max-batch-events",
    "max-connections-per-client",
    "max-event",
    "max-ws-channels",
    "max-ws-message",
    "new-channels-per-subject",
    "private",
    "publish-rate",
    "publish-rate-per-subject",
    "surrogate-keys",
    "tls-cert",
    "tls-edge-ca",
    "tls-key",
    "token-audience",
    "token-issuer",
    "token-key",
    "token-revoked",
    "token-secret",
    "trusted-proxy",
    "write-timeout",
    "ws-byte-rate",
    "ws-frame-rate",
    "ws-ping",
];

/// The argument without which there is no TLS.
const TLS: &str = "tls_cert";

/// The settings of the running process.
pub struct Settings {
    loaded: Loaded,
    log: Log,
}

impl Settings {
    pub fn new(loaded: Loaded, log: Log) -> Self {
        Self { loaded, log }
    }

    /// Reads the configuration file, and the files that flags name, and uses what can be changed.
    ///
    /// # Errors
    /// Fails when the settings cannot be used; then nothing is changed.
    pub fn reload(&mut self, reloader: &Reloader) -> Result<Reloaded, String> {
        let reloaded = self.try_reload(reloader);
        match &reloaded {
            Ok(Reloaded { changed, at_restart }) => {
                let (changed, at_restart) = (changed.join(" "), at_restart.join(" "));
                tracing::info!(changed, at_restart, "the settings were read again");
            }
            Err(why) => tracing::error!(%why, "the settings cannot be used; nothing was changed"),
        }
        reloaded
    }

    fn try_reload(&mut self, reloader: &Reloader) -> Result<Reloaded, String> {
        let loaded = Loaded::load(&["serve"]).map_err(|error| error.line())?;
        let config = loaded.arguments.config(memory_limit());
        let config = config.map_err(|error| loaded.explained(&error))?;
        reloader.apply(config).map_err(|error| error.to_string())?;
        self.log.set_level(loaded.arguments.log);
        let reloaded = difference(&self.loaded, &loaded);
        self.loaded = loaded;
        Ok(reloaded)
    }
}

/// The flags whose values differ.
fn difference(before: &Loaded, after: &Loaded) -> Reloaded {
    let mut reloaded = Reloaded::default();
    let command = super::Arguments::command();
    let serve = command.find_subcommand("serve").into_iter();
    for arg in serve.flat_map(settings_of) {
        let (id, flag) = (arg.get_id().as_str(), arg.get_long().unwrap_or_default());
        if before.values(id) == after.values(id) {
            continue;
        }
        // Whether the listeners use TLS is decided when they are bound.
        let is_tls = before.values(TLS).is_empty() == after.values(TLS).is_empty();
        let is_reloaded = RELOADED.contains(&flag) && (is_tls || !flag.starts_with("tls-"));
        let list = if is_reloaded { &mut reloaded.changed } else { &mut reloaded.at_restart };
        list.push(format!("--{flag}"));
    }
    reloaded
}

#[derive(Args, Debug)]
pub struct ReloadArguments {
    /// Admin listener of the origin (--admin-listen)
    #[arg(long, env = "HEADWATER_ADMIN_URL", default_value = "http://127.0.0.1:8081")]
    admin_url: Address,
}

/// Asks an origin to read its settings again, and prints the effect.
pub fn run(ReloadArguments { admin_url }: &ReloadArguments) -> ExitCode {
    match block_on(request(admin_url)) {
        Ok(Ok(text)) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Err(why)) => fail(&why),
        Err(error) => fail(&error),
    }
}

async fn request(address: &Address) -> Result<String, String> {
    let text = admin::request(address, Method::POST, "/reload").await?;
    let effect: Value = serde_json::from_str(&text).unwrap_or_default();
    let flags = |name: &str| {
        let flags = effect[name].as_array().into_iter().flatten().filter_map(Value::as_str);
        flags.collect::<Vec<_>>().join(", ")
    };
    let mut lines = match flags("changed") {
        none if none.is_empty() => "the settings and the key files were read again".to_owned(),
        changed => format!("the settings and the key files were read again; changed: {changed}"),
    };
    let at_restart = flags("at_restart");
    if !at_restart.is_empty() {
        lines += &format!("\nafter the next start of the origin also: {at_restart}");
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reloaded_flag_is_a_flag() {
        let command = crate::cli::Arguments::command();
        let serve = command.find_subcommand("serve").unwrap();
        let known: Vec<_> = settings_of(serve).filter_map(clap::Arg::get_long).collect();
        let unknown: Vec<_> = RELOADED.iter().filter(|flag| !known.contains(flag)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}
