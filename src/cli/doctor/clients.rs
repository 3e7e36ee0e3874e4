//! In which clients this server is registered, and whether what they start is there and is this program.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::check::{self, Check, Mark};
use crate::cli::setup::registered::{self, Registered};

/// Time limit for the registered program to print its version; this program starts fast.
const PATIENCE: Duration = Duration::from_secs(5);
const CLAUDE: &str = "Claude Code";

pub fn look(project: &Path) -> Vec<Check> {
    let all = registered::all(project);
    let mut checks: Vec<Check> = all.iter().map(of).collect();
    let missing = registered::installed().into_iter().filter(|(title, _)| !all.iter().any(|it| it.client == *title));
    let plugin = super::plugin::look(project, all.iter().any(|it| it.client == CLAUDE));
    let missing = missing.filter(|(title, _)| plugin.is_none() || *title != CLAUDE);
    match all.is_empty() && plugin.as_ref().is_none_or(|plugin| plugin.mark == Mark::Note) {
        true => {
            let check = Check::warn("clients", "no agent starts this server yet");
            checks.push(missing.fold(check, |check, (_, setup)| check.fix(setup)));
        }
        // Most users need only one client.
        false => checks.extend(missing.map(|(title, setup)| Check::note(title, "not registered").fix(setup))),
    }
    checks.extend(plugin);
    checks
}

fn of(registered: &Registered) -> Check {
    let Registered { client, path, program, setup, .. } = registered;
    let at = path.display();
    let program = match program {
        Ok(program) => program,
        Err(why) => return Check::bad(client, format!("{at}: {why}")).fix(setup.clone()),
    };
    let Some(found) = find(program) else {
        return Check::bad(client, format!("{at} names {program}, which is not there")).fix(setup.clone());
    };
    let this = env::current_exe().ok().and_then(|this| this.canonicalize().ok());
    if found.canonicalize().ok() == this {
        return Check::ok(client, format!("starts this program ({at})"));
    }
    let other = |what: &str| Check::warn(client, format!("{at} starts {program}, which is {what}")).fix(setup.clone());
    // What a project's file names may be anything: it is not run to find out.
    if registered.is_projects || found.file_name().is_none_or(|name| name != "orchestrator-boss") {
        return other("another program than this one");
    }
    match version(found) {
        Some(version) if version == env!("CARGO_PKG_VERSION") => other("another copy of this version"),
        Some(version) => other(&format!("version {version}; this is {}", env!("CARGO_PKG_VERSION"))),
        None => other("another program than this one, and does not say its version"),
    }
}

/// As a client would: a path, or a name on the PATH.
fn find(program: &str) -> Option<PathBuf> {
    which::which(program).ok()
}

fn version(program: PathBuf) -> Option<String> {
    let ask = move || Command::new(program).arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output();
    let output = check::begin(ask).end(PATIENCE)?.ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().nth(1).map(str::to_owned)
}
