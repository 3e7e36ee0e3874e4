//! Cancels workers and reports the processes that are left.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Tool, ToolCall, ToolKind};
use crate::mcp::arguments::{self, NAME, TITLE};
use crate::mcp::error::ToolError;
use crate::mcp::size;
use crate::mission::id::WorkerId;
use crate::mission::message::describe_undelivered;
use crate::mission::outcome::Containment;
use crate::orchestrator::{CancelAnswer, OrchestratorError, Scope};

const ENVELOPE: usize = 1_400;
/// Maximum size in bytes of the undelivered messages.
const UNDELIVERED: usize = 600;

pub(super) struct CancelWorker;
pub(super) struct CancelAllWorkers;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CancelArguments {
    /// Such as w-3.
    worker_id: String,
    /// At most 200 bytes, kept in the outcome.
    reason: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CancelAllArguments {
    /// At most 200 bytes, kept in the outcomes.
    reason: Option<String>,
    /// mine (default), or all: of other sessions too.
    #[schemars(with = "Option<String>", extend("enum" = ["mine", "all"]))]
    scope: Option<Scope>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct CancelReport {
    worker_id: String,
    status: &'static str,
    /// Processes still running.
    survivors: u32,
    /// full: all candidate processes were checked; best_effort: the system hides some.
    #[schemars(with = "String", extend("enum" = ["full", "best_effort"]))]
    proof: Containment,
    /// It had already settled; nothing was done.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    already_settled: bool,
    next_step: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct CancelAllReport {
    /// Processes still running.
    survivors: u32,
    already_settled: usize,
    next_step: String,
    /// Ids of the workers that this call cancelled.
    cancelled: Vec<String>,
    failed: Vec<NotCancelled>,
    /// Number of omitted ids; list_worker_missions shows them.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_shown: Option<usize>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct NotCancelled {
    worker_id: String,
    why: String,
}

impl Tool for CancelWorker {
    const NAME: &'static str = "cancel_worker";
    const DESCRIPTION: &'static str = "\
Cancel one worker agent: stop, kill, abort or terminate it and every process that it started. Returns survivors, \
the number of processes left. Its work is kept. To stop all use cancel_all_workers.";
    const KIND: ToolKind = ToolKind::Destructive;
    type Arguments = CancelArguments;
    type Answer = CancelReport;

    async fn run(call: ToolCall, arguments: CancelArguments) -> Result<CancelReport, ToolError> {
        let name = arguments::line("worker_id", arguments.worker_id, NAME)?;
        let reason = reason(arguments.reason)?;
        let answer = call.orchestrator.cancel(&call.boss, &name, &reason).await?;
        Ok(CancelReport::new(answer))
    }
}

fn reason(given: Option<String>) -> Result<String, ToolError> {
    let reason = arguments::optional(given, |reason| arguments::line("reason", reason, TITLE))?;
    Ok(reason.unwrap_or_else(|| "requested by the boss".to_owned()))
}

impl CancelReport {
    fn new(answer: CancelAnswer) -> Self {
        let id = &answer.worker_id;
        let next_step = match (answer.survivors, describe_undelivered(&answer.undelivered)) {
            (0, None) => format!("wait_for_any_worker for the others; retry_worker {id} starts this one again"),
            (0, Some(undelivered)) => {
                let undelivered = size::line(&undelivered, UNDELIVERED);
                format!(
                    "{undelivered}; retry_worker {id} starts it again and delivers that first; otherwise wait_for_any_worker"
                )
            }
            (left, _) => {
                format!("{left} of its processes are still running: inform the user, or cancel_worker {id} again")
            }
        };
        Self {
            worker_id: id.to_string(),
            status: answer.status.as_str(),
            survivors: answer.survivors,
            proof: answer.proof,
            already_settled: answer.already_settled,
            next_step,
        }
    }
}

impl Tool for CancelAllWorkers {
    const NAME: &'static str = "cancel_all_workers";
    const DESCRIPTION: &'static str = "\
Cancel all your worker agents: stop, kill or abort everything that is running or queued. Their work is kept. Use \
scope all only if the user asks.";
    const KIND: ToolKind = ToolKind::Destructive;
    type Arguments = CancelAllArguments;
    type Answer = CancelAllReport;

    async fn run(call: ToolCall, arguments: CancelAllArguments) -> Result<CancelAllReport, ToolError> {
        let reason = reason(arguments.reason)?;
        let scope = arguments.scope.unwrap_or_default();
        let (ended, already_settled) = call.orchestrator.cancel_all(&call.boss, scope, &reason).await?;
        Ok(CancelAllReport::new(already_settled, ended))
    }
}

type WorkerResult = (WorkerId, Result<CancelAnswer, OrchestratorError>);

impl CancelAllReport {
    fn new(settled_before: usize, results: Vec<WorkerResult>) -> Self {
        let mut cancelled = Vec::new();
        let mut failed = Vec::new();
        let mut already_settled = settled_before;
        let mut survivors = 0;
        let mut undelivered = Vec::new();
        for (worker_id, result) in results {
            match result {
                Ok(answer) if answer.already_settled => already_settled += 1,
                Ok(answer) => {
                    survivors += answer.survivors;
                    undelivered.extend(answer.undelivered);
                    cancelled.push(worker_id.to_string());
                }
                Err(error) => failed
                    .push(NotCancelled { worker_id: worker_id.to_string(), why: size::line(&error.to_string(), 300) }),
            }
        }
        let next_step = match (failed.len(), survivors) {
            (0, 0) => "no process is left; list_worker_missions has the outcomes".to_owned(),
            (0, left) => format!("{left} processes are still running: inform the user, or cancel_all_workers again"),
            _ => "cancel_worker for each in failed".to_owned(),
        };
        let next_step = match describe_undelivered(&undelivered) {
            None => next_step,
            Some(undelivered) => {
                format!("{next_step}; {}; retry_worker delivers it first", size::line(&undelivered, UNDELIVERED))
            }
        };
        let (failed, rest) = size::fit(failed, (size::ANSWER - ENVELOPE) / 2);
        let (cancelled, others) = size::fit(cancelled, size::ANSWER - ENVELOPE - size::of(&failed));
        let not_shown = Some(rest + others).filter(|count| *count > 0);
        Self { cancelled, already_settled, failed, survivors, not_shown, next_step }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mission::lifecycle::{Ending, WorkerStatus};

    #[test]
    fn thousand_cancelled_workers_fit() {
        let results = (1..=2_000).map(|number| {
            let worker_id = WorkerId::new(number, "some rather long title of a mission");
            let answer = CancelAnswer {
                worker_id: worker_id.clone(),
                status: WorkerStatus::Settled(Ending::Cancelled),
                survivors: u32::from(number == 1),
                proof: Containment::Full,
                already_settled: number == 2,
                undelivered: vec!["a \"message\"".repeat(100)],
            };
            let result = match number % 2 {
                0 => Ok(answer),
                _ if number == 1 => Ok(answer),
                _ => Err(OrchestratorError::Malformed { reason: "\u{1}".repeat(1_000) }),
            };
            (worker_id, result)
        });
        let report = CancelAllReport::new(7, results.collect());
        assert!(size::of(&report) <= size::ANSWER, "{}", size::of(&report));
        assert_eq!((report.already_settled, report.survivors), (8, 1));
        assert_eq!(report.cancelled.len() + report.failed.len() + report.not_shown.unwrap(), 1_999);
    }
}
