//! Formats changes for users and programs.

use std::io::{self, IsTerminal, Write};

use serde_json::{Value, json};
use similar::TextDiff;

use super::change::SettingsChange;

/// Maximum length of a printed line. Settings can be one long line with a user's secrets in it.
const LONGEST_LINE: usize = 160;
/// The same for a line that is added, which must be seen as a whole to be confirmed.
const LONGEST_ADDED_LINE: usize = 1_000;

/// Returns the diff of a change. If a whole file of ours is created or removed, it only names the file.
pub fn diff(change: &SettingsChange) -> String {
    if change.whole && (change.before.is_none() || change.after.is_none()) {
        return format!("{} is {}\n", change.path.display(), action(change));
    }
    let (before, after) = (change.before.as_deref().unwrap_or_default(), change.after.as_deref().unwrap_or_default());
    let path = change.path.to_string_lossy();
    let name = |text: &Option<String>| text.as_ref().map_or("/dev/null".to_owned(), |_| path.clone().into_owned());
    let diff = TextDiff::from_lines(before, after);
    let text = diff.unified_diff().context_radius(2).header(&name(&change.before), &name(&change.after)).to_string();
    text.lines().map(|line| shortened(line.trim_end_matches('\r')) + "\n").collect()
}

fn shortened(line: &str) -> String {
    let longest = if line.starts_with('+') { LONGEST_ADDED_LINE } else { LONGEST_LINE };
    match line.char_indices().nth(longest) {
        Some((end, _)) => format!("{} […]", &line[..end]),
        None => line.to_owned(),
    }
}

/// Returns `created`, `changed`, `removed` or `unchanged`.
pub fn action(change: &SettingsChange) -> &'static str {
    match (&change.before, &change.after) {
        _ if change.is_none() => "unchanged",
        (None, _) => "created",
        (_, None) => "removed",
        _ => "changed",
    }
}

pub fn as_json(changes: &[SettingsChange]) -> Value {
    changes.iter().map(|change| json!({"path": change.path, "action": action(change), "diff": diff(change)})).collect()
}

/// Returns whether the user can be asked.
pub fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

pub fn confirm(question: &str) -> bool {
    let mut out = io::stdout();
    let _ = write!(out, "{question} [y/N] ").and_then(|()| out.flush());
    let mut answer = String::new();
    let _ = io::stdin().read_line(&mut answer);
    matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}
