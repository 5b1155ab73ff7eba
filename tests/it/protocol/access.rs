//! Access rights: which clients may publish and which may subscribe.

use crate::kit::edge::{Cache, Tap, edge};
use crate::kit::redis::free_port;
use crate::kit::{Answer, BINARY, Origin, request};
use headwater::client::Signal;
use hyper::Method;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

pub const SECRET: &str = "a secret of at least thirty-two bytes";
const EDGE_SECRET: &str = "the edge and the origin know this";

pub fn minted(words: &[&str]) -> String {
    let output =
        Command::new(BINARY).arg("token").args(["--token-secret", SECRET]).args(words).output();
    let output = output.expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

pub fn signed(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
    encode(&Header::new(algorithm), claims, key).expect("it is signed")
}

pub fn in_an_hour() -> u64 {
    crate::kit::now_ms() / 1_000 + 3_600
}

pub async fn publish(origin: &Origin, channel: &str, token: Option<&str>) -> Answer {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<_> = bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
    origin.post(&format!("/channels/{channel}"), &headers, "x").await
}

fn slug(answer: &Answer) -> String {
    answer.json()["type"].as_str().expect("a type").rsplit(':').next().expect("a slug").to_owned()
}

#[test]
fn without_a_key_serve_listens_on_loopback_unless_open_publish_is_set() {
    let start = |flags: &[&str]| {
        let fixed = ["5", BINARY, "serve", "--store", "memory", "--admin-listen", "127.0.0.1:0"];
        let output = Command::new("timeout").args(fixed).args(flags).output().expect("it starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (status, why) = start(&["--listen", "0.0.0.0:0"]);
    assert_eq!(status, Some(2), "{why}");
    assert!(why.contains("--open-publish") && why.contains("--token-secret"), "{why}");
    // Exit status 0: the origin served until it received the signal to stop.
    for flags in [
        &["--listen", "127.0.0.1:0"][..],
        &["--listen", "[::1]:0"],
        &["--listen", "0.0.0.0:0", "--open-publish"],
        &["--listen", "0.0.0.0:0", "--token-secret", SECRET],
    ] {
        let (status, why) = start(flags);
        assert!(why.contains("channels on http://"), "{flags:?} {status:?}: {why}");
    }
}

#[test]
fn an_invalid_secret_flag_is_named_and_its_value_is_not_printed() {
    let long = format!("@{}", "missing");
    for (flags, wanted) in [
        (&["--token-secret", "short"][..], "--token-secret"),
        (&["--token-secret", &long], "--token-secret"),
        (&["--token-key", "Cargo.toml"], "--token-key"),
        (&["--token-key", "nowhere.pem"], "--token-key"),
        (&["--edge-auth", "short"], "--edge-auth"),
        (&["--private", "a"], "--private"),
        (&["--token-secret", SECRET, "--private", "a*"], "--private"),
    ] {
        let output = Command::new(BINARY).args(["serve", "--store", "memory"]).args(flags).output();
        let output = output.expect("it starts");
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && why.contains(wanted), "{flags:?}: {why}");
        assert!(!why.contains("\"short\"") && !why.contains(SECRET), "{why}");
    }
    let mut help = Command::new(BINARY);
    help.args(["serve", "--help"]).env("HEADWATER_TOKEN_SECRET", SECRET);
    let help = help.env("HEADWATER_EDGE_AUTH", EDGE_SECRET).output().expect("it starts");
    let help = String::from_utf8_lossy(&help.stdout);
    assert!(help.contains("HEADWATER_TOKEN_SECRET") && !help.contains(SECRET), "{help}");
    assert!(!help.contains(EDGE_SECRET), "{help}");
}

#[tokio::test]
async fn with_a_key_a_publish_needs_a_token_that_grants_it() {
    let origin = Origin::with(&["--store", "memory", "--token-secret", SECRET]);
    let good = minted(&["--publish", "prices.*"]);
    assert_eq!(publish(&origin, "prices.eur", Some(&good)).await.status, 201);
    let none = publish(&origin, "prices.eur", None).await;
    assert_eq!((none.status.as_u16(), slug(&none).as_str()), (401, "token"));
    assert_eq!(none.header("www-authenticate"), Some("Bearer"));
    let other = publish(&origin, "news", Some(&good)).await;
    assert_eq!((other.status.as_u16(), slug(&other).as_str()), (403, "scope"));
    // RFC 6750, section 3.1.
    let challenge = "Bearer error=\"insufficient_scope\", scope=\"publish:news\"";
    assert_eq!(other.header("www-authenticate"), Some(challenge));
    let reader = minted(&["--subscribe", "*"]);
    assert_eq!(publish(&origin, "prices.eur", Some(&reader)).await.status, 403);
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let expired =
        signed(Algorithm::HS256, &key, &json!({ "exp": 1_700_000_000, "scope": "publish:*" }));
    let expired = publish(&origin, "prices.eur", Some(&expired)).await;
    assert_eq!(expired.status, 401);
    assert!(expired.body.contains("expired"), "{}", expired.body);
    assert_eq!(expired.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
    // The origin accepts no cookie here, because a cookie would let other sites publish, and no
    // query, because URLs are written into logs.
    let cookie = format!("headwater={good}");
    let by_cookie = origin.post("/channels/prices.eur", &[("cookie", &cookie)], "x").await;
    assert_eq!(by_cookie.status, 401);
    let path = format!("/channels/prices.eur?access_token={good}");
    assert_eq!(origin.post(&path, &[], "x").await.status, 401);
    assert_eq!(origin.request(Method::DELETE, "/channels/prices.eur", &[], "").await.status, 401);
    // None of the refused publishes was stored, and reading needs no token.
    let page = origin.get("/channels/prices.eur/history").await.json();
    assert_eq!(page["events"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_private_channel_needs_a_token_or_the_edge_secret() {
    let flags = ["--store", "memory", "--token-secret", SECRET, "--private", "desk.*,secret"];
    let edge = ["--edge-auth", EDGE_SECRET, "--edge-auth", "the one that is to come after it"];
    let origin = Origin::with(&[&flags[..], &edge].concat());
    let token = minted(&["--subscribe", "desk.*", "--publish", "*"]);
    assert_eq!(publish(&origin, "desk.a", Some(&token)).await.status, 201);
    let (bearer, cookie) = (format!("Bearer {token}"), format!("a=b; headwater={token}"));
    for path in [
        "/channels/desk.a?mode=hold&after=0-0",
        "/channels/desk.a/history",
        "/channels/desk.a/state",
    ] {
        let refused = origin.get(path).await;
        assert_eq!(refused.status, 401, "{path}");
        assert_eq!(refused.header("cache-control"), Some("no-store"), "{path}");
        let glue = if path.contains('?') { '&' } else { '?' };
        let with_query = format!("{path}{glue}access_token={token}");
        for (path, headers) in [
            (path, vec![("authorization", bearer.as_str())]),
            (path, vec![("cookie", cookie.as_str())]),
            (with_query.as_str(), vec![]),
        ] {
            let answer = origin.request(Method::GET, path, &headers, "").await;
            assert_eq!(answer.status, 200, "{path} {headers:?}: {}", answer.body);
            assert_eq!(answer.header("cache-control"), Some("private, no-store"), "{path}");
        }
        for secret in [EDGE_SECRET, "the one that is to come after it"] {
            let headers = [("headwater-edge-auth", secret)];
            let answer = origin.request(Method::GET, path, &headers, "").await;
            assert_eq!(answer.status, 200);
            assert!(
                answer.header("cache-control").unwrap().starts_with("public, max-age="),
                "{path}"
            );
        }
        let wrong = [("headwater-edge-auth", "the edge and the origin know thas")];
        assert_eq!(origin.request(Method::GET, path, &wrong, "").await.status, 401);
    }
    // A stream of several channels needs a right to each private channel; a public channel needs
    // none.
    let get = async |path: &str| {
        let path = format!("{path}?mode=hold&after=0-0_0-0&access_token={token}");
        origin.get(&path).await.status.as_u16()
    };
    assert_eq!(get("/channels/desk.a,open").await, 200);
    assert_eq!(get("/channels/desk.a,secret").await, 403);
    assert_eq!(origin.request(Method::HEAD, "/channels/open", &[], "").await.status, 200);
}

#[tokio::test]
async fn an_invalid_token_gets_401_and_an_expired_one_is_shed() {
    let flags = ["--store", "memory", "--token-secret", SECRET, "--private", "*"];
    let origin = Origin::with(&flags);
    let mut source = origin.source("/channels/a?access_token=a.b.c", None);
    let Signal::Closed { status, .. } = source.next().await else { panic!("it goes on") };
    assert_eq!(status.map(|status| status.as_u16()), Some(401));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let expired =
        signed(Algorithm::HS256, &key, &json!({ "exp": 1_700_000_000, "scope": "subscribe:*" }));
    let path = format!("/channels/a?access_token={expired}");
    let answer = origin.get(&path).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("headwater-shed"), Some("token-expired"));
    assert_eq!(answer.header("cache-control"), Some("private, no-store"));
    assert!(answer.body.contains("retry: "), "{}", answer.body);
    let headers = [("accept", "application/json")];
    assert_eq!(origin.request(Method::GET, &path, &headers, "").await.status, 401);
}

/// Makes a key pair with openssl. Returns the private key and the path of the public key.
pub fn key_pair(directory: &std::path::Path, name: &str, algorithm: &[&str]) -> (Vec<u8>, String) {
    let private = directory.join(format!("{name}.key")).display().to_string();
    let public = directory.join(format!("{name}.pem")).display().to_string();
    let run = |words: &[&str]| {
        let output = Command::new("openssl").args(words).output().expect("openssl runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run(&[&["genpkey", "-out", &private, "-algorithm"], algorithm].concat());
    run(&["pkey", "-in", &private, "-pubout", "-out", &public]);
    (std::fs::read(&private).expect("a key"), public)
}

#[tokio::test]
async fn public_keys_of_all_three_kinds_are_taken() {
    let directory = tempfile::tempdir().unwrap();
    let (rsa, rsa_file) =
        key_pair(directory.path(), "rsa", &["RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
    let (ec, ec_file) =
        key_pair(directory.path(), "ec", &["EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let (ed, ed_file) = key_pair(directory.path(), "ed", &["ED25519"]);
    let files = [&rsa_file, &ec_file, &ed_file].map(|file| ["--token-key", file.as_str()]).concat();
    let origin = Origin::with(&[&["--store", "memory"], &files[..]].concat());
    let claims = json!({ "exp": in_an_hour(), "scope": "publish:*" });
    for (algorithm, key) in [
        (Algorithm::RS256, EncodingKey::from_rsa_pem(&rsa).unwrap()),
        (Algorithm::ES256, EncodingKey::from_ec_pem(&ec).unwrap()),
        (Algorithm::EdDSA, EncodingKey::from_ed_pem(&ed).unwrap()),
    ] {
        let token = signed(algorithm, &key, &claims);
        assert_eq!(publish(&origin, "a", Some(&token)).await.status, 201, "{algorithm:?}");
    }
    let stranger = key_pair(directory.path(), "other", &["ED25519"]).0;
    let token = signed(Algorithm::EdDSA, &EncodingKey::from_ed_pem(&stranger).unwrap(), &claims);
    assert_eq!(publish(&origin, "a", Some(&token)).await.status, 401);
}

#[tokio::test]
async fn a_new_key_in_the_jwks_is_fetched_soon() {
    use jsonwebtoken::jwk::Jwk;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("jwks.json");
    let key = |name: &str| {
        let (private, _) =
            key_pair(directory.path(), name, &["RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
        let key = EncodingKey::from_rsa_pem(&private).unwrap();
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::RS256).unwrap();
        jwk.common.key_id = Some(name.to_owned());
        (key, serde_json::to_value(&jwk).unwrap())
    };
    let ((first, first_jwk), (second, second_jwk)) = (key("first"), key("second"));
    std::fs::write(&file, json!({ "keys": [first_jwk] }).to_string()).unwrap();
    let origin = Origin::with(&["--store", "memory", "--token-jwks", &file.display().to_string()]);
    let token = |key: &EncodingKey, id: &str| {
        let header = Header { kid: Some(id.to_owned()), ..Header::new(Algorithm::RS256) };
        encode(&header, &json!({ "exp": in_an_hour(), "scope": "publish:*" }), key).unwrap()
    };
    let becomes_known = async |token: &str| {
        while publish(&origin, "a", Some(token)).await.status != 201 {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let (old, new) = (token(&first, "first"), token(&second, "second"));
    tokio::time::timeout(crate::kit::PATIENCE, becomes_known(&old)).await.expect("it is read");
    assert_eq!(publish(&origin, "a", Some(&new)).await.status, 401);
    std::fs::write(&file, json!({ "keys": [second_jwk] }).to_string()).unwrap();
    tokio::time::timeout(crate::kit::PATIENCE, becomes_known(&new))
        .await
        .expect("it is read again");
    assert_eq!(publish(&origin, "a", Some(&old)).await.status, 401);
    // The keys stay in use while they cannot be fetched. An unknown key leads to a fetch.
    std::fs::write(&file, "no keys").unwrap();
    let fails = async {
        while origin.logged("the keys of tokens cannot be fetched") == 0 {
            assert_eq!(publish(&origin, "a", Some(&old)).await.status, 401);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(crate::kit::PATIENCE, fails).await.expect("it says so");
    assert_eq!(publish(&origin, "a", Some(&new)).await.status, 201);
    origin.becomes(200).await;
}

// protocol §16.7
#[tokio::test]
async fn behind_varnish_a_private_channel_is_passed_and_never_shared() {
    let flags = ["--store", "memory", "--token-secret", SECRET, "--private", "desk.*,secret"];
    let origin = Origin::with(&flags);
    let address = origin.listen.to_string();
    let words = ["varnish", "--origin", &address, "--private", "desk.*,secret"];
    let cache = Cache::varnish_with(&edge(&words));
    let token = minted(&["--subscribe", "*", "--publish", "*"]);
    for channel in ["desk.a", "secret", "secret2", "open"] {
        assert_eq!(publish(&origin, channel, Some(&token)).await.status, 201);
    }
    let get = async |path: &str, headers: &[(&str, &str)]| {
        let address = cache.address();
        request(&address, Method::GET, path, headers, "".into()).await.expect("an answer")
    };
    let (bearer, cookie) = (format!("Bearer {token}"), format!("headwater={token}"));
    for path in
        ["/channels/desk.a?mode=hold&after=0-0", "/channels/open,secret?mode=hold&after=0-0_0-0"]
    {
        let with_query = format!("{path}&access_token={token}");
        for (path, headers) in [
            (path, vec![("authorization", bearer.as_str())]),
            (path, vec![("cookie", cookie.as_str())]),
            (with_query.as_str(), vec![]),
        ] {
            let answer = get(path, &headers).await;
            assert_eq!(answer.status, 200, "{path} {headers:?}: {}", answer.body);
            assert_eq!(answer.header("cache-control"), Some("private, no-store"));
            assert_eq!(answer.header("cache-status"), Some("headwater-varnish; fwd=bypass"));
        }
        // A client without a token receives nothing from the cache.
        assert_eq!(get(path, &[]).await.status, 401, "{path}");
    }
    // A channel whose name only begins like a private one is public, and its answers are shared.
    for expected in ["fwd=uri-miss", "hit"] {
        let answer = get("/channels/secret2?mode=hold&after=0-0", &[("cookie", &cookie)]).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("cache-status"), Some(&*format!("headwater-varnish; {expected}")));
    }
}

/// nginx with the recipe of docs/security.md; the same nginx also plays the authorization service.
fn guarding_nginx(varnish_port: u16) -> Cache {
    let text = std::fs::read_to_string("docs/security.md").expect("it is there");
    let recipe = text.split("```text\n").find(|block| block.contains("auth_request"));
    let recipe = recipe.and_then(|block| block.split("```").next()).expect("the recipe");
    let service = free_port();
    let recipe = recipe
        .replace("what is in edge-secret", EDGE_SECRET)
        .replace("127.0.0.1:6081", &format!("127.0.0.1:{varnish_port}"))
        .replace("127.0.0.1:9000", &format!("127.0.0.1:{service}"));
    Cache::nginx_own(|port| {
        format!(
            r#"events {{}}
http {{
    server {{
        listen 127.0.0.1:{port};
        {recipe}
        location / {{ proxy_pass http://127.0.0.1:{varnish_port}; }}
    }}
    server {{
        listen 127.0.0.1:{service};
        location / {{
            if ($cookie_session != "good") {{ return 403; }}
            return 200;
        }}
    }}
}}"#
        )
    })
}

#[tokio::test]
async fn clients_that_nginx_has_checked_share_one_origin_request() {
    let keys = ["--token-secret", SECRET, "--edge-auth", EDGE_SECRET];
    let origin = Origin::with(&[&["--store", "memory", "--private", "desk.*"], &keys[..]].concat());
    let tap = Tap::to(origin.listen.port()).await;
    let cache = Cache::varnish(tap.port);
    let front = guarding_nginx(cache.port);
    let token = minted(&["--publish", "*"]);
    publish(&origin, "desk.a", Some(&token)).await;
    let get = async |path: &str, cookie: &str| {
        let headers = [("cookie", cookie), ("authorization", "Bearer x")];
        let address = front.address();
        request(&address, Method::GET, path, &headers, "".into()).await.expect("an answer")
    };
    let path = "/channels/desk.a?mode=hold&after=0-0";
    for cookie in ["session=good; name=ann", "name=bob; session=good"] {
        let answer = get(path, cookie).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(answer.body.contains("data: "), "{}", answer.body);
        assert_eq!(answer.header("cache-control"), Some("private, no-store"));
        let response = answer.header("headwater-response").expect("a name");
        assert!(!response.contains("cookie"), "{response}");
    }
    assert_eq!(tap.count(), 1, "{:?}", tap.asked());
    for cookie in ["session=bad", "name=session=good"] {
        let answer = get(path, cookie).await;
        assert_eq!((answer.status.as_u16(), answer.body.contains("data: ")), (403, false));
    }
    // The origin itself decides about requests that the recipe does not vouch for.
    for path in ["/channels/desk.a,desk.b?mode=hold", "/channels/x,desk.a?mode=hold&after=0-0_0-0"]
    {
        assert_eq!(get(path, "session=good").await.status, 401, "{path}");
    }
}

/// Returns the status with which a private channel answers a reader that sends this query and these
/// headers.
async fn read_private(origin: &Origin, query: &str, headers: &[(&str, &str)]) -> u16 {
    let path = format!("/channels/p/history{query}");
    origin.request(Method::GET, &path, headers, "").await.status.as_u16()
}

#[tokio::test]
async fn a_token_in_the_request_takes_precedence_over_cookies() {
    let flags = ["--store", "memory", "--token-secret", SECRET, "--private", "p"];
    let origin = Origin::with(&flags);
    let good = minted(&["--subscribe", "p"]);
    let (bearer, query) = (format!("Bearer {good}"), format!("?access_token={good}"));
    let (stale, own) = ("headwater=stale", format!("headwater={good}"));
    let check = async |query: &str, headers: &[(&str, &str)], expected: u16| {
        assert_eq!(read_private(&origin, query, headers).await, expected, "{query} {headers:?}");
    };
    check("", &[("authorization", &bearer), ("cookie", stale)], 200).await;
    check(&query, &[("cookie", stale)], 200).await;
    check("", &[("cookie", &own)], 200).await;
    // A browser sends both cookies if their paths differ, the one with the longer path first.
    check("", &[("cookie", &format!("{stale}; {own}"))], 200).await;
    check("", &[("cookie", &format!("{own}; {stale}"))], 200).await;
    check("", &[("cookie", stale)], 401).await;
    // The first token that the client states explicitly decides.
    check(&query, &[("authorization", "Bearer x")], 401).await;
    check("?access_token=x", &[("cookie", &own)], 401).await;
    // The same precedence holds on a WebSocket.
    let subscribed = async |query: &str, headers: &[(&'static str, &str)]| {
        let path = format!("/ws{query}");
        let socket = crate::kit::socket::Socket::connect_with(origin.listen, &path, headers).await;
        let mut socket = socket.expect("a handshake");
        let frames = socket.subscribe("p", None).await;
        frames[frames.len() - 1]["type"].as_str().expect("a type").to_owned()
    };
    assert_eq!(subscribed(&query, &[("cookie", stale)]).await, "ack");
    let both = format!("{stale}; {own}");
    assert_eq!(subscribed("", &[("cookie", &both)]).await, "ack");
    let offered = format!("headwater, bearer.{good}");
    let offered = [("sec-websocket-protocol", offered.as_str())];
    assert_eq!(subscribed("?access_token=x", &offered).await, "ack");
}

#[tokio::test]
async fn the_error_names_the_invalid_claim_of_a_signed_token() {
    let flags = ["--store", "memory", "--token-secret", SECRET, "--private", "p"];
    let origin = Origin::with(&flags);
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let token = |claims: Value| signed(Algorithm::HS256, &key, &claims);
    for (claims, expected) in [
        (json!({ "exp": in_an_hour(), "sub": 42, "scope": "subscribe:p" }), "\"sub\" is no string"),
        (json!({ "exp": in_an_hour(), "scope": 42 }), "\"scope\" is neither"),
        (json!({ "scope": "subscribe:p" }), "\"exp\" is missing"),
    ] {
        let bearer = format!("Bearer {}", token(claims));
        let headers = [("authorization", bearer.as_str())];
        let answer = origin.request(Method::GET, "/channels/p/history", &headers, "").await;
        let problem = answer.assert_problem(401, "token");
        let detail = problem["detail"].as_str().expect("text");
        assert!(
            detail.contains("signed by a key of this origin") && detail.contains(expected),
            "{detail}"
        );
    }
    let listed = token(json!({ "exp": in_an_hour(), "scope": ["subscribe:*", "publish:p"] }));
    let bearer = format!("Bearer {listed}");
    assert_eq!(read_private(&origin, "", &[("authorization", &bearer)]).await, 200);
    assert_eq!(publish(&origin, "p", Some(&listed)).await.status, 201);
    // The error for a reader without a token names the places that a browser can use.
    let answer = origin.get("/channels/p/history").await;
    let problem = answer.assert_problem(401, "token");
    let detail = problem["detail"].as_str().expect("text");
    assert!(detail.contains("cookie") && detail.contains("?access_token="), "{detail}");
}
