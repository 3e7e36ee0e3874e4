//! Joins the pieces of a few letters in which an agent sends its messages and thoughts. Bounded in memory.

use crate::backend::AgentEvent;
use crate::backend::lines::{FINAL_LIMIT, SAID_LIMIT, said, tail, thought};

/// The agent's words of one turn.
#[derive(Default)]
pub struct Speech {
    /// The message that is being sent, and the part of it that was reported, in bytes.
    message: String,
    reported: usize,
    /// True if another event came after the last piece.
    is_interrupted: bool,
    /// The agent's id of the message; empty if it gives none.
    message_id: String,
    thought: String,
    /// The last message with words in it.
    last: String,
}

impl Speech {
    /// Adds a piece of a message. A new id, or a piece after other events without an id, begins a new message.
    pub fn say(&mut self, id: &str, piece: &str) -> Vec<AgentEvent> {
        if piece.is_empty() {
            return Vec::new();
        }
        let mut events: Vec<AgentEvent> = self.flush_thought().into_iter().collect();
        if id != self.message_id || (id.is_empty() && self.is_interrupted) {
            events.extend(self.flush_message());
            self.message.clear();
            self.reported = 0;
            self.message_id = tail(id, SAID_LIMIT);
        }
        self.message.push_str(piece);
        self.is_interrupted = false;
        if self.message.len() > 2 * FINAL_LIMIT {
            events.extend(self.flush_message());
            self.message = tail(&self.message, FINAL_LIMIT);
            self.reported = self.message.len();
            self.is_interrupted = false;
        }
        events
    }

    /// Adds a message that is one piece, without an id.
    pub fn say_whole(&mut self, message: &str) -> Vec<AgentEvent> {
        let before = self.flush();
        let said = self.say("", message);
        [before, said, self.flush()].concat()
    }

    pub fn think(&mut self, piece: &str) -> Vec<AgentEvent> {
        let events = self.flush_message().into_iter().collect();
        self.thought.push_str(&tail(piece, SAID_LIMIT));
        if self.thought.len() > 2 * SAID_LIMIT {
            self.thought = tail(&self.thought, SAID_LIMIT);
        }
        events
    }

    /// Returns the events of what was not reported yet. To be called before another event.
    pub fn flush(&mut self) -> Vec<AgentEvent> {
        self.flush_thought().into_iter().chain(self.flush_message()).collect()
    }

    fn flush_thought(&mut self) -> Option<AgentEvent> {
        thought(&std::mem::take(&mut self.thought))
    }

    fn flush_message(&mut self) -> Option<AgentEvent> {
        let event = said(&self.message[self.reported..]);
        self.reported = self.message.len();
        self.is_interrupted = true;
        if event.is_some() {
            self.last = tail(self.message.trim(), FINAL_LIMIT);
        }
        event
    }

    /// Returns the last message; empty if the agent said nothing.
    pub fn last(&self) -> &str {
        &self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(events: Vec<AgentEvent>) -> Vec<String> {
        events.iter().map(AgentEvent::words).collect()
    }

    #[test]
    fn pieces_become_one_message() {
        let mut speech = Speech::default();
        assert!(speech.say("", "I ").is_empty());
        assert!(speech.say("", "look").is_empty());
        assert_eq!(texts(speech.flush()), ["said: I look"]);
        assert!(speech.say("", "Do").is_empty());
        assert!(speech.say("", "ne").is_empty());
        assert_eq!(texts(speech.flush()), ["said: Done"]);
        assert!(speech.flush().is_empty());
        assert_eq!(speech.last(), "Done");
    }

    #[test]
    fn whole_message_is_joined_to_no_other() {
        let mut speech = Speech::default();
        speech.say("", "before");
        assert_eq!(texts(speech.say_whole("Info: a")), ["said: before", "said: Info: a"]);
        assert_eq!(texts(speech.say_whole("Warning: b")), ["said: Warning: b"]);
        speech.say("", "after");
        assert_eq!(texts(speech.flush()), ["said: after"]);
        assert_eq!(speech.last(), "after");
    }

    #[test]
    fn message_with_an_id_continues_after_other_events() {
        let mut speech = Speech::default();
        speech.say("m1", "first");
        assert_eq!(texts(speech.think("hm")), ["said: first"]);
        assert_eq!(texts(speech.say("m1", " half")), ["thought: hm"]);
        speech.flush();
        assert_eq!(speech.last(), "first half");
        speech.say("m2", "other");
        speech.flush();
        assert_eq!(speech.last(), "other");
    }
}
