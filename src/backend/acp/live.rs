//! Messages for a running turn. Each agent takes them in its own way, or not at all. A further turn begins with the
//! messages that it did not take, so none is lost.

use serde_json::{Value, json};
use uuid::Uuid;

use super::message::answer;
use super::traits::LiveMessages;
use super::{AcpStream, Purpose, State, received};
use crate::backend::AgentEvent;
use crate::backend::lines::text as field;

impl AcpStream {
    /// Takes a message for the running turn. Returns false if the agent cannot receive one, or if no turn runs.
    pub(super) fn take_message(&mut self, id: Uuid, text: &str) -> bool {
        if self.state != State::Turn || self.is_cancelled {
            return false;
        }
        let params = json!({"sessionId": self.session_id, "prompt": [{"type": "text", "text": text}]});
        let message = |is_prompt| Purpose::Message { id, text: text.to_owned(), is_prompt };
        match self.traits.messages {
            LiveMessages::SecondPrompt => self.request(message(true), "session/prompt", params),
            LiveMessages::Steering if self.accepts_steering => {
                self.request(message(false), "_session/steering", params);
            }
            LiveMessages::Drained => self.waiting.push((id, text.to_owned())),
            LiveMessages::Steering | LiveMessages::NextTurn => return false,
        }
        true
    }

    pub(super) fn is_drained(&self) -> bool {
        self.traits.messages == LiveMessages::Drained
    }

    /// Answers the agent's request for waiting messages.
    pub(super) fn drain(&mut self, id: &Value) -> Vec<AgentEvent> {
        let may_take = self.state == State::Turn && !self.is_cancelled;
        let taken = if may_take { std::mem::take(&mut self.waiting) } else { Vec::new() };
        let texts: Vec<&str> = taken.iter().map(|(_, text)| text.as_str()).collect();
        self.replies.push(answer(id, json!({"messages": texts, "hasQueuedPrompt": false})));
        taken.into_iter().map(|(id, _)| received(id)).collect()
    }

    /// Takes the answer to a message. One that did not reach the turn begins the next one.
    pub(super) fn message_answered(
        &mut self,
        id: Uuid,
        text: String,
        is_prompt: bool,
        result: Result<&Value, &Value>,
    ) -> Vec<AgentEvent> {
        if self.state != State::Turn {
            // Work outside a turn ends with the agent's process, so the message is sent again.
            return Vec::new();
        }
        let end = result.map_or("", |result| field(result, if is_prompt { "/stopReason" } else { "/outcome" }));
        let was_taken = if is_prompt { !matches!(end, "" | "cancelled") } else { end == "injected" };
        let mut events = Vec::new();
        if was_taken && !self.is_cancelled {
            events.push(received(id));
            if is_prompt && end != "end_turn" {
                self.turn.bad_end = result.ok().cloned();
            }
        } else {
            self.waiting.push((id, text));
        }
        if !self.awaits_answer() {
            events.extend(self.turn_answered());
        }
        events
    }

    /// Begins a further turn with these messages, after those that the last turn did not take.
    pub(super) fn send_messages(&mut self, messages: &[Uuid], text: &str) {
        let waiting = std::mem::take(&mut self.waiting);
        self.unconfirmed = waiting.iter().map(|(id, _)| *id).chain(messages.iter().copied()).collect();
        let texts = waiting.iter().map(|(_, text)| text.as_str()).chain((!text.is_empty()).then_some(text));
        let prompt = texts.collect::<Vec<_>>().join("\n\n");
        self.send_prompt(&prompt);
    }

