//! Tries what confined workers do: a commit in a scratch worktree, and the start of each installed CLI.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;

use super::check::Finding;
use super::machine::edit;
use crate::backend::Backends;
use crate::cli::hint;
use crate::config::{Confine, Settings};
use crate::git::Checkout;
use crate::mission::id::BackendName;
use crate::orchestrator::program_of;
use crate::process::confine::{self, Support};
use crate::supervisor::{self, CheckError, CheckResult, ConfinedCheck};

/// Time limit for each. An agent for keys may ask the user.
const LIMIT: Duration = Duration::from_secs(10);

fn is_used(settings: &Settings) -> bool {
    settings.confine != Confine::Off
        && settings.missing_confined().is_none()
        && matches!(confine::support(), Support::Yes(_))
}

/// Starts each installed CLI once, for its version.
pub fn starts(settings: &Settings) -> Vec<Finding> {
    const NAME: &str = "confined start";
    if !is_used(settings) {
        return Vec::new();
    }
    let Ok(scratch) = tempfile::Builder::new().prefix("orchestrator-boss-doctor-").tempdir() else {
        return vec![Finding::warn(NAME, "not tried: cannot create a scratch folder; TMPDIR sets another")];
    };
    let backends = Backends::with_custom(settings.custom.clone());
    let mut programs = BTreeSet::new();
    let mut checks = Vec::new();
    for name in backends.names() {
        let Ok(backend) = backends.get(name) else { continue };
        let Ok(program) = program_of(settings, &backends, &BackendName::from(name)) else { continue };
        let folder = scratch.path().join(name);
        // Another form of a CLI has the same program.
        if !programs.insert(program.clone()) || std::fs::create_dir(&folder).is_err() {
            continue;
        }
        checks.push((name.to_owned(), program, backend.probe().version_args, backend.state_folders(), folder));
    }
    let run = async |(name, program, args, state, folder): (String, PathBuf, Vec<String>, _, PathBuf)| {
        let check = ConfinedCheck {
            settings,
            program,
            args: args.into_iter().map(OsString::from).collect(),
            directory: folder.clone(),
            work: vec![folder.clone()],
            state,
            scratch: &folder,
            limit: LIMIT,
        };
        (name, check.run().await)
    };
    let Some(results) = block_on(join_all(checks.into_iter().map(run))) else {
        return vec![Finding::warn(NAME, "not tried: no thread can be started")];
    };
    let working: Vec<&str> = results
        .iter()
        .filter(|(_, result)| matches!(result, Ok(CheckResult::Works)))
        .map(|(name, _)| &**name)
        .collect();
    let all = (!working.is_empty()).then(|| Finding::ok(NAME, format!("{} start confined", working.join(", "))));
    let refused =
        results.iter().filter_map(|(name, result)| finding(settings, NAME, &format!("{name} does not start"), result));
    all.into_iter().chain(refused).collect()
}

/// Commits in a scratch worktree of a scratch repository, with the settings that a worker's git has, but no hooks.
pub fn commit(settings: &Settings, scratch: &Path, tree: &Checkout, repository: PathBuf) -> Option<Finding> {
    const NAME: &str = "confined commit";
    if !is_used(settings) {
        return None;
    }
    supervisor::start_agent(tree);
    let commit = ["-c", "core.hooksPath=/dev/null", "commit", "--quiet", "--allow-empty", "--no-verify", "-m", "try"];
    let folder = scratch.join("commit");
    std::fs::create_dir(&folder).ok()?;
    let check = ConfinedCheck {
        settings,
        program: "git".into(),
        args: commit.into_iter().map(OsString::from).collect(),
        directory: tree.to_path_buf(),
        work: vec![tree.to_path_buf(), repository],
        state: Vec::new(),
        scratch: &folder,
        limit: LIMIT,
    };
    let result = block_on(check.run())?;
    match &result {
        Ok(CheckResult::Works) => Some(Finding::ok(NAME, "a commit works under the confinement of workers")),
        result => finding(settings, NAME, "commits do not work", result),
    }
}

/// Returns a finding about something that works only without the confinement.
fn finding(
    settings: &Settings,
    name: &str,
    problem: &str,
    result: &Result<CheckResult, CheckError>,
) -> Option<Finding> {
    let why = match result {
        Ok(CheckResult::Works | CheckResult::Unknown) => return None,
        Ok(CheckResult::Refused { output, notes }) if notes.is_empty() => {
            let last = output.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it prints nothing");
            format!("{last}; the setting confine_writable can allow more folders")
        }
        Ok(CheckResult::Refused { notes, .. }) => notes.join("; "),
        Err(error) => match error {
            CheckError::Rules(error) => hint::of(error),
            CheckError::Spawn(error) => hint::of(error),
            CheckError::Scratch(_) => error.to_string(),
        },
    };
    let found = Finding::bad(name, format!("{problem} under the confinement of workers: {why}"));
    Some(settings.file.as_deref().map_or(found.clone(), |file| found.fix(edit(file))))
}

fn block_on<T>(check: impl Future<Output = T>) -> Option<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    Some(runtime.block_on(check))
}
