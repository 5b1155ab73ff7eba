//! Redis over TLS: a private authority, certificates of the origin, and mistakes with either.

use crate::kit::authority::{Authority, LOCAL};
use crate::kit::redis::{Cluster, RedisServer, Sentinels, free_port, wait_until};
use crate::kit::{BINARY, Origin, PATIENCE, next_message};
use std::process::Command;
use tokio::time::timeout;

/// A server that also listens with TLS, and the address there.
struct TlsServer {
    server: RedisServer,
    url: String,
}

impl TlsServer {
    /// Starts a server with this certificate and key. `clients` says whether clients need a
    /// certificate of the authority (`yes`, `no`).
    fn start(authority: &Authority, (certificate, key): &(String, String), clients: &str) -> Self {
        let (port, ca) = (free_port().to_string(), authority.path("ca.pem"));
        let url = format!("rediss://127.0.0.1:{port}");
        let server = RedisServer::with(
            &[
                &["--appendonly", "yes", "--tls-port", &port],
                &flags(&ca, certificate, key, clients)[..],
            ]
            .concat(),
        );
        Self { server, url }
    }
}

fn flags<'a>(ca: &'a str, certificate: &'a str, key: &'a str, clients: &'a str) -> [&'a str; 8] {
    let files = ["--tls-ca-cert-file", ca, "--tls-cert-file", certificate, "--tls-key-file", key];
    let [a, b, c, d, e, f] = files;
    [a, b, c, d, e, f, "--tls-auth-clients", clients]
}

#[tokio::test]
async fn a_private_authority_and_a_client_certificate_work() {
    let authority = Authority::new();
    let (of_redis, (certificate, key)) =
        (authority.sign("redis", LOCAL), authority.sign("origin", "basicConstraints=CA:FALSE"));
    let mut redis = TlsServer::start(&authority, &of_redis, "yes");
    let ca = authority.path("ca.pem");
    let files = ["--redis-ca", &ca, "--redis-cert", &certificate, "--redis-key", &key];
    let origin = Origin::with(&[&["--store", &redis.url], &files[..]].concat());
    let mut source = origin.source("/channels/a?after=0-0", None);
    let mut ids = vec![origin.publish("a", "before").await];
    assert_eq!(next_message(&mut source).await.data, "before");
    // The connections are opened again, with the same files.
    redis.server.kill();
    redis.server.start_again();
    origin.becomes(200).await;
    ids.push(origin.publish("a", "after").await);
    assert_eq!(next_message(&mut source).await.data, "after");
    let log: Vec<_> = origin.log("a").await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(log, ids);
    // Each of its five connections uses TLS.
    let port = redis.url.rsplit(':').next().unwrap();
    wait_until("all connections are there again", || {
        let clients = redis.server.command(&["CLIENT", "LIST", "TYPE", "normal"]);
        clients.matches(&format!("laddr=127.0.0.1:{port} ")).count() == 5
    });
}

#[tokio::test]
async fn a_cluster_over_tls_works() {
    let authority = Authority::new();
    let (certificate, key) = authority.sign("redis", LOCAL);
    let ca = authority.path("ca.pem");
    let cluster = Cluster::with(0, || {
        let port =
            ["--tls-cluster", "yes", "--tls-port", &free_port().to_string()].map(str::to_owned);
        let files = flags(&ca, &certificate, &key, "no").map(str::to_owned);
        [&port[..], &files[..]].concat()
    });
    let port = |node: &RedisServer| {
        let said = node.command(&["CONFIG", "GET", "tls-port"]);
        said.lines().last().expect("a port").to_owned()
    };
    let url = format!("rediss-cluster://127.0.0.1:{}", port(&cluster.nodes[0]));
    let origin = Origin::with(&["--store", &url, "--redis-ca", &ca]);
    for channel in ["a", "b", "c", "d", "e", "f"] {
        let id = origin.publish(channel, "x").await;
        assert_eq!(origin.log(channel).await, [(id, "x".to_owned())]);
    }
    // The nodes that the first one names are used over TLS, too.
    let used = cluster.nodes.iter().filter(|node| {
        let clients = node.command(&["CLIENT", "LIST", "TYPE", "normal"]);
        clients.contains(&format!("laddr=127.0.0.1:{} ", port(node)))
    });
    assert_eq!(used.count(), 3);
}

