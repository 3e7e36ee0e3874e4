//! Checks the registrations of this server: the program that each client starts must exist and be this one.

use std::env;
use std::path::PathBuf;

use jiff::tz::TimeZone;

use super::CheckContext;
use super::check::{Finding, Severity};
use super::version::version;
use crate::cli::setup::plugin::enabled_in_codex;
use crate::cli::setup::registered::{self, FoundRegistration};
use crate::config::Wake;
use crate::store::reader::Reader;

const CLAUDE: &str = "Claude Code";
const CODEX: &str = "Codex";

pub fn check_all(context: &CheckContext) -> Vec<Finding> {
    let project = &context.directory;
    let all = registered::all(project);
    let is_registered = |title: &str| all.iter().any(|it| it.client == title);
    let mut checks: Vec<Finding> = all.iter().map(check).collect();
    // An entry of `setup` replaces that of the plugin.
    let in_codex = if is_registered(CODEX) { None } else { enabled_in_codex() };
    checks.extend(in_codex.map(|name| Finding::ok(CODEX, format!("starts this server through {name}"))));
    let is_missing = |title: &str| !checks.iter().any(|check| check.name == title);
    let missing: Vec<_> = registered::installed().into_iter().filter(|(title, _)| is_missing(title)).collect();
    let plugin = super::plugin::check_all(project, is_registered(CLAUDE));
    let missing = missing.into_iter().filter(|(title, _)| plugin.is_none() || *title != CLAUDE);
    if checks.is_empty() && plugin.as_ref().is_none_or(|plugin| plugin.severity == Severity::Note) {
        let check = Finding::warn("clients", "no client starts this server yet");
        checks.push(missing.fold(check, |check, (_, setup)| check.fix(setup)));
    } else {
        // Most users need only one client.
        checks.extend(missing.map(|(title, setup)| Finding::note(title, "not registered").fix(setup)));
    }
    checks.extend(plugin);
    checks.push(waking(context));
    checks
}

/// Reports how a boss that has ended its turn is woken, and the last failure to do so.
fn waking(context: &CheckContext) -> Finding {
    const NAME: &str = "waking";
    if context.settings.wake == Wake::Off {
        return Finding::note(NAME, "every wait blocks (wake is off)");
    }
    let reader = Reader::open(&context.state_root).ok().flatten();
    if let Some(failure) = reader.and_then(|reader| reader.registry().wakes.failure.clone()) {
        let at = failure.at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S");
        return Finding::warn(NAME, format!("a boss was not woken at {at}: {}", failure.reason));
    }
    let how = "in terminals: Claude Code by a task, Codex with its daemon by codex queue; otherwise waits block";
    Finding::note(NAME, how)
}

fn check(registered: &FoundRegistration) -> Finding {
    let FoundRegistration { client, path, program, setup, .. } = registered;
    let at = path.display();
    let program = match program {
        Ok(program) => program,
        Err(why) => return Finding::bad(client, format!("{at}: {why}")).fix(setup.clone()),
    };
    let Some(found) = find(program) else {
        return Finding::bad(client, format!("{at} names {program}, which does not exist")).fix(setup.clone());
    };
    if registered.is_npm {
        return Finding::ok(client, format!("starts the npm package orchestrator-boss ({at})"));
    }
    if registered.is_remote {
        return Finding::ok(client, format!("starts the server on another host, through ssh ({at})"));
    }
    let this = env::current_exe().ok().and_then(|this| this.canonicalize().ok());
    if found.canonicalize().ok() == this {
        return Finding::ok(client, format!("starts this program ({at})"));
    }
    let other =
        |what: &str| Finding::warn(client, format!("{at} starts {program}, which is {what}")).fix(setup.clone());
    // A project's file may name any program, so the program is not run.
    if registered.is_projects || found.file_name().is_none_or(|name| name != "orchestrator-boss") {
        return other("another program");
    }
    match version(&found) {
        Some(version) if version == env!("CARGO_PKG_VERSION") => other("another copy of this version"),
        Some(version) => other(&format!("version {version}; this is {}", env!("CARGO_PKG_VERSION"))),
        None => other("another program without a version"),
    }
}

/// Finds a program as a client would, by a path or a name on the PATH.
fn find(program: &str) -> Option<PathBuf> {
    which::which(program).ok()
}
