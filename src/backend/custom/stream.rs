//! Decodes the output of a custom program. Plain text is passed on line by line. JSON lines are one object each, in
//! this vocabulary. A program may leave out fields, and unknown types are ignored:
//!
//! ```text
//! {"type":"session","id":"…"}                                        what to resume with
//! {"type":"message","text":"…"}        {"type":"thought","text":"…"}
//! {"type":"tool","id":"1","name":"shell","what":"cargo test"}
//! {"type":"tool_end","id":"1","ok":true,"exit_code":0,"output":"…"}
//! {"type":"edit","paths":["src/a.rs"]} {"type":"denied","what":"…"}  {"type":"warning","text":"…"}
//! {"type":"usage","input_tokens":9,"cached_tokens":0,"output_tokens":3,"cost_usd":0.01}   of this process so far
//! {"type":"retrying","kind":"rate_limit","message":"…","fatal":false}
//! {"type":"result","status":"success","message":"…"}                 or "error", with a "kind"
//! ```
//!
//! `kind` is one of the failure kinds of an outcome, such as `auth` or `server`. With `rate_limit` and `usage_limit`,
//! `"resets_at"` may be the time at which the service accepts work again, in seconds since 1970. A run succeeds only
//! with a `result` of status `success` and exit status 0. A program that still runs 15 seconds after its result is
//! ended, and the result counts.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::backend::failure::{ended, failure, without_result};
use crate::backend::lines::{
    FINAL_LIMIT, JsonLines, OUTPUT_LIMIT, count, dollars, items, one_line, said, tail, text, thought, warning,
};
use crate::backend::{AgentEvent, Decoder, TurnReport};
use crate::mission::outcome::{Exit, Failure, FailureKind, Usage};

/// Bytes at the end of a plain text that are its final message.
const PLAIN_LIMIT: usize = 16 * 1024;

pub struct PlainStream {
    name: String,
    session_id: Option<String>,
    printed: String,
}

impl PlainStream {
    pub fn new(name: String, session_id: Option<String>) -> Self {
        Self { name, session_id, printed: String::new() }
    }
}

impl Decoder for PlainStream {
    fn line(&mut self, line: &str) -> Vec<AgentEvent> {
        self.printed.push_str(&tail(line, PLAIN_LIMIT));
        self.printed.push('\n');
        if self.printed.len() > 4 * PLAIN_LIMIT {
            self.printed = tail(&self.printed, PLAIN_LIMIT);
        }
        said(line).into_iter().collect()
    }

    fn end(&mut self, exit: Exit, stderr_tail: &str) -> TurnReport {
        let end = match exit {
            Exit::Code(0) => Ok(()),
            Exit::Code(_) => Err(failure(FailureKind::Other, ended(&self.name, exit, "", stderr_tail))),
            Exit::Signal(_) => Err(without_result(&self.name, exit, stderr_tail)),
        };
        TurnReport {
            end,
            session_id: self.session_id.clone(),
            final_message: tail(self.printed.trim(), PLAIN_LIMIT),
            usage: Usage::default(),
            usage_is_cumulative: false,
            denials: 0,
        }
    }
}

pub struct JsonlStream {
    name: String,
    session_id: Option<String>,
    lines: JsonLines,
    final_message: String,
    usage: Usage,
    denials: u32,
    end: Option<Result<(), Failure>>,
    fatal_retry: Option<Failure>,
    /// True if the result was printed, and no further work after it.
    is_idle: bool,
}

impl JsonlStream {
    pub fn new(name: String, session_id: Option<String>) -> Self {
        Self {
            name,
            session_id,
            lines: JsonLines::default(),
            final_message: String::new(),
            usage: Usage::default(),
            denials: 0,
            end: None,
            fatal_retry: None,
            is_idle: false,
        }
    }

