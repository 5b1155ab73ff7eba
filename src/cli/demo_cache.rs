//! `serve --demo --cache` starts a Varnish or an nginx of this machine in front of the demo, with
//! the configuration that `headwater edge` prints, and ends it with the process.

use super::headings;
use super::serve_flags::open_to_all;
use crate::edge_config::{self, Deployment, HostPort, Nginx, Profile, Varnish};
use crate::origin::{Config, Listeners};
use crate::server::listener::{ListenAddress, Listener};
use clap::{Args, ValueEnum};
use std::ffi::OsString;
use std::fs::{DirBuilder, File, Permissions};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{sleep, timeout};

/// Longest wait for the cache to accept connections. Varnish compiles its configuration first.
const START_TIME_MAX: Duration = Duration::from_secs(30);
/// Pause between two attempts to connect to it.
const START_PAUSE: Duration = Duration::from_millis(50);
/// Longest wait for the cache to end.
const STOP_TIME_MAX: Duration = Duration::from_secs(5);
/// How much longer than a segment Varnish may take to send a response.
const SEND_SLACK_S: u64 = 30;
/// Debian keeps the programs of servers out of the PATH of users.
const FURTHER_DIRECTORIES: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];
/// Where nginx keeps files beside its cache. Its defaults belong to root.
const NGINX_DIRECTORIES: [&str; 5] = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];

/// Runs the cache until it ends by itself, or the pipe at the standard input is closed. The kernel
/// closes the pipe when this process ends, however that happens.
const WATCH: &str = r#"exec 3<&0
"$@" 3<&- </dev/null & cache=$!
{ read -r _ <&3; kill "$cache"; } & watch=$!
exec 3<&-
wait "$cache"; status=$?
kill "$watch" 2>/dev/null
exit "$status""#;

#[derive(Args, Clone, Debug)]
pub struct CacheArguments {
    /// With --demo, start this cache of the machine in front of the demo, with the configuration of
    /// `headwater edge`, and end it with the process
    #[arg(help_heading = headings::DEMO, long, env = "HEADWATER_CACHE", value_enum)]
    pub(super) cache: Option<Kind>,
    /// Address where that cache listens: ADDRESS:PORT
    #[arg(help_heading = headings::DEMO, long, env = "HEADWATER_CACHE_LISTEN", default_value = "127.0.0.1:6081")]
    pub(super) cache_listen: SocketAddr,
}

/// The caches that can be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// varnishd, which shares streams
    Varnish,
    /// nginx with the profile collapse, which shares long polls
    Nginx,
}

/// A cache that runs. `stop` ends it.
pub struct DemoCache {
    child: Child,
    /// The pipe that the shell reads. The cache ends when it is closed.
    guard: Option<ChildStdin>,
    kind: Kind,
    directory: PathBuf,
    /// The URL of the demo behind the cache.
    pub url: String,
}

impl CacheArguments {
    /// Checks the flags against the other ones.
    ///
    /// # Errors
    /// Fails when the cache could not work, or could let other machines publish; the text names the
    /// flag.
    pub(super) fn check(&self, config: &Config, is_open: bool) -> Result<(), String> {
        if self.cache.is_none() {
            return Ok(());
        }
        if !config.demo {
            return Err("--cache needs --demo; `headwater edge` prints the configuration of a \
                        cache for another origin"
                .to_owned());
        }
        if config.tls.is_some() {
            return Err("--cache needs an origin without TLS: leave out --tls-cert".to_owned());
        }
        let is_local = self.cache_listen.ip().to_canonical().is_loopback();
        match is_local || is_open || config.access.guards_publishing() {
            true => Ok(()),
            false => Err(open_to_all(&self.cache_listen)),
        }
    }

