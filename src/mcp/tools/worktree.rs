//! Creates and removes worktrees on request.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::mission::path;
use super::{Tool, ToolCall, ToolKind};
use crate::mcp::arguments::{self, ArgumentError, NAME, optional};
use crate::mcp::error::ToolError;
use crate::mcp::{hint, size};
use crate::orchestrator::{
    KeptWorktree, RemovalAnswer, RemovalRequest, RemovalTarget, RemovedWorktree, WorktreeRequest,
};

const ENVELOPE: usize = 1_000;

const KEPT: &str = "see why each was kept; integrate_worker or cancel_worker first, or use force, which saves everything \
                    under a salvage ref";

pub(super) struct CreateWorktree;
pub(super) struct RemoveWorktree;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateArguments {
    /// New, or existing and not checked out.
    branch: String,
    /// Its directory; default: beside the repository.
    path: Option<String>,
    /// Branch, tag or commit to start from; default: the integration branch.
    base: Option<String>,
    /// Default: the server's repository.
    repo_path: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct CreateReport {
    path: String,
    branch: String,
    base_commit: String,
    created_branch: bool,
    repo_path: String,
    next_step: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RemoveArguments {
    /// Give path, worker_id or all_integrated.
    path: Option<String>,
    /// Such as w-3.
    worker_id: Option<String>,
    /// true: all of settled, integrated workers.
    all_integrated: Option<bool>,
    /// Default: the server's repository.
    repo_path: Option<String>,
    /// true: even with uncommitted files, which are saved first.
    force: Option<bool>,
    /// true: its branch too, if merged (with force: always, saved first).
    delete_branch: Option<bool>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct RemoveReport {
    next_step: String,
    removed: Vec<RemovedReport>,
    kept: Vec<KeptReport>,
    /// Number of omitted worktrees.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_shown: Option<usize>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct RemovedReport {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    branch: Option<String>,
    /// Holds everything that would have been lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    salvage_ref: Option<String>,
    /// Anything that could not be done as requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct KeptReport {
    path: String,
    why: String,
}

impl Tool for CreateWorktree {
    const NAME: &'static str = "create_worktree";
    const DESCRIPTION: &'static str = "\
Create a git worktree with its own branch. Workers get one automatically; use this for one that several missions \
share (as working_directory), or for yourself.";
    const KIND: ToolKind = ToolKind::Creates;
    type Arguments = CreateArguments;
    type Answer = CreateReport;

    async fn run(call: ToolCall, arguments: CreateArguments) -> Result<CreateReport, ToolError> {
        let request = WorktreeRequest {
            branch: arguments::name("branch", arguments.branch)?,
            path: optional(arguments.path, |text| path("path", text))?,
            base: optional(arguments.base, |base| arguments::name("base", base))?,
            repo_path: optional(arguments.repo_path, |text| path("repo_path", text))?,
        };
        let answer = call.orchestrator.create_worktree(&call.boss, request).await?;
        Ok(CreateReport {
            // Longer than the longest path of any system, so that none is cut.
            path: size::line(&answer.path.to_string_lossy(), 4_200),
            branch: answer.branch,
            base_commit: answer.base_commit,
            created_branch: answer.created_branch,
            repo_path: size::line(&answer.repo_path.to_string_lossy(), 2_000),
            next_step: "create_worker_mission with this path as working_directory".to_owned(),
        })
    }
}

impl Tool for RemoveWorktree {
    const NAME: &'static str = "remove_worktree";
    const DESCRIPTION: &'static str = "\
Remove git worktrees that are no longer needed: by path, by worker, or all that are integrated. Nothing is lost: a \
worktree in use stays, uncommitted files need force and are saved, commits stay on their branch.";
    const KIND: ToolKind = ToolKind::Destructive;
    type Arguments = RemoveArguments;
    type Answer = RemoveReport;

    async fn run(call: ToolCall, arguments: RemoveArguments) -> Result<RemoveReport, ToolError> {
        let request = RemovalRequest {
            target: target(arguments.path, arguments.worker_id, arguments.all_integrated)?,
            repo_path: optional(arguments.repo_path, |text| path("repo_path", text))?,
            force: arguments.force.unwrap_or(false),
            delete_branch: arguments.delete_branch.unwrap_or(false),
        };
        let answer = call.orchestrator.remove_worktree(&call.boss, request).await?;
        Ok(RemoveReport::new(answer))
    }
}

fn target(
    directory: Option<String>,
    worker: Option<String>,
    all_integrated: Option<bool>,
) -> Result<RemovalTarget, ArgumentError> {
    match (directory, worker, all_integrated.unwrap_or(false)) {
        (Some(directory), None, false) => path("path", directory).map(RemovalTarget::Path),
        (None, Some(worker), false) => arguments::line("worker_id", worker, NAME).map(RemovalTarget::Worker),
        (None, None, true) => Ok(RemovalTarget::AllIntegrated),
        (None, None, false) => Err(ArgumentError::NoneOf { choices: "path, worker_id and all_integrated: true" }),
        (Some(_), Some(_), _) => Err(ArgumentError::Both { one: "path", other: "worker_id" }),
        (Some(_), None, true) => Err(ArgumentError::Both { one: "path", other: "all_integrated" }),
        (None, Some(_), true) => Err(ArgumentError::Both { one: "worker_id", other: "all_integrated" }),
    }
}

impl RemoveReport {
    fn new(answer: RemovalAnswer) -> Self {
        let next_step = [(!answer.kept.is_empty()).then(|| KEPT.to_owned()), answer.removed.iter().find_map(restore)];
        let next_step = next_step.into_iter().flatten().collect::<Vec<_>>();
        let next_step = if next_step.is_empty() { "nothing".to_owned() } else { next_step.join("; ") };
        let room = size::ANSWER - ENVELOPE;
        let (kept, rest) = size::fit(answer.kept.iter().map(KeptReport::new), room / 2);
        let (removed, others) = size::fit(answer.removed.iter().map(RemovedReport::new), room - size::of(&kept));
        let not_shown = Some(rest + others).filter(|count| *count > 0);
        Self { removed, kept, not_shown, next_step }
    }
}

/// Returns how to restore saved work, for the first worktree that has some.
fn restore(removed: &RemovedWorktree) -> Option<String> {
    let name = size::line(removed.salvage_ref.as_deref()?, 200);
    Some(format!(
        "`git show {name}` shows the saved work, `git worktree add --detach FOLDER {name}` restores its files \
         (then `git reset {name}^` there makes them uncommitted again)"
    ))
}

impl RemovedReport {
    fn new(removed: &RemovedWorktree) -> Self {
        Self {
            path: size::line(&removed.path.to_string_lossy(), 400),
            branch: removed.branch.as_deref().map(|branch| size::line(branch, 200)),
            salvage_ref: removed.salvage_ref.as_deref().map(|name| size::line(name, 200)),
            note: removed.note.as_deref().map(|note| size::line(note, 400)),
        }
    }
}

impl KeptReport {
    fn new(kept: &KeptWorktree) -> Self {
        Self { path: size::line(&kept.path.to_string_lossy(), 400), why: size::line(&hint::of(&*kept.why), 400) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orchestrator::OrchestratorError;
    use std::sync::Arc;

    #[test]
    fn exactly_one_target_is_needed() {
        let text = |text: &str| Some(text.to_owned());
        assert!(matches!(target(text("/w"), None, None), Ok(RemovalTarget::Path(_))));
        assert!(matches!(target(None, text("w-3"), Some(false)), Ok(RemovalTarget::Worker(_))));
        assert!(matches!(target(None, None, Some(true)), Ok(RemovalTarget::AllIntegrated)));
        let cases = [
            (None, None, None, "one of path, worker_id and all_integrated: true is required"),
            (text("/w"), text("w-3"), None, "path and worker_id exclude each other: give one of them"),
            (None, text("w-3"), Some(true), "worker_id and all_integrated exclude each other: give one of them"),
        ];
        for (path, worker, all, message) in cases {
            assert_eq!(target(path, worker, all).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn thousand_removed_worktrees_fit() {
        let long = "\u{1}/é".repeat(500);
        let removed = RemovedWorktree {
            path: long.clone().into(),
            branch: Some(long.clone()),
            branch_deleted: false,
            salvage_ref: Some(long.clone()),
            note: Some(long.clone()),
        };
        let why = OrchestratorError::Malformed { reason: long.clone() };
        let kept = KeptWorktree { path: long.into(), why: Arc::new(why) };
        let answer = RemovalAnswer { removed: vec![removed; 1_000], kept: vec![kept; 1_000] };
        let report = RemoveReport::new(answer);
        assert!(size::of(&report) <= size::ANSWER, "{}", size::of(&report));
        assert_eq!(report.removed.len() + report.kept.len() + report.not_shown.unwrap(), 2_000);
    }
}
