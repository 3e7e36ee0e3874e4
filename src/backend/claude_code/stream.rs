//! Decodes the lines of Claude Code's stream-json. One process runs many turns: each begins with an `init` and ends
//! with a `result`. Background tasks and queued messages open further turns, and only the last result counts. A good
//! result has `is_error` false and a `terminal_reason` of `completed`, or of `stop_hook_prevented`. One field is not
//! enough: `subtype` is "success" even for API failures, and `is_error` is false for a turn that an urgent message
//! interrupted.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::failures::{api_kind, of_result};
use super::permission::{FORM, Prompts, Reaction, summary};
use crate::backend::failure::{failure, without_result};
use crate::backend::lines::{
    FINAL_LIMIT, JsonLines, OUTPUT_LIMIT, add, count, denied, dollars, gist, items, said, tail, text, thought, warning,
};
use crate::backend::{AgentEvent, Decoder, TurnReport};
use crate::mission::outcome::{Exit, Failure, FailureKind, Usage};
use crate::mission::question::{QuestionRules, Verdict};

/// Maximum number of items that are tracked because the stream opened them and may never close them.
const FOLLOWED: usize = 10_000;

/// Encodes a message for its stdin. The CLI echoes the uuid when the message reaches the model.
pub fn user_frame(id: Uuid, text: &str) -> String {
    let frame = json!({"type": "user", "message": {"role": "user", "content": text}, "uuid": id});
    format!("{frame}\n")
}

#[derive(Default)]
pub struct ClaudeStream {
    lines: JsonLines,
    replies: Vec<String>,
    prompts: Prompts,
    session_id: Option<String>,
    model: String,
    /// True between an `init` and its `result`.
    running: bool,
    idle: bool,
    end: Option<Result<(), Failure>>,
    final_message: String,
    background_tasks: usize,
    /// Our messages in its queue, which have not reached the model.
    queued: BTreeSet<Uuid>,
    /// Tool calls without a result yet, by id.
    calls: BTreeMap<String, ClaudeToolCall>,
    denied: BTreeSet<String>,
    api_error: Option<Failure>,
    /// The failure of a retry that can only fail again. It decides if the process ends without a result.
    fatal_retry: Option<Failure>,
    resets_at: Option<Timestamp>,
    /// The usage in the last result, of the whole session with subagents and earlier processes.
    usage: Usage,
    /// The usage of the model calls since that result, by message. It is too low, but available in time.
    since_result: BTreeMap<String, Usage>,
}

struct ClaudeToolCall {
    what: String,
    edits: Option<String>,
    is_command: bool,
}

impl ClaudeStream {
    pub fn new(rules: &QuestionRules<'_>) -> Self {
        Self { prompts: Prompts::new(rules), ..Self::default() }
    }

    fn read(&mut self, event: &Value) -> Vec<AgentEvent> {
        match text(event, "/type") {
            "system" => self.system(event),
            "assistant" => self.assistant(event),
            "user" => self.user(event),
            "result" => self.result(event),
            "command_lifecycle" => self.lifecycle(event),
            "control_request" => {
                let reaction = self.prompts.request(event);
                self.react(reaction)
            }
            "control_cancel_request" => {
                let withdrawn = self.prompts.withdraw(event).into_iter();
                let withdrawn = withdrawn.map(|question| AgentEvent::Withdrawn { question });
                withdrawn.chain(self.idle_if_done()).collect()
            }
            "rate_limit_event" => self.rate_limit(&event["rate_limit_info"]),
            _ => Vec::new(),
        }
    }

    fn system(&mut self, event: &Value) -> Vec<AgentEvent> {
        match text(event, "/subtype") {
            "init" => self.turn_started(event),
            "api_retry" => self.retry(event),
            "permission_denied" => self.denial(text(event, "/tool_use_id"), text(event, "/tool_name"), String::new()),
            "background_tasks_changed" => {
                self.background_tasks = items(event, "/tasks").count();
                self.idle_if_done()
            }
            "informational" => vec![warning(text(event, "/content"))],
            _ => Vec::new(),
        }
    }

