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
