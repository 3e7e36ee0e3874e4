//! The errors of answers to questions.

use thiserror::Error;

use crate::mission::hint::{Hint, Hinted};
use crate::mission::lifecycle::WorkerStatus;
use crate::mission::question::{Decision, InvalidDecision};

/// A reason why an answer to a question does not count, or is not known to.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QuestionError {
    #[error("cannot answer {worker}: it has no open question{}", named(question.as_deref()))]
    NotOpen { worker: String, question: Option<String>, open: Vec<String> },
    #[error("cannot answer {worker}: {} questions are open", open.len())]
    Several { worker: String, open: Vec<String> },
    #[error("cannot answer {question} of {worker}: it was already answered by the {by}: {decision}")]
    AlreadyAnswered { worker: String, question: String, by: &'static str, decision: Decision },
    #[error("cannot answer {question} of {worker}: its turn ended without an answer")]
    Withdrawn { worker: String, question: String },
    #[error("cannot answer {worker}: it is {status}, so it waits for no answer")]
    NotRunning { worker: String, status: WorkerStatus },
    #[error("cannot confirm the answer to {question} of {worker}: its supervisor has not read it yet, and will")]
    Unconfirmed { worker: String, question: String },
    #[error(transparent)]
    Invalid(#[from] InvalidDecision),
}

fn named(question: Option<&str>) -> String {
    question.map(|question| format!(" {question:?}")).unwrap_or_default()
}

impl Hinted for QuestionError {
    fn hints(&self) -> Vec<Hint> {
        match self {
            Self::NotOpen { open, .. } | Self::Several { open, .. } if !open.is_empty() => {
                vec![Hint::to(format!("name one of {}", open.join(", ")))]
            }
            Self::Invalid(error) => error.hints(),
            Self::NotRunning { status, .. } if status.is_settled() => Vec::new(),
            Self::NotOpen { worker, .. }
            | Self::Several { worker, .. }
            | Self::AlreadyAnswered { worker, .. }
            | Self::Withdrawn { worker, .. }
            | Self::NotRunning { worker, .. }
            | Self::Unconfirmed { worker, .. } => vec![Hint::WaitFor(worker.clone())],
        }
    }
}