    fn turn_started(&mut self, event: &Value) -> Vec<AgentEvent> {
        let mut events = Vec::new();
        let (id, model) = (text(event, "/session_id"), text(event, "/model"));
        if !id.is_empty() && (self.session_id.as_deref() != Some(id) || self.model != model) {
            self.session_id = Some(id.to_owned());
            self.model = model.to_owned();
            events.push(AgentEvent::Session { id: id.to_owned(), model: Some(model.to_owned()) });
        }
        if self.end.is_some() && !self.running {
            events.push(AgentEvent::Busy);
        }
        self.running = true;
        self.idle = false;
        self.api_error = None;
        events
    }

    fn retry(&mut self, event: &Value) -> Vec<AgentEvent> {
        let error = text(event, "/error");
        let status = event["error_status"].as_u64();
        let status_words = status.map(|status| format!(" (HTTP {status})")).unwrap_or_default();
        let (attempt, most) = (count(event, "/attempt"), count(event, "/max_retries"));
        let failure = failure(api_kind(error, status), format!("{error}{status_words}, retry {attempt} of {most}"));
        let fatal = failure.kind == FailureKind::Auth;
        self.fatal_retry = fatal.then(|| failure.clone());
        vec![AgentEvent::Retrying { failure, fatal }]
    }

    /// Sends the reply to a prompt, if there is one. Returns the events of its questions, or of the refused action.
    fn react(&mut self, reaction: Reaction) -> Vec<AgentEvent> {
        self.replies.extend(reaction.reply);
        let refused = reaction.refused.map(|call| self.denial(&call.id, &call.tool, call.what));
        let asked = reaction.questions.into_iter().map(|question| AgentEvent::Asked { question });
        asked.chain(refused.into_iter().flatten()).collect()
    }

    /// Returns the event of a refused call, once: an event, our answer and the result may name it. `what` describes an
    /// unknown call.
    fn denial(&mut self, id: &str, tool: &str, what: String) -> Vec<AgentEvent> {
        if tool == FORM || self.denied.len() >= FOLLOWED || !self.denied.insert(id.to_owned()) {
            return Vec::new();
        }
        vec![denied(tool, self.calls.get(id).map_or(&what, |call| &call.what))]
    }

    fn assistant(&mut self, event: &Value) -> Vec<AgentEvent> {
        let error = text(event, "/error");
        if !error.is_empty() {
            return self.failed_call(error, event);
        }
        self.fatal_retry = None;
        let of_main_agent = event["parent_tool_use_id"].is_null();
        let mut events = Vec::new();
        for part in items(event, "/message/content") {
            match text(part, "/type") {
                "text" if of_main_agent => {
                    self.final_message = tail(text(part, "/text"), FINAL_LIMIT);
                    events.extend(said(text(part, "/text")));
                }
                "thinking" if of_main_agent => events.extend(thought(text(part, "/thinking"))),
                "tool_use" => events.push(self.tool_started(part)),
                _ => {}
            }
        }
        events.extend(self.call_used(&event["message"]));
        events
    }

    /// Handles an API failure, which the CLI reports in an assistant line.
    fn failed_call(&mut self, error: &str, event: &Value) -> Vec<AgentEvent> {
        let message: Vec<&str> = items(event, "/message/content").map(|part| text(part, "/text")).collect();
        let mut failure = failure(api_kind(error, event["api_error_status"].as_u64()), message.join("\n"));
        if failure.kind == FailureKind::RateLimit && self.resets_at.is_some() {
            failure.kind = FailureKind::UsageLimit;
            failure.resets_at = self.resets_at;
        }
        let warning_event = warning(&failure.message);
        self.api_error = Some(failure);
        vec![warning_event]
    }

    fn tool_started(&mut self, part: &Value) -> AgentEvent {
        let (id, tool) = (text(part, "/id"), text(part, "/name"));
        let what = summary(tool, &part["input"]);
        if self.calls.len() < FOLLOWED {
            let path = ["/input/file_path", "/input/notebook_path"].map(|key| text(part, key));
            let edits = matches!(tool, "Edit" | "MultiEdit" | "Write" | "NotebookEdit")
                .then(|| path.concat())
                .filter(|path| !path.is_empty());
            self.calls.insert(id.to_owned(), ClaudeToolCall { what: what.clone(), edits, is_command: tool == "Bash" });
        }
        AgentEvent::ToolStarted { id: id.to_owned(), tool: tool.to_owned(), what }
    }

