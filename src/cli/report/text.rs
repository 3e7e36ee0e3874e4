//! Formats numbers, times and external texts for a report.

use std::borrow::Cow;

use jiff::Timestamp;
use jiff::tz::TimeZone;

pub(super) use crate::cli::terminal::{bytes, duration as seconds};
use crate::mission::sanitize;
pub(super) use crate::mission::words::count;

/// Removes escape sequences and unsafe characters; line ends become `\n`.
pub fn clean(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => skip_escape(&mut chars),
            '\r' if chars.peek() == Some(&'\n') => {}
            '\r' => result.push('\n'),
            '\n' | '\t' => result.push(c),
            c if sanitize::is_unsafe(c) => {}
            c => result.push(c),
        }
    }
    result
}

/// Skips an escape sequence: `ESC [ … letter`, `ESC ] … BEL` (or `ESC \`), or `ESC` and one character.
fn skip_escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.next() {
        Some('[') => while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
        Some(']') => {
            while let Some(c) = chars.next() {
                match c {
                    '\u{7}' => return,
                    '\u{1b}' => {
                        chars.next();
                        return;
                    }
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

/// Returns at most `most` bytes of the beginning, with the size of the rest.
pub fn head(text: &str, most: usize) -> Cow<'_, str> {
    let end = text.floor_char_boundary(most);
    match text.len() - end {
        0 => text.into(),
        missing => format!("{} […, {} more]", &text[..end], bytes(missing as u64)).into(),
    }
}

/// Returns at most `most` bytes of the end, with the size of the rest.
pub fn tail(text: &str, most: usize) -> Cow<'_, str> {
    let start = text.ceil_char_boundary(text.len().saturating_sub(most));
    match start {
        0 => text.into(),
        missing => format!("[{} more, …] {}", bytes(missing as u64), &text[start..]).into(),
    }
}

/// Returns the length of a text in HTML.
pub fn escaped_len(text: &str) -> usize {
    let more = |byte| match byte {
        b'<' | b'>' => 3,
        b'&' => 4,
        b'"' => 5,
        _ => 0,
    };
    text.len() + text.bytes().map(more).sum::<usize>()
}

/// Formats a number of tokens: `940`, `12.4k`, `3.1M`.
pub fn tokens(count: u64) -> String {
    match count {
        0..1_000 => count.to_string(),
        1_000..1_000_000 => format!("{:.1}k", count as f64 / 1e3),
        _ => format!("{:.1}M", count as f64 / 1e6),
    }
}

pub fn dollars(amount: f64) -> String {
    match amount {
        0.0..0.01 if amount > 0.0 => "< $0.01".to_owned(),
        _ => format!("${amount:.2}"),
    }
}

/// Formats a time in the local zone: `2026-11-23 04:10`.
pub fn moment(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string()
}

pub fn clock(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system()).strftime("%H:%M:%S").to_string()
}

pub fn zone(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system()).strftime("%Z").to_string()
}

pub fn date(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_and_unsafe_characters_are_removed() {
        for (from, to) in [
            ("\u{1b}[1;31mred\u{1b}[0m\r\nnext\rover", "red\nnext\nover"),
            ("\u{1b}]0;title\u{7}a\u{1b}]8;;x\u{1b}\\b\u{1b}(c\u{0}\u{8}", "abc"),
            ("x\u{202e}txt.exe", "xtxt.exe"),
            ("\u{1b}", ""),
        ] {
            assert_eq!(clean(from), to, "{from:?}");
        }
    }

    #[test]
    fn cuts_are_marked() {
        assert_eq!(head("abcdef", 6), "abcdef");
        assert!(head("äbcdef", 3).starts_with("äb […"), "{}", head("äbcdef", 3));
        assert!(tail("abcdef", 2).ends_with("…] ef"));
        assert_eq!(escaped_len("<a href=\"&\">"), "&lt;a href=&quot;&amp;&quot;&gt;".len());
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([tokens(999), tokens(12_400), tokens(3_100_000)], ["999", "12.4k", "3.1M"]);
        assert_eq!([dollars(0.0), dollars(0.004), dollars(1.5)], ["$0.00", "< $0.01", "$1.50"]);
    }
}
