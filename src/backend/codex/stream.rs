//! Decodes the lines of `codex exec --json`. Only `turn.completed` or `turn.failed` is the end: a top-level `error` may
//! be followed by success, an item of type `error` is a warning, and a killed Codex prints nothing.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::Value;

use crate::backend::failure::{failure, kind_of_response, kind_of_status, without_result};
use crate::backend::lines::{
    FINAL_LIMIT, JsonLines, OUTPUT_LIMIT, count, denied, gist, items, one_line, said, tail, text, thought, warning,
};
use crate::backend::{AgentEvent, Decoder, TurnReport};
use crate::mission::outcome::{Exit, Failure, FailureKind, Usage};

pub struct CodexStream {
    zone: TimeZone,
    lines: JsonLines,
    session_id: Option<String>,
    final_message: String,
    usage: Usage,
    denials: u32,
    end: Option<Result<(), Failure>>,
    /// The last top-level error. It decides only if the process dies without an end, and only if a retry cannot fix it.
    last_error: Option<Failure>,
}

impl CodexStream {
    pub fn new(zone: TimeZone) -> Self {
        Self {
            zone,
            lines: JsonLines::default(),
            session_id: None,
            final_message: String::new(),
            usage: Usage::default(),
            denials: 0,
            end: None,
            last_error: None,
        }
    }

    fn read(&mut self, event: &Value) -> Vec<AgentEvent> {
        match text(event, "/type") {
            "thread.started" => self.session(text(event, "/thread_id")),
            "item.started" => started(&event["item"]),
            "item.completed" => self.completed(&event["item"]),
            "turn.completed" => self.turn_completed(&event["usage"]),
            "turn.failed" => {
                self.end = Some(Err(self.failure(text(event, "/error/message"))));
                Vec::new()
            }
            "error" => self.error(text(event, "/message")),
            _ => Vec::new(),
        }
    }

    fn session(&mut self, id: &str) -> Vec<AgentEvent> {
        if id.is_empty() {
            return Vec::new();
        }
        self.session_id = Some(id.to_owned());
        vec![AgentEvent::Session { id: id.to_owned(), model: None }]
    }

    fn completed(&mut self, item: &Value) -> Vec<AgentEvent> {
        self.last_error = None;
        let message = text(item, "/text");
        match text(item, "/type") {
            "agent_message" => {
                self.final_message = tail(message, FINAL_LIMIT);
                said(message).into_iter().collect()
            }
            "reasoning" => thought(message).into_iter().collect(),
            "error" => vec![warning(text(item, "/message"))],
            "file_change" => file_change(item),
            "command_execution" | "mcp_tool_call" | "collab_tool_call" | "web_search" => self.tool_ended(item),
            _ => Vec::new(),
        }
    }

    fn tool_ended(&mut self, item: &Value) -> Vec<AgentEvent> {
        let mut events = Vec::new();
        if text(item, "/type") == "web_search" {
            events.extend(started(item)); // Not every version prints its start.
        }
        let status = text(item, "/status");
        // A tool of an MCP server that needs an approval: `codex exec` never asks for one.
        let needs_approval = text(item, "/error/message").contains("approval policy is never");
        if status == "declined" || needs_approval {
            self.denials = self.denials.saturating_add(1);
            events.push(denied(&tool(item), &what(item)));
        }
        events.push(AgentEvent::ToolEnded {
            id: text(item, "/id").into(),
            ok: (!status.is_empty()).then_some(status == "completed"),
            exit_code: item["exit_code"].as_i64().and_then(|code| i32::try_from(code).ok()),
            output: output(item),
        });
        events
    }

    fn turn_completed(&mut self, usage: &Value) -> Vec<AgentEvent> {
        self.end = Some(Ok(()));
        // `input_tokens` includes the cached ones and `output_tokens` the reasoning, as the service counts them.
        self.usage = Usage {
            input_tokens: count(usage, "/input_tokens"),
            cached_tokens: count(usage, "/cached_input_tokens"),
            output_tokens: count(usage, "/output_tokens"),
            cost_usd: None,
        };
        vec![AgentEvent::Usage { usage: self.usage }]
    }

    /// Handles a top-level error. `Reconnecting... 2/5 (why)` is a retry; `turn.failed` repeats any other error. If the
    /// service limits the rate for a stated time, Codex waits in silence, even for hours. Otherwise it gives up at
    /// once.
    fn error(&mut self, message: &str) -> Vec<AgentEvent> {
        let failure = self.failure(message);
        self.last_error = Some(failure.clone());
        if !message.starts_with("Reconnecting...") {
            return Vec::new();
        }
        let fatal = is_permanent(&failure);
        vec![AgentEvent::Retrying { failure, fatal }]
    }

    fn failure(&self, message: &str) -> Failure {
        let mut failure = failure(kind_of(message), message);
        if failure.kind == FailureKind::UsageLimit {
            failure.resets_at = reset_time(message, &self.zone);
        }
        failure
    }

    fn without_end(&mut self, exit: Exit, stderr_tail: &str) -> Failure {
        if let Some(failure) = self.last_error.take().filter(is_permanent) {
            return failure;
        }
        let mut failure = without_result("codex", exit, stderr_tail);
        if self.session_id.is_none() {
            failure.kind = kind_of_setup(exit, stderr_tail).unwrap_or(failure.kind);
        }
        failure
    }
}