    fn read(&mut self, event: &Value) -> Option<AgentEvent> {
        let id = text(event, "/id").to_owned();
        let words = text(event, "/text");
        Some(match text(event, "/type") {
            "session" if !id.is_empty() => {
                self.session_id = Some(id.clone());
                AgentEvent::Session { id, model: event["model"].as_str().map(str::to_owned) }
            }
            "message" => {
                self.fatal_retry = None;
                self.final_message = tail(words, FINAL_LIMIT);
                return said(words);
            }
            "thought" => return thought(words),
            "tool" => {
                AgentEvent::ToolStarted { id, tool: text(event, "/name").into(), what: one_line(text(event, "/what")) }
            }
            "tool_end" => AgentEvent::ToolEnded {
                id,
                ok: event["ok"].as_bool(),
                exit_code: event["exit_code"].as_i64().and_then(|code| i32::try_from(code).ok()),
                output: tail(text(event, "/output"), OUTPUT_LIMIT),
            },
            "edit" => AgentEvent::Edited {
                paths: items(event, "/paths").filter_map(Value::as_str).map(str::to_owned).collect(),
            },
            "denied" => {
                self.denials = self.denials.saturating_add(1);
                AgentEvent::Denied { what: one_line(text(event, "/what")) }
            }
            "warning" => warning(words),
            "usage" => self.used(event),
            "retrying" => self.retrying(event),
            "result" => return self.result(event),
            _ => return None,
        })
    }

    fn used(&mut self, event: &Value) -> AgentEvent {
        self.usage = Usage {
            input_tokens: count(event, "/input_tokens"),
            cached_tokens: count(event, "/cached_tokens"),
            output_tokens: count(event, "/output_tokens"),
            cost_usd: dollars(event, "/cost_usd"),
        };
        AgentEvent::Usage { usage: self.usage }
    }

    fn retrying(&mut self, event: &Value) -> AgentEvent {
        let failure = failure_in(event);
        let fatal = event["fatal"].as_bool().unwrap_or(failure.kind == FailureKind::Auth);
        self.fatal_retry = fatal.then(|| failure.clone());
        AgentEvent::Retrying { failure, fatal }
    }

    fn result(&mut self, event: &Value) -> Option<AgentEvent> {
        let succeeded = text(event, "/status") == "success";
        let message = text(event, "/message");
        if succeeded && !message.is_empty() {
            self.final_message = tail(message, FINAL_LIMIT);
        }
        self.end = Some(if succeeded { Ok(()) } else { Err(failure_in(event)) });
        None
    }

    /// Returns whether the agent has become idle, or continues after its result.
    fn activity_change(&mut self, event: &Value) -> Option<AgentEvent> {
        let (was, is) = (self.is_idle, text(event, "/type"));
        self.is_idle = match is {
            "result" => true,
            "message" | "thought" | "tool" | "edit" => false,
            _ => was,
        };
        match (was, self.is_idle) {
            (false, true) => Some(AgentEvent::Idle),
            (true, false) => Some(AgentEvent::Busy),
            _ => None,
        }
    }
}

impl Decoder for JsonlStream {
    fn line(&mut self, line: &str) -> Vec<AgentEvent> {
        let (events, noise) = self.lines.read(line);
        let read = events.iter().flat_map(|event| [self.read(event), self.activity_change(event)]).flatten();
        noise.into_iter().chain(read).collect()
    }

    fn end(&mut self, exit: Exit, stderr_tail: &str) -> TurnReport {
        let end = match (self.end.take(), self.fatal_retry.take(), exit) {
            (Some(Ok(())), _, Exit::Code(0)) => Ok(()),
            (Some(Ok(())), _, exit) => {
                Err(failure(FailureKind::NoResult, ended(&self.name, exit, "after its result", stderr_tail)))
            }
            (Some(Err(failure)), _, _) | (None, Some(failure), _) => Err(failure),
            (None, None, exit) => Err(without_result(&self.name, exit, stderr_tail)),
        };
        TurnReport {
            end,
            session_id: self.session_id.clone(),
            final_message: std::mem::take(&mut self.final_message),
            usage: self.usage,
            usage_is_cumulative: false,
            denials: self.denials,
        }
    }
}

fn failure_in(event: &Value) -> Failure {
    let kind = FailureKind::deserialize(&event["kind"]).unwrap_or(FailureKind::Other);
    let resets_at = event["resets_at"].as_i64().and_then(|seconds| Timestamp::from_second(seconds).ok());
    Failure { resets_at, ..failure(kind, text(event, "/message")) }
}
