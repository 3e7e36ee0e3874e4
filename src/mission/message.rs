//! What people and bosses write to a worker, and why one was called off.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Who wrote something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Author {
    /// By a tool.
    Boss,
    /// By a command, or in `status --watch`.
    User,
}

/// Something that was written for an attempt before it began: feedback, a new prompt, a message to a queued worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    pub id: Uuid,
    pub at: Timestamp,
    pub by: Author,
    pub text: String,
}

/// Why an attempt was cancelled. `by` is `None` where nobody asked for it (a race was won by another), or where an
/// earlier build did not note it.
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
    /// `by the user: the plan has changed`; what says who by itself stays as it is.
    pub fn words(&self) -> String {
        match self.by {
            Some(by) if !self.reason.starts_with("asked for ") => format!("by the {}: {}", by.as_str(), self.reason),
            _ => self.reason.clone(),
        }
    }
}

impl Cancelled {
    /// `cancelled by the user: the plan has changed`.
    pub fn sentence(&self) -> String {
        let words = self.words();
        let colon = if words.starts_with("by the ") { "" } else { ":" };
        format!("cancelled{colon} {words}")
    }
}

/// `1 message was not heard: "look at b"`; `None` where all were.
pub fn not_heard(texts: &[String]) -> Option<String> {
    let quoted = texts.iter().map(|text| format!("{:?}", text.trim())).collect::<Vec<_>>().join(", ");
    match texts.len() {
        0 => None,
        1 => Some(format!("1 message was not heard: {quoted}")),
        count => Some(format!("{count} messages were not heard: {quoted}")),
    }
}
