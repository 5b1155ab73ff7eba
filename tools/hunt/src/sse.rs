//! A strict parser of event streams, as an `EventSource` has one (WHATWG HTML, section 9.2).

/// An event that was dispatched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The type; empty for an event without one.
    pub kind: String,
    pub data: String,
    /// The id that this event itself carries.
    pub id: Option<String>,
}

/// The bytes of one response, as far as they were parsed.
#[derive(Debug, Default)]
pub struct Parser {
    rest: Vec<u8>,
    kind: String,
    data: Option<String>,
    id: Option<String>,
    /// The last `retry:` of the response, in ms.
    pub retry: Option<u64>,
}

impl Parser {
    /// Takes bytes, and returns the events that they complete.
    ///
    /// # Errors
    /// Fails for text that Headwater does not write: an unknown field, or text that is not UTF-8.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Vec<Message>, String> {
        self.rest.extend_from_slice(bytes);
        let mut messages = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = std::str::from_utf8(&line[..end]);
            messages.extend(self.line(line.map_err(|error| error.to_string())?)?);
        }
        Ok(messages)
    }

    fn line(&mut self, line: &str) -> Result<Option<Message>, String> {
        if line.is_empty() {
            let (kind, id) = (std::mem::take(&mut self.kind), self.id.take());
            return match self.data.take() {
                Some(data) => Ok(Some(Message { kind, data, id })),
                // Firefox and WebKit drop the id of such a block.
                None if id.is_some() => Err("a block has an id and no data".to_owned()),
                None => Ok(None),
            };
        }
        let Some((name, value)) = line.split_once(':') else {
            return Err(format!("the line {line:?} has no colon"));
        };
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "" => {}
            "event" => self.kind = value.to_owned(),
            "id" => self.id = Some(value.to_owned()),
            "retry" => {
                let ms = value.parse().map_err(|_| format!("retry is {value:?}"))?;
                self.retry = Some(ms);
            }
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                none => *none = Some(value.to_owned()),
            },
            _ => return Err(format!("the field {name:?} is unknown")),
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_parsed_wherever_the_bytes_are_cut() {
        let text = "retry: 3000\nevent: segment\nid: 1-0\ndata: {}\n\n:\nid: 2-0\ndata: a\ndata: b\n\ndata: lost";
        for cut in 0..text.len() {
            let mut parser = Parser::default();
            let mut found = parser.take(&text.as_bytes()[..cut]).unwrap();
            found.extend(parser.take(&text.as_bytes()[cut..]).unwrap());
            let message = |kind: &str, id: &str, data: &str| Message {
                kind: kind.to_owned(),
                data: data.to_owned(),
                id: Some(id.to_owned()),
            };
            assert_eq!(found, [message("segment", "1-0", "{}"), message("", "2-0", "a\nb")]);
            assert_eq!(parser.retry, Some(3_000));
        }
    }

    #[test]
    fn what_headwater_does_not_write_is_an_error() {
        for text in ["id: 1-0\n\n", "colour: red\n", "retry: soon\n", "data\n"] {
            assert!(Parser::default().take(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
