//! Removes from the texts of workers, models and tools all characters that control a terminal. They could move the
//! cursor, set the title, or reverse the direction of text.

use std::io::{self, Write};

use crate::mission::sanitize::is_unsafe;

/// Removes the unsafe characters of a text. Newlines and tabs stay.
pub(super) fn text(text: &str) -> String {
    text.chars().filter(|character| matches!(*character, '\n' | '\t') || !is_unsafe(*character)).collect()
}

/// Maximum length in bytes of an escape sequence; a longer one is removed.
const LONGEST_SEQUENCE: usize = 32;

/// A writer that sanitizes a stream of bytes.
pub(super) struct Sanitizer<W> {
    out: W,
    colours: bool,
    /// The beginning of a character or sequence whose end was not written yet.
    pending: Vec<u8>,
}

impl<W: Write> Sanitizer<W> {
    /// `colours`: escape sequences that colour text are kept.
    pub fn new(out: W, colours: bool) -> Self {
        Self { out, colours, pending: Vec::new() }
    }
}

impl<W: Write> Write for Sanitizer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.pending) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => self.pending.len(),
        };
        let mut rest = self.pending.split_off(whole);
        let mut decoded = String::from_utf8_lossy(&self.pending).into_owned();
        if let Some(at) = decoded.rfind('\u{1b}').filter(|at| self.colours && is_incomplete(&decoded[at + 1..])) {
            rest.splice(..0, decoded.split_off(at).into_bytes());
        }
        self.pending = rest;
        self.out.write_all(if self.colours { text_with_colours(&decoded) } else { text(&decoded) }.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Returns the length of a colour sequence behind its escape character: `[1;31m`.
fn colour_length(after_escape: &str) -> Option<usize> {
    let numbers = after_escape.strip_prefix('[')?;
    let end = numbers.find(|c: char| !is_number(c))?;
    numbers[end..].starts_with('m').then_some(end + 2)
}

fn is_incomplete(after_escape: &str) -> bool {
    let is_number = |text: &str| text.len() < LONGEST_SEQUENCE && text.chars().all(is_number);
    after_escape.is_empty() || after_escape.strip_prefix('[').is_some_and(is_number)
}

fn is_number(c: char) -> bool {
    c.is_ascii_digit() || c == ';' || c == ':'
}

fn text_with_colours(coloured: &str) -> String {
    let mut parts = coloured.split('\u{1b}');
    let mut kept = text(parts.next().unwrap_or_default());
    for part in parts {
        let (colour, rest) = part.split_at(colour_length(part).unwrap_or(0));
        if !colour.is_empty() {
            kept.push('\u{1b}');
            kept.push_str(colour);
        }
        kept.push_str(&text(rest));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes the text in one piece and byte by byte.
    fn passed(text: &[u8], colours: bool) -> String {
        let pass = |pieces: &mut dyn Iterator<Item = &[u8]>| {
            let mut sanitizer = Sanitizer::new(Vec::new(), colours);
            pieces.for_each(|piece| sanitizer.write_all(piece).unwrap());
            String::from_utf8(sanitizer.out).unwrap()
        };
        let whole = pass(&mut std::iter::once(text));
        assert_eq!(pass(&mut text.chunks(1)), whole);
        whole
    }

    #[test]
    fn control_sequences_are_removed_however_they_are_split() {
        let text = "a\u{1b}[2J\u{1b}]0;x\u{7}\u{9b}31m\u{1b}[1;32m+ä😀\u{1b}[m\n".as_bytes();
        assert_eq!(passed(text, true), "a[2J]0;x31m\u{1b}[1;32m+ä😀\u{1b}[m\n");
        assert_eq!(passed(text, false), "a[2J]0;x31m[1;32m+ä😀[m\n");
        // A sequence without an end is removed.
        let endless = format!("\u{1b}[{}", "1".repeat(100));
        assert_eq!(passed(endless.as_bytes(), true), endless[1..]);
        assert_eq!(passed(b"x\xffy", true), "x\u{fffd}y");
    }

    #[test]
    fn unsafe_characters_are_removed() {
        assert_eq!(text("a\u{1b}[2Jb\r\u{7}\u{9b}31m\u{202e}c\n\td\u{0}"), "a[2Jb31mc\n\td");
        assert_eq!(text("ä€😀 \u{200d}"), "ä€😀 \u{200d}");
    }
}
