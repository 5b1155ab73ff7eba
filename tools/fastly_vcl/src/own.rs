//! Tests of the interpreter itself: that it refuses what Fastly refuses, and that a test of falco's
//! that should fail does fail. Without these, green snippets would prove nothing.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256,
};

use super::{digests, lint, parser, testing};

/// The complaints about a program, one a line.
fn complaints(text: &str) -> String {
    let program = match parser::program_from("own.vcl", text) {
        Ok(program) => program,
        Err(error) => return error.to_string(),
    };
    let found = lint::program(&program, false);
    found.iter().map(|complaint| format!("{complaint}\n")).collect()
}

/// Complaints about statements in one place.
fn refused(scope: &str, statements: &str) -> String {
    complaints(&format!("table t {{ \"a\": \"b\", }}\nsub vcl_{scope} {{\n{statements}\n}}"))
}

fn check_refused(scope: &str, statements: &str, words: &str) {
    let found = refused(scope, statements);
    assert!(found.contains(words), "{statements}\nwants {words:?}, got {found:?}");
    assert!(found.starts_with("own.vcl:3: "), "{statements}\nhas no place: {found:?}");
}

fn check_taken(scope: &str, statements: &str) {
    assert_eq!(refused(scope, statements), "", "{statements}");
}

/// How one test of falco's goes, with `sub given` to call in recv.
fn outcome(program: &str, test: &str) -> testing::Outcome {
    let program = parser::program_from("main.vcl", program).expect("the program");
    let test = parser::program_from("own.test.vcl", test).expect("the test");
    testing::run(&program, &test)
}

fn check_green(statements: &str) {
    let test = format!("// @scope: recv\nsub test_it {{\n{statements}\n}}");
    let outcome = outcome("table t { \"a\": \"b\", }\nsub vcl_recv { return(lookup); }", &test);
    assert_eq!((outcome.failures.as_slice(), outcome.count), (&[][..], 1), "{statements}");
}

fn check_red(statements: &str, words: &str) {
    let test = format!("// @scope: recv\n// @suite: a suite\nsub test_it {{\n{statements}\n}}");
    let outcome = outcome("sub vcl_recv { error 601 \"no\"; }", &test);
    let found = outcome.failures.join("\n");
    assert!(found.contains(words), "{statements}\nwants {words:?}, got {found:?}");
    assert!(found.starts_with("own.test.vcl:4: [recv] a suite"), "{found:?}");
}

#[test]
fn names_that_nobody_knows_are_refused() {
    check_refused("recv", "set req.http.A = req.uri;", "there is no variable req.uri");
    check_refused("recv", "set req.uri = \"/\";", "there is no variable req.uri");
    check_refused("recv", "set req.http.A = var.a;", "var.a is not declared");
    check_refused("recv", "set req.http.A = std.lower(\"A\");", "there is no function std.lower");
    check_refused("recv", "call nobody;", "there is no sub nobody");
    check_refused(
        "recv",
        "set req.http.A = table.lookup(u, \"a\");",
        "table.lookup takes a table here",
    );
    check_refused("recv", "vcl_magic;", "is no statement we know");
    check_refused("recv", "assert.true(true);", "there is no function assert.true");
    check_refused("recv", "if (req.http.A ~ \"(\") { esi; }", "\"(\": ");
}

#[test]
fn variables_have_their_places() {
    check_refused("recv", "set req.http.A = beresp.status;", "cannot be read in recv");
    check_refused("recv", "set beresp.ttl = 1s;", "cannot be set in recv");
    check_refused("fetch", "set resp.http.A = \"a\";", "cannot be set in fetch");
    check_refused("fetch", "set bereq.http.A = \"a\";", "cannot be set in fetch");
    check_refused("deliver", "unset beresp.http.A;", "not there to be unset");
    check_refused("deliver", "set obj.hits = 1;", "cannot be set in deliver");
    check_refused("recv", "set req.hash += \"a\";", "cannot be set in recv");
    check_refused("recv", "set client.ip = \"10.0.0.1\";", "cannot be set in recv");
    check_taken("hash", "set req.hash += req.http.A;");
    check_taken("fetch", "set beresp.ttl = 1s; set req.http.A = bereq.http.A;");
    check_taken("deliver", "set resp.http.A = client.ip;");
}

