//! Classifies the failures that an agent reports. The protocol has one code of its own, for a missing login. Everything
//! else is in the codes and texts of the agents.

use serde_json::Value;

use crate::backend::failure::{failure, kind_of_response, kind_of_status};
use crate::backend::lines::text;
use crate::mission::outcome::{Failure, FailureKind};

/// The protocol's own code: the agent is not logged in.
pub const LOGIN_REQUIRED: i64 = -32000;
/// The code of Mistral Vibe for a refused key.
const REFUSED_KEY: i64 = -31002;

/// Returns the failure that an error of JSON-RPC describes.
pub fn of_error(error: &Value) -> Failure {
    let message = match (text(error, "/message"), details(error)) {
        ("", "") => "the agent reported an error without a text".to_owned(),
        (message, details) if details.is_empty() || message.contains(details) => {
            message.strip_prefix("Internal error: ").unwrap_or(message).to_owned()
        }
        ("" | "Internal error", details) => details.to_owned(),
        (message, details) => format!("{message}: {details}"),
    };
    failure(kind_of_error(error, &message), message)
}

fn details(error: &Value) -> &str {
    let places = ["/data/message", "/data/details", "/data/detail", "/data"];
    places.into_iter().map(|place| text(error, place)).find(|details| !details.is_empty()).unwrap_or_default()
}

fn kind_of_error(error: &Value, message: &str) -> FailureKind {
    match (error["code"].as_i64(), text(error, "/data/errorKind"), text(error, "/data/codexErrorInfo")) {
        (Some(LOGIN_REQUIRED | REFUSED_KEY), _, _) | (_, "billing_error", _) => FailureKind::Auth,
        (_, "model_not_found", _) => FailureKind::ModelNotFound,
        (_, _, "usageLimitExceeded") => FailureKind::UsageLimit,
        (Some(status @ 400..=599), _, _) => match kind_of_text(message) {
            // Services report these with a status that does not say so.
            kind @ (FailureKind::ModelNotFound | FailureKind::Auth) => kind,
            _ => kind_of_status(status.unsigned_abs()),
        },
        _ => kind_of_text(message),
    }
}

/// Words for a refused login. The last two are Google's refusal of private accounts (from its announcement).
const REFUSED: [&str; 6] =
    ["unauthorized", "authenticat", "api key", "not logged in", "client is no longer supported", "unsupported_client"];

/// Classifies the text of an error. The statuses of services are searched as whole words.
pub fn kind_of_text(message: &str) -> FailureKind {
    if let Some(kind) = kind_of_response(message) {
        return kind;
    }
    let lower = message.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let status =
        |statuses: &[&str]| lower.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| statuses.contains(&word));
    if has(&["usage limit", "quota"]) {
        FailureKind::UsageLimit
    } else if status(&["429"]) || has(&["rate limit", "too many requests"]) {
        FailureKind::RateLimit
    } else if lower.contains("model") && has(&["not found", "does not exist", "unknown model"]) {
        FailureKind::ModelNotFound
    } else if status(&["401", "403"]) || has(&REFUSED) {
        FailureKind::Auth
    } else if lower.contains("context") && has(&["length", "window", "too long"]) {
        FailureKind::ContextFull
    } else if status(&["500", "502", "503", "504"]) || lower.contains("overloaded") {
        FailureKind::Server
    } else {
        FailureKind::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn errors_of_agents_are_classified() {
        let cases = [
            (json!({"code": -32000, "message": "Authentication required"}), FailureKind::Auth),
            (json!({"code": -31002, "message": "Invalid API key"}), FailureKind::Auth),
            (json!({"code": -32603, "message": "Internal error", "data": {"details": "401 mock"}}), FailureKind::Auth),
            (json!({"code": -32603, "message": "x", "data": {"errorKind": "billing_error"}}), FailureKind::Auth),
            (json!({"code": -32603, "data": {"errorKind": "model_not_found"}}), FailureKind::ModelNotFound),
            (
                json!({"code": -32603, "message": "x", "data": {"codexErrorInfo": "usageLimitExceeded"}}),
                FailureKind::UsageLimit,
            ),
            (json!({"code": 500, "message": "models/x is not found"}), FailureKind::ModelNotFound),
            (json!({"code": 429, "message": "slow down"}), FailureKind::RateLimit),
            (json!({"code": 500, "message": "This client is no longer supported"}), FailureKind::Auth),
            (json!({"code": -32603, "message": "exceeded, last status: 429 Too Many"}), FailureKind::RateLimit),
            (json!({"code": -32603, "message": "ran 4290 lines"}), FailureKind::Other),
            (json!({}), FailureKind::Other),
        ];
        for (error, kind) in cases {
            assert_eq!(of_error(&error).kind, kind, "{error}");
        }
    }

    #[test]
    fn details_complete_the_message() {
        let error = json!({"code": -32603, "message": "Internal error", "data": {"details": "401 refused"}});
        assert_eq!(of_error(&error).message, "401 refused");
        assert_eq!(of_error(&json!({"message": "a", "data": "b"})).message, "a: b");
        assert_eq!(of_error(&json!({"message": "Internal error: no credit"})).message, "no credit");
    }
}
