//! From what a CLI reports to a [`Failure`]. Status codes first, then exit codes; the fixed strings of one CLI are in its
//! own file. Nothing here ever reads what an agent wrote.

use super::lines::{clip, object, tail};
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
        // Taken again by the services' own clients, like a failure of theirs.
        409 | 425 => FailureKind::Server,
        413 => FailureKind::ContextFull,
        429 => FailureKind::RateLimit,
        400..=499 => FailureKind::BadRequest,
        500..=599 => FailureKind::Server,
        _ => FailureKind::Other,
    }
}

/// What a service says in the JSON of its answer, which may stand in the middle of other words.
pub fn kind_of_answer(message: &str) -> Option<FailureKind> {
    let (start, end) = (message.find('{')?, message.rfind('}')?);
    let answer = object(message.get(start..=end)?)?;
    let error = &answer["error"];
    let words = ["code", "type", "status"].into_iter().filter_map(|field| error[field].as_str());
    words.filter_map(kind_of_code).next().or_else(|| error["code"].as_u64().map(kind_of_status))
}

/// The codes of OpenAI's, Anthropic's and Google's services.
fn kind_of_code(code: &str) -> Option<FailureKind> {
    Some(match code {
        "model_not_found" | "not_found_error" | "NOT_FOUND" => FailureKind::ModelNotFound,
        "context_length_exceeded" | "request_too_large" => FailureKind::ContextFull,
        "insufficient_quota" | "billing_error" => FailureKind::Auth,
        "invalid_api_key" | "authentication_error" | "permission_error" => FailureKind::Auth,
        "UNAUTHENTICATED" | "PERMISSION_DENIED" => FailureKind::Auth,
        "rate_limit_exceeded" | "rate_limit_error" | "RESOURCE_EXHAUSTED" => FailureKind::RateLimit,
        "overloaded_error" | "api_error" | "server_error" | "UNAVAILABLE" | "INTERNAL" => FailureKind::Server,
        "invalid_request" | "invalid_request_error" | "INVALID_ARGUMENT" => FailureKind::BadRequest,
        _ => return None,
    })
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
