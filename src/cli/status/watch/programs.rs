//! The programs that the live screen starts: the user's editor, and the CLI of a worker's session. The screen leaves
//! the terminal to a program that needs it, and returns when the program ends. An editor with a window of its own runs
//! beside the screen.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::cli::attach::Session;
use crate::cli::error::CliError;
use crate::cli::open::Editor;
use crate::process::{self, Identity, Signal};

/// A program that is ready to start.
pub(in crate::cli::status) enum Program {
    Editor(Editor),
    Session(Session),
}

/// A program that has the terminal.
pub(super) struct ForegroundProgram(Arc<Mutex<Option<Identity>>>);

impl Program {
    pub fn needs_terminal(&self) -> bool {
        match self {
            Program::Editor(editor) => !editor.is_graphical(),
            Program::Session(_) => true,
        }
    }

    /// Starts the program in the foreground of the terminal, which nothing else may use until `returned` gets the
    /// result.
    pub fn take_terminal(
        mut self,
        returned: impl FnOnce(Result<String, CliError>) + Send + 'static,
    ) -> ForegroundProgram {
        let identity = Arc::default();
        let foreground = ForegroundProgram(Arc::clone(&identity));
        thread::spawn(move || {
            let started = |program| *identity.lock().unwrap_or_else(PoisonError::into_inner) = Some(program);
            let ended = process::run_in_foreground(self.command(), started);
            returned(self.result(ended));
        });
        foreground
    }

    /// Starts the program beside the screen. `failed` gets an error that occurs after the start.
    pub fn start_beside(mut self, failed: impl FnOnce(CliError) + Send + 'static) -> Result<String, CliError> {
        let command = self.command();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        match command.spawn() {
            Ok(mut child) => {
                thread::spawn(move || {
                    if let Err(error) = self.result(child.wait()) {
                        failed(error);
                    }
                });
                Ok("the editor opens in a window of its own".to_owned())
            }
            Err(error) => self.result(Err(error)),
        }
    }

    fn command(&mut self) -> &mut Command {
        match self {
            Program::Editor(editor) => &mut editor.command,
            Program::Session(session) => &mut session.command,
        }
    }

    fn result(&self, ended: io::Result<ExitStatus>) -> Result<String, CliError> {
        match self {
            Program::Editor(editor) => editor.result(ended).map(|()| String::new()),
            Program::Session(session) => session.result(ended),
        }
    }
}

impl ForegroundProgram {
    /// Asks the program to end, since this process must end.
    pub fn end(&self) {
        self.send(&[Signal::Terminate, Signal::Continue]);
    }

    pub fn interrupt(&self) {
        self.send(&[Signal::Interrupt]);
    }

    /// Sends the signals, if the program has started.
    fn send(&self, signals: &[Signal]) {
        if let Some(program) = *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            for signal in signals {
                process::signal_foreground(&program, *signal);
            }
        }
    }
}
