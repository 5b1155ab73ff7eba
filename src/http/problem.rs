//! Error responses as RFC 9457 `application/problem+json`. Each has a stable `type`, and says what
//! happened and what to do about it. The texts of the store's limits are in `store::Limits`.

use crate::http::stream_body::ResponseBody;
use crate::hub::channel::ReadError;
use crate::limits::budget::Exhausted;
use crate::store::StoreError;
use hyper::header::{
    ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER,
    SEC_WEBSOCKET_VERSION, UPGRADE, WWW_AUTHENTICATE,
};
use hyper::{Response, StatusCode, Version};
use serde_json::{Map, Value, json};

/// An error response.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The HTTP status code.
    pub status: StatusCode,
    /// The last part of the `type`. The meaning of a slug never changes.
    pub slug: &'static str,
    title: &'static str,
    detail: String,
    members: Map<String, Value>,
    retry_after_s: Option<u64>,
    allow: Option<&'static str>,
    /// Whether the same connection can be upgraded to a WebSocket, for a `426`.
    upgrade: bool,
    challenge: Option<Challenge>,
}

/// What is wrong with the token of a request, for the header `WWW-Authenticate` (RFC 6750, section
/// 3.1).
#[derive(Clone, Copy, Debug)]
enum Challenge {
    NoToken,
    InvalidToken,
    InsufficientScope,
}

/// Seconds after which a client may try again when the store did not answer.
const RETRY_STORE_S: u64 = 2;

