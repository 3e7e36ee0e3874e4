//! `setup`: registers this server with a client, with everything that the client's defaults lack, or removes the
//! registration.
//!
//! It first shows what it would change. In a file that users write, only our entry changes: comments, order,
//! indentation and line ends stay. A file that cannot be parsed is not touched. `entry.rs` separates our fields in the
//! entry from the user's. `manifest.rs` records what setup created, for `--remove`. Each client has a file of its own.

mod change;
mod claude;
mod client;
mod codex;
mod document;
mod entry;
mod file;
mod gemini;
mod host;
mod json;
mod limits;
mod manifest;
mod opencode;
pub(super) mod plugin;
pub(super) mod program;
pub(super) mod registered;
mod registration;
mod show;
mod skill;
mod syntax_error;
#[cfg(test)]
mod tests;
mod toml;
mod variables;

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::{Value, json};
use thiserror::Error;

use self::change::SettingsChange;
use self::client::ClientKind;
use self::host::HostArgs;
use self::limits::Limits;
use self::manifest::Manifest;
use self::registered::FoundRegistration;
use self::registration::{Environment, Registration, SetupScope};
use self::syntax_error::SyntaxError;
use super::places::Places;
use crate::backend::Backends;
use crate::cli::error::CliError;
use crate::cli::hint;
use crate::cli::output;
use crate::config::{ConfigError, Settings};
use crate::files::FileError;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  orchestrator-boss setup claude
  orchestrator-boss setup codex --skill --max-workers 4 --max-cost-usd 5
  orchestrator-boss setup gemini --remove
  orchestrator-boss setup claude --host big --directory /srv/project

Exit codes:
  0    success, or nothing to change
  1    setup failed, or you declined
  2    wrong usage")]
pub(super) struct SetupArgs {
    /// Client to set up
    client: ClientKind,
    /// Scope of the registration
    #[arg(long, value_name = "SCOPE", default_value = "user")]
    scope: SetupScope,
    /// Remove the registration
    #[arg(long)]
    remove: bool,
    /// Also install the skill, which teaches an agent to manage workers (with --remove: remove it)
    #[arg(long)]
    skill: bool,
    /// Let the client call all tools of this server without asking (not needed for Codex and OpenCode). Claude Code is
    /// always set up to call those that only read
    #[arg(long)]
    allow_tools: bool,
    #[command(flatten)]
    host: HostArgs,
    #[command(flatten)]
    limits: Limits,
    /// Overwrite or remove the skill even if it was changed
    #[arg(long)]
    force: bool,
    /// Do not ask for confirmation (the default without a terminal)
    #[arg(long, short)]
    yes: bool,
    /// Show the changes without applying them
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object; do not ask for confirmation
    #[arg(long)]
    json: bool,
}

/// An example of a request that leads to workers.
const FIRST_REQUEST: &str =
    "\"Use orchestrator-boss: split this task over several workers, check each with our tests, merge what passes: …\"";

/// Returns the first step of a user whose client starts this server. A client without a known title is Claude Code, the
/// only one with a plugin.
pub(super) fn first_step(title: &str) -> String {
    let client = ClientKind::value_variants().iter().find(|client| client.title() == title);
    let program = client.unwrap_or(&ClientKind::Claude).program();
    format!("start `{program}` in your repository and say: {FIRST_REQUEST}")
}

/// Returns the command that registers this server with the client of a backend.
pub(super) fn command_for(backend: &str) -> Option<String> {
    let client = ClientKind::value_variants().iter().find(|client| client.backend() == backend)?;
    Some(registered::setup(*client, SetupScope::User))
}

