//! Tokens. The header and the claims are any text. The target signs them itself, so that the parsers behind
//! the check of the signature are reached, and also tries other signatures.

use crate::input::Input;
use aws_lc_rs::hmac;
use headwater::access::revocation::Revoked;
use headwater::access::scope::{Right, Scope};
use headwater::access::token::{Grant, Key, Requirements, TokenError, verify};
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};

const SECRET: &[u8] = b"a secret of at least thirty-two bytes";
const NOW_S: u64 = 1_795_000_000;
const LEEWAY_S: f64 = 30.0;

struct Known {
    keys: Vec<Key>,
    signing: hmac::Key,
    requirements: [Requirements; 2],
}

fn known() -> &'static Known {
    static KNOWN: OnceLock<Known> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let list = "jti gone\nsub mallory\nbefore 1700000000\n";
        let revoked = Arc::new(Revoked::parse(list).expect("a list"));
        let (issuer, audience) = (Some("us".to_owned()), Some("here".to_owned()));
        let strict = Requirements { issuer, audience, revoked };
        Known {
            keys: vec![Key::secret(SECRET).expect("a key")],
            signing: hmac::Key::new(hmac::HMAC_SHA256, SECRET),
            requirements: [Requirements::default(), strict],
        }
    })
}

pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let requirements = &known().requirements[input.below(2)];
    match input.below(4) {
        0 => {
            if let Ok(token) = std::str::from_utf8(input.rest()) {
                let found = verify(token, &known().keys, requirements, 1_000 * NOW_S);
                assert!(found.is_err(), "a token without a signature");
            }
        }
        1 => {
            let (header, claims) = (input.text(), input.text());
            signed(&header, &claims, requirements, input.bytes());
        }
        _ => {
            let claims = claims(&mut input).to_string();
            signed(r#"{"alg":"HS256"}"#, &claims, requirements, input.bytes());
        }
    }
}

/// Claims of the names that are known, with values that are near the right ones.
fn claims(input: &mut Input<'_>) -> Value {
    let mut claims = json!({});
    for name in ["exp", "nbf", "iss", "aud", "sub", "jti", "iat", "scope"] {
        let value = match input.below(10) {
            0 => continue,
            1 => Value::Null,
            2 => (NOW_S as i64 + i64::from(input.byte()) - 128).into(),
            3 => input.number().into(),
            4 => f64::from_bits(input.number()).into(),
            5 => json!(["us", "here", input.text()]),
            6 => ["us", "here", "gone", "mallory"][input.below(4)].into(),
            7 => "publish:a subscribe:b.* publish:*".into(),
            8 => json!([input.number()]),
            _ => input.text().into(),
        };
        claims[name] = value;
    }
    claims
}

fn signed(header: &str, claims: &str, requirements: &Requirements, other: &[u8]) {
    let text = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()));
    let signature = hmac::sign(&known().signing, text.as_bytes());
    let keys = &known().keys;
    let token = format!("{text}.{}", base64url(signature.as_ref()));
    let found = verify(&token, keys, requirements, 1_000 * NOW_S);
    if other != signature.as_ref() {
        let forged = format!("{text}.{}", base64url(other));
        assert!(verify(&forged, keys, requirements, 1_000 * NOW_S).is_err());
    }
    if let Ok(grant) = &found {
        accepted(header, claims, requirements, grant);
    }
    // What makes a token expire makes it expire later as well.
    let later = verify(&token, keys, requirements, 1_000 * (NOW_S + 1_000_000));
    match (found, later) {
        (Err(TokenError::Expired), later) => assert_eq!(later, Err(TokenError::Expired)),
        (Err(TokenError::TooEarly), _) | (Ok(_), Ok(_) | Err(TokenError::Expired)) => {}
        (now, later) => assert_eq!(now, later),
    }
}

/// A token that was accepted has the right claims.
fn accepted(header: &str, claims: &str, requirements: &Requirements, grant: &Grant) {
    let header: Value = serde_json::from_str(header).expect("JSON");
    assert_eq!(header["alg"], "HS256");
    assert!(header.get("crit").is_none_or(Value::is_null), "{header}");
    // A claim that occurs twice is an error, so both parsers take the same value.
    let claims: Value = serde_json::from_str(claims).expect("JSON");
    let expires = claims["exp"].as_f64().expect("a number");
    assert!(expires + LEEWAY_S > NOW_S as f64);
    assert!(
        claims["nbf"].is_null()
            || claims["nbf"].as_f64().expect("a number") <= NOW_S as f64 + LEEWAY_S
    );
    assert_eq!(grant.subject.as_deref(), claims["sub"].as_str());
    assert!(grant.until >= 1_000 * NOW_S);
    if let Some(issuer) = &requirements.issuer {
        assert_eq!(claims["iss"], **issuer);
        let audience = &claims["aud"];
        let is_in = audience.as_array().is_some_and(|all| all.iter().any(|one| one == "here"));
        assert!(audience == "here" || is_in);
        assert!(claims["jti"] != "gone" && claims["sub"] != "mallory");
        assert!(claims["iat"].as_f64().is_some_and(|issued| issued >= 1_700_000_000.0));
    }
    let words = match &claims["scope"] {
        Value::Array(words) => words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        other => other.as_str().unwrap_or_default().to_owned(),
    };
    assert_eq!(grant.scope, Scope::parse(&words));
    rights(&words, &grant.scope);
}

/// A scope grants what its text says and is read back from its own text.
pub fn rights(words: &str, scope: &Scope) {
    assert_eq!(Scope::parse(&scope.to_string()), *scope);
    for name in ["a", "b.c", "prices.eur"] {
        let channel = headwater::event::ChannelName::parse(name).expect("a name");
        for (right, of) in [(Right::Publish, "publish:"), (Right::Subscribe, "subscribe:")] {
            let is_meant = |word: &str| {
                let Some(pattern) = word.strip_prefix(of) else { return false };
                let below = pattern.strip_suffix('*').filter(|parent| parent.ends_with('.'));
                let is_below = below.is_some_and(|parent| name.starts_with(parent));
                pattern == name || pattern == "*" || is_below
            };
            assert_eq!(scope.grants(right, &channel), words.split(' ').any(is_meant), "{words}");
        }
    }
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - chunk.len()));
        for digit in 0..=chunk.len() {
            text.push(char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]));
        }
    }
    text
}
