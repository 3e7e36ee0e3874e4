//! The follower of a worker: it reads the supervisor's reports from the socket and the outcome record, and detects the
//! loss of both. It also wakes supervisors, and ends one that does not end by itself.

mod lost;
mod remote;

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::confinement::confines;
use super::context::Context;
use super::mailbox::{Ask, Report};
use crate::attempt::assignment::Assignment;
use crate::attempt::inbox::InboxEntry;
use crate::attempt::launch::{Launch, PassedEnvironment};
use crate::attempt::sockets;
use crate::attempt::status::{FromSupervisor, LiveStatus};
use crate::attempt::worker_dir::{AttemptDir, WorkerDir};
use crate::crash_point::{self, Point};
use crate::files::lease;
use crate::files::{self, FileError};
use crate::launcher::local;
use crate::mission::hint::with_hints;
use crate::mission::id::WorkerId;
use crate::mission::outcome::{Containment, Outcome};
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
        // Without an actor, this server is about to end. The next server reads the files.
        let _ = self.mailbox.send(Ask::Reported { worker: self.worker.clone(), attempt: self.attempt, report });
    }
}

/// Stays with an attempt until it has settled. Dropping the future leaves the worker running. `is_new`: this process has
/// just prepared it.
pub(super) async fn follow(
    context: &Context,
    attempt: AttemptDir,
    worker: Arc<Worker>,
    reporter: Reporter,
    is_new: bool,
) {
    match Launch::read(&attempt) {
        Ok(None) => follow_here(attempt, worker, reporter).await,
        Ok(Some(launch)) => remote::follow(context, attempt, worker, launch, reporter, is_new).await,
        Err(error) => reporter.send(Report::OutOfSight { why: with_hints(&error) }),
    }
}

/// Follows an attempt whose supervisor runs on this host.
async fn follow_here(attempt: AttemptDir, worker: Arc<Worker>, reporter: Reporter) {
    loop {
        match attempt.outcome() {
            Ok(Some(outcome)) => return reporter.send(Report::Ended(Box::new(outcome))),
            Ok(None) => {}
            Err(error) => return reporter.send(Report::OutOfSight { why: with_hints(&error) }),
        }
        if !lease::is_held(&attempt.lock()) {
            match holder_of(&attempt) {
                Ok(Holder::None(inbox_entries)) => {
                    // A server that was killed while it prepared a job may have left the file.
                    PassedEnvironment::remove(attempt.root());
                    return reporter.send(Report::NeverBegan { inbox_entries });
                }
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

/// Passes reports on until the supervisor closes the connection, which it does when it ends.
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
    if let Ok(Some(status)) = LiveStatus::read(attempt) {
        reporter.send(Report::Status(Box::new(status)));
    }
}

enum Holder {
    /// No supervisor has claimed the attempt, and our claim excludes any later one. With the entries of the inbox.
    None(Vec<InboxEntry>),
    /// A supervisor that died.
    Dead,
    /// A supervisor that claimed the attempt a moment ago, or that has just written its record.
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
    let outcome = lost::clean_up_after(attempt, worker).await;
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
        // The processes of a job are not on this host.
        if let Some(assignment) = assignment(&attempt).filter(|assignment| assignment.launcher.is_none()) {
            process::sweep(&scope_of(&attempt, &assignment), GRACE).await;
        }
    }
}

/// Wakes the attempt's supervisor so that it reads its inbox. A supervisor that is only starting reads it anyway.
pub(super) async fn wake(context: Arc<Context>, attempt: AttemptDir) {
    if let Ok(Some(_)) = Launch::read(&attempt) {
        // The supervisor reads its inbox every second. A cancellation of an attempt that has not begun is handled here.
        return context.clusters.wake_followers();
    }
    if let Some(assignment) = assignment(&attempt) {
        local::wake(&assignment.socket).await;
    }
}

/// Ends a supervisor that has not settled its attempt within the ceiling. One that runs as a job is ended by cancelling
/// the job. The follower of the attempt then detects the end.
pub(super) async fn insist(
    context: Arc<Context>,
    (id, number): (WorkerId, u32),
    attempt: AttemptDir,
    ceiling: Duration,
) {
    tokio::time::sleep(ceiling).await;
    if let Ok(Some(launch)) = Launch::read(&attempt) {
        let is_over = LiveStatus::read(&attempt).is_ok_and(|status| status.is_some_and(|status| status.settled));
        let cluster = context.clusters.get(&launch.launcher).filter(|_| !is_over);
        return cluster.into_iter().for_each(|cluster| cluster.cancel(&id, number, launch.job));
    }
    if attempt.outcome_path().exists() {
        return;
    }
    let Ok(Some(status)) = LiveStatus::read(&attempt) else { return };
    if !status.is_of_this_host() {
        return;
    }
    // After a reboot, the pid and start time may belong to another process. If no processes were recorded, the lock
    // that a living supervisor holds is the evidence.
    let known = written_down(&attempt).contains(&status.supervisor);
    if known || (!attempt.processes().exists() && lease::is_held(&attempt.lock())) {
        tracing::warn!(pid = status.supervisor.pid, "a supervisor does not end its worker; ending both");
        process::send(&status.supervisor, Signal::Kill);
    }
}
