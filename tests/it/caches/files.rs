//! The output of `headwater edge`: each program accepts its file, also when it is filled in for a
//! deployment, and the unchanged output equals the shipped files.

use crate::kit::BINARY;
use crate::kit::edge::{Certificate, edge};
use std::process::Command;

/// Runs a program on a text in a file. Returns the program's standard error, as `Err` if it refuses
/// the text.
fn taken_by(program: &str, words: &[&str], text: &str) -> Result<String, String> {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("conf");
    std::fs::write(&file, text).expect("it is written");
    let fill = |word: &&str| {
        word.replace("DIR", &directory.path().display().to_string())
            .replace("FILE", &file.display().to_string())
    };
    let output = Command::new(program).args(words.iter().map(fill)).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(said) } else { Err(said) }
}

fn varnishd_takes(vcl: &str) -> Result<String, String> {
    taken_by("varnishd", &["-C", "-n", "DIR/run", "-f", "FILE"], vcl)
}

fn nginx_takes(conf: &str) -> Result<String, String> {
    let words = ["-t", "-c", "FILE", "-e", "DIR/error.log", "-g", "pid DIR/pid;"];
    taken_by("nginx", &words, conf)
}

#[test]
fn varnish_takes_the_shipped_file_and_the_filled_in_one() {
    let shipped = std::fs::read_to_string("vcl/varnish/headwater.vcl").expect("it is there");
    varnishd_takes(&shipped).unwrap();
    assert_eq!(edge(&["varnish", "--origin", "127.0.0.1:8080"]).replace("=60", "=630"), shipped);
    let words = ["varnish", "--origin", "[::1]:9000", "--lanes", "4", "--segment", "2m"];
    let vcl =
        edge(&[&words[..], &["--purge-from", "192.0.2.1", "--purge-from", "10.0.0.0/8"]].concat());
    varnishd_takes(&vcl).unwrap();
    for wanted in [
        r#".host = "::1""#,
        r#".port = "9000""#,
        r#"Lanes = "4""#,
        "send_timeout=150",
        r#""192.0.2.1";"#,
        r#""10.0.0.0"/8;"#,
    ] {
        assert!(vcl.contains(wanted), "{wanted} is missing:\n{vcl}");
    }
}

#[test]
fn varnish_takes_several_origins() {
    let origins = ["10.0.0.5:8080", "[::1]:9000", "10.0.0.7:8081"];
    let flags = origins.map(|origin| ["--origin", origin]).concat();
    let vcl = edge(&[&["varnish", "--long-poll-timeout", "1m"][..], &flags].concat());
    varnishd_takes(&vcl).unwrap();
    for (host, port) in [("10.0.0.5", 8080), ("::1", 9000), ("10.0.0.7", 8081)] {
        let address = format!(".host = \"{host}\";\n    .port = \"{port}\";");
        assert_eq!(vcl.matches(&address).count(), 1, "{address} is missing:\n{vcl}");
    }
    assert_eq!(vcl.matches(".probe = headwater_ready;").count(), 3);
    assert_eq!(vcl.matches(".first_byte_timeout = 70s;").count(), 3);
    for name in ["headwater", "headwater_2", "headwater_3"] {
        assert_eq!(vcl.matches(&format!(".add_backend({name});")).count(), 2, "{name}");
    }
}

#[test]
fn squid_takes_the_shipped_file_and_the_filled_in_one() {
    let takes = |text: &str| {
        // Squid reports an unknown word in a line, but does not fail.
        let said = taken_by("squid", &["-k", "parse", "-f", "FILE"], text).unwrap();
        assert!(!["ERROR", "WARNING", "FATAL"].iter().any(|word| said.contains(word)), "{said}");
    };
    let shipped = std::fs::read_to_string("deploy/squid/squid.conf").expect("it is there");
    takes(&shipped);
    assert_eq!(edge(&["squid", "--origin", "127.0.0.1:3129"]), shipped);
    let words =
        ["squid", "--origin", "[::1]:9000", "--listen", "6081", "--long-poll-timeout", "1m"];
    let text = edge(&[&words[..], &["--private", "a,desk.*"]].concat());
    takes(&text);
    for wanted in [
        "http_port 127.0.0.1:6081 accel",
        "cache_peer ::1 parent 9000 ",
        "forceddomain=[::1]:9000 ",
        "read_timeout 70 seconds",
        "^/channels/([^/?]*,)?(a([,/?]|$)|desk[.][^/?])",
    ] {
        assert!(text.contains(wanted), "{wanted} is missing:\n{text}");
    }
}

