//! Agents that speak the Agent Client Protocol (ACP, version 1): a state machine from the agent's lines to events, and
//! to the lines that it must receive. No I/O, no clock, and no assumption about a named agent.
//!
//! ```text
//! initialize -> session/new, or session/resume or session/load -> session/prompt -> its answer -> session/prompt …
//! ```
//!
//! One request of ours is outstanding at a time, and only an answer with its id counts. Every request of the agent is
//! answered at once: a permission by the mission's permissions, anything else with "method not found", since this client
//! offers neither files nor terminals. No server of the client is passed on.
//!
//! The end of a turn that the agent reports is not success by itself: see `AcpStream::verdict`. Token counts are not
//! reported, since agents mean different things by them.

mod failures;
mod message;
mod speech;
mod tools;

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use self::failures::{LOGIN_REQUIRED, kind_of_text, of_error};
use self::message::{Message, RequestHead, answer, method_not_found, notification, request};
use self::speech::Speech;
use self::tools::ToolCalls;
use super::failure::{failure, without_result};
use super::lines::{FINAL_LIMIT, Noise, items, objects, one_line, tail, text, warning};
use super::{AgentEvent, Decoder, Session, StopAction, StopSignal, StopStep, Turn, TurnReport};
use crate::mission::outcome::{Exit, Failure, FailureKind, Usage};
use crate::mission::spec::Permissions;

/// The version of the protocol.
const VERSION: u64 = 1;
/// The id of our first request.
const FIRST_ID: u64 = 1;
/// The beginning of a message by which some agents report a failure of their service.
const ERROR: &str = "Error: ";
/// The beginnings of a notice by the agent itself, in one piece among the model's words.
const NOTICES: [&str; 2] = ["Info: ", "Warning: "];
/// Kinds of tool calls that change nothing.
const READING_KINDS: [&str; 4] = ["read", "search", "think", "fetch"];

/// Returns the line that begins the conversation. The decoder expects the answer to it.
pub fn initialize() -> String {
    let params = json!({
        "protocolVersion": VERSION,
        "clientCapabilities": {"fs": {"readTextFile": false, "writeTextFile": false}, "terminal": false},
        "clientInfo": {"name": "orchestrator-boss", "version": env!("CARGO_PKG_VERSION")},
    });
    request(FIRST_ID, "initialize", params)
}

/// Returns the steps of stopping an agent. The end of stdin ends most agents together with what they started. A signal
/// often reaches only a wrapper, so it comes last.
pub fn stop_steps(signal: StopSignal) -> Vec<StopStep> {
    let step = |action, seconds| StopStep { action, grace: Duration::from_secs(seconds) };
    vec![step(StopAction::CancelTurn, 3), step(StopAction::CloseStdin, 5), step(StopAction::Signal(signal), 5)]
}

/// The state of a conversation with one process of an agent.
pub struct AcpStream {
    name: String,
    directory: String,
    /// The text of the first turn.
    prompt: String,
    /// The text of the first turn if the session could not be resumed.
    prompt_anew: String,
    permissions: Permissions,
    state: State,
    /// The id of our request that has no answer yet.
    awaited: Option<u64>,
    last_id: u64,
    replies: Vec<String>,
    session_id: Option<String>,
    /// The session to resume.
    resumes: Option<String>,
    /// True in the first turn of a session that was loaded: a part of its history may still come.
    follows_history: bool,
    /// True once we have cancelled the turn, until the next one begins.
    is_cancelled: bool,
    /// Messages in the prompt of this turn of which the agent has given no sign yet.
    unconfirmed: Vec<Uuid>,
    turn: TurnFacts,
    speech: Speech,
    tools: ToolCalls,
    plan: String,
    final_message: String,
    denials: u32,
    end: Option<Result<(), Failure>>,
    noise: Noise,
}

/// The step whose answer is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Initializing,
    /// A session is opened: a new one, or an old one.
    Opening {
        resumed: bool,
    },
    Turn,
    /// No request of ours is outstanding.
    Idle,
}

/// The part of a turn that decides what its end means.
#[derive(Debug, Default)]
struct TurnFacts {
    /// True if an action was not permitted, and the model has said nothing since.
    is_denied: bool,
    /// The last piece of a message, if it is an error in one piece. A model's own words come in pieces of a few letters.
    error: Option<String>,
}

