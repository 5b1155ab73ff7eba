//! The configuration file, the commands that check and show it, and reading it again.

use crate::kit::edge::Certificate;
use crate::kit::{BINARY, Origin, PATIENCE, next_message, request, wait_for_phase};
use headwater::client::EventSource;
use headwater::client::http::Address;
use hyper::Method;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;
use tokio::time::timeout;

const OLD_SECRET: &str = "the-old-secret-of-at-least-32-bytes";
const NEW_SECRET: &str = "the-new-secret-of-at-least-32-bytes";

fn written(directory: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = directory.path().join(name);
    std::fs::write(&path, text).expect("it can be written");
    path
}

fn run(words: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(BINARY);
    command.args(words).envs(variables.iter().copied());
    command.output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn named(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

fn token(secret: &str) -> String {
    let words = ["token", "--token-secret", secret, "--publish", "*", "--subscribe", "*"];
    text(&run(&words, &[]).stdout).trim().to_owned()
}

#[test]
fn a_flag_precedes_a_variable_which_precedes_the_file() {
    let directory = TempDir::new().unwrap();
    let text_of_file = "# the file\nsegment = \"10s\"\nlanes = 3\nheartbeat = \"3s\"\n\
                        cors-origin = [\"https://a.example\", \"https://b.example\"]\n";
    let file = written(&directory, "a.toml", text_of_file);
    let words = ["config", "show", "--config", named(&file), "--heartbeat", "4s"];
    let shown = run(&words, &[("HEADWATER_LANES", "2"), ("HEADWATER_HEARTBEAT", "5s")]);
    let shown = text(&shown.stdout);
    let has = |line: &str| assert!(shown.lines().any(|one| one == line), "{line} in\n{shown}");
    has("heartbeat = \"4s\"  # --heartbeat");
    has("lanes = 2  # HEADWATER_LANES");
    has(&format!("segment = \"10s\"  # {}, line 2", named(&file)));
    let origins = "cors-origin = [\"https://a.example\", \"https://b.example\"]";
    has(&format!("{origins}  # {}, line 5", named(&file)));
    has("# store = \"disk:./headwater-data\"  # default");
}

#[test]
fn a_mistake_in_the_file_is_named_with_its_line() {
    let directory = TempDir::new().unwrap();
    let check = |text_of_file: &str, parts: &[&str]| {
        let file = written(&directory, "a.toml", text_of_file);
        for words in [&["serve"][..], &["config", "check"]] {
            let words = [words, &["--config", named(&file)]].concat();
            let output = run(&words, &[]);
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{words:?}: {said}");
            for part in parts {
                assert!(said.contains(part), "{words:?}: {said}");
            }
        }
    };
    check("lanes = 2\nsegmet = \"1s\"", &["a.toml, line 2", "did you mean segment?"]);
    check("lanes = 2\nsegment = \"1h\"", &["--segment takes 1s to 10m", "a.toml, line 2"]);
    check("lanes = \"many\"", &["invalid value 'many' for '--lanes", "a.toml, line 1"]);
    check("lanes = ", &["a.toml, line 1"]);
    let open = &["could publish", "--listen is set in", "a.toml, line 1"];
    check("listen = \"0.0.0.0:0\"\nadmin-listen = \"127.0.0.1:0\"\nstore = \"memory\"", open);
    let missing = run(&["serve", "--config", "/nowhere/a.toml"], &[]);
    assert!(text(&missing.stderr).contains("cannot read /nowhere/a.toml"));
}

#[test]
fn a_secret_is_never_printed_and_a_file_that_everybody_can_read_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let directory = TempDir::new().unwrap();
    let text_of_file = format!(
        "token-secret = \"{OLD_SECRET}\"\nedge-auth = \"0123456789abcdef\"\n\
         store = \"redis://user:p4ssword@127.0.0.1/\"\n"
    );
    let file = written(&directory, "a.toml", &text_of_file);
    let words = |command| ["config", command, "--config", named(&file)];
    for (mode, is_exposed) in [(0o644, true), (0o600, false)] {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        for command in ["check", "show"] {
            let output = run(&words(command), &[]);
            let said = text(&output.stdout) + &text(&output.stderr);
            assert!(output.status.success(), "{said}");
            for secret in [OLD_SECRET, "0123456789abcdef", "p4ssword"] {
                assert!(!said.contains(secret), "{said}");
            }
            assert_eq!(
                said.contains("every user of this machine") && command == "check",
                is_exposed && command == "check",
                "{said}"
            );
        }
    }
}

#[test]
fn a_secret_can_be_a_credential_of_systemd() {
    let directory = TempDir::new().unwrap();
    written(&directory, "key", &format!("{OLD_SECRET}\n"));
    let words = ["config", "check", "--config", "", "--token-secret", "@credential:key"];
    let place = named(directory.path());
    let output = run(&words, &[("CREDENTIALS_DIRECTORY", place)]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let output = run(&words, &[]);
    assert!(text(&output.stderr).contains("CREDENTIALS_DIRECTORY is not set"));
}

#[test]
fn the_file_that_init_writes_has_every_setting_with_its_default() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("new.toml");
    let made = run(&["config", "init", named(&path)], &[]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let example = std::fs::read_to_string(&path).unwrap();
    // A comment that begins with a name and " = " is a setting.
    let is_setting = |line: &&str| {
        let name = line.strip_prefix("# ").and_then(|rest| rest.split_once(" = "));
        name.is_some_and(|(name, _)| !name.contains(' '))
    };
    let settings: Vec<_> = example.lines().filter(is_setting).map(|line| &line[2..]).collect();
    assert!(settings.len() > 60, "{example}");
    let without_value = |line: &&str| !line.ends_with("= []") && !line.ends_with("= \"\"");
    let file: Vec<_> = settings.into_iter().filter(without_value).collect();
    let file = written(&directory, "all.toml", &file.join("\n"));
    let checked = run(&["config", "check", "--config", named(&file)], &[]);
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    let again = run(&["config", "init", named(&path)], &[]);
    assert!(text(&again.stderr).contains("--force"), "{}", text(&again.stderr));
    assert!(run(&["config", "init", named(&path), "--force"], &[]).status.success());
}

fn settings(secrets: &str, more: &str) -> String {
    format!("token-secret = [{secrets}]\nprivate = \"private.*\"\n{more}")
}

async fn publish(origin: &Origin, token: &str) -> u16 {
    let authorization = format!("Bearer {token}");
    let headers = [("authorization", authorization.as_str())];
    let (address, path) = (origin.address(), "/channels/private.a");
    let answer = request(&address, Method::POST, path, &headers, "x".into()).await;
    answer.expect("an answer").status.as_u16()
}

#[tokio::test]
async fn keys_and_limits_are_read_again_without_touching_a_stream() {
    let directory = TempDir::new().unwrap();
    // The stream shall not reach its boundary during the test.
    wait_for_phase(60_000, 0, 40_000).await;
    let (old, new) = (format!("\"{OLD_SECRET}\""), format!("\"{NEW_SECRET}\""));
    let file = written(&directory, "a.toml", &settings(&old, ""));
    let admin = "--admin-url";
    let origin = Origin::with(&["--store", "memory", "--segment", "60s", "--config", named(&file)]);
    let url = format!("http://{}", origin.admin);
    let reload = || run(&["reload", admin, &url], &[]);
    let (old_token, new_token) = (token(OLD_SECRET), token(NEW_SECRET));
    assert_eq!(publish(&origin, &old_token).await, 201);
    assert_eq!(publish(&origin, &new_token).await, 401);
    let address: Address = origin.address().with_token(Some(old_token.clone()));
    let mut stream = EventSource::new(address, "/channels/private.a?after=0-0", None);
    timeout(PATIENCE, next_message(&mut stream)).await.expect("an event");

    // Both keys, a limit, and a setting that only a start can change.
    let more = "max-event = \"10\"\nlanes = 2\n";
    std::fs::write(&file, settings(&format!("{old}, {new}"), more)).unwrap();
    let output = reload();
    let said = text(&output.stdout);
    assert!(said.contains("changed: --max-event, --token-secret"), "{said}");
    assert!(said.contains("next start of the origin also: --lanes"), "{said}");
    assert_eq!(publish(&origin, &old_token).await, 201);
    assert_eq!(publish(&origin, &new_token).await, 201);
    timeout(PATIENCE, next_message(&mut stream)).await.expect("the stream goes on");

    // The old key goes; this time by the signal.
    std::fs::write(&file, settings(&new, more)).unwrap();
    origin.signal("HUP");
    origin.logs_times("the settings were read again", 2).await;
    assert_eq!(publish(&origin, &old_token).await, 401);
    assert_eq!(publish(&origin, &new_token).await, 201);

    // A bad file changes nothing, and neither does a file without any key.
    for (text_of_file, why) in [("max-event = ", "a.toml, line 1"), ("lanes = 1", "every client")] {
        std::fs::write(&file, text_of_file).unwrap();
        let output = reload();
        assert_eq!(output.status.code(), Some(1));
        let said = text(&output.stderr);
        assert!(said.contains(why) && said.contains("nothing was changed"), "{said}");
        assert_eq!(publish(&origin, &new_token).await, 201);
        assert_eq!(publish(&origin, &old_token).await, 401);
    }
    // None of this has ended the stream: the client has connected once.
    assert_eq!(origin.metric("headwater_streams_opened_total{kind=\"cursor\"}").await, 1.0);
    assert_eq!(origin.metric("headwater_streams_open").await, 1.0);
}

#[tokio::test]
async fn a_page_cannot_make_an_origin_read_its_settings() {
    let origin = Origin::start();
    let admin: Address = format!("http://{}", origin.admin).parse().unwrap();
    let own = format!("http://{}", origin.admin);
    for header in [("origin", own.as_str()), ("sec-fetch-site", "none")] {
        let headers = [header];
        let answer = request(&admin, Method::POST, "/reload", &headers, Default::default())
            .await
            .expect("an answer");
        assert_eq!(answer.status, 403, "{answer:?}");
    }
    let answer =
        request(&admin, Method::GET, "/reload", &[], Default::default()).await.expect("an answer");
    assert_eq!(answer.status, 405);
    let answer =
        request(&admin, Method::POST, "/reload", &[], Default::default()).await.expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    let public = request(&origin.address(), Method::POST, "/reload", &[], Default::default())
        .await
        .expect("an answer");
    assert_eq!(public.status, 404);
}

#[tokio::test]
async fn a_token_can_be_revoked_while_the_origin_runs() {
    let directory = TempDir::new().unwrap();
    let list = written(&directory, "revoked", "# nothing yet\n");
    let flags =
        ["--store", "memory", "--token-secret", OLD_SECRET, "--token-revoked", named(&list)];
    let origin = Origin::with(&flags);
    let url = format!("http://{}", origin.admin);
    let of = |subject: &str| {
        let words = ["token", "--token-secret", OLD_SECRET, "--publish", "*", "--subject", subject];
        text(&run(&words, &[]).stdout).trim().to_owned()
    };
    let (alice, bob) = (of("alice"), of("bob"));
    assert_eq!(publish(&origin, &alice).await, 201);
    std::fs::write(&list, "sub alice\n").unwrap();
    assert!(run(&["reload", "--admin-url", &url], &[]).status.success());
    assert_eq!((publish(&origin, &alice).await, publish(&origin, &bob).await), (401, 201));
    std::fs::write(&list, "alice\n").unwrap();
    let refused = run(&["reload", "--admin-url", &url], &[]);
    assert!(text(&refused.stderr).contains("revoked: line 1"), "{}", text(&refused.stderr));
    assert_eq!(publish(&origin, &alice).await, 401);
}

#[tokio::test]
async fn tls_is_switched_on_at_the_next_start() {
    let (directory, certificate) = (TempDir::new().unwrap(), Certificate::new());
    let file = written(&directory, "a.toml", "");
    let origin = Origin::with(&["--store", "memory", "--config", named(&file)]);
    let (chain, key) = (certificate.path("chain.pem"), certificate.path("key.pem"));
    std::fs::write(&file, format!("tls-cert = \"{chain}\"\ntls-key = \"{key}\"\n")).unwrap();
    let said = run(&["reload", "--admin-url", &format!("http://{}", origin.admin)], &[]);
    let said = text(&said.stdout);
    assert!(said.contains("next start of the origin also: --tls-cert, --tls-key"), "{said}");
    assert_eq!(publish(&origin, "").await, 201);
}
