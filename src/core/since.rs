//! The `?since=` parameter: the instant from which a client requests events.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Longest text that is parsed, in bytes.
const TEXT_BYTES_MAX: usize = 64;
/// Numbers of seconds from this value on (the year 5138) are refused, because the client most
/// likely sent milliseconds.
const SECONDS_MAX: f64 = 1e11;

/// An instant, with its text as the client wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Since {
    text: String,
    from: From,
}

/// The reference point of the instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum From {
    /// Milliseconds since the Unix epoch.
    Epoch(u64),
    /// Milliseconds before now.
    Now(u64),
}

/// Error: the text is not an instant. The message is written to follow the name of the parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NotATime;

impl Since {
    /// Returns the instant in ms since the Unix epoch. A duration counts back from `now`: a caller
    /// that passes the start of a segment gives all clients of that segment the same response.
    pub fn ms(&self, now: u64) -> u64 {
        match self.from {
            From::Epoch(ms) => ms,
            From::Now(back) => now.saturating_sub(back),
        }
    }
}

impl FromStr for Since {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, NotATime> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(NotATime);
        }
        let from = match text.strip_prefix('-') {
            Some(back) => From::Now(duration_ms(back)?),
            None => From::Epoch(unix_ms(text).or_else(|_| rfc3339_ms(text))?),
        };
        Ok(Self { text: text.to_owned(), from })
    }
}

fn duration_ms(text: &str) -> Result<u64, NotATime> {
    let duration: Duration = humantime::parse_duration(text).map_err(|_| NotATime)?;
    u64::try_from(duration.as_millis()).map_err(|_| NotATime)
}

fn unix_ms(text: &str) -> Result<u64, NotATime> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let seconds: f64 = text.parse().map_err(|_| NotATime)?;
    match is_number && seconds < SECONDS_MAX {
        true => Ok((seconds * 1_000.0) as u64),
        false => Err(NotATime),
    }
}

/// In a query string `+` stands for a space, so the offset `+01:00` often arrives with a space in
/// place of the plus sign.
fn rfc3339_ms(text: &str) -> Result<u64, NotATime> {
    let text = text.replace(' ', "+");
    let instant = OffsetDateTime::parse(&text, &Rfc3339).map_err(|_| NotATime)?;
    u64::try_from(instant.unix_timestamp_nanos() / 1_000_000).map_err(|_| NotATime)
}

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for NotATime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "takes an instant as 2026-11-25T20:00:00Z, as Unix seconds, or as a time before now \
             such as -5m",
        )
    }
}

impl std::error::Error for NotATime {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_instant_is_read_as_people_write_one() {
        let check = |text: &str, expected| {
            assert_eq!(text.parse::<Since>().unwrap().ms(1_000_000), expected, "{text}");
        };
        check("-5m", 700_000);
        check("-1h30m", 0);
        check("-500ms", 999_500);
        check("0", 0);
        check("1795278400", 1_795_278_400_000);
        check("1795278400.25", 1_795_278_400_250);
        check("2026-11-21T16:26:40Z", 1_795_278_400_000);
        check("2026-11-21T17:26:40.5+01:00", 1_795_278_400_500);
        check("2026-11-21T17:26:40 01:00", 1_795_278_400_000);
        check("99999999999", 99_999_999_999_000);
        check(&format!("1.{}", "0".repeat(TEXT_BYTES_MAX - 2)), 1_000);
    }

    #[test]
    fn other_texts_are_no_instants() {
        for text in ["", "-", "5m", "yesterday", "1e9", "-1", "1795278400000", "NaN", "inf", "."] {
            assert_eq!(text.parse::<Since>(), Err(NotATime), "{text:?}");
        }
        assert_eq!("100000000000".parse::<Since>(), Err(NotATime));
        assert!(NotATime.to_string().starts_with("takes an instant as 2026-11-25T20:00:00Z"));
        assert_eq!("1969-12-31T23:59:59Z".parse::<Since>(), Err(NotATime));
        assert_eq!("1".repeat(65).parse::<Since>(), Err(NotATime));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "-?[0-9a-zTZ:. +-]{0,30}|\\PC{0,20}", now: u64) {
            if let Ok(since) = text.parse::<Since>() {
                since.ms(now);
                prop_assert_eq!(since.to_string(), text);
            }
        }
    }
}
