//! The configuration file, and the texts of durations and sizes in it.

use headwater::cli::fuzzing::{bytes as size, duration, settings};
use serde_json::Value;

pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(duration) = duration(text) {
        assert!(std::time::Instant::now().checked_add(duration).is_some());
    }
    let _either = size(text);
    let (found, is_accepted) = match settings(text) {
        Ok(found) => found,
        Err((line, why)) => {
            assert!((1..=text.matches('\n').count() + 1).contains(&line), "line {line}: {why}");
            return;
        }
    };
    // The same settings, written in another way.
    let mut again = String::new();
    for (name, values) in &found {
        let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
        let value = match &values[..] {
            [one] if ["true", "false"].contains(&one.trim_matches('"')) => {
                one.trim_matches('"').to_owned()
            }
            [one] => one.clone(),
            all => format!("[{}]", all.join(", ")),
        };
        again.push_str(&format!("{name} = {value}\n"));
    }
    match settings(&again) {
        Ok(again) => assert_eq!(again, (found, is_accepted)),
        // A text may be "true", which is written without quotes above.
        Err((_, why)) => assert!(why.contains("takes a text in quotes"), "{why}: {again}"),
    }
}

/// A basic string of TOML, whose escapes are those of JSON, except for U+007F.
fn quoted(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}
