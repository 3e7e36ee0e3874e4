//! Execution of `verify_command` in the worker's directory, and evaluation of its exit. A command that could not run is
//! distinguished from one that failed.

use std::time::Duration;

use super::shell::{self, ShellCommand, ShellEnd, is_out_of_space};
use crate::git::CommandError;
use crate::mission::hint::with_hints;
use crate::mission::outcome::{Exit, Verification};

/// Exit statuses of a shell that cannot find, or cannot run, the command.
const NOT_RUN: [i32; 2] = [126, 127];

/// Runs the command. A success verifies `commit`. `None` if it was stopped because `cancelled` completed.
pub(super) async fn verify(
    command: &ShellCommand<'_>,
    commit: Option<String>,
    cancelled: impl Future<Output = ()>,
) -> Option<Verification> {
    let limit = Duration::from_secs(60) * command.settings.verify_timeout_minutes;
    let shell::ShellRun { end, seconds, log_tail } = shell::run(command, limit, cancelled).await;
    Some(match end {
        ShellEnd::Cancelled => return None,
        ShellEnd::NotStarted(error) => Verification::CouldNotRun { why: with_hints(&error) },
        ShellEnd::TimedOut => Verification::TimedOut { seconds, log_tail },
        ShellEnd::Exited(Exit::Code(0)) => Verification::Passed { commit, seconds },
        ShellEnd::Exited(Exit::Code(code)) if NOT_RUN.contains(&code) => Verification::CouldNotRun { why: log_tail },
        ShellEnd::Exited(Exit::Signal(signal)) => {
            Verification::CouldNotRun { why: format!("it was ended by signal {signal}\n{log_tail}") }
        }
        ShellEnd::Exited(_) if is_out_of_space(command.directory, &log_tail) => {
            Verification::CouldNotRun { why: format!("no space was left on the disk\n{log_tail}") }
        }
        ShellEnd::Exited(exit) => Verification::Failed { commit, exit, log_tail, seconds },
    })
}

/// Returns a pass unless the tree was changed meanwhile, according to its state before and after, or cannot be read.
pub(super) fn passed_if_unchanged(
    passed: Verification,
    before: Result<String, CommandError>,
    after: Result<String, CommandError>,
) -> Verification {
    let why = match (before, after) {
        (Ok(before), Ok(after)) if before == after => return passed,
        (Ok(_), Ok(_)) => "it passed, but commits or tracked files were changed while it ran".to_owned(),
        (Err(error), _) | (_, Err(error)) => {
            format!("it passed, but whether it changed tracked files is unknown: {}", with_hints(&error))
        }
    };
    Verification::Inconclusive { why }
}
