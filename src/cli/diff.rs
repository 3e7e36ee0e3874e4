//! `diff`: what a worker changed, committed or not, as the tool `get_worker_status` shows it. Only reads.
//!
//! Git makes the diff, called as carefully as ever: a worker can write the repository's configuration, and no pager or
//! diff program that stands there is run. So the pager is started here, by git's own rules but for that.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use super::harmless::Harmless;
use super::here::Here;
use super::out::{self, End};
use super::places::Places;
use super::{terminal, visit};
use crate::cli::hint;
use crate::git::{self, DiffError, DiffStyle, Git, Repository};
use crate::mission::registry::Worker;
use crate::orchestrator::{self, keep_git_to_what_is_remembered};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator-boss diff w-3
  orchestrator-boss diff w-3 --stat
  orchestrator-boss diff w-3 > w-3.patch

Shows all that differs from the commit on which the worker began: commits,
uncommitted changes and untracked files. On a terminal it is shown by your
pager, run without a shell: GIT_PAGER, core.pager of your own git
configuration, PAGER, or less.

Exit codes:
  0    it was shown, or there is no difference
  1    it could not be made
  2    wrong usage, or no such worker")]
pub(super) struct DiffArgs {
    /// A worker, such as w-3
    worker: String,
    /// Only how much changed in each file
    #[arg(long)]
    stat: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Shown<'a> {
    worker_id: &'a str,
    base_commit: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    branch: Option<&'a str>,
    diff: &'a str,
}

pub(super) fn run(args: &DiffArgs, places: &Places) -> ExitCode {
    out::run(async { diff(args, places) })
}

fn diff(args: &DiffArgs, places: &Places) -> Result<ExitCode, End> {
    let here = Here::find(places).map_err(End::Failed)?;
    let observer = visit::observer(&here)?;
    let worker = observer.find(&args.worker).map_err(visit::refused)?.worker;
    let attempt = observer.folder(&worker.id).attempt(worker.attempt);
    let base = orchestrator::base_commit(&worker, &attempt).map_err(visit::refused)?;
    let Some(base) = base else {
        return Err(End::Failed(format!(
            "{} has nothing to compare: it did not begin, or not in a repository",
            worker.id
        )));
    };
    let root = worker.repository.as_deref().or(here.repository.as_deref());
    let repository = root.map(Repository::discover);
    let repository = repository.transpose().map_err(|error| End::Failed(hint::of(&error)))?.flatten();
    // The observer keeps git to the records of other repositories.
    if let Some(repository) = repository.as_ref().filter(|_| worker.repository.is_none()) {
        keep_git_to_what_is_remembered(observer.state_root(), repository).map_err(visit::refused)?;
    }
    let shown = terminal::is_terminal() && !args.json;
    let look = DiffStyle { colour: shown && terminal::wants_colours(), stat: args.stat.then(terminal::width) };
    if args.json {
        let text = Gathered::default();
        write(&worker, repository.as_ref(), &base, look, text.clone())?;
        let text = text.text();
        let branch = worker.branch();
        out::json(&Shown { worker_id: worker.id.as_str(), base_commit: &base, branch, diff: &text })?;
        return Ok(ExitCode::SUCCESS);
    }
    let pager = if shown { pager(&here.directory) } else { None };
    match pager {
        Some(mut pager) => {
            // Ctrl-C is the pager's: it must not lose us, who it reads from, nor the shell come back below it.
            let _heard = signal(SignalKind::interrupt());
            if let Some(input) = pager.stdin.take() {
                write(&worker, repository.as_ref(), &base, look, input)?;
            }
            let _ = pager.wait();
        }
        // Nothing stands between what workers wrote and the terminal.
        None if shown => write(&worker, repository.as_ref(), &base, look, Harmless::new(io::stdout(), true))?,
        None => write(&worker, repository.as_ref(), &base, look, io::stdout())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Of a worktree that is gone, what is on its branch.
fn write(
    worker: &Worker,
    repository: Option<&Repository>,
    base: &str,
    look: DiffStyle,
    out: impl Write + Send + 'static,
) -> Result<(), End> {
    let directory = worker.mission.place.path();
    let written = match (worker.branch().filter(|_| !directory.exists()), repository) {
        (Some(branch), Some(repository)) => git::show_branch_diff(repository, branch, base, look, out),
        _ => git::show_diff(directory, base, look, out),
    };
    written.map_err(|error: DiffError| End::Failed(hint::of(&error)))
}

#[derive(Clone, Default)]
struct Gathered(Arc<Mutex<Vec<u8>>>);

impl Gathered {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for Gathered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The user's pager, reading from a pipe. `None`: none is wanted, or it cannot be started.
fn pager(directory: &Path) -> Option<Child> {
    let named = |name: &str| std::env::var(name).ok();
    let command = named("GIT_PAGER").or_else(|| own_pager(directory)).or_else(|| named("PAGER"));
    let command = command.unwrap_or_else(|| "less".to_owned());
    if matches!(command.trim(), "" | "cat") {
        return None;
    }
    // Taken apart at spaces: nothing but a mission's `verify_command` is ever run through a shell.
    let mut words = command.split_whitespace();
    let mut pager = Command::new(words.next()?);
    pager.args(words).stdin(Stdio::piped());
    // As git sets it where the user has not.
    for (name, value) in [("LESS", "FRX"), ("LV", "-c")] {
        if std::env::var_os(name).is_none() {
            pager.env(name, value);
        }
    }
    pager.spawn().ok()
}

/// From the user's own configuration alone: the repository's may be a worker's.
fn own_pager(directory: &Path) -> Option<String> {
    let ask = |scope| Git::read(directory).args(["config", scope, "--get", "core.pager"]).text().ok();
    ask("--global").or_else(|| ask("--system"))
}
