//! Durations and sizes as people write them: `30s`, `500ms`, `64KiB`.

use std::time::Duration;

/// Reads `30s`, `500ms`, `1h 30m`; `0` too.
pub fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write it as 30s, 500ms or 24h"))
}

/// Reads `64KiB`, `8MiB`, `1GiB` or a plain number of bytes.
pub fn bytes(text: &str) -> Result<u64, String> {
    let size = text.parse::<bytesize::ByteSize>();
    size.map(|size| size.as_u64()).map_err(|error| format!("{error}; write it as 64KiB or 8MiB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_as_people_write_them() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert!(duration("30").is_err() && duration("-1s").is_err() && duration("").is_err());
        assert_eq!(bytes("64KiB"), Ok(64 * 1024));
        assert_eq!(bytes("8MiB"), Ok(8 * 1024 * 1024));
        assert_eq!(bytes("100"), Ok(100));
        assert!(bytes("x").is_err() && bytes("-1").is_err());
    }
}
