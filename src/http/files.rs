//! The files that the origin serves: the client module and the descriptions of the API.
//!
//! `/headwater.js` is a short module that forwards to the modules of this version. Their path names
//! the version, so a cache may keep them as long as it likes. While origins of two versions are in
//! use, a request for a module of one version can reach an origin of the other version. That origin
//! redirects the request to its own version of the module.
//!
//! The settings may name more files, which the demo uses for its pages.

use super::negotiation::accepts_gzip;
use super::{HttpResponse, header};
use crate::core::caching::Freshness;
use crate::http::stream_body::ResponseBody;
use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderValue,
    LOCATION, VARY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::{Arc, LazyLock};

const SCRIPT: &str = "text/javascript; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const PAGE: &str = "text/html; charset=utf-8";

/// The folder of the client's modules. The name of a version follows it.
const MODULES: &str = "/headwater/";
const VERSION_BYTES_MAX: usize = 40;
/// The digits of the digest in the name of a version.
const DIGEST_DIGITS: usize = 8;
/// The policy of the files of the settings. Their pages load nothing from another host, run no
/// script that is written into a page, and are shown in no frame of another site.
const POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'self'; \
                      frame-ancestors 'none'; object-src 'none'";

/// A file of the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraFile {
    /// The path on the origin, from the first slash on.
    pub path: &'static str,
    /// The media type.
    pub media_type: &'static str,
    /// The content.
    pub text: String,
}

/// The files of the settings, ready to be sent.
#[derive(Debug, Default)]
pub(super) struct ExtraFiles(Vec<Arc<File>>);

/// A file of the repository: its path on the origin, its media type, and its text.
struct Source(&'static str, &'static str, &'static str);

/// Files whose text may change with the next version.
const DOCUMENTS: [Source; 5] = [
    // `home` takes the first one.
    Source("/", PAGE, include_str!("home.html")),
    Source("/headwater.js", SCRIPT, "export * from \"./headwater/VERSION/headwater.js\";\n"),
    Source("/openapi.json", JSON, include_str!("openapi.json")),
    Source("/asyncapi.json", JSON, include_str!("asyncapi.json")),
    Source("/llms.txt", TEXT, include_str!("llms.txt")),
];

/// The modules of the client, which import each other from one folder.
const CLIENT: [Source; 8] = [
    Source("headwater.js", SCRIPT, include_str!("../client_js/headwater.js")),
    Source("cursor.js", SCRIPT, include_str!("../client_js/cursor.js")),
    Source("history.js", SCRIPT, include_str!("../client_js/history.js")),
    Source("react.js", SCRIPT, include_str!("../client_js/react.js")),
    Source("share.js", SCRIPT, include_str!("../client_js/share.js")),
    Source("socket.js", SCRIPT, include_str!("../client_js/socket.js")),
    Source("headwater.d.ts", TEXT, include_str!("../client_js/headwater.d.ts")),
    Source("react.d.ts", TEXT, include_str!("../client_js/react.d.ts")),
];

static FILES: LazyLock<Files> = LazyLock::new(Files::new);

struct Files {
    version: String,
    documents: Vec<Arc<File>>,
    client: Vec<Arc<File>>,
}

/// A file in the two forms in which it is sent.
#[derive(Debug, PartialEq, Eq)]
pub struct File {
    path: &'static str,
    kind: HeaderValue,
    freshness: Freshness,
    policy: Option<&'static str>,
    plain: Bytes,
    gzip: Bytes,
}

/// What a path outside of `/channels/` leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A file.
    File(Arc<File>),
    /// A module of another version: the path of the same module of this version.
    Elsewhere(String),
}

impl Files {
    fn new() -> Self {
        let version = version();
        let document = |source: &Source| {
            let text = source.2.replace("VERSION", &version);
            Arc::new(File::new(source, Freshness::File, &text))
        };
        Self {
            documents: DOCUMENTS.iter().map(document).collect(),
            client: CLIENT
                .iter()
                .map(|source| Arc::new(File::new(source, Freshness::Unchanging, source.2)))
                .collect(),
            version,
        }
    }
}

