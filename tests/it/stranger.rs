//! The quick start of README works in a fresh clone: its commands run, the pages of the demo and of
//! the console open in Chromium, and the snippets of the console and of README work.

use crate::kit::{alone, run_script};

#[tokio::test]
async fn a_stranger_gets_from_a_clone_to_live_pages() {
    let _alone = alone().await;
    let report = run_script("tests/stranger/run", &[], &[]).await;
    assert!(report.contains("stranger: every command, page and snippet works"), "{report}");
}
