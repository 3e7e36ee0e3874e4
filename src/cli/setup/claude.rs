//! Claude Code: `.claude.json` in `$CLAUDE_CONFIG_DIR` or the home, or `.mcp.json` in the project.
//!
//! Every session writes to the first file, so setup changes it through Claude Code's own command, which takes its lock.
//! If the command is not installed, no other program writes the file, and setup edits it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::SetupError;
use super::document::Format;
use super::entry::{FieldRule, NAME};
use super::json::Dialect;
use super::registration::{Environment, Registration, Rules, SetupScope};
use crate::mcp;

const PROGRAM: &str = "claude";
/// Strict JSON, in both files.
const FORMAT: Format = Format::Json(Dialect { comments: false, trailing_commas: false });

pub fn registration(environment: &Environment, scope: SetupScope) -> Registration {
    let path = match scope {
        SetupScope::User => environment.folder_in("CLAUDE_CONFIG_DIR", "").join(".claude.json"),
        SetupScope::Project => environment.project.join(".mcp.json"),
    };
    let mut fields = vec![(vec!["type"], FieldRule::Default("stdio".into()))];
    fields.extend(environment.command_and_args());
    if environment.arguments.is_empty() {
        fields.push((vec!["args"], FieldRule::Default(json!([]))));
    }
    fields.push((vec!["env"], FieldRule::Default(json!({}))));
    let notes = match scope {
        SetupScope::User => Vec::new(),
        SetupScope::Project => vec!["Claude Code asks each user once before it starts a server of a project".into()],
    };
    Registration {
        path,
        format: FORMAT,
        keys: vec!["mcpServers", NAME],
        fields,
        rules: Some(rules(environment, scope)),
        notes,
    }
}

fn rules(environment: &Environment, scope: SetupScope) -> Rules {
    let folder = match scope {
        SetupScope::User => environment.folder_in("CLAUDE_CONFIG_DIR", ".claude"),
        SetupScope::Project => environment.project.join(".claude"),
    };
    let for_all = format!("mcp__{NAME}");
    Rules {
        path: folder.join("settings.json"),
        format: FORMAT,
        keys: vec!["permissions", "allow"],
        for_reading: mcp::reading_tools().map(|tool| format!("{for_all}__{tool}")).collect(),
        for_all,
    }
}

/// Returns the path of Claude Code's own command.
pub fn program() -> Option<PathBuf> {
    which::which(PROGRAM).ok()
}

/// Replaces the entry in the user's settings with Claude Code's own commands. An old entry is removed first, since the
/// command to add one changes none.
pub fn apply(program: &Path, before: Option<&Value>, after: Option<&Value>) -> Result<(), SetupError> {
    if before.is_some() {
        run(program, &["mcp", "remove", NAME, "-s", "user"])?;
    }
    let add = |entry: &Value| run(program, &["mcp", "add-json", NAME, &entry.to_string(), "-s", "user"]);
    let Some(entry) = after else { return Ok(()) };
    let added = add(entry);
    if let (Err(_), Some(before)) = (&added, before) {
        // Restore the old entry; the first error is reported.
        let _ = add(before);
    }
    added
}

fn run(program: &Path, arguments: &[&str]) -> Result<(), SetupError> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let line = || format!("{PROGRAM} {}", arguments.join(" "));
    let output = output.map_err(|source| SetupError::Start { line: line(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let output = [output.stderr, output.stdout].concat();
    Err(SetupError::Client { line: line(), output: String::from_utf8_lossy(&output).trim().to_owned() })
}
