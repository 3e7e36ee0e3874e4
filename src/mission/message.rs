//! Messages from the user or a boss to a worker, and the reasons of cancellations.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The author of a message or a cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Author {
    /// The boss, by a tool call.
    Boss,
    /// The user, by a command or in `status --watch`.
    User,
}

/// A message that was written for an attempt before it began: feedback, a new prompt, or a message to a queued worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    pub id: Uuid,
    pub at: Timestamp,
    pub by: Author,
    pub text: String,
}

/// The reason for a cancellation. `by` is `None` if no author requested it: another worker won the race.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cancelled {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Author>,
    pub reason: String,
}

impl Author {
    pub fn as_str(self) -> &'static str {
        match self {
            Author::Boss => "boss",
            Author::User => "user",
        }
    }
}

impl Cancelled {
    /// Returns a text such as `by the user: the plan has changed`. A reason is returned unchanged if it has no author
    /// or begins with `asked for `.
    pub fn words(&self) -> String {
        match self.by {
            Some(by) if !self.reason.starts_with("asked for ") => format!("by the {}: {}", by.as_str(), self.reason),
            _ => self.reason.clone(),
        }
    }

    /// Returns a sentence such as `cancelled by the user: the plan has changed`.
    pub fn sentence(&self) -> String {
        let words = self.words();
        let colon = if words.starts_with("by the ") { "" } else { ":" };
        format!("cancelled{colon} {words}")
    }
}

/// Returns a text such as `1 message was not delivered: "look at b"`. `None` if there are no texts.
pub fn describe_undelivered(texts: &[String]) -> Option<String> {
    let quoted = texts.iter().map(|text| format!("{:?}", text.trim())).collect::<Vec<_>>().join(", ");
    match texts.len() {
        0 => None,
        1 => Some(format!("1 message was not delivered: {quoted}")),
        count => Some(format!("{count} messages were not delivered: {quoted}")),
    }
}
