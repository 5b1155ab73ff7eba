//! The container image: its Dockerfile and the list of its build files are checked. Its file system
//! is built in a directory, and the program in it runs there without a container.

use super::{run, said};
use crate::kit::{BINARY, Origin};
use std::path::Path;

const DOCKERFILE: &str = "deploy/docker/Dockerfile";
/// The image must stay below this size.
const IMAGE_BYTES_MAX: u64 = 40_000_000;
/// Runs the program of an image as its user, with nothing writable but the data directory. The first
/// word is the directory of the image, and the second the program, which is the one in the image.
const CONTAINER: &str = r#"
root=$1; shift 2
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --bind "$root/var/lib/headwater" "$root/var/lib/headwater"
mount -o remount,bind,ro "$root"
exec chroot --userspec=65532:65532 "$root" /usr/bin/headwater "$@""#;

/// Makes the file system of the image with the program of this build.
fn image() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a directory");
    let path = root.path().display().to_string();
    said(&run("deploy/docker/rootfs", &[BINARY, &path], "")).unwrap();
    said(&run("chmod", &["755", &path], "")).unwrap();
    root
}

fn size(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).expect("a directory").map(|entry| entry.unwrap());
    let sizes = entries.map(|entry| match entry.file_type().expect("a type").is_dir() {
        true => size(&entry.path()),
        false => entry.metadata().expect("a file").len(),
    });
    sizes.sum()
}

#[test]
fn hadolint_accepts_the_dockerfile() {
    let words = ["--failure-threshold", "info", DOCKERFILE];
    said(&run("target/hadolint/bin/hadolint", &words, "")).unwrap();
}

/// The files that `.dockerignore` lets into the build are all that Cargo and the sources name.
#[test]
fn the_build_of_the_image_has_its_files() {
    let rules = std::fs::read_to_string(".dockerignore").expect("the rules");
    let allowed: Vec<_> = rules.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let context = tempfile::tempdir().expect("a directory");
    // A rule with a star is a pattern of the shell, too.
    let copy = format!("cp -r --parents {} {}", allowed.join(" "), context.path().display());
    said(&run("sh", &["-c", &copy], "")).unwrap();
    // Cargo refuses a manifest that names a target whose file is missing.
    let manifest = context.path().join("Cargo.toml").display().to_string();
    let words = ["metadata", "--no-deps", "--offline", "--locked", "--format-version", "1"];
    let words = [&words[..], &["--manifest-path", &manifest]].concat();
    said(&run(env!("CARGO"), &words, "")).unwrap();
    let mut count = 0;
    for (name, source) in crate::tidy::sources(Path::new("src")) {
        let folder = Path::new("src").join(&name);
        for included in source.split("include_").skip(1).filter_map(|call| call.split('"').nth(1)) {
            if included.starts_with("../") {
                let path = context.path().join(folder.parent().expect("a folder")).join(included);
                assert!(path.exists(), "{name} includes {included}; .dockerignore excludes it");
                count += 1;
            }
        }
    }
    assert!(count > 20, "{count} included files");
    assert!(context.path().join("deploy/docker/rootfs").exists());
}

#[tokio::test]
async fn the_file_system_of_the_image_serves_as_an_unprivileged_user() {
    let root = image();
    let bytes = size(root.path());
    println!("the image has {bytes} bytes");
    assert!(bytes < IMAGE_BYTES_MAX, "the image has {bytes} bytes");
    let path = root.path().display().to_string();
    let dockerfile = std::fs::read_to_string(DOCKERFILE).expect("the Dockerfile");
    let store = "HEADWATER_STORE=disk:/var/lib/headwater";
    assert!(dockerfile.contains(store) && dockerfile.contains("USER 65532:65532"));
    let wrapper = ["env", store, "unshare", "-m", "sh", "-ec", CONTAINER, "sh", &path];
    let mut origin = Origin::wrapped(&wrapper, &[]);
    let owner = said(&run("stat", &["-c", "%u", &format!("/proc/{}", origin.pid())], ""));
    assert_eq!(owner.unwrap().trim(), "65532");
    origin.publish("a", "1").await;

    // The command of HEALTHCHECK, as the same user.
    let check = dockerfile.split("HEALTHCHECK").nth(1).and_then(|rest| rest.split("CMD ").nth(1));
    let check = check.and_then(|check| check.lines().next()).expect("a check");
    let check: Vec<String> = serde_json::from_str(check).expect("a list of words");
    let url = format!("http://{}", origin.admin);
    let words = ["--userspec=65532:65532", &path, &check[0], &check[1], "--admin-url", &url];
    assert_eq!(said(&run("chroot", &words, "")).unwrap(), "ok\n");
    origin.signal("TERM");
    assert!(origin.ended().await.success());
    let failed = said(&run("chroot", &words, "")).unwrap_err();
    assert!(failed.contains("/healthz"), "{failed}");

    // What was published is in the volume.
    origin.start_again();
    assert_eq!(origin.log("a").await.len(), 1);
}

/// In Kubernetes a volume belongs to root, and the group of the pod may write to it.
#[tokio::test]
async fn the_store_may_be_a_directory_in_a_volume_of_another_owner() {
    let root = image();
    let path = root.path().display().to_string();
    let volume = format!("{path}/var/lib/headwater");
    said(&run("chown", &["0:65532", &volume], "")).unwrap();
    said(&run("chmod", &["2775", &volume], "")).unwrap();
    let wrapper = ["unshare", "-m", "sh", "-ec", CONTAINER, "sh", &path];
    let origin = Origin::wrapped(&wrapper, &["--store", "disk:/var/lib/headwater/log"]);
    origin.publish("a", "1").await;
}
