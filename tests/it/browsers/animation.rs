//! The animation of README: the script that makes it works, and it is an animation below 1 MB.

use super::demo_audit::PICTURES;
use crate::kit::{BINARY, alone, run_script};

const SHOWN: &str = "docs/pictures/demo.webp";
const BYTES_MAX: usize = 1_000_000;
/// The least number of pictures: the board while it turns, and two drawings.
const FRAMES_MIN: usize = 10;

/// Checks the file, which is an animated WebP: a RIFF with a chunk `ANMF` for each picture.
fn check(file: &str) {
    let bytes = std::fs::read(file).expect(file);
    assert!(bytes.len() < BYTES_MAX, "{file}: {} bytes", bytes.len());
    assert!(bytes.starts_with(b"RIFF") && bytes[8..].starts_with(b"WEBP"), "{file}");
    let mut frames = 0;
    let mut rest = &bytes[12..];
    while let Some((head, after)) = rest.split_at_checked(8) {
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        frames += usize::from(head.starts_with(b"ANMF"));
        // A chunk has an even length.
        rest = after.get(length.next_multiple_of(2)..).unwrap_or_default();
    }
    assert!(frames >= FRAMES_MIN, "{file}: {frames} pictures");
}

#[tokio::test]
async fn the_animation_of_readme_can_be_made_again() {
    let _alone = alone().await;
    std::fs::create_dir_all(PICTURES).expect("a directory");
    let made = format!("{PICTURES}/demo.webp");
    run_script("tools/pictures/animate", &[&made], &[("HEADWATER", BINARY)]).await;
    check(&made);
    check(SHOWN);
    let readme = std::fs::read_to_string("README.md").expect("README.md");
    assert!(readme.contains(SHOWN), "README.md does not show {SHOWN}");
}
