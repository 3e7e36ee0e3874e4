//! The events of a turn, and the meaning of its end.

use serde_json::{Value, json};

use super::failures::{kind_of_text, of_error};
use super::speech::Speech;
use super::{AcpStream, State, TurnFacts};
use crate::backend::AgentEvent;
use crate::backend::failure::failure;
use crate::backend::lines::{FINAL_LIMIT, items, one_line, tail, text};
use crate::mission::outcome::{Failure, FailureKind};

/// The beginning of a message by which some agents report a failure of their service.
const ERROR: &str = "Error: ";
/// The beginnings of a notice by the agent itself, in one piece among the model's words.
const NOTICES: [&str; 2] = ["Info: ", "Warning: "];

fn is_notice(piece: &str) -> bool {
    NOTICES.iter().any(|notice| piece.starts_with(notice))
}

impl AcpStream {
    pub(super) fn send_prompt(&mut self, prompt: &str) {
        (self.end, self.is_cancelled, self.turn) = (None, false, TurnFacts::default());
        self.follows_history = false;
        (self.speech, self.plan) = (Speech::default(), String::new());
        let params = json!({"sessionId": self.session_id, "prompt": [{"type": "text", "text": prompt}]});
        self.send(State::Turn, "session/prompt", params);
    }

    pub(super) fn update(&mut self, update: &Value) -> Vec<AgentEvent> {
        // The history of a resumed session is not this turn.
        if !matches!(self.state, State::Turn | State::Idle) {
            return Vec::new();
        }
        let kind = text(update, "/sessionUpdate");
        let counted = self.usage.take_update(update).then(|| AgentEvent::Usage { usage: self.usage.total() });
        let events = match kind {
            "agent_message_chunk" => self.said(update),
            "agent_thought_chunk" => self.speech.think(text(update, "/content/text")),
            "tool_call" | "tool_call_update" => [self.speech.flush(), self.tools.update(update)].concat(),
            "plan" => self.planned(update),
            "user_message_chunk" if self.follows_history => {
                // The history repeats an earlier prompt here, so all before it belongs to an earlier turn.
                (self.speech, self.turn) = (Speech::default(), TurnFacts::default());
                return Vec::new();
            }
            _ => return counted.into_iter().collect(),
        };
        self.confirmed().into_iter().chain(events).chain(counted).collect()
    }

    fn said(&mut self, update: &Value) -> Vec<AgentEvent> {
        let piece = text(update, "/content/text");
        if text(update, "/_meta/claudeCode/kind") == "informational" {
            return Vec::new();
        }
        if !piece.trim().is_empty() {
            self.turn.is_denied &= is_notice(piece);
            self.turn.error = piece.starts_with(ERROR).then(|| tail(piece, FINAL_LIMIT));
        }
        if self.traits.mixes_notices && (is_notice(piece) || piece.starts_with(ERROR)) {
            return self.speech.say_whole(piece);
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

    pub(super) fn retrying(&mut self, params: &Value) -> Vec<AgentEvent> {
        let said = [text(params, "/category"), text(params, "/detail"), text(params, "/message")];
        let said: Vec<&str> = said.into_iter().filter(|text| !text.is_empty()).collect();
        let message = said.join(": ");
        vec![AgentEvent::Retrying { failure: failure(kind_of_text(&message), message), fatal: false }]
    }

    /// Takes the answer to the prompt of the turn.
    pub(super) fn prompt_answered(&mut self, result: Result<&Value, &Value>) -> Vec<AgentEvent> {
        match result {
            Ok(result) => {
                self.turn.result = Some(result.clone());
                if self.awaits_answer() { Vec::new() } else { self.turn_answered() }
            }
            Err(error) => self.turn_failed(of_error(error)),
        }
    }

    /// Ends the turn once everything in it is answered. Messages that it did not take begin the next one.
    pub(super) fn turn_answered(&mut self) -> Vec<AgentEvent> {
        let own = self.turn.result.take().unwrap_or_default();
        let mut events = [self.confirmed(), self.speech.flush()].concat();
        if self.usage.take_result(&own) {
            events.push(AgentEvent::Usage { usage: self.usage.total() });
        }
        let verdict = match (self.verdict(&own), self.turn.bad_end.take()) {
            (Ok(()), Some(bad_end)) => self.verdict(&bad_end),
            (verdict, _) => verdict,
        };
        events.extend(self.turn_ended(verdict));
        events
    }

    pub(super) fn turn_failed(&mut self, failure: Failure) -> Vec<AgentEvent> {
        let events = [self.confirmed(), self.speech.flush()].concat();
        [events, self.turn_ended(Err(failure))].concat()
    }

    fn turn_ended(&mut self, end: Result<(), Failure>) -> Vec<AgentEvent> {
        self.state = State::Idle;
        self.keep_final_message();
        self.end = Some(end);
        let withdrawn = self.withdraw_all();
        withdrawn.into_iter().chain([AgentEvent::Idle]).collect()
    }

    fn keep_final_message(&mut self) {
        if !self.speech.last().is_empty() {
            self.final_message = self.speech.last().to_owned();
        }
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
            "end_turn" if result["usage"].is_null() && self.traits.usage_shows_success => {
                fail(kind_of_text(words), words)
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
            "" => fail(FailureKind::Other, "the agent ended its turn without a reason"),
            reason => fail(FailureKind::Other, &format!("the agent ended its turn with the reason {reason:?}")),
        }
    }
}
