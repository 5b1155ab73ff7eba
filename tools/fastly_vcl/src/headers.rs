//! Headers of the five messages (`req`, `bereq`, `beresp`, `obj`, `resp`): names in any case, several
//! lines of one name, and Fastly's `Name:key` view into a line's list.

use std::collections::BTreeMap;

const OBJECTS: [&str; 5] = ["req", "bereq", "beresp", "obj", "resp"];

/// `req.http.Name` to `req` and `Name`.
pub fn split(variable: &str) -> Option<(&'static str, &str)> {
    OBJECTS.into_iter().find_map(|object| {
        let header = variable.strip_prefix(object)?.strip_prefix(".http.")?;
        (!header.is_empty()).then_some((object, header))
    })
}

#[derive(Clone, Default)]
pub struct Headers {
    lines: BTreeMap<&'static str, Vec<(String, String)>>,
}

impl Headers {
    fn values(&self, object: &str, name: &str) -> Vec<&String> {
        let lines = self.lines.get(object).map(Vec::as_slice).unwrap_or_default();
        let named = lines.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value).collect()
    }

    /// The first line of that name, as everywhere in VCL; or the key's part of it.
    pub fn get(&self, object: &str, header: &str) -> Option<String> {
        match header.split_once(':') {
            None => self.values(object, header).first().map(|value| (*value).clone()),
            Some((name, key)) => {
                let line = self.values(object, name).first().map(|value| (*value).clone())?;
                subfield(&line, key, separator(name))
            }
        }
    }

    pub fn set(&mut self, object: &'static str, header: &str, value: String) {
        let Some((name, key)) = header.split_once(':') else {
            self.unset(object, header);
            self.add(object, header, value);
            return;
        };
        let part = if value.is_empty() { key.to_owned() } else { format!("{key}={value}") };
        let mut parts = self.parts_without(object, name, key);
        parts.push(part);
        let line = parts.join(&format!("{} ", separator(name)));
        self.set(object, name, line);
    }

    pub fn add(&mut self, object: &'static str, name: &str, value: String) {
        self.lines.entry(object).or_default().push((name.to_owned(), value));
    }

    pub fn unset(&mut self, object: &'static str, header: &str) {
        if let Some((name, key)) = header.split_once(':') {
            let parts = self.parts_without(object, name, key);
            let is_there = self.get(object, name).is_some();
            if is_there {
                self.set(object, name, parts.join(&format!("{} ", separator(name))));
            }
        } else if let Some(lines) = self.lines.get_mut(object) {
            lines.retain(|(known, _)| !known.eq_ignore_ascii_case(header));
        }
    }

    /// `std.collect`: several lines become one.
    pub fn collect(&mut self, object: &'static str, name: &str, separator: &str) {
        let values = self.values(object, name);
        if values.len() > 1 {
            let line = values.into_iter().cloned().collect::<Vec<_>>().join(separator);
            self.set(object, name, line);
        }
    }

    pub fn count(&self, object: &str, name: &str) -> usize {
        self.values(object, name).len()
    }

    fn parts_without(&self, object: &str, name: &str, key: &str) -> Vec<String> {
        let line = self.get(object, name).unwrap_or_default();
        let parts = line.split(separator(name)).map(str::trim).filter(|part| !part.is_empty());
        parts.filter(|part| !is_of(part, key)).map(str::to_owned).collect()
    }
}

fn separator(name: &str) -> char {
    if name.eq_ignore_ascii_case("cookie") { ';' } else { ',' }
}

fn is_of(part: &str, key: &str) -> bool {
    part.split('=').next().is_some_and(|name| name.trim().eq_ignore_ascii_case(key))
}

/// The value of `key` in `a=1, key="2", flag`; the empty string for a bare flag.
pub fn subfield(line: &str, key: &str, separator: char) -> Option<String> {
    let part = line.split(separator).map(str::trim).find(|part| is_of(part, key))?;
    let value = part.split_once('=').map(|(_, value)| value).unwrap_or_default();
    Some(value.trim().trim_matches('"').to_owned())
}
