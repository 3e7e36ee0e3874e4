//! The outcome of an attempt whose supervisor could not write it. The facts are read from the worktree and from what the
//! supervisor last wrote.

use jiff::Timestamp;

use crate::attempt::assignment::Assignment;
use crate::attempt::inbox::InboxEntry;
use crate::attempt::status::{Delivered, LiveStatus};
use crate::attempt::worker_dir::AttemptDir;
use crate::attempt::{facts, sockets};
use crate::git;
use crate::mission::hint::with_hints;
use crate::mission::lifecycle::Ending;
use crate::mission::outcome::{Changes, Cleanup, Containment, Failure, FailureKind, Outcome, Run};
use crate::mission::registry::Worker;
use crate::orchestrator::blocking::blocking;
use crate::orchestrator::outcomes;
use crate::process;

/// Ends the processes that a dead supervisor left, and returns the known facts as an outcome.
pub(super) async fn clean_up_after(attempt: &AttemptDir, worker: &Worker) -> Outcome {
    let assignment = super::assignment(attempt);
    let swept = match &assignment {
        Some(assignment) => {
            // The supervisor ended before it could remove its socket.
            let _ = std::fs::remove_file(&assignment.socket);
            let swept = process::sweep(&super::scope_of(attempt, assignment), super::GRACE).await;
            sockets::remove_beside(&assignment.socket);
            Some(swept)
        }
        None => None,
    };
    let cleanup = swept.map_or(Cleanup::default(), |swept| Cleanup {
        survivors: swept.survivors.len() as u32,
        ended: swept.ended as u32,
        daemons_left: swept.allowlisted,
        // A dead supervisor adopts no orphans, so processes that hid their tag may have escaped.
        containment: Containment::BestEffort,
    });
    let message = "its supervisor died; its work until then is in its directory and its log".to_owned();
    let failure = Failure { kind: FailureKind::Lost, message, resets_at: None };
    outcome_of_lost(attempt, worker, assignment, failure, cleanup).await
}

/// Returns the outcome of an attempt on a node that failed or was cut off. Its processes there may still run: `containment`
/// says how certain their end is.
pub(super) async fn lost_on_node(
    attempt: &AttemptDir,
    worker: &Worker,
    failure: Failure,
    containment: Containment,
) -> Outcome {
    let cleanup = Cleanup { containment, ..Cleanup::default() };
    outcome_of_lost(attempt, worker, super::assignment(attempt), failure, cleanup).await
}

/// Returns the known facts of an attempt whose supervisor could not write its record.
async fn outcome_of_lost(
    attempt: &AttemptDir,
    worker: &Worker,
    assignment: Option<Assignment>,
    failure: Failure,
    cleanup: Cleanup,
) -> Outcome {
    let status = LiveStatus::read(attempt).ok().flatten();
    // A supervisor on another host may only have been cut off.
    if status.as_ref().is_some_and(|status| !status.is_of_this_host())
        && let Err(error) = attempt.revoke()
    {
        tracing::warn!(%error, "cannot revoke the claim of a lost attempt");
    }
    // A cancellation counts only if it was posted before this. A later message opens the next attempt.
    if let Err(error) = attempt.close_inbox_unread() {
        tracing::warn!(%error, "cannot close the inbox of a lost attempt");
    }
    let cancelled = attempt.cancelled();
    let run = Run {
        failure: Some(failure),
        session_id: status.as_ref().and_then(|status| status.session_id.clone()),
        usage: status.as_ref().map(|status| status.usage).unwrap_or_default(),
        turns: status.as_ref().map_or(0, |status| status.turn),
        started_at: worker.started_at,
        elapsed_seconds: status.as_ref().and_then(|status| ran(worker, status)),
        undelivered: undelivered(attempt, status.as_ref()),
        cancelled: cancelled.clone(),
        ..Run::default()
    };
    // Git may take minutes, and these few threads also serve the protocol.
    let changes = match assignment {
        Some(assignment) => {
            let known =
                facts::KnownFacts { before: facts::before(&assignment, attempt), ..facts::KnownFacts::default() };
            blocking(move || Ok(changes_after_loss(&assignment, known))).await.unwrap_or_default()
        }
        None => Changes::default(),
    };
    // A cancellation has taken effect, although the supervisor died before it could record it.
    let ending = if cancelled.is_some() { Ending::Cancelled } else { Ending::Lost };
    Outcome { run, changes, cleanup, ..outcomes::never_ran(worker, worker.attempt, ending, None) }
}

/// Returns the changes of an attempt whose supervisor died. It may have left its worker's clone in the worktree.
fn changes_after_loss(assignment: &Assignment, known: facts::KnownFacts) -> Changes {
    let ours = assignment.repository.as_ref().filter(|_| assignment.ours);
    let brought = ours.map(|repository| git::bring_back(repository, &assignment.directory));
    let mut changes = facts::changes(assignment, known);
    match brought {
        Some(Ok(returned)) => changes.notes.extend(returned.note().map(str::to_owned)),
        Some(Err(error)) => {
            let why = with_hints(&error);
            changes.not_on_branch.push(git::not_on_branch::unknown(&assignment.directory, &why));
            changes.notes.push(why);
        }
        None => {}
    }
    changes
}

/// Returns how long an attempt ran whose supervisor died: until now, or until its last sign of life if the machine was
/// rebooted since. `None` if its start was not recorded.
fn ran(worker: &Worker, status: &LiveStatus) -> Option<u64> {
    let seconds = |from: Timestamp, to: Timestamp| u64::try_from(to.duration_since(from).as_secs()).unwrap_or(0);
    let by_clock = seconds(worker.started_at?, Timestamp::now());
    let shown = status.now().checked_sub(status.began).map(|it| it.as_secs());
    match shown.filter(|shown| *shown <= by_clock.saturating_add(60)) {
        Some(shown) => Some(shown),
        None => Some(seconds(worker.started_at?, status.last_event_at)),
    }
}

/// Returns the messages to an attempt that began no turn and are not known to have reached its model.
fn undelivered(attempt: &AttemptDir, status: Option<&LiveStatus>) -> Vec<String> {
    let was_delivered = |inbox_entry: &InboxEntry| {
        let mut receipts = status.into_iter().flat_map(|status| &status.receipts);
        receipts.any(|receipt| receipt.message_id == inbox_entry.id && receipt.how != Delivered::Sent)
    };
    let inbox_entries = attempt.inbox_entries(0).unwrap_or_default().into_iter();
    inbox_entries.filter(|inbox_entry| !was_delivered(inbox_entry)).filter_map(InboxEntry::into_text).collect()
}
