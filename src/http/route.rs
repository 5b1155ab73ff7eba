//! Parses the path and the query of a request. The functions here have no side effects: they take
//! text and return a parsed value or a problem.

use super::files::{self, Found};
use super::problem::Problem;
use crate::core::cursor::CHANNELS_PER_STREAM_MAX;
use crate::core::event::ChannelName;
use percent_encoding::percent_decode_str;

/// The resource that a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/`
    Home,
    /// A file that the program contains.
    File(Found),
    /// `/healthz`
    Health,
    /// `/readyz`
    Ready,
    /// `/metrics`
    Metrics,
    /// `/ws`
    WebSocket,
    /// `/channels/{name}`, or several names that are separated by commas.
    Channels(Vec<ChannelName>),
    /// `/channels/{name}/history`
    History(ChannelName),
    /// `/channels/{name}/state`
    State(ChannelName),
}

/// The parameters of a query string, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<Parameter>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Parameter {
    name: String,
    value: String,
    is_utf8: bool,
}

impl Route {
    /// Parses a path.
    ///
    /// # Errors
    /// Fails with `400` when a channel name is invalid, and with `404` when the path is unknown.
    pub fn parse(path: &str) -> Result<Self, Problem> {
        let Some(rest) = path.strip_prefix("/channels/") else {
            return match path {
                "/" => Ok(Self::Home),
                "/healthz" => Ok(Self::Health),
                "/readyz" => Ok(Self::Ready),
                "/metrics" => Ok(Self::Metrics),
                "/ws" => Ok(Self::WebSocket),
                _ => files::find(path).map(Self::File).ok_or_else(|| {
                    Problem::not_found("events are at /channels/{name}; / lists the other paths")
                }),
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
            _ => Err(Problem::not_found(
                "a channel's name has no \"/\" in it, and a channel has /history and /state and \
                 nothing else",
            )),
        }
    }
}

fn channel_names(raw: &str) -> Result<Vec<ChannelName>, Problem> {
    let bad = |detail: String| Problem::bad_field("channel", detail);
    let decoded = percent_decode_str(raw)
        .decode_utf8()
        .map_err(|_| bad("the channel name is not UTF-8".to_owned()))?;
    let mut names: Vec<ChannelName> = Vec::new();
    for raw in decoded.split(',') {
        let name = ChannelName::parse(raw)
            .map_err(|error| bad(format!("the channel name {raw:?} {error}")))?;
        if names.contains(&name) {
            return Err(bad(format!("the channel {name} is named twice")));
        }
        if names.len() == CHANNELS_PER_STREAM_MAX {
            let detail = format!(
                "a stream has at most {CHANNELS_PER_STREAM_MAX} channels; open a second stream \
                 for the others"
            );
            return Err(bad(detail).with("limit", CHANNELS_PER_STREAM_MAX));
        }
        names.push(name);
    }
    Ok(names)
}

impl Query {
    /// Parses a query string. It accepts any text, because refusing the request for a stream would
    /// end its `EventSource`.
    pub fn parse(raw: &str) -> Self {
        let parameter = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = value.replace('+', " ");
            let decoded = percent_decode_str(&value);
            let is_utf8 = decoded.clone().decode_utf8().is_ok();
            let value = decoded.decode_utf8_lossy().into_owned();
            Parameter { name: name.to_owned(), value, is_utf8 }
        };
        Self(raw.split('&').filter(|pair| !pair.is_empty()).map(parameter).collect())
    }

    /// The first value of a parameter; `None` where it is missing or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        let first = self.0.iter().find(|parameter| parameter.name == name)?;
        Some(first.value.as_str()).filter(|value| !value.is_empty())
    }

    /// Checks that the query has only parameters from `known`, each at most once and in UTF-8.
    /// `what` is the name of the operation in the error text.
    ///
    /// # Errors
    /// Fails with `400` otherwise. For an unknown parameter the error text names the known one that
    /// was probably meant.
    pub fn only(&self, what: &str, known: &[&'static str]) -> Result<(), Problem> {
        for (index, Parameter { name, is_utf8, .. }) in self.0.iter().enumerate() {
            let Some(field) = known.iter().find(|known| *known == name) else {
                return Err(unknown_parameter(name, what, known));
            };
            if self.0[..index].iter().any(|before| before.name == *name) {
                return Err(Problem::bad_field(field, format!("?{field}= stands there twice")));
            }
            if !is_utf8 {
                return Err(Problem::bad_field(field, format!("?{field}= is not UTF-8")));
            }
        }
        Ok(())
    }
}

