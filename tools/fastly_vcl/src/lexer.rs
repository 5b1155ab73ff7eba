//! VCL text to tokens. Comments are kept on the token that follows them, because annotations
//! (`@scope`, `@suite`) and Fastly's macros (`#FASTLY recv`) live in comments.

use std::fmt;
use std::rc::Rc;

/// Where something stands, for messages that an editor can follow.
#[derive(Clone, Debug)]
pub struct Place {
    pub file: Rc<str>,
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{}:{}", self.file, self.line)
    }
}

/// What is wrong with a program, or with a test that ran, and where.
#[derive(Clone, Debug)]
pub struct Complaint {
    pub place: Place,
    pub what: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.what)
    }
}

pub fn complain<T>(place: &Place, what: impl Into<String>) -> Result<T, Complaint> {
    Err(Complaint { place: place.clone(), what: what.into() })
}

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Name(String),
    Text(String),
    Integer(i64),
    Float(f64),
    /// In nanoseconds.
    Span(i64),
    Symbol(&'static str),
    End,
}

#[derive(Clone, Debug)]
pub struct Token {
    pub kind: Kind,
    pub place: Place,
    /// The comments between the token before and this one.
    pub comments: Vec<String>,
}

/// Longest first, so that `!~` is not read as `!` and `~`.
const SYMBOLS: [&str; 29] = [
    "==", "!=", "<=", ">=", "&&", "||", "!~", "+=", "-=", "*=", "/=", "%=", "{", "}", "(", ")",
    ";", ",", ":", "=", "!", "~", "<", ">", "+", "-", ".", "/", "@",
];

/// A year is 365 days, as in Fastly's RTIME literals.
const UNITS: [(&str, i64); 6] = [
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
    ("y", 31_536_000_000_000_000),
];

pub fn tokens(file: &str, text: &str) -> Result<Vec<Token>, Complaint> {
    let mut lexer = Lexer { file: file.into(), text, at: 0, line: 1 };
    let mut found = Vec::new();
    loop {
        let comments = lexer.blanks()?;
        let place = lexer.place();
        let kind = lexer.kind()?;
        let is_end = kind == Kind::End;
        found.push(Token { kind, place, comments });
        if is_end {
            return Ok(found);
        }
    }
}

struct Lexer<'a> {
    file: Rc<str>,
    text: &'a str,
    at: usize,
    line: usize,
}

impl<'a> Lexer<'a> {
    fn place(&self) -> Place {
        Place { file: self.file.clone(), line: self.line }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn take(&mut self, length: usize) -> &'a str {
        let taken = &self.rest()[..length];
        self.line += taken.matches('\n').count();
        self.at += length;
        taken
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let length = self.rest().find(|letter| !wanted(letter)).unwrap_or(self.rest().len());
        self.take(length)
    }

    /// Skips white space and comments, and returns the comments.
    fn blanks(&mut self) -> Result<Vec<String>, Complaint> {
        let mut comments = Vec::new();
        loop {
            self.take_while(char::is_whitespace);
            let rest = self.rest();
            if rest.starts_with('#') || rest.starts_with("//") {
                comments.push(self.take_while(|letter| letter != '\n').to_owned());
            } else if rest.starts_with("/*") {
                let Some(end) = rest.find("*/") else {
                    return complain(&self.place(), "a comment without an end");
                };
                comments.push(self.take(end + 2).to_owned());
            } else {
                return Ok(comments);
            }
        }
    }

    fn kind(&mut self) -> Result<Kind, Complaint> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Ok(Kind::End) };
        if first == '"' {
            return self.short_text();
        }
        if let Some(delimiter) = long_text_delimiter(rest) {
            return self.long_text(delimiter);
        }
        if first.is_ascii_digit() {
            return self.number();
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let is_part = |letter: char| letter.is_ascii_alphanumeric() || "_.-:".contains(letter);
            return Ok(Kind::Name(self.take_while(is_part).to_owned()));
        }
        match SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            Some(symbol) => {
                self.take(symbol.len());
                Ok(Kind::Symbol(symbol))
            }
            None => complain(&self.place(), format!("{first:?} means nothing in VCL")),
        }
    }

    fn short_text(&mut self) -> Result<Kind, Complaint> {
        let place = self.place();
        self.take(1);
        let text = self.take_while(|letter| letter != '"' && letter != '\n');
        if !self.rest().starts_with('"') {
            return complain(&place, "a string without an end; {\"…\"} may have several lines");
        }
        self.take(1);
        Ok(Kind::Text(unescaped(text)))
    }

    fn long_text(&mut self, delimiter: &str) -> Result<Kind, Complaint> {
        let place = self.place();
        self.take(delimiter.len() + 2);
        let end = format!("\"{delimiter}}}");
        let Some(length) = self.rest().find(&end) else {
            return complain(&place, format!("a long string without its {end}"));
        };
        let text = self.take(length).to_owned();
        self.take(end.len());
        Ok(Kind::Text(text))
    }

    fn number(&mut self) -> Result<Kind, Complaint> {
        let place = self.place();
        if self.rest().starts_with("0x") {
            self.take(2);
            let digits = self.take_while(|letter| letter.is_ascii_hexdigit());
            return match i64::from_str_radix(digits, 16) {
                Ok(value) => Ok(Kind::Integer(value)),
                Err(error) => complain(&place, format!("0x{digits}: {error}")),
            };
        }
        let digits = self.take_while(|letter| letter.is_ascii_digit() || letter == '.');
        let unit = self.take_while(|letter| letter.is_ascii_alphabetic());
        let Ok(value) = digits.parse::<f64>() else {
            return complain(&place, format!("{digits} is no number"));
        };
        if let Some((_, nanoseconds)) = UNITS.iter().find(|(name, _)| *name == unit) {
            return Ok(Kind::Span((value * *nanoseconds as f64).round() as i64));
        }
        match digits.parse() {
            _ if !unit.is_empty() => complain(&place, format!("{unit} is no unit of time")),
            Ok(value) => Ok(Kind::Integer(value)),
            Err(_) if digits.contains('.') => Ok(Kind::Float(value)),
            Err(error) => complain(&place, format!("{digits}: {error}")),
        }
    }
}

/// `{"` begins a long string, and so does `{word"`, which then ends with `"word}`.
fn long_text_delimiter(rest: &str) -> Option<&str> {
    let (delimiter, _) = rest.strip_prefix('{')?.split_once('"')?;
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    delimiter.chars().all(is_word).then_some(delimiter)
}

/// `%41` and `%u{e9}` or `%u00e9` in a short string. A NUL ends the string, as at Fastly.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let tail = &rest[at + 1..];
        let hexadecimal = |digits: Option<&str>| u32::from_str_radix(digits?, 16).ok();
        let braced = tail.strip_prefix("u{").and_then(|tail| tail.split_once('}'));
        if let Some(letter) = braced.and_then(|(digits, _)| hexadecimal(Some(digits))) {
            bytes.extend_from_slice(char::from_u32(letter).unwrap_or('?').to_string().as_bytes());
            rest = braced.expect("it was found").1;
        } else if let Some(letter) =
            tail.strip_prefix('u').and_then(|tail| hexadecimal(tail.get(..4)))
        {
            bytes.extend_from_slice(char::from_u32(letter).unwrap_or('?').to_string().as_bytes());
            rest = &tail[5..];
        } else if let Some(byte) = hexadecimal(tail.get(..2)) {
            bytes.push(byte as u8);
            rest = &tail[2..];
        } else {
            bytes.push(b'%');
            rest = tail;
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    super::values::text_of(&bytes)
}