impl File {
    fn new(source: &Source, freshness: Freshness, text: &str) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        // Writing into memory does not fail; without a compressed form the plain one is sent.
        let gzip = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish());
        Self {
            path: source.0,
            kind: HeaderValue::from_static(source.1),
            freshness,
            policy: None,
            plain: Bytes::copy_from_slice(text.as_bytes()),
            gzip: gzip.unwrap_or_default().into(),
        }
    }

    /// The response with this file, compressed where the request accepts it.
    pub fn answer(&self, asked: &HeaderMap) -> HttpResponse {
        let is_compressed = !self.gzip.is_empty() && accepts_gzip(asked);
        let body = if is_compressed { &self.gzip } else { &self.plain };
        let mut answer = Response::new(ResponseBody::Full(body.clone()));
        let headers = answer.headers_mut();
        if is_compressed {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        headers.insert(CONTENT_TYPE, self.kind.clone());
        headers.insert(CACHE_CONTROL, header(&self.freshness.cache_control(0)));
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
        if let Some(policy) = self.policy {
            headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
            headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        }
        answer
    }
}

impl ExtraFiles {
    /// Prepares these files. No cache stores them, so a page and its modules are always of one
    /// version.
    pub(super) fn new(files: &[ExtraFile]) -> Self {
        let prepare = |file: &ExtraFile| {
            let source = Source(file.path, file.media_type, "");
            let file = File::new(&source, Freshness::Never, &file.text);
            Arc::new(File { policy: Some(POLICY), ..file })
        };
        Self(files.iter().map(prepare).collect())
    }

    /// Returns the file at a path.
    pub(super) fn find(&self, path: &str) -> Option<Arc<File>> {
        self.0.iter().find(|file| file.path == path).cloned()
    }
}

/// Finds what a path leads to.
pub fn find(path: &str) -> Option<Found> {
    let files = &*FILES;
    let named =
        |files: &[Arc<File>], path: &str| files.iter().find(|file| file.path == path).cloned();
    let Some((version, module)) = path.strip_prefix(MODULES).and_then(|rest| rest.split_once('/'))
    else {
        return named(&files.documents, path).map(Found::File);
    };
    let file = named(&files.client, module).filter(|_| is_version(version))?;
    if version == files.version {
        return Some(Found::File(file));
    }
    Some(Found::Elsewhere(format!("{MODULES}{}/{module}", files.version)))
}

/// The page that says what this server is.
pub fn home(asked: &HeaderMap) -> HttpResponse {
    FILES.documents[0].answer(asked)
}

/// The response that sends a client to another path of this origin.
pub fn redirect(path: &str) -> HttpResponse {
    let mut answer = Response::new(ResponseBody::Full(Bytes::new()));
    *answer.status_mut() = StatusCode::FOUND;
    let headers = answer.headers_mut();
    headers.insert(LOCATION, header(path));
    headers.insert(CACHE_CONTROL, header(&Freshness::Never.cache_control(0)));
    answer
}

/// The version of the program, and a digest of the modules, so that two texts never have one path.
fn version() -> String {
    let texts: Vec<&str> = CLIENT.iter().map(|source| source.2).collect();
    let digest = digest(&SHA256, texts.concat().as_bytes());
    let mut version = concat!(env!("CARGO_PKG_VERSION"), "-").to_owned();
    for byte in &digest.as_ref()[..DIGEST_DIGITS / 2] {
        let written = write!(version, "{byte:02x}");
        debug_assert!(written.is_ok(), "a String takes all text");
    }
    version
}

/// Whether a text can be the name of a version.
fn is_version(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
    let begins_well = text.starts_with(|first: char| first.is_ascii_alphanumeric());
    begins_well && text.len() <= VERSION_BYTES_MAX && text.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_module_has_one_path_and_other_versions_lead_to_it() {
        let Some(Found::File(entry)) = find("/headwater.js") else { panic!("no entry") };
        let text = std::str::from_utf8(&entry.plain).unwrap();
        let path = text.split('"').nth(1).unwrap().strip_prefix('.').unwrap();
        assert!(matches!(find(path), Some(Found::File(file)) if file.path == "headwater.js"));
        let Some(Found::Elsewhere(other)) = find("/headwater/0.0.9-00000000/headwater.js") else {
            panic!("no redirect")
        };
        assert_eq!(other, path);
        for path in
            ["/headwater/", "/headwater/x", "/headwater/x/y.js", "/headwater/%/react.js", "/x.js"]
        {
            assert!(find(path).is_none(), "{path}");
        }
    }
}
