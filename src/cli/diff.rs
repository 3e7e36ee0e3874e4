//! `diff`: shows the changes of a worker, committed or not, as the tool `get_worker_status` does. Only reads.
//!
//! A worker can write the repository's configuration, so git runs no pager or diff program that it names. The pager is
//! started here instead, by git's own rules but without the repository's configuration.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use super::error::CliError;
use super::hint;
use super::output;
use super::places::Places;
use super::sanitize::Sanitizer;
use super::terminal;
use super::text;
use super::workspace::Workspace;
use super::worktree;
use crate::git::{self, Checkout, DiffError, DiffStyle, Repository, Trust};
use crate::mission::registry::Worker;
use crate::orchestrator;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator-boss diff w-3
  orchestrator-boss diff w-3 --stat
  orchestrator-boss diff w-3 > w-3.patch

Shows all changes since the commit on which the worker started: commits,
uncommitted changes and untracked files. If the worktree is gone, the commits
of its branch are shown, also after that was deleted, as long as git has them.
On a terminal, your pager shows the diff.
It is GIT_PAGER, core.pager of your own git configuration, PAGER, or less, and
starts without a shell.

Exit codes:
  0    success; also if there are no changes
  1    the diff failed
  2    wrong usage, or unknown worker")]
pub(super) struct DiffArgs {
    /// Worker, such as w-3
    worker: String,
    /// Show only the number of changed lines per file
    #[arg(long)]
    stat: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct DiffDocument<'a> {
    worker_id: &'a str,
    base_commit: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    branch: Option<&'a str>,
    diff: &'a str,
}

pub(super) fn run(args: &DiffArgs, places: &Places) -> ExitCode {
    output::run(async { diff(args, places) })
}

fn diff(args: &DiffArgs, places: &Places) -> Result<ExitCode, CliError> {
    let workspace = Workspace::find(places)?;
    let observer = workspace.observer()?;
    let worker = observer.find(&args.worker)?.worker;
    let attempt = observer.folder(&worker.id).attempt(worker.attempt);
    let base = orchestrator::base_commit(&worker, &attempt)?;
    let Some(base) = base else {
        return Err(CliError::Failed(format!(
            "cannot show the changes of {}: it never started, or works outside a repository",
            worker.id
        )));
    };
    let repository = worktree::repository(&worker, &workspace, &observer)?;
    let source = DiffSource::of(&worker, repository, &Trust::recorded(observer.state_root(), None))?;
    let shown = terminal::is_terminal() && !args.json;
    let style = DiffStyle { colour: shown && terminal::wants_colours(), stat: args.stat.then(terminal::width) };
    if args.json {
        let text = SharedBuffer::default();
        source.write(&base, style, text.clone())?;
        let text = text.text();
        let branch = worker.branch();
        output::json(&DiffDocument { worker_id: worker.id.as_str(), base_commit: &base, branch, diff: &text })?;
        return Ok(ExitCode::SUCCESS);
    }
    let pager = if shown { pager(&workspace.directory) } else { None };
    match pager {
        Some(mut pager) => {
            // The pager handles Ctrl-C. This process must survive it, since the pager reads from it.
            let _ignored = signal(SignalKind::interrupt());
            if let Some(input) = pager.stdin.take() {
                source.write(&base, style, input)?;
            }
            let _ = pager.wait();
        }
        // Without a pager the text of workers goes to the terminal directly.
        None if shown => source.write(&base, style, Sanitizer::new(io::stdout(), true))?,
        None => source.write(&base, style, io::stdout())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The end of the changes, which begin at the worker's base.
enum DiffSource {
    /// The files in the worker's directory.
    Directory(Checkout),
    /// A commit of its branch, since the directory is no working tree any more.
    Commit { repository: Repository, tip: String },
}

impl DiffSource {
    /// Chooses the source, and prints a note if changes may be missing. `trust` is for a worker without a repository.
    fn of(worker: &Worker, repository: Option<Repository>, trust: &Trust) -> Result<Self, CliError> {
        let path = worker.mission.place.path();
        let (branch, repository) = match (orchestrator::branch_to_compare(worker), repository) {
            (Some(branch), Some(repository)) => (branch, repository),
            (_, repository) => {
                let checkout = repository.map_or_else(|| Checkout::new(path, trust), |it| it.at(path));
                return Ok(Self::Directory(checkout));
            }
        };
        let tip = git::branch_tip(&repository, branch, worker.last_commit()).map_err(failed)?;
        if path.exists() {
            output::note(&format!(
                "{} has no usable .git file any more: this shows the commits of branch {branch}, and nothing that was \
                 not committed",
                path.display()
            ));
        }
        if tip.is_deleted {
            let last = text::short_commit(&tip.commit);
            output::note(&format!(
                "branch {branch} was deleted: this shows its changes up to its last known commit, {last}"
            ));
        }
        Ok(Self::Commit { repository, tip: tip.commit })
    }

    fn write(&self, base: &str, style: DiffStyle, out: impl Write + Send + 'static) -> Result<(), CliError> {
        let written = match self {
            Self::Directory(directory) => git::show_diff(directory, base, style, out),
            Self::Commit { repository, tip } => git::show_commit_diff(repository, tip, base, style, out),
        };
        written.map_err(failed)
    }
}

fn failed(error: DiffError) -> CliError {
    CliError::Failed(hint::of(&error))
}

#[derive(Clone, Default)]
struct SharedBuffer(Arc<Mutex<Vec<u8>>>);

impl SharedBuffer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for SharedBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts the user's pager with a pipe as its input. `None`: the user wants none, or it cannot be started.
fn pager(directory: &Path) -> Option<Child> {
    let named = |name: &str| std::env::var(name).ok();
    let command =
        named("GIT_PAGER").or_else(|| worktree::own_git_setting(directory, "core.pager")).or_else(|| named("PAGER"));
    let command = command.unwrap_or_else(|| "less".to_owned());
    if matches!(command.trim(), "" | "cat") {
        return None;
    }
    // Split at spaces, without a shell.
    let mut words = command.split_whitespace();
    let mut pager = Command::new(words.next()?);
    pager.args(words).stdin(Stdio::piped());
    // The defaults that git sets for a pager.
    for (name, value) in [("LESS", "FRX"), ("LV", "-c")] {
        if std::env::var_os(name).is_none() {
            pager.env(name, value);
        }
    }
    pager.spawn().ok()
}
