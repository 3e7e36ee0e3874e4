//! Finds the JSON objects in a line as CLIs really print it, and shortens those that are too long to keep in memory.
//!
//! Around an object there may be text that terminals hide (a byte order mark, colours, NUL bytes) or overwrite
//! (progress before a carriage return). Inside it there may be input that strict parsers refuse: lone surrogates, NaN,
//! raw control characters or very deep nesting. Long strings lose their middle and long lists their end, so memory is
//! bounded.

use serde_json::{Number, Value};

/// Bytes kept of the beginning of a string. In a field with many strings each keeps fewer.
const HEAD: usize = 4 * 1024;
/// Bytes kept of the end of a string.
pub const TAIL: usize = 256 * 1024;
const LEAST: usize = 256;
/// Approximate maximum size in bytes of a top-level field. The rest of a longer list is dropped.
const FIELD: usize = 4 * 1024 * 1024;
/// Maximum total size in bytes of the objects of one line.
const ALL: usize = 32 * 1024 * 1024;
/// Maximum nesting depth; deeper values become null. The library refuses 128.
const DEPTH: usize = 100;
/// Maximum size in bytes of text before an object.
const PREFIX: usize = 4 * 1024;
/// Maximum size in bytes of a number or a keyword. A longer one is read as null: a part of it would be another number.
const SCALAR: usize = 1024;

/// A parser that takes a line piece by piece.
#[derive(Default)]
pub struct ObjectParser {
    done: Vec<Value>,
    size: usize,
    out: Vec<u8>,
    /// The open containers: `{` or `[`.
    open: Vec<u8>,
    state: ParserState,
    escape: Escape,
    /// True if a comma was read and not yet written, since nothing may follow it.
    comma: bool,
    /// The offset in `out` at which the current top-level field begins.
    field: usize,
    /// The part that is skipped: nothing is written until it ends.
    skipped: Option<Skipped>,
    string: BoundedText,
    scalar: Vec<u8>,
    /// Number of bytes outside of objects that a terminal would show before or after one.
    shown: usize,
    has_quotes: bool,
    behind_object: bool,
    text_before: bool,
    broken: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Skipped {
    /// The rest of the list or object that is open at this depth.
    Rest(usize),
    /// One value below this depth.
    Value(usize),
}

#[derive(Default, Clone, Copy, PartialEq)]
enum ParserState {
    #[default]
    Between,
    String,
    Backslash,
    /// A `\uXXXX` escape: the number of missing digits, and the value so far.
    Hex(u8, u16),
}

/// The state within a terminal's control sequence.
#[derive(Default, Clone, Copy, PartialEq)]
enum Escape {
    #[default]
    None,
    Began,
    Sequence,
    /// A command that ends at BEL or ESC `\`.
    Command,
    /// The choice of a character set, which ends after one more byte.
    Charset,
}

/// The decoded text of one string, without its middle if it is long.
#[derive(Default)]
struct BoundedText {
    head: Vec<u8>,
    tail: Vec<u8>,
    cut: bool,
    most: usize,
    surrogate: Option<u16>,
}

impl ObjectParser {
    pub fn push(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() && !self.broken {
            if self.state == ParserState::String {
                let plain = rest.iter().take_while(|byte| !b"\"\\\0".contains(byte)).count();
                if plain > 0 {
                    self.string.push(&rest[..plain]);
                }
                rest = &rest[plain..];
            }
            let Some((byte, behind)) = rest.split_first() else { return };
            // In UTF-16, an ASCII character has a NUL as its other half.
            if *byte != 0 {
                self.take(*byte);
            }
            rest = behind;
        }
    }

    /// Returns whether an object has begun and not ended, so that the next line may continue it.
    pub fn is_unfinished(&self) -> bool {
        !self.broken && !self.open.is_empty() && !self.text_before
    }

    /// Returns the objects; none if the line is malformed, unfinished, or has text after an object.
    pub fn finish(self) -> Vec<Value> {
        let text_behind = self.behind_object && self.shown > 0;
        if self.broken || text_behind || !self.open.is_empty() { Vec::new() } else { self.done }
    }

