//! A question of a worker, as waits and answers about the worker show it.

use serde::Serialize;

use crate::mcp::size;
use crate::mission::question::{Choice, Question};
use crate::orchestrator::QuestionView;
use crate::process;

/// Maximum size in bytes of the choices of a question.
const CHOICES: usize = 500;
/// Maximum size in bytes of the name of a choice.
const CHOICE_NAME: usize = 60;
/// Size in bytes of a question without its text and its choices, at most.
const ENVELOPE: usize = 260;
/// Minimum size in bytes of its text.
const SHORTEST: usize = 160;

/// An open question, as a model reads it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in crate::mcp) struct QuestionReport {
    #[serde(skip_serializing_if = "Option::is_none")]
    worker_id: Option<String>,
    question_id: String,
    text: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    choices: Vec<ChoiceReport>,
    asked_at: String,
    /// Seconds until it is denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    default_after: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct ChoiceReport {
    id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
}

impl QuestionReport {
    /// Builds a report of about `room` bytes, with the beginning and the end of a text that is too long.
    pub(in crate::mcp) fn new(view: &QuestionView, room: usize) -> Self {
        let Question { id, text, choices, .. } = &view.open.question;
        let (choices, _) = size::fit(choices.iter().map(ChoiceReport::new), CHOICES);
        let left = view.open.denied_at.map(|at| at.saturating_sub(process::monotonic()).as_secs());
        let for_text = room.saturating_sub(ENVELOPE + size::of(&choices)).max(SHORTEST);
        Self {
            worker_id: Some(view.worker_id.to_string()),
            question_id: size::line(id, 60),
            text: size::ends(text, for_text),
            choices,
            asked_at: view.open.asked_at.to_string(),
            default_after: left,
        }
    }

    /// Leaves out the id of the worker, for an answer about it.
    pub(in crate::mcp) fn of_known_worker(self) -> Self {
        Self { worker_id: None, ..self }
    }
}

impl ChoiceReport {
    fn new(choice: &Choice) -> Self {
        Self { id: choice.id.clone(), name: size::line(&choice.name, CHOICE_NAME) }
    }
}
