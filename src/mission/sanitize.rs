//! Sanitizes texts of models, tools and files for a terminal or a log. Control characters can move the cursor or hide
//! text, and bidirectional marks can reorder it.

/// Returns whether a character could control a terminal, hide, or change the direction of the text behind it.
pub fn is_unsafe(character: char) -> bool {
    let is_format = matches!(
        character,
        '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
    );
    character.is_control() || is_format
}

/// Returns the text with its unsafe characters escaped, except those that `keep` accepts.
pub fn escaped(text: &str, keep: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) && !keep(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kept_controls_reach_the_terminal() {
        let text = "a\u{1b}[2J\tb\n\u{202e}c";
        assert_eq!(escaped(text, |c| c == '\n'), "a\\u{1b}[2J\\tb\n\\u{202e}c");
    }
}
