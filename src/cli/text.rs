//! Lays out texts of models, programs and users in columns. Control characters are shown as signs, so that nothing in a
//! text controls the terminal. Pure.

use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

use crate::mission::sanitize;

/// Returns a text as one line, with control characters shown as signs.
pub(in crate::cli) fn clean(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        // Line feeds, tabs, and the separators of Unicode.
        if !character.is_whitespace() {
            line.extend(visible(character));
        } else if !line.ends_with(' ') {
            line.push(' ');
        }
    }
    line.trim().to_owned()
}

pub(in crate::cli) fn short_commit(id: &str) -> &str {
    id.get(..10).unwrap_or(id)
}

/// Returns a line of code or output like [`clean`], but with its blanks.
pub(in crate::cli) fn clean_code(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    for character in line.trim_end().chars() {
        match character {
            '\t' => shown.push_str("    "),
            space if space.is_whitespace() => shown.push(' '),
            other => shown.extend(visible(other)),
        }
    }
    shown
}

fn visible(character: char) -> Option<char> {
    match character {
        '\u{feff}' => None,
        it if it.is_control() => Some(control_picture(it)),
        it if sanitize::is_unsafe(it) => Some('\u{fffd}'),
        plain => Some(plain),
    }
}

/// Returns Unicode's sign for a control character.
fn control_picture(control: char) -> char {
    match control as u32 {
        code @ 0..0x20 => char::from_u32(0x2400 + code).unwrap_or('\u{fffd}'),
        0x7f => '\u{2421}',
        _ => '\u{fffd}',
    }
}

/// Returns the columns of a clean text.
pub(in crate::cli) fn width(text: &str) -> usize {
    text.width()
}

/// Cuts a clean text to a number of columns, with `…` at a cut.
pub(in crate::cli) fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let Some(room) = columns.checked_sub(1) else { return String::new() };
    let (head, _) = split(text, room);
    format!("{}…", head.trim_end())
}

/// Splits a text into the part that fits into a number of columns, and the rest.
pub(in crate::cli) fn split(text: &str, columns: usize) -> (&str, &str) {
    let mut used = 0;
    let end = text.grapheme_indices(true).find(|(_, grapheme)| {
        used += width(grapheme);
        used > columns
    });
    text.split_at(end.map_or(text.len(), |(at, _)| at))
}

/// Returns the end of a text that fits into a number of columns.
pub(in crate::cli) fn end(text: &str, columns: usize) -> &str {
    let mut used = 0;
    let fits = text.grapheme_indices(true).rev().take_while(|(_, grapheme)| {
        used += width(grapheme);
        used <= columns
    });
    &text[fits.last().map_or(text.len(), |(at, _)| at)..]
}

/// Pads or cuts a text to a number of columns.
pub(in crate::cli) fn left(text: &str, columns: usize) -> String {
    let text = cut(text, columns);
    let missing = columns.saturating_sub(width(&text));
    text + &" ".repeat(missing)
}

/// Pads or cuts a text to a number of columns, aligned to the right.
pub(in crate::cli) fn right(text: &str, columns: usize) -> String {
    let text = cut(text, columns);
    " ".repeat(columns.saturating_sub(width(&text))) + &text
}

/// Breaks a text into lines of a number of columns, between words if there is a gap in the second half of a line.
pub(in crate::cli) fn wrap(text: &str, columns: usize) -> Vec<&str> {
    let columns = columns.max(2);
    let mut lines = Vec::new();
    let mut rest = text;
    loop {
        let (head, tail) = split(rest, columns);
        // A character that is wider than a line ends the text.
        if tail.is_empty() || head.is_empty() {
            lines.push(head);
            return lines;
        }
        let gap = head.rfind(' ').filter(|at| *at > head.len() / 2);
        let end = if tail.starts_with(' ') { head.len() } else { gap.unwrap_or(head.len()) };
        lines.push(rest[..end].trim_end());
        rest = rest[end..].trim_start();
    }
}

/// Breaks a text between words into lines of at most `columns` columns. A path or an address stays whole, since users
/// copy it. If it is longer than a line it gets a line of its own, which the terminal wraps.
pub(in crate::cli) fn wrap_whole(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let parts = if width(word) > columns && !word.contains('/') { wrap(word, columns) } else { vec![word] };
        for part in parts {
            let line = lines.last_mut().filter(|line| line.is_empty() || width(line) + 1 + width(part) <= columns);
            match line {
                Some(line) if line.is_empty() => line.push_str(part),
                Some(line) => line.extend([" ", part]),
                None => lines.push(part.to_owned()),
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn control_characters_become_signs() {
        for (text, is) in [
            ("\u{1b}[31mred\u{1b}]0;title\u{7}", "␛[31mred␛]0;title␇"),
            (" two\nlines\tand\r\n more ", "two lines and more"),
            ("\u{9b}2J\u{7f}", "\u{fffd}2J␡"),
            ("evil \u{202e}txt.exe", "evil \u{fffd}txt.exe"),
            ("日本語 👩‍👩‍👧 é", "日本語 👩‍👩‍👧 é"),
        ] {
            assert_eq!(clean(text), is);
        }
        assert_eq!(clean_code("\tif  x {\u{1b}[2J \r"), "    if  x {␛[2J");
    }

    #[test]
    fn widths_count_columns() {
        for (text, columns, is) in [
            ("plain", 5, "plain"),
            ("plain", 4, "pla…"),
            ("日本語", 6, "日本語"),
            ("日本語", 5, "日本…"),
            ("日本語", 4, "日…"),
            ("a👩‍👩‍👧b", 3, "a…"),
            ("x", 0, ""),
        ] {
            assert_eq!(cut(text, columns), is, "{text} in {columns}");
        }
        assert_eq!((left("é", 3), right("日", 3)), ("é  ".to_owned(), " 日".to_owned()));
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefgh ij", 3), ["abc", "def", "gh", "ij"]);
    }

    #[test]
    fn paths_are_never_broken() {
        for (text, columns, is) in [
            ("one two three", 7, &["one two", "three"][..]),
            ("see /a/long/path now", 8, &["see", "/a/long/path", "now"]),
            ("it is in a/longer/path", 15, &["it is in", "a/longer/path"]),
            ("日本語日本語 x", 6, &["日本語", "日本語", "x"]),
            ("", 5, &[""]),
        ] {
            assert_eq!(wrap_whole(text, columns), is, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_text_fits_its_columns(text in any::<String>(), columns in 0usize..40) {
            let text = clean(&text);
            prop_assert!(!text.contains(char::is_control) && !clean_code(&text).contains(char::is_control));
            prop_assert!(width(&cut(&text, columns)) <= columns);
            prop_assert_eq!(width(&left(&text, columns)), columns);
            prop_assert_eq!(width(&right(&text, columns)), columns);
            let columns = columns.max(2);
            for line in wrap(&text, columns) {
                prop_assert!(width(line) <= columns, "{:?}", line);
            }
            for line in wrap_whole(&text.replace('/', "-"), columns) {
                prop_assert!(width(&line) <= columns.max(2), "{:?}", line);
            }
        }
    }
}