impl AcpStream {
    /// Creates the decoder of a process that gets [`initialize`] first. `name` is the name of the backend.
    pub fn new(name: String, turn: &Turn<'_>) -> Self {
        Self {
            name,
            directory: turn.dir.to_string_lossy().into_owned(),
            prompt: turn.prompt.to_owned(),
            prompt_anew: turn.prompt_anew.to_owned(),
            permissions: turn.mission.permissions,
            state: State::Initializing,
            awaited: Some(FIRST_ID),
            last_id: FIRST_ID,
            replies: Vec::new(),
            session_id: None,
            resumes: match turn.session {
                Session::Resume(id) => Some(id.to_owned()),
                Session::New(_) => None,
            },
            follows_history: false,
            is_cancelled: false,
            unconfirmed: Vec::new(),
            turn: TurnFacts::default(),
            speech: Speech::default(),
            tools: ToolCalls::default(),
            plan: String::new(),
            final_message: String::new(),
            denials: 0,
            end: None,
            noise: Noise::default(),
        }
    }

    fn read(&mut self, object: &Value) -> Vec<AgentEvent> {
        match Message::of(object) {
            Message::Request { id, method: "session/request_permission", params } => self.permission(id, params),
            Message::Request { id, .. } => {
                self.replies.push(method_not_found(id));
                Vec::new()
            }
            Message::Notification { method: "session/update", params } => self.update(&params["update"]),
            Message::Notification { method: "_session/retrying", params } => self.retrying(params),
            Message::Notification { .. } => Vec::new(),
            Message::Answer { id, result } => self.answer(id, result),
            Message::Unknown => self.noise.event(&object.to_string()).into_iter().collect(),
        }
    }

    /// Answers a request of which only the beginning can be read.
    fn answer_head(&mut self, line: &str) -> Option<AgentEvent> {
        let (id, method) = RequestHead::read(line)?;
        if method != "session/request_permission" {
            self.replies.push(method_not_found(&id));
            return None;
        }
        self.replies.push(answer(&id, json!({"outcome": {"outcome": "cancelled"}})));
        Some(self.denied("an action whose request could not be read".to_owned()))
    }

    fn answer(&mut self, id: &Value, result: Result<&Value, &Value>) -> Vec<AgentEvent> {
        if self.awaited.is_none() || id.as_u64() != self.awaited {
            let stray = format!("an answer to no request of ours (id {id})");
            return self.noise.event(&one_line(&stray)).into_iter().collect();
        }
        self.awaited = None;
        match (self.state, result) {
            (State::Initializing, Ok(result)) => self.initialized(result),
            (State::Opening { resumed }, Ok(result)) => self.opened(resumed, result),
            (State::Opening { resumed: true }, Err(error)) if error["code"] != LOGIN_REQUIRED => {
                let why = one_line(&of_error(error).message);
                self.open_anew(&format!("the agent could not resume the session ({why})"))
            }
            (State::Turn, Ok(result)) => self.turn_ended(None, result),
            (_, Err(error)) => self.turn_ended(Some(of_error(error)), &Value::Null),
            // Unreachable, since an idle state awaits nothing.
            (State::Idle, Ok(_)) => Vec::new(),
        }
    }

    fn send(&mut self, state: State, method: &str, params: Value) {
        self.last_id += 1;
        (self.state, self.awaited) = (state, Some(self.last_id));
        self.replies.push(request(self.last_id, method, params));
    }

    fn initialized(&mut self, result: &Value) -> Vec<AgentEvent> {
        let version = &result["protocolVersion"];
        if version.as_u64() != Some(VERSION) {
            let why = format!("the agent speaks version {version} of the protocol, and only {VERSION} is supported");
            return self.turn_ended(Some(failure(FailureKind::Other, why)), &Value::Null);
        }
        let offers = |place: &str| result.pointer(place).is_some_and(|it| it.is_object() || *it == Value::Bool(true));
        let method = match &self.resumes {
            None => {
                self.open_new();
                return Vec::new();
            }
            Some(_) if offers("/agentCapabilities/sessionCapabilities/resume") => "session/resume",
            Some(_) if offers("/agentCapabilities/loadSession") => "session/load",
            Some(_) => return self.open_anew("the agent cannot resume sessions"),
        };
        let params = json!({"sessionId": self.resumes, "cwd": self.directory, "mcpServers": []});
        self.send(State::Opening { resumed: true }, method, params);
        Vec::new()
    }

    fn open_new(&mut self) {
        let params = json!({"cwd": self.directory, "mcpServers": []});
        self.send(State::Opening { resumed: false }, "session/new", params);
    }

    /// Opens a new session in place of the one to resume. Its prompt contains the mission.
    fn open_anew(&mut self, why: &str) -> Vec<AgentEvent> {
        self.prompt = format!(
            "Your earlier session is lost, so you do not know what you did in it. The files are as you left them.\n\n{}",
            self.prompt_anew
        );
        self.open_new();
        vec![warning(&format!("{why}, so a new session begins with the mission"))]
    }

