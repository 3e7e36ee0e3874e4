//! The end of an attempt, in this order: uncommitted changes are committed, that commit is verified, and the tree is
//! checked again. Then all processes are swept, the facts are read, and the inbox is closed. Only then is there an
//! outcome. A message that arrives before the inbox closes returns the attempt to its turns.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::inbox::Inbox;
use super::leftovers::{self, Left};
use super::run::{Attempt, Stop, moved_to, was_interrupted};
use super::turn::{Begin, Ended};
use super::{outside, verify};
use crate::attempt::facts;
use crate::attempt::status::Phase;
use crate::attempt::worker_dir::AttemptDir;
use crate::crash_point::{self, Point};
use crate::git::{self, CommandError, Repository};
use crate::mission::hint::with_hints;
use crate::mission::lifecycle::Ending;
use crate::mission::outcome::{
    Changes, Cleanup, Containment, Failure, FailureKind, LikelyCause, Outcome, Verification,
};
use crate::process::{self, Sweep};

/// Time that processes get to exit by themselves if they outlive their turn.
pub(super) const SWEEP_GRACE: Duration = Duration::from_secs(3);

pub(super) enum Finished {
    Settled(Box<Outcome>),
    GoOn(Begin),
}

/// The sweeps of all turns together.
#[derive(Debug, Clone, Default)]
pub(super) struct CleanupSoFar {
    ended: u32,
    last: Cleanup,
}

impl CleanupSoFar {
    pub(super) fn add(&mut self, swept: Sweep) {
        self.ended += swept.ended as u32;
        let containment = match swept.proof {
            process::Proof::Full => Containment::Full,
            process::Proof::BestEffort => Containment::BestEffort,
        };
        let survivors = swept.survivors.len() as u32;
        self.last = Cleanup { survivors, containment, ended: self.ended, daemons_left: swept.spared };
    }

    fn is_in_doubt(&self) -> bool {
        self.last.survivors > 0 || self.last.containment != Containment::Full
    }

    /// Returns whether it is certain that no process of the worker has run since an earlier sweep.
    fn found_nothing_since(&self, earlier: &Self) -> bool {
        !earlier.is_in_doubt() && !self.is_in_doubt() && earlier.ended == self.ended
    }
}

/// Results of checking the work at the end of an attempt.
struct Proven {
    verification: Verification,
    likely_cause: Option<LikelyCause>,
    left: Left,
    /// The state before the worker's first attempt.
    before: Option<git::Fingerprint>,
    /// True if the worktree was removed, or its link to the repository leads nowhere.
    place_is_gone: bool,
    /// Changes of the main checkout, if nothing that could change it has run since they were read.
    main_checkout_changes: Option<Vec<String>>,
}

impl Attempt {
    pub(super) async fn finish(&mut self, ended: &Ended) -> Finished {
        let after_turn = self.cleanup.clone();
        let mut proven = self.prove(ended).await;
        if self.was_anything_started_since() {
            self.sweep().await;
        }
        if !self.cleanup.found_nothing_since(&after_turn) {
            proven.left.status = None;
            proven.main_checkout_changes = None;
        }
        crash_point::at(Point::Swept);
        let changes = self.changes(&mut proven).await;
        crash_point::at(Point::FactsRead);
        if let Some(begin) = self.next_turn(ended) {
            return Finished::GoOn(begin);
        }
        loop {
            match self.inbox.close() {
                Ok(true) => break,
                // A new message may open another turn. A cancellation, or a message to a turn that failed, does not.
                Ok(false) => {
                    if let Some(begin) = self.next_turn(ended) {
                        return Finished::GoOn(begin);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "could not close the inbox");
                    break;
                }
            }
        }
        crash_point::at(Point::InboxClosed);
        Finished::Settled(Box::new(self.outcome(ended, proven, changes)))
    }

    async fn prove(&mut self, ended: &Ended) -> Proven {
        let mut proven = Proven {
            verification: Verification::NotRequested,
            likely_cause: None,
            left: Left::default(),
            before: facts::before(&self.assignment, &self.dir),
            place_is_gone: self.place_is_gone(),
            main_checkout_changes: None,
        };
        let command = self.assignment.mission.verify_command.clone();
        // Nothing is ever committed in a user's own directory.
        if self.assignment.ours && !proven.place_is_gone {
            let (assignment, before) = (self.assignment.clone(), proven.before.clone());
            let is_unverified = command.is_none();
            let both = move || {
                beside(
                    || is_unverified.then(|| outside::main_checkout_changes(&assignment)),
                    || leftovers::put_on_branch(&assignment, before.as_ref()),
                )
            };
            (proven.main_checkout_changes, proven.left) = blocking(both).await;
        }
        crash_point::at(Point::LeftoversCommitted);
        let Some(command) = command else { return proven };
        // It may change files.
        proven.left.status = None;
        let ran_well = ended.stop.is_none() && ended.report.end.is_ok() && !proven.place_is_gone;
        proven.verification = match ran_well {
            true => match &proven.left.unreadable {
                Some(why) => Verification::CouldNotRun { why: why.clone() },
                None => of_a_commit(self.verify(&command).await, proven.left.uncommitted),
            },
            false => Verification::Skipped,
        };
        if ran_well && self.assignment.ours {
            self.look_again(&mut proven).await;
        }
        proven.likely_cause = self.likely_cause(&command, &proven.verification).await;
        proven
    }

