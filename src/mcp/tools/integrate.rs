//! Integrates a worker's branch, or several as a train.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::mission::{lines, path};
use super::{Tool, ToolCall, ToolKind};
use crate::mcp::arguments::{self, ArgumentError, NAME, optional};
use crate::mcp::error::ToolError;
use crate::mcp::{hint, size, wire};
use crate::mission::outcome::LikelyCause;
use crate::orchestrator::{
    IntegrationAnswer, IntegrationRequest, IntegrationSource, IntegrationStatus, OrchestratorError, PushResult, Pushed,
    Strategy,
};

/// Bytes for everything but the lists.
const ENVELOPE: usize = 1_500;
/// Maximum sizes in bytes: of a failed verification's output, of the remote's output, of the reason for an omission.
const TAIL: usize = 900;
const REMOTE_OUTPUT: usize = 600;
const REASON: usize = 500;
const MAX_NAMED: u64 = 100;

pub(super) struct IntegrateWorker;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct IntegrateArguments {
    /// Such as w-3. Give worker_id, worker_ids or branch.
    worker_id: Option<String>,
    /// A train, at most 100: in this order, verified together, without those that conflict or fail.
    #[serde(default)]
    worker_ids: Vec<String>,
    /// Another branch.
    branch: Option<String>,
    /// Default: the integration branch.
    into: Option<String>,
    /// merge (default), squash or cherry_pick.
    #[schemars(with = "Option<String>", extend("enum" = ["merge", "squash", "cherry_pick"]))]
    strategy: Option<Strategy>,
    /// Shell command that must pass on the result before the target moves.
    verify_command: Option<String>,
    /// true: then push, never with force.
    push: Option<bool>,
    /// true: only report what would happen.
    dry_run: Option<bool>,
    /// Default: the worker's repository.
    repo_path: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct IntegrateReport {
    /// merged, already_merged, already_integrated, incomplete (nothing new on the branch; see not_included),
    /// would_merge, conflicts, verification_failed, verification_timed_out, could_not_verify, refused or running.
    status: &'static str,
    integrated: Vec<String>,
    into: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<String>,
    next_step: String,
    /// As in an outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "wire::ObjectPlaceholder")]
    verification: Option<wire::VerificationReport>,
    #[serde(skip_serializing_if = "wire::is_zero")]
    verifications: usize,
    /// Its result (pushed, rejected, declined, …) and the output of the remote.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "wire::ObjectPlaceholder")]
    push: Option<PushReport>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    left_out: Vec<LeftOut>,
    /// Work that is missing because it is not on the integrated branch.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_included: Vec<NotIncluded>,
    conflicts: Vec<ConflictedPath>,
    /// Number of omitted conflicts.
    #[serde(skip_serializing_if = "wire::is_zero")]
    more_conflicts: usize,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct LeftOut {
    worker_id: String,
    why: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct NotIncluded {
    worker_id: String,
    #[serde(flatten)]
    #[schemars(with = "wire::ObjectPlaceholder")]
    part: wire::NotOnBranchReport,
}

#[derive(Debug, Serialize)]
pub(super) struct PushReport {
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    branch: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    said: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ConflictedPath {
    path: String,
    kind: String,
}

impl Tool for IntegrateWorker {
    const NAME: &'static str = "integrate_worker";
    const DESCRIPTION: &'static str = "\
Integrate the branch of a worker agent, or of several as a train: merge, squash or cherry-pick commits into the \
integration branch. With verify_command the result is verified first. If it conflicts or fails, nothing changes \
and the answer has the cause. Status running: call again with the same arguments.";
    const KIND: ToolKind = ToolKind::Destructive;
    type Arguments = IntegrateArguments;
    type Answer = IntegrateReport;

    async fn run(call: ToolCall, arguments: IntegrateArguments) -> Result<IntegrateReport, ToolError> {
        let source = source(arguments.worker_id, arguments.worker_ids, arguments.branch)?;
        let time = call.client.wait(None, call.orchestrator.settings().wait_seconds, call.wants_progress);
        let time = time.max(Duration::from_secs(1));
        let request = IntegrationRequest {
            into: optional(arguments.into, |branch| arguments::name("into", branch))?,
            strategy: arguments.strategy.unwrap_or_default(),
            verify_command: optional(arguments.verify_command, |it| {
                arguments::text("verify_command", it, arguments::LINE)
            })?,
            push: arguments.push.unwrap_or(false),
            dry_run: arguments.dry_run.unwrap_or(false),
            repo_path: optional(arguments.repo_path, |text| path("repo_path", text))?,
            patience: Some(time),
            ..IntegrationRequest::of(source)
        };
        let answer = tokio::select! {
            answer = call.orchestrator.integrate(&call.boss, request) => answer?,
            // The caller no longer waits for the answer; the integration continues.
            () = call.stop.cancelled() => return Err(OrchestratorError::ShuttingDown.into()),
        };
        let nothing = call.orchestrator.had_nothing_to_integrate(&answer).await;
        let mut report = IntegrateReport::new(answer);
        if nothing {
            report.next_step = "nothing was merged: the worker has no commits; read its final_message".to_owned();
        }
        Ok(report)
    }
}

fn source(
    worker: Option<String>,
    workers: Vec<String>,
    branch: Option<String>,
) -> Result<IntegrationSource, ArgumentError> {
    match (worker, workers.is_empty(), branch) {
        (Some(worker), true, None) => arguments::line("worker_id", worker, NAME).map(IntegrationSource::Worker),
        (None, true, Some(branch)) => arguments::name("branch", branch).map(IntegrationSource::Branch),
        (None, false, None) => {
            arguments::range("the number of worker_ids", workers.len() as u64, 1, MAX_NAMED)?;
            lines("worker_ids", workers, NAME).map(IntegrationSource::Train)
        }
        (None, true, None) => Err(ArgumentError::NoneOf { choices: "worker_id, worker_ids and branch" }),
        (Some(_), _, Some(_)) => Err(ArgumentError::Both { one: "worker_id", other: "branch" }),
        (Some(_), false, None) => Err(ArgumentError::Both { one: "worker_id", other: "worker_ids" }),
        (None, false, Some(_)) => Err(ArgumentError::Both { one: "worker_ids", other: "branch" }),
    }
}

fn next_step(answer: &IntegrationAnswer) -> String {
    use IntegrationStatus::{
        Conflicts, CouldNotVerify, Refused, Running, VerificationFailed, VerificationTimedOut, WouldMerge,
    };
    let into = size::line(&answer.into, 200);
    match (answer.status, &answer.worker) {
        (Running, _) => "integrate_worker again with the same arguments, to continue waiting".to_owned(),
        (VerificationFailed | CouldNotVerify, _) if answer.likely_cause.is_some() => {
            answer.likely_cause.as_ref().map_or_else(String::new, |cause| after_likely_cause(&into, cause))
        }
        (Conflicts, Some(worker)) => format!(
            "send_message_to_worker {worker}: ask it to merge {into} and resolve the conflicts; then integrate_worker again"
        ),
        (VerificationFailed | VerificationTimedOut, Some(worker)) => format!(
            "send_message_to_worker {worker}: ask it to merge {into} and make the verification pass; then integrate_worker again"
        ),
        (Conflicts | VerificationFailed | VerificationTimedOut, None) => {
            format!(
                "send_message_to_worker to each in left_out: ask it to merge {into} and fix the cause; then integrate_worker again"
            )
        }
        (CouldNotVerify, _) => {
            "see verification: the command could not run; fix that, then integrate_worker again".to_owned()
        }
        (WouldMerge, _) if answer.not_included.is_empty() => "integrate_worker without dry_run".to_owned(),
        (WouldMerge, _) => {
            "see not_included: have that work put on the branch first, or integrate_worker without dry_run to merge without it"
                .to_owned()
        }
        (Refused, _) => "see left_out".to_owned(),
        _ if answer.push.as_ref().is_some_and(|push| !is_sent(push)) => {
            format!(
                "integrated here, but not pushed: see push; integrate_worker again with push when {into} can be pushed"
            )
        }
        _ if !answer.not_included.is_empty() => {
            "see not_included: that work is not on the branch; follow how_to_include, or send_message_to_worker to do it; then integrate_worker again"
                .to_owned()
        }
        _ if !answer.left_out.is_empty() => {
            format!(
                "send_message_to_worker to each in left_out: ask it to merge {into} and fix the cause; then integrate_worker again"
            )
        }
        (_, Some(worker)) if answer.own_worktree => {
            format!("remove_worktree {}, or wait_for_any_worker", worker.short())
        }
        _ => "wait_for_any_worker".to_owned(),
    }
}

fn after_likely_cause(into: &str, cause: &LikelyCause) -> String {
    match cause.fix() {
        Some(fix) => format!(
            "{into} fails by itself: it is verified in a fresh worktree, so verify_command must create what is missing \
             ({}); then integrate_worker again",
            size::line(&fix, 200)
        ),
        None => {
            let perhaps = wire::perhaps_missing(cause);
            format!("{into} fails by itself{perhaps}: have it fixed first; then integrate_worker again")
        }
    }
}

fn is_sent(push: &Pushed) -> bool {
    matches!(push.result, PushResult::Pushed | PushResult::UpToDate | PushResult::WouldPush)
}

impl IntegrateReport {
    fn new(answer: IntegrationAnswer) -> Self {
        let next_step = next_step(&answer);
        let cause = answer.likely_cause.as_ref();
        let verification =
            answer.verification.as_ref().map(|it| wire::VerificationReport::with_tail(it, TAIL).because(cause));
        let push = answer.push.as_ref().map(PushReport::new);
        let notes: Vec<String> = answer.notes.iter().map(|note| size::line(note, 300)).take(4).collect();
        let mut room = size::ANSWER - ENVELOPE - size::of(&verification) - size::of(&push) - size::of(&notes);
        let left_out = answer.left_out.iter();
        let left_out = left_out
            .map(|(id, why)| LeftOut { worker_id: size::line(id, 120), why: size::ends(&hint::line(why), REASON) });
        let (left_out, _) = size::fit(left_out, room / 2);
        room -= size::of(&left_out);
        let not_included = answer.not_included.iter();
        let not_included = not_included
            .map(|(id, part)| NotIncluded { worker_id: size::line(id, 120), part: wire::NotOnBranchReport::new(part) });
        let not_included = size::fit_or_count(not_included, room / 2, |more| NotIncluded {
            worker_id: String::new(),
            part: wire::NotOnBranchReport::more(more),
        });
        room -= size::of(&not_included);
        let (integrated, _) = size::fit(answer.integrated.iter().map(|name| size::line(name, 200)), room / 2);
        room -= size::of(&integrated);
        let conflicts = answer
            .conflicts
            .iter()
            .map(|(path, kind)| ConflictedPath { path: size::line(path, 300), kind: size::line(kind, 100) });
        let (conflicts, more_conflicts) = size::fit(conflicts, room);
        Self {
            status: answer.status.as_str(),
            integrated,
            left_out,
            not_included,
            into: size::line(&answer.into, 200),
            commit: answer.commit,
            verification,
            verifications: answer.verifications,
            push,
            notes,
            conflicts,
            more_conflicts,
            next_step,
        }
    }
}

impl PushReport {
    fn new(push: &Pushed) -> Self {
        Self {
            result: push.result.as_str(),
            remote: push.remote.as_deref().map(|remote| size::line(remote, 100)),
            branch: push.branch.as_deref().map(|branch| size::line(branch, 200)),
            said: size::ends(&push.said, REMOTE_OUTPUT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mission::hint::Advice;
    use crate::mission::id::WorkerId;
    use crate::mission::outcome::{Exit, NotOnBranch, Verification};

    fn answer(status: IntegrationStatus, into: &str) -> IntegrationAnswer {
        IntegrationAnswer::new(status, None, into.into())
    }

    #[test]
    fn any_number_of_conflicts_fits() {
        let nasty = "\u{1}é".repeat(900);
        let exit = Exit::Code(1);
        let pushed = Pushed {
            result: PushResult::Failed,
            remote: Some(nasty.clone()),
            branch: Some(nasty.clone()),
            said: nasty.clone(),
        };
        let report = IntegrateReport::new(IntegrationAnswer {
            integrated: vec![nasty.clone(); 100],
            left_out: vec![(nasty.clone(), Advice::new(nasty.clone(), Vec::new())); 100],
            not_included: vec![(nasty.clone(), part(&nasty)); 100],
            conflicts: (0..1_000).map(|n| (format!("{n}{nasty}"), "content".to_owned())).collect(),
            verification: Some(Verification::Failed { commit: None, exit, log_tail: nasty.clone(), seconds: 1.0 }),
            push: Some(pushed),
            notes: vec![nasty.clone(); 9],
            ..answer(IntegrationStatus::Conflicts, &nasty)
        });
        assert!(size::of(&report) <= size::ANSWER, "{}", size::of(&report));
        assert_eq!(report.conflicts.len() + report.more_conflicts, 1_000);
        assert!(!report.left_out.is_empty() && !report.integrated.is_empty());
        let last = report.not_included.last().unwrap();
        assert!(last.part == wire::NotOnBranchReport::more(101 - report.not_included.len()), "{last:?}");
    }

    fn part(text: &str) -> NotOnBranch {
        NotOnBranch { what: text.to_owned(), place: text.to_owned(), how_to_include: text.to_owned(), files: None }
    }

    #[test]
    fn missing_work_rules_out_removal() {
        for status in [IntegrationStatus::Merged, IntegrationStatus::Incomplete, IntegrationStatus::WouldMerge] {
            let not_included = vec![("w-1-try".to_owned(), part("a.txt"))];
            let worker = Some(WorkerId::new(1, "try"));
            let report = IntegrateReport::new(IntegrationAnswer { worker, not_included, ..answer(status, "main") });
            let next = &report.next_step;
            assert!(next.contains("not_included") && !next.contains("remove_worktree"), "{status:?}: {next}");
        }
    }

    #[test]
    fn next_step_names_the_worker_not_its_branch() {
        let all = [
            IntegrationStatus::Merged,
            IntegrationStatus::AlreadyMerged,
            IntegrationStatus::AlreadyIntegrated,
            IntegrationStatus::Conflicts,
            IntegrationStatus::WouldMerge,
            IntegrationStatus::VerificationFailed,
        ];
        for status in all {
            let worker = Some(WorkerId::new(1, "try"));
            let report =
                IntegrateReport::new(IntegrationAnswer { worker, own_worktree: true, ..answer(status, "main") });
            assert!(!report.next_step.contains("orchestrator/w-1-try"), "{}", report.next_step);
            assert_eq!(
                report.next_step.contains("w-1"),
                status != IntegrationStatus::WouldMerge,
                "{}",
                report.next_step
            );
        }
    }

    #[test]
    fn shared_directory_is_not_suggested_for_removal() {
        let worker = Some(WorkerId::new(1, "try"));
        let report = IntegrateReport::new(IntegrationAnswer { worker, ..answer(IntegrationStatus::Merged, "main") });
        assert_eq!(report.next_step, "wait_for_any_worker");
    }

    #[test]
    fn exactly_one_source_is_needed() {
        let id = || Some("w-1".to_owned());
        assert!(matches!(source(id(), Vec::new(), None), Ok(IntegrationSource::Worker(_))));
        assert!(matches!(source(None, vec!["w-1".to_owned()], None), Ok(IntegrationSource::Train(_))));
        assert!(source(None, Vec::new(), None).is_err());
        assert!(source(id(), vec!["w-1".to_owned()], None).is_err());
        assert!(source(None, vec!["w-1".to_owned()], id()).is_err());
    }
}
