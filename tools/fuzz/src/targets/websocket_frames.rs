//! The frames of a WebSocket, as the library parses them with the limits of Headwater.

use crate::input::Input;
use headwater::http::fuzzing::wire_config;
use std::io::{self, ErrorKind, Read, Write};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket};
use tokio_tungstenite::tungstenite::{Error, Message};

const MESSAGE_BYTES: usize = 512;
const MASK: [u8; 4] = [1, 2, 3, 4];

/// A connection whose bytes arrive in these chunks, and that keeps what is written.
struct Wire {
    chunks: Vec<Vec<u8>>,
    written: Vec<u8>,
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(chunk) = self.chunks.first_mut() else { return Ok(0) };
        let length = chunk.len().min(buffer.len());
        buffer[..length].copy_from_slice(&chunk[..length]);
        chunk.drain(..length);
        if chunk.is_empty() {
            self.chunks.remove(0);
        }
        Ok(length)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut cuts = Input::new(input.bytes());
    let (mut stream, mut expected) = (Vec::new(), Vec::new());
    let is_valid = input.flag();
    while is_valid && !input.is_empty() {
        expected.push(message(&mut input, &mut stream));
    }
    stream.extend_from_slice(input.rest());
    let whole = if stream.is_empty() { Vec::new() } else { vec![stream.clone()] };
    let (messages, end, answers) = read(whole);
    for message in &messages {
        assert!(message.len() <= MESSAGE_BYTES);
    }
    if is_valid {
        let is_small = |message: &&Message| message.len() <= MESSAGE_BYTES;
        let until = expected.iter().take_while(is_small).count();
        assert_eq!(messages, expected[..until], "{end}");
    }
    let again = read(cuts.chunks(&stream));
    assert_eq!(again, (messages, end, answers), "in chunks");
}

/// The messages until an error, the error, and the bytes of the answers.
fn read(chunks: Vec<Vec<u8>>) -> (Vec<Message>, String, Vec<u8>) {
    let wire = Wire { chunks, written: Vec::new() };
    let mut socket =
        WebSocket::from_raw_socket(wire, Role::Server, Some(wire_config(MESSAGE_BYTES)));
    let mut messages = Vec::new();
    let end = loop {
        match socket.read() {
            Ok(message) => messages.push(message),
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => break error.to_string(),
        }
    };
    let _closed = socket.flush();
    (messages, end, std::mem::take(&mut socket.get_mut().written))
}

/// Writes a text, binary or ping message of a client, in one frame or in several.
fn message(input: &mut Input<'_>, out: &mut Vec<u8>) -> Message {
    let (kind, parts) = (input.below(3), 1 + input.below(3));
    let text = input.text();
    let body = if kind == 1 { input.bytes().to_vec() } else { text.clone().into_bytes() };
    if kind == 2 {
        let body = &body[..body.len().min(125)];
        frame(out, 9, true, body);
        return Message::Ping(body.to_vec().into());
    }
    let size = body.len().div_ceil(parts).max(1);
    let mut chunks: Vec<&[u8]> = body.chunks(size).collect();
    if chunks.is_empty() {
        chunks.push(&[]);
    }
    for (index, chunk) in chunks.iter().enumerate() {
        let opcode = if index > 0 { 0 } else { [1, 2][kind] };
        frame(out, opcode, index + 1 == chunks.len(), chunk);
    }
    if kind == 1 { Message::Binary(body.into()) } else { Message::Text(text.into()) }
}

fn frame(out: &mut Vec<u8>, opcode: u8, is_last: bool, body: &[u8]) {
    out.push(opcode | if is_last { 0x80 } else { 0 });
    match body.len() {
        short if short < 126 => out.push(0x80 | short as u8),
        long => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(long as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(body.iter().enumerate().map(|(index, byte)| byte ^ MASK[index % 4]));
}
