//! Bringing a worker's branch into another.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Call, Nature, Tool};
use crate::mcp::arguments::{self, ArgumentError, NAME, optional};
use crate::mcp::error::ToolError;
use crate::mcp::size;
use crate::orchestrator::{IntegrationAnswer, IntegrationRequest, IntegrationSource, IntegrationStrategy};

const ENVELOPE: usize = 1_500;

pub(super) struct IntegrateWorker;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct IntegrateArguments {
    /// The worker whose branch to integrate, such as w-3. Give it or branch.
    worker_id: Option<String>,
    /// Any other branch to integrate.
    branch: Option<String>,
    /// The branch that it goes into; default: the integration branch.
    into: Option<String>,
    /// merge (default), squash or cherry_pick.
    strategy: Option<StrategyArgument>,
    /// true: only say what would happen. Default false.
    dry_run: Option<bool>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum StrategyArgument {
    Merge,
    Squash,
    CherryPick,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct IntegrateReport {
    /// merged, already_merged, would_merge or conflicts.
    status: String,
    /// What is in now: the worker or branch.
    integrated: Vec<String>,
    into: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<String>,
    next_step: String,
    left_out: Vec<LeftOut>,
    conflicts: Vec<Conflict>,
    /// Conflicts that had no room here.
    #[serde(skip_serializing_if = "is_zero")]
    more_conflicts: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct LeftOut {
    worker_id: String,
    why: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Conflict {
    path: String,
    kind: String,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Tool for IntegrateWorker {
    const NAME: &'static str = "integrate_worker";
    const DESCRIPTION: &'static str = "\
Integrate a worker agent's branch: merge, squash or cherry-pick its commits into the integration branch (or another). \
Where they conflict, nothing is touched and the answer lists the conflicting files. A branch that is checked out is \
moved only if that checkout is clean. dry_run only says what would happen. Look at the worker's outcome first: completed \
and verified is worth merging.";
    const NATURE: Nature = Nature::Ends;
    type Arguments = IntegrateArguments;
    type Answer = IntegrateReport;

    async fn run(call: Call, arguments: IntegrateArguments) -> Result<IntegrateReport, ToolError> {
        let source = source(arguments.worker_id, arguments.branch)?;
        let request = IntegrationRequest {
            source,
            into: optional(arguments.into, |branch| arguments::name("into", branch))?,
            strategy: match arguments.strategy {
                None | Some(StrategyArgument::Merge) => IntegrationStrategy::Merge,
                Some(StrategyArgument::Squash) => IntegrationStrategy::Squash,
                Some(StrategyArgument::CherryPick) => IntegrationStrategy::CherryPick,
            },
            dry_run: arguments.dry_run.unwrap_or(false),
        };
        let answer = call.orchestrator.integrate(&call.boss, request).await?;
        Ok(IntegrateReport::new(answer))
    }
}

fn source(worker: Option<String>, branch: Option<String>) -> Result<IntegrationSource, ArgumentError> {
    match (worker, branch) {
        (Some(worker), None) => arguments::line("worker_id", worker, NAME).map(IntegrationSource::Worker),
        (None, Some(branch)) => arguments::name("branch", branch).map(IntegrationSource::Branch),
        (Some(_), Some(_)) => Err(ArgumentError::Both { one: "worker_id", other: "branch" }),
        (None, None) => Err(ArgumentError::NoneOf { choices: "worker_id and branch" }),
    }
}

fn next_step(answer: &IntegrationAnswer) -> String {
    let into = size::line(&answer.into, 200);
    match (answer.status.as_str(), &answer.worker) {
        ("conflicts", Some(worker)) => format!(
            "send_message_to_worker {worker}: ask it to merge {into} and resolve the conflicts; then integrate_worker again"
        ),
        ("conflicts", None) => {
            format!("have {into} merged into the branch and the conflicts resolved there; then integrate_worker again")
        }
        ("would_merge", _) => "integrate_worker without dry_run".to_owned(),
        (_, Some(worker)) => format!("remove_worktree {worker}, or go on with wait_for_any_worker"),
        (_, None) => "go on with wait_for_any_worker".to_owned(),
    }
}

impl IntegrateReport {
    fn new(answer: IntegrationAnswer) -> Self {
        let name = match &answer.worker {
            Some(worker) => worker.to_string(),
            None => size::line(&answer.source, 200),
        };
        let (integrated, left_out) = match answer.status.as_str() {
            "conflicts" => (Vec::new(), vec![LeftOut { worker_id: name, why: "it conflicts".to_owned() }]),
            "would_merge" => (Vec::new(), Vec::new()),
            _ => (vec![name], Vec::new()),
        };
        let next_step = next_step(&answer);
        let conflicts = answer
            .conflicts
            .iter()
            .map(|(path, kind)| Conflict { path: size::line(path, 300), kind: size::line(kind, 100) });
        let (conflicts, more_conflicts) =
            size::fit(conflicts, size::ANSWER - ENVELOPE - size::of(&answer.notes).min(1_300));
        Self {
            status: answer.status,
            integrated,
            left_out,
            into: size::line(&answer.into, 200),
            commit: answer.commit,
            conflicts,
            more_conflicts,
            notes: answer.notes.iter().map(|note| size::line(note, 300)).take(4).collect(),
            next_step,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mission::id::WorkerId;

    #[test]
    fn any_number_of_conflicts_fits() {
        let conflicts = (0..1_000).map(|n| (format!("{n}{}", "\u{1}é".repeat(300)), "content".to_owned()));
        let answer = IntegrationAnswer {
            status: "conflicts".into(),
            source: "\u{1}".repeat(900),
            worker: None,
            into: "\u{1}".repeat(900),
            commit: None,
            conflicts: conflicts.collect(),
            notes: Vec::new(),
        };
        let report = IntegrateReport::new(answer);
        assert!(size::of(&report) <= size::ANSWER, "{}", size::of(&report));
        assert_eq!(report.conflicts.len() + report.more_conflicts, 1_000);
        assert!(report.integrated.is_empty());
    }

    #[test]
    fn the_next_step_names_the_worker_and_never_its_branch() {
        for (status, integrated) in [("merged", 1), ("already_merged", 1), ("conflicts", 0), ("would_merge", 0)] {
            let answer = IntegrationAnswer {
                status: status.into(),
                source: "orchestrator/w-1-try".into(),
                worker: Some(WorkerId::new(1, "try")),
                into: "main".into(),
                commit: None,
                conflicts: Vec::new(),
                notes: Vec::new(),
            };
            let report = IntegrateReport::new(answer);
            assert!(!report.next_step.contains("orchestrator/w-1-try"), "{}", report.next_step);
            assert_eq!(
                (report.integrated.len(), report.integrated.iter().all(|id| id == "w-1-try")),
                (integrated, true)
            );
        }
    }
}
