//! An error in one line, with what caused it: for whoever reads a message and sees no chain of errors.

use std::error::Error;

/// Each cause after a colon, unless the text before says it already.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    text
}

/// Returns serde's message with words for its types: JSON and TOML have no `usize`.
pub fn in_plain_types(message: &str) -> String {
    let Some((before, expected)) = message.rsplit_once("expected ") else { return message.to_owned() };
    let (kind, rest) =
        expected.split_once(['\n', ',']).map_or((expected, ""), |(kind, _)| (kind, &expected[kind.len()..]));
    let kind = match kind {
        "u8" | "u16" | "u32" | "u64" | "usize" | "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a sequence" => "a list",
        "a map" => "an object",
        "a boolean" => "true or false",
        kind if kind.starts_with("struct ") => "an object with named fields",
        kind => kind,
    };
    format!("{before}expected {kind}{rest}")
}

/// The text with its control characters written out, but for those that may stay: nothing in it steers a terminal.
pub fn written_out(text: &str, stays: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() && !stays(c) {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Failed {
        #[error("could not read the list")]
        Silent(#[source] std::io::Error),
        #[error("could not read the list ({0})")]
        Telling(#[source] std::io::Error),
    }

    #[test]
    fn a_cause_is_told_once() {
        let cause = || std::io::Error::other("the disk is gone");
        assert_eq!(with_causes(&Failed::Silent(cause())), "could not read the list: the disk is gone");
        assert_eq!(with_causes(&Failed::Telling(cause())), "could not read the list (the disk is gone)");
    }
}