    fn take(&mut self, byte: u8) {
        match self.state {
            ParserState::Between => self.between(byte),
            ParserState::String => self.in_string(byte),
            ParserState::Backslash => self.behind_backslash(byte),
            ParserState::Hex(missing, value) => self.hex_digit(byte, missing, value),
        }
    }

    fn between(&mut self, byte: u8) {
        if self.escape != Escape::None || byte == 0x1b {
            return self.escape(byte);
        }
        if self.open.is_empty() {
            return self.outside(byte);
        }
        if byte.is_ascii_alphanumeric() || b"+-.".contains(&byte) {
            if self.scalar.len() <= SCALAR {
                self.scalar.push(byte);
            }
            return;
        }
        self.end_scalar();
        match byte {
            b'"' => self.begin_string(),
            b'{' | b'[' => self.begin_container(byte),
            b'}' | b']' => self.end_container(byte),
            b',' => self.take_comma(),
            b':' => self.write(b":"),
            _ if byte.is_ascii_whitespace() || byte.is_ascii_control() || is_mark(byte) => {}
            _ => self.broken = true,
        }
    }

    /// Handles a byte before, between or after objects.
    fn outside(&mut self, byte: u8) {
        match byte {
            b'\r' => self.overwritten(),
            b'{' if self.shown == 0 || self.may_stand_before_an_object() => {
                self.text_before = self.shown > 0;
                self.begin_container(byte);
            }
            _ if byte.is_ascii_whitespace() || byte.is_ascii_control() || is_mark(byte) => {}
            _ => {
                self.shown += 1;
                // Quotes suggest text that quotes an object.
                self.has_quotes |= b"\"'`\\".contains(&byte);
            }
        }
    }

    fn may_stand_before_an_object(&self) -> bool {
        !self.behind_object && !self.has_quotes && self.shown < PREFIX
    }

    /// Forgets the text shown so far, since the terminal overwrites it.
    fn overwritten(&mut self) {
        (self.shown, self.has_quotes, self.behind_object) = (0, false, false);
    }

    fn escape(&mut self, byte: u8) {
        self.escape = match (self.escape, byte) {
            (Escape::None, _) => Escape::Began,
            (Escape::Began, b'[') => Escape::Sequence,
            (Escape::Began, b']' | b'P' | b'^' | b'_' | b'X') => Escape::Command,
            (Escape::Began, b'(' | b')' | b'#' | b'%') => Escape::Charset,
            (Escape::Command, 0x1b) => Escape::Began,
            (Escape::Sequence, 0x40..=0x7e) => {
                // These sequences erase the line, or move to its beginning or to another line.
                if self.open.is_empty() && b"GHJKEF".contains(&byte) {
                    self.overwritten();
                }
                Escape::None
            }
            (Escape::Command, 0x07) | (Escape::Began | Escape::Charset, _) => Escape::None,
            (unchanged, _) => unchanged,
        };
    }

    fn begin_string(&mut self) {
        let used = self.out.len() - self.field;
        let most = if self.open.len() == 1 { TAIL } else { (FIELD.saturating_sub(used) / 4).clamp(LEAST, TAIL) };
        self.string = BoundedText { most, ..BoundedText::default() };
        self.state = ParserState::String;
    }

    fn in_string(&mut self, byte: u8) {
        match byte {
            b'"' => {
                self.state = ParserState::Between;
                let text = std::mem::take(&mut self.string).into_json();
                self.write(&text);
            }
            b'\\' => self.state = ParserState::Backslash,
            _ => self.string.push(&[byte]),
        }
    }

    fn behind_backslash(&mut self, byte: u8) {
        self.state = ParserState::String;
        match byte {
            b'n' => self.string.push(b"\n"),
            b't' => self.string.push(b"\t"),
            b'r' => self.string.push(b"\r"),
            b'b' => self.string.push(b"\x08"),
            b'f' => self.string.push(b"\x0c"),
            b'u' => self.state = ParserState::Hex(4, 0),
            other => self.string.push(&[other]),
        }
    }

