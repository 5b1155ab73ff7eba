//! What of the Fastly files happens where Fastly runs into a limit of its own.
//!
//! Its reference says that an expression that recurses too deeply matches nothing, and that `regsub`
//! then leaves its text as it is; of the functions on queries it says nothing, so they get the same.
//! Each place in turn meets such a limit, and nobody may get in by it.

use super::{AUDIENCE, EXPIRES_S, ISSUER, main_program, parser, request_for, testing};
use crate::access::{SECRET, signed};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

/// A test that nobody gets in who has this token, or none, and asks for these channels.
fn refused(names: &str, token: Option<&str>) -> String {
    let request = request_for(names, "secret, prices.*", token);
    format!(
        r#"
// @scope: recv
sub test_it {{
{request}
  testing.call_subroutine("headwater_private_recv");
  assert.match(req.http.Headwater-Access, "^(unauthorized|forbidden|expired|origin)$");
}}
"#
    )
}

/// A good token but for what is said here.
fn token(scope: &str, other: &[(&str, Value)]) -> String {
    let mut claims =
        json!({ "exp": EXPIRES_S, "iss": ISSUER, "aud": ["x", AUDIENCE], "scope": scope });
    for (name, value) in other {
        claims[*name] = value.clone();
    }
    signed(Algorithm::HS256, &EncodingKey::from_secret(SECRET.as_bytes()), &claims)
}

#[test]
fn no_limit_of_fastly_lets_anyone_in() {
    let good = "subscribe:secret subscribe:prices.*";
    // What one token says, under the signature of another.
    let (said, other) = (token(good, &[]), token("", &[]));
    let said = said.rsplit_once('.').expect("a signature").0;
    let forged = format!("{said}.{}", other.rsplit_once('.').expect("a signature").1);
    let cases = [
        ("secret", None),
        ("open,secret", None),
        ("prices.eur", None),
        ("open,free,prices.eur.x", None),
        ("secret", Some(token("subscribe:open publish:secret", &[]))),
        ("secret,prices.eur", Some(token("subscribe:secret", &[]))),
        ("secret,prices.eur", Some(token("subscribe:prices.*", &[]))),
        ("open,prices.eur", Some(token("subscribe:open subscribe:prices.usd", &[]))),
        ("secret", Some(token("secret xsubscribe:secret", &[]))),
        ("secret", Some(token(good, &[("exp", json!(1_700_000_000))]))),
        ("secret", Some(token(good, &[("nbf", json!(EXPIRES_S))]))),
        ("secret", Some(token(good, &[("iss", json!("another"))]))),
        ("secret", Some(token(good, &[("aud", json!(["x", "y"]))]))),
        ("secret", Some(forged)),
    ];
    let program = main_program();
    let mut let_in = Vec::new();
    for (names, token) in cases {
        let text = refused(names, token.as_deref());
        let test = parser::program_from("limits.test.vcl", &text).expect("a test");
        let mut places = 1;
        let mut at = 0;
        while at < places {
            let (outcome, came_by) = testing::run_limited(&program, &test, at);
            assert_eq!(outcome.count, 1);
            let failures = outcome.failures.into_iter();
            let_in.extend(failures.map(|why| format!("{names} at {at} with {token:?}: {why}")));
            (places, at) = (places.max(came_by), at + 1);
        }
        assert!(places > 5, "{places} places prove little");
    }
    assert!(let_in.is_empty(), "{}", let_in.join("\n"));
}
