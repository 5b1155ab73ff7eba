//! `headwater serve` makes a [`Config`] from its flags, binds the listeners, runs the origin, and
//! reports how the origin ended.

use super::capacity;
use super::demo_cache::{CacheArguments, DemoCache};
use super::loaded::Loaded;
use super::logging::{LogFormat, start_log};
use super::reload::Settings;
use super::serve_flags::open_to_all;
use super::signals::{Requested, Signals};
use super::{fail, service};
use crate::origin::{Config, Headwater, Listeners, Shutdown};
use crate::server::{Drain, Stopped};
use crate::telemetry::process::memory_limit;
use std::process::ExitCode;
use std::time::Duration;

/// Number of task polls after which a worker thread checks for readable sockets. Before pipelined
/// requests were answered at a rate (`limits::request_pace`), four connections with such requests
/// raised the p99 latency of other publishers from 1.5 to 18 ms with tokio's default of 61, and to
/// 8.5 ms with 8.
const POLLS_BEFORE_SOCKETS: u32 = 8;
/// Most threads for work that blocks or takes long: reads of the log's files (at most eight at
/// once), and the encoding of states and pages.
const STORE_READERS: usize = 16;

pub fn run() -> ExitCode {
    let loaded = match Loaded::load(&["serve"]) {
        Ok(loaded) => loaded,
        Err(error) => return error.report(),
    };
    let arguments = &loaded.arguments;
    let config = match arguments.config(memory_limit()) {
        Ok(config) => config,
        Err(error) => return loaded.misused(&error),
    };
    let log = start_log(arguments.log, arguments.log_format);
    warn_of_short_drain(&config);
    if let Some(warning) = loaded.exposure() {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .event_interval(POLLS_BEFORE_SOCKETS)
        .max_blocking_threads(STORE_READERS)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    // Binding a socket registers it with the runtime, so it must happen inside the runtime.
    let listeners = {
        let _runtime = runtime.enter();
        Listeners::inherit_or_bind(&arguments.listen, &arguments.admin_listen)
    };
    let listeners = match listeners {
        Ok(listeners) => listeners,
        Err(error) => return fail(&error),
    };
    if let Err(error) = check_openness(&listeners, &config, arguments.access.is_open()) {
        return loaded.misused(&error);
    }
    let (log_format, cache) = (arguments.log_format, arguments.demo_cache.clone());
    let settings = Settings::new(loaded, log);
    match runtime.block_on(serve_behind(cache, config, listeners, log_format, settings)) {
        Ok(Stopped::Drained) => ExitCode::SUCCESS,
        Ok(Stopped::Cut { connections }) => {
            fail(&format!("stopped; {connections} streams were cut"))
        }
        Err(error) => fail(&error),
    }
}

fn warn_of_short_drain(config: &Config) {
    let longest = Duration::from_millis(config.segments.longest_ms());
    let waits = config.server.drain == Drain::Boundary;
    if waits && config.server.drain_timeout < longest {
        tracing::warn!(
            "--drain-timeout is shorter than the longest response ({longest:?}): a stop cuts off the \
             streams that are still running then"
        );
    }
}

/// Refuses to listen on an address that other machines can reach while publishing needs no token,
/// unless `--open-publish` is set.
fn check_openness(listeners: &Listeners, config: &Config, is_open: bool) -> Result<(), String> {
    let public = listeners.public.iter().find(|listener| !listener.is_local());
    match public {
        Some(listener) if !config.access.guards_publishing() && !is_open => {
            Err(open_to_all(listener))
        }
        _ => Ok(()),
    }
}

/// Serves behind the cache of the demo, if one is wanted.
async fn serve_behind(
    arguments: CacheArguments,
    mut config: Config,
    listeners: Listeners,
    log_format: LogFormat,
    settings: Settings,
) -> Result<Stopped, String> {
    let mut cache = arguments.start(&config, &listeners).await?;
    config.demo_url = cache.as_ref().map(|cache| cache.url.clone());
    let stopped = serve(config, listeners, log_format, settings, cache.as_mut()).await;
    // Last, because it passes on the ends of the streams.
    if let Some(cache) = cache {
        cache.stop().await;
    }
    stopped
}

async fn serve(
    mut config: Config,
    listeners: Listeners,
    log_format: LogFormat,
    mut settings: Settings,
    cache: Option<&mut DemoCache>,
) -> Result<Stopped, String> {
    capacity::bound(&mut config.server);
    // The handlers come first, because a write of the store may exceed a file size limit (SIGXFSZ).
    let mut signals = Signals::listen().map_err(|error| error.to_string())?;
    let demo = config.demo.then(|| config.demo_url.clone());
    let tls = config.tls.as_ref().map(|tls| tls.on_admin);
    let drain_time = config.server.drain_delay + config.server.drain_timeout;
    let origin = Headwater::open(config).await.map_err(|error| error.to_string())?;
    announce(&listeners, demo, tls, log_format);
    service::is_ready();
    let shutdown = Shutdown::default();
    let (reloader, mut reloads) = origin.reloader();
    let stop = async {
        loop {
            let (requested, reply) = tokio::select! {
                requested = signals.next() => (requested, None),
                Some(reply) = reloads.recv() => (Requested::Reload, Some(reply)),
            };
            if requested == Requested::Reload {
                let outcome = settings.reload(&reloader);
                // The client that asked for the reload may be gone.
                reply.map(|reply| reply.send(outcome).ok());
                continue;
            }
            service::is_stopping(drain_time);
            shutdown.stop();
        }
    };
    let watch = async {
        match cache {
            Some(cache) => cache.watch().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        stopped = origin.run(listeners, shutdown.clone()) => stopped.map_err(|error| error.to_string()),
        () = stop => Ok(Stopped::Drained),
        () = service::keep_alive() => Ok(Stopped::Drained),
        () = watch => Ok(Stopped::Drained),
    }
}

/// Prints the addresses of the origin. Scripts wait for these lines. `demo` is `None` without the
/// demo, and has its URL behind a cache if there is one. `tls` says whether the admin listeners use
/// TLS, if there is TLS.
fn announce(
    listeners: &Listeners,
    demo: Option<Option<String>>,
    tls: Option<bool>,
    log_format: LogFormat,
) {
    let say = |what: &str, url: String| match log_format {
        LogFormat::Text => eprintln!("headwater: {what} on {url}"),
        LogFormat::Json => tracing::info!(what, url, "serving"),
    };
    let public: Vec<_> = listeners.public.iter().map(|one| one.url(tls.is_some())).collect();
    public.iter().for_each(|url| say("channels", format!("{url}/channels/")));
    let is_tls = tls == Some(true);
    listeners.admin.iter().for_each(|one| say("metrics", format!("{}/metrics", one.url(is_tls))));
    if let Some(url) = listeners.console_url(is_tls) {
        say("console", url);
    }
    if let Some(behind) = demo {
        let urls = behind.map_or(public, |url| vec![url]);
        urls.iter().for_each(|url| say("demo", format!("{url}/")));
    }
}
