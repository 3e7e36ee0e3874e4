//! The follower of a worker: it reads the supervisor's reports from the socket and the outcome record, and detects the
//! loss of both. It also wakes supervisors, and ends one that does not end by itself.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::blocking::blocking;
use super::confinement::confines;
use super::mailbox::{Ask, Report};
use super::outcomes;
use crate::attempt::assignment::Assignment;
use crate::attempt::facts;
use crate::attempt::sockets;
use crate::attempt::status::{Delivered, FromSupervisor, LiveStatus};
use crate::attempt::worker_dir::{AttemptDir, InboxEntry, WorkerDir};
use crate::crash_point::{self, Point};
use crate::files::lease;
use crate::files::{self, FileError};
use crate::git;
use crate::launcher::local;
use crate::mission::hint::with_hints;
use crate::mission::id::WorkerId;
use crate::mission::lifecycle::Ending;
use crate::mission::outcome::{Changes, Cleanup, Containment, Failure, FailureKind, Outcome, Run};
use crate::mission::registry::Worker;
use crate::process::{self, Identity, ProcessScope, ProcessTree, Signal, WorkerPlaces};

/// Interval at which files are polled if the socket cannot be used.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Time that the processes of a lost worker get to exit by themselves.
const GRACE: Duration = Duration::from_secs(5);

/// A reporter of one attempt to the actor.
pub(super) struct Reporter {
    mailbox: mpsc::UnboundedSender<Ask>,
    worker: WorkerId,
    attempt: u32,
}

impl Reporter {
    pub fn new(mailbox: mpsc::UnboundedSender<Ask>, worker: &Worker) -> Self {
        Self { mailbox, worker: worker.id.clone(), attempt: worker.attempt }
    }

    pub fn send(&self, report: Report) {
        // Without an actor the server is going; the next one finds the files.
        let _ = self.mailbox.send(Ask::Reported { worker: self.worker.clone(), attempt: self.attempt, report });
    }
}

/// Stays with an attempt until it has settled. Dropping the future leaves the worker running.
pub(super) async fn follow(attempt: AttemptDir, worker: Arc<Worker>, reporter: Reporter) {
    loop {
        match attempt.outcome() {
            Ok(Some(outcome)) => return reporter.send(Report::Ended(Box::new(outcome))),
            Ok(None) => {}
            Err(error) => return reporter.send(Report::OutOfSight { why: with_hints(&error) }),
        }
        if !lease::is_held(&attempt.lock()) {
            match holder_of(&attempt) {
                Ok(Holder::None(inbox_entries)) => return reporter.send(Report::NeverBegan { inbox_entries }),
                Ok(Holder::Dead) => return report_loss(&attempt, &worker, &reporter).await,
                Ok(Holder::Lives) => continue,
                Err(error) => return reporter.send(Report::OutOfSight { why: with_hints(&error) }),
            }
        }
        match connect(&attempt).await {
            Some(stream) => listen(stream, &reporter).await,
            None => {
                report_status_file(&attempt, &reporter);
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }
}

async fn connect(attempt: &AttemptDir) -> Option<UnixStream> {
    local::connect(&assignment(attempt)?.socket).await
}

fn assignment(attempt: &AttemptDir) -> Option<Assignment> {
    files::read_json(&attempt.assignment()).ok().flatten()
}

/// Until the supervisor closes the connection, which it does when it ends.
async fn listen(stream: UnixStream, reporter: &Reporter) {
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            Ok(FromSupervisor::Status { status }) => reporter.send(Report::Status(status)),
            Err(error) => tracing::warn!(%error, "a supervisor sent a malformed message"),
        }
    }
}

fn report_status_file(attempt: &AttemptDir, reporter: &Reporter) {
    if let Ok(Some(status)) = files::read_json::<LiveStatus>(&attempt.status()) {
        reporter.send(Report::Status(Box::new(status)));
    }
}

enum Holder {
    /// No supervisor, and by our claim none ever will be. With the entries of its inbox.
    None(Vec<InboxEntry>),
    /// A supervisor that died.
    Dead,
    /// A supervisor that took it a moment ago, or that has just written its record.
    Lives,
}

/// Returns the holder of an attempt whose lock was free. A supervisor takes the lock before the claim and keeps it to
/// its end, so a claim with a free lock belongs to a dead supervisor.
fn holder_of(attempt: &AttemptDir) -> Result<Holder, FileError> {
    if attempt.fence()? {
        return Ok(Holder::None(attempt.close_inbox_unread()?));
    }
    let gone = !lease::is_held(&attempt.lock()) && attempt.outcome()?.is_none();
    Ok(if gone { Holder::Dead } else { Holder::Lives })
}

