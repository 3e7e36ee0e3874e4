//! What an event says to those who read: models by the tools, people by `logs`.

use super::AgentEvent;

impl AgentEvent {
    /// Whether it is of no use to anybody who reads.
    pub fn is_bookkeeping(&self) -> bool {
        matches!(self, AgentEvent::Usage { .. } | AgentEvent::Idle | AgentEvent::Busy)
    }

    /// In words, whole: several lines where the worker said several. As it came, so it may hold anything.
    pub fn words(&self) -> String {
        match self {
            AgentEvent::Session { id, model: Some(model) } => format!("session {id} ({model})"),
            AgentEvent::Session { id, model: None } => format!("session {id}"),
            AgentEvent::Said { text } => format!("said: {text}"),
            AgentEvent::Thought { text } => format!("thought: {text}"),
            AgentEvent::ToolStarted { tool, what, .. } => format!("{tool}: {what}"),
            AgentEvent::ToolEnded { ok, exit_code, output, .. } => {
                let how = match (exit_code, ok) {
                    (Some(code), _) => format!("exit {code}"),
                    (None, Some(true)) => "ok".to_owned(),
                    (None, Some(false)) => "failed".to_owned(),
                    (None, None) => "ended".to_owned(),
                };
                format!("  {how}: {output}").trim_end_matches(": ").to_owned()
            }
            AgentEvent::Edited { paths } => format!("edited {}", paths.join(", ")),
            AgentEvent::Denied { what } => format!("was not permitted: {what}"),
            AgentEvent::Retrying { failure, .. } => format!("tries again after: {}", failure.message),
            AgentEvent::Received { text: Some(text), .. } => format!("heard: {text}"),
            AgentEvent::Received { text: None, .. } => "received a message".to_owned(),
            AgentEvent::Usage { usage } => format!("used {} tokens", usage.input_tokens + usage.output_tokens),
            AgentEvent::Warning { text } => format!("warning: {text}"),
            AgentEvent::Idle => "turn over".to_owned(),
            AgentEvent::Busy => "another turn".to_owned(),
        }
    }
}
