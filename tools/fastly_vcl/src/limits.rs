//! What of the Fastly files happens where Fastly runs into a limit of its own.
//!
//! Its reference says that an expression that recurses too deeply matches nothing, and that `regsub`
//! then leaves its text as it is; of the functions on queries it says nothing, so they get the same.
//! Each place in turn meets such a limit, and nobody may get in by it.

use super::{
    AUDIENCE, Credentials, EXPIRES_S, ISSUER, SECRET, main_program, parser, request_for, testing,
};
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

/// A test that nobody gets in who has these credentials and asks for these channels.
fn refused(names: &str, credentials: &Credentials) -> String {
    let request = request_for(names, "secret, prices.*", credentials);
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
fn token(scope: impl Into<Value>, other: &[(&str, Value)]) -> String {
    let mut claims =
        json!({ "exp": EXPIRES_S, "iss": ISSUER, "aud": ["x", AUDIENCE], "scope": scope.into() });
    for (name, value) in other {
        claims[*name] = value.clone();
    }
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    encode(&Header::default(), &claims, &key).expect("it is signed")
}

#[test]
fn no_limit_of_fastly_lets_anyone_in() {
    let good = "subscribe:secret subscribe:prices.*";
    // What one token says, under the signature of another.
    let (said, other) = (token(good, &[]), token("", &[]));
    let said = said.rsplit_once('.').expect("a signature").0;
    let forged = format!("{said}.{}", other.rsplit_once('.').expect("a signature").1);
    let bearer = |token: String| Credentials::bearer(&token);
    let cookies = |first: &str, second: String| {
        let cookie = Some(format!("headwater={first}; headwater={second}"));
        Credentials { cookie, ..Credentials::default() }
    };
    let cases = [
        ("secret", Credentials::default()),
        ("open,secret", Credentials::default()),
        ("prices.eur", Credentials::default()),
        ("open,free,prices.eur.x", Credentials::default()),
        ("secret", bearer(token("subscribe:open publish:secret", &[]))),
        ("secret,prices.eur", bearer(token("subscribe:secret", &[]))),
        ("secret,prices.eur", bearer(token("subscribe:prices.*", &[]))),
        ("open,prices.eur", bearer(token("subscribe:open subscribe:prices.usd", &[]))),
        ("secret", bearer(token("secret xsubscribe:secret", &[]))),
        ("secret", bearer(token(json!(["subscribe:open", "publish:secret"]), &[]))),
        ("secret", bearer(token(json!(["x,subscribe:secret", "subscribe:secret,x"]), &[]))),
        ("secret,prices.eur", bearer(token(json!(["subscribe:secret"]), &[]))),
        ("secret", bearer(token(json!(["subscribe:secret", 1]), &[]))),
        ("secret", bearer(token(good, &[("exp", json!(1_700_000_000))]))),
        ("secret", bearer(token(good, &[("nbf", json!(EXPIRES_S))]))),
        ("secret", bearer(token(good, &[("iss", json!("another"))]))),
        ("secret", bearer(token(good, &[("aud", json!(["x", "y"]))]))),
        ("secret", cookies(&forged, token("subscribe:open", &[]))),
        ("secret", cookies("", token(json!(["subscribe:open"]), &[]))),
        ("secret", cookies(&forged, token(good, &[("exp", json!(1_700_000_000))]))),
        ("secret", Credentials { query: Some(forged.clone()), ..Credentials::default() }),
        ("secret", bearer(forged)),
    ];
    let program = main_program();
    let mut let_in = Vec::new();
    for (names, sent) in cases {
        let text = refused(names, &sent);
        let test = parser::program_from("limits.test.vcl", &text).expect("a test");
        let mut places = 1;
        let mut at = 0;
        while at < places {
            let (outcome, came_by) = testing::run_limited(&program, &test, at);
            assert_eq!(outcome.count, 1);
            let failures = outcome.failures.into_iter();
            let_in.extend(failures.map(|why| format!("{names} at {at} with {sent:?}: {why}")));
            (places, at) = (places.max(came_by), at + 1);
        }
        assert!(places > 5, "{places} places prove little");
    }
    assert!(let_in.is_empty(), "{}", let_in.join("\n"));
}
