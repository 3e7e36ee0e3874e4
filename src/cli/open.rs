//! `open`: opens a worker's worktree in the user's editor.
//!
//! A worker can write the repository's configuration, so only the environment and the user's own git configuration name
//! the editor. It starts without a shell.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::error::CliError;
use super::output;
use super::places::Places;
use super::workspace::Workspace;
use super::worktree;
use crate::mission::id::WorkerId;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator-boss open w-3

The editor is VISUAL, EDITOR, or core.editor of your own git configuration, such
as `code`, `zed` or `vim`. It gets the path of the worktree, and the command
ends when the editor ends.

Exit codes:
  0    the editor ended without an error
  1    no editor, the editor failed, or the worktree was removed
  2    wrong usage, or unknown worker")]
pub(super) struct OpenArgs {
    /// Worker, such as w-3
    worker: String,
}

/// Editors that open a window of their own, by the names of their programs. All others may use the terminal.
const GRAPHICAL: [&str; 39] = [
    "atom",
    "bbedit",
    "clion",
    "code",
    "code-insiders",
    "code-oss",
    "codium",
    "cursor",
    "fleet",
    "geany",
    "gedit",
    "gnome-text-editor",
    "goland",
    "gvim",
    "idea",
    "kate",
    "kwrite",
    "lapce",
    "leafpad",
    "mate",
    "mousepad",
    "mvim",
    "notepadqq",
    "nova",
    "open",
    "phpstorm",
    "pluma",
    "pycharm",
    "rider",
    "rubymine",
    "rustrover",
    "subl",
    "vscodium",
    "webstorm",
    "windsurf",
    "xdg-open",
    "xed",
    "zed",
    "zeditor",
];

/// The user's editor, ready to start in the worktree of a worker.
pub(super) struct Editor {
    worker: WorkerId,
    /// The command, as the user wrote it.
    name: String,
    pub command: Command,
}

impl Editor {
    /// Finds the worker and the editor. Starts nothing.
    pub fn of(places: &Places, worker: &str) -> Result<Self, CliError> {
        let workspace = Workspace::find(places)?;
        let worker = worktree::find(&workspace, worker, "open")?;
        let Some(name) = editor(&workspace.directory) else {
            let hint = "set VISUAL or EDITOR, such as `export VISUAL=vim`, or `git config --global core.editor vim`";
            return Err(CliError::Failed(format!("cannot open {}: no editor is set; {hint}", worker.id)));
        };
        let path = worker.mission.place.path();
        let mut command = command(&name);
        command.arg(path).current_dir(path);
        Ok(Self { worker: worker.id.clone(), name, command })
    }

    /// Returns whether the editor is known to open a window of its own.
    pub fn is_graphical(&self) -> bool {
        let program = Path::new(self.command.get_program()).file_name();
        program.and_then(OsStr::to_str).is_some_and(|program| GRAPHICAL.contains(&program))
    }

    /// Returns the error for an editor that did not start or failed.
    pub fn result(&self, ended: io::Result<ExitStatus>) -> Result<(), CliError> {
        let Self { worker, name, .. } = self;
        match ended {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(CliError::Failed(format!("cannot open {worker}: the editor {name} ended with {status}"))),
            Err(error) => Err(CliError::Failed(not_started(name, &error))),
        }
    }
}

pub(super) fn run(args: &OpenArgs, places: &Places) -> ExitCode {
    output::run(async { open(args, places) })
}

fn open(args: &OpenArgs, places: &Places) -> Result<ExitCode, CliError> {
    let mut editor = Editor::of(places, &args.worker)?;
    // The editor handles Ctrl-C.
    let _ignored = signal(SignalKind::interrupt());
    let ended = editor.command.status();
    editor.result(ended).map(|()| ExitCode::SUCCESS)
}

/// Returns the command of the user's editor.
fn editor(directory: &Path) -> Option<String> {
    let named = |name: &str| env::var(name).ok();
    let set = |command: &String| !command.trim().is_empty();
    named("VISUAL")
        .filter(set)
        .or_else(|| named("EDITOR").filter(set))
        .or_else(|| worktree::own_git_setting(directory, "core.editor").filter(set))
}

/// Splits at spaces, without a shell, unless all of it is the path of a program.
fn command(editor: &str) -> Command {
    let mut words = editor.split_whitespace();
    match words.next().filter(|_| !Path::new(editor).is_file()) {
        Some(program) => {
            let mut command = Command::new(program);
            command.args(words);
            command
        }
        None => Command::new(editor),
    }
}

fn not_started(editor: &str, error: &io::Error) -> String {
    let why = match error.kind() {
        io::ErrorKind::NotFound => "there is no such program".to_owned(),
        _ => error.to_string(),
    };
    format!("cannot start the editor {editor}: {why}; set VISUAL or EDITOR to another one")
}
