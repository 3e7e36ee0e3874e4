//! Bytes of workers and models on their way to a terminal: all but what would steer it. Colours may stay.

use std::io::{self, Write};

use super::out;

/// Longest escape sequence that is waited for, in bytes.
const SEQUENCE: usize = 32;

pub(super) struct Harmless<W> {
    out: W,
    colours: bool,
    /// A character or a sequence whose end is not there yet.
    held: Vec<u8>,
}

impl<W: Write> Harmless<W> {
    /// `colours`: the sequences that colour text are let through.
    pub fn new(out: W, colours: bool) -> Self {
        Self { out, colours, held: Vec::new() }
    }
}

impl<W: Write> Write for Harmless<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.held.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.held) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => self.held.len(),
        };
        let mut rest = self.held.split_off(whole);
        let mut text = String::from_utf8_lossy(&self.held).into_owned();
        if let Some(at) = text.rfind('\u{1b}').filter(|at| self.colours && is_begun(&text[at + 1..])) {
            rest.splice(..0, text.split_off(at).into_bytes());
        }
        self.held = rest;
        self.out.write_all(if self.colours { coloured(&text) } else { out::harmless(&text) }.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// How long the rest of a sequence is that colours: `[1;31m`.
fn colour(after_escape: &str) -> Option<usize> {
    let numbers = after_escape.strip_prefix('[')?;
    let end = numbers.find(|c: char| !is_number(c))?;
    numbers[end..].starts_with('m').then_some(end + 2)
}

fn is_begun(after_escape: &str) -> bool {
    let is_number = |text: &str| text.len() < SEQUENCE && text.chars().all(is_number);
    after_escape.is_empty() || after_escape.strip_prefix('[').is_some_and(is_number)
}

fn is_number(c: char) -> bool {
    c.is_ascii_digit() || c == ';' || c == ':'
}

fn coloured(text: &str) -> String {
    let mut parts = text.split('\u{1b}');
    let mut kept = out::harmless(parts.next().unwrap_or_default());
    for part in parts {
        let (colour, rest) = part.split_at(colour(part).unwrap_or(0));
        if !colour.is_empty() {
            kept.push('\u{1b}');
            kept.push_str(colour);
        }
        kept.push_str(&out::harmless(rest));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same in one piece and byte by byte.
    fn passed(text: &[u8], colours: bool) -> String {
        let pass = |pieces: &mut dyn Iterator<Item = &[u8]>| {
            let mut harmless = Harmless::new(Vec::new(), colours);
            pieces.for_each(|piece| harmless.write_all(piece).unwrap());
            String::from_utf8(harmless.out).unwrap()
        };
        let whole = pass(&mut std::iter::once(text));
        assert_eq!(pass(&mut text.chunks(1)), whole);
        whole
    }

    #[test]
    fn what_steers_a_terminal_is_left_out_wherever_it_is_cut() {
        let text = "a\u{1b}[2J\u{1b}]0;x\u{7}\u{9b}31m\u{1b}[1;32m+ä😀\u{1b}[m\n".as_bytes();
        assert_eq!(passed(text, true), "a[2J]0;x31m\u{1b}[1;32m+ä😀\u{1b}[m\n");
        assert_eq!(passed(text, false), "a[2J]0;x31m[1;32m+ä😀[m\n");
        // One that goes on for ever is none.
        let endless = format!("\u{1b}[{}", "1".repeat(100));
        assert_eq!(passed(endless.as_bytes(), true), endless[1..]);
        assert_eq!(passed(b"x\xffy", true), "x\u{fffd}y");
    }
}
