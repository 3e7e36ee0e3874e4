//! Quotes texts for the shell commands that are shown to users.

use std::path::Path;

/// Quotes a path so that a shell takes it as one word.
pub(super) fn quoted(path: &Path) -> String {
    word(&path.to_string_lossy())
}

/// Quotes a text so that a shell takes it as one word. A plain text is returned unchanged.
pub(super) fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@%,".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// Returns a command as a person types it behind these words, such as `ssh login1`.
pub(super) fn behind(prefix: &[String], command: &str) -> String {
    prefix.iter().map(|text| word(text)).chain([command.to_owned()]).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_path_is_one_shell_word() {
        for (path, word) in [("/a/b-c.d", "/a/b-c.d"), ("/a b", "'/a b'"), ("it's", r"'it'\''s'"), ("$(x)", "'$(x)'")] {
            assert_eq!(quoted(Path::new(path)), word);
        }
    }
}
