//! The set-up of the Compose file as plain processes: Redis, two origins, Varnish, nginx and
//! Prometheus, with the files that the containers get, in which only addresses are changed.

use super::compose::{environment, generate, services};
use super::{run, said};
use crate::kit::edge::{Asked, Cache, Certificate, Tap};
use crate::kit::prometheus::Prometheus;
use crate::kit::redis::RedisServer;
use crate::kit::{BINARY, Origin};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

const CLIENTS: usize = 10;
const EVENTS: usize = 60;
const PAUSE: Duration = Duration::from_millis(100);
/// Short segments, so that clients reconnect several times. Varnish has the same value.
const SEGMENT: &str = "2s";
/// The longest time for anything here.
const PATIENCE: Duration = Duration::from_secs(60);

struct SetUp {
    _redis: RedisServer,
    origins: [Origin; 2],
    taps: [Tap; 2],
    _varnish: Cache,
    nginx: Cache,
    certificate: Certificate,
    /// A token with which everything may be published.
    token: String,
    _generated: TempDir,
}

impl SetUp {
    async fn start() -> Self {
        let generated = tempfile::tempdir().expect("a directory");
        let directory = generated.path();
        let secrets = directory.join("secrets");
        generate(directory, &[]);
        let redis = redis(&secrets);
        replace(
            &secrets.join("redis-url"),
            "172.29.84.20:6379",
            &format!("127.0.0.1:{}", redis.port),
        );
        let services = services();
        let origins = ["origin-1", "origin-2"].map(|name| {
            let mut wrapper = vec!["env".to_owned()];
            let variables = environment(&services[name], &secrets);
            wrapper.extend(variables.iter().map(|(name, value)| match name.as_str() {
                "HEADWATER_TRUSTED_PROXY" => format!("{name}=127.0.0.1"),
                _ => format!("{name}={value}"),
            }));
            let wrapper: Vec<_> = wrapper.iter().map(String::as_str).collect();
            // The kit reads the text of the log.
            Origin::wrapped(&wrapper, &["--log-format", "text", "--segment", SEGMENT])
        });
        let taps =
            [Tap::to(origins[0].listen.port()).await, Tap::to(origins[1].listen.port()).await];
        let certificate = Certificate::new();
        let tls = Path::new(&certificate.path("chain.pem")).parent().map(Path::to_owned);
        let vcl = {
            let addresses = taps.each_ref().map(|tap| format!("127.0.0.1:{}", tap.port)).join(" ");
            let flags = format!("--segment {SEGMENT}");
            generate(directory, &[("ORIGINS", &addresses), ("VARNISH_FLAGS", &flags)]);
            std::fs::read_to_string(directory.join("headwater.vcl")).expect("a file")
        };
        let varnish = Cache::varnish_with(&vcl);
        let nginx = Cache::nginx_own(|port| {
            let listen = format!("127.0.0.1:{port}");
            let behind = format!("127.0.0.1:{}", varnish.port);
            let tls = tls.expect("a directory").display().to_string();
            generate(directory, &[("VARNISH", &behind), ("LISTEN", &listen), ("TLS", &tls)]);
            std::fs::read_to_string(directory.join("nginx.conf")).expect("a file")
        });
        let secret = format!("@{}", secrets.join("token-secret").display());
        let token = ["token", "--token-secret", &secret, "--publish", "*"];
        let token = said(&run(BINARY, &token, "")).unwrap().trim().to_owned();
        Self {
            _redis: redis,
            origins,
            taps,
            _varnish: varnish,
            nginx,
            certificate,
            token,
            _generated: generated,
        }
    }

    /// Runs a command against the public address.
    async fn headwater(&self, words: &[&str], token: Option<&str>) -> Result<String, String> {
        let mut command = Command::new(BINARY);
        command.args(words).kill_on_drop(true);
        command.env("HEADWATER_URL", format!("https://127.0.0.1:{}", self.nginx.port));
        command.env("SSL_CERT_FILE", self.certificate.path("chain.pem"));
        command.envs(token.map(|token| ("HEADWATER_TOKEN", token)));
        said(&command.output().await.expect("it starts"))
    }

    async fn publish(&self, channel: &str, data: &str) -> Result<String, String> {
        self.headwater(&["publish", channel, data], Some(&self.token)).await
    }

    /// The number of requests for the channel at one origin.
    fn requests(&self, at: usize) -> usize {
        let asked = self.taps[at].asked();
        asked.iter().filter(|asked| asked.target.starts_with("/channels/prices")).count()
    }

    /// The requests for streams at both origins.
    fn asked(&self) -> Vec<Asked> {
        let mut asked: Vec<_> = self.taps.iter().flat_map(Tap::asked).collect();
        // A publish has no cursor, and the clients begin with one.
        asked.retain(|asked| asked.cursor.is_some());
        asked.sort_by_key(|asked| asked.at);
        asked
    }
}

/// Redis with the shipped configuration and the users of `generate`.
fn redis(secrets: &Path) -> RedisServer {
    let shipped = std::fs::read_to_string("deploy/compose/redis.conf").expect("a file");
    let users = secrets.join("redis-users").display().to_string();
    let conf = shipped.replace("/run/secrets/redis-users", &users);
    // The kit chooses the directory.
    let conf = conf.replace("dir /data\n", "");
    assert!(conf.len() > 100 && conf.contains(&users) && !conf.contains("/data"));
    let file = secrets.join("redis.conf");
    std::fs::write(&file, conf).expect("a file");
    RedisServer::with(&[&file.display().to_string()])
}

