//! What people and programs are told of a change.

use std::io::{self, IsTerminal, Write};

use serde_json::{Value, json};
use similar::TextDiff;

use super::change::Change;

/// Settings can be one long line, with a user's secrets in it.
const LONGEST_LINE: usize = 160;

/// A file that is ours alone is only named: nobody has to look through it when it comes or goes.
pub fn diff(change: &Change) -> String {
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
    match line.char_indices().nth(LONGEST_LINE) {
        Some((end, _)) => format!("{} […]", &line[..end]),
        None => line.to_owned(),
    }
}

/// `created`, `changed`, `removed` or `unchanged`.
pub fn action(change: &Change) -> &'static str {
    match (&change.before, &change.after) {
        _ if change.is_none() => "unchanged",
        (None, _) => "created",
        (_, None) => "removed",
        _ => "changed",
    }
}

pub fn as_json(changes: &[Change]) -> Value {
    changes.iter().map(|change| json!({"path": change.path, "action": action(change), "diff": diff(change)})).collect()
}

/// Whether there is somebody to ask.
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
