//! Decodes the lines of Gemini CLI's stream-json. The end is a `result` with status `success`: after SIGTERM the CLI
//! exits with 0 and no result. No field has the final message; it is the text after the last tool's result. The CLI
//! prints nothing while it retries.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::backend::failure::{failure, kind_of_status, without_result};
use crate::backend::lines::{
    FINAL_LIMIT, JsonLines, OUTPUT_LIMIT, count, gist, object, one_line, said, tail, text, warning,
};
use crate::backend::{AgentEvent, Decoder, TurnReport};
use crate::mission::outcome::{Exit, Failure, FailureKind, Usage};

/// Maximum number of tool calls without a result that are tracked.
const FOLLOWED: usize = 10_000;
/// The tools that the milder approval modes and our read-only policy take away.
const WITHHELD: [&str; 3] = ["run_shell_command", "write_file", "replace"];

#[derive(Default)]
pub struct Reader {
    lines: JsonLines,
    session_id: Option<String>,
    /// Text that was said since the last tool's result.
    words: String,
    /// Bytes of `words` that were reported as an event.
    told: usize,
    calls: BTreeMap<String, Call>,
    usage: Usage,
    denials: u32,
    end: Option<Result<(), Complaint>>,
}

struct Call {
    tool: String,
    what: String,
    path: String,
}

/// An error as the result tells it; what kind it is also depends on the exit status.
struct Complaint {
    kind: String,
    message: String,
}

