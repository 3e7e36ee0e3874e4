//! `setup`: registers this server with a client, with everything that the client's defaults lack, or removes it again.
//!
//! It first shows what it would change. In a file that users write, only our entry changes: comments, order,
//! indentation and line ends stay. A file that cannot be parsed is not touched. `entry.rs` separates our fields in the
//! entry from the user's. `receipt.rs` records what setup made, for `--remove`. Each client has a file of its own.

mod change;
mod claude;
mod client;
mod codex;
mod document;
mod entry;
mod file;
mod gemini;
mod json;
mod opencode;
pub(super) mod plugin;
pub(super) mod program;
mod receipt;
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

use serde_json::{Value, json};
use thiserror::Error;

use self::change::Change;
use self::client::Client;
use self::receipt::Receipt;
use self::registered::Registered;
use self::registration::{Environment, Registration, Scope};
use self::syntax_error::SyntaxError;
use super::out::{self, End};
use super::places::Places;
use crate::backend::Backends;
use crate::cli::hint;
use crate::config::Settings;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  orchestrator-boss setup claude
  orchestrator-boss setup codex --skill
  orchestrator-boss setup gemini --remove

Exit codes:
  0    it is set up (or removed), or nothing was to be changed
  1    it was not; it says why
  2    wrong usage")]
pub(super) struct SetupArgs {
    /// The client to set up
    client: Client,
    /// Where it applies
    #[arg(long, value_name = "SCOPE", default_value = "user")]
    scope: Scope,
    /// Take out what setup has put in
    #[arg(long)]
    remove: bool,
    /// Install the skill too, which teaches an agent how to lead (with --remove: remove it)
    #[arg(long)]
    skill: bool,
    /// Let the client call this server's tools without asking (Codex and OpenCode need no such rule)
    #[arg(long)]
    allow_tools: bool,
    /// Overwrite or remove a skill even if somebody has changed it
    #[arg(long)]
    force: bool,
    /// Do not ask; nobody is asked where there is no terminal either
    #[arg(long, short)]
    yes: bool,
    /// Show what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object, and do not ask
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Error)]
pub(crate) enum SetupError {
    #[error("could not read {}: check that it is a file and that you may read it", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("could not write {}: check the owner and mode of it and of its folder; if another program manages it, make the change there (--dry-run shows it)", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} is not valid, and was not touched: {damage}; mend it there and run setup again", path.display())]
    Damaged { path: PathBuf, damage: SyntaxError },
    #[error("{} was changed by somebody else meanwhile, and was not touched: run setup again", path.display())]
    Changed { path: PathBuf },
    #[error("{} is not the skill as this program has it, and was not touched: {then} with --force if nothing in it is yours", path.display())]
    ChangedSkill { path: PathBuf, then: &'static str },
    #[error("could not start `{line}`: check its installation")]
    Start { line: String, source: io::Error },
    #[error("`{line}` failed: {told}")]
    Client { line: String, told: String },
    #[error("`{line}` said that it worked, but {} does not have the entry that it should: look there", path.display())]
    NotDone { line: String, path: PathBuf },
    #[error("there is no home directory: set HOME")]
    NoHome,
    #[error("the server could not start with this: {why}")]
    Unusable { why: String },
    #[error("could not say where this program, its options' files or the current directory are")]
    Nowhere(#[source] io::Error),
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
                say(&json!({"status": "failed", "error": text}).to_string());
            }
            out::end(Err(End::Failed(format!("setup failed: {text}"))))
        }
    }
}

