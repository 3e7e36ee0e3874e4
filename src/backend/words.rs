//! Describes an event in words, for models (in tool answers) and for users (in `logs`).

use super::AgentEvent;

impl AgentEvent {
    /// Returns whether the event is of no use to readers.
    pub fn is_bookkeeping(&self) -> bool {
        matches!(self, AgentEvent::Usage { .. } | AgentEvent::Idle | AgentEvent::Busy)
    }

    /// Returns the whole event in words, as several lines if the worker wrote several. The text is not sanitised.
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
            AgentEvent::Asked { question } => format!("asks ({}): {}", question.id, question.text),
            AgentEvent::Answered { question, decision, by } => {
                format!("{question} was answered by the {}: {decision}", by.as_str())
            }
            AgentEvent::Withdrawn { question } => format!("{question} was withdrawn"),
            AgentEvent::Retrying { failure, .. } => format!("retrying after: {}", failure.message),
            AgentEvent::Received { text: Some(text), .. } => format!("received: {text}"),
            AgentEvent::Received { text: None, .. } => "received a message".to_owned(),
            AgentEvent::Usage { usage } => format!("used {} tokens", usage.tokens()),
            AgentEvent::Warning { text } => format!("warning: {text}"),
            AgentEvent::SetUp { command, seconds } => format!("setup passed ({seconds:.1} s): {command}"),
            AgentEvent::Idle => "turn over".to_owned(),
            AgentEvent::Busy => "another turn".to_owned(),
        }
    }
}
