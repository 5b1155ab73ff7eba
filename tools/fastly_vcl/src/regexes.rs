//! Regular expressions. Fastly's are PCRE; these come close: `\d` and `\w` know more than ASCII here,
//! and `$` does not match before a last line break.

use fancy_regex::Regex;

pub fn compiled(pattern: &str) -> Result<Regex, String> {
    Regex::new(pattern).map_err(|error| error.to_string())
}

/// The groups of the first match, or `None`.
pub fn groups(pattern: &str, text: &str) -> Result<Option<Vec<Option<String>>>, String> {
    let found = compiled(pattern)?.captures(text).map_err(|error| error.to_string())?;
    let groups = found.map(|found| {
        let group = |group: Option<fancy_regex::Match>| group.map(|part| part.as_str().to_owned());
        found.iter().map(group).collect()
    });
    Ok(groups)
}

/// `regsub` and `regsuball`: `\1` in the replacement is the first group, `\0` the whole match.
pub fn replaced(text: &str, pattern: &str, replacement: &str, all: bool) -> Result<String, String> {
    let regex = compiled(pattern)?;
    let mut result = String::new();
    let mut end = 0;
    for found in regex.captures_iter(text).take(if all { usize::MAX } else { 1 }) {
        let found = found.map_err(|error| error.to_string())?;
        let whole = found.get(0).expect("the whole match");
        result.push_str(&text[end..whole.start()]);
        let mut letters = replacement.chars();
        while let Some(letter) = letters.next() {
            if letter != '\\' {
                result.push(letter);
                continue;
            }
            match letters.next() {
                Some(digit @ '0'..='9') => {
                    let group = found.get(digit as usize - '0' as usize);
                    result.push_str(group.map(|group| group.as_str()).unwrap_or_default());
                }
                Some(other) => result.extend(['\\', other]),
                None => result.push('\\'),
            }
        }
        end = whole.end();
    }
    result.push_str(&text[end..]);
    Ok(result)
}
