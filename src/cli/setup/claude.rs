//! Claude Code (2.1.330): `.claude.json` in `$CLAUDE_CONFIG_DIR` or the home, or `.mcp.json` in the project.
//!
//! The first is where Claude Code keeps what it knows, and every session writes to it: it is changed by its own command,
//! which takes its lock. Where that is not installed, nobody else writes, and setup does it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::SetupError;
use super::document::Format;
use super::entry::{NAME, Wanted};
use super::json::Dialect;
use super::registration::{Environment, Registration, Rule, Scope};

const PROGRAM: &str = "claude";
/// Strict, in both files.
const FORMAT: Format = Format::Json(Dialect { comments: false, trailing_commas: false });

pub fn registration(environment: &Environment, scope: Scope) -> Registration {
    let path = match scope {
        Scope::User => environment.folder_in("CLAUDE_CONFIG_DIR", "").join(".claude.json"),
        Scope::Project => environment.project.join(".mcp.json"),
    };
    let mut fields = vec![(vec!["type"], Wanted::Unless("stdio".into()))];
    fields.extend(environment.command_and_args());
    if environment.arguments.is_empty() {
        fields.push((vec!["args"], Wanted::Unless(json!([]))));
    }
    fields.push((vec!["env"], Wanted::Unless(json!({}))));
    let notes = match scope {
        Scope::User => Vec::new(),
        Scope::Project => vec!["Claude Code asks each user once before it starts a server of a project".into()],
    };
    Registration {
        path,
        format: FORMAT,
        keys: vec!["mcpServers", NAME],
        fields,
        rule: Some(rule(environment, scope)),
        notes,
    }
}

fn rule(environment: &Environment, scope: Scope) -> Rule {
    let folder = match scope {
        Scope::User => environment.folder_in("CLAUDE_CONFIG_DIR", ".claude"),
        Scope::Project => environment.project.join(".claude"),
    };
    Rule {
        path: folder.join("settings.json"),
        format: FORMAT,
        keys: vec!["permissions", "allow"],
        text: "mcp__orchestrator-boss",
    }
}

/// Where its own command is.
pub fn program() -> Option<PathBuf> {
    which::which(PROGRAM).ok()
}

/// Makes the entry in the user's settings what it is in `after`, with Claude Code's own commands. An entry that differs has
/// to go first: its command changes none.
pub fn apply(program: &Path, before: Option<&Value>, after: Option<&Value>) -> Result<(), SetupError> {
    if before.is_some() {
        run(program, &["mcp", "remove", NAME, "-s", "user"])?;
    }
    let add = |entry: &Value| run(program, &["mcp", "add-json", NAME, &entry.to_string(), "-s", "user"]);
    let Some(entry) = after else { return Ok(()) };
    let added = add(entry);
    if let (Err(_), Some(before)) = (&added, before) {
        // Better the old one than none; the first error is the one to tell.
        let _ = add(before);
    }
    added
}

fn run(program: &Path, arguments: &[&str]) -> Result<(), SetupError> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let line = || format!("{PROGRAM} {}", arguments.join(" "));
    let output = output.map_err(|source| SetupError::Start { line: line(), source })?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let told = [output.stderr, output.stdout].concat();
            Err(SetupError::Client { line: line(), told: String::from_utf8_lossy(&told).trim().to_owned() })
        }
    }
}
