//! Starts another attempt of a worker.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::mission::backend;
use super::{Tool, ToolCall, ToolKind};
use crate::mcp::arguments::{self, NAME, PROMPT, optional};
use crate::mcp::error::ToolError;
use crate::mcp::{size, wire};
use crate::mission::spec::RunOn;
use crate::orchestrator::RetryRequest;

pub(super) struct RetryWorker;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RetryArguments {
    /// Such as w-3; it must have settled.
    worker_id: String,
    /// Another agent CLI; default: the same.
    backend: Option<String>,
    /// Default: as before.
    model_override: Option<String>,
    /// Default: as before.
    model_effort: Option<String>,
    /// Replaces the mission's; at most 1 MiB.
    prompt: Option<String>,
    /// The mistake, and the change to make; at most 1 MiB.
    feedback: Option<String>,
    /// Default: as before.
    run_on: Option<String>,
    /// true: in a new session.
    fresh: Option<bool>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct RetryReport {
    next_step: String,
    #[schemars(with = "wire::WorkerPlaceholder")]
    worker: wire::WorkerReport,
}

impl Tool for RetryWorker {
    const NAME: &'static str = "retry_worker";
    const DESCRIPTION: &'static str = "\
Retry a worker agent that failed, was cancelled, timed out or did poor work: a new attempt in the same worktree, \
and in the same session if its CLI can resume. Say in feedback what was wrong, or name another backend. Then \
call wait_for_any_worker.";
    const KIND: ToolKind = ToolKind::StartsAgent;
    type Arguments = RetryArguments;
    type Answer = RetryReport;

    async fn run(call: ToolCall, arguments: RetryArguments) -> Result<RetryReport, ToolError> {
        let name = arguments::line("worker_id", arguments.worker_id, NAME)?;
        let request = RetryRequest {
            backend: optional(arguments.backend, |name| backend(&call.orchestrator, name))?,
            model: optional(arguments.model_override, |model| arguments::name("model_override", model))?,
            effort: optional(arguments.model_effort, |effort| arguments::name("model_effort", effort))?,
            prompt: optional(arguments.prompt, |prompt| arguments::text("prompt", prompt, PROMPT))?,
            feedback: optional(arguments.feedback, |feedback| arguments::text("feedback", feedback, PROMPT))?,
            run_on: optional(arguments.run_on, |name| arguments::name("run_on", name))?.map(RunOn::named),
            fresh: arguments.fresh.unwrap_or(false),
        };
        let view = call.orchestrator.retry(&call.boss, &name, request).await?;
        let mut worker = wire::WorkerReport::new(&view, size::ANSWER - 300);
        worker.take_next_step();
        Ok(RetryReport { next_step: "wait_for_any_worker".to_owned(), worker })
    }
}
