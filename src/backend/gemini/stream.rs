//! Decodes the lines of Gemini CLI's stream-json. The end is a `result` with status `success`: after SIGTERM the CLI
//! exits with 0 and no result. No field has the final message; it is the text after the last tool's result. The CLI
//! prints nothing while it retries.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::backend::failure::{failure, kind_of_status, without_result};
use crate::backend::lines::{
    FINAL_LIMIT, JsonLines, OUTPUT_LIMIT, count, denied, gist, object, said, tail, text, warning,
};
use crate::backend::{AgentEvent, Decoder, TurnReport};
use crate::mission::outcome::{Exit, Failure, FailureKind, Usage};

/// Maximum number of tool calls without a result that are tracked.
const FOLLOWED: usize = 10_000;
/// The refusal of a private Google account, and its code (from Google's announcement and from reports, never recorded).
const PRIVATE_ACCOUNT: [&str; 2] = ["client is no longer supported", "UNSUPPORTED_CLIENT"];
/// The tools that the milder approval modes and our read-only policy take away.
const WITHHELD: [&str; 3] = ["run_shell_command", "write_file", "replace"];

#[derive(Default)]
pub struct GeminiStream {
    lines: JsonLines,
    session_id: Option<String>,
    /// The agent's text since the last tool's result.
    text: String,
    /// Bytes of `text` that were reported as an event.
    reported: usize,
    calls: BTreeMap<String, GeminiToolCall>,
    usage: Usage,
    denials: u32,
    end: Option<Result<(), ReportedError>>,
}

struct GeminiToolCall {
    tool: String,
    what: String,
    path: String,
}

/// The error in a result. Its kind also depends on the exit status.
struct ReportedError {
    kind: String,
    message: String,
}

impl GeminiStream {
    fn read(&mut self, event: &Value) -> Vec<AgentEvent> {
        match text(event, "/type") {
            "init" => self.session(event),
            "message" if text(event, "/role") == "assistant" => {
                self.append_text(text(event, "/content"));
                Vec::new()
            }
            "tool_use" => self.tool_started(event),
            "tool_result" => self.tool_ended(event),
            // Found in its code, never seen: an error that does not end the run.
            "error" => vec![warning(text(event, "/message"))],
            "result" => self.result(event),
            _ => Vec::new(),
        }
    }

    fn session(&mut self, event: &Value) -> Vec<AgentEvent> {
        let id = text(event, "/session_id").to_owned();
        if id.is_empty() {
            return Vec::new();
        }
        self.session_id = Some(id.clone());
        vec![AgentEvent::Session { id, model: event["model"].as_str().map(str::to_owned) }]
    }

    /// Appends a piece of a few letters. The pieces become one event before the next other event.
    fn append_text(&mut self, piece: &str) {
        self.text.push_str(piece);
        if self.text.len() > 2 * FINAL_LIMIT {
            self.text = tail(&self.text, FINAL_LIMIT);
            self.reported = 0;
        }
    }

    fn flush_text(&mut self) -> Option<AgentEvent> {
        let new = &self.text[self.reported..];
        self.reported = self.text.len();
        said(new)
    }

    fn tool_started(&mut self, event: &Value) -> Vec<AgentEvent> {
        let (id, tool) = (text(event, "/tool_id").to_owned(), text(event, "/tool_name").to_owned());
        let what = gist(&event["parameters"]);
        if self.calls.len() < FOLLOWED {
            let path = text(event, "/parameters/file_path").to_owned();
            self.calls.insert(id.clone(), GeminiToolCall { tool: tool.clone(), what: what.clone(), path });
        }
        self.flush_text().into_iter().chain([AgentEvent::ToolStarted { id, tool, what }]).collect()
    }

    fn tool_ended(&mut self, event: &Value) -> Vec<AgentEvent> {
        let mut events: Vec<AgentEvent> = self.flush_text().into_iter().collect();
        self.text.clear();
        self.reported = 0;
        let id = text(event, "/tool_id");
        let call = self.calls.remove(id);
        let failed = text(event, "/status") == "error";
        // A command that exits with 3 is reported as "success" too.
        let is_command = call.as_ref().is_some_and(|call| call.tool == "run_shell_command");
        let ok = if is_command && !failed { None } else { Some(!failed) };
        let output = tail(text(event, "/output"), OUTPUT_LIMIT);
        events.push(AgentEvent::ToolEnded { id: id.to_owned(), ok, exit_code: None, output });
        if let Some(call) = call {
            events.extend(self.consequence(&call, failed, event));
        }
        events
    }

    fn consequence(&mut self, call: &GeminiToolCall, failed: bool, event: &Value) -> Option<AgentEvent> {
        let edits = matches!(call.tool.as_str(), "write_file" | "replace") && !call.path.is_empty();
        if !failed {
            return edits.then(|| AgentEvent::Edited { paths: vec![call.path.clone()] });
        }
        let error = text(event, "/error/type");
        let withheld = error == "tool_not_registered" && WITHHELD.contains(&call.tool.as_str());
        let outside = text(event, "/error/message").starts_with("Path not in workspace");
        let is_denied = withheld || outside || error == "policy_violation";
        is_denied.then(|| {
            self.denials = self.denials.saturating_add(1);
            denied(&call.tool, &call.what)
        })
    }

