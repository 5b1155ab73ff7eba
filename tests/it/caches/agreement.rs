//! The edge and the origin must decide alike about a token. One rule is implemented twice, in Rust
//! and in VCL.
//!
//! Random channels, lists of private patterns and claims are judged by the origin's own code, by
//! falco and by our interpreter. In addition, a running origin and both VCL tools judge tokens in
//! every place of a request. The few tokens that only the edge refuses (vcl/fastly/README.md) are
//! left out.

use crate::caches::falco::{falco, prepare};
use crate::kit::{Origin, Random};
use crate::protocol::access::{SECRET, signed};
use fastly_vcl::{AUDIENCE, Credentials, EXPIRES_S, ISSUER};
use headwater::access::scope::Right;
use headwater::access::token::{Key, Requirements};
use headwater::access::{Access, AccessConfig, Decision};
use headwater::core::event::ChannelName;
use hyper::Method;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;

const CASES: u64 = 1_500;
/// An instant before 2100, when the tokens expire, in seconds since the Unix epoch.
const NOW_S: u64 = 2_000_000_000;
/// Words of a scope that grant no right, although some look like one.
const ODD_WORDS: [&str; 12] = [
    "",
    "a",
    "subscribe:",
    "xsubscribe:a",
    "subscribe:subscribe:a",
    "subscribe:**",
    "subscribe:a*",
    "subscribe:*.a",
    "subscribe:x&a",
    "subscribe:a=a",
    "subscribe:x,a",
    "publish:*",
];

fn pick<'a>(random: &mut Random, choices: &[&'a str]) -> &'a str {
    choices[random.below(choices.len() as u64) as usize]
}

/// Makes a name of few different parts, so that names and patterns often match.
fn name(random: &mut Random, parts_max: u64) -> String {
    let mut name = pick(random, &["a", "b", "a-b"]).to_owned();
    for _ in 0..random.below(parts_max) {
        name += pick(random, &[".a", ".b", ".", ".A", "."]);
    }
    name
}

fn pattern(random: &mut Random) -> String {
    match random.below(8) {
        0 => pick(random, &["*", "c", "c.*"]).to_owned(),
        1..4 => name(random, 8) + ".*",
        _ => name(random, 3),
    }
}

/// Makes a pattern that matches the name, or nearly matches it.
fn pattern_of(random: &mut Random, name: &str) -> String {
    let dots: Vec<usize> = name.match_indices('.').map(|(at, _)| at).collect();
    match dots.get(random.below(dots.len() as u64 + 1) as usize) {
        // The edge does not read longer patterns.
        Some(at) if name[..*at].matches('.').count() < 8 => name[..*at].to_owned() + ".*",
        _ => name.to_owned(),
    }
}

fn several(random: &mut Random, most: u64, one: fn(&mut Random) -> String) -> Vec<String> {
    (0..random.below(most + 1)).map(|_| one(random)).collect()
}

fn word(random: &mut Random) -> String {
    match random.below(3) {
        0 => pick(random, &ODD_WORDS).to_owned(),
        _ => format!("subscribe:{}", pattern(random)),
    }
}

fn claims(random: &mut Random, names: &[String]) -> Value {
    let mut words = several(random, 2, word);
    for name in names {
        if random.below(3) > 0 {
            words.push(format!("subscribe:{}", pattern_of(random, name)));
        }
    }
    let mut claims = json!({ "exp": EXPIRES_S, "scope": scope(random, words) });
    let audience = match random.below(16) {
        0 => json!("application"),
        1 => json!(["other", "other,app", "app "]),
        2 => Value::Null,
        3..6 => json!(["other", AUDIENCE]),
        _ => json!(AUDIENCE),
    };
    let issuer = match random.below(16) {
        0 => json!("https://issuer.example.net"),
        _ => json!(ISSUER),
    };
    for (member, value) in [("aud", audience), ("iss", issuer)] {
        if !value.is_null() {
            claims[member] = value;
        }
    }
    match random.below(16) {
        0 => claims["sub"] = json!(42),
        1 => claims["sub"] = json!(["ann"]),
        2 => claims["sub"] = Value::Null,
        3..8 => claims["sub"] = json!("ann"),
        _ => {}
    }
    claims
}

/// Makes a scope: a string of words or a list of them, and rarely a value of another type.
fn scope(random: &mut Random, words: Vec<String>) -> Value {
    match random.below(32) {
        0 => json!(1),
        1 => json!([words.join(" "), 1]),
        2..12 => json!(words),
        12..16 => json!(["openid", words.join(" ")]),
        _ => json!(words.join(" ")),
    }
}

