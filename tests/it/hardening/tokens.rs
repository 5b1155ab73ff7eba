//! Forged and misused tokens. A token that grants nothing over HTTP grants nothing over a socket
//! either.

use super::{QUIET, assert_calm, assert_sane};
use crate::kit::{BINARY, Origin};
use crate::protocol::access::{SECRET, in_an_hour, key_pair, publish, signed};
use crate::websocket::raw::Peer;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

const ALL: &str = "publish:* subscribe:*";

/// Encodes base64url without padding, as tokens use it (RFC 7515, section 2).
fn base64url(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let letters = bytes.chunks(3).flat_map(|three| {
        let bits = three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - three.len()));
        (0..=three.len()).map(move |place| LETTERS[(bits >> (18 - 6 * place)) as usize & 63])
    });
    letters.map(char::from).collect()
}

fn forged(header: &Value, signature: &[u8]) -> String {
    let claims = json!({ "exp": in_an_hour(), "scope": ALL }).to_string();
    let header = base64url(header.to_string().as_bytes());
    format!("{header}.{}.{}", base64url(claims.as_bytes()), base64url(signature))
}

/// Starts an origin that requires a token for everything.
fn guarded(keys: &[&str]) -> Origin {
    Origin::with(&[&QUIET[..], &["--private", "*"], keys].concat())
}

fn hs256(claims: &Value) -> String {
    signed(Algorithm::HS256, &EncodingKey::from_secret(SECRET.as_bytes()), claims)
}

