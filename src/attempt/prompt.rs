//! The prompt of a worker: the context of its mission and the boss's text, in a short frame that the user can change.

use super::assignment::Assignment;
use crate::mission::entry::Start;
use crate::mission::spec::Permissions;

/// The default frame. `{prompt}`, `{directory}`, `{subfolder}`, `{branch}` and `{verify_command}` are filled in. A line
/// without a value is left out.
pub const DEFAULT_FRAME: &str = "\
{prompt}

---
You are a worker; another agent leads you and reads your last message.
- Work only in {directory} and leave everything outside it alone.
- You start in {subfolder}, a folder of it, and commands run there.
- Your branch is {branch}. Commit your work there; do not switch branches, push or merge.
- Your work is done when this command succeeds there: {verify_command}
- End when you are done: do not ask questions, since they get no answer. If you cannot finish, begin the last line of your last message with `BLOCKED:` and say what is missing.";

const READ_ONLY: &str = "\
{prompt}

---
You are a worker; another agent leads you and reads your last message.
- Look around in {directory} and change nothing.
- End when you are done: do not ask questions, since they get no answer. If you cannot finish, begin the last line of your last message with `BLOCKED:` and say what is missing.";

/// Returns the prompt of an attempt's first turn, and the session that it resumes, if any.
pub fn first(assignment: &Assignment) -> (String, Option<String>) {
    match &assignment.start {
        Start::Mission => (framed(assignment, &assignment.mission.prompt), None),
        Start::Prompt { text } => (framed(assignment, text), None),
        // The session began with the frame.
        Start::Resume { session_id, text } => (text.clone(), Some(session_id.clone())),
    }
}

/// Returns the prompt of a turn that cannot resume its session: the mission and the messages.
pub fn anew(assignment: &Assignment, messages: &str) -> String {
    framed(assignment, &format!("{}\n\n{messages}", assignment.mission.prompt))
}

fn framed(assignment: &Assignment, prompt: &str) -> String {
    let default = match assignment.mission.permissions {
        Permissions::ReadOnly => READ_ONLY,
        Permissions::Edit | Permissions::Full => DEFAULT_FRAME,
    };
    let frame = assignment.settings.prompt_frame.as_deref().unwrap_or(default);
    let directory = assignment.directory.display().to_string();
    let subfolder = assignment.mission.place.subfolder().map(|inner| inner.display().to_string());
    let values = [
        ("{directory}", Some(directory.as_str())),
        ("{subfolder}", subfolder.as_deref()),
        ("{branch}", assignment.mission.place.branch()),
        ("{verify_command}", assignment.mission.verify_command.as_deref()),
    ];
    let context = assignment.context.as_deref().unwrap_or_default();
    let lines = frame.lines().filter_map(|line| fill(line, &values));
    // Replaced last, so that braces in the boss's text and in reports are not taken for placeholders.
    lines.collect::<Vec<_>>().join("\n").replacen("{prompt}", &format!("{context}{prompt}"), 1)
}

fn fill(line: &str, values: &[(&str, Option<&str>)]) -> Option<String> {
    let mut filled = line.to_owned();
    for (placeholder, value) in values {
        if filled.contains(placeholder) {
            filled = filled.replace(placeholder, (*value)?);
        }
    }
    Some(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_without_a_value_are_left_out() {
        let values = [("{directory}", Some("/w")), ("{branch}", None)];
        assert_eq!(fill("in {directory}", &values).as_deref(), Some("in /w"));
        assert_eq!(fill("on {branch}", &values), None);
        assert_eq!(fill("{prompt}", &values).as_deref(), Some("{prompt}"));
    }
}
