//! Cursors, event ids and instants: `Last-Event-ID`, `?after=`, `?since=`.

use crate::input::Input;
use headwater::core::cursor::{CHANNELS_PER_STREAM_MAX, Cursor, EventId};
use headwater::core::resume::{BEGINNING, ResumeFrom};
use headwater::core::since::Since;

/// The longest text of a cursor: eight positions and a mark, all of them as long as possible.
const TEXT_BYTES_MAX: usize = 379;
const FOREIGN_CHARS_MAX: usize = 200;

pub fn run(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        read(text);
    }
    for channels in [1, 2, CHANNELS_PER_STREAM_MAX] {
        resumed(bytes, channels);
    }
    written(bytes);
}

/// A text that is a cursor is the only text of this cursor.
fn read(text: &str) {
    if let Ok(cursor) = Cursor::parse(text) {
        assert_eq!(cursor.to_string(), text);
        assert!((1..=CHANNELS_PER_STREAM_MAX).contains(&cursor.positions.len()));
        check_text(text);
    }
    if let Ok(id) = EventId::parse(text) {
        assert_eq!(id.to_string(), text);
        assert_eq!(Cursor::parse(text), Ok(Cursor { positions: vec![id], mark: None }));
    }
    if let Ok(since) = text.parse::<Since>() {
        assert_eq!(since.to_string(), text);
        assert!(since.ms(0) <= since.ms(1) && since.ms(1_000) <= since.ms(u64::MAX));
    }
}

fn check_text(text: &str) {
    assert!(text.len() <= TEXT_BYTES_MAX, "{}", text.len());
    // These bytes need no CORS preflight, no encoding in a query and no escapes in JSON.
    assert!(text.bytes().all(|byte| byte.is_ascii_digit() || b"._-".contains(&byte)), "{text:?}");
}

fn resumed(bytes: &[u8], channels: usize) {
    match ResumeFrom::cursor(bytes, channels) {
        ResumeFrom::Now => assert!(bytes.is_empty()),
        ResumeFrom::After(cursor) => {
            assert_eq!(cursor.positions.len(), channels);
            let text = std::str::from_utf8(bytes).expect("a cursor is text");
            assert!(text == BEGINNING || Cursor::parse(text) == Ok(cursor));
        }
        ResumeFrom::Foreign(text) => assert!(text.chars().count() <= FOREIGN_CHARS_MAX),
        other => panic!("{other:?} from a cursor"),
    }
}

/// A cursor of any positions is read back from its text.
fn written(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let count = 1 + input.below(CHANNELS_PER_STREAM_MAX);
    let mark = input.flag().then(|| input.number());
    let positions: Vec<EventId> = (0..count).map(|_| input.id()).collect();
    let next = positions[0].next(positions[count - 1].ms);
    // The largest id has no next one.
    assert!(next > positions[0] || positions[0].ms == u64::MAX);
    let cursor = Cursor { positions, mark };
    let text = cursor.to_string();
    check_text(&text);
    assert_eq!(Cursor::parse(&text).as_ref(), Ok(&cursor));
    assert_eq!(ResumeFrom::cursor(text.as_bytes(), count), ResumeFrom::After(cursor));
}