    fn result(&mut self, event: &Value) -> Vec<AgentEvent> {
        let mut events: Vec<AgentEvent> = self.flush_text().into_iter().collect();
        self.end = Some(match text(event, "/status") {
            "success" => Ok(()),
            _ => Err(ReportedError {
                kind: text(event, "/error/type").to_owned(),
                message: text(event, "/error/message").to_owned(),
            }),
        });
        let input = count(event, "/stats/input_tokens");
        // The total includes the thinking, which `output_tokens` may not.
        let output =
            count(event, "/stats/total_tokens").saturating_sub(input).max(count(event, "/stats/output_tokens"));
        self.usage = Usage {
            input_tokens: input,
            cached_tokens: count(event, "/stats/cached"),
            output_tokens: output,
            cost_usd: None,
        };
        if self.usage != Usage::default() {
            events.push(AgentEvent::Usage { usage: self.usage });
        }
        events
    }
}

impl Decoder for GeminiStream {
    fn line(&mut self, line: &str) -> Vec<AgentEvent> {
        let (events, noise) = self.lines.read(line);
        noise.into_iter().chain(events.iter().flat_map(|event| self.read(event))).collect()
    }

    fn end(&mut self, exit: Exit, stderr_tail: &str) -> TurnReport {
        let end = match self.end.take() {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(error.failure(exit, stderr_tail)),
            None => Err(failure_without_result(exit, stderr_tail)),
        };
        TurnReport {
            end,
            session_id: self.session_id.clone(),
            final_message: tail(std::mem::take(&mut self.text).trim_end(), FINAL_LIMIT),
            usage: self.usage,
            usage_is_cumulative: false,
            denials: self.denials,
        }
    }
}

impl ReportedError {
    fn failure(&self, exit: Exit, stderr_tail: &str) -> Failure {
        let kind = kind_of_type(&self.kind)
            .or_else(|| status_in(&self.message).map(kind_of_status))
            .or_else(|| kind_of_exit(exit))
            .or_else(|| kind_of_own_error(stderr_tail))
            .or_else(|| kind_of_words(&self.message))
            .unwrap_or(FailureKind::Other);
        refusal_of_account(&self.message).unwrap_or_else(|| failure(kind, &self.message))
    }
}

/// Returns the failure if the CLI prints that the service refuses private accounts. The service's own message
/// recommends a CLI that is not a backend, so ours comes first.
fn refusal_of_account(printed: &str) -> Option<Failure> {
    let refused = PRIVATE_ACCOUNT.iter().any(|words| printed.contains(words));
    let message = "Gemini CLI refuses private Google accounts (free, AI Pro, AI Ultra); API keys and Standard or \
                   Enterprise licences work";
    refused.then(|| failure(FailureKind::Auth, format!("{message}: {}", printed.trim())))
}

fn kind_of_type(kind: &str) -> Option<FailureKind> {
    Some(match kind {
        "FatalAuthenticationError" => FailureKind::Auth,
        "FatalTurnLimitedError" => FailureKind::TurnLimit,
        "FatalCancellationError" => FailureKind::NoResult,
        "TerminalQuotaError" => FailureKind::UsageLimit,
        _ => return None,
    })
}

/// Parses `[API Error: {"error":{"code":401,…}}]`, the raw response of the service.
fn status_in(message: &str) -> Option<u64> {
    let (start, end) = (message.find('{')?, message.rfind('}')?);
    object(message.get(start..=end)?)?.pointer("/error/code")?.as_u64()
}

/// Classifies an exit status: one of the CLI's own, or an HTTP status modulo 256, from 400 = 144 on. Status 1 is
/// unspecific.
fn kind_of_exit(exit: Exit) -> Option<FailureKind> {
    let Exit::Code(code) = exit else { return None };
    match u64::try_from(code).ok()? {
        code @ 144..=255 => Some(kind_of_status(code + 256)),
        _ => kind_of_own_exit(code),
    }
}

fn kind_of_own_exit(code: i32) -> Option<FailureKind> {
    Some(match code {
        41 => FailureKind::Auth,
        42 => FailureKind::BadRequest,
        44 | 52 | 55 => FailureKind::CouldNotStart,
        53 => FailureKind::TurnLimit,
        _ => return None,
    })
}

/// Classifies the error name that the CLI writes to stderr when a call to the service failed. For some errors it is the
/// only evidence: a 404 has no status of its own in the result, and no exit code.
fn kind_of_own_error(stderr: &str) -> Option<FailureKind> {
    let line = stderr.lines().rev().find(|line| line.contains("Error when talking to Gemini API"))?;
    let has = |name: &str| line.split_whitespace().any(|word| word.trim_end_matches(':') == name);
    if has("ModelNotFoundError") {
        Some(FailureKind::ModelNotFound)
    } else if has("TerminalQuotaError") {
        Some(FailureKind::UsageLimit)
    } else if has("RetryableQuotaError") {
        Some(FailureKind::RateLimit)
    } else {
        let is_network = ["fetch failed", "ECONN", "ENOTFOUND"].iter().any(|words| line.contains(words));
        is_network.then_some(FailureKind::Network)
    }
}

fn kind_of_words(message: &str) -> Option<FailureKind> {
    if message.contains("is not found for API version") {
        return Some(FailureKind::ModelNotFound);
    }
    message.contains("[API Error: terminated]").then_some(FailureKind::Network)
}

/// Classifies an exit without a result, in which the statuses above 128 are a shell's for signals, not HTTP's.
fn failure_without_result(exit: Exit, stderr_tail: &str) -> Failure {
    if let Some(refusal) = refusal_of_account(stderr_tail) {
        return refusal;
    }
    let mut failure = without_result("gemini", exit, stderr_tail);
    if let Exit::Code(code) = exit {
        failure.kind = kind_of_own_exit(code).unwrap_or(failure.kind);
    }
    failure
}
