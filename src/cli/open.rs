//! `open`: opens a worker's worktree in the user's editor.
//!
//! A worker can write the repository's configuration, so only the environment and the user's own git configuration name
//! the editor. It starts as git starts it: directly, or with `sh` if the command has a character of the shell.

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
as `code`, `zed` or `vim`. As for git, it may have options, quotes, `~` and
variables. It gets the path of the worktree, and the command ends when the
editor ends.

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

/// Characters that make git start an editor with `sh`.
const SHELL_CHARACTERS: &str = "|&;<>()$`\\\"' \t\n*?[#~=%";
/// Exit code of a shell that does not find the program.
const NO_SUCH_PROGRAM: i32 = 127;

/// The way in which an editor is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EditorStart {
    Directly,
    WithShell,
}

/// The user's editor, ready to start in the worktree of a worker.
pub(super) struct Editor {
    worker: WorkerId,
    /// The command, as the user wrote it.
    name: String,
    start: EditorStart,
    pub command: Command,
}

impl Editor {
    /// Finds the worker and the editor. Starts nothing.
    pub fn of(places: &Places, worker: &str) -> Result<Self, CliError> {
        let workspace = Workspace::find(places)?;
        let worker = worktree::find(&workspace, worker, "open")?;
        let Some(name) = editor(&workspace.directory).map(|name| name.trim().to_owned()) else {
            let hint = "set VISUAL or EDITOR, such as `export VISUAL=vim`, or `git config --global core.editor vim`";
            return Err(CliError::Failed(format!("cannot open {}: no editor is set; {hint}", worker.id)));
        };
        let path = worker.mission.place.path();
        let start = EditorStart::of(&name);
        let mut command = start.command(&name);
        command.arg(path).current_dir(path);
        Ok(Self { worker: worker.id.clone(), name, start, command })
    }

    /// Returns whether the editor is known to open a window of its own.
    pub fn is_graphical(&self) -> bool {
        let program = match self.start {
            EditorStart::Directly => self.name.clone(),
            EditorStart::WithShell => program(&self.name),
        };
        let name = Path::new(&program).file_name().and_then(OsStr::to_str);
        name.is_some_and(|name| GRAPHICAL.contains(&name))
    }

    /// Returns the error for an editor that did not start or failed.
    pub fn result(&self, ended: io::Result<ExitStatus>) -> Result<(), CliError> {
        let Self { worker, name, start, .. } = self;
        match ended {
            Ok(status) if status.success() => Ok(()),
            Ok(status) if *start == EditorStart::WithShell && status.code() == Some(NO_SUCH_PROGRAM) => {
                Err(CliError::Failed(not_started(name, &io::ErrorKind::NotFound.into())))
            }
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

impl EditorStart {
    /// Unlike git, starts the path of a program directly even if it has such a character.
    fn of(editor: &str) -> Self {
        let is_plain = !editor.contains(|c| SHELL_CHARACTERS.contains(c));
        if is_plain || Path::new(editor).is_file() { Self::Directly } else { Self::WithShell }
    }

    /// Returns the command, to which the path is to be added.
    fn command(self, editor: &str) -> Command {
        match self {
            Self::Directly => Command::new(editor),
            Self::WithShell => {
                let mut command = Command::new("/bin/sh");
                command.arg("-c").arg(format!("{editor} \"$@\"")).arg(editor);
                command
            }
        }
    }
}

/// Returns the program that a command of a shell starts: its first word after the variables that it sets.
fn program(command: &str) -> String {
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let sets_variable = |word: &String| word.split_once('=').is_some_and(|(name, _)| is_name(name));
    words(command).into_iter().find(|word| !sets_variable(word)).unwrap_or_default()
}

/// Splits at blanks outside quotes, and removes quotes and backslashes as a shell does. Expands nothing.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None, None);
    let mut rest = command.chars();
    while let Some(c) = rest.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_with(String::new);
            }
            (None | Some('"'), '\\') => word.get_or_insert_with(String::new).extend(rest.next()),
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_with(String::new).push(c),
        }
    }
    words.extend(word);
    words
}

fn not_started(editor: &str, error: &io::Error) -> String {
    let why = match error.kind() {
        io::ErrorKind::NotFound => "there is no such program".to_owned(),
        _ => error.to_string(),
    };
    format!("cannot start the editor {editor}: {why}; set VISUAL or EDITOR to another one")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_of_an_editor_is_known_by_its_program() {
        for (name, expected) in [
            ("code", true),
            ("/opt/bin/code", true),
            ("code --wait", true),
            ("'/path with blank/code' --wait", true),
            ("\"$HOME/my bin/code\"", true),
            ("/with\\ blank/code -n", true),
            ("FOO=1 B='x y' code", true),
            ("~/bin/code", true),
            ("vim", false),
            ("vim code", false),
            ("FOO=code vim", false),
            ("'code --wait'", false),
            ("", false),
        ] {
            let start = EditorStart::of(name);
            let (worker, command) = (WorkerId::new(1, "a"), start.command(name));
            let editor = Editor { worker, name: name.to_owned(), start, command };
            assert_eq!(editor.is_graphical(), expected, "{name}");
        }
    }

    #[test]
    fn shell_starts_an_editor_only_if_git_would_use_one() {
        for (name, start) in [
            ("vim", EditorStart::Directly),
            ("/usr/bin/vim", EditorStart::Directly),
            ("vim -f", EditorStart::WithShell),
            ("~/vim", EditorStart::WithShell),
            ("$HOME/vim", EditorStart::WithShell),
            ("'vim'", EditorStart::WithShell),
        ] {
            assert_eq!(EditorStart::of(name), start, "{name}");
        }
    }
}