    fn hex_digit(&mut self, byte: u8, missing: u8, value: u16) {
        let Some(digit) = char::from(byte).to_digit(16) else {
            self.broken = true;
            return;
        };
        let value = value << 4 | digit as u16;
        self.state = ParserState::Hex(missing - 1, value);
        if missing == 1 {
            self.state = ParserState::String;
            self.string.push_unit(value);
        }
    }

    fn begin_container(&mut self, byte: u8) {
        if self.open.is_empty() {
            (self.field, self.comma) = (0, false);
            self.out.clear();
        }
        if self.open.len() == DEPTH && self.skipped.is_none() {
            self.write(b"null");
            self.skipped = Some(Skipped::Value(DEPTH));
        }
        self.write(&[byte]);
        self.open.push(byte);
    }

    fn end_container(&mut self, byte: u8) {
        let depth = self.open.len();
        let fits = matches!((self.open.pop(), byte), (Some(b'{'), b'}') | (Some(b'['), b']'));
        self.broken |= !fits;
        self.comma = false;
        match self.skipped {
            Some(Skipped::Rest(at)) if at == depth => self.skipped = None,
            Some(Skipped::Value(at)) if at + 1 == depth => {
                self.skipped = None;
                return;
            }
            _ => {}
        }
        self.write(&[byte]);
        if self.open.is_empty() {
            self.end_object();
        }
    }

    fn end_object(&mut self) {
        (self.shown, self.has_quotes, self.behind_object) = (0, false, true);
        let text_before = std::mem::take(&mut self.text_before);
        self.size += self.out.len();
        match serde_json::from_slice::<Value>(&self.out) {
            // After other text, accept an object only if it is clearly an event.
            Ok(object) if !text_before || object["type"].is_string() => self.done.push(object),
            _ => self.broken = true,
        }
        self.out = Vec::new();
    }

    fn take_comma(&mut self) {
        self.comma = self.skipped.is_none();
        if self.open.len() == 1 {
            self.field = self.out.len();
        } else if self.comma && self.out.len() - self.field > FIELD {
            self.skipped = Some(Skipped::Rest(self.open.len()));
            self.comma = false;
        }
    }

    fn end_scalar(&mut self) {
        if self.scalar.is_empty() {
            return;
        }
        let scalar = std::mem::take(&mut self.scalar);
        let is_whole = scalar.len() <= SCALAR;
        let known = [&b"true"[..], b"false", b"null"].contains(&&scalar[..]);
        let valid = known || serde_json::from_slice::<Number>(&scalar).is_ok();
        self.write(if valid && is_whole { &scalar } else { b"null" });
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.skipped.is_some() {
            return;
        }
        if std::mem::take(&mut self.comma) {
            self.out.push(b',');
        }
        self.out.extend_from_slice(bytes);
        self.broken |= self.size + self.out.len() > ALL;
    }
}

impl BoundedText {
    fn push(&mut self, bytes: &[u8]) {
        if self.surrogate.take().is_some() {
            self.append("\u{fffd}".as_bytes());
        }
        self.append(bytes);
    }

    /// Appends a UTF-16 code unit. Characters beyond the first 65,536 come as two surrogates.
    fn push_unit(&mut self, unit: u16) {
        let character = match (self.surrogate.take(), unit) {
            (Some(high), 0xdc00..=0xdfff) => char::decode_utf16([high, unit]).next().and_then(Result::ok),
            (before, unit) => {
                if before.is_some() {
                    self.append("\u{fffd}".as_bytes());
                }
                if (0xd800..=0xdbff).contains(&unit) {
                    self.surrogate = Some(unit);
                    return;
                }
                char::from_u32(unit.into())
            }
        };
        self.append(character.unwrap_or(char::REPLACEMENT_CHARACTER).encode_utf8(&mut [0; 4]).as_bytes());
    }

