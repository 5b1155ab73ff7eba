//! The files of a release, made with the binary that the tests use. No release binary is built: a
//! build takes ten minutes for each target, and its tools are missing on some test machines.

use super::run;
use crate::kit::BINARY;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Makes the files in a directory.
fn release(directory: &Path) {
    let mut command = Command::new("deploy/release/build");
    command.args(["--binary", BINARY, TARGET]);
    let output = command.env("RELEASE_DIRECTORY", directory).output().expect("bash runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_files_of_a_release_are_whole_and_the_same_each_time() {
    let place = tempfile::tempdir().expect("a directory");
    let [first, second] = ["first", "second"].map(|name| place.path().join(name));
    release(&first);
    release(&second);
    let sums = |directory: &Path| std::fs::read(directory.join("SHA256SUMS")).expect("the sums");
    assert_eq!(sums(&first), sums(&second), "two runs make the same bytes");
    let mut check = Command::new("sha256sum");
    check.args(["--check", "--strict", "SHA256SUMS"]).current_dir(&first);
    let checked = check.output().expect("sha256sum runs");
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success() && said.lines().count() == 2, "{said}");

    let name = format!("headwater-{}-{TARGET}", env!("CARGO_PKG_VERSION"));
    let archive = first.join(format!("{name}.tar.gz")).display().to_string();
    let unpacked = run("tar", &["-xzf", &archive, "-C", &place.path().display().to_string()], "");
    assert!(unpacked.status.success());
    let unpacked = place.path().join(&name);
    for file in ["LICENSE", "README.md", "man/headwater-serve.1", "completions/headwater.bash"] {
        assert!(unpacked.join(file).exists(), "{file}");
    }
    let program = unpacked.join("headwater").display().to_string();
    let version = String::from_utf8(run(&program, &["--version"], "").stdout).expect("text");
    assert_eq!(version, format!("headwater {}\n", env!("CARGO_PKG_VERSION")));

    // Every crate of the program is in the list with its license, and no path of this machine is.
    let list = first.join(format!("headwater-{}.cdx.json", env!("CARGO_PKG_VERSION")));
    let list = std::fs::read_to_string(list).expect("the list");
    let here = std::env::current_dir().expect("a directory").display().to_string();
    assert!(!list.contains(&here), "the list names {here}");
    let list: Value = serde_json::from_str(&list).expect("JSON");
    assert_eq!(list["bomFormat"], "CycloneDX");
    let parts = list["components"].as_array().expect("components");
    for wanted in ["tokio", "hyper", "aws-lc-rs", "tikv-jemallocator"] {
        let part = parts.iter().find(|part| part["name"] == wanted).expect(wanted);
        assert!(part["purl"].as_str().is_some_and(|purl| purl.starts_with("pkg:cargo/")), "{part}");
        assert!(part["licenses"].is_array(), "{part}");
    }
    assert!(parts.iter().all(|part| part["name"] != "proptest"), "no part of the tests");
}

#[test]
fn no_release_is_made_of_the_program_of_an_earlier_build() {
    let place = tempfile::tempdir().expect("a directory");
    let [tools, target, files] = ["tools", "target", "files"].map(|name| place.path().join(name));
    let earlier = target.join(TARGET).join("dist");
    std::fs::create_dir_all(&earlier).expect("a directory");
    std::fs::copy(BINARY, earlier.join("headwater")).expect("a program");
    std::fs::create_dir(&tools).expect("a directory");
    let cargo = tools.join("cargo");
    std::fs::write(&cargo, "#!/bin/sh\nexit 101\n").expect("a cargo that fails");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&cargo, mode).expect("the mode is set");

    let path = format!("{}:{}", tools.display(), std::env::var("PATH").expect("a path"));
    let mut command = Command::new("deploy/release/build");
    command.arg(TARGET).env("PATH", path);
    command.env("CARGO_TARGET_DIR", &target).env("RELEASE_DIRECTORY", &files);
    let output = command.output().expect("bash runs");
    assert_eq!(output.status.code(), Some(101), "cargo's status");
    assert!(!files.join("SHA256SUMS").exists());
}