    fn opened(&mut self, resumed: bool, result: &Value) -> Vec<AgentEvent> {
        let id = match &self.resumes {
            Some(id) if resumed => id.clone(),
            _ => text(result, "/sessionId").to_owned(),
        };
        if id.is_empty() {
            let why = "the agent opened a session without an id";
            return self.turn_ended(Some(failure(FailureKind::Other, why)), &Value::Null);
        }
        self.session_id = Some(id.clone());
        let prompt = std::mem::take(&mut self.prompt);
        self.send_prompt(&prompt);
        self.follows_history = resumed;
        vec![AgentEvent::Session { id, model: None }]
    }

    fn send_prompt(&mut self, prompt: &str) {
        (self.end, self.is_cancelled, self.turn) = (None, false, TurnFacts::default());
        self.follows_history = false;
        (self.speech, self.plan) = (Speech::default(), String::new());
        let params = json!({"sessionId": self.session_id, "prompt": [{"type": "text", "text": prompt}]});
        self.send(State::Turn, "session/prompt", params);
    }

    fn update(&mut self, update: &Value) -> Vec<AgentEvent> {
        let kind = text(update, "/sessionUpdate");
        // The history of a resumed session is not this turn.
        if matches!(self.state, State::Initializing | State::Opening { .. }) {
            return Vec::new();
        }
        let events = match kind {
            "agent_message_chunk" => self.said(update),
            "agent_thought_chunk" => self.speech.think(text(update, "/content/text")),
            "tool_call" | "tool_call_update" => [self.speech.flush(), self.tools.update(update)].concat(),
            "plan" => self.planned(update),
            "user_message_chunk" if self.follows_history => {
                // What was said before an earlier prompt is not this turn.
                (self.speech, self.turn) = (Speech::default(), TurnFacts::default());
                return Vec::new();
            }
            _ => return Vec::new(),
        };
        [self.confirmed(), events].concat()
    }

    fn said(&mut self, update: &Value) -> Vec<AgentEvent> {
        let piece = text(update, "/content/text");
        let is_notice = text(update, "/_meta/claudeCode/kind") == "informational";
        if is_notice {
            return Vec::new();
        }
        if !piece.trim().is_empty() {
            self.turn.is_denied &= NOTICES.iter().any(|notice| piece.starts_with(notice));
            self.turn.error = piece.starts_with(ERROR).then(|| tail(piece, FINAL_LIMIT));
        }
        self.speech.say(text(update, "/messageId"), piece)
    }

    fn planned(&mut self, update: &Value) -> Vec<AgentEvent> {
        let entry = |entry: &Value| {
            let mark = match text(entry, "/status") {
                "completed" => "x",
                "in_progress" => ">",
                _ => " ",
            };
            format!("\n[{mark}] {}", one_line(text(entry, "/content")))
        };
        let plan: String = items(update, "/entries").take(100).map(entry).collect();
        if plan.is_empty() || plan == self.plan {
            return Vec::new();
        }
        self.plan.clone_from(&plan);
        let mut events = self.speech.flush();
        events.push(AgentEvent::Thought { text: format!("plan:{plan}") });
        events
    }

    /// Returns the receipts of the messages in this turn's prompt: the agent works on it.
    fn confirmed(&mut self) -> Vec<AgentEvent> {
        if self.state != State::Turn {
            return Vec::new();
        }
        let received = |message_id| AgentEvent::Received { message_id, text: None };
        std::mem::take(&mut self.unconfirmed).into_iter().map(received).collect()
    }

    fn retrying(&mut self, params: &Value) -> Vec<AgentEvent> {
        let said = [text(params, "/category"), text(params, "/detail"), text(params, "/message")];
        let said: Vec<&str> = said.into_iter().filter(|text| !text.is_empty()).collect();
        let message = said.join(": ");
        vec![AgentEvent::Retrying { failure: failure(kind_of_text(&message), message), fatal: false }]
    }

    fn permission(&mut self, id: &Value, params: &Value) -> Vec<AgentEvent> {
        let call = &params["toolCall"];
        let started = self.tools.asked(call);
        let (kind, what) = self.tools.describe(call);
        let may_run = self.state == State::Turn && !self.is_cancelled;
        let is_allowed = may_run && (self.permissions != Permissions::ReadOnly || is_reading(&kind));
        let option = |kind: &str| {
            let mut options = items(params, "/options").filter(|option| text(option, "/kind") == kind);
            options.find_map(|option| option["optionId"].as_str())
        };
        let allowed = is_allowed.then(|| option("allow_once")).flatten();
        // A turn that was cancelled gets this outcome for all its requests.
        let chosen = allowed.or_else(|| may_run.then(|| option("reject_once")).flatten());
        let outcome = match chosen {
            Some(option) => json!({"outcome": "selected", "optionId": option}),
            None => json!({"outcome": "cancelled"}),
        };
        self.replies.push(answer(id, json!({"outcome": outcome})));
        let mut events = [self.confirmed(), self.speech.flush()].concat();
        events.extend(started);
        if allowed.is_none() {
            events.push(self.denied(what));
        }
        events
    }

