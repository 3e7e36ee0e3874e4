//! Starts another attempt of a worker.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::mission::backend;
use super::{Tool, ToolCall, ToolKind};
use crate::mcp::arguments::{self, NAME, PROMPT, optional};
use crate::mcp::error::ToolError;
use crate::mcp::{size, wire};
use crate::orchestrator::RetryRequest;

pub(super) struct RetryWorker;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RetryArguments {
    /// Worker id, such as w-3 or w-3-fix-parser; it must have settled.
    worker_id: String,
    /// Another agent CLI: codex, claudecode, gemini, opencode, or one from the user's settings; default: the same.
    backend: Option<String>,
    /// A model of that backend; default: as before.
    model_override: Option<String>,
    /// low, medium, high, or another level of that backend; default: as before.
    model_effort: Option<String>,
    /// Replaces the mission's prompt, at most 1 MiB.
    prompt: Option<String>,
    /// The problem and what to do differently, at most 1 MiB. The worker also gets its mission and last result.
    feedback: Option<String>,
    /// true: use a new session instead of resuming. Default false.
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
Retry a worker agent that failed, was cancelled, timed out or produced a poor result. Its next attempt runs in the \
same worktree with the existing files, and in the same session if its CLI can resume it. Say in feedback what was \
wrong; name another backend to let another agent try. A task that failed on two backends is blocked: give it a \
narrower prompt. Then call wait_for_any_worker.";
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
            fresh: arguments.fresh.unwrap_or(false),
        };
        let view = call.orchestrator.retry(&call.boss, &name, request).await?;
        let mut worker = wire::WorkerReport::new(&view, size::ANSWER - 300);
        worker.take_next_step();
        Ok(RetryReport { next_step: "wait_for_any_worker".to_owned(), worker })
    }
}
