//! From what a CLI reports to a [`Failure`]. Status codes first, then exit codes; the fixed strings of one CLI are in its
//! own file. Nothing here ever reads what an agent wrote.

use super::lines::{clip, tail};
use crate::mission::outcome::{Exit, Failure, FailureKind};

const MESSAGE_LIMIT: usize = 2 * 1024;
/// How much of stderr goes into a failure's words.
const STDERR_LIMIT: usize = 1024;

pub fn failure(kind: FailureKind, message: impl AsRef<str>) -> Failure {
    Failure { kind, message: clip(message.as_ref().trim(), MESSAGE_LIMIT), resets_at: None }
}

/// What an HTTP status of a model service means. 404 is a model that is not there: the CLIs know their own addresses.
pub fn kind_of_status(status: u64) -> FailureKind {
    match status {
        401..=403 => FailureKind::Auth,
        404 => FailureKind::ModelNotFound,
        408 => FailureKind::Network,
        429 => FailureKind::RateLimit,
        400..=499 => FailureKind::BadRequest,
        500..=599 => FailureKind::Server,
        _ => FailureKind::Other,
    }
}

/// The process is gone and never said that it was done.
pub fn without_result(program: &str, exit: Exit, stderr_tail: &str) -> Failure {
    failure(FailureKind::NoResult, ended(program, exit, "before it gave a result", stderr_tail))
}

/// How a process ended, in words, with the end of its stderr.
pub fn ended(program: &str, exit: Exit, when: &str, stderr_tail: &str) -> String {
    let how = match exit {
        Exit::Code(code) => format!("{program} exited with status {code} {when}"),
        Exit::Signal(signal) => format!("{program} was ended by signal {signal} {when}"),
    };
    let how = how.trim_end();
    match tail(stderr_tail.trim(), STDERR_LIMIT) {
        words if words.is_empty() => how.to_owned(),
        words => format!("{how}; the end of its stderr: {words}"),
    }
}
