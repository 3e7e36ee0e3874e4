//! Classifies failures by the fields in which Claude Code reports them: `terminal_reason` and `subtype` of a result,
//! `error` and `api_error_status` of an API failure. Names not seen in a run come from the binary's own lists.

use serde_json::Value;

use crate::backend::failure::{failure, kind_of_status};
use crate::backend::lines::{items, text};
use crate::mission::outcome::{Failure, FailureKind};

/// Beginning of a result whose prompt never reached the model.
const PROMPT_BLOCKED: &str = "UserPromptSubmit operation blocked by hook";

/// Classifies an API failure as the line of an assistant or of a retry reports it.
pub fn api_kind(error: &str, status: Option<u64>) -> FailureKind {
    match (error, status) {
        ("authentication_failed" | "oauth_org_not_allowed" | "account_on_hold" | "verification_required", _) => {
            FailureKind::Auth
        }
        ("billing_error" | "cloud_credential_error", _) => FailureKind::Auth,
        ("rate_limit", _) => FailureKind::RateLimit,
        ("model_not_found", _) => FailureKind::ModelNotFound,
        ("overloaded", _) => FailureKind::Server,
        ("invalid_request", None) => FailureKind::BadRequest,
        (_, Some(status)) => kind_of_status(status),
        // There was no response with a status: refused, reset or cut connections are reported like this.
        ("server_error" | "unknown", None) => FailureKind::Network,
        (_, None) => FailureKind::Other,
    }
}

/// Classifies the result of a failed turn. `api_error` is the API failure in the assistant lines of the turn.
pub fn of_result(result: &Value, api_error: Option<&Failure>) -> Failure {
    let reason = text(result, "/terminal_reason");
    let kind = match (reason, text(result, "/subtype")) {
        ("budget_exhausted", _) | (_, "error_max_budget_usd") => FailureKind::Budget,
        ("max_turns", _) | (_, "error_max_turns") => FailureKind::TurnLimit,
        ("prompt_too_long" | "rapid_refill_breaker" | "blocking_limit", _) => FailureKind::ContextFull,
        // A signal, an interrupt or an urgent message ended the turn.
        ("aborted_tools" | "aborted_streaming", _) => FailureKind::NoResult,
        ("hook_stopped", _) => return failure(FailureKind::Permission, "a hook of the user's settings stopped it"),
        ("", _) if text(result, "/result").starts_with(PROMPT_BLOCKED) => {
            return failure(FailureKind::Permission, text(result, "/result"));
        }
        _ => return of_api(result, api_error),
    };
    failure(kind, message_of(result))
}

fn of_api(result: &Value, api_error: Option<&Failure>) -> Failure {
    if let Some(failure) = api_error {
        return failure.clone();
    }
    let message = message_of(result);
    let kind = match result["api_error_status"].as_u64() {
        Some(status) => kind_of_status(status),
        None if message.starts_with("No conversation found") => FailureKind::BadRequest,
        None => FailureKind::Other,
    };
    failure(kind, message)
}

/// Returns the CLI's message: its list of errors, or the result's text, which for an API failure is not the agent's.
fn message_of(result: &Value) -> String {
    let errors: Vec<&str> = items(result, "/errors").filter_map(Value::as_str).collect();
    let reason = text(result, "/terminal_reason");
    match (errors.join("; "), text(result, "/result")) {
        (errors, _) if !errors.is_empty() && !errors.starts_with("[ede_diagnostic]") => errors,
        (_, message) if !message.is_empty() && result["is_error"] == true => message.to_owned(),
        _ if reason.is_empty() => format!("the turn ended as {}", text(result, "/subtype")),
        _ => format!("the turn ended as {reason}"),
    }
}