    /// Starts the cache, if one is wanted, and waits until it accepts connections.
    ///
    /// # Errors
    /// Fails when the cache is not installed, or does not start.
    pub async fn start(
        &self,
        config: &Config,
        listeners: &Listeners,
    ) -> Result<Option<DemoCache>, String> {
        let Some(kind) = self.cache else { return Ok(None) };
        let origin = origin(listeners)?;
        let program = installed(kind)?;
        let listen = free_port(self.cache_listen).map_err(|error| self.in_use(&error))?;
        let directory = make_directory().map_err(|error| {
            format!("--cache: cannot make a directory for {}: {error}", kind.program())
        })?;
        let arguments = kind.arguments(config, origin, listen, &directory);
        let started = arguments
            .and_then(|arguments| DemoCache::launch(kind, &program, &directory, &arguments));
        let url = format!("http://{listen}");
        let mut cache = match started {
            Ok(mut child) => DemoCache { guard: child.stdin.take(), child, kind, directory, url },
            Err(error) => {
                std::fs::remove_dir_all(&directory).unwrap_or_default();
                return Err(format!("--cache: {} does not start: {error}", program.display()));
            }
        };
        match cache.accepts_connections(listen).await {
            Ok(()) => Ok(Some(cache)),
            Err(why) => {
                cache.stop().await;
                Err(why)
            }
        }
    }

    fn in_use(&self, error: &std::io::Error) -> String {
        format!(
            "cannot listen on {} (--cache-listen): {error}; choose another address",
            self.cache_listen
        )
    }
}

impl Kind {
    fn program(self) -> &'static str {
        match self {
            Self::Varnish => "varnishd",
            Self::Nginx => "nginx",
        }
    }

    /// The name in Debian and in `--cache`.
    fn name(self) -> &'static str {
        match self {
            Self::Varnish => "varnish",
            Self::Nginx => "nginx",
        }
    }

    /// Writes the configuration into the directory, and returns the arguments of the program.
    fn arguments(
        self,
        config: &Config,
        origin: HostPort,
        listen: SocketAddr,
        directory: &Path,
    ) -> std::io::Result<Vec<OsString>> {
        let deployment =
            Deployment { origin, further_origins: Vec::new(), lanes: config.segments.lanes };
        let file = directory.join(format!("{}.conf", self.name()));
        let (text, arguments) = match self {
            Self::Varnish => varnish(config, deployment, listen, directory, &file),
            Self::Nginx => nginx(config, deployment, listen, directory, &file),
        };
        std::fs::write(&file, text)?;
        Ok(arguments)
    }
}

fn varnish(
    config: &Config,
    deployment: Deployment,
    listen: SocketAddr,
    directory: &Path,
    file: &Path,
) -> (String, Vec<OsString>) {
    let segment = Duration::from_millis(config.segments.longest_ms());
    let text = edge_config::varnish(&Varnish {
        deployment,
        segment,
        long_poll_timeout: config.http.long_poll_timeout,
        private: config.access.private.clone(),
        purge_from: Vec::new(),
        cors_origins: config.http.cors_origins.clone(),
    });
    let send_timeout = format!("send_timeout={}", segment.as_secs() + SEND_SLACK_S);
    let listen = listen.to_string();
    let words = ["-F", "-T", "none", "-a", &listen, "-s", "malloc,64m", "-s"];
    let parameters = ["Transient=malloc,64m", "-p", "thread_pool_add_delay=0", "-p"];
    let limits = ["thread_queue_limit=10000", "-p", &send_timeout, "-n"];
    let words = words.into_iter().chain(parameters).chain(limits);
    let mut arguments: Vec<OsString> = words.map(OsString::from).collect();
    arguments.extend([directory.join("run").into(), "-f".into(), file.into()]);
    (text, arguments)
}

fn nginx(
    config: &Config,
    deployment: Deployment,
    listen: SocketAddr,
    directory: &Path,
    file: &Path,
) -> (String, Vec<OsString>) {
    let inside = |name: &str| directory.join(name).display().to_string();
    let text = edge_config::nginx(&Nginx {
        deployment,
        profile: Profile::Collapse,
        listen: Some(listen.to_string()),
        tls: None,
        cache_dir: Some(inside("cache")),
        long_poll_timeout: config.http.long_poll_timeout,
        squid: None,
        inner_listen: None,
        cors_origins: config.http.cors_origins.clone(),
        client_connections: None,
    });
    let paths = NGINX_DIRECTORIES.map(|name| format!("\n    {name}_temp_path {};", inside(name)));
    let text = text.replacen("http {", &format!("http {{{}", paths.concat()), 1);
    let globals = format!("daemon off; pid {};", inside("pid"));
    let arguments: [OsString; 6] = [
        "-c".into(),
        file.into(),
        "-e".into(),
        inside("error.log").into(),
        "-g".into(),
        globals.into(),
    ];
    (text, arguments.into())
}

