//! The error type of the commands, and the exit codes.

use std::fmt;
use std::io;

use super::hint;
use crate::orchestrator::{OrchestratorError, QuestionError};

/// The reason why a command ends early.
#[derive(Debug)]
pub(super) enum CliError {
    Failed(String),
    /// Wrong usage, such as an unknown worker.
    Usage(String),
    /// The reader of stdout closed the pipe.
    ClosedPipe,
    /// Ctrl-C.
    Interrupted,
}

pub(super) const FAILED: u8 = 1;
pub(super) const USAGE: u8 = 2;
pub(super) const INTERRUPTED: u8 = 130;

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CliError::Failed(text) | CliError::Usage(text) => text,
            CliError::ClosedPipe => "the reader closed the pipe",
            CliError::Interrupted => "interrupted",
        })
    }
}

impl From<OrchestratorError> for CliError {
    fn from(error: OrchestratorError) -> Self {
        let text = hint::of(&error);
        match error {
            OrchestratorError::UnknownWorker { .. }
            | OrchestratorError::NoWorkers { .. }
            | OrchestratorError::AmbiguousWorker { .. }
            | OrchestratorError::Question(QuestionError::Several { .. } | QuestionError::Invalid(_)) => {
                CliError::Usage(text)
            }
            _ => CliError::Failed(text),
        }
    }
}

impl From<io::Error> for CliError {
    /// Converts an error of writing to stdout.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => CliError::ClosedPipe,
            _ => CliError::Failed(format!("cannot write to stdout: {error}")),
        }
    }
}
