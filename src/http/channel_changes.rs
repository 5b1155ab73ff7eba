//! `PATCH /channels/{name}/settings` and `DELETE /channels/{name}` on the admin listener: the
//! settings that an operator gives to one channel, and the deletion of everything that is kept of
//! a channel.

use super::admin::refuse_page;
use super::problem::Problem;
use super::route::{Query, Route};
use super::site::check_admin_host;
use super::{AppState, HttpResponse, json};
use crate::core::caching::Freshness;
use crate::core::event::ChannelName;
use crate::store::ChannelSettings;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};

/// The end of the path of a channel's settings.
const SETTINGS: &str = "/settings";
/// Most bytes of the settings of a channel in a request.
const BODY_BYTES_MAX: usize = 4 * 1024;
const NAMES: [&str; 6] = [
    "retain_age_ms",
    "retain_events",
    "retain_bytes",
    "channel_idle_ms",
    "max_keys",
    "max_state_bytes",
];

/// Marks a response to a request that has a log line already.
#[derive(Clone, Copy, Debug)]
pub struct IsLogged;

/// Carries out a request that changes a channel, or returns the request if it is another one.
pub(super) async fn answer(
    app: &AppState,
    request: Request<Incoming>,
    host: &str,
) -> Result<Result<HttpResponse, Problem>, Request<Incoming>> {
    let path = request.uri().path();
    let is_change = matches!(*request.method(), Method::PATCH | Method::DELETE);
    if !is_change || !path.starts_with("/channels/") {
        return Err(request);
    }
    Ok(changed(app, request, host).await.map(|mut answer| {
        answer.extensions_mut().insert(IsLogged);
        answer
    }))
}

async fn changed(
    app: &AppState,
    request: Request<Incoming>,
    host: &str,
) -> Result<HttpResponse, Problem> {
    check_admin_host(&app.config(), host)?;
    refuse_page(request.headers(), "headwater channels")?;
    let query = Query::parse(request.uri().query().unwrap_or_default());
    query.only("a change of a channel", &[])?;
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    match (method, path.strip_suffix(SETTINGS)) {
        (Method::PATCH, Some(path)) => set(app, &one_channel(path)?, request).await,
        (Method::DELETE, None) => delete(app, &one_channel(&path)?).await,
        (_, Some(_)) => Err(Problem::method("PATCH")),
        (_, None) => Err(Problem::method("GET, HEAD, OPTIONS, DELETE")),
    }
}

async fn set(
    app: &AppState,
    channel: &ChannelName,
    request: Request<Incoming>,
) -> Result<HttpResponse, Problem> {
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect();
    let body = tokio::time::timeout(app.config().body_timeout, body).await;
    let body = body.map_err(|_| bad("the body did not arrive in time (--body-timeout)"))?;
    let body = body.map_err(|error| bad(&format!("the body cannot be read: {error}")))?;
    let settings = patched(&app.hub.settings_of(channel).0, &body.to_bytes())?;
    app.hub.set_channel(channel, settings).await?;
    let json = json!(settings).to_string();
    tracing::info!(%channel, settings = json, "the settings of a channel were changed");
    Ok(ok(json))
}

async fn delete(app: &AppState, channel: &ChannelName) -> Result<HttpResponse, Problem> {
    let end = app.hub.delete_channel(channel).await?;
    tracing::info!(%channel, %end, "a channel was deleted");
    Ok(ok(json!({ "id": end.to_string() }).to_string()))
}

fn ok(json_text: String) -> HttpResponse {
    json(StatusCode::OK, Bytes::from(json_text), &Freshness::Never.cache_control(0))
}

fn one_channel(path: &str) -> Result<ChannelName, Problem> {
    let of_one = || Problem::not_found("here is /channels/{name}, of one channel");
    let Route::Channels(names) = Route::parse(path)? else { return Err(of_one()) };
    let [name] = <[ChannelName; 1]>::try_from(names).map_err(|_| of_one())?;
    Ok(name)
}

/// Returns the settings after the merge patch (RFC 7396) in a body. A setting that is not in the body
/// stays unchanged. A setting whose value in the body is `null` is removed.
fn patched(settings: &ChannelSettings, body: &[u8]) -> Result<ChannelSettings, Problem> {
    let mut new = json!(settings);
    let value: Value = serde_json::from_slice(body).map_err(|error| bad(&error.to_string()))?;
    let members = value.as_object().ok_or_else(|| bad("the settings are a JSON object"))?;
    for (name, value) in members {
        let is_number = value.as_u64().is_some_and(|number| number > 0) || value.is_null();
        if !NAMES.contains(&name.as_str()) {
            return Err(bad(&format!(
                "there is no setting {name}; there are {}",
                NAMES.join(", ")
            )));
        }
        if !is_number {
            return Err(bad(&format!("{name} takes a whole number of 1 or more, or null")));
        }
        new[name] = value.clone();
    }
    serde_json::from_value(new).map_err(|error| bad(&error.to_string()))
}

fn bad(detail: &str) -> Problem {
    Problem::bad_field("body", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_has_its_name_and_no_other_is_taken() {
        let all: Value = NAMES.iter().map(|name| ((*name).to_owned(), json!(7))).collect();
        let none = ChannelSettings::default();
        let read = patched(&none, all.to_string().as_bytes()).unwrap();
        assert_eq!(json!(read), all);
        let refused = |body: &str| format!("{:?}", patched(&none, body.as_bytes()).unwrap_err());
        assert!(refused(r#"{"retain":1}"#).contains("there is no setting retain"));
        assert!(refused(r#"{"max_keys":0}"#).contains("1 or more"));
        assert!(refused(r#"{"max_keys":1.5}"#).contains("whole number"));
        assert!(refused("[]").contains("object"));
    }

    #[test]
    fn a_patch_changes_what_it_names() {
        let one = patched(&ChannelSettings::default(), br#"{"max_keys":1}"#).unwrap();
        let two = patched(&one, br#"{"retain_events":2}"#).unwrap();
        assert_eq!((two.max_keys, two.retain_events), (Some(1), Some(2)));
        let none = patched(&two, br#"{"max_keys":null,"retain_events":null}"#).unwrap();
        assert!(none.is_empty());
    }
}