    fn denied(&mut self, what: String) -> AgentEvent {
        self.denials = self.denials.saturating_add(1);
        self.turn.is_denied = true;
        AgentEvent::Denied { what }
    }

    fn turn_ended(&mut self, failure: Option<Failure>, result: &Value) -> Vec<AgentEvent> {
        let mut events = [self.confirmed(), self.speech.flush()].concat();
        self.state = State::Idle;
        if !self.speech.last().is_empty() {
            self.final_message = self.speech.last().to_owned();
        }
        self.end = Some(failure.map_or_else(|| self.verdict(result), Err));
        events.push(AgentEvent::Idle);
        events
    }

    /// Judges the answer to a prompt. A good end needs the reason `end_turn`, and words of the agent.
    ///
    /// Some agents report a failure of their service as `end_turn` with the error as their last words, and only then
    /// without a usage. Some end the turn when an action is not permitted.
    fn verdict(&self, result: &Value) -> Result<(), Failure> {
        let fail = |kind, why: &str| Err(failure(kind, why));
        let denied = "the agent ended its turn because an action was not permitted";
        let words = self.speech.last();
        match text(result, "/stopReason") {
            "end_turn" if self.turn.is_denied => fail(FailureKind::Permission, denied),
            "end_turn" if words.is_empty() => {
                fail(FailureKind::NoResult, "the agent ended its turn without a word, so nothing shows success")
            }
            "end_turn" => match self.turn.error.as_deref().filter(|_| result["usage"].is_null()) {
                Some(error) => fail(kind_of_text(error), error),
                None => Ok(()),
            },
            "cancelled" if self.is_cancelled => fail(FailureKind::Other, "the turn was cancelled"),
            "cancelled" if self.turn.is_denied => fail(FailureKind::Permission, denied),
            "cancelled" => fail(FailureKind::Other, "the agent cancelled its turn by itself"),
            "refusal" => fail(FailureKind::Other, "the model refused to continue"),
            "max_tokens" => fail(FailureKind::TurnLimit, "the model's response reached its limit of tokens"),
            "max_turn_requests" => fail(FailureKind::TurnLimit, "the agent reached its limit of model calls in a turn"),
            reason => fail(FailureKind::Other, &format!("the agent ended its turn with the reason {reason:?}")),
        }
    }
}

fn is_reading(kind: &str) -> bool {
    READING_KINDS.contains(&kind)
}

impl Decoder for AcpStream {
    fn line(&mut self, line: &str) -> Vec<AgentEvent> {
        // A message is one line: what continues an object in the next line was written by something else.
        let objects = objects(line);
        if objects.is_empty() {
            let noise = self.noise.event(line);
            return noise.into_iter().chain(self.answer_head(line)).collect();
        }
        objects.iter().flat_map(|object| self.read(object)).collect()
    }

    fn replies(&mut self) -> Vec<String> {
        std::mem::take(&mut self.replies)
    }

    fn prompt(&mut self, messages: &[Uuid], text: &str) -> bool {
        let may_continue = self.is_cancelled || matches!(self.end, Some(Ok(())));
        if self.state != State::Idle || self.session_id.is_none() || !may_continue {
            return false;
        }
        self.unconfirmed = messages.to_vec();
        self.send_prompt(text);
        true
    }

    fn cancel(&mut self) -> bool {
        if self.state != State::Turn {
            return false;
        }
        if !std::mem::replace(&mut self.is_cancelled, true) {
            self.replies.push(notification("session/cancel", json!({"sessionId": self.session_id})));
        }
        true
    }

    fn is_starting(&self) -> bool {
        self.state == State::Initializing
    }

    fn end(&mut self, exit: Exit, stderr_tail: &str) -> TurnReport {
        self.speech.flush();
        if self.final_message.is_empty() {
            self.final_message = self.speech.last().to_owned();
        }
        TurnReport {
            end: self.end.take().unwrap_or_else(|| Err(without_result(&self.name, exit, stderr_tail))),
            session_id: self.session_id.clone(),
            final_message: std::mem::take(&mut self.final_message),
            usage: Usage::default(),
            usage_is_cumulative: false,
            denials: self.denials,
        }
    }
}

#[cfg(test)]
mod tests;