#[derive(Debug, Error)]
pub(crate) enum SetupError {
    #[error("cannot read {}: check that it is a file and that you may read it", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {}: check the owner and mode of it and of its folder; if another program manages it, make the change there (--dry-run shows it)", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} is invalid and was not changed: {damage}; fix it and run setup again", path.display())]
    Damaged { path: PathBuf, damage: SyntaxError },
    #[error("{} was not changed, since another process has just changed it: run setup again", path.display())]
    Changed { path: PathBuf },
    #[error("{} was not changed, since it differs from the bundled skill: {then} with --force to discard your changes", path.display())]
    ChangedSkill { path: PathBuf, then: &'static str },
    #[error("cannot start `{line}`: check its installation")]
    Start { line: String, source: io::Error },
    #[error("`{line}` failed: {output}")]
    Client { line: String, output: String },
    #[error("cannot start the server on {host}: `{line}` printed no version: {output}")]
    Host { host: String, line: String, output: String },
    #[error("cannot use {option} together with --host: the server uses the settings of that host")]
    OptionWithHost { option: &'static str },
    #[error("`{line}` succeeded, but {} has no such entry: check the file", path.display())]
    Unconfirmed { line: String, path: PathBuf },
    #[error("cannot find the home directory: set HOME")]
    NoHome,
    #[error("cannot start the server with these options: {}", hint::of(.0))]
    Settings(ConfigError),
    #[error("cannot start the server with these options: {}", hint::of(.0))]
    StateDir(FileError),
    #[error("cannot find the path of this program, of its files or of the current directory")]
    UnknownPath(#[source] io::Error),
}

pub(super) fn run(args: &SetupArgs, places: &Places) -> ExitCode {
    match set_up(args, places) {
        Ok(code) => code,
        Err(error) => {
            let mut text = error.to_string();
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                text.push_str(&format!(": {error}"));
                cause = error.source();
            }
            if args.json {
                print(&json!({"status": "failed", "error": text}).to_string());
            }
            output::end(Err(CliError::Failed(format!("setup failed: {text}"))))
        }
    }
}

fn set_up(args: &SetupArgs, places: &Places) -> Result<ExitCode, SetupError> {
    let (command, arguments) = command_line(args, places)?;
    let allow_tools = args.allow_tools || offer_to_allow(args);
    let environment = Environment {
        home: etcetera::home_dir().map_err(|_| SetupError::NoHome)?,
        project: env::current_dir().map_err(SetupError::UnknownPath)?,
        command,
        arguments,
        allow_tools,
    };
    let registration = args.client.registration(&environment, args.scope);
    let mut manifest = Manifest::load();
    let changes = changes(args, places, &environment, &registration, &manifest)?;
    let mut notes = notes(args, &registration)?;
    let other_entries = other_entries(args, &registration, &environment.project);
    notes.extend(other_entries_note(args, &other_entries));
    if !args.remove {
        notes.extend(args.host.note().or_else(|| settings_note(places)));
        notes.extend(paths_note(args, &registration, &changes[0]));
    }
    let status = if changes.iter().all(SettingsChange::is_none) {
        "already"
    } else if args.dry_run {
        "would_change"
    } else {
        "changed"
    };
    if !args.json {
        changes
            .iter()
            .filter(|change| !change.is_none())
            .for_each(|change| print(show::diff(change).trim_end_matches('\n')));
    }
    if status == "changed" {
        let ask = !args.yes && !args.json && show::is_interactive();
        if ask && !show::confirm("Make this change?") {
            print("Nothing was changed.");
            return Ok(ExitCode::FAILURE);
        }
        for change in changes.iter().filter(|change| !change.is_none()) {
            apply(args, &registration, change, &mut manifest)?;
        }
    }
    print_result(args, &registration, &changes, &notes, status, other_entries.is_empty());
    Ok(ExitCode::SUCCESS)
}

/// Returns the program that the client starts and its arguments, after a check that it can start.
fn command_line(args: &SetupArgs, places: &Places) -> Result<(String, Vec<String>), SetupError> {
    if let Some(line) = args.host.command_line() {
        match [("--config", &places.config), ("--state-dir", &places.state_dir)].iter().find(|(_, it)| it.is_some()) {
            Some((option, _)) => return Err(SetupError::OptionWithHost { option }),
            None => args.host.check()?,
        }
        return Ok(line);
    }
    if !args.remove {
        program::check(places)?;
    }
    let command = program::command(args.scope == SetupScope::Project).map_err(SetupError::UnknownPath)?;
    Ok((command, program::arguments(places).map_err(SetupError::UnknownPath)?))
}

/// Asks whether the client may call all tools, if it would otherwise ask before each call.
fn offer_to_allow(args: &SetupArgs) -> bool {
    let question = match args.client {
        ClientKind::Claude => {
            "Claude Code may call the tools that only read. Allow those that start, message, merge and cancel workers too?"
        }
        ClientKind::Gemini => "Gemini CLI asks before each call of a tool. Allow all tools of this server?",
        ClientKind::Codex | ClientKind::OpenCode => return false,
    };
    let is_asked = !args.remove && !args.yes && !args.json && !args.dry_run && show::is_interactive();
    is_asked && show::confirm(question)
}

fn changes(
    args: &SetupArgs,
    places: &Places,
    environment: &Environment,
    registration: &Registration,
    manifest: &Manifest,
) -> Result<Vec<SettingsChange>, SetupError> {
    let change = if args.remove { change::unregister } else { change::register };
    let mut changes = vec![change(registration, manifest)?];
    if let Some(rules) = &registration.rules {
        changes.push(if args.remove {
            change::disallow(rules, manifest, args.allow_tools)?
        } else {
            change::allow(rules, environment.allow_tools, manifest)?
        });
    }
    changes.extend(args.limits.change(places)?);
    if args.skill {
        let skills = args.client.skills(environment, args.scope);
        let change = if args.remove { skill::uninstall } else { skill::install };
        changes.push(change(&skills, manifest, args.force)?);
    }
    Ok(changes)
}

fn notes(args: &SetupArgs, registration: &Registration) -> Result<Vec<String>, SetupError> {
    let mut notes = Vec::new();
    let backend = Backends::with_custom(Vec::new()).get(args.client.backend());
    if let Ok(backend) = backend
        && which::which(backend.program()).is_err()
    {
        let (title, install) = (args.client.title(), backend.probe().install_command);
        notes.push(format!("{title} is not on the PATH; if it is not installed: {install}"));
    }
    if args.remove {
        return Ok(notes);
    }
    if args.allow_tools && matches!(args.client, ClientKind::Codex | ClientKind::OpenCode) {
        notes.push(format!("--allow-tools has no effect for {}, which needs no such rule", args.client.title()));
    }
    let Registration { path, format, keys, fields, .. } = registration;
    let text = file::read(path)?.unwrap_or_default();
    let kept = entry::user_choices(*format, &text, keys, fields);
    notes.extend(kept.map_err(|damage| SetupError::Damaged { path: path.clone(), damage })?);
    notes.extend(registration.notes.iter().cloned());
    Ok(notes)
}

/// Returns the other reasons why the client starts this server here, each with the command to remove it.
fn other_entries(args: &SetupArgs, registration: &Registration, project: &Path) -> Vec<String> {
    let is_other = |it: &FoundRegistration| it.client == args.client.title() && it.path != registration.path;
    let entries = registered::all(project).into_iter().filter(|it| is_other(it) && it.program.is_ok());
    let mut other_entries: Vec<String> =
        entries.map(|it| format!("the entry in {} ({} --remove)", it.path.display(), it.setup)).collect();
    if args.client == ClientKind::Claude
        && let Some(name) = plugin::enabled(project)
    {
        other_entries.push(format!("the plugin (claude plugin disable {name})"));
    }
    other_entries
}

/// Entries of a user and of a project have the same name, so only the plugin starts a second server.
fn other_entries_note(args: &SetupArgs, other_entries: &[String]) -> Option<String> {
    let title = args.client.title();
    let plugin = other_entries.last().filter(|other| other.starts_with("the plugin"));
    if args.remove {
        (!other_entries.is_empty())
            .then(|| format!("{title} still starts this server, through {}", other_entries.join(" and ")))
    } else {
        plugin.map(|it| format!("{title} also starts this server through {it}: its agent has each tool twice"))
    }
}

/// Warns about a broken settings file of the user's own, which the server reads without `--config`. It is no error,
/// since the user may fix the file before the server starts.
fn settings_note(places: &Places) -> Option<String> {
    let error = match places.config {
        Some(_) => return None,
        None => Settings::load(None).err()?,
    };
    Some(format!("the server refuses all work until this is fixed: {}", hint::of(&error)))
}

/// Warns about absolute paths in a project's file. Other users share the file, and have other folders.
fn paths_note(args: &SetupArgs, registration: &Registration, change: &SettingsChange) -> Option<String> {
    if args.scope != SetupScope::Project {
        return None;
    }
    let entry = registration.format.get(change.after.as_deref()?, &registration.keys).ok()??;
    let paths: Vec<String> = absolute_paths(&entry);
    (!paths.is_empty()).then(|| {
        format!(
            "{} is shared with all users of this project, and names paths of this machine: {}. To avoid them, put \
             orchestrator-boss on the PATH and omit --config and --state-dir",
            change.path.display(),
            paths.join(", ")
        )
    })
}

fn absolute_paths(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => text.starts_with('/').then(|| text.clone()).into_iter().collect(),
        Value::Array(items) => items.iter().flat_map(absolute_paths).collect(),
        Value::Object(fields) => fields.values().flat_map(absolute_paths).collect(),
        _ => Vec::new(),
    }
}

fn apply(
    args: &SetupArgs,
    registration: &Registration,
    change: &SettingsChange,
    manifest: &mut Manifest,
) -> Result<(), SetupError> {
    if file::read(&change.path)? != change.before {
        return Err(SetupError::Changed { path: change.path.clone() });
    }
    let by_itself = claude::program().filter(|_| is_claude_file(args, registration, &change.path));
    let mut created = change.created.clone();
    match (&change.after, by_itself) {
        (_, Some(program)) => return apply_by_claude(&program, registration, change),
        (Some(after), None) => {
            let folders = file::write(&change.path, after, args.scope == SetupScope::Project)?;
            if !folders.is_empty() {
                created.folders = folders;
            }
        }
        (None, None) => file::remove(&change.path, &change.created.folders)?,
    }
    manifest.set(&change.path, if args.remove { Default::default() } else { created });
    if let Err(error) = manifest.save() {
        tracing::warn!(%error, "cannot record what setup created: --remove will leave empty files and objects");
    }
    Ok(())
}

/// Returns whether this is the file that every session of Claude Code writes to.
fn is_claude_file(args: &SetupArgs, registration: &Registration, path: &Path) -> bool {
    args.client == ClientKind::Claude && args.scope == SetupScope::User && path == registration.path
}

fn apply_by_claude(program: &Path, registration: &Registration, change: &SettingsChange) -> Result<(), SetupError> {
    let Registration { path, format, keys, .. } = registration;
    let entry = |text: &Option<String>| match text {
        Some(text) => format.get(text, keys).map_err(|damage| SetupError::Damaged { path: path.clone(), damage }),
        None => Ok(None),
    };
    let wanted = entry(&change.after)?;
    claude::apply(program, entry(&change.before)?.as_ref(), wanted.as_ref())?;
    if entry(&file::read(path)?)? == wanted {
        Ok(())
    } else {
        Err(SetupError::Unconfirmed { line: "claude mcp".into(), path: path.clone() })
    }
}

fn print_result(
    args: &SetupArgs,
    registration: &Registration,
    changes: &[SettingsChange],
    notes: &[String],
    status: &str,
    is_only_entry: bool,
) {
    if args.json {
        let answer = json!({
            "status": status,
            "client": args.client.title(),
            "removed": args.remove,
            "files": show::as_json(changes),
            "notes": notes,
        });
        return print(&format!("{answer:#}"));
    }
    let (title, path) = (args.client.title(), registration.path.display());
    match (status, args.remove) {
        ("already", false) => print(&format!("{title} is already set up ({path}).")),
        ("already", true) => print(&format!("{title} has no entry of this server ({path}).")),
        ("would_change", _) => print("Nothing was changed (--dry-run)."),
        (_, true) if !is_only_entry => print(&format!("The entry is removed from {path}.")),
        (_, true) => print(&format!("{title} no longer starts this server.")),
        (_, false) => print(&format!("{title} starts this server from its next session on.")),
    }
    notes.iter().for_each(|note| print(&format!("Note: {note}.")));
    if !args.remove && !args.dry_run {
        print(&format!("Next: {}", first_step(title)));
    }
}

/// Prints a line. Setup continues after stdout is closed.
fn print(text: &str) {
    let _ = output::line(text);
}
