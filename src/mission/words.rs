//! Numbers and lists in words.

use std::fmt::Display;

/// Formats a number with its noun: `1 commit`, `2 commits`.
pub fn count<N: Display + PartialEq + From<u8>>(number: N, noun: &str) -> String {
    let plural = if number == N::from(1) { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// Lists the first `most` items, and the number of the others: `a, b and 3 more`.
pub fn first<T: AsRef<str>>(items: &[T], most: usize) -> String {
    let named = items.iter().take(most).map(AsRef::as_ref).collect::<Vec<&str>>().join(", ");
    match items.len().saturating_sub(most) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_lists_are_in_words() {
        assert_eq!([count(1, "file"), count(0_usize, "file"), count(2_u64, "file")], ["1 file", "0 files", "2 files"]);
        assert_eq!([first(&["a", "b"], 2), first(&["a", "b", "c"], 1)], ["a, b", "a and 2 more"]);
    }
}