    fn append(&mut self, bytes: &[u8]) {
        let room = HEAD.min(self.most).saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..room]);
        self.tail.extend_from_slice(&bytes[room..]);
        if self.tail.len() > 2 * self.most {
            self.tail.drain(..self.tail.len() - self.most);
            self.cut = true;
        }
    }

    fn into_json(mut self) -> Vec<u8> {
        self.push(b"");
        let over = self.tail.len().saturating_sub(self.most);
        if over > 0 {
            self.tail.drain(..over);
            self.cut = true;
        }
        let mut bytes = self.head;
        if self.cut {
            bytes.extend_from_slice("…".as_bytes());
            let begun = self.tail.iter().take_while(|byte| **byte & 0xc0 == 0x80).count();
            self.tail.drain(..begun);
        }
        bytes.extend_from_slice(&self.tail);
        Value::from(String::from_utf8_lossy(&bytes)).to_string().into_bytes()
    }
}

/// Returns whether this is a byte of a byte order mark, or of the replacement character for an unreadable one.
fn is_mark(byte: u8) -> bool {
    matches!(byte, 0xef | 0xbb | 0xbf | 0xbd | 0xfe | 0xff)
}

/// A line that was too long to keep, read again piece by piece.
#[derive(Default)]
pub struct LongLine {
    objects: ObjectParser,
    text: BoundedText,
}

/// The short form of a long line.
#[derive(Debug, PartialEq)]
pub enum ShortenedLine {
    /// The objects of the line, complete except for the middle of long strings and the end of long lists.
    Objects(String),
    /// The beginning and the end of a line that is not JSON.
    Text(String),
}

impl LongLine {
    pub fn new() -> Self {
        Self { objects: ObjectParser::default(), text: BoundedText { most: TAIL, ..BoundedText::default() } }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.objects.push(bytes);
        self.text.append(bytes);
    }

