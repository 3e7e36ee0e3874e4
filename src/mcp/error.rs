//! Errors of tool calls. The boss reads them, so they name the next call to make.

use std::sync::Arc;

use thiserror::Error;

use super::arguments::ArgumentError;
use super::starter::StartError;
use super::{hint, size};
use crate::mission::causes::with_causes;
use crate::mission::sanitize;
use crate::orchestrator::OrchestratorError;

#[derive(Debug, Error)]
pub(super) enum ToolError {
    #[error("wrong arguments: {0}")]
    Arguments(#[from] ArgumentError),
    #[error(transparent)]
    Orchestrator(#[from] OrchestratorError),
    /// A batch without any created mission, with one line for each mission.
    #[error(
        "none of the {count} missions was created, and no worker was started. Correct them and call again:\n{reasons}"
    )]
    NothingCreated { count: usize, reasons: String },
    #[error(transparent)]
    NotStarted(#[from] Arc<StartError>),
    #[error(
        "{tool} failed because of a bug in orchestrator-boss; the workers keep running. Call list_worker_missions to see their state, then try again"
    )]
    Panicked { tool: &'static str },
}

impl ToolError {
    /// Returns the whole answer. Its first word is for Codex, which does not mark errors for its model.
    pub(super) fn answer(&self) -> String {
        let text = match self {
            Self::Orchestrator(error) => hint::of(error),
            Self::NotStarted(error) => hint::of(&**error),
            error => with_causes(error),
        };
        // The answer quotes wrong arguments, and clients print answers to terminals.
        let text = sanitize::escaped(&text, |c| matches!(c, '\n' | '\t'));
        format!("ERROR: {}", size::ends(&text, size::ANSWER - 200))
    }
}