#[test]
fn nginx_takes_every_profile() {
    let certificate = Certificate::new();
    let (chain, key) = (certificate.path("chain.pem"), certificate.path("key.pem"));
    let tls = ["--certificate", &chain, "--certificate-key", &key];
    let cache = certificate.path("cache");
    let common = ["nginx", "--origin", "127.0.0.1:9000", "--lanes", "3", "--cache-dir", &cache];
    let inner = ["--inner-listen", "3199", "--long-poll-timeout", "40s"];
    for (profile, tls) in [
        ("collapse", &[][..]),
        ("collapse", &tls),
        ("stream", &[]),
        ("stream", &tls),
        ("varnish", &tls),
        ("squid", &[]),
        ("squid", &tls),
    ] {
        let conf = edge(&[&common[..], &inner, &["--profile", profile], tls].concat());
        nginx_takes(&conf).unwrap_or_else(|why| panic!("{profile}: {why}\n{conf}"));
        assert!(conf.contains("server 127.0.0.1:9000"), "{profile}");
        assert_eq!(conf.contains("ssl http2"), !tls.is_empty(), "{profile}");
        assert_eq!(conf.contains("33.33% &lane=2;"), profile != "collapse", "{profile}");
        assert!(!conf.contains("include "), "{profile}");
        // The timeout is longer than a long poll, and the inner listener is open to this machine
        // only.
        assert!(conf.contains("proxy_read_timeout 5"), "{profile}: {conf}");
        assert_eq!(conf.contains("listen 127.0.0.1:3199;"), profile == "squid", "{profile}");
    }
}

#[test]
fn fastly_gets_one_file_or_the_snippets_as_they_are() {
    let directory = tempfile::tempdir().expect("a directory");
    let main = edge(&["fastly", "--origin", "o.example.net:8443", "--lanes", "3"]);
    let file = directory.path().join("main.vcl");
    std::fs::write(&file, &main).expect("it is written");
    assert_eq!(fastly_vcl::complaints(&file), [""; 0]);
    for wanted in [
        r#".host = "o.example.net""#,
        r#".port = "8443""#,
        r#".host_header = "o.example.net:8443""#,
        r#""Host: o.example.net:8443""#,
        r#".ssl_cert_hostname = "o.example.net""#,
        r#""lanes": "3""#,
    ] {
        assert!(main.contains(wanted), "{wanted} is missing:\n{main}");
    }
    // The Host header has no port if it is the default port. A host name that ends like the shipped
    // one is replaced as a whole.
    let usual = edge(&["fastly", "--origin", "my.origin.example.com:443"]);
    assert!(usual.contains(r#".host_header = "my.origin.example.com""#), "{usual}");
    assert!(usual.contains(r#""Host: my.origin.example.com" "#), "{usual}");
    assert!(!main.contains("origin.example.com") && !main.contains("\ninclude "));
    let snippets = directory.path().join("snippets");
    edge(&[
        "fastly",
        "--origin",
        "o.example.net:443",
        "--domain",
        "live.example.net",
        "--snippets",
        &snippets.display().to_string(),
    ]);
    for entry in std::fs::read_dir("vcl/fastly").expect("it is there") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if name.ends_with("test.vcl") || name == "main.vcl" || name == "README.md" {
            continue;
        }
        let written = std::fs::read_to_string(snippets.join(&name)).expect("it is written");
        assert_eq!(written, std::fs::read_to_string(&path).expect("text"), "{name}");
    }
    let values = std::fs::read_to_string(snippets.join("headwater.auto.tfvars")).expect("written");
    assert_eq!(
        values,
        "domain = \"live.example.net\"\norigin_host = \"o.example.net\"\norigin_port = 443\n"
    );
}

#[test]
fn what_cannot_be_filled_in_is_refused() {
    for words in [
        &["varnish", "--origin", "nowhere"][..],
        &["varnish", "--origin", "a b:80"],
        &["varnish", "--origin", "a:0"],
        &["varnish", "--origin", "a\";:80"],
        &["nginx", "--profile", "varnish", "--origin", "a:80"],
        &["nginx", "--profile", "squid", "--origin", "a:80", "--cors-origin", "a.example"],
        &["squid", "--origin", "a:80", "--listen", "80 ssl"],
        &["nginx", "--profile", "stream", "--origin", "a:80", "--listen", "80; evil"],
        &["nginx", "--profile", "stream", "--origin", "a:80", "--lanes", "65"],
        &["fastly"],
    ] {
        let output = Command::new(BINARY).arg("edge").args(words).output().expect("it starts");
        assert!(!output.status.success(), "{words:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{words:?}");
    }
}