    pub fn finish(self) -> ShortenedLine {
        let objects = self.objects.finish();
        if !objects.is_empty() {
            return ShortenedLine::Objects(objects.iter().map(Value::to_string).collect());
        }
        let text: String = serde_json::from_slice(&self.text.into_json()).unwrap_or_default();
        ShortenedLine::Text(text.trim_end().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn objects(line: &[u8]) -> Vec<Value> {
        let mut whole = ObjectParser::default();
        whole.push(line);
        let whole = whole.finish();
        let mut pieces = ObjectParser::default();
        line.chunks(1).for_each(|piece| pieces.push(piece));
        assert_eq!(pieces.finish(), whole, "in pieces");
        whole
    }

    #[test]
    fn long_number_is_whole_or_null() {
        let exact = format!("{{\"n\":1{}e-80}}", "0".repeat(80));
        assert_eq!(objects(exact.as_bytes()), [json!({"n": 1.0})]);
        let endless = format!("{{\"n\":{}}}", "1".repeat(SCALAR + 1));
        assert_eq!(objects(endless.as_bytes()), [json!({"n": null})]);
    }

    #[test]
    fn hidden_terminal_text_is_ignored() {
        let object = json!({"type": "result", "n": [1, -2.5e3, true, null, "a\"\\\u{1f600}b"]});
        let text = object.to_string();
        let utf_16: Vec<u8> = "\u{feff}{\"type\":\"result\"}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(objects(&utf_16), [json!({"type": "result"})]);
        for (before, behind) in [
            ("", ""),
            ("\u{feff}", "\r"),
            ("\u{fffd}\u{fffd}", ""),
            ("\x1b[32m", "\x1b[0m"),
            ("\x1b]0;a \"title\"\x07", "\x1b[?25h"),
            ("\x1b]8;;http://a\x1b\\", "\x1b(B"),
            ("\0\0", "\0"),
            ("50%\r", ""),
            ("he said \"no\" {}\r", ""),
            ("\x1b[2K\x1b[1G", " \t"),
            ("a 'quote' \x1b[2K", "\rdone"),
            ("[==>  ] 50% ", ""),
            ("⠋ Working… ", "\r"),
        ] {
            let read = objects(format!("{before}{text}{behind}").as_bytes());
            assert_eq!(read, std::slice::from_ref(&object), "{before:?} {behind:?}");
        }
        let coloured = "\x1b[1;39m{\x1b[0m\x1b[34;1m\"type\"\x1b[0m:\x1b[0;32m\"result\"\x1b[0m}\x1b[0m";
        assert_eq!(objects(coloured.as_bytes()), [json!({"type": "result"})]);
        assert_eq!(objects(b"{\"type\":\"a\"} {\"type\":\"b\"}").len(), 2);
    }

    #[test]
    fn quoted_object_is_not_parsed() {
        for line in [
            "",
            "no object",
            "he printed \"{\"type\":\"result\"}\"",
            "`{\"type\":\"result\"}`",
            "{\"type\":\"result\"} is what it says",
            "event: {\"n\":1}",
            "{\"type\":\"result\"",
            "{\"type\":\"result\"]",
            "[{\"type\":\"result\"}]",
            "{\"type\":\"result\"}}",
            "{type:\"result\"}",
        ] {
            assert_eq!(objects(line.as_bytes()), Vec::<Value>::new(), "{line}");
        }
    }

    #[test]
    fn input_that_strict_parsers_refuse_is_parsed() {
        let line = b"{\"a\":\"x\\ud83dy\",\"b\":NaN,\"c\":-Infinity,\"d\":\"tab\there \xff\",\"e\":[1,],\"f\":\"\\ud83d\\ude00\"}";
        let read = json!({"a": "x\u{fffd}y", "b": null, "c": null, "d": "tab\there \u{fffd}", "e": [1], "f": "😀"});
        assert_eq!(objects(line), [read]);
        let deep = format!("{{\"a\":{}1{},\"type\":\"result\"}}", "[".repeat(1000), "]".repeat(1000));
        assert_eq!(objects(deep.as_bytes())[0]["type"], "result");
        let list = format!("{{\"a\":{}[1],2{},\"type\":\"result\"}}", "[".repeat(99), "]".repeat(99));
        assert_eq!(objects(list.as_bytes())[0]["type"], "result");
    }

    #[test]
    fn long_object_is_shortened_and_stays_valid() {
        let long = "é\"\n".repeat(1 << 20);
        let denial = json!({"tool": "Write", "input": {"content": long}});
        let many: Vec<u32> = (0..2_000_000).collect();
        let object = json!({
            "type": "result", "denials": vec![&denial; 12], "many": many, "result": format!("{long}the end"),
            "usage": {"input": 7}, "terminal_reason": "completed",
        });
        let text = object.to_string();
        assert!(text.len() > 60 << 20);
        let mut line = LongLine::new();
        text.as_bytes().chunks(65_536).for_each(|piece| line.push(piece));
        let ShortenedLine::Objects(short) = line.finish() else { panic!("it is an object") };
        assert!(short.len() < 16 << 20, "{}", short.len());
        let short: Value = serde_json::from_str(&short).unwrap();
        assert_eq!(short["terminal_reason"], "completed");
        assert_eq!(short["usage"]["input"], 7);
        assert_eq!(short["denials"].as_array().unwrap().len(), 12);
        let result = short["result"].as_str().unwrap();
        assert!(result.starts_with("é\"\n") && result.ends_with("\"\nthe end") && result.len() >= TAIL);
        assert_eq!(short["many"][1], 1);
    }

    #[test]
    fn long_text_keeps_both_ends() {
        let mut line = LongLine::new();
        line.push(format!("begin{}the \"end\"", "x".repeat(3 << 20)).as_bytes());
        let ShortenedLine::Text(text) = line.finish() else { panic!("it is no object") };
        assert!(text.starts_with("begin") && text.ends_with("the \"end\"") && text.len() < 2 * TAIL);
    }
}