/// The sentinels, the servers and the origin reach each other over TLS only, with certificates on
/// both sides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_over_tls_work_and_fail_over() {
    let authority = Authority::new();
    let (of_redis, of_origin) =
        (authority.sign("redis", LOCAL), authority.sign("origin", "basicConstraints=CA:FALSE"));
    let ca = authority.path("ca.pem");
    let mut sentinels = Sentinels::with(|| {
        let port = ["--tls-replication", "yes", "--tls-port", &free_port().to_string()];
        let files = flags(&ca, &of_redis.0, &of_redis.1, "yes");
        port.iter().chain(&files).map(|word| (*word).to_owned()).collect()
    });
    let url = sentinels.url();
    assert!(url.starts_with("rediss-sentinel://"), "{url}");
    let (certificate, key) = of_origin;
    let files = ["--redis-ca", &ca, "--redis-cert", &certificate, "--redis-key", &key];
    let origin = Origin::with(&[&["--store", &url], &files[..]].concat());
    let mut source = origin.source("/channels/a?after=0-0", None);
    let before = origin.publish("a", "before").await;
    assert_eq!(next_message(&mut source).await.data, "before");
    sentinels.fail_over();
    // A publish is refused until the origin has found the new master.
    let published = async {
        loop {
            let answer = origin.post("/channels/a", &[], "after").await;
            if answer.status == 201 {
                return answer.json()["id"].as_str().expect("an id").to_owned();
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    let after = timeout(2 * PATIENCE, published).await.expect("the new master is found");
    let log: Vec<_> = origin.log("a").await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(log, [before, after]);
    // The connections to the new master use TLS.
    let replica = &sentinels.replica;
    let port = replica.command(&["CONFIG", "GET", "tls-port"]);
    let port = port.lines().last().expect("a port");
    let clients = replica.command(&["CLIENT", "LIST", "TYPE", "normal"]);
    assert!(clients.contains(&format!("laddr=127.0.0.1:{port} ")), "{clients}");
}

/// Starts an origin, and waits until `/readyz` and its log name this cause.
async fn is_explained(flags: &[&str], cause: &str) {
    let origin = Origin::with(&[&["--store-timeout", "1s"], flags].concat());
    let said = async {
        while !origin.becomes(503).await.contains(cause) || origin.logged(cause) == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    assert!(timeout(PATIENCE, said).await.is_ok(), "{cause}: {}", origin.becomes(503).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_does_not_fit_is_named() {
    let (authority, other) = (Authority::new(), Authority::new());
    let of_redis = authority.sign("redis", LOCAL);
    let of_another_host = authority.sign("elsewhere", "subjectAltName=DNS:redis.example");
    let (redis, elsewhere, strict) = (
        TlsServer::start(&authority, &of_redis, "no"),
        TlsServer::start(&authority, &of_another_host, "no"),
        TlsServer::start(&authority, &of_redis, "yes"),
    );
    let (ca, other_ca) = (authority.path("ca.pem"), other.path("ca.pem"));
    let (certificate, key) = other.sign("origin", "basicConstraints=CA:FALSE");
    let with_ca = |server: &TlsServer| {
        ["--store".to_owned(), server.url.clone(), "--redis-ca".to_owned(), ca.clone()]
    };
    let words = |words: &[String]| words.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
    let cases = [
        (words(&with_ca(&redis)[..2]), "name the file of its authority in --redis-ca"),
        (
            format!("--store\n{}\n--redis-ca\n{other_ca}", redis.url),
            "name the file of its authority in --redis-ca",
        ),
        (words(&with_ca(&elsewhere)), "its certificate is for another name"),
        (words(&with_ca(&strict)), "name its files in --redis-cert and --redis-key"),
        (
            format!(
                "{}\n--redis-cert\n{certificate}\n--redis-key\n{key}",
                words(&with_ca(&strict))
            ),
            "the server refuses the certificate in --redis-cert",
        ),
    ];
    let checks = cases.iter().map(async |(flags, cause)| {
        is_explained(&flags.lines().collect::<Vec<_>>(), cause).await;
    });
    futures_util::future::join_all(checks).await;
    // Without the mistakes, the same server is used.
    let flags = with_ca(&redis);
    Origin::with(&flags.each_ref().map(String::as_str)).publish("a", "x").await;
}

#[test]
fn a_mistake_in_the_files_is_found_before_the_start() {
    let authority = Authority::new();
    let (certificate, key) = authority.sign("origin", "basicConstraints=CA:FALSE");
    let (_, other_key) = authority.sign("other", "basicConstraints=CA:FALSE");
    let url = "rediss://127.0.0.1:1";
    let cases: [(&[&str], &str); 5] = [
        (&["--store", url, "--redis-ca", &key], "--redis-ca: no certificate can be read from"),
        (
            &["--store", "redis://127.0.0.1:1", "--redis-ca", &certificate],
            "begin --store with rediss://",
        ),
        (
            &["--store", "memory", "--redis-cert", &certificate, "--redis-key", &key],
            "--redis-cert is for connections with TLS",
        ),
        (
            &["--store", url, "--redis-cert", &certificate, "--redis-key", &other_key],
            "do not belong together",
        ),
        (&["--store", url, "--redis-cert", &certificate], "--redis-key"),
    ];
    for (flags, expected) in cases {
        let mut command = Command::new(BINARY);
        let output =
            command.args(["config", "check"]).args(flags).env("HEADWATER_CONFIG", "").output();
        let output = output.expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(expected), "{flags:?}: {said}");
    }
}
