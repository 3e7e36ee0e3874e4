//! `config`: creates the user's settings file, shows the settings in force, checks a file, and prints its schema.

mod schema;
mod show;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;

use self::schema::SchemaReport;
use super::error::{self, CliError};
use super::hint;
use super::output;
use super::places::Places;
use super::sanitize;
use crate::config::{self, InvalidSettings, SCHEMA_LINE, Settings};
use crate::files;
use crate::mission::causes::with_causes;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator-boss config init
  orchestrator-boss config show
  orchestrator-boss config check
  orchestrator-boss config check other.toml --json
  orchestrator-boss config schema > config.schema.json

`init` writes a file with the settings that matter most, each commented out, and
never replaces one without --force. Beside it, it writes a JSON schema, with
which editors complete and check the file. `show` prints all settings in force,
and whether each comes from the file, a variable or the default. `check` reports
errors with line and column, and updates the schema if it is of another version.
A schema that this program did not write is left unchanged.
`orchestrator-boss help settings` explains all.

Exit codes:
  0    success
  1    the file exists already, cannot be written, or has an error
  2    wrong usage")]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Write a settings file with comments and its schema, and print its path
    Init {
        /// Replace an existing file
        #[arg(long)]
        force: bool,
    },
    /// Show the settings in force, and where each comes from
    Show {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Check a settings file
    Check {
        /// The file [default: the one in use]
        file: Option<PathBuf>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON schema of settings files
    Schema,
}

/// The content of a new settings file. Every setting is commented out, so that the defaults apply.
const TEMPLATE: &str = "\
# Settings of orchestrator-boss. Remove the # before a setting to change it.
# All settings: orchestrator-boss help settings
# After a change: orchestrator-boss config check, and restart your agent.

# Workers that run at the same time. Default: one for each GiB of memory, 2 to 16.
# max_workers = 4

# Branch from which work starts and into which it is merged.
# Default: the branch that is checked out where you start your agent.
# integration_branch = \"main\"

# Command that runs when a worker finishes, fails or needs you, and when all are done.
# Its stdin is a JSON object: event, worker_id, title, status, reason, repository, time.
# notify_command = 'notify-send -- \"$(jq -r .title)\"'
# notify = [\"finished\", \"failed\", \"needs_answer\", \"all_done\"]

# Time limit of one run of a check command.
# verify_timeout_minutes = 30

# Limits for all workers of one boss together. There are none by default.
# Codex and Gemini CLI report no cost, so set max_tokens for them.
# [boss]
# max_cost_usd = 5.0
# max_tokens = 2_000_000

# A named set of mission fields. Tell your agent: use the profile reviewer.
# [profiles.reviewer]
# backend = \"claudecode\"
# permissions = \"read_only\"
# timeout_minutes = 30
";

pub(super) fn run(args: &ConfigArgs, places: &Places) -> ExitCode {
    output::end(match &args.action {
        Action::Init { force } => init(*force, places),
        Action::Show { json } => show::show(*json, places),
        Action::Check { file, json } => check(file.as_deref(), *json, places),
        Action::Schema => schema::print(),
    })
}

fn init(force: bool, places: &Places) -> Result<ExitCode, CliError> {
    let path = path(places)?;
    let exists = path.symlink_metadata().is_ok();
    if exists && !force {
        let hint = "`orchestrator-boss config check` checks it, --force replaces it";
        return Err(CliError::Failed(format!("cannot create {}: it exists already; {hint}", path.display())));
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        let failed = |error| CliError::Failed(format!("cannot create {}: {error}", folder.display()));
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let schema = schema::write(&path);
    // If the file is not this program's schema, editors must not check the settings against it.
    let text = if schema.is_usable() { format!("{SCHEMA_LINE}\n{TEMPLATE}") } else { TEMPLATE.to_owned() };
    let written = if exists {
        files::replace_users_own(&path, text.as_bytes())
    } else {
        files::create_once(&path, text.as_bytes())
    };
    written.map_err(|error| CliError::Failed(with_causes(&error)))?;
    output::line(&sanitize::text(&path.display().to_string()))?;
    if let Some(line) = schema.line() {
        // Scripts expect only the path on stdout.
        let _ = writeln!(io::stderr(), "{}", sanitize::text(&line));
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the path of the settings file, whether it exists or not.
fn path(places: &Places) -> Result<PathBuf, CliError> {
    let missing = || CliError::Failed("cannot find your home directory: set HOME, or name a file with --config".into());
    places.config.clone().or_else(config::default_path).ok_or_else(missing)
}

/// The result of a check.
#[derive(Debug, Serialize)]
struct CheckDocument {
    file: PathBuf,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The schema that the file names. `None` if it names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    schema: Option<SchemaReport>,
}

fn check(file: Option<&Path>, json: bool, places: &Places) -> Result<ExitCode, CliError> {
    let is_named = file.is_some() || places.config.is_some();
    let path = file.map_or_else(|| path(places), |file| Ok(file.to_owned()))?;
    let exists = path.symlink_metadata().is_ok();
    let found = if exists || is_named { error_in(&path) } else { None };
    let document = CheckDocument {
        ok: found.is_none(),
        line: found.as_ref().and_then(|it| it.place.map(|place| place.line)),
        column: found.as_ref().and_then(|it| it.place.map(|place| place.column)),
        error: found.map(|it| it.text),
        schema: schema::refresh(&path),
        file: path,
    };
    if json {
        output::json(&document)?;
    } else {
        output::line(&sanitize::text(&document.line(exists)))?;
        if let Some(line) = document.schema.as_ref().and_then(SchemaReport::line) {
            output::line(&sanitize::text(&line))?;
        }
    }
    Ok(if document.ok { ExitCode::SUCCESS } else { ExitCode::from(error::FAILED) })
}

/// An error of a settings file, with its place if that is known.
struct FileProblem {
    text: String,
    place: Option<config::Position>,
}

/// Returns the first error of a settings file, or of the variables that override it.
fn error_in(path: &Path) -> Option<FileProblem> {
    let problem = |text: String| FileProblem { text, place: None };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return Some(problem(format!("cannot read it: {error}"))),
    };
    match Settings::parse(&text) {
        Ok(_) => Settings::load(Some(path)).err().map(|error| problem(hint::of(&error))),
        Err(error) => Some(FileProblem { place: error.position(&text), text: without_place(&error) }),
    }
}

/// Returns the message without its line, which stands before it.
fn without_place(error: &InvalidSettings) -> String {
    let text = hint::of(error);
    match text.strip_prefix("line ").and_then(|rest| rest.split_once(": ")) {
        Some((_, rest)) => rest.to_owned(),
        None => text,
    }
}

impl CheckDocument {
    fn line(&self, exists: bool) -> String {
        let file = self.file.display();
        match (&self.error, self.line, self.column) {
            (Some(error), Some(line), Some(column)) => format!("{file}:{line}:{column}: {error}"),
            (Some(error), _, _) => format!("{file}: {error}"),
            (None, _, _) if exists => format!("{file}: no errors"),
            (None, _, _) => format!("{file} does not exist: the defaults apply"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Removes the `# ` before each setting and section.
    fn uncommented() -> String {
        let is_setting =
            |line: &str| line.starts_with('[') || line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
        let lines = TEMPLATE.lines().map(|line| match line.strip_prefix("# ").filter(|rest| is_setting(rest)) {
            Some(setting) => setting,
            None => line,
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn new_file_changes_nothing_and_its_settings_exist() {
        assert_eq!(Settings::parse(&format!("{SCHEMA_LINE}\n{TEMPLATE}")).unwrap(), Settings::default());
        let settings = Settings::parse(&uncommented()).unwrap();
        assert_eq!((settings.max_workers, settings.boss.max_tokens), (Some(4), Some(2_000_000)));
        assert_eq!(settings.profiles["reviewer"].timeout_minutes, Some(30));
        assert_eq!(settings.verify_timeout_minutes, Settings::default().verify_timeout_minutes);
    }
}
