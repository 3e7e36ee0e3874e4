//! Converts a CLI's report of a failure to a [`Failure`]: by status code first, then by exit code. The fixed strings of
//! one CLI are in its own file. Nothing here reads what an agent wrote.

use super::lines::{clip, object, tail};
use crate::mission::outcome::{Exit, Failure, FailureKind};

const MESSAGE_LIMIT: usize = 2 * 1024;
/// Bytes of stderr that are kept in a failure's message.
const STDERR_LIMIT: usize = 1024;

pub fn failure(kind: FailureKind, message: impl AsRef<str>) -> Failure {
    Failure { kind, message: clip(message.as_ref().trim(), MESSAGE_LIMIT), resets_at: None }
}

/// Classifies an HTTP status of a model service. 404 means an unknown model, since the CLIs use correct addresses.
pub fn kind_of_status(status: u64) -> FailureKind {
    match status {
        401..=403 => FailureKind::Auth,
        404 => FailureKind::ModelNotFound,
        408 => FailureKind::Network,
        // The services' own clients retry these, as they retry server errors.
        409 | 425 => FailureKind::Server,
        413 => FailureKind::ContextFull,
        429 => FailureKind::RateLimit,
        400..=499 => FailureKind::BadRequest,
        500..=599 => FailureKind::Server,
        _ => FailureKind::Other,
    }
}

/// Classifies a failure by the JSON in a service's response, which may be surrounded by other text.
pub fn kind_of_response(message: &str) -> Option<FailureKind> {
    let (start, end) = (message.find('{')?, message.rfind('}')?);
    let answer = object(message.get(start..=end)?)?;
    let error = &answer["error"];
    let words = ["code", "type", "status"].into_iter().filter_map(|field| error[field].as_str());
    words.filter_map(kind_of_code).next().or_else(|| error["code"].as_u64().map(kind_of_status))
}

/// Maps the error codes of OpenAI's, Anthropic's and Google's services.
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

/// Returns the failure of a process that ended without a result.
pub fn without_result(program: &str, exit: Exit, stderr_tail: &str) -> Failure {
    failure(FailureKind::NoResult, ended(program, exit, "before it gave a result", stderr_tail))
}

/// Describes how a process ended, with the end of its stderr.
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