impl Reader {
    fn read(&mut self, event: &Value) -> Vec<AgentEvent> {
        match text(event, "/type") {
            "init" => self.session(event),
            "message" if text(event, "/role") == "assistant" => {
                self.say(text(event, "/content"));
                Vec::new()
            }
            "tool_use" => self.tool_started(event),
            "tool_result" => self.tool_ended(event),
            // Read in its code, never seen: something that does not end the run.
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

    /// Pieces of a few letters each; they become one event when something else happens.
    fn say(&mut self, piece: &str) {
        self.words.push_str(piece);
        if self.words.len() > 2 * FINAL_LIMIT {
            self.words = tail(&self.words, FINAL_LIMIT);
            self.told = 0;
        }
    }

    fn tell(&mut self) -> Option<AgentEvent> {
        let news = &self.words[self.told..];
        self.told = self.words.len();
        said(news)
    }

    fn tool_started(&mut self, event: &Value) -> Vec<AgentEvent> {
        let (id, tool) = (text(event, "/tool_id").to_owned(), text(event, "/tool_name").to_owned());
        let what = gist(&event["parameters"]);
        if self.calls.len() < FOLLOWED {
            let path = text(event, "/parameters/file_path").to_owned();
            self.calls.insert(id.clone(), Call { tool: tool.clone(), what: what.clone(), path });
        }
        self.tell().into_iter().chain([AgentEvent::ToolStarted { id, tool, what }]).collect()
    }

    fn tool_ended(&mut self, event: &Value) -> Vec<AgentEvent> {
        let mut events: Vec<AgentEvent> = self.tell().into_iter().collect();
        self.words.clear();
        self.told = 0;
        let id = text(event, "/tool_id");
        let call = self.calls.remove(id);
        let failed = text(event, "/status") == "error";
        // A command that exits with 3 is a "success" too.
        let is_command = call.as_ref().is_some_and(|call| call.tool == "run_shell_command");
        let ok = if is_command && !failed { None } else { Some(!failed) };
        let output = tail(text(event, "/output"), OUTPUT_LIMIT);
        events.push(AgentEvent::ToolEnded { id: id.to_owned(), ok, exit_code: None, output });
        if let Some(call) = call {
            events.extend(self.consequence(&call, failed, event));
        }
        events
    }

    fn consequence(&mut self, call: &Call, failed: bool, event: &Value) -> Option<AgentEvent> {
        let edits = matches!(call.tool.as_str(), "write_file" | "replace") && !call.path.is_empty();
        if !failed {
            return edits.then(|| AgentEvent::Edited { paths: vec![call.path.clone()] });
        }
        let error = text(event, "/error/type");
        let withheld = error == "tool_not_registered" && WITHHELD.contains(&call.tool.as_str());
        let outside = text(event, "/error/message").starts_with("Path not in workspace");
        let denied = withheld || outside || error == "policy_violation";
        denied.then(|| {
            self.denials = self.denials.saturating_add(1);
            AgentEvent::Denied { what: one_line(&format!("{}: {}", call.tool, call.what)) }
        })
    }

    fn result(&mut self, event: &Value) -> Vec<AgentEvent> {
        let mut events: Vec<AgentEvent> = self.tell().into_iter().collect();
        self.end = Some(match text(event, "/status") {
            "success" => Ok(()),
            _ => Err(Complaint {
                kind: text(event, "/error/type").to_owned(),
                message: text(event, "/error/message").to_owned(),
            }),
        });
        let input = count(event, "/stats/input_tokens");
        // The total also holds the thinking, where `output_tokens` may not.
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

impl Decoder for Reader {
    fn line(&mut self, line: &str) -> Vec<AgentEvent> {
        let (events, noise) = self.lines.read(line);
        noise.into_iter().chain(events.iter().flat_map(|event| self.read(event))).collect()
    }

    fn end(&mut self, exit: Exit, stderr_tail: &str) -> TurnReport {
        let end = match self.end.take() {
            Some(Ok(())) => Ok(()),
            Some(Err(complaint)) => Err(complaint.failure(exit, stderr_tail)),
            None => Err(never_ended(exit, stderr_tail)),
        };
        TurnReport {
            end,
            session_id: self.session_id.clone(),
            final_message: tail(std::mem::take(&mut self.words).trim_end(), FINAL_LIMIT),
            usage: self.usage,
            usage_is_cumulative: false,
            denials: self.denials,
        }
    }
}

impl Complaint {
    fn failure(&self, exit: Exit, stderr_tail: &str) -> Failure {
        let kind = kind_of_type(&self.kind)
            .or_else(|| status_in(&self.message).map(kind_of_status))
            .or_else(|| kind_of_exit(exit))
            .or_else(|| kind_of_own_error(stderr_tail))
            .or_else(|| kind_of_words(&self.message))
            .unwrap_or(FailureKind::Other);
        failure(kind, &self.message)
    }
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

/// `[API Error: {"error":{"code":401,…}}]`: the service's answer as it came.
fn status_in(message: &str) -> Option<u64> {
    let (start, end) = (message.find('{')?, message.rfind('}')?);
    object(message.get(start..=end)?)?.pointer("/error/code")?.as_u64()
}

/// The CLI's own statuses, and HTTP's modulo 256, from 400 = 144 on. 1 says nothing.
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
    Some(match () {
        () if has("ModelNotFoundError") => FailureKind::ModelNotFound,
        () if has("TerminalQuotaError") => FailureKind::UsageLimit,
        () if has("RetryableQuotaError") => FailureKind::RateLimit,
        () if line.contains("fetch failed") || line.contains("ECONN") || line.contains("ENOTFOUND") => {
            FailureKind::Network
        }
        () => return None,
    })
}

fn kind_of_words(message: &str) -> Option<FailureKind> {
    if message.contains("is not found for API version") {
        return Some(FailureKind::ModelNotFound);
    }
    message.contains("[API Error: terminated]").then_some(FailureKind::Network)
}

/// Without a result the statuses above 128 are a shell's for signals, not HTTP's.
fn never_ended(exit: Exit, stderr_tail: &str) -> Failure {
    let mut failure = without_result("gemini", exit, stderr_tail);
    if let Exit::Code(code) = exit {
        failure.kind = kind_of_own_exit(code).unwrap_or(failure.kind);
    }
    failure
}
