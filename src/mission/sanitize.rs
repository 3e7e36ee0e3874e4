//! Sanitizes texts of models, tools and files for a terminal or a log. Control characters can move the cursor or hide
//! text, and bidirectional marks can reorder it.

/// Returns the text with such characters escaped, except those that `keep` accepts.
pub fn escaped(text: &str, keep: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if steers_terminal(c) && !keep(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// Returns the text without such characters, except those that `keep` accepts.
pub fn stripped(text: &str, keep: impl Fn(char) -> bool) -> String {
    text.chars().filter(|c| !steers_terminal(*c) || keep(*c)).collect()
}

fn steers_terminal(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kept_controls_reach_the_terminal() {
        let text = "a\u{1b}[2J\tb\n\u{202e}c";
        assert_eq!(escaped(text, |c| c == '\n'), "a\\u{1b}[2J\\tb\n\\u{202e}c");
        assert_eq!(stripped(text, |c| c == '\t'), "a[2J\tbc");
    }
}
