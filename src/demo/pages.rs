//! The files of the demo. Each page is made from `web/layout.html`, into which the text of the page
//! (such as `web/chat.html`) is inserted.

use crate::http::ExtraFile;

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const PAGE: &str = "text/html; charset=utf-8";
const PICTURE: &str = "image/svg+xml";
const LAYOUT: &str = include_str!("web/layout.html");

/// The link to the console, whose address is that of this run.
const CONSOLE: &str = "Operators see the channels and how their streams are shared in the \
                       <a href=\"{url}\">console</a>, on the machine of the origin.";

/// The link to the overview behind the cache of this run. The page hides it where it is the same page.
const CACHE: &str = "<p class=\"small\" id=\"cache-link\">A cache is in front of this origin: \
                     <a href=\"{url}/\">{url}</a> shows these pages through it.</p>";

/// Addresses of this run, for the overview.
#[derive(Clone, Debug, Default)]
pub struct Links {
    /// The URL of the console, if browsers can reach it.
    pub console: Option<String>,
    /// The URL of the demo behind a cache, if there is one.
    pub cache: Option<String>,
}

/// A page: its path, its name (which is also that of its script), its title, and its text.
struct Page(&'static str, &'static str, &'static str, &'static str);

const PAGES: [Page; 5] = [
    Page("/", "overview", "Overview", include_str!("web/overview.html")),
    Page("/demo/departures", "departures", "Departures", include_str!("web/departures.html")),
    Page("/demo/ticker", "ticker", "Ticker", include_str!("web/ticker.html")),
    Page("/demo/jobs", "jobs", "Jobs", include_str!("web/jobs.html")),
    Page("/demo/chat", "chat", "Chat", include_str!("web/chat.html")),
];

/// What the pages load: a path, a media type, and a text.
const PARTS: [(&str, &str, &str); 15] = [
    (
        "/demo/style.css",
        STYLE,
        concat!(include_str!("../web/base.css"), include_str!("web/style.css")),
    ),
    ("/demo/icon.svg", PICTURE, include_str!("../web/icon.svg")),
    ("/demo/chat.js", SCRIPT, include_str!("web/chat.js")),
    ("/demo/departures.js", SCRIPT, include_str!("web/departures.js")),
    ("/demo/dom.js", SCRIPT, include_str!("../web/dom.js")),
    ("/demo/flaps.js", SCRIPT, include_str!("web/flaps.js")),
    ("/demo/job_states.js", SCRIPT, include_str!("web/job_states.js")),
    ("/demo/jobs.js", SCRIPT, include_str!("web/jobs.js")),
    ("/demo/live.js", SCRIPT, include_str!("web/live.js")),
    ("/demo/overview.js", SCRIPT, include_str!("web/overview.js")),
    ("/demo/prices.js", SCRIPT, include_str!("web/prices.js")),
    ("/demo/publish.js", SCRIPT, include_str!("web/publish.js")),
    ("/demo/share.js", SCRIPT, include_str!("web/share.js")),
    ("/demo/ticker.js", SCRIPT, include_str!("web/ticker.js")),
    ("/demo/wire.js", SCRIPT, include_str!("web/wire.js")),
];

/// The files of the demo, for the HTTP layer.
pub fn files(links: &Links) -> Vec<ExtraFile> {
    let filled = |text: &str, url: &Option<String>| {
        url.as_ref().map_or(String::new(), |url| text.replace("{url}", url))
    };
    let (console, cache) = (filled(CONSOLE, &links.console), filled(CACHE, &links.cache));
    let pages = PAGES.iter().map(|Page(path, name, title, text)| {
        let here = format!("href=\"{path}\"");
        let text = LAYOUT
            .replace("{title}", title)
            .replace("{name}", name)
            .replace(&here, &format!("{here} aria-current=\"page\""))
            .replace("{text}", text)
            .replace("{console}", &console)
            .replace("{cache}", &cache);
        ExtraFile { path, media_type: PAGE, text }
    });
    let parts = PARTS.iter().map(|&(path, media_type, text)| ExtraFile {
        path,
        media_type,
        text: text.to_owned(),
    });
    pages.chain(parts).collect()
}