/// Checks that a token grants nothing, in whatever place it is sent.
async fn assert_worthless(origin: &Origin, token: &str) {
    let shown = &token[..token.len().min(200)];
    assert_eq!(publish(origin, "a", Some(token)).await.status, 401, "{shown}");
    let read = origin.get(&format!("/channels/a/history?access_token={token}")).await;
    assert_eq!(read.status, 401, "{shown}");
    let protocol = format!("headwater, bearer.{token}");
    let bearer = format!("Bearer {token}");
    let cookie = format!("headwater={token}");
    let query = format!("/ws?access_token={token}");
    for (path, header) in [
        (query.as_str(), ("x", "y")),
        ("/ws", ("sec-websocket-protocol", protocol.as_str())),
        ("/ws", ("authorization", &bearer)),
    ] {
        let mut peer = Peer::with(origin, path, &[header]).await;
        let (code, reason) = peer.goodbye().await.expect("a close frame comes");
        assert_eq!(code, 1008, "{shown} as {}: {reason}", header.0);
    }
    // An invalid cookie, which a page may be unable to remove, is ignored and grants nothing.
    let mut peer = Peer::with(origin, "/ws", &[("cookie", &cookie)]).await;
    let answer = peer.ask(r#"{"type":"publish","channel":"a","data":"x"}"#).await;
    assert_eq!(answer["problem"]["status"], 401, "{shown}: {answer}");
}

/// Checks that a good token is accepted, so that the others failed because of what they contain.
async fn assert_good(origin: &Origin, token: &str) {
    assert_eq!(publish(origin, "a", Some(token)).await.status, 201, "{token}");
    let mut peer = Peer::with(origin, &format!("/ws?access_token={token}"), &[]).await;
    let ack = peer.ask(r#"{"type":"publish","channel":"a","data":"x"}"#).await;
    assert_eq!(ack["type"], "ack", "{ack}");
    drop(peer);
    assert_calm(origin).await;
}

#[tokio::test]
async fn a_token_with_alg_none() {
    let origin = guarded(&["--token-secret", SECRET]);
    let good = hs256(&json!({ "exp": in_an_hour(), "scope": ALL }));
    let signature = good.rsplit('.').next().expect("a signature");
    let claims = good.split('.').nth(1).expect("claims");
    for name in ["none", "None", "NONE", "nOnE", "", "HS0", "hs256"] {
        let header = json!({ "alg": name, "typ": "JWT" });
        assert_worthless(&origin, &forged(&header, b"")).await;
        let header = base64url(header.to_string().as_bytes());
        assert_worthless(&origin, &format!("{header}.{claims}.{signature}")).await;
        assert_worthless(&origin, &format!("{header}.{claims}")).await;
    }
    for header in [json!({}), json!({ "alg": null }), json!({ "alg": ["HS256", "none"] })] {
        assert_worthless(&origin, &forged(&header, b"")).await;
    }
    for (from, to) in [(".", ".."), (signature, ""), (signature, "AAAA"), (".", "")] {
        assert_worthless(&origin, &good.replace(from, to)).await;
    }
    assert_good(&origin, &good).await;
}

#[tokio::test]
async fn a_public_key_used_as_a_secret() {
    let directory = tempfile::tempdir().unwrap();
    let rsa = key_pair(directory.path(), "rsa", &["RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
    let ec = key_pair(directory.path(), "ec", &["EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let ed = key_pair(directory.path(), "ed", &["ED25519"]);
    let files = [&rsa.1, &ec.1, &ed.1];
    let flags = files.map(|file| ["--token-key", file.as_str()]).concat();
    let origin = guarded(&flags);
    let claims = json!({ "exp": in_an_hour(), "scope": ALL });
    for file in files {
        let public = std::fs::read(file).unwrap();
        for secret in [public.clone(), public[..public.len() - 1].to_vec()] {
            for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
                let token = signed(algorithm, &EncodingKey::from_secret(&secret), &claims);
                assert_worthless(&origin, &token).await;
            }
        }
    }
    // A key is accepted with its own algorithm only.
    let key = EncodingKey::from_rsa_pem(&rsa.0).unwrap();
    for algorithm in [Algorithm::RS384, Algorithm::RS512, Algorithm::PS256] {
        assert_worthless(&origin, &signed(algorithm, &key, &claims)).await;
    }
    assert_good(&origin, &signed(Algorithm::RS256, &key, &claims)).await;
}

#[tokio::test]
async fn a_signature_of_nothing_and_a_key_that_a_token_brings_along() {
    let directory = tempfile::tempdir().unwrap();
    let ec = key_pair(directory.path(), "ec", &["EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let stranger = key_pair(directory.path(), "x", &["EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let origin = guarded(&["--token-key", &ec.1]);
    let es256 = json!({ "alg": "ES256" });
    for length in [0, 1, 63, 64, 65, 72] {
        assert_worthless(&origin, &forged(&es256, &vec![0; length])).await;
    }
    let key = EncodingKey::from_ec_pem(&stranger.0).unwrap();
    let claims = json!({ "exp": in_an_hour(), "scope": ALL });
    let mut header = Header::new(Algorithm::ES256);
    let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
    header.jwk = Some(jwk);
    header.jku = Some("http://127.0.0.1:9/keys".to_owned());
    header.x5u = header.jku.clone();
    for kid in [None, Some("../../../../dev/null"), Some("' OR 1=1 --"), Some("")] {
        header.kid = kid.map(str::to_owned);
        assert_worthless(&origin, &encode(&header, &claims, &key).unwrap()).await;
    }
    let own = EncodingKey::from_ec_pem(&ec.0).unwrap();
    // A verifier must refuse a token with a critical header that it does not support.
    let good = signed(Algorithm::ES256, &own, &claims);
    let mut critical = Header::new(Algorithm::ES256);
    critical.crit = Some(vec!["exp".to_owned()]);
    assert_worthless(&origin, &encode(&critical, &claims, &own).unwrap()).await;
    assert_good(&origin, &good).await;
}

#[tokio::test]
async fn a_token_for_another_audience() {
    let keys = ["--token-secret", SECRET, "--token-audience", "headwater", "--token-issuer", "us"];
    let origin = guarded(&keys);
    let with = |issuer: Value, audience: Value| {
        hs256(&json!({ "exp": in_an_hour(), "scope": ALL, "iss": issuer, "aud": audience }))
    };
    for audience in [
        json!(null),
        json!(""),
        json!("another"),
        json!("headwater2"),
        json!("Headwater"),
        json!(["another", "headwate"]),
        json!([["headwater"]]),
        json!({ "headwater": true }),
        json!([]),
    ] {
        assert_worthless(&origin, &with(json!("us"), audience)).await;
    }
    for issuer in [json!(null), json!("them"), json!("us "), json!(["us"])] {
        assert_worthless(&origin, &with(issuer, json!("headwater"))).await;
    }
    assert_good(&origin, &with(json!("us"), json!(["another", "headwater"]))).await;
}

#[tokio::test]
async fn a_token_for_another_time() {
    let origin = guarded(&["--token-secret", SECRET]);
    let now = in_an_hour() - 3_600;
    for claims in [
        json!({ "exp": now - 60, "scope": ALL }),
        json!({ "exp": now + 600, "nbf": now + 600, "scope": ALL }),
        json!({ "scope": ALL }),
        json!({ "exp": "tomorrow", "scope": ALL }),
    ] {
        // The test publishes, because a stream with an expired token is shed instead of refused.
        let token = hs256(&claims);
        assert_eq!(publish(&origin, "a", Some(&token)).await.status, 401, "{claims}");
        let mut peer = Peer::with(&origin, &format!("/ws?access_token={token}"), &[]).await;
        assert_eq!(peer.goodbye().await.expect("a close frame comes").0, 1008, "{claims}");
    }
    assert_good(&origin, &hs256(&json!({ "exp": now + 600, "nbf": now - 5, "scope": ALL }))).await;
}

#[tokio::test]
async fn a_scope_that_only_looks_wide() {
    let origin = guarded(&["--token-secret", SECRET]);
    for scope in [
        "",
        "*",
        "publish:",
        "publish:**",
        "publish:a*",
        "publish:A",
        "Publish:*",
        "publish:a.*",
        "publish:b,a",
        "publish: a",
        "subscribe:*",
        "publish:*\u{a0}",
    ] {
        let token = hs256(&json!({ "exp": in_an_hour(), "scope": scope }));
        let refused = publish(&origin, "a", Some(&token)).await;
        assert_eq!(refused.status, 403, "{scope:?}: {}", refused.body);
        let mut peer = Peer::with(&origin, &format!("/ws?access_token={token}"), &[]).await;
        let answer = peer.ask(r#"{"type":"publish","channel":"a","data":"x"}"#).await;
        assert_eq!(answer["problem"]["status"], 403, "{scope:?}: {answer}");
    }
    assert_good(&origin, &hs256(&json!({ "exp": in_an_hour(), "scope": "x publish:a" }))).await;
}

#[tokio::test]
async fn a_token_that_is_huge() {
    let origin = guarded(&["--token-secret", SECRET]);
    let huge = "x".repeat(9_000);
    let token = hs256(&json!({ "exp": in_an_hour(), "scope": ALL, "x": huge }));
    assert_eq!(publish(&origin, "a", Some(&token)).await.status, 401);
    let mut output = std::process::Command::new(BINARY);
    let output = output.args(["token", "--token-secret", SECRET, "--publish", "*"]).output();
    let good = String::from_utf8(output.expect("it starts").stdout).expect("text");
    assert_good(&origin, good.trim()).await;
    let open = Origin::with(&QUIET);
    // An origin that guards nothing refuses no request because of a needless token.
    assert_eq!(publish(&open, "a", Some("a.b.c")).await.status, 201);
    assert_sane(&open, "a", &[]).await;
}

/// Returns the RSA key of a PEM file as a JWK, with these members about its use.
fn rsa_jwk(public: &str, id: &str, uses: &Value) -> Value {
    let words = ["rsa", "-pubin", "-noout", "-modulus", "-in", public];
    let output = std::process::Command::new("openssl").args(words).output().expect("openssl runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let hex = text.trim().strip_prefix("Modulus=").expect("a modulus");
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    let modulus: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
    let mut jwk = json!({ "kty": "RSA", "kid": id, "n": base64url(&modulus), "e": "AQAB" });
    for (name, value) in uses.as_object().expect("an object") {
        jwk[name] = value.clone();
    }
    jwk
}

#[tokio::test]
async fn a_key_of_a_set_that_is_not_for_our_signatures() {
    let directory = tempfile::tempdir().unwrap();
    let rsa = key_pair(directory.path(), "rsa", &["RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
    let uses = [
        ("encrypts", json!({ "use": "enc" })),
        ("wraps", json!({ "key_ops": ["wrapKey", "encrypt"] })),
        ("other", json!({ "alg": "RS512" })),
        ("pss", json!({ "alg": "PS256", "use": "sig" })),
        ("good", json!({ "alg": "RS256", "use": "sig", "key_ops": ["verify"] })),
    ];
    let keys: Vec<_> = uses.iter().map(|(id, uses)| rsa_jwk(&rsa.1, id, uses)).collect();
    let file = directory.path().join("jwks.json");
    std::fs::write(&file, json!({ "keys": keys }).to_string()).unwrap();
    let origin = guarded(&["--token-jwks", file.to_str().unwrap()]);
    let key = EncodingKey::from_rsa_pem(&rsa.0).unwrap();
    let token = |id: &str| {
        let header = Header { kid: Some(id.to_owned()), ..Header::new(Algorithm::RS256) };
        let claims = json!({ "exp": in_an_hour(), "scope": ALL });
        encode(&header, &claims, &key).unwrap()
    };
    origin.becomes(200).await;
    for (id, _) in &uses[..4] {
        assert_worthless(&origin, &token(id)).await;
    }
    assert_good(&origin, &token("good")).await;
}

#[tokio::test]
async fn many_cookies_of_one_name() {
    let origin = guarded(&["--token-secret", SECRET]);
    let good = hs256(&json!({ "exp": in_an_hour(), "scope": ALL }));
    let read = async |place: usize| {
        let bad = ["headwater=bad"; 240];
        let good = format!("headwater={good}");
        let all: Vec<&str> = bad[..place].iter().copied().chain([good.as_str()]).collect();
        let cookie = [("cookie", &*all.join("; "))];
        origin.request(hyper::Method::GET, "/channels/a/history", &cookie, "").await.status.as_u16()
    };
    // Each cookie costs a signature check, so the origin checks only the first few.
    assert_eq!((read(3).await, read(4).await, read(239).await), (200, 401, 401));
}
