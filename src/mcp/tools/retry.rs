//! Another attempt of the same worker.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::mission::backend;
use super::{Call, Nature, Tool};
use crate::mcp::arguments::{self, NAME, PROMPT, optional};
use crate::mcp::error::ToolError;
use crate::mcp::{size, wire};
use crate::orchestrator::RetryRequest;

pub(super) struct RetryWorker;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RetryArguments {
    /// The worker, such as w-3 or w-3-fix-parser; it must have settled.
    worker_id: String,
    /// Another agent CLI: codex, claudecode, gemini, opencode, or one from the user's settings; default: the same.
    backend: Option<String>,
    /// A model of that backend; default: as before.
    model_override: Option<String>,
    /// low, medium or high, and what the backend adds; default: as before.
    model_effort: Option<String>,
    /// A new prompt in place of the mission's own, at most 1 MiB.
    prompt: Option<String>,
    /// What was wrong and what to do differently, at most 1 MiB; told beside the mission and how the last attempt ended.
    feedback: Option<String>,
    /// true: in a new session, even where the old one could go on. Default false.
    fresh: Option<bool>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct RetryReport {
    next_step: String,
    #[schemars(with = "wire::SomeWorker")]
    worker: wire::Worker,
}

impl Tool for RetryWorker {
    const NAME: &'static str = "retry_worker";
    const DESCRIPTION: &'static str = "\
Retry a worker agent that failed, was cancelled, timed out or did not do it well: its next attempt, in the same worktree \
with what is there, and in the same session where its CLI can resume it. Say in feedback what was wrong; name another \
backend to let another agent try. A task on which two backends failed is blocked: give it a narrower prompt. The attempt \
settles and is reported by itself: call wait_for_any_worker.";
    const NATURE: Nature = Nature::SetsToWork;
    type Arguments = RetryArguments;
    type Answer = RetryReport;

    async fn run(call: Call, arguments: RetryArguments) -> Result<RetryReport, ToolError> {
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
        let mut worker = wire::Worker::new(&view, size::ANSWER - 300);
        worker.take_next_step();
        Ok(RetryReport { next_step: "wait_for_any_worker".to_owned(), worker })
    }
}