    /// Adds what the verification took off the branch, such as commits by a reset.
    async fn look_again(&self, proven: &mut Proven) {
        let Some(known) = proven.left.not_on_branch.take() else { return };
        let (assignment, before) = (self.assignment.clone(), proven.before.clone());
        let all = blocking(move || leftovers::after_verification(&assignment, before.as_ref(), known)).await;
        proven.left.not_on_branch = Some(all);
    }

    /// Returns whether git or the verification may have started processes since the sweep after the turn. Also true if
    /// that sweep was inconclusive.
    fn was_anything_started_since(&self) -> bool {
        self.cleanup.is_in_doubt() || self.assignment.ours || self.assignment.mission.verify_command.is_some()
    }

    /// Returns whether the worktree was removed, and with it its link to the repository, or the repository was moved.
    fn place_is_gone(&self) -> bool {
        let place = &self.assignment.directory;
        self.assignment.ours && (std::fs::symlink_metadata(place.join(".git")).is_err() || git::leads_nowhere(place))
    }

    async fn verify(&mut self, command: &str) -> Verification {
        self.board.set_phase(Phase::Verifying, "verifying");
        let state = self.tree_state().await;
        let commit = if self.assignment.ours { self.head().await } else { None };
        let log = self.dir.verify_log();
        let check = verify::Check {
            command,
            directory: &self.assignment.start_directory(),
            tag: &self.assignment.tag,
            log: &log,
            settings: &self.assignment.settings,
            sockets: &self.sockets,
            commit,
        };
        let result = verify::verify(check, called_off(&mut self.inbox, &self.dir)).await;
        crash_point::at(Point::Verified);
        // Processes that it left running could still change the tree.
        self.sweep().await;
        match result {
            None => Verification::Skipped,
            Some(passed @ Verification::Passed { .. }) => of_unchanged(passed, state, self.tree_state().await),
            Some(verification) => verification,
        }
    }

    /// HEAD and tracked files; what a verification builds beside them does not matter. Empty outside a repository.
    async fn tree_state(&self) -> Result<String, CommandError> {
        if self.git.is_none() {
            return Ok(String::new());
        }
        let directory = self.assignment.directory.clone();
        blocking(move || git::tracked_state(&directory)).await
    }

    async fn head(&self) -> Option<String> {
        let directory = self.assignment.directory.clone();
        blocking(move || git::head(&directory)).await.ok().flatten()
    }

    async fn changes(&self, proven: &mut Proven) -> Changes {
        let assignment = self.assignment.clone();
        let known = facts::KnownFacts {
            before: proven.before.take(),
            not_on_branch: proven.left.not_on_branch.take(),
            status: proven.left.status.take(),
        };
        let gone = self.git.as_ref().filter(|_| proven.place_is_gone).map(|git| match moved_to(&self.dir) {
            Some(now) => Repository::discover(now.root()).ok().flatten().map_or_else(PathBuf::new, |it| it.common_dir),
            None => git.common.clone(),
        });
        let main_checkout_changes = proven.main_checkout_changes.take();
        let mut changes = blocking(move || match gone {
            Some(common) => facts::branch_changes(&assignment, &common),
            None => {
                let outside = || main_checkout_changes.unwrap_or_else(|| outside::main_checkout_changes(&assignment));
                let (main_checkout_changes, changes) = beside(outside, || facts::changes(&assignment, known));
                Changes { main_checkout_changes, ..changes }
            }
        })
        .await;
        changes.committed_by_us = proven.left.committed;
        changes.outside_worktree = self.outside.edited();
        changes
    }

    fn outcome(&mut self, ended: &Ended, proven: Proven, changes: Changes) -> Outcome {
        let mut status = self.status(ended, &proven.verification);
        let mut run = std::mem::take(&mut self.run);
        // Texts that the supervisor queued by itself are not messages of the boss or the user.
        let posted: Vec<Uuid> =
            self.dir.inbox_entries(0).unwrap_or_default().iter().map(|inbox_entry| inbox_entry.id).collect();
        let unheard = self.inbox.take_queue().into_iter().filter(|message| posted.contains(&message.id));
        run.unheard = unheard.map(|message| message.text).collect();
        let never_ran = run.failure.as_ref().is_some_and(|failure| failure.kind == FailureKind::CouldNotStart);
        if never_ran && run.turns <= 1 {
            let written = self.assignment.written.iter().map(|message| message.text.clone());
            run.unheard = written.chain(std::mem::take(&mut run.unheard)).collect();
        }
        run.elapsed_seconds = Some(self.board.elapsed_seconds());
        run.cancelled = self.inbox.cancelled().filter(|_| status == Ending::Cancelled).cloned();
        if proven.place_is_gone && matches!(status, Ending::Completed | Ending::Failed | Ending::Interrupted) {
            status = Ending::Failed;
            run.failure = Some(self.worktree_removed());
        }
        if status == Ending::Failed && run.failure.is_none() {
            let message = format!("verification: {}", proven.verification.as_str());
            run.failure = Some(Failure { kind: FailureKind::Verification, message, resets_at: None });
        }
        Outcome {
            worker_id: self.assignment.worker_id.clone(),
            attempt: self.assignment.attempt,
            backend: self.assignment.backend.clone(),
            status,
            run,
            verification: proven.verification,
            likely_cause: proven.likely_cause,
            changes,
            cleanup: self.cleanup.last.clone(),
            settled_at: Timestamp::now(),
        }
    }

