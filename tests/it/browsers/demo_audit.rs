//! How the pages of `serve --demo` look, and for whom they work: axe-core finds nothing serious in
//! any page, theme and width, no page scrolls sideways, and reduced motion and forced colours are
//! respected. The pictures of the pages are in `target/pictures`.

use crate::browsers::browser::Browser;
use crate::kit::{Origin, alone};
use serde_json::{Value, json};
use std::path::Path;

pub(super) const AXE: &str = "target/axe/node_modules/axe-core/axe.min.js";
pub(super) const PICTURES: &str = "target/pictures";
/// Each page, with what it shows when it is complete.
const PAGES: [(&str, &str, &str); 5] = [
    ("overview", "/", "#board tr:nth-child(8):not([hidden])"),
    ("departures", "/demo/departures", "#board tr:nth-child(14):not([hidden])"),
    ("ticker", "/demo/ticker", "#prices li:nth-child(12)"),
    ("jobs", "/demo/jobs", "#jobs li"),
    ("chat", "/demo/chat", "#messages li"),
];
/// The width and the height of a phone, a laptop and a wall display.
pub(super) const SIZES: [(u32, u32); 3] = [(390, 844), (1280, 800), (3840, 2160)];
const THEMES: [&str; 2] = ["light", "dark"];

/// Shows the page in this size, and with these features of the media (such as a theme).
pub(super) async fn show(
    browser: &Browser,
    (width, height): (u32, u32),
    features: &[(&str, &str)],
) {
    let size =
        json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
    browser.devtools("Emulation.setDeviceMetricsOverride", size).await;
    let feature = |(name, value): &(&str, &str)| json!({ "name": name, "value": value });
    let features: Vec<Value> = features.iter().map(feature).collect();
    browser.devtools("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    // Two frames, after which the layout and the lines of the prices have the new size.
    let frames = "const done = arguments[0];
        requestAnimationFrame(() => requestAnimationFrame(() => done()))";
    browser.run_async(frames).await;
}

/// The serious and critical findings of axe-core.
pub(super) async fn findings(browser: &Browser, axe: &str) -> Value {
    let script = r#"
        const done = arguments[0];
        const isSerious = ({ impact }) => impact == "serious" || impact == "critical";
        const say = ({ id, nodes }) => id + ": " + nodes.map(({ target }) => target).join(", ");
        axe.run().then(({ violations, passes }) =>
            done({ found: violations.filter(isSerious).map(say), passed: passes.length }));
    "#;
    browser.run_async(&format!("{axe}; {script}")).await
}

/// Writes a picture of the page: of all of it with `is_whole`, otherwise of what the screen shows.
async fn picture(browser: &Browser, file: &Path, (width, height): (u32, u32), is_whole: bool) {
    let whole = browser.run("return document.documentElement.scrollHeight").await;
    let height = if is_whole { whole } else { json!(height) };
    let clip = json!({ "x": 0, "y": 0, "width": width, "height": height, "scale": 1 });
    let wanted = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
    let answer = browser.devtools("Page.captureScreenshot", wanted).await;
    let picture = decode_base64(answer["data"].as_str().expect("a picture"));
    assert!(picture.starts_with(b"\x89PNG"));
    std::fs::write(file, picture).expect("it is written");
}

/// Decodes base64 (RFC 4648, section 4).
fn decode_base64(text: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'=').map(value).collect();
    let mut decoded = Vec::with_capacity(digits.len() * 3 / 4);
    for group in digits.chunks(4) {
        let bits = group.iter().fold(0_u32, |bits, digit| bits << 6 | u32::from(*digit));
        let bits = bits << (6 * (4 - group.len()));
        decoded.extend(&bits.to_be_bytes()[1..group.len()]);
    }
    decoded
}

/// Examines the page in each theme and width, and writes pictures of it with this name: on a phone
/// and with `is_whole` of the whole page, otherwise of what the screen shows.
pub(super) async fn audit(browser: &Browser, axe: &str, name: &str, is_whole: bool) {
    for size in SIZES {
        for theme in THEMES {
            show(browser, size, &[("prefers-color-scheme", theme)]).await;
            let (width, _) = size;
            let what = format!("{name}, {width} px, {theme}");
            let page_width = browser.run("return document.documentElement.scrollWidth").await;
            assert!(page_width.as_u64() <= Some(width.into()), "{what}: {page_width} px");
            let found = findings(browser, axe).await;
            assert_eq!(found["found"], json!([]), "{what}");
            assert!(found["passed"].as_u64() > Some(10), "{what}: axe-core checked nothing");
            let file = Path::new(PICTURES).join(format!("{name}-{width}-{theme}.png"));
            picture(browser, &file, size, is_whole || width < 500).await;
        }
    }
}