    /// Adds the usage of a model call. Several lines report one message with the same numbers, and `output_tokens` is
    /// the number at its beginning.
    fn call_used(&mut self, message: &Value) -> Option<AgentEvent> {
        let id = text(message, "/id");
        let used = used(&message["usage"]);
        if id.is_empty() || used == Usage::default() || self.since_result.len() >= FOLLOWED {
            return None;
        }
        match self.since_result.insert(id.to_owned(), used) {
            Some(before) if before == used => None,
            _ => Some(AgentEvent::Usage { usage: self.known_usage() }),
        }
    }

    fn known_usage(&self) -> Usage {
        let mut total = self.usage;
        self.since_result.values().for_each(|used| add(&mut total, *used));
        total
    }

    fn user(&mut self, event: &Value) -> Vec<AgentEvent> {
        if event["isReplay"] == true {
            return self.receipt(text(event, "/uuid"));
        }
        let mut events = Vec::new();
        for part in items(event, "/message/content").filter(|part| text(part, "/type") == "tool_result") {
            events.extend(self.tool_ended(part));
        }
        events
    }

    fn tool_ended(&mut self, part: &Value) -> Vec<AgentEvent> {
        let id = text(part, "/tool_use_id");
        let failed = part["is_error"] == true;
        let output = tool_output(&part["content"]);
        let call = self.calls.remove(id);
        let is_command = call.as_ref().is_some_and(|call| call.is_command);
        let exit_code = (failed && is_command).then(|| exit_code(&output)).flatten();
        let ended = AgentEvent::ToolEnded {
            id: id.to_owned(),
            ok: Some(!failed),
            exit_code,
            output: tail(&output, OUTPUT_LIMIT),
        };
        let edited = call.and_then(|call| call.edits).filter(|_| !failed);
        std::iter::once(ended).chain(edited.map(|path| AgentEvent::Edited { paths: vec![path] })).collect()
    }

    /// Handles an echo. The CLI echoes a message, with its uuid, when it reaches the model.
    fn receipt(&mut self, id: &str) -> Vec<AgentEvent> {
        let Ok(id) = Uuid::parse_str(id) else { return Vec::new() };
        self.queued.remove(&id);
        vec![AgentEvent::Received { message_id: id, text: None }]
    }

    /// Tracks the CLI's queue. `started` comes before the echo and even before the turn, so it is no receipt.
    fn lifecycle(&mut self, event: &Value) -> Vec<AgentEvent> {
        match (text(event, "/state"), Uuid::parse_str(text(event, "/command_uuid"))) {
            ("queued", Ok(id)) if self.queued.len() < FOLLOWED => {
                self.queued.insert(id);
                Vec::new()
            }
            ("queued" | "started", _) => Vec::new(),
            (_, Ok(id)) if self.queued.remove(&id) => self.idle_if_done(),
            _ => Vec::new(),
        }
    }

    /// Handles a rate limit, which was found in the binary and never seen: only subscription accounts get it.
    /// `resetsAt` is in seconds since 1970.
    fn rate_limit(&mut self, info: &Value) -> Vec<AgentEvent> {
        let rejected = text(info, "/status") == "rejected";
        let seconds = info["resetsAt"].as_i64().filter(|_| rejected);
        self.resets_at = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
        Vec::new()
    }

