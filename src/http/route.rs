//! What a request's path and query ask for. Pure: text in, a finished value or a [`Problem`] out.

use super::problem::Problem;
use crate::cursor::CHANNELS_PER_STREAM_MAX;
use crate::event::ChannelName;
use percent_encoding::percent_decode_str;

/// What a path stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/`
    Home,
    /// `/healthz`
    Health,
    /// `/readyz`
    Ready,
    /// `/metrics`
    Metrics,
    /// `/ws`
    Socket,
    /// `/channels/{name}`, or several names with commas between.
    Channels(Vec<ChannelName>),
    /// `/channels/{name}/history`
    History(ChannelName),
    /// `/channels/{name}/state`
    State(ChannelName),
}

/// The query's parameters that Headwater knows; others are passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// `after`: a cursor.
    pub after: Option<String>,
    /// `lane`
    pub lane: Option<String>,
    /// `mode`
    pub mode: Option<String>,
    /// `event`: the type of a published event.
    pub event: Option<String>,
    /// `key`: the key of a published event.
    pub key: Option<String>,
    /// `limit`: the size of a page.
    pub limit: Option<String>,
    /// `reopen`
    pub reopen: Option<String>,
    /// `access_token`: a reader's token, where nothing else can carry it.
    pub access_token: Option<String>,
}

impl Route {
    /// Reads a path.
    ///
    /// # Errors
    /// `404`, with what was wrong about the name.
    pub fn parse(path: &str) -> Result<Self, Problem> {
        let Some(rest) = path.strip_prefix("/channels/") else {
            return match path {
                "/" => Ok(Self::Home),
                "/healthz" => Ok(Self::Health),
                "/readyz" => Ok(Self::Ready),
                "/metrics" => Ok(Self::Metrics),
                "/ws" => Ok(Self::Socket),
                _ => Err(Problem::not_found("events are at /channels/{name}")),
            };
        };
        let (names, leaf) = match rest.split_once('/') {
            None => (rest, None),
            Some((names, leaf)) => (names, Some(leaf)),
        };
        let names = channel_names(names)?;
        match (leaf, <[ChannelName; 1]>::try_from(names)) {
            (None, Ok(name)) => Ok(Self::Channels(name.into())),
            (None, Err(names)) => Ok(Self::Channels(names)),
            (Some("history"), Ok([name])) => Ok(Self::History(name)),
            (Some("state"), Ok([name])) => Ok(Self::State(name)),
            (Some("history" | "state"), Err(_)) => {
                Err(Problem::not_found("history and state are of one channel; ask for each"))
            }
            _ => Err(Problem::not_found("a channel has /history and /state, and nothing else")),
        }
    }
}

fn channel_names(raw: &str) -> Result<Vec<ChannelName>, Problem> {
    let decoded = percent_decode_str(raw)
        .decode_utf8()
        .map_err(|_| Problem::not_found("the channel name is not UTF-8"))?;
    let mut names: Vec<ChannelName> = Vec::new();
    for raw in decoded.split(',') {
        let name = ChannelName::parse(raw)
            .map_err(|error| Problem::not_found(format!("the channel name {error}")))?;
        if names.contains(&name) {
            return Err(Problem::not_found(format!("the channel {name} is named twice")));
        }
        if names.len() == CHANNELS_PER_STREAM_MAX {
            let detail = format!("a stream has at most {CHANNELS_PER_STREAM_MAX} channels");
            return Err(Problem::not_found(detail));
        }
        names.push(name);
    }
    Ok(names)
}

impl Query {
    /// Reads a query string.
    ///
    /// # Errors
    /// `400` when a known parameter is not UTF-8 or stands there twice.
    pub fn parse(raw: &str) -> Result<Self, Problem> {
        let mut query = Self::default();
        for pair in raw.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let Some((field, place)) = query.place(name) else { continue };
            if place.is_some() {
                return Err(Problem::bad_field(field, format!("?{field}= stands there twice")));
            }
            let value = value.replace('+', " ");
            let value = percent_decode_str(&value)
                .decode_utf8()
                .map_err(|_| Problem::bad_field(field, format!("?{field}= is not UTF-8")))?;
            *place = Some(value.into_owned());
        }
        Ok(query)
    }

    fn place(&mut self, name: &str) -> Option<(&'static str, &mut Option<String>)> {
        Some(match name {
            "after" => ("after", &mut self.after),
            "lane" => ("lane", &mut self.lane),
            "mode" => ("mode", &mut self.mode),
            "event" => ("event", &mut self.event),
            "key" => ("key", &mut self.key),
            "limit" => ("limit", &mut self.limit),
            "reopen" => ("reopen", &mut self.reopen),
            "access_token" => ("access_token", &mut self.access_token),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(names: &[&str]) -> Vec<ChannelName> {
        names.iter().map(|name| ChannelName::parse(name).unwrap()).collect()
    }

    #[test]
    fn paths_are_read_as_the_contract_says() {
        let check = |path, expected| assert_eq!(Route::parse(path).unwrap(), expected, "{path}");
        check("/channels/a", Route::Channels(names(&["a"])));
        check("/channels/b,a.x", Route::Channels(names(&["b", "a.x"])));
        check("/channels/b%2Ca", Route::Channels(names(&["b", "a"])));
        check("/channels/a/history", Route::History(names(&["a"]).remove(0)));
        check("/channels/a/state", Route::State(names(&["a"]).remove(0)));
        check("/healthz", Route::Health);
        check("/ws", Route::Socket);
    }

    #[test]
    fn other_paths_are_not_found() {
        for path in [
            "",
            "*",
            "/channels",
            "/channels/",
            "/channels//",
            "/channels/..",
            "/channels/../a",
            "/channels/a/",
            "/channels/a/b",
            "/channels/a%00",
            "/channels/%2e%2e",
            "/channels/a,",
            "/channels/a,a",
            "/channels/a,b/history",
            "/channels/%ff",
            "/channels/a%20b",
            "/channels/1,2,3,4,5,6,7,8,9",
            "/channels/a%2Fhistory",
            "/x",
        ] {
            let problem = Route::parse(path).expect_err(path);
            assert_eq!(problem.status, 404, "{path}");
        }
    }

    #[test]
    fn a_query_is_decoded_and_each_parameter_taken_once() {
        let query = Query::parse("key=a+b%26c&event=%C3%A9&x=1&after=1-0").unwrap();
        assert_eq!(query.key.as_deref(), Some("a b&c"));
        assert_eq!(query.event.as_deref(), Some("é"));
        assert_eq!(query.after.as_deref(), Some("1-0"));
        assert!(Query::parse("after=1-0&after=2-0").is_err());
        assert!(Query::parse("key=%ff").is_err());
        assert_eq!(Query::parse("").unwrap(), Query::default());
    }

    proptest! {
        #[test]
        fn any_path_and_query_is_read_or_refused(
            path in "(/channels/)?[a-z0-9,./%~_-]{0,40}|\\PC{0,40}",
            query in "([a-z]{0,6}=?[a-z0-9%+&]{0,12}&?){0,4}|\\PC{0,40}",
        ) {
            if let Ok(Route::Channels(names)) = Route::parse(&path) {
                prop_assert!((1..=CHANNELS_PER_STREAM_MAX).contains(&names.len()));
            }
            let _either_way = Query::parse(&query);
        }
    }
}
