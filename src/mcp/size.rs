//! Keeping answers small: clients cut or hide what is too long, so nothing may leave that is.
//!
//! Sizes are bytes of JSON as it goes over the wire, where a quote counts two and a control character six.

use std::io;

use serde::Serialize;

/// Most bytes of an answer.
pub(super) const ANSWER: usize = 8_000;
/// Most bytes of an answer where `include` asked for more.
pub(super) const LONG_ANSWER: usize = 40_000;

/// What this takes as JSON.
pub(super) fn of(value: &impl Serialize) -> usize {
    let mut bytes = Count(0);
    // Our own answer types serialize; one that did not would be sent by nobody.
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

/// The longest beginning that takes at most `most` bytes inside of a JSON string.
pub(super) fn head(text: &str, most: usize) -> &str {
    let mut used = 0;
    let end = text.char_indices().find(|(_, c)| {
        used += of_char(*c);
        used > most
    });
    end.map_or(text, |(at, _)| &text[..at])
}

/// The longest end that takes at most `most` bytes inside of a JSON string.
pub(super) fn tail(text: &str, most: usize) -> &str {
    let mut used = 0;
    let start = text.char_indices().rev().find(|(_, c)| {
        used += of_char(*c);
        used > most
    });
    start.map_or(text, |(at, c)| &text[at + c.len_utf8()..])
}

/// One line of at most `most` bytes, with `…` where something was left out.
pub(super) fn line(text: &str, most: usize) -> String {
    let text = text.trim();
    let flat = match text.contains(char::is_control) {
        true => text.split(char::is_control).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" "),
        false => text.to_owned(),
    };
    match head(&flat, most) {
        whole if whole.len() == flat.len() => flat,
        _ => format!("{}…", head(&flat, most.saturating_sub('…'.len_utf8()))),
    }
}

/// The beginning and the end of a text, and between them how much was left out, if that makes sense in `most` bytes.
pub(super) fn ends(text: &str, most: usize) -> String {
    const GAP: usize = 48;
    let text = text.trim();
    if head(text, most).len() == text.len() {
        return text.to_owned();
    }
    if most < 2 * GAP {
        return head(text, most).to_owned();
    }
    let room = most - GAP;
    let (start, end) = (head(text, room / 4), tail(text, room - room / 4));
    let left_out = text.chars().count() - start.chars().count() - end.chars().count();
    format!("{start}\n[… {left_out} characters left out …]\n{end}")
}

/// The first of the items that fit into `room` bytes together, and how many did not.
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

/// Returns the first items that fit, and in place of the others their number.
pub(super) fn fit_or_say<T: Serialize>(
    items: impl ExactSizeIterator<Item = T>,
    room: usize,
    say: impl Fn(usize) -> T,
) -> Vec<T> {
    let keeps = room.saturating_sub(of(&say(items.len())) + 1);
    let (mut fitting, more) = fit(items, keeps);
    if more > 0 {
        fitting.push(say(more));
    }
    fitting
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_cut_fits_as_json(text in any::<String>(), most in 0usize..300) {
            // The quotes around it are not counted.
            prop_assert!(of(&head(&text, most)) <= most + 2);
            prop_assert!(of(&tail(&text, most)) <= most + 2);
            prop_assert!(of(&line(&text, most)) <= most.max(3) + 2);
            prop_assert!(of(&ends(&text, most)) <= most + 2);
        }

        #[test]
        fn what_fits_is_left_as_it_is(text in "[a-z ]{0,50}") {
            prop_assert_eq!(ends(&text, 60), text.trim());
            prop_assert_eq!(line(&text, 60), text.trim());
        }

        #[test]
        fn no_item_is_forgotten(sizes in prop::collection::vec(0usize..50, 0..40), room in 0usize..600) {
            let items: Vec<String> = sizes.iter().map(|size| "x".repeat(*size)).collect();
            let (fitting, left) = fit(&items, room);
            prop_assert_eq!(fitting.len() + left, items.len());
            prop_assert!(of(&fitting) <= room + 2);
        }
    }

    #[test]
    fn the_middle_goes_first() {
        let text = format!("start{}end", "-".repeat(1_000));
        let cut = ends(&text, 200);
        assert!(cut.starts_with("start-") && cut.ends_with("-end") && cut.contains("characters left out"), "{cut}");
    }
}