struct Case {
    names: String,
    private: Vec<String>,
    token: String,
}

impl Case {
    fn new(random: &mut Random) -> Self {
        let mut names = vec![name(random, 5)];
        names.extend(several(random, 2, |random| name(random, 11)));
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let token = signed(Algorithm::HS256, &key, &claims(random, &names));
        let mut private = several(random, 2, pattern);
        if random.below(4) > 0 {
            private.push(pattern_of(random, &names[0]));
        }
        Self { names: names.join(","), private, token }
    }

    /// Returns the origin's decision, in the words of the VCL.
    fn verdict(&self) -> &'static str {
        let requirements = Requirements {
            issuer: Some(ISSUER.to_owned()),
            audience: Some(AUDIENCE.to_owned()),
            ..Requirements::default()
        };
        let access = Access::new(AccessConfig {
            keys: vec![Key::secret(SECRET.as_bytes()).expect("long enough")],
            private: self.private.iter().map(|one| one.parse().expect("a pattern")).collect(),
            requirements,
            ..AccessConfig::default()
        });
        let names = self.names.split(',').map(|name| ChannelName::parse(name).expect("a name"));
        let names: Vec<ChannelName> = names.collect();
        let grant = access.verify(&self.token, NOW_S * 1_000).ok();
        let credentials = headwater::access::Credentials { grant, is_vouched: false };
        match access.decide(&credentials, Right::Subscribe, &names) {
            Decision::Open => "public",
            Decision::Granted => "granted",
            Decision::OutOfScope => "forbidden",
            Decision::NeedsToken => "unauthorized",
        }
    }

    fn test(&self, number: u64) -> String {
        let (names, private) = (&self.names, self.private.join(", "));
        let request = fastly_vcl::request_for(names, &private, &Credentials::bearer(&self.token));
        let title = format!("\"{private}\" and {names}");
        test_of(number, &title, NOW_S, &request, self.verdict())
    }
}

/// Writes a test that the edge makes this decision about a request.
fn test_of(number: u64, title: &str, now_s: u64, request: &str, verdict: &str) -> String {
    let asserts = match verdict {
        "public" => "assert.state(lookup); assert.is_notset(req.http.Headwater-Access);",
        "granted" => {
            "assert.state(lookup); assert.starts_with(req.http.Headwater-Access, \"edge \");"
        }
        "expired" => "assert.error(693);",
        "forbidden" => "assert.error(692);",
        _ => "assert.error(691);",
    };
    format!(
        r#"
// @scope: recv
// @suite: {title}
sub test_{number} {{
  testing.fixed_time({now_s});
{request}
  testing.call_subroutine("vcl_recv");
  {asserts}
}}
"#
    )
}

/// Runs `count` tests in our interpreter and in falco.
fn check_edge(tests: &str, count: u64) {
    let directory = tempfile::tempdir().expect("a directory");
    prepare(directory.path(), &[]);
    let file = directory.path().join("tests/agreement.test.vcl");
    std::fs::write(&file, tests).expect("it is written");
    let failures = fastly_vcl::failures(&file, count as usize);
    assert!(failures.is_empty(), "{} differ\n{}", failures.len(), failures.join("\n"));
    check_falco(directory.path(), count);
}

fn check_falco(directory: &Path, count: u64) {
    let report = falco(directory, &["test", "-I", "tests", "-json", "whole.vcl"]);
    let suites = report["tests"][0]["suites"].as_array().expect("suites");
    let failed = |suite: &&Value| suite["error"].as_str().is_some_and(|error| !error.is_empty());
    let failures: Vec<&Value> = suites.iter().filter(failed).collect();
    assert!(failures.is_empty(), "{} differ\n{failures:#?}", failures.len());
    assert_eq!((suites.len() as u64, &report["summary"]["fails"]), (count, &json!(0)));
}

#[test]
fn the_edge_says_of_a_token_what_the_origin_says() {
    let mut random = Random::new(5);
    let cases: Vec<Case> = (0..CASES).map(|_| Case::new(&mut random)).collect();
    for verdict in ["public", "granted", "forbidden", "unauthorized"] {
        let count = cases.iter().filter(|case| case.verdict() == verdict).count() as u64;
        assert!(count > CASES / 20, "only {count} of {CASES} are {verdict}");
    }
    let mut tests = String::new();
    for (case, number) in cases.iter().zip(0..) {
        write!(tests, "{}", case.test(number)).expect("a string has room");
    }
    check_edge(&tests, CASES);
}

