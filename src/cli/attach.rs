//! `attach`: continues the session of a settled worker in the terminal, with the worker's own CLI. The process of the
//! command becomes that CLI; the live screen starts it as a child.

use std::convert::Infallible;
use std::env;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus};

use clap::Args;

use super::error::CliError;
use super::hint;
use super::output;
use super::places::Places;
use super::recorded_settings;
use super::workspace::Workspace;
use super::worktree;
use crate::backend::{self, Backends};
use crate::mission::delivery;
use crate::mission::id::{BackendName, WorkerId};
use crate::mission::registry::Worker;
use crate::orchestrator;
use crate::process;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator-boss attach w-3

Starts the CLI of a finished worker in its worktree and session, as with
`codex resume ID` or `claude --resume ID`. You can talk to it, and what it does
is in the session when the worker continues.

Exit codes:
  0    the CLI ended without an error; otherwise its own exit code
  1    the worker runs, has no session or no worktree, or its CLI has no way
  2    wrong usage, or unknown worker")]
pub(super) struct AttachArgs {
    /// Finished worker, such as w-3
    worker: String,
}

/// A worker's CLI, ready to continue its session in the terminal.
pub(super) struct Session {
    worker: WorkerId,
    program: PathBuf,
    directory: PathBuf,
    pub command: Command,
}

impl Session {
    /// Finds the session of a settled worker. Starts nothing.
    pub fn of(places: &Places, name: &str) -> Result<Self, CliError> {
        let workspace = Workspace::find(places)?;
        let worker = worktree::find(&workspace, name, "open")?;
        let id = &worker.id;
        let refused = |why: String| CliError::Failed(format!("cannot attach to {id}: {why}"));
        if !delivery::is_final(&worker) {
            let wait =
                format!("`orchestrator-boss wait {id}`, or `orchestrator-boss logs {id} --follow` shows its work");
            return Err(refused(format!("it is {}; {wait}", worker.status)));
        }
        let (backend, session) = session(&worker)
            .ok_or_else(|| refused(format!("it has no session; `orchestrator-boss open {id}` opens its worktree")))?;
        let settings = match places.config {
            Some(_) => workspace.settings.clone(),
            None => recorded_settings::of(&workspace, &[name.to_owned()]),
        };
        let backends = Backends::with_custom(settings.custom.clone());
        let directory = worktree::start_directory(&worker);
        let adapter = backends.get(backend.as_str()).map_err(|error| CliError::Failed(hint::of(&error)))?;
        let Some(plan) = adapter.attach(session, &directory) else {
            let hint = format!("set attach_args of this backend, or use `orchestrator-boss message {id} TEXT`");
            return Err(refused(format!("{backend} cannot open a session in the terminal; {hint}")));
        };
        let program = orchestrator::program_of(&settings, &backends, backend)?;
        let mut command = Command::new(&program);
        // The variables would make the CLI join the session of the boss in whose shell this command runs.
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(backend::is_boss_variable)) {
            command.env_remove(name);
        }
        command.args(plan.args).envs(plan.env_set).current_dir(&directory);
        Ok(Self { worker: id.clone(), program, directory, command })
    }

    /// Describes the end of the CLI for users. A non-zero exit status of the CLI is not an error of this program.
    pub fn result(&self, ended: io::Result<ExitStatus>) -> Result<String, CliError> {
        match ended {
            Ok(status) if status.success() => Ok(format!("left the session of {}", self.worker)),
            Ok(status) => Ok(format!("left the session of {}: its CLI ended with {status}", self.worker)),
            Err(error) => Err(self.not_started(error)),
        }
    }

    fn not_started(&self, error: io::Error) -> CliError {
        CliError::Failed(hint::of(&process::explain(error, &self.program, &self.directory)))
    }
}

pub(super) fn run(args: &AttachArgs, places: &Places) -> ExitCode {
    // Without a runtime: its threads would not survive the exec.
    output::end(attach(args, places).map(|never| match never {}))
}

fn attach(args: &AttachArgs, places: &Places) -> Result<Infallible, CliError> {
    let mut session = Session::of(places, &args.worker)?;
    let error = session.command.exec();
    Err(session.not_started(error))
}

/// Returns the newest session, with its backend.
pub(super) fn session(worker: &Worker) -> Option<(&BackendName, &str)> {
    let last = worker.last()?;
    let session = last.session_id.as_deref()?;
    // The id comes from the output of the CLI, and must not be taken for an option.
    (!session.is_empty() && !session.starts_with('-')).then_some((&last.backend, session))
}