#[test]
fn statements_have_their_places() {
    check_refused("deliver", "error 601;", "error does not stand in deliver");
    check_refused("hash", "restart;", "restart does not stand in hash");
    check_refused("recv", "esi;", "esi does not stand in recv");
    check_refused("recv", "synthetic \"a\";", "synthetic does not stand in recv");
    check_refused("recv", "return(deliver);", "return(deliver) does not stand in recv");
    check_refused("miss", "return(lookup);", "return(lookup) does not stand in miss");
    check_taken("recv", "error 601 \"a\" req.url;");
    check_taken("error", "synthetic {\"a \"b\"\"} LF; return(deliver);");
}

#[test]
fn types_matter() {
    check_refused("fetch", "set beresp.ttl = \"1s\";", "beresp.ttl is RTIME: `=` takes no STRING");
    check_refused("fetch", "set beresp.ttl = 1;", "takes no INTEGER");
    check_refused("fetch", "set beresp.status = \"200\";", "takes no STRING");
    check_refused("fetch", "set beresp.gzip = 0;", "takes no INTEGER");
    check_refused("recv", "set req.http.A = 1;", "takes no INTEGER");
    check_refused("recv", "set req.http.A = \"a\" 1;", "STRING is wanted here");
    check_refused("recv", "if (req.restarts == \"0\") { esi; }", "cannot be");
    check_refused("recv", "if (req.restarts) { restart; }", "a condition takes no INTEGER");
    check_refused("recv", "if (\"a\" == req.url) { restart; }", "no literal stands left");
    check_refused("recv", "if (req.url ~ req.http.A) { restart; }", "right of ~ stands");
    check_refused("recv", "if (client.ip ~ \"^10\") { restart; }", "only strings are matched");
    check_refused(
        "recv",
        "set req.http.A = std.strlen(\"a\", 1);",
        "std.strlen takes STRING, not 2",
    );
    check_refused("recv", "set req.http.A = substr(req.url, \"0\");", "substr takes INTEGER");
    check_refused("recv", "set req.http.A = regsub(req.url, req.url, \"\");", "literal pattern");
    check_refused("recv", "std.tolower(req.url);", "is thrown away");
    check_refused("recv", "set req.esi = req.url == \"/\";", "wants parentheses");
    check_refused("recv", "declare local var.a TABLE;", "no type of a local");
    check_taken("recv", "declare local var.a INTEGER; set var.a = 7; set req.http.A = var.a;");
    check_taken("recv", "declare local var.a BOOL; set var.a = (req.url == \"/\");");
}

#[test]
fn texts_that_are_no_vcl_are_refused() {
    assert_eq!(complaints("sub a {").lines().count(), 1);
    assert!(complaints("sub a { log \"a; }").contains("a string without an end"));
    assert!(complaints("sub a {} sub a {}").contains("declared twice"));
    assert!(complaints("sub lonely {}").contains("nobody calls lonely"));
    assert!(complaints("sub a { include \"x\"; }").contains("there is no x.vcl"));
    assert!(complaints("acl a { \"300.0.0.1\"; }").contains("is no address"));
    // The first `\"}` ends a long string, also in the middle of JSON.
    assert!(!complaints("sub vcl_error { synthetic {\"{\"a\":\"b\"}\"}; }").is_empty());
    assert_eq!(complaints("sub vcl_error { synthetic {a\"{\"a\":\"b\"}\"a}; }"), "");
    let program = parser::program_from("m.vcl", "sub vcl_recv { restart; }").expect("a program");
    assert_eq!(lint::program(&program, true).len(), 1, "it has no #FASTLY recv");
}

#[test]
fn an_assertion_that_does_not_hold_fails() {
    check_red("assert.equal(req.url, \"/a\");", "assert.equal: expected \"/a\", got \"/\"");
    check_red("assert.equal(req.restarts, \"0\");", "expected \"0\", got INTEGER 0");
    check_red("assert.true(req.url == \"/a\", \"why\");", "why: assert.true: expected true");
    check_red("assert.is_notset(req.url);", "expected not set, got \"/\"");
    check_red("assert.match(req.url, \"^a\");", "expected a match of \"^a\"");
    check_red("testing.call_subroutine(\"vcl_recv\"); assert.state(lookup);", "got state error");
    check_red("testing.call_subroutine(\"vcl_recv\"); assert.error(602);", "got INTEGER 601");
    check_red("testing.call_subroutine(\"vcl_fetch\");", "does not run in recv");
    check_red("testing.call_subroutine(\"nobody\");", "there is no sub nobody");
    check_red("testing.inject_variable(\"client.up\", \"a\");", "there is no variable client.up");
    check_red("assert.state(lokup);", "there is no state lokup");
    check_red("assert.equals(req.url, \"/\");", "there is no function assert.equals");
    check_red("assert.equal(beresp.status, 200);", "cannot be read in recv");
    let none = outcome("sub vcl_recv {}", "table t { \"a\": \"b\" }");
    assert_eq!(none.count, 0);
}

