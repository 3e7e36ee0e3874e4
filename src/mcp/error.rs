//! What a tool says when it cannot do what was asked. The boss reads it, so it names the next call to make.

use thiserror::Error;

use super::arguments::ArgumentError;
use super::{hint, size};
use crate::mission::causes::{with_causes, written_out};
use crate::mission::hint::Advice;
use crate::orchestrator::OrchestratorError;

#[derive(Debug, Error)]
pub(super) enum ToolError {
    #[error("wrong arguments: {0}")]
    Arguments(#[from] ArgumentError),
    #[error(transparent)]
    Orchestrator(#[from] OrchestratorError),
    /// A batch without any created mission, with each item's reason on a line.
    #[error(
        "none of the {count} missions was created; nothing runs because of this call. Mend them and call again:\n{reasons}"
    )]
    NothingCreated { count: usize, reasons: String },
    #[error("{reason}")]
    CannotLead { reason: String },
    #[error(
        "{tool} failed inside of orchestrator-boss, which is a bug in it: the workers go on. Call list_worker_missions to see where things stand, then try once more"
    )]
    Panicked { tool: &'static str },
}

impl ToolError {
    /// Returns the whole answer. The first word is for Codex, which shows errors to its model without any mark.
    pub(super) fn answer(&self) -> String {
        let text = match self {
            Self::Orchestrator(error) => hint::line(&Advice::of(error)),
            error => with_causes(error),
        };
        // The answer quotes wrong arguments, and clients print answers to terminals.
        let text = written_out(&text, |c| matches!(c, '\n' | '\t'));
        format!("ERROR: {}", size::ends(&text, size::ANSWER - 200))
    }
}
