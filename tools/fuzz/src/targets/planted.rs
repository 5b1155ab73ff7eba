//! A bug behind checks of several bytes. The input is a cursor of two positions, as in `7-0_2-3`: a
//! random text of seven bytes would have to have five of them right at once. Coverage guides libFuzzer to
//! one after the other.

use headwater::core::cursor::Cursor;

pub fn run(bytes: &[u8]) {
    let Some(cursor) = std::str::from_utf8(bytes).ok().and_then(|text| Cursor::parse(text).ok())
    else {
        return;
    };
    let [first, second] = cursor.positions[..] else { return };
    if first.ms == 7 {
        assert!(second.seq != 3, "the planted bug was found");
    }
}
