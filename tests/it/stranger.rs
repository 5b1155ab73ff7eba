//! The quick start of README works from a fresh clone, with its pages and the snippets of the
//! console.

use crate::kit::{alone, run_script};

#[tokio::test]
async fn a_stranger_gets_from_a_clone_to_live_pages() {
    let _alone = alone().await;
    let report = run_script("tests/stranger/run", &[], &[]).await;
    assert!(report.contains("stranger: every command, page and snippet works"), "{report}");
}