impl DemoCache {
    fn launch(
        kind: Kind,
        program: &Path,
        directory: &Path,
        arguments: &[OsString],
    ) -> std::io::Result<Child> {
        let output = File::create(log_file(directory, kind))?;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", WATCH, "sh"]).arg(program).args(arguments).current_dir(directory);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(output);
        // Ctrl+C must not end the cache before the streams that it passes on.
        command.process_group(0).spawn()
    }

    /// Waits until the cache accepts connections.
    async fn accepts_connections(&mut self, listen: SocketAddr) -> Result<(), String> {
        let address = reachable(listen);
        let accepts = async {
            while TcpStream::connect(address).await.is_err() {
                if let Ok(Some(status)) = self.child.try_wait() {
                    return Err(format!("it ended ({status})"));
                }
                sleep(START_PAUSE).await;
            }
            Ok(())
        };
        let accepted = timeout(START_TIME_MAX, accepts).await;
        let why = match accepted.unwrap_or_else(|_| Err("it accepts no connections".to_owned())) {
            Ok(()) => return Ok(()),
            Err(why) => why,
        };
        let said = std::fs::read_to_string(log_file(&self.directory, self.kind));
        let said = said.unwrap_or_default();
        Err(format!("--cache: {} does not start: {why}\n{}", self.kind.program(), said.trim_end()))
    }

    /// Waits for the cache to end by itself, which is reported. This future never completes.
    pub async fn watch(&mut self) {
        let ended = self.child.wait().await;
        let status = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
        tracing::error!(status, "the cache of the demo has ended");
        std::future::pending().await
    }

    /// Ends the cache, and removes its files.
    pub async fn stop(mut self) {
        drop(self.guard.take());
        if timeout(STOP_TIME_MAX, self.child.wait()).await.is_err() {
            tracing::warn!("the cache of the demo does not end");
        }
        std::fs::remove_dir_all(&self.directory).unwrap_or_default();
    }
}

/// What the cache has written to its standard error.
fn log_file(directory: &Path, kind: Kind) -> PathBuf {
    directory.join(format!("{}.log", kind.name()))
}

/// The address of the origin for a cache of the same machine.
fn origin(listeners: &Listeners) -> Result<HostPort, String> {
    let mut tcp = listeners.public.iter().filter_map(|listener| match listener {
        Listener::Tcp(_, address) => Some(reachable(*address)),
        Listener::Unix(..) => None,
    });
    let address = tcp.next().ok_or("--cache needs a --listen address that is a HOST:PORT")?;
    address.to_string().parse()
}

/// The address at which this machine reaches a socket.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// The file of the program.
fn installed(kind: Kind) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let further = FURTHER_DIRECTORIES.iter().map(PathBuf::from);
    let mut files = std::env::split_paths(&path).chain(further).map(|at| at.join(kind.program()));
    files.find(|file| file.is_file()).ok_or_else(|| {
        let (name, program) = (kind.name(), kind.program());
        format!(
            "--cache {name}: there is no {program} on this machine; install it (on Debian: \
             apt-get install {name}), or leave out --cache"
        )
    })
}

/// Checks that nothing listens there yet. Port 0 becomes a free port.
fn free_port(listen: SocketAddr) -> std::io::Result<SocketAddr> {
    let address = ListenAddress::Tcp { host: listen.ip().to_string(), port: listen.port() };
    match address.bind()?.first() {
        Some(Listener::Tcp(_, bound)) => Ok(*bound),
        _ => Err(std::io::ErrorKind::AddrNotAvailable.into()),
    }
}

/// Makes a directory for the files of the cache, whose processes may belong to another user.
fn make_directory() -> std::io::Result<PathBuf> {
    let mut number = 0;
    loop {
        let name = format!("headwater-cache-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        match DirBuilder::new().mode(0o700).create(&directory) {
            Ok(()) => {
                // The mask of the process does not apply to this call.
                let permissions = Permissions::from_mode(0o755);
                return std::fs::set_permissions(&directory, permissions).map(|()| directory);
            }
            // A killed process may have left it behind.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error),
        }
    }
}
