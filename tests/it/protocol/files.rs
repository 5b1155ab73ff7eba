//! The files that the origin serves, directly and through every edge: the home page, the client
//! module and the descriptions of the API. A program compares the descriptions with an origin.

use crate::kit::edge::Cache;
use crate::kit::{Answer, BINARY, Origin, request, run_script};
use headwater::client::http::Address;
use hyper::Method;
use tokio::process::Command;

/// Requests for about two minutes, and fixed ones before them.
const GENERATED_SECONDS: &str = "120";

async fn get(address: &Address, path: &str, headers: &[(&str, &str)]) -> Answer {
    let answer = request(address, Method::GET, path, headers, "".into()).await;
    answer.unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The path to which `/headwater.js` forwards, with the version of the origin.
fn forwarded(entry: &Answer) -> String {
    let path = entry.body.split('"').nth(1).expect("a path");
    path.strip_prefix('.').expect("it is relative").to_owned()
}

#[tokio::test]
async fn the_client_module_is_served_through_every_edge() {
    let origin = Origin::start();
    let caches = [
        Cache::varnish(origin.listen.port()),
        Cache::squid(origin.listen.port()),
        Cache::nginx("collapse", origin.listen.port()),
    ];
    for address in caches.iter().map(Cache::address).chain([origin.address()]) {
        let entry = get(&address, "/headwater.js", &[]).await;
        assert_eq!(entry.status, 200, "{}", entry.body);
        assert_eq!(entry.header("cache-control"), Some("public, max-age=60"));
        assert_eq!(entry.header("access-control-allow-origin"), Some("*"));
        let main = forwarded(&entry);
        let folder = main.strip_suffix("headwater.js").expect("the module");
        for name in ["headwater", "cursor", "history", "react", "share", "socket"] {
            let module = get(&address, &format!("{folder}{name}.js"), &[]).await;
            assert_eq!(module.status, 200, "{name}");
            assert_eq!(module.header("content-type"), Some("text/javascript; charset=utf-8"));
            let cache_control = "public, max-age=31536000, immutable";
            assert_eq!(module.header("cache-control"), Some(cache_control), "{name}");
            let file = std::fs::read_to_string(format!("src/client_js/{name}.js"));
            assert_eq!(module.body, file.expect("a module"), "{name}");
        }
        // A page that an origin of another version has served gets the modules of this version.
        let other = get(&address, "/headwater/0.0.1-abc/share.js", &[]).await;
        assert_eq!((other.status.as_u16(), other.header("cache-control")), (302, Some("no-store")));
        assert_eq!(other.header("location"), Some(format!("{folder}share.js").as_str()));
    }
}

#[tokio::test]
async fn files_are_compressed_for_clients_that_accept_it() {
    let origin = Origin::start();
    for path in ["/", "/openapi.json", "/asyncapi.json", "/llms.txt", "/headwater.js"] {
        let plain = get(&origin.address(), path, &[]).await;
        assert_eq!(
            (plain.status.as_u16(), plain.header("content-encoding")),
            (200, None),
            "{path}"
        );
        let accepts = [("accept-encoding", "gzip, br")];
        let head = request(&origin.address(), Method::HEAD, path, &accepts, "".into()).await;
        let packed = head.expect("the origin answers");
        assert_eq!(packed.header("content-encoding"), Some("gzip"), "{path}");
        let url = format!("http://{}{path}", origin.listen);
        let curl = Command::new("curl").args(["-s", "--compressed", &url]).output().await;
        let unpacked = String::from_utf8(curl.expect("curl runs").stdout).expect("text");
        assert!(unpacked == plain.body, "{path}: {unpacked}");
        assert_eq!(packed.header("vary"), Some("Accept-Encoding"), "{path}");
    }
    for path in ["/headwater.mjs", "/headwater/", "/headwater/1/x.js", "/openapi.json/"] {
        get(&origin.address(), path, &[]).await.assert_problem(404, "not-found");
    }
}

#[tokio::test]
async fn the_descriptions_of_the_api_agree_with_the_origin() {
    let report =
        run_script("tests/openapi/run", &[GENERATED_SECONDS], &[("TEST_HEADWATER", BINARY)]);
    let report = report.await;
    assert!(report.contains("the descriptions and the origin agree"), "{report}");
}