impl Decoder for CodexStream {
    fn line(&mut self, line: &str) -> Vec<AgentEvent> {
        let (events, noise) = self.lines.read(line);
        noise.into_iter().chain(events.iter().flat_map(|event| self.read(event))).collect()
    }

    fn end(&mut self, exit: Exit, stderr_tail: &str) -> TurnReport {
        let end = self.end.take().unwrap_or_else(|| Err(self.without_end(exit, stderr_tail)));
        TurnReport {
            end,
            session_id: self.session_id.clone(),
            final_message: std::mem::take(&mut self.final_message),
            usage: self.usage,
            usage_is_cumulative: true,
            denials: self.denials,
        }
    }
}

/// Returns whether a retry cannot fix the failure soon.
fn is_permanent(failure: &Failure) -> bool {
    matches!(failure.kind, FailureKind::Auth | FailureKind::RateLimit | FailureKind::UsageLimit)
}

fn started(item: &Value) -> Vec<AgentEvent> {
    let tool = tool(item);
    if tool.is_empty() {
        return Vec::new();
    }
    vec![AgentEvent::ToolStarted { id: text(item, "/id").into(), tool, what: what(item) }]
}

/// Returns the name of an item's tool, empty if it is no tool call.
fn tool(item: &Value) -> String {
    match text(item, "/type") {
        "command_execution" => "shell".to_owned(),
        "mcp_tool_call" => format!("{}/{}", text(item, "/server"), text(item, "/tool")),
        "collab_tool_call" => text(item, "/tool").to_owned(),
        "web_search" => "web_search".to_owned(),
        _ => String::new(),
    }
}

fn what(item: &Value) -> String {
    match item.get("arguments") {
        Some(arguments) => gist(arguments),
        None => gist(item),
    }
}

fn output(item: &Value) -> String {
    let command = text(item, "/aggregated_output");
    let error = text(item, "/error/message");
    if !error.is_empty() {
        return tail(error, OUTPUT_LIMIT);
    }
    if !command.is_empty() {
        return tail(command, OUTPUT_LIMIT);
    }
    let parts: Vec<&str> = items(item, "/result/content").map(|part| text(part, "/text")).collect();
    tail(&parts.join("\n"), OUTPUT_LIMIT)
}

fn file_change(item: &Value) -> Vec<AgentEvent> {
    let paths: Vec<String> = items(item, "/changes").map(|change| text(change, "/path").to_owned()).collect();
    match text(item, "/status") {
        "completed" => vec![AgentEvent::Edited { paths }],
        status => vec![warning(&format!("a change of {} ended as {status}", one_line(&paths.join(", "))))],
    }
}

/// Classifies a failure by its message, since Codex gives no codes. The strings are Codex's own fixed ones; for an
/// unknown model they are the service's.
fn kind_of(message: &str) -> FailureKind {
    let message = message.replace('’', "'");
    let has = |words: &str| message.contains(words);
    // For some refusals Codex prints only the service's raw response.
    if let Some(kind) = status_in(&message).map(kind_of_status).or_else(|| kind_of_response(&message)) {
        return kind;
    }
    if has("hit your usage limit") {
        FailureKind::UsageLimit
    } else if has("Quota exceeded. Check your plan") || has("Missing environment variable") {
        FailureKind::Auth
    } else if has("ran out of room in the model's context window") {
        FailureKind::ContextFull
    } else if has("currently experiencing high demand") {
        FailureKind::Server
    } else if has("stream disconnected before completion") || has("Connection failed: ") {
        FailureKind::Network
    } else if has("model") && (has("does not exist") || has("not found") || has("is not supported when using Codex")) {
        FailureKind::ModelNotFound
    } else {
        FailureKind::Other
    }
}

/// Parses `unexpected status 401 Unauthorized: …` and `exceeded retry limit, last status: 429 Too Many Requests`.
fn status_in(message: &str) -> Option<u64> {
    let rest =
        ["unexpected status ", "last status: "].iter().find_map(|words| message.split_once(words)).map(|(_, r)| r)?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Parses `… or try again at Nov 23rd, 2026 2:13 AM.` On the day itself Codex prints only the time, which is ambiguous.
fn reset_time(message: &str, zone: &TimeZone) -> Option<Timestamp> {
    let (_, when) = message.rsplit_once("try again at ")?;
    let words: Vec<&str> = when.trim().trim_end_matches('.').split_whitespace().collect();
    let [month, day, year, time, half] = words.as_slice() else { return None };
    let day = day.trim_end_matches(|c: char| !c.is_ascii_digit());
    let local = DateTime::strptime("%b %d %Y %I:%M %p", format!("{month} {day} {year} {time} {half}")).ok()?;
    local.to_zoned(zone.clone()).ok().map(|zoned| zoned.timestamp())
}

/// Classifies the exit of a Codex that ended before it opened a thread, by its exit status or its stderr.
fn kind_of_setup(exit: Exit, stderr: &str) -> Option<FailureKind> {
    if stderr.contains("no rollout found for thread id") {
        return Some(FailureKind::BadRequest);
    }
    let refused = exit == Exit::Code(2) || stderr.contains("Not inside a trusted directory");
    refused.then_some(FailureKind::CouldNotStart)
}