#[test]
fn what_is_not_set_is_not_empty() {
    check_green(
        "if (req.http.A == \"\") { assert.true(false); }
        if (req.http.A) { assert.true(false); }
        set req.http.A = \"\";
        assert.true(req.http.a == \"\");
        if (!req.http.A) { assert.true(false); }",
    );
    check_green("set req.http.B = req.http.A; assert.is_notset(req.http.B);");
    check_green("set req.http.B = \"x\" req.http.A; assert.equal(req.http.B, \"x(null)\");");
    check_green(
        "declare local var.s STRING;
        assert.is_notset(var.s);
        set var.s = \"x\" req.http.A; assert.equal(var.s, \"x\");
        set var.s = req.http.A; assert.equal(var.s, \"\");",
    );
    check_green(
        "assert.equal(table.lookup(t, \"a\"), \"b\"); assert.is_notset(table.lookup(t, \"z\"));",
    );
    check_green(
        "set req.http.A:b = \"1\"; set req.http.A:c = \"2\"; assert.equal(req.http.A:b, \"1\");",
    );
}

#[test]
fn strings_and_numbers_do_what_fastly_says() {
    check_green("assert.equal(regsub(\"/a/b\", \"^/([^/]+)\", \"/\\1\\1\"), \"/aa/b\");");
    check_green("assert.equal(\"%41%2c{}\", {\"A,{}\"}); assert.equal({\"%41\"}, {x\"%41\"x});");
    check_green(
        "assert.equal(substr(\"abcdef\", 1, 2), \"bc\"); assert.equal(substr(\"ab\", -1), \"b\");",
    );
    check_green("assert.equal(std.strtol(\"ff\", 16), 255); assert.equal(std.atoi(\"12x\"), 12);");
    check_green("assert.equal(std.atoi(\"x\"), 0); assert.equal(fastly.error, \"EPARSENUM\");");
    check_green("assert.equal(std.itoa(255, 16), \"ff\");");
    check_green("assert.equal(querystring.get(\"/a?b=c%20d\", \"b\"), \"c d\");");
    check_green("assert.equal(querystring.filter_except(\"/?a=1&b=2\", \"b\"), \"/?b=2\");");
    check_green("assert.equal(querystring.set(\"/?a=1&b=2\", \"a\", \"3\"), \"/?a=3&b=2\");");
    check_green(
        "assert.equal(urldecode(\"a%2Fb\"), \"a/b\"); assert.equal(urlencode(\"/\"), {\"%2F\"});",
    );
    check_green(
        "if (req.url ~ \"^(/)\" && req.url !~ \"(a)\") { assert.equal(re.group.1, \"/\"); }
        else { assert.true(false); }",
    );
    check_green(
        "declare local var.n INTEGER; set var.n = 17; set var.n %= 5; set var.n *= 3;
        assert.equal(var.n, 6);
        declare local var.t RTIME; set var.t = 1m; set var.t -= 10s; assert.equal(var.t, 50s);",
    );
}

#[test]
fn times_and_digests_do_what_fastly_says() {
    check_green(
        "testing.fixed_time(784111777);
        set req.http.A = now; assert.equal(req.http.A, \"Sun, 06 Nov 1994 08:49:37 GMT\");
        assert.equal(now.sec, \"784111777\");
        assert.equal(std.time(req.http.A, std.integer2time(0)), now);
        assert.true(time.is_after(now, std.integer2time(784111776)));
        assert.equal(strftime({\"%Y-%m-%d\"}, now), \"1994-11-06\");",
    );
    check_green("assert.equal(digest.hash_md5(\"\"), \"d41d8cd98f00b204e9800998ecf8427e\");");
    check_green(
        "assert.equal(digest.hash_sha256(\"abc\"),
            \"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\");",
    );
    check_green(
        "assert.equal(digest.hmac_sha256(\"key\", \"The quick brown fox jumps over the lazy dog\"),
            \"0xf7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8\");",
    );
    check_green("assert.equal(digest.base64(\"abcd\"), \"YWJjZA==\");");
    check_green("assert.equal(digest.base64url_nopad_decode(\"aGVsbG8=0\"), \"hello4\");");
    check_green("assert.equal(digest.base64_decode(\"YWJj*ZA==xx\"), \"abcd\");");
    check_green("assert.equal(digest.base64(digest.base64_decode(\"/+7d\")), \"/+7d\");");
    check_green("assert.true(digest.secure_is_equal(\"a\", \"a\"));");
}

#[test]
fn groups_share_a_state_and_other_tests_do_not() {
    let program = "sub vcl_recv { set req.http.A = \"1\"; call inner_recv; }
        sub inner_recv { set req.http.B = \"1\"; return(pass); }";
    let test = "// @scope: recv
        sub alone { testing.call_subroutine(\"vcl_recv\"); assert.state(pass); }
        // @scope: recv, deliver
        sub fresh { assert.is_notset(req.http.A); }
        // @skip
        sub skipped { assert.true(false); }
        sub mocked_recv {
          testing.mock(\"inner_recv\", \"mock\");
          testing.call_subroutine(\"vcl_recv\");
          assert.is_notset(req.http.B);
          assert.subroutine_called(\"inner_recv\", 1);
        }
        // @scope: recv
        sub mock { log \"nothing\"; }
        describe shared {
          before_recv { set req.http.Hook = \"1\"; }
          sub first_recv { testing.call_subroutine(\"vcl_recv\"); assert.equal(req.http.Hook, \"1\"); }
          sub second_deliver { assert.equal(req.http.A, \"1\"); assert.equal(testing.state, \"pass\"); }
        }";
    let outcome = outcome(program, test);
    assert_eq!((outcome.failures.as_slice(), outcome.count), (&[][..], 7));
}

/// A public key in PEM, on the lines that a long string may have.
fn pem(der: &[u8]) -> String {
    let body = digests::base64_standard(der);
    format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----")
}

/// `function(sha256, key, payload, signature…)` is true, and false for another payload.
fn check_signature(function: &str, key: &str, signature: &[u8], format: &str) {
    let signature = digests::base64_standard(signature).replace('+', "-").replace('/', "_");
    let signature = signature.trim_end_matches('=');
    for (payload, wanted) in [("a.b", "true"), ("a.c", "false")] {
        check_green(&format!(
            "assert.{wanted}({function}(sha256, {{\"{key}\"}}, \"{payload}\", \"{signature}\"{format}));"
        ));
    }
}

#[test]
fn signatures_of_tokens_are_verified() {
    let random = SystemRandom::new();
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &random, b"a.b", &mut signature).expect("a signature");
    let der: PublicKeyX509Der = pair.public_key().as_der().expect("a key");
    check_signature("digest.rsa_verify", &pem(der.as_ref()), &signature, "");
    check_signature("digest.rsa_verify", &pem(der.as_ref()), &signature, ", url_nopad");

    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    let signature = pair.sign(&random, b"a.b").expect("a signature");
    let der: PublicKeyX509Der = pair.public_key().as_der().expect("a key");
    check_signature("digest.ecdsa_verify", &pem(der.as_ref()), signature.as_ref(), ", jwt");
}

#[test]
fn a_token_is_taken_apart_as_at_the_edge() {
    // A key and payload of one's own, signed elsewhere: {"alg":"HS256"} . {"sub":"a","exp":1800000000}
    check_green(
        "set req.http.Authorization = \"Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIiwiZXhwIjoxODAwMDAwMDAwfQ.x\";
        if (req.http.Authorization ~ \"^Bearer ([A-Za-z0-9_-]+)[.]([A-Za-z0-9_-]+)[.]([A-Za-z0-9_-]+)$\") {
          declare local var.claims STRING;
          declare local var.end TIME;
          set var.claims = digest.base64url_nopad_decode(re.group.2);
          assert.is_json(var.claims);
          assert.true(var.claims ~ {\"\"exp\"\\s*:\\s*([0-9]+)\"});
          set var.end = std.integer2time(std.atoi(re.group.1));
          testing.fixed_time(1799999999);
          assert.true(time.is_after(var.end, now));
          testing.fixed_time(1800000001);
          assert.false(time.is_after(var.end, now));
        } else { assert.true(false); }",
    );
}