#[tokio::test]
async fn every_page_is_accessible_in_each_theme_and_width() {
    let _alone = alone().await;
    let axe = std::fs::read_to_string(AXE).expect("tests/run installs axe-core");
    std::fs::create_dir_all(PICTURES).expect("a directory");
    let origin = Origin::with(&["--store", "memory", "--demo"]);
    let browser = Browser::start().await;
    for (name, path, complete) in PAGES {
        browser.open(&format!("http://{}{path}", origin.listen)).await;
        browser.wait_for("document.body.dataset.status == 'live'").await;
        browser.wait_for(&format!("document.querySelector('{complete}')")).await;
        audit(&browser, &axe, name, false).await;
        let errors = browser.console_errors().await;
        assert!(errors.is_empty(), "{name}: {errors:?}");
    }
}

#[tokio::test]
async fn flaps_do_not_turn_with_reduced_motion_and_have_borders_in_forced_colours() {
    let _alone = alone().await;
    // Counts the phases of turns that the flaps of the board show.
    let watch = r##"
        window.turns = 0;
        const count = (changes) => changes.forEach(({ target }) => {
            if (target.dataset.phase > 0) window.turns += 1;
        });
        const options = { subtree: true, attributes: true, attributeFilter: ["data-phase"] };
        new MutationObserver(count).observe(document.querySelector("#board"), options);
        window.shown = document.querySelector("#board").textContent;
    "##;
    let changed = "document.querySelector('#board').textContent != window.shown";
    let origin = Origin::with(&["--store", "memory", "--demo"]);
    let browser = Browser::start().await;
    let features = [("prefers-reduced-motion", "reduce"), ("forced-colors", "active")];
    for is_reduced in [false, true] {
        let features = if is_reduced { &features[..] } else { &[] };
        show(&browser, SIZES[1], features).await;
        browser.open(&format!("http://{}/demo/departures", origin.listen)).await;
        browser.wait_for("document.querySelector('#board tr:nth-child(14):not([hidden])')").await;
        browser.wait_for("!document.querySelector('.flap:not([data-phase=\"0\"])')").await;
        browser.run(watch).await;
        browser.wait_for(changed).await;
        if !is_reduced {
            browser.wait_for("window.turns > 0").await;
        }
        let turns = browser.run("return window.turns").await;
        assert_eq!(turns == 0, is_reduced, "{turns} phases");
        let border = "return getComputedStyle(document.querySelector('.flap')).borderTopStyle";
        assert_eq!(browser.run(border).await == "solid", is_reduced);
    }
}

#[tokio::test]
async fn the_keyboard_reaches_everything_and_the_first_stop_is_the_content() {
    let _alone = alone().await;
    let origin = Origin::with(&["--store", "memory", "--demo"]);
    let browser = Browser::start().await;
    browser.open(&format!("http://{}/demo/jobs", origin.listen)).await;
    browser.wait_for("document.body.dataset.status == 'live'").await;
    let mut reached = Vec::new();
    for _ in 0..12 {
        for kind in ["rawKeyDown", "keyUp"] {
            let key =
                json!({ "type": kind, "key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9 });
            browser.devtools("Input.dispatchKeyEvent", key).await;
        }
        let name = "const { id, textContent, tagName } = document.activeElement;
            return [id || textContent.trim(), getComputedStyle(document.activeElement).outlineStyle]";
        reached.push(browser.run(name).await);
    }
    let names: Vec<&str> = reached.iter().filter_map(|stop| stop[0].as_str()).collect();
    assert_eq!(names[0], "Skip to the content");
    for name in ["Overview", "Departures", "Ticker", "Chat", "kind", "Start"] {
        let stop = reached.iter().find(|stop| stop[0] == name);
        let stop = stop.unwrap_or_else(|| panic!("{name} is not reached: {names:?}"));
        assert_ne!(stop[1], "none", "{name} shows no focus");
    }
}