fn set_up(args: &SetupArgs, places: &Places) -> Result<ExitCode, SetupError> {
    if !args.remove {
        program::check(places).map_err(|why| SetupError::Unusable { why })?;
    }
    let environment = Environment {
        home: etcetera::home_dir().map_err(|_| SetupError::NoHome)?,
        project: env::current_dir().map_err(SetupError::Nowhere)?,
        command: program::command(args.scope == Scope::Project).map_err(SetupError::Nowhere)?,
        arguments: program::arguments(places).map_err(SetupError::Nowhere)?,
        allow_tools: args.allow_tools,
    };
    let registration = args.client.registration(&environment, args.scope);
    let mut receipt = Receipt::load();
    let changes = changes(args, &environment, &registration, &receipt)?;
    let mut notes = notes(args, &registration)?;
    let others = others(args, &registration, &environment.project);
    notes.extend(others_note(args, &others));
    if !args.remove {
        notes.extend(settings_note(places));
        notes.extend(paths_note(args, &registration, &changes[0]));
    }
    let status = match () {
        () if changes.iter().all(Change::is_none) => "already",
        () if args.dry_run => "would_change",
        () => "changed",
    };
    if !args.json {
        changes
            .iter()
            .filter(|change| !change.is_none())
            .for_each(|change| say(show::diff(change).trim_end_matches('\n')));
    }
    if status == "changed" {
        let ask = !args.yes && !args.json && show::is_interactive();
        if ask && !show::confirm("Make this change?") {
            say("Nothing was changed.");
            return Ok(ExitCode::FAILURE);
        }
        for change in changes.iter().filter(|change| !change.is_none()) {
            apply(args, &registration, change, &mut receipt)?;
        }
    }
    tell(args, &registration, &changes, &notes, status, others.is_empty());
    Ok(ExitCode::SUCCESS)
}

