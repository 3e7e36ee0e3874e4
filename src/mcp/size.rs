//! Limits the sizes of answers, since clients cut or hide long ones.
//!
//! Sizes are bytes of JSON on the wire, where a quote takes two bytes and a control character six.

use std::io;

use serde::Serialize;

/// Maximum size in bytes of an answer.
pub(super) const ANSWER: usize = 8_000;
/// Maximum size in bytes of an answer with `include`.
pub(super) const LONG_ANSWER: usize = 40_000;

/// Returns the size of a value as JSON.
pub(super) fn of(value: &impl Serialize) -> usize {
    let mut bytes = Count(0);
    // All answer types serialize; any other value counts as too large.
    serde_json::to_writer(&mut bytes, value).map_or(usize::MAX, |()| bytes.0)
}

struct Count(usize);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn of_char(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        c if (c as u32) < 0x20 => 6,
        c => c.len_utf8(),
    }
}

/// Returns the longest beginning that takes at most `max` bytes inside of a JSON string.
pub(super) fn head(text: &str, max: usize) -> &str {
    let mut used = 0;
    let end = text.char_indices().find(|(_, c)| {
        used += of_char(*c);
        used > max
    });
    end.map_or(text, |(at, _)| &text[..at])
}

/// Returns the longest end that takes at most `max` bytes inside of a JSON string.
pub(super) fn tail(text: &str, max: usize) -> &str {
    let mut used = 0;
    let start = text.char_indices().rev().find(|(_, c)| {
        used += of_char(*c);
        used > max
    });
    start.map_or(text, |(at, c)| &text[at + c.len_utf8()..])
}

/// Shortens a text to one line of at most `max` bytes, with `…` in place of an omitted end.
pub(super) fn line(text: &str, max: usize) -> String {
    let text = text.trim();
    let flat = text.split(char::is_control).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    if head(&flat, max).len() == flat.len() {
        flat
    } else {
        format!("{}…", head(&flat, max.saturating_sub('…'.len_utf8())))
    }
}

/// Shortens a text to its beginning and its end, with the size of the omission between them if `max` has room for it.
pub(super) fn ends(text: &str, max: usize) -> String {
    const GAP: usize = 48;
    let text = text.trim();
    if head(text, max).len() == text.len() {
        return text.to_owned();
    }
    if max < 2 * GAP {
        return head(text, max).to_owned();
    }
    let room = max - GAP;
    let (start, end) = (head(text, room / 4), tail(text, room - room / 4));
    let left_out = text.chars().count() - start.chars().count() - end.chars().count();
    format!("{start}\n[… {left_out} characters left out …]\n{end}")
}

/// Returns the first items that fit into `room` bytes, and the number of the others.
pub(super) fn fit<T: Serialize>(items: impl IntoIterator<Item = T>, room: usize) -> (Vec<T>, usize) {
    let mut left = room;
    let mut items = items.into_iter();
    let mut fitting = Vec::new();
    for item in items.by_ref() {
        match left.checked_sub(of(&item) + 1) {
            Some(rest) => left = rest,
            None => return (fitting, 1 + items.count()),
        }
        fitting.push(item);
    }
    (fitting, 0)
}

/// Returns the first items that fit, and in place of the others an item that `count` makes of their number.
pub(super) fn fit_or_count<T: Serialize>(
    items: impl ExactSizeIterator<Item = T>,
    room: usize,
    count: impl Fn(usize) -> T,
) -> Vec<T> {
    let keeps = room.saturating_sub(of(&count(items.len())) + 1);
    let (mut fitting, more) = fit(items, keeps);
    if more > 0 {
        fitting.push(count(more));
    }
    fitting
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cut_texts_fit(text in any::<String>(), max in 0usize..300) {
            // The limit does not include the quotes.
            prop_assert!(of(&head(&text, max)) <= max + 2);
            prop_assert!(of(&tail(&text, max)) <= max + 2);
            prop_assert!(of(&line(&text, max)) <= max.max(3) + 2);
            prop_assert!(of(&ends(&text, max)) <= max + 2);
        }

        #[test]
        fn short_texts_are_unchanged(text in "[a-z ]{0,50}") {
            prop_assert_eq!(ends(&text, 60), text.trim());
            prop_assert_eq!(line(&text, 60), text.trim());
        }

        #[test]
        fn every_item_fits_or_is_counted(sizes in prop::collection::vec(0usize..50, 0..40), room in 0usize..600) {
            let items: Vec<String> = sizes.iter().map(|size| "x".repeat(*size)).collect();
            let (fitting, left) = fit(&items, room);
            prop_assert_eq!(fitting.len() + left, items.len());
            prop_assert!(of(&fitting) <= room + 2);
        }
    }

    #[test]
    fn middle_is_cut() {
        let text = format!("start{}end", "-".repeat(1_000));
        let cut = ends(&text, 200);
        assert!(cut.starts_with("start-") && cut.ends_with("-end") && cut.contains("characters left out"), "{cut}");
    }
}