/// Ends what the dead supervisor has started, and reports the end as lost.
async fn report_loss(attempt: &AttemptDir, worker: &Worker, reporter: &Reporter) {
    let outcome = clean_up_after(attempt, worker).await;
    crash_point::at(Point::LossCleanedUp);
    let settled = attempt.settle(&outcome);
    crash_point::at(Point::LossRecorded);
    match settled {
        Ok(true) => reporter.send(Report::Ended(Box::new(outcome))),
        Ok(false) => match attempt.outcome() {
            Ok(Some(outcome)) => reporter.send(Report::Ended(Box::new(outcome))),
            _ => reporter.send(Report::OutOfSight { why: "the outcome record cannot be read".to_owned() }),
        },
        Err(error) => reporter.send(Report::OutOfSight { why: with_hints(&error) }),
    }
}

/// Ends the processes that a dead supervisor left, and returns the known facts as an outcome.
async fn clean_up_after(attempt: &AttemptDir, worker: &Worker) -> Outcome {
    let assignment = assignment(attempt);
    let status: Option<LiveStatus> = files::read_json(&attempt.status()).ok().flatten();
    let swept = match &assignment {
        Some(assignment) => {
            // The supervisor ended before it could remove its socket.
            let _ = std::fs::remove_file(&assignment.socket);
            let swept = process::sweep(&scope_of(attempt, assignment), GRACE).await;
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
    let called_off = attempt.cancelled();
    let message = "its supervisor died; its work until then is in its directory and its log".to_owned();
    let run = Run {
        failure: Some(Failure { kind: FailureKind::Lost, message, resets_at: None }),
        session_id: status.as_ref().and_then(|status| status.session_id.clone()),
        usage: status.as_ref().map(|status| status.usage).unwrap_or_default(),
        turns: status.as_ref().map_or(0, |status| status.turn),
        started_at: worker.started_at,
        elapsed_seconds: status.as_ref().and_then(|status| ran(worker, status)),
        undelivered: undelivered(attempt, status.as_ref()),
        cancelled: called_off.clone(),
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
    let status = if called_off.is_some() { Ending::Cancelled } else { Ending::Lost };
    Outcome { run, changes, cleanup, ..outcomes::never_ran(worker, worker.attempt, status, None) }
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
    let shown = process::monotonic().checked_sub(status.began).map(|it| it.as_secs());
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

/// Returns the scope of the processes that a dead supervisor started: those with its tag, and those that it recorded.
fn scope_of(attempt: &AttemptDir, assignment: &Assignment) -> ProcessScope {
    ProcessScope {
        tag: assignment.tag.clone(),
        roots: written_down(attempt),
        allowlist: assignment.settings.daemons_left(confines(&assignment.settings, assignment.mission.permissions)),
        private: private_to(attempt, assignment),
        ..ProcessScope::default()
    }
}

fn private_to(attempt: &AttemptDir, assignment: &Assignment) -> WorkerPlaces {
    let tree = assignment.ours.then(|| assignment.directory.clone());
    let beside = sockets::folder_beside(&assignment.socket);
    let places = [attempt.root().to_owned(), sockets::temporary_of(&beside), beside].into_iter().chain(tree).collect();
    WorkerPlaces { places, since: None }
}

/// Returns the supervisor and its descendants as recorded. Empty if the machine was rebooted since.
fn written_down(attempt: &AttemptDir) -> Vec<Identity> {
    files::read_json::<ProcessTree>(&attempt.processes()).ok().flatten().map(ProcessTree::here).unwrap_or_default()
}

/// Sweeps again the attempts for which the cleanup was not conclusive.
pub(super) async fn sweep_again(dir: &WorkerDir, attempts: u32) {
    for attempt in (1..=attempts).map(|number| dir.attempt(number)) {
        let proven =
            |outcome: Outcome| outcome.cleanup.containment == Containment::Full && outcome.cleanup.survivors == 0;
        if attempt.outcome().ok().flatten().is_none_or(proven) {
            continue;
        }
        if let Some(assignment) = assignment(&attempt) {
            process::sweep(&scope_of(&attempt, &assignment), GRACE).await;
        }
    }
}

/// Wakes the attempt's supervisor so that it reads its inbox. A supervisor that is only starting reads it anyway.
pub(super) async fn wake(attempt: AttemptDir) {
    if let Some(assignment) = assignment(&attempt) {
        local::wake(&assignment.socket).await;
    }
}

/// Ends a supervisor that has not settled its attempt within the ceiling. Following the attempt then finds the rest.
pub(super) async fn insist(attempt: AttemptDir, ceiling: Duration) {
    tokio::time::sleep(ceiling).await;
    if attempt.outcome_path().exists() {
        return;
    }
    let Ok(Some(status)) = files::read_json::<LiveStatus>(&attempt.status()) else { return };
    // After a reboot, the pid and start time may belong to another process. If no processes were recorded, the lock
    // that a living supervisor holds is the evidence.
    let known = written_down(&attempt).contains(&status.supervisor);
    if known || (!attempt.processes().exists() && lease::is_held(&attempt.lock())) {
        tracing::warn!(pid = status.supervisor.pid, "a supervisor does not end its worker; ending both");
        process::send(&status.supervisor, Signal::Kill);
    }
}
