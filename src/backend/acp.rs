//! Agents that speak the Agent Client Protocol (ACP, version 1): a state machine from the agent's lines to events, and
//! to the lines that it must receive. No I/O, no clock, no names of agents: the differences are in [`Traits`].
//!
//! ```text
//! initialize -> (authenticate) -> session/new, or session/resume or session/load -> its settings
//!     -> session/prompt -> its answer -> session/prompt …
//! ```
//!
//! Only an answer with the id of an open request of ours counts. A request of the agent for a permission is answered by
//! the mission's permissions, unless it becomes a question (`acp/permission.rs`). All others are answered at once: one
//! for waiting messages with them (`acp/live.rs`), any other one with "method not found", since this client offers
//! neither files nor terminals. No
//! server of the client is passed on.
//!
//! The end of a turn that the agent reports is not success by itself: see `acp/turn.rs`.

mod failures;
mod live;
mod message;
mod opening;
mod permission;
mod settings;
mod speech;
mod tools;
mod traits;
mod turn;
mod usage;

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use self::message::{Message, RequestHead, answer, method_not_found, notification, request};
use self::permission::OpenPermission;
use self::speech::Speech;
use self::tools::ToolCalls;
use self::usage::UsageCounter;
use super::failure::without_result;
use super::lines::{Noise, objects, one_line};
use super::{AgentEvent, Decoder, Session, StopAction, StopSignal, StopStep, Turn, TurnReport};
use crate::mission::outcome::{Exit, Failure};
use crate::mission::question::{QuestionPolicy, Verdict};
use crate::mission::spec::Permissions;

pub use traits::{LiveMessages, SessionSetting, SettingKind, Traits};
pub use usage::UsageMeaning;

/// The version of the protocol.
const VERSION: u64 = 1;
/// The id of our first request.
const FIRST_ID: u64 = 1;

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
    traits: Traits,
    directory: String,
    /// The folder in which edits are allowed, if it is not `directory`.
    worktree: Option<String>,
    permissions: Permissions,
    policy: QuestionPolicy,
    question_prefix: String,
    /// Number of questions so far.
    asked: u32,
    /// Requests for a permission that wait for a decision.
    open_permissions: Vec<OpenPermission>,
    /// The text of the first turn.
    prompt: String,
    /// The text of the first turn if the session could not be resumed.
    prompt_anew: String,
    state: State,
    last_id: u64,
    /// Our requests that have no answer yet.
    open_requests: Vec<OpenRequest>,
    replies: Vec<String>,
    session_id: Option<String>,
    /// True once the session has the mission: only then can another process continue with it.
    is_prompted: bool,
    /// The session to resume.
    resumes: Option<String>,
    /// The settings of the session that are still to be applied.
    settings: VecDeque<SessionSetting>,
    /// The last answer that names what the agent offers: its capabilities, then the settings of the session.
    offers: Value,
    /// True in the first turn of a session that was loaded: a part of its history may still come.
    follows_history: bool,
    /// True once we have cancelled the turn, until the next one begins.
    is_cancelled: bool,
    /// True if the agent accepts messages by the extension for steering.
    accepts_steering: bool,
    /// True if the agent accepts further directories for a session.
    accepts_directories: bool,
    /// Messages for the running turn that the agent has not taken yet. The next turn begins with those that are left.
    waiting: Vec<(Uuid, String)>,
    /// Messages in the prompt of this turn of which the agent has given no sign yet.
    unconfirmed: Vec<Uuid>,
    turn: TurnFacts,
    speech: Speech,
    tools: ToolCalls,
    plan: String,
    usage: UsageCounter,
    final_message: String,
    denials: u32,
    end: Option<Result<(), Failure>>,
    noise: Noise,
}

/// The current step of the conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Initializing,
    Authenticating,
    /// A session is opened: a new one, or an old one.
    Opening {
        resumed: bool,
    },
    /// A setting of the session is applied.
    Applying {
        kind: SettingKind,
        resumed: bool,
    },
    Turn,
    /// No turn runs.
    Idle,
}

/// A request of ours that has no answer yet.
#[derive(Debug, Clone, PartialEq)]
struct OpenRequest {
    id: u64,
    purpose: Purpose,
}

/// The purpose of a request.
#[derive(Debug, Clone, PartialEq)]
enum Purpose {
    /// The step that the state names; in a turn, its prompt.
    Step,
    /// A second prompt or a steering request with this message.
    Message { id: Uuid, text: String, is_prompt: bool },
}

/// The part of a turn that decides what its end means.
#[derive(Debug, Default)]
struct TurnFacts {
    /// True if an action was not permitted, and the model has said nothing since.
    is_denied: bool,
    /// The last piece of a message, if it is an error in one piece. A model's own words come in pieces of a few
    /// letters.
    error: Option<String>,
    /// The answer to the turn's own prompt, while messages in the same turn are not answered yet.
    result: Option<Value>,
    /// The answer to a message in the turn, if it was a bad end.
    bad_end: Option<Value>,
}