/// The most characters of an unknown parameter's name that an error text repeats.
const NAME_CHARS_MAX: usize = 40;
/// A name counts as a misspelling of another one if their similarity, from 0 to 1, is at least
/// this. Two equal letters out of three are enough.
const LIKENESS_MIN: f64 = 0.6;

fn unknown_parameter(name: &str, what: &str, known: &[&'static str]) -> Problem {
    // The name is cut first, because the comparison takes time for each pair of letters.
    let name: String = name.chars().take(NAME_CHARS_MAX).collect();
    let likeness = |known: &&str| strsim::normalized_damerau_levenshtein(known, &name);
    let nearest = known.iter().map(|known| (likeness(known), known));
    let nearest = nearest.max_by(|one, other| one.0.total_cmp(&other.0));
    let hint = match nearest.filter(|(likeness, _)| *likeness >= LIKENESS_MIN) {
        Some((_, nearest)) => format!("did you mean {nearest:?}?"),
        None if known.is_empty() => "it takes none".to_owned(),
        None => format!("it takes {}", known.join(", ")),
    };
    Problem::bad_field("query", format!("{what} has no parameter {name:?}; {hint}"))
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
        check("/ws", Route::WebSocket);
    }

    #[test]
    fn other_paths_are_not_found() {
        for path in
            ["", "*", "/channels", "/channels/a/", "/channels/a/b", "/channels/a,b/history", "/x"]
        {
            let problem = Route::parse(path).expect_err(path);
            assert_eq!(problem.status, 404, "{path}");
        }
    }

    #[test]
    fn a_bad_name_is_refused_with_its_reason() {
        let check = |path, expected: &str| {
            let problem = Route::parse(path).expect_err(path);
            assert_eq!(problem.status, 400, "{path}");
            assert!(problem.json().contains(expected), "{path}: {}", problem.json());
        };
        check("/channels/", "is empty");
        check("/channels//", "is empty");
        check("/channels/..", "may not begin with '.'");
        check("/channels/../a", "may not begin with '.'");
        check("/channels/-bad", "may not begin with '-'");
        check("/channels/a%00", "may not hold");
        check("/channels/%2e%2e", "may not begin with '.'");
        check("/channels/a,", "is empty");
        check("/channels/a,a", "named twice");
        check("/channels/%ff", "not UTF-8");
        check("/channels/a%20b", "may not hold ' '");
        check("/channels/1,2,3,4,5,6,7,8,9", "at most 8 channels");
        check("/channels/a%2Fhistory", "may not hold '/'");
    }

    #[test]
    fn a_query_is_decoded_and_the_first_value_counts() {
        let query = Query::parse("key=a+b%26c&event=%C3%A9&x=1&after=1-0&after=2-0&last=&last=3");
        assert_eq!(query.get("key"), Some("a b&c"));
        assert_eq!(query.get("event"), Some("é"));
        assert_eq!(query.get("after"), Some("1-0"));
        assert_eq!((query.get("last"), query.get("lane")), (None, None));
        assert_eq!(Query::parse("").get("after"), None);
    }

    #[test]
    fn a_misspelt_parameter_is_refused_and_the_nearest_named() {
        let check = |query, expected: Option<&str>| {
            let checked = Query::parse(query).only("a publish", &["event", "key", "remove"]);
            let said = checked.err().map(|problem| problem.json());
            match (said, expected) {
                (None, None) => {}
                (Some(said), Some(expected)) => assert!(said.contains(expected), "{query}: {said}"),
                (said, _) => panic!("{query}: {said:?}"),
            }
        };
        check("", None);
        check("event=e&key=k", None);
        check("evnt=x", Some("did you mean \\\"event\\\"?"));
        check("Event=x", Some("did you mean \\\"event\\\"?"));
        check("after=1-0", Some("it takes event, key, remove"));
        check("key=a&key=b", Some("stands there twice"));
        check("key=%ff", Some("not UTF-8"));
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
            let query = Query::parse(&query);
            query.get("after");
            let _either_way = query.only("this", &["a", "after"]);
        }
    }
}