/// Tokens for the channel `secret`, each with a description.
fn tokens_for_secret() -> Vec<(&'static str, String)> {
    let token = |secret: &str, expires_s: u64, scope: &str| {
        let claims = json!({ "exp": expires_s, "iss": ISSUER, "aud": AUDIENCE, "scope": scope });
        signed(Algorithm::HS256, &EncodingKey::from_secret(secret.as_bytes()), &claims)
    };
    let good = "subscribe:secret";
    vec![
        ("good", token(SECRET, EXPIRES_S, good)),
        ("forged", token("another secret of thirty-two bytes", EXPIRES_S, good)),
        ("expired", token(SECRET, 1_000_000_000, good)),
        ("of another channel", token(SECRET, EXPIRES_S, "subscribe:other")),
        ("empty", String::new()),
    ]
}

/// All combinations of tokens in the header, in the query and in the cookies, each with a
/// description.
fn all_places() -> Vec<(String, Credentials)> {
    let tokens = tokens_for_secret();
    let nothing = || ("nothing".to_owned(), None);
    let mut headers = vec![nothing(), ("Basic".to_owned(), Some("Basic YTpi".to_owned()))];
    let mut queries = vec![nothing()];
    let mut cookies = vec![nothing()];
    for (what, token) in &tokens {
        if !token.is_empty() {
            headers.push(((*what).to_owned(), Some(format!("Bearer {token}"))));
        }
        queries.push(((*what).to_owned(), Some(token.clone())));
        cookies.push(((*what).to_owned(), Some(format!("a=b; headwater={token}"))));
        for (second, other) in &tokens {
            let pair = format!("headwater={token}; a=b; headwater={other}");
            cookies.push((format!("{what} and {second}"), Some(pair)));
        }
    }
    let mut places = Vec::new();
    for (in_header, authorization) in &headers {
        for (in_query, query) in &queries {
            let is_bearer = authorization.as_ref().is_some_and(|text| text.starts_with("Bearer"));
            let is_explicit = is_bearer || query.as_ref().is_some_and(|token| !token.is_empty());
            for (in_cookies, cookie) in &cookies {
                // A few kinds of cookies are enough to show that cookies are ignored here.
                if is_explicit && !["nothing", "good", "forged and good"].contains(&&**in_cookies) {
                    continue;
                }
                let title = format!("header {in_header}, query {in_query}, cookies {in_cookies}");
                let [authorization, query, cookie] =
                    [authorization, query, cookie].map(Option::clone);
                places.push((title, Credentials { authorization, query, cookie }));
            }
        }
    }
    places
}

/// Returns a running origin's decision about a request for the stream of `secret`, in the words of
/// the VCL.
async fn said_by(origin: &Origin, sent: &Credentials) -> &'static str {
    let query = sent.query.as_ref().map(|token| format!("?access_token={token}"));
    let path = format!("/channels/secret{}", query.unwrap_or_default());
    let header = |(name, value)| Some((name, Option::as_deref(value)?));
    let headers = [("authorization", &sent.authorization), ("cookie", &sent.cookie)];
    let headers: Vec<(&str, &str)> = headers.into_iter().filter_map(header).collect();
    let answer = origin.request(Method::HEAD, &path, &headers, "").await;
    match (answer.status.as_u16(), answer.header("headwater-shed")) {
        (200, None) => "granted",
        (200, Some("token-expired")) => "expired",
        (403, None) => "forbidden",
        (401, None) => "unauthorized",
        other => panic!("{other:?} for {sent:?}"),
    }
}

#[tokio::test]
async fn the_edge_looks_for_a_token_where_the_origin_looks() {
    let requirements = ["--token-issuer", ISSUER, "--token-audience", AUDIENCE];
    let access = ["--store", "memory", "--token-secret", SECRET, "--private", "secret"];
    let origin = Origin::with(&[&access[..], &requirements].concat());
    let places = all_places();
    let mut counts = std::collections::HashMap::new();
    let mut tests = String::new();
    for ((title, sent), number) in places.iter().zip(0..) {
        let verdict = said_by(&origin, sent).await;
        *counts.entry(verdict).or_insert(0) += 1;
        let request = fastly_vcl::request_for("secret", "secret", sent);
        tests += &test_of(number, title, NOW_S, &request, verdict);
    }
    for verdict in ["granted", "expired", "forbidden", "unauthorized"] {
        assert!(counts.get(verdict) > Some(&(places.len() / 20)), "{verdict}: {counts:?}");
    }
    check_edge(&tests, places.len() as u64);
}
