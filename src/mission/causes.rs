//! Formats an error and its causes in one line, for readers who do not see the chain of errors.

use std::error::Error;

/// Returns the error and its causes, joined by colons. A cause whose text is already there is left out.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum ListError {
        #[error("cannot read the list")]
        WithoutCause(#[source] std::io::Error),
        #[error("cannot read the list ({0})")]
        WithCause(#[source] std::io::Error),
    }

    #[test]
    fn each_cause_appears_once() {
        let cause = || std::io::Error::other("the disk is gone");
        assert_eq!(with_causes(&ListError::WithoutCause(cause())), "cannot read the list: the disk is gone");
        assert_eq!(with_causes(&ListError::WithCause(cause())), "cannot read the list (the disk is gone)");
    }
}
