//! The Debian package: it is built, checked, installed, upgraded and purged on this machine.

use crate::kit::BINARY;
use std::path::Path;
use std::process::{Command, Output};

const CONFIG: &str = "/etc/headwater/headwater.toml";
const PROGRAM: &str = "/usr/bin/headwater";

fn run(program: &str, words: &[&str]) -> Output {
    let mut command = Command::new(program);
    // Without systemd as the first process, the services of the package are not started.
    command.args(words).env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
    command.output().unwrap_or_else(|error| panic!("{program} runs: {error}"))
}

fn succeeds(program: &str, words: &[&str]) -> String {
    let output = run(program, words);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{program} {words:?}: {said}");
    said
}

/// Builds the package of this program with a revision, and returns its path.
fn build(revision: &str) -> String {
    let tools = std::path::absolute("target/deb/bin").expect("a path");
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").expect("a path"));
    let mut command = Command::new("deploy/debian/build");
    let output = command.args([BINARY, revision, "--fast"]).env("PATH", path).output();
    let output = output.expect("bash runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("a path").trim().to_owned()
}

/// Removes the package also when the test fails.
struct Purge;

impl Drop for Purge {
    fn drop(&mut self) {
        run("dpkg", &["--purge", "headwater"]);
    }
}

#[tokio::test]
async fn the_package_is_installed_upgraded_and_purged() {
    // dpkg writes whole files through to the disk, which delays everything else on the machine.
    let _alone = crate::kit::alone().await;
    // The package of this machine, if there is one, is not ours to replace.
    assert!(!Path::new(PROGRAM).exists(), "{PROGRAM} exists; purge that package for this test");
    let first = build("1");
    // Debian's own checks find neither an error nor a warning.
    assert_eq!(succeeds("lintian", &["--allow-root", "--fail-on", "error,warning", &first]), "");
    let _purge = Purge;
    succeeds("dpkg", &["--install", &first]);
    assert!(succeeds(PROGRAM, &["--version"]).starts_with("headwater "));
    // This also shows that the default path of the configuration is read.
    assert_eq!(succeeds(PROGRAM, &["config", "check"]), format!("{CONFIG} is valid\n"));
    for file in [
        "share/man/man1/headwater-serve.1.gz",
        "share/bash-completion/completions/headwater",
        "share/zsh/vendor-completions/_headwater",
        "share/fish/vendor_completions.d/headwater.fish",
        "share/doc/headwater/README.md",
        "share/doc/headwater/changelog.gz",
    ] {
        assert!(Path::new("/usr").join(file).exists(), "{file}");
    }
    let units = succeeds("dpkg", &["--listfiles", "headwater"]);
    let units: Vec<_> =
        units.lines().filter(|line| line.contains("/systemd/system/head")).collect();
    assert_eq!(units.len(), 4, "{units:?}");
    for unit in units {
        succeeds("systemd-analyze", &["verify", "--man=no", unit]);
    }

    // An upgrade keeps the settings of the operator.
    let mine = "segment = \"10s\"\n";
    std::fs::write(CONFIG, mine).expect("the file of the package");
    let second = build("2");
    succeeds("dpkg", &["--install", "--force-confold", &second]);
    let version = succeeds("dpkg-query", &["--show", "--showformat", "${Version}", "headwater"]);
    assert!(version.ends_with("-2"), "{version}");
    assert_eq!(std::fs::read_to_string(CONFIG).expect("it is still there"), mine);
    assert!(succeeds(PROGRAM, &["config", "show"]).contains("segment = \"10s\""));

    // Removing the package keeps the settings, purging it does not.
    succeeds("dpkg", &["--remove", "headwater"]);
    assert!(!Path::new(PROGRAM).exists() && Path::new(CONFIG).exists());
    succeeds("dpkg", &["--purge", "headwater"]);
    assert!(!Path::new("/etc/headwater").exists());
}

#[test]
fn the_completions_and_manual_pages_are_whole() {
    for shell in ["bash", "zsh", "fish"] {
        let text = succeeds(BINARY, &["completions", shell]);
        assert!(text.contains("--store-timeout") || text.contains("store-timeout"), "{shell}");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let script = directory.path().join("headwater.bash");
    std::fs::write(&script, succeeds(BINARY, &["completions", "bash"])).expect("a file");
    succeeds("bash", &["-n", &script.display().to_string()]);
    let pages = directory.path().join("man");
    succeeds(BINARY, &["man", &pages.display().to_string()]);
    let serve = std::fs::read_to_string(pages.join("headwater-serve.1")).expect("a page");
    assert!(serve.contains("Store of the events") && serve.contains(".TH headwater"), "{serve}");
    // A reader that ends early is no error.
    let script = format!("'{BINARY}' man | head -1 && '{BINARY}' completions zsh | head -1");
    let said = succeeds("bash", &["-c", &format!("set -o pipefail; {script}")]);
    assert!(!said.contains("panic"), "{said}");
}