    fn result(&mut self, event: &Value) -> Vec<AgentEvent> {
        let mut events = Vec::new();
        for denial in items(event, "/permission_denials") {
            let (id, tool) = (text(denial, "/tool_use_id"), text(denial, "/tool_name"));
            events.extend(self.denial(id, tool, denial.get("tool_input").map(gist).unwrap_or_default()));
        }
        // A Stop hook runs after the agent's final message, so a turn that it ends was already complete.
        let is_over = ["completed", "stop_hook_prevented"].contains(&text(event, "/terminal_reason"));
        let completed = event["is_error"] == false && is_over;
        // Empty if a Stop hook made the agent continue: then the message from before the hook is the final one.
        let said = text(event, "/result");
        if completed && !said.is_empty() {
            self.final_message = tail(said, FINAL_LIMIT);
        }
        self.end = Some(if completed { Ok(()) } else { Err(of_result(event, self.api_error.as_ref())) });
        self.running = false;
        self.fatal_retry = None;
        events.extend(self.session_used(event));
        if count(event, "/queued_turn_count") == 0 {
            events.extend(self.idle_if_done());
        }
        events
    }

    /// Reads the usage of the whole session from `modelUsage` and the cost. The field `usage` of a result is only of
    /// its turn and without subagents.
    fn session_used(&mut self, result: &Value) -> Option<AgentEvent> {
        self.since_result.clear();
        let models = result["modelUsage"].as_object().filter(|models| !models.is_empty())?;
        let mut total = Usage { cost_usd: dollars(result, "/total_cost_usd"), ..Usage::default() };
        for model in models.values() {
            let read = count(model, "/cacheReadInputTokens");
            let written = count(model, "/cacheCreationInputTokens");
            add(
                &mut total,
                Usage {
                    input_tokens: count(model, "/inputTokens").saturating_add(read).saturating_add(written),
                    cached_tokens: read,
                    output_tokens: count(model, "/outputTokens"),
                    cost_usd: None,
                },
            );
        }
        self.usage = total;
        Some(AgentEvent::Usage { usage: total })
    }

    fn idle_if_done(&mut self) -> Vec<AgentEvent> {
        let done = self.end.is_some() && !self.running && self.background_tasks == 0 && self.queued.is_empty();
        if !done || self.idle || self.prompts.is_any_open() {
            return Vec::new();
        }
        self.idle = true;
        vec![AgentEvent::Idle]
    }
}

impl Decoder for ClaudeStream {
    fn line(&mut self, line: &str) -> Vec<AgentEvent> {
        let (events, noise) = self.lines.read(line);
        noise.into_iter().chain(events.iter().flat_map(|event| self.read(event))).collect()
    }

    fn replies(&mut self) -> Vec<String> {
        std::mem::take(&mut self.replies)
    }

    fn message(&mut self, id: Uuid, text: &str) -> bool {
        self.replies.push(user_frame(id, text));
        true
    }

    fn answer(&mut self, question: &str, verdict: &Verdict) -> Option<Vec<AgentEvent>> {
        let reaction = self.prompts.answer(question, verdict)?;
        let answered = self.react(reaction);
        Some(answered.into_iter().chain(self.idle_if_done()).collect())
    }

    fn end(&mut self, exit: Exit, stderr_tail: &str) -> TurnReport {
        let end = match (self.end.take(), self.fatal_retry.take()) {
            (Some(end), _) if !self.running => end,
            (_, Some(failure)) => Err(failure),
            _ => Err(without_result("claude", exit, stderr_tail)),
        };
        TurnReport {
            end,
            session_id: self.session_id.clone(),
            final_message: std::mem::take(&mut self.final_message),
            usage: self.known_usage(),
            usage_is_cumulative: true,
            denials: u32::try_from(self.denied.len()).unwrap_or(u32::MAX),
        }
    }
}

fn used(usage: &Value) -> Usage {
    let read = count(usage, "/cache_read_input_tokens");
    let written = count(usage, "/cache_creation_input_tokens");
    Usage {
        input_tokens: count(usage, "/input_tokens").saturating_add(read).saturating_add(written),
        cached_tokens: read,
        output_tokens: count(usage, "/output_tokens"),
        cost_usd: None,
    }
}

fn tool_output(content: &Value) -> String {
    match content {
        Value::String(output) => output.clone(),
        parts => items(parts, "").map(|part| text(part, "/text")).collect::<Vec<_>>().join("\n"),
    }
}

/// Parses the line `Exit code 128`, with which the CLI begins the output of a failed command.
fn exit_code(output: &str) -> Option<i32> {
    output.strip_prefix("Exit code ")?.lines().next()?.trim().parse().ok()
}
