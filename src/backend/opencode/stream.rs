//! Decodes the lines of `opencode run --format json`. There is no event for the end: a run is done if its last step
//! finished with the reason `stop` and the process then exited by itself. A tool is only reported when it has ended.

use serde_json::Value;

use crate::backend::failure::{ended, failure, kind_of_status, without_result};
use crate::backend::lines::{
    FINAL_LIMIT, JsonLines, OUTPUT_LIMIT, add, count, denied, dollars, gist, object, said, tail, text, thought,
};
use crate::backend::{AgentEvent, Decoder, TurnReport};
use crate::mission::outcome::{Exit, Failure, FailureKind, Usage};

#[derive(Default)]
pub struct OpenCodeStream {
    lines: JsonLines,
    session_id: Option<String>,
    final_message: String,
    usage: Usage,
    denials: u32,
    /// The reason with which the last step finished; `None` while one runs.
    last_reason: Option<String>,
    error: Option<Failure>,
}

impl OpenCodeStream {
    fn read(&mut self, event: &Value) -> Vec<AgentEvent> {
        let mut events = self.session(text(event, "/sessionID"));
        let part = &event["part"];
        match text(event, "/type") {
            // A retry of a broken response prints another start of the same step.
            "step_start" => self.last_reason = None,
            "text" => {
                self.final_message = tail(text(part, "/text"), FINAL_LIMIT);
                events.extend(said(text(part, "/text")));
            }
            "reasoning" => events.extend(thought(text(part, "/text"))),
            "tool_use" => events.extend(self.tool(part)),
            "step_finish" => events.push(self.step_finished(part)),
            "error" => self.error = Some(failure_of(&event["error"])),
            _ => {}
        }
        events
    }

    fn session(&mut self, id: &str) -> Vec<AgentEvent> {
        if id.is_empty() || self.session_id.is_some() {
            return Vec::new();
        }
        self.session_id = Some(id.to_owned());
        vec![AgentEvent::Session { id: id.to_owned(), model: None }]
    }

    fn tool(&mut self, part: &Value) -> Vec<AgentEvent> {
        let (id, tool) = (text(part, "/callID").to_owned(), text(part, "/tool").to_owned());
        let state = &part["state"];
        let completed = text(state, "/status") == "completed";
        let error = text(state, "/error");
        let what = gist(&state["input"]);
        let output = tail(if completed { text(state, "/output") } else { error }, OUTPUT_LIMIT);
        let exit_code =
            state.pointer("/metadata/exit").and_then(Value::as_i64).and_then(|code| i32::try_from(code).ok());
        let ok = completed && exit_code.unwrap_or(0) == 0;
        let mut events = vec![
            AgentEvent::ToolStarted { id: id.clone(), tool: tool.clone(), what: what.clone() },
            AgentEvent::ToolEnded { id, ok: Some(ok), exit_code, output },
        ];
        if !completed && was_denied(error) {
            self.denials = self.denials.saturating_add(1);
            events.push(denied(&tool, &what));
        }
        events.extend(edited(&tool, state).filter(|_| completed));
        events
    }

    fn step_finished(&mut self, part: &Value) -> AgentEvent {
        self.last_reason = Some(text(part, "/reason").to_owned());
        self.error = None;
        let read = count(part, "/tokens/cache/read");
        let written = count(part, "/tokens/cache/write");
        add(
            &mut self.usage,
            Usage {
                input_tokens: count(part, "/tokens/input").saturating_add(read).saturating_add(written),
                cached_tokens: read,
                output_tokens: count(part, "/tokens/output").saturating_add(count(part, "/tokens/reasoning")),
                cost_usd: dollars(part, "/cost"),
            },
        );
        AgentEvent::Usage { usage: self.usage }
    }

    fn verdict(&mut self, exit: Exit, stderr_tail: &str) -> Result<(), Failure> {
        if let Some(failure) = self.error.take() {
            return Err(failure);
        }
        match (self.last_reason.as_deref(), exit) {
            (Some("stop"), Exit::Code(0)) => Ok(()),
            (Some("stop"), exit) => {
                Err(failure(FailureKind::NoResult, ended("opencode", exit, "after its last step", stderr_tail)))
            }
            // It stops here if an action was refused because no user could be asked.
            (Some("tool-calls"), Exit::Code(0)) if self.denials > 0 => {
                Err(failure(FailureKind::Permission, "opencode stopped because an action was not permitted"))
            }
            (Some("length"), Exit::Code(0)) => {
                Err(failure(FailureKind::Other, "opencode stopped because the model's response was too long"))
            }
            (_, exit) => Err(unfinished(exit, stderr_tail)),
        }
    }
}

impl Decoder for OpenCodeStream {
    fn line(&mut self, line: &str) -> Vec<AgentEvent> {
        let (events, noise) = self.lines.read(line);
        noise.into_iter().chain(events.iter().flat_map(|event| self.read(event))).collect()
    }

    fn end(&mut self, exit: Exit, stderr_tail: &str) -> TurnReport {
        TurnReport {
            end: self.verdict(exit, stderr_tail),
            session_id: self.session_id.clone(),
            final_message: std::mem::take(&mut self.final_message),
            usage: self.usage,
            usage_is_cumulative: false,
            denials: self.denials,
        }
    }
}

fn unfinished(exit: Exit, stderr_tail: &str) -> Failure {
    let mut failure = without_result("opencode", exit, stderr_tail);
    if stderr_tail.contains("Session not found") {
        failure.kind = FailureKind::BadRequest;
    }
    failure
}

/// Recognises the beginnings of its two refusals: by a rule, and without a user to ask.
fn was_denied(error: &str) -> bool {
    error.starts_with("The user rejected permission")
        || error.starts_with("The user has specified a rule which prevents")
}

fn edited(tool: &str, state: &Value) -> Option<AgentEvent> {
    let path = match text(state, "/metadata/filepath") {
        "" => text(state, "/input/filePath"),
        path => path,
    };
    let edits = matches!(tool, "write" | "edit" | "patch" | "apply_patch") && !path.is_empty();
    edits.then(|| AgentEvent::Edited { paths: vec![path.to_owned()] })
}

/// Classifies an error event. An unknown model of a configured provider is reported as a plain `UnknownError`.
fn failure_of(error: &Value) -> Failure {
    let message = match text(error, "/data/message") {
        "" => text(error, "/name"),
        message => message,
    };
    let answer = object(text(error, "/data/responseBody")).unwrap_or_default();
    let kind = match (text(error, "/name"), text(&answer, "/error/code")) {
        ("ProviderAuthError", _) | (_, "insufficient_quota") => FailureKind::Auth,
        ("ContextOverflowError", _) | (_, "context_length_exceeded") => FailureKind::ContextFull,
        ("MessageAbortedError", _) => FailureKind::NoResult,
        (_, "model_not_found") => FailureKind::ModelNotFound,
        ("APIError", _) if error.pointer("/data/statusCode").is_none() => FailureKind::Network,
        _ => error.pointer("/data/statusCode").and_then(Value::as_u64).map_or(FailureKind::Other, kind_of_status),
    };
    failure(kind, message)
}
