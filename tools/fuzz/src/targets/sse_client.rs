//! The parser of the client, which `tail`, `bench` and `doctor` use. It is compared with the text of the
//! standard and with another parser.

use crate::input::Input;
use crate::stream_model::{by_our_client, by_sse_parse, messages};

pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut cuts = Input::new(input.bytes());
    let stream = input.rest();
    let whole = if stream.is_empty() { Vec::new() } else { vec![stream.to_vec()] };
    let (found, is_whole) = by_our_client(&whole);
    let chunks = cuts.chunks(stream);
    assert_eq!(by_our_client(&chunks), (found.clone(), is_whole), "{chunks:?}");
    // Our client ends a response with text that is not UTF-8, and the standard replaces such text.
    let Ok(text) = std::str::from_utf8(stream) else { return };
    assert!(is_whole);
    assert_eq!(found, messages(text));
    // A carriage return at the very end is an end of line for that parser only.
    if !text.ends_with('\r') {
        assert_eq!(by_sse_parse(&chunks), found);
    }
}
