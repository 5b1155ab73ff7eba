//! Parsers for durations and sizes in the form in which users write them: `30s`, `500ms`, `64KiB`.

use clap::builder::BoolishValueParser;
use std::time::Duration;

/// Longest duration of a flag: adding it to an instant does not overflow any clock.
const DURATION_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

/// Parses a duration such as `30s`, `500ms`, `1h 30m` or `0`.
pub fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write it as 30s, 500ms or 24h"))?;
    match duration > DURATION_MAX {
        true => Err("longer than 100 years".to_owned()),
        false => Ok(duration),
    }
}

/// Parses a size such as `64KiB`, `8MiB` or `1GiB`, or a plain number of bytes.
pub fn bytes(text: &str) -> Result<u64, String> {
    let size = text.parse::<bytesize::ByteSize>();
    size.map(|size| size.as_u64()).map_err(|error| format!("{error}; write it as 64KiB or 8MiB"))
}

/// The parser of switches in variables: 1 or 0, yes or no, true or false, on or off.
pub fn switch() -> BoolishValueParser {
    BoolishValueParser::new()
}

/// Checks that the duration of a flag is not zero.
///
/// # Errors
/// Fails when it is zero; the text names the flag.
pub fn positive(time: Duration, flag: &str) -> Result<Duration, String> {
    match time.is_zero() {
        true => Err(format!("{flag} takes more than 0")),
        false => Ok(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_as_people_write_them() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert!(duration("99years").is_ok() && duration("101years").is_err());
        assert!(duration("30").is_err() && duration("-1s").is_err() && duration("").is_err());
        assert_eq!(bytes("64KiB"), Ok(64 * 1024));
        assert_eq!(bytes("8MiB"), Ok(8 * 1024 * 1024));
        assert_eq!(bytes("100"), Ok(100));
        assert!(bytes("x").is_err() && bytes("-1").is_err());
    }
}