fn replace(file: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(file).expect("a file");
    assert!(text.contains(from), "{from} is not in {}", file.display());
    std::fs::write(file, text.replace(from, to)).expect("it is written");
}

/// Clients read through nginx and Varnish, while events are published there.
async fn a_cohort_reads_everything(set_up: &SetUp) {
    let wanted: String = (1..=EVENTS).map(|number| format!("{number}\n")).collect();
    let count = EVENTS.to_string();
    let reads = async {
        let words = ["tail", "prices", "--after", "0-0", "--count", &count];
        let all = (0..CLIENTS).map(|_| set_up.headwater(&words, None));
        // Each client is a process of its own, so they run at the same time.
        for read in futures_util::future::join_all(all).await {
            assert_eq!(read.unwrap(), wanted);
        }
    };
    let publishes = async {
        for number in 1..=EVENTS {
            set_up.publish("prices", &number.to_string()).await.unwrap();
            sleep(PAUSE).await;
        }
    };
    timeout(PATIENCE, async { tokio::join!(reads, publishes) })
        .await
        .expect("they have everything");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_parts_of_the_compose_file_work_together() {
    let _quiet = crate::kit::quiet().await;
    let mut set_up = SetUp::start().await;
    let refused = set_up.headwater(&["publish", "prices", "x"], None).await.unwrap_err();
    assert!(refused.contains("A valid token is needed"), "{refused}");
    a_cohort_reads_everything(&set_up).await;

    // One origin has got all requests for the channel, and each of them once.
    let at = usize::from(set_up.taps[0].asked().iter().all(|asked| asked.cursor.is_none()));
    assert!(set_up.taps[1 - at].asked().iter().all(|asked| asked.cursor.is_none()));
    let asked = set_up.asked();
    for (index, later) in asked.iter().enumerate() {
        let earlier = asked[..index].iter().find(|earlier| earlier.answers(later));
        assert!(earlier.is_none(), "{later:?} was sent though the answer to {earlier:?} is fresh");
    }
    let segments = (asked[asked.len() - 1].at - asked[0].at) / 2_000;
    let allowed = 2 * segments as usize + 3;
    assert!(segments > 2 && asked.len() <= allowed, "{} requests: {asked:#?}", asked.len());

    let addresses = set_up.origins.each_ref().map(|origin| origin.admin.to_string());
    let prometheus = Prometheus::with(
        "deploy/compose/prometheus.yml",
        &[("172.29.84.11:8081", addresses[0].clone()), ("172.29.84.12:8081", addresses[1].clone())],
    );
    let traffic = async {
        loop {
            set_up.publish("prices", "x").await.unwrap();
            let words = ["tail", "prices", "--after", "0-0", "--count", "1"];
            set_up.headwater(&words, None).await.unwrap();
        }
    };
    let answered = async {
        tokio::select! {
            () = traffic => unreachable!("the traffic does not end"),
            () = prometheus.answers_the_dashboard() => {}
        }
    };
    timeout(PATIENCE, answered).await.expect("every query of the dashboard has an answer");
    let firing = prometheus.firing().await;
    assert!(firing.is_empty(), "{firing:?} without any fault");

    restart(&mut set_up, at, &prometheus).await;

    // Without its origin the channel is served by the other one.
    set_up.origins[at].kill();
    let words = ["tail", "prices", "--after", "0-0", "--count", "60"];
    let read = timeout(PATIENCE, set_up.headwater(&words, None)).await.expect("it ends").unwrap();
    assert_eq!(read.lines().count(), EVENTS);
    // Until a probe has failed, a publish may be sent to the dead origin, and is refused.
    let publishes = async {
        while set_up.publish("prices", "later").await.is_err() {
            sleep(PAUSE).await;
        }
    };
    timeout(PATIENCE, publishes).await.expect("the other origin takes publishes");
    prometheus.fires("HeadwaterDown").await;
}

/// A planned restart of an origin refuses no publish. Afterwards it has its channels again, and no
/// alert fires.
async fn restart(set_up: &mut SetUp, at: usize, prometheus: &Prometheus) {
    // A stream would keep the origin alive until its boundary. Without one it lives for
    // --drain-delay, in which Varnish must notice that it is not ready.
    let ends = async {
        while set_up.origins[at].metric("headwater_streams_open").await > 0.0 {
            sleep(PAUSE).await;
        }
    };
    timeout(PATIENCE, ends).await.expect("no client reads");
    set_up.origins[at].signal("TERM");
    let (ended, mut published) = (AtomicBool::new(false), 0);
    let ends = async {
        let pid = set_up.origins[at].pid();
        let stat = format!("/proc/{pid}/stat");
        // The kit collects the ended process below, and until then it is a zombie.
        while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            sleep(PAUSE).await;
        }
        ended.store(true, Ordering::Relaxed);
    };
    let publishes = async {
        while !ended.load(Ordering::Relaxed) {
            set_up.publish("prices", "drain").await.unwrap();
            published += 1;
        }
    };
    timeout(PATIENCE, async { tokio::join!(ends, publishes) }).await.expect("it ends");
    assert!(published > 2, "{published} publishes prove little");
    assert!(set_up.origins[at].ended().await.success());
    // Varnish knows already that this origin is gone.
    for _ in 0..20 {
        set_up.publish("prices", "without").await.unwrap();
    }
    set_up.origins[at].start_again();
    let before = set_up.requests(at);
    let returns = async {
        while set_up.requests(at) == before || !prometheus.firing().await.is_empty() {
            set_up.publish("prices", "again").await.unwrap();
            sleep(PAUSE).await;
        }
    };
    timeout(PATIENCE, returns).await.expect("the origin has its channels again");
}
