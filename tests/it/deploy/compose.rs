//! The Compose file, read by the library of Docker Compose, and compared with the files that it
//! mounts.

use super::{manifests, run, said, text, texts};
use crate::kit::BINARY;
use crate::kit::edge::run_parameters;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

const FILE: &str = "deploy/compose/compose.yaml";
/// What an origin adds to a drain: the time until its requests have ended.
const SLACK: Duration = Duration::from_secs(2);

/// The services of the Compose file, by their names.
pub fn services() -> BTreeMap<String, Value> {
    let project = manifests(&["compose", FILE], "").unwrap();
    serde_json::from_value(project["services"].clone()).expect("services")
}

/// The files that `generate` writes; `variables` change the addresses.
pub fn generate(directory: &Path, variables: &[(&str, &str)]) {
    let directory = directory.display().to_string();
    let assignments = variables.iter().map(|(name, value)| format!("{name}={value}"));
    let program = format!("HEADWATER={BINARY}");
    let words: Vec<_> = [program].into_iter().chain(assignments).collect();
    let mut words: Vec<_> = words.iter().map(String::as_str).collect();
    words.extend(["deploy/compose/generate", &directory]);
    said(&run("env", &words, "")).unwrap();
}

/// The variables of a service, with secrets in another directory.
pub fn environment(service: &Value, secrets: &Path) -> Vec<(String, String)> {
    let secrets = format!("{}/", secrets.display());
    let variables = service["environment"].as_object().expect("variables").iter();
    variables
        .map(|(name, value)| (name.clone(), value.as_str().expect("text")))
        .map(|(name, value)| (name, value.replace("/run/secrets/", &secrets)))
        .collect()
}

fn address<'a>(services: &'a BTreeMap<String, Value>, name: &str) -> &'a str {
    text(&services[name], "/networks/default/ipv4_address")
}

#[test]
fn every_service_restarts_is_checked_and_is_reached_only_where_it_should() {
    let services = services();
    assert_eq!(services.len(), 7, "{:?}", services.keys());
    for (name, service) in &services {
        assert_eq!(service["restart"], "unless-stopped", "{name}");
        assert!(texts(service, "/healthcheck/test").len() > 1, "{name}");
        let image = text(service, "/image");
        let is_ours = image == "headwater";
        assert!(is_ours || image.contains(':') && !image.ends_with(":latest"), "{image}");
        let ports = service["ports"].as_array().cloned().unwrap_or_default();
        let is_local = ports.iter().all(|port| port["host_ip"] == "127.0.0.1");
        assert!(is_local || name == "nginx", "{name}: {ports:?}");
        let waits = service["depends_on"].as_object().cloned().unwrap_or_default();
        let is_healthy = |wait: &Value| wait["condition"] == "service_healthy";
        assert!(waits.values().all(is_healthy), "{name}: {waits:?}");
    }
}

#[test]
fn every_mounted_file_and_secret_is_there_after_generate() {
    let generated = tempfile::tempdir().expect("a directory");
    generate(generated.path(), &[]);
    let project = manifests(&["compose", FILE], "").unwrap();
    let here = std::path::absolute("deploy/compose/generated").expect("a path");
    let place = |source: &str| match Path::new(source).strip_prefix(&here) {
        Ok(name) => generated.path().join(name),
        Err(_) => source.into(),
    };
    let mut sources: Vec<_> = services()
        .values()
        .flat_map(|service| {
            let volumes = service["volumes"].as_array().cloned().unwrap_or_default();
            volumes.into_iter().filter(|volume| volume["type"] == "bind").inspect(|volume| {
                assert_eq!(volume["read_only"], true, "{volume}");
            })
        })
        .map(|volume| text(&volume, "/source").to_owned())
        .collect();
    let secrets = project["secrets"].as_object().expect("secrets");
    sources.extend(secrets.values().map(|secret| text(secret, "/file").to_owned()));
    assert!(sources.len() > 10, "{sources:?}");
    for source in sources {
        assert!(place(&source).exists(), "{source} is mounted, and does not exist");
    }
    // The secrets are kept, and no other user reaches them.
    let read = |name: &str| std::fs::read_to_string(generated.path().join(name)).expect("a file");
    let before = ["token-secret", "grafana-password", "redis-url", "redis-users"]
        .map(|name| read(&format!("secrets/{name}")));
    generate(generated.path(), &[]);
    let after = ["token-secret", "grafana-password", "redis-url", "redis-users"]
        .map(|name| read(&format!("secrets/{name}")));
    assert_eq!(before, after);
    assert!(before[0].len() >= 32 && before[0] != before[1]);
    let secrets = generated.path().join("secrets").display().to_string();
    assert_eq!(said(&run("stat", &["-c", "%a", &secrets], "")).unwrap(), "700\n");
}

#[test]
fn the_addresses_of_the_servers_agree_in_all_files() {
    let generated = tempfile::tempdir().expect("a directory");
    generate(generated.path(), &[]);
    let read = |path: &Path| std::fs::read_to_string(path).expect("a file");
    let vcl = read(&generated.path().join("headwater.vcl"));
    let nginx = read(&generated.path().join("nginx.conf"));
    let redis = read(&generated.path().join("secrets/redis-url"));
    let prometheus = read(Path::new("deploy/compose/prometheus.yml"));
    let services = services();
    for origin in ["origin-1", "origin-2"] {
        let address = address(&services, origin);
        assert!(vcl.contains(&format!(".host = \"{address}\"")), "{address}");
        assert!(prometheus.contains(&format!("\"{address}:8081\"")), "{address}");
    }
    assert!(nginx.contains(&format!("server {}:6081;", address(&services, "varnish"))));
    assert!(redis.trim_end().ends_with(&format!("@{}:6379", address(&services, "redis"))));
    let command = texts(&services["varnish"], "/command");
    let at = command.iter().position(|word| word == "-s").expect("parameters");
    assert_eq!(command[at..], run_parameters(&vcl));
}

#[test]
fn the_origins_have_valid_settings_and_time_to_drain() {
    let generated = tempfile::tempdir().expect("a directory");
    generate(generated.path(), &[]);
    let services = services();
    for name in ["origin-1", "origin-2"] {
        let service = &services[name];
        let variables = environment(service, &generated.path().join("secrets"));
        // The image sets this one.
        let image = "HEADWATER_LISTEN=0.0.0.0:8080".to_owned();
        let assignments = variables.iter().map(|(name, value)| format!("{name}={value}"));
        let words: Vec<_> = assignments.chain([image]).collect();
        let mut words: Vec<_> = words.iter().map(String::as_str).collect();
        words.extend([BINARY, "config"]);
        let checked = said(&run("env", &[&words[..], &["check"]].concat(), ""));
        checked.unwrap();
        let shown = said(&run("env", &[&words[..], &["show"]].concat(), "")).unwrap();
        let time = |setting: &str| {
            let line = shown.lines().find_map(|line| {
                // A default value is a comment.
                line.trim_start_matches("# ").strip_prefix(setting)
            });
            let value = line.and_then(|line| line.split('"').nth(1)).expect("a time");
            humantime::parse_duration(value).expect("a time")
        };
        let grace = humantime::parse_duration(text(service, "/stop_grace_period")).expect("a time");
        assert!(grace > time("drain-delay = ") + time("drain-timeout = ") + SLACK, "{grace:?}");
        assert_eq!(service["read_only"], true);
        assert_eq!(service["cap_drop"][0], "ALL");
    }
}