impl Problem {
    /// Creates a problem; `detail` says what is wrong and what to do about it.
    pub fn new(
        status: StatusCode,
        slug: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            status,
            slug,
            title,
            detail: detail.into(),
            members: Map::new(),
            retry_after_s: None,
            allow: None,
            upgrade: false,
            challenge: None,
        }
    }

    /// `400`: one part of the request, named by `field`, is wrong.
    pub fn bad_field(field: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-field", "A part of the request is wrong", detail)
            .with("field", field)
    }

    /// `500`: work that does not depend on the request has failed.
    pub fn internal(error: &dyn std::fmt::Display) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::new(status, "internal", "This is our fault", error.to_string())
    }

    /// `400`: a WebSocket message cannot be read.
    pub fn bad_frame(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-frame", "The frame cannot be read", detail)
    }

    /// `401`: a token is missing. The challenge has no error code (RFC 6750, section 3.1).
    pub fn no_token(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "token", "A valid token is needed", detail)
            .challenge(Challenge::NoToken)
    }

    /// `401`: the token is not valid, or has expired.
    pub fn bad_token(detail: impl Into<String>) -> Self {
        Self::no_token(detail).challenge(Challenge::InvalidToken)
    }

    /// `403`: the token is valid, but its scope lacks `scopes`, which are separated by spaces.
    pub fn scope(scopes: &str) -> Self {
        let detail = format!("the token's scope does not grant {scopes}");
        Self::new(StatusCode::FORBIDDEN, "scope", "The token does not allow this", detail)
            .with("scope", scopes)
            .challenge(Challenge::InsufficientScope)
    }

    /// `429`: the client has too many connections.
    pub fn over_limit() -> Self {
        let detail = "this client has too many connections (--max-connections-per-client); \
                      close some, and send it again";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "client", "Too much at once", detail)
            .retry_after(10)
    }

    /// `404`: nothing exists at this path.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "There is nothing here", detail)
    }

    /// `415`: the content coding of the body is not supported.
    pub fn encoding(coding: &str) -> Self {
        let detail = format!(
            "Content-Encoding: {coding} is not taken here; send the body as it is, or as gzip"
        );
        let (status, title) = (StatusCode::UNSUPPORTED_MEDIA_TYPE, "Not this content coding");
        Self::new(status, "content-encoding", title, detail).with("field", "Content-Encoding")
    }

    /// `413`: the data is longer than `limit` bytes, which `flag` sets.
    pub fn too_large(what: &str, limit: usize, flag: &str) -> Self {
        let detail =
            format!("{what} may be at most {limit} bytes long; send less at once, or raise {flag}");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Too much at once", detail)
            .with("limit", limit)
    }

    /// `413`: one request has more events than its rate limit ever admits at once.
    pub fn too_many(what: &str, limit: u32, flag: &str) -> Self {
        let detail = format!("{what} at once ({flag}); send smaller batches, or raise it");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Too much at once", detail)
            .with("limit", limit)
    }

    /// `426`: only WebSocket handshakes are answered here. `can_upgrade`: they can be sent over this
    /// connection, which is so with HTTP/1.1.
    pub fn only_websockets(version: Version) -> Self {
        let can_upgrade = version == Version::HTTP_11;
        let detail = match version {
            Version::HTTP_11 => {
                "this is a WebSocket: send Connection: Upgrade, Upgrade: websocket, \
                 Sec-WebSocket-Version: 13 and a Sec-WebSocket-Key with GET"
            }
            Version::HTTP_2 => {
                "this is a WebSocket: send CONNECT with :protocol websocket (RFC 8441), \
                 Sec-WebSocket-Version: 13"
            }
            _ => "a WebSocket begins with HTTP/1.1 or HTTP/2 here",
        };
        let (status, title) = (StatusCode::UPGRADE_REQUIRED, "Only WebSockets here");
        Self { upgrade: can_upgrade, ..Self::new(status, "websocket", title, detail) }
    }

    /// `405`: the path does not take this method; `allow` lists the methods that it takes.
    pub fn method(allow: &'static str) -> Self {
        let detail = format!("this path takes {allow}");
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Self { allow: Some(allow), ..Self::new(status, "method", "Not this method", detail) }
    }

    /// `503`: the request cannot be served now, and may be repeated after `retry_after_s` seconds.
    pub fn unavailable(slug: &'static str, detail: impl Into<String>, retry_after_s: u64) -> Self {
        let title = "Not now";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, slug, title, detail).retry_after(retry_after_s)
    }

    /// Adds a member to the JSON body.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// Sets the number of seconds after which the client may try again.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    fn challenge(self, challenge: Challenge) -> Self {
        Self { challenge: Some(challenge), ..self }
    }

    /// The value of `WWW-Authenticate`, for a request that lacks a token or a right.
    fn www_authenticate(&self) -> Option<HeaderValue> {
        match self.challenge? {
            Challenge::NoToken => Some(HeaderValue::from_static("Bearer")),
            Challenge::InvalidToken => {
                Some(HeaderValue::from_static("Bearer error=\"invalid_token\""))
            }
            Challenge::InsufficientScope => {
                let scope = self.members.get("scope")?.as_str()?;
                let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"");
                HeaderValue::try_from(challenge).ok()
            }
        }
    }

    /// The body as JSON text.
    pub fn json(&self) -> String {
        self.value().to_string()
    }

    /// The body as a JSON object. It includes `retry_after`, because a WebSocket message has no
    /// headers.
    pub fn value(&self) -> Value {
        let mut body = json!({
            "type": format!("urn:headwater:problem:{}", self.slug),
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Value::Object(body) = &mut body {
            body.extend(self.members.clone());
            if let Some(seconds) = self.retry_after_s {
                body.insert("retry_after".to_owned(), seconds.into());
            }
        }
        body
    }

    /// The complete HTTP response, which no cache may store.
    pub fn into_response(self) -> Response<ResponseBody> {
        let challenge = self.www_authenticate();
        let mut response = Response::new(ResponseBody::Full(self.json().into()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
            // A `415` lists the supported codings (RFC 9110, section 12.5.3).
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if let Some(challenge) = challenge {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if self.status == StatusCode::UPGRADE_REQUIRED {
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        if self.upgrade {
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
        response
    }
}

impl From<Exhausted> for Problem {
    fn from(_: Exhausted) -> Self {
        let detail = "too many answers are being made or sent at once (--answer-bytes); try again";
        Self::unavailable("memory", detail, 1)
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(error) => error.into(),
            ReadError::NoMemory(exhausted) => exhausted.into(),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Closed => Self::new(
                StatusCode::CONFLICT,
                "channel-closed",
                "The channel has ended",
                "it takes events again after DELETE with ?reopen=1",
            ),
            StoreError::NoChannel => Self::new(
                StatusCode::NOT_FOUND,
                "no-channel",
                "There is no such channel",
                "nobody has published to this channel, or it was idle for --channel-idle and is \
                 forgotten; nothing was changed",
            ),
            StoreError::KeyReused => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency-key-reused",
                "The Idempotency-Key stands for another publish",
                "use a new key for each publish, and the same one only to repeat it unchanged",
            )
            .with("field", "Idempotency-Key"),
            StoreError::Limit { what, limit, flag } => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "limit-reached",
                "A limit of this origin is reached",
                format!(
                    "{what}: the limit is {limit}; nothing of this request was stored; \
                     drop what is not needed, or raise {flag}"
                ),
            )
            .with("limit", limit),
            StoreError::Unclear(why) => Self::unavailable(
                "store-unclear",
                format!(
                    "the store may have carried this out or not ({why}); send it again with the \
                     same Idempotency-Key, so that it counts once"
                ),
                RETRY_STORE_S,
            ),
            StoreError::Down(why) => Self::unavailable(
                "store-down",
                format!(
                    "the store does not answer ({why}); nothing was stored or changed, try again"
                ),
                RETRY_STORE_S,
            ),
        }
    }
}