    /// Returns whether the turn still awaits the answer to its prompt, or to a second prompt that has joined it.
    pub(super) fn awaits_answer(&self) -> bool {
        let is_prompt = |purpose: &Purpose| !matches!(purpose, Purpose::Message { is_prompt: false, .. });
        self.turn.result.is_none() || self.open_requests.iter().any(|request| is_prompt(&request.purpose))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Traits;
    use super::super::tests::{answer_with, in_turn_with, says, sent};
    use super::*;
    use crate::backend::Decoder;
    use crate::mission::outcome::{Exit, FailureKind};
    use crate::mission::spec::Permissions;

    const ID: Uuid = Uuid::from_u128(7);

    fn in_turn(messages: LiveMessages) -> AcpStream {
        in_turn_with(Traits { messages, ..Traits::default() }, Permissions::Edit)
    }

    fn is_received(events: &[AgentEvent]) -> bool {
        events.contains(&received(ID))
    }

    #[test]
    fn agent_without_live_messages_takes_none() {
        let mut stream = in_turn(LiveMessages::NextTurn);
        assert!(!stream.message(ID, "also this"));
        assert!(sent(&mut stream).is_empty());
    }

    #[test]
    fn turn_ends_when_its_second_prompt_is_answered() {
        let mut stream = in_turn(LiveMessages::SecondPrompt);
        assert!(stream.message(ID, "also this"));
        assert_eq!(sent(&mut stream)[0]["method"], "session/prompt");
        says(&mut stream, "Both done.");
        let (_, events) = answer_with(&mut stream, json!({"stopReason": "end_turn"}));
        assert!(!events.contains(&AgentEvent::Idle), "{events:?}");
        let (_, events) = answer_with(&mut stream, json!({"stopReason": "end_turn"}));
        assert!(is_received(&events) && events.contains(&AgentEvent::Idle), "{events:?}");
        assert_eq!(stream.end(Exit::Code(0), "").end, Ok(()));
    }

    #[test]
    fn refused_second_prompt_begins_the_next_turn() {
        for answer in [json!({"error": {"code": -32603}}), json!({"result": {"stopReason": "cancelled"}})] {
            let mut stream = in_turn(LiveMessages::SecondPrompt);
            assert!(stream.message(ID, "also this"));
            let mut line = answer;
            line["id"] = sent(&mut stream)[0]["id"].clone();
            assert!(stream.line(&line.to_string()).is_empty());
            says(&mut stream, "One done.");
            let (_, events) = answer_with(&mut stream, json!({"stopReason": "end_turn"}));
            assert!(events.contains(&AgentEvent::Idle) && !is_received(&events), "{events:?}");
            assert!(stream.prompt(&[], ""));
            assert_eq!(sent(&mut stream)[0]["params"]["prompt"][0]["text"], "also this");
            assert!(is_received(&says(&mut stream, "Two done.")));
        }
    }

    #[test]
    fn bad_end_of_second_prompt_is_that_of_turn() {
        let mut stream = in_turn(LiveMessages::SecondPrompt);
        assert!(stream.message(ID, "also this"));
        says(&mut stream, "Both done.");
        answer_with(&mut stream, json!({"stopReason": "end_turn"}));
        let (_, events) = answer_with(&mut stream, json!({"stopReason": "max_tokens"}));
        assert!(is_received(&events), "{events:?}");
        assert_eq!(stream.end(Exit::Code(0), "").end.unwrap_err().kind, FailureKind::TurnLimit);
    }

    #[test]
    fn unanswered_second_prompt_is_given_up() {
        let mut stream = in_turn(LiveMessages::SecondPrompt);
        assert!(stream.message(ID, "also this"));
        sent(&mut stream);
        assert!(stream.give_up_message().is_empty(), "its own prompt is not answered");
        says(&mut stream, "Done.");
        answer_with(&mut stream, json!({"stopReason": "end_turn"}));
        assert!(stream.awaits_message_only());
        assert!(stream.give_up_message().contains(&AgentEvent::Idle));
        assert!(stream.prompt(&[], ""));
        assert_eq!(sent(&mut stream)[0]["params"]["prompt"][0]["text"], "also this");
    }

    #[test]
    fn steering_is_received_when_it_is_injected() {
        for (outcome, arrived) in [("injected", true), ("promptRequired", false)] {
            let mut stream = in_turn(LiveMessages::Steering);
            assert!(stream.message(ID, "also this"));
            let request = sent(&mut stream).remove(0);
            assert_eq!(request["method"], "_session/steering");
            let answer = json!({"jsonrpc": "2.0", "id": request["id"], "result": {"outcome": outcome}});
            assert_eq!(is_received(&stream.line(&answer.to_string())), arrived, "{outcome}");
            says(&mut stream, "Done.");
            answer_with(&mut stream, json!({"stopReason": "end_turn"}));
            assert_eq!(stream.prompt(&[], ""), !arrived, "{outcome}");
        }
    }

    #[test]
    fn steering_after_the_turn_is_not_received() {
        let mut stream = in_turn(LiveMessages::Steering);
        assert!(stream.message(ID, "also this"));
        let request = sent(&mut stream).remove(0);
        says(&mut stream, "Done.");
        let line = json!({"jsonrpc": "2.0", "id": 3, "result": {"stopReason": "end_turn"}}).to_string();
        assert!(stream.line(&line).contains(&AgentEvent::Idle));
        let answer = json!({"jsonrpc": "2.0", "id": request["id"], "result": {"outcome": "injected"}});
        assert!(stream.line(&answer.to_string()).is_empty());
    }

    #[test]
    fn agent_that_asks_gets_waiting_messages() {
        let mut stream = in_turn(LiveMessages::Drained);
        assert!(stream.message(ID, "also this"));
        assert!(sent(&mut stream).is_empty());
        let asks = json!({"jsonrpc": "2.0", "id": 1, "method": "craft/drainMidTurnQueue", "params": {}}).to_string();
        assert!(is_received(&stream.line(&asks)));
        assert_eq!(sent(&mut stream)[0]["result"]["messages"], json!(["also this"]));
        assert!(stream.line(&asks).is_empty());
        assert_eq!(sent(&mut stream)[0]["result"]["messages"], json!([]), "the second request gets no message");
    }

    #[test]
    fn message_of_cancelled_turn_begins_next_one() {
        let mut stream = in_turn(LiveMessages::Drained);
        assert!(stream.message(ID, "also this"));
        assert!(stream.cancel());
        says(&mut stream, "Done.");
        let (next, _) = answer_with(&mut stream, json!({"stopReason": "end_turn"}));
        assert!(next.iter().all(|line| line["method"] != "session/prompt"), "the supervisor decides: {next:?}");
        assert!(stream.prompt(&[Uuid::from_u128(8)], "instead"));
        assert_eq!(sent(&mut stream).pop().unwrap()["params"]["prompt"][0]["text"], "also this\n\ninstead");
    }
}
