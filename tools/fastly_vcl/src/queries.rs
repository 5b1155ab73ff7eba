//! The functions on query strings. All take a URL and give one, with its path untouched.

use super::builtins::text;
use super::regexes;
use super::values::{Value, bytes_of, text_of};

pub fn call(function: &str, values: &[Value]) -> Result<Value, String> {
    let (url, name, value) = (text(values, 0), text(values, 1), text(values, 2));
    let (path, query) = match url.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (url.as_str(), None),
    };
    let mut parts: Vec<String> = query.unwrap_or_default().split('&').map(str::to_owned).collect();
    if query.is_none_or(str::is_empty) {
        parts.clear();
    }
    match function {
        "querystring.filtersep" => return Ok(Value::text(FILTER_SEPARATOR.to_string())),
        "querystring.get" => {
            let found = parts.iter().find(|part| name_of(part) == name);
            let value = found.map(|part| part.split_once('=').map_or("", |(_, value)| value));
            return Ok(Value::Text(value.map(decoded)));
        }
        "querystring.set" => {
            let part = format!("{}={}", encoded(&name), encoded(&value));
            let place = parts.iter().position(|part| name_of(part) == name);
            parts.retain(|part| name_of(part) != name);
            parts.insert(place.unwrap_or(parts.len()).min(parts.len()), part);
        }
        "querystring.add" => parts.push(format!("{}={}", encoded(&name), encoded(&value))),
        "querystring.remove" => return Ok(Value::text(path)),
        "querystring.clean" => parts.retain(|part| !name_of(part).is_empty()),
        "querystring.sort" | "boltsort.sort" => parts.sort(),
        "querystring.filter" | "querystring.filter_except" => {
            let listed: Vec<&str> = name.split(FILTER_SEPARATOR).collect();
            let keeps = function.ends_with("_except");
            parts.retain(|part| listed.contains(&name_of(part).as_str()) == keeps);
        }
        "querystring.regfilter" | "querystring.regfilter_except" => {
            let regex = regexes::compiled(&name)?;
            let keeps = function.ends_with("_except");
            parts.retain(|part| regex.is_match(&name_of(part)).unwrap_or(false) == keeps);
        }
        _ => return Err("the interpreter does not have it".to_owned()),
    }
    if parts.is_empty() {
        return Ok(Value::text(path));
    }
    Ok(Value::text(format!("{path}?{}", parts.join("&"))))
}

/// What `querystring.filtersep()` gives; no name in a URL can contain it.
const FILTER_SEPARATOR: char = '\u{7f}';

fn name_of(part: &str) -> String {
    part.split('=').next().unwrap_or_default().to_owned()
}

pub fn encoded(text: &str) -> String {
    let mut result = String::new();
    for byte in bytes_of(text) {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            result.push(byte as char);
        } else {
            result += &format!("%{byte:02X}");
        }
    }
    result
}

/// An escape that is none stays as it is; a `%00` ends the string.
pub fn decoded(text: &str) -> String {
    let bytes = bytes_of(text);
    let mut result = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) if bytes[at] == b'%' => {
                result.push(byte);
                at += 3;
            }
            _ => {
                result.push(bytes[at]);
                at += 1;
            }
        }
    }
    text_of(&result)
}
