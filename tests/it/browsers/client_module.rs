//! The client module: its own tests, which run in Node.js and Chromium against an origin.

use crate::kit::{BINARY, quiet, run_script};

#[tokio::test]
async fn the_client_module_passes_its_tests() {
    let _quiet = quiet().await;
    let esbuild = std::fs::canonicalize("target/esbuild/node_modules/.bin/esbuild");
    let esbuild = esbuild.expect("tests/run installs esbuild");
    let variables = [("TEST_HEADWATER", BINARY), ("TEST_ESBUILD", esbuild.to_str().expect("text"))];
    let report = run_script("tests/client_js/run", &[], &variables).await;
    assert!(report.contains("ℹ fail 0") && !report.contains("ℹ pass 0"), "{report}");
}
