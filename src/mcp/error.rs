//! What a tool says when it cannot do what was asked. The boss reads it, so it names the next call to make.

use thiserror::Error;

use super::arguments::ArgumentError;
use super::size;
use crate::mission::causes::with_causes;
use crate::orchestrator::OrchestratorError;

#[derive(Debug, Error)]
pub(super) enum ToolError {
    #[error("wrong arguments: {0}")]
    Arguments(#[from] ArgumentError),
    #[error("{0}; list_worker_missions shows them all")]
    UnknownWorker(OrchestratorError),
    #[error(transparent)]
    Orchestrator(OrchestratorError),
    /// Each item's own reason, one a line.
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

impl From<OrchestratorError> for ToolError {
    fn from(error: OrchestratorError) -> Self {
        match error {
            OrchestratorError::UnknownWorker { .. } => ToolError::UnknownWorker(error),
            error => ToolError::Orchestrator(error),
        }
    }
}

impl ToolError {
    /// The whole answer. The word in front is for Codex, which shows its model errors without any mark.
    pub(super) fn answer(&self) -> String {
        format!("ERROR: {}", size::ends(&written_out(&with_causes(self)), size::ANSWER - 200))
    }
}

/// A word that was given wrongly is said back, and clients print answers to terminals: nothing in it may steer one.
fn written_out(text: &str) -> String {
    let steers = |c: &char| c.is_control() && !matches!(c, '\n' | '\t');
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match steers(&c) {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}
