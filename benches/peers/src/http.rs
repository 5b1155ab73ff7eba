//! Responses of HTTP/1.1, read piece by piece as they arrive: the head, and a body that is chunked,
//! has a length, or ends with the connection.

use memchr::memchr;

/// Most bytes of a line of a head; no server of the comparison sends longer ones.
const LINE_BYTES_MAX: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Status,
    Headers,
    /// The line with the size of the next chunk.
    Size,
    Chunk(usize),
    /// The line break behind a chunk.
    ChunkEnd,
    Trailers,
    Sized(usize),
    UntilClose,
    Done,
}

pub struct Response {
    part: Part,
    /// The beginning of a line whose end has not arrived.
    line: Vec<u8>,
    pub status: u16,
    /// Whether the server closes the connection after this response.
    pub closes: bool,
    chunked: bool,
    length: Option<usize>,
}

impl Default for Response {
    fn default() -> Self {
        let (status, closes, chunked, length) = (0, false, false, None);
        Self { part: Part::Status, line: Vec::new(), status, closes, chunked, length }
    }
}

/// The bytes are no response of HTTP/1.1.
#[derive(Debug)]
pub struct Malformed;

impl Response {
    pub fn is_done(&self) -> bool {
        self.part == Part::Done
    }

    /// Whether the body has begun.
    pub fn has_head(&self) -> bool {
        !matches!(self.part, Part::Status | Part::Headers)
    }

    /// Reads what arrived, and passes on the pieces of the body that are in it.
    pub fn feed(&mut self, mut bytes: &[u8], mut body: impl FnMut(&[u8])) -> Result<(), Malformed> {
        while !bytes.is_empty() && self.part != Part::Done {
            match self.part {
                Part::Chunk(left) | Part::Sized(left) => {
                    let (piece, rest) = bytes.split_at(left.min(bytes.len()));
                    body(piece);
                    bytes = rest;
                    self.part = match (self.part, left - piece.len()) {
                        (Part::Chunk(_), 0) => Part::ChunkEnd,
                        (Part::Chunk(_), left) => Part::Chunk(left),
                        (_, 0) => Part::Done,
                        (_, left) => Part::Sized(left),
                    };
                }
                Part::UntilClose => {
                    body(bytes);
                    return Ok(());
                }
                _ => bytes = self.read_line(bytes)?,
            }
        }
        Ok(())
    }

    /// Reads one line or the beginning of one; what follows it is returned.
    fn read_line<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Malformed> {
        let Some(end) = memchr(b'\n', bytes) else {
            self.line.extend_from_slice(bytes);
            return if self.line.len() > LINE_BYTES_MAX { Err(Malformed) } else { Ok(&[]) };
        };
        let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
        if self.line.is_empty() {
            self.take_line(line)?;
        } else {
            let mut whole = std::mem::take(&mut self.line);
            whole.extend_from_slice(line);
            self.take_line(&whole)?;
        }
        Ok(rest)
    }

    fn take_line(&mut self, line: &[u8]) -> Result<(), Malformed> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.part = match self.part {
            Part::Status => {
                let words = std::str::from_utf8(line).map_err(|_| Malformed)?;
                let status = words.split(' ').nth(1).and_then(|word| word.parse().ok());
                self.status = status.ok_or(Malformed)?;
                Part::Headers
            }
            Part::Headers if line.is_empty() => self.body_begins(),
            Part::Headers => {
                self.take_header(line)?;
                Part::Headers
            }
            Part::Size => match chunk_size(line)? {
                0 => Part::Trailers,
                size => Part::Chunk(size),
            },
            Part::ChunkEnd if line.is_empty() => Part::Size,
            Part::Trailers if line.is_empty() => Part::Done,
            Part::Trailers => Part::Trailers,
            _ => return Err(Malformed),
        };
        Ok(())
    }

    fn take_header(&mut self, line: &[u8]) -> Result<(), Malformed> {
        let text = String::from_utf8_lossy(line).to_ascii_lowercase();
        let (name, value) = text.split_once(':').ok_or(Malformed)?;
        let value = value.trim();
        match name {
            "content-length" => self.length = Some(value.parse().map_err(|_| Malformed)?),
            "transfer-encoding" => self.chunked = value.contains("chunked"),
            "connection" => self.closes = value.contains("close"),
            _ => {}
        }
        Ok(())
    }

    fn body_begins(&self) -> Part {
        match self.length {
            _ if matches!(self.status, 204 | 304) => Part::Done,
            _ if self.chunked => Part::Size,
            Some(0) => Part::Done,
            Some(length) => Part::Sized(length),
            None => Part::UntilClose,
        }
    }
}

fn chunk_size(line: &[u8]) -> Result<usize, Malformed> {
    let text = std::str::from_utf8(line).map_err(|_| Malformed)?;
    let digits = text.split(';').next().unwrap_or_default().trim();
    usize::from_str_radix(digits, 16).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8], piece: usize) -> (Response, Vec<u8>) {
        let (mut response, mut body) = (Response::default(), Vec::new());
        for bytes in text.chunks(piece) {
            response.feed(bytes, |bytes| body.extend_from_slice(bytes)).expect("a response");
        }
        (response, body)
    }

    #[test]
    fn a_chunked_body_is_read_wherever_it_is_cut() {
        let text = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                     3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n";
        for piece in 1..=text.len() {
            let (response, body) = read(text, piece);
            assert_eq!((response.status, response.is_done()), (200, true), "pieces of {piece}");
            assert_eq!(body, b"abc0123456789", "pieces of {piece}");
        }
    }

    #[test]
    fn a_body_ends_after_its_length_or_with_the_connection() {
        let (response, body) = read(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok", 5);
        assert!(response.is_done() && body == b"ok");
        let (response, body) = read(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nendless", 5);
        assert!(!response.is_done() && response.closes && body == b"endless");
        let (response, _) = read(b"HTTP/1.1 204 No Content\r\n\r\n", 5);
        assert!(response.is_done());
    }
}