    fn worktree_removed(&self) -> Failure {
        let branch = self.assignment.mission.place.branch().unwrap_or_default();
        let here = &self.assignment.directory;
        let is_moved = self.git.as_ref().is_some_and(|git| !git.common.exists());
        if is_moved && git::leads_nowhere(here) {
            let message = format!(
                "its repository was moved while it ran, so it was not followed any further: what it had committed is on branch {branch}, what it had not is in {0}; `git worktree repair {0}` mends git's links",
                here.display()
            );
            return Failure { kind: FailureKind::Lost, message, resets_at: None };
        }
        if std::fs::symlink_metadata(here).is_ok() {
            let message = format!(
                "its worktree was cut off from git while it ran (its `.git` file or git's record of it is gone): what it had committed is on branch {branch}, what it had not is in {}; a retry repairs that and continues there",
                here.display()
            );
            return Failure { kind: FailureKind::Lost, message, resets_at: None };
        }
        let message = format!(
            "its worktree {} was removed or moved while it ran: what it had committed is on branch {branch}, what it had not went with the folder; a retry makes the worktree again from the branch",
            here.display()
        );
        Failure { kind: FailureKind::Lost, message, resets_at: None }
    }

    fn status(&self, ended: &Ended, verification: &Verification) -> Ending {
        let proven = matches!(verification, Verification::NotRequested | Verification::Passed { .. });
        match &ended.stop {
            Some(Stop::Cancelled) => Ending::Cancelled,
            Some(Stop::TimedOut) => Ending::TimedOut,
            Some(Stop::Interrupted) => Ending::Interrupted,
            Some(Stop::Failed(..)) => Ending::Failed,
            Some(Stop::ForMessage) if self.inbox.is_over() => self.called_off(),
            None if was_interrupted(ended) => Ending::Interrupted,
            None if ended.report.end.is_ok() && proven => Ending::Completed,
            // Called off while it was being verified: that is no failure.
            None if *verification == Verification::Skipped && ended.report.end.is_ok() => self.called_off(),
            Some(Stop::ForMessage) | None => Ending::Failed,
        }
    }

    /// By the boss, or else by the system.
    fn called_off(&self) -> Ending {
        if self.inbox.is_cancelled() { Ending::Cancelled } else { Ending::Interrupted }
    }
}

/// Returns a pass unless the tree was changed meanwhile, according to its state before and after, or cannot be read.
pub(super) fn of_unchanged(
    passed: Verification,
    before: Result<String, CommandError>,
    after: Result<String, CommandError>,
) -> Verification {
    let why = match (before, after) {
        (Ok(before), Ok(after)) if before == after => return passed,
        (Ok(_), Ok(_)) => "it passed, but commits or tracked files were changed while it ran".to_owned(),
        (Err(error), _) | (_, Err(error)) => {
            format!("it passed, but whether it changed tracked files is unknown: {}", with_hints(&error))
        }
    };
    Verification::Inconclusive { why }
}

/// What passed with files there that are in no commit proves none.
fn of_a_commit(verification: Verification, left: u32) -> Verification {
    match verification {
        Verification::Passed { .. } if left > 0 => Verification::Inconclusive {
            why: format!(
                "it passed, but with {left} uncommitted files, and so proves no commit: tell the worker to commit them, or let the user set commit_leftovers"
            ),
        },
        other => other,
    }
}

/// Waits until a cancellation arrives or the system asks this process to end. Also returns if the attempt's folder is
/// gone, since its end could not be recorded then.
pub(super) async fn called_off(inbox: &mut Inbox, dir: &AttemptDir) {
    let bell = inbox.bell();
    loop {
        Inbox::knock(&bell).await;
        for message in inbox.look() {
            inbox.keep(message);
        }
        if inbox.is_over() || !dir.is_still_claimed() {
            return;
        }
    }
}

/// Runs two pieces of work that mostly wait for git in parallel.
fn beside<One: Send, Other>(one: impl FnOnce() -> One + Send, other: impl FnOnce() -> Other) -> (One, Other) {
    std::thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other();
        (one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), other)
    })
}

/// Runs work that blocks, such as git, outside the event loop's thread.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