fn changes(
    args: &SetupArgs,
    environment: &Environment,
    registration: &Registration,
    receipt: &Receipt,
) -> Result<Vec<Change>, SetupError> {
    let mut changes = vec![match args.remove {
        true => change::unregister(registration, receipt)?,
        false => change::register(registration, receipt)?,
    }];
    if let Some(rule) = &registration.rule {
        if args.remove {
            changes.push(change::disallow(rule, receipt, args.allow_tools)?);
        } else if args.allow_tools {
            changes.push(change::allow(rule, receipt)?);
        }
    }
    if args.skill {
        let skills = args.client.skills(environment, args.scope);
        changes.push(match args.remove {
            true => skill::uninstall(&skills, receipt, args.force)?,
            false => skill::install(&skills, receipt, args.force)?,
        });
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
    if args.allow_tools && matches!(args.client, Client::Codex | Client::OpenCode) {
        notes.push(format!("--allow-tools changes nothing for {}, which needs no such rule", args.client.title()));
    }
    let Registration { path, format, keys, fields, .. } = registration;
    let text = file::read(path)?.unwrap_or_default();
    let kept = entry::kept(*format, &text, keys, fields);
    notes.extend(kept.map_err(|damage| SetupError::Damaged { path: path.clone(), damage })?);
    notes.extend(registration.notes.iter().cloned());
    Ok(notes)
}

/// Returns what else makes the client start this server here, with the command that takes it away.
fn others(args: &SetupArgs, registration: &Registration, project: &Path) -> Vec<String> {
    let is_other = |it: &Registered| it.client == args.client.title() && it.path != registration.path;
    let entries = registered::all(project).into_iter().filter(|it| is_other(it) && it.program.is_ok());
    let mut others: Vec<String> =
        entries.map(|it| format!("the entry in {} ({} --remove)", it.path.display(), it.setup)).collect();
    if args.client == Client::Claude
        && let Some(name) = plugin::enabled(project)
    {
        others.push(format!("the plugin (claude plugin disable {name})"));
    }
    others
}

/// Entries of a user and of a project have the same name, so only the plugin starts a second server.
fn others_note(args: &SetupArgs, others: &[String]) -> Option<String> {
    let title = args.client.title();
    let plugin = others.last().filter(|other| other.starts_with("the plugin"));
    match args.remove {
        true => (!others.is_empty()).then(|| format!("{title} still starts this server, by {}", others.join(" and "))),
        false => plugin.map(|it| format!("{title} also starts this server by {it}: its agent has each tool twice")),
    }
}

/// Warns about a broken settings file of the user's own, which the server reads without `--config`. It is no error,
/// since the user may fix the file before the server starts.
fn settings_note(places: &Places) -> Option<String> {
    let error = match places.config {
        Some(_) => return None,
        None => Settings::load(None).err()?,
    };
    Some(format!("the server refuses all work until this is put right: {}", hint::of(&error)))
}

/// Warns about absolute paths in a project's file. Other users share the file, and have other folders.
fn paths_note(args: &SetupArgs, registration: &Registration, change: &Change) -> Option<String> {
    if args.scope != Scope::Project {
        return None;
    }
    let entry = registration.format.get(change.after.as_deref()?, &registration.keys).ok()??;
    let paths: Vec<String> = absolute_paths(&entry);
    (!paths.is_empty()).then(|| {
        format!(
            "{} is shared with all who work on this project, and names paths of this machine: {}. They work only where \
             the same is at the same place; with orchestrator-boss on the PATH, and without --config and --state-dir, \
             setup writes none",
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
    change: &Change,
    receipt: &mut Receipt,
) -> Result<(), SetupError> {
    if file::read(&change.path)? != change.before {
        return Err(SetupError::Changed { path: change.path.clone() });
    }
    let by_itself = claude::program().filter(|_| is_claudes_own(args, registration, &change.path));
    let mut made = change.made.clone();
    match (&change.after, by_itself) {
        (_, Some(program)) => return by_claude(&program, registration, change),
        (Some(after), None) => {
            let folders = file::write(&change.path, after, args.scope == Scope::Project)?;
            if !folders.is_empty() {
                made.folders = folders;
            }
        }
        (None, None) => file::remove(&change.path, &change.made.folders)?,
    }
    receipt.set(&change.path, if args.remove { Default::default() } else { made });
    if let Err(error) = receipt.save() {
        tracing::warn!(%error, "setup could not note what it made: --remove will leave empty files and objects");
    }
    Ok(())
}

/// The file that every session of Claude Code writes to.
fn is_claudes_own(args: &SetupArgs, registration: &Registration, path: &Path) -> bool {
    args.client == Client::Claude && args.scope == Scope::User && path == registration.path
}

fn by_claude(program: &Path, registration: &Registration, change: &Change) -> Result<(), SetupError> {
    let Registration { path, format, keys, .. } = registration;
    let entry = |text: &Option<String>| match text {
        Some(text) => format.get(text, keys).map_err(|damage| SetupError::Damaged { path: path.clone(), damage }),
        None => Ok(None),
    };
    let wanted = entry(&change.after)?;
    claude::apply(program, entry(&change.before)?.as_ref(), wanted.as_ref())?;
    match entry(&file::read(path)?)? == wanted {
        true => Ok(()),
        false => Err(SetupError::NotDone { line: "claude mcp".into(), path: path.clone() }),
    }
}

fn tell(
    args: &SetupArgs,
    registration: &Registration,
    changes: &[Change],
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
        return say(&format!("{answer:#}"));
    }
    let (title, path) = (args.client.title(), registration.path.display());
    match (status, args.remove) {
        ("already", false) => say(&format!("{title} is already set up ({path}).")),
        ("already", true) => say(&format!("{title} has no entry of this server ({path}).")),
        ("would_change", _) => say("Nothing was changed (--dry-run)."),
        (_, true) if !is_only_entry => say(&format!("The entry is removed from {path}.")),
        (_, true) => say(&format!("{title} does not start this server any more.")),
        (_, false) => say(&format!("{title} starts this server from its next session on.")),
    }
    notes.iter().for_each(|note| say(&format!("Note: {note}.")));
}

/// Nobody may read it; what was begun is done all the same.
fn say(text: &str) {
    let _ = out::line(text);
}