impl AcpStream {
    /// Creates the decoder of a process that gets [`initialize`] first. `name` is the name of the backend.
    pub fn new(name: String, traits: Traits, turn: &Turn<'_>) -> Self {
        Self {
            name,
            directory: turn.dir.to_string_lossy().into_owned(),
            worktree: turn.around().map(|top| top.to_string_lossy().into_owned()),
            permissions: turn.mission.permissions,
            policy: turn.questions.policy,
            question_prefix: turn.questions.prefix.to_owned(),
            asked: 0,
            open_permissions: Vec::new(),
            prompt: turn.prompt.to_owned(),
            prompt_anew: turn.prompt_anew.to_owned(),
            state: State::Initializing,
            last_id: FIRST_ID,
            open_requests: vec![OpenRequest { id: FIRST_ID, purpose: Purpose::Step }],
            replies: Vec::new(),
            session_id: None,
            is_prompted: false,
            resumes: match turn.session {
                Session::Resume(id) => Some(id.to_owned()),
                Session::New(_) => None,
            },
            settings: VecDeque::new(),
            offers: Value::Null,
            follows_history: false,
            is_cancelled: false,
            accepts_steering: false,
            accepts_directories: false,
            waiting: Vec::new(),
            unconfirmed: Vec::new(),
            turn: TurnFacts::default(),
            speech: Speech::default(),
            tools: ToolCalls::default(),
            plan: String::new(),
            usage: UsageCounter::new(traits.usage),
            final_message: String::new(),
            denials: 0,
            end: None,
            noise: Noise::default(),
            traits,
        }
    }

    fn read(&mut self, object: &Value) -> Vec<AgentEvent> {
        match Message::of(object) {
            Message::Request { id, method: "session/request_permission", params } => self.permission(id, params),
            Message::Request { id, method: "craft/drainMidTurnQueue", .. } if self.is_drained() => self.drain(id),
            Message::Request { id, .. } => {
                self.replies.push(method_not_found(id));
                Vec::new()
            }
            Message::Notification { method: "session/update", params } => self.update(&params["update"]),
            Message::Notification { method: "_session/retrying", params } => self.retrying(params),
            Message::Notification { method: "$/cancel_request", params } => self.request_cancelled(params),
            Message::Notification { .. } => Vec::new(),
            Message::Answer { id, result } => self.take_answer(id, result),
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

    fn take_answer(&mut self, id: &Value, result: Result<&Value, &Value>) -> Vec<AgentEvent> {
        let open = self.open_requests.iter().position(|request| id.as_u64() == Some(request.id));
        let Some(open) = open else {
            let stray = format!("an answer to no request of ours (id {id})");
            return self.noise.event(&one_line(&stray)).into_iter().collect();
        };
        match (self.open_requests.remove(open).purpose, self.state) {
            (Purpose::Message { id, text, is_prompt }, _) => self.message_answered(id, text, is_prompt, result),
            (Purpose::Step, State::Turn) => self.prompt_answered(result),
            (Purpose::Step, _) => self.step_answered(result),
        }
    }

    /// Begins a step with a request.
    fn send(&mut self, state: State, method: &str, params: Value) {
        self.state = state;
        self.request(Purpose::Step, method, params);
    }

    fn request(&mut self, purpose: Purpose, method: &str, params: Value) {
        self.last_id += 1;
        self.open_requests.push(OpenRequest { id: self.last_id, purpose });
        self.replies.push(request(self.last_id, method, params));
    }

    /// Returns the receipts of the messages in this turn's prompt: the agent works on it.
    fn confirmed(&mut self) -> Vec<AgentEvent> {
        if self.state != State::Turn {
            return Vec::new();
        }
        std::mem::take(&mut self.unconfirmed).into_iter().map(received).collect()
    }

    fn denied(&mut self, what: String) -> AgentEvent {
        self.denials = self.denials.saturating_add(1);
        self.turn.is_denied = true;
        AgentEvent::Denied { what }
    }
}

fn received(message_id: Uuid) -> AgentEvent {
    AgentEvent::Received { message_id, text: None }
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

    fn message(&mut self, id: Uuid, text: &str) -> bool {
        self.take_message(id, text)
    }

    fn prompt(&mut self, messages: &[Uuid], text: &str) -> bool {
        let may_continue = self.is_cancelled || matches!(self.end, Some(Ok(())));
        let has_words = !text.is_empty() || !self.waiting.is_empty();
        if self.state != State::Idle || self.session_id.is_none() || !may_continue || !has_words {
            return false;
        }
        self.send_messages(messages, text);
        true
    }

    fn answer(&mut self, question: &str, verdict: &Verdict) -> Option<Vec<AgentEvent>> {
        self.decide(question, verdict)
    }

    fn cancel(&mut self) -> bool {
        if self.state != State::Turn {
            return false;
        }
        if !std::mem::replace(&mut self.is_cancelled, true) {
            self.replies.push(notification("session/cancel", json!({"sessionId": self.session_id})));
            // The caller ends its questions itself.
            self.withdraw_all();
        }
        true
    }

    fn is_starting(&self) -> bool {
        !matches!(self.state, State::Turn | State::Idle)
    }

    fn awaits_message_only(&self) -> bool {
        self.state == State::Turn && self.turn.result.is_some()
    }

    fn give_up_message(&mut self) -> Vec<AgentEvent> {
        if !self.awaits_message_only() {
            return Vec::new();
        }
        for request in std::mem::take(&mut self.open_requests) {
            if let Purpose::Message { id, text, .. } = request.purpose {
                self.waiting.push((id, text));
            }
        }
        self.turn_answered()
    }

    fn end(&mut self, exit: Exit, stderr_tail: &str) -> TurnReport {
        self.speech.flush();
        if self.final_message.is_empty() {
            self.final_message = self.speech.last().to_owned();
        }
        TurnReport {
            end: self.end.take().unwrap_or_else(|| Err(without_result(&self.name, exit, stderr_tail))),
            session_id: self.session_id.clone().filter(|_| self.is_prompted),
            final_message: std::mem::take(&mut self.final_message),
            usage: self.usage.total(),
            usage_is_cumulative: self.traits.usage.is_cumulative(),
            denials: self.denials,
        }
    }
}

#[cfg(test)]
mod tests;
