//! Keys of tokens: JWKS documents, keys in PEM, secrets, the list of revoked tokens, and scopes.

use super::token;
use headwater::access::revocation::Revoked;
use headwater::access::scope::Scope;
use headwater::access::token::{Key, Requirements, TokenError, verify};
use headwater::core::pattern::Pattern;
use serde_json::Value;

/// Tokens of each algorithm with a signature of zeros, and one that is not signed.
const TOKENS: [&str; 5] = [
    "eyJhbGciOiJSUzI1NiJ9.e30.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "eyJhbGciOiJFUzI1NiJ9.e30.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "eyJhbGciOiJFZERTQSJ9.e30.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "eyJhbGciOiJIUzI1NiJ9.e30.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "eyJhbGciOiJub25lIn0.e30.",
];

pub fn run(bytes: &[u8]) {
    let _either = Key::public_pem(bytes);
    if Key::secret(bytes).is_ok() {
        assert!(bytes.len() >= 32 && !bytes.trim_ascii_start().starts_with(b"-----BEGIN"));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    set(text);
    let scope = Scope::parse(text);
    token::rights(text, &scope);
    if let Ok(pattern) = text.parse::<Pattern>() {
        assert_eq!(pattern.to_string(), text);
    }
    if let Err(why) = Revoked::parse(text) {
        let number = why.strip_prefix("line ").and_then(|rest| rest.split(':').next());
        let number: usize = number.and_then(|number| number.parse().ok()).expect("a line");
        assert!((1..=text.lines().count()).contains(&number), "{why}");
    }
}

fn set(text: &str) {
    let Ok(keys) = Key::set(text) else { return };
    let document: Value = serde_json::from_str(text).expect("JSON");
    let listed = document["keys"].as_array().expect("a list");
    let is_public = |key: &&Value| ["RSA", "EC", "OKP"].iter().any(|kind| key["kty"] == *kind);
    assert!((1..=listed.iter().filter(is_public).count()).contains(&keys.len()));
    // A key from a fetched document never accepts a signature that anybody can make.
    for token in TOKENS {
        let refused = verify(token, &keys, &Requirements::default(), 0);
        // Every other error means that the signature was right.
        assert!(matches!(refused, Err(TokenError::Bad | TokenError::UnknownKey)), "{token}");
    }
}
