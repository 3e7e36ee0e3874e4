//! The end of an attempt, in this order: uncommitted changes are committed, that commit is verified, and the tree is
//! checked again. Then all processes are swept, the facts are read, and the inbox is closed. Only then is there an
//! outcome. A message that arrives before the inbox closes returns the attempt to its turns.

use std::path::PathBuf;

use jiff::Timestamp;
use uuid::Uuid;

use super::attempt::{LiveAttempt, Stop, TurnEnd, TurnInput};
use super::blocking::{blocking, in_parallel};
use super::main_checkout;
use super::shell::ShellCommand;
use super::uncommitted::{self, BranchState};
use super::verify;
use crate::attempt::facts;
use crate::attempt::status::Phase;
use crate::crash_point::{self, Point};
use crate::git::{self, CommandError};
use crate::mission::hint::with_hints;
use crate::mission::lifecycle::Ending;
use crate::mission::outcome::{Changes, Failure, FailureKind, LikelyCause, Outcome, Verification};
use crate::mission::words;

pub(super) enum Finished {
    Settled(Box<Outcome>),
    NextTurn(TurnInput),
    /// A server has revoked the claim. It makes the record of this attempt.
    Revoked,
}

/// The results of checking the work at the end of an attempt.
struct WorkCheck {
    verification: Verification,
    likely_cause: Option<LikelyCause>,
    branch: BranchState,
    /// The state before the worker's first attempt.
    before: Option<git::Fingerprint>,
    /// True if the worktree was removed, or its link to the repository leads nowhere.
    worktree_is_gone: bool,
    /// Changes of the main checkout, if nothing that could change it has run since they were read.
    main_checkout_changes: Option<Vec<String>>,
}

impl LiveAttempt {
    pub(super) async fn finish(&mut self, end: &TurnEnd) -> Finished {
        if self.is_revoked() {
            self.sweep().await;
            return Finished::Revoked;
        }
        let after_turn = self.cleanup.clone();
        let mut check = self.check_work(end).await;
        if self.may_have_started_processes() {
            self.sweep().await;
        }
        if !self.cleanup.found_nothing_since(&after_turn) {
            check.branch.status = None;
            check.main_checkout_changes = None;
        }
        crash_point::at(Point::Swept);
        let mut changes = self.changes(&mut check).await;
        crash_point::at(Point::FactsRead);
        if let Some(input) = self.next_turn(end) {
            return Finished::NextTurn(input);
        }
        loop {
            match self.inbox.close() {
                Ok(true) => break,
                // A new message may open another turn. A cancellation, or a message to a turn that failed, does not.
                Ok(false) => {
                    if let Some(input) = self.next_turn(end) {
                        return Finished::NextTurn(input);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot close the inbox");
                    break;
                }
            }
        }
        crash_point::at(Point::InboxClosed);
        // Only now: another turn could change the settings too.
        changes.notes.extend(self.cli_settings_changed().await);
        Finished::Settled(Box::new(self.outcome(end, check, changes)))
    }

    async fn check_work(&mut self, end: &TurnEnd) -> WorkCheck {
        let mut check = WorkCheck {
            verification: Verification::NotRequested,
            likely_cause: None,
            branch: BranchState::default(),
            before: facts::before(&self.assignment, &self.dir),
            worktree_is_gone: self.worktree_is_gone(),
            main_checkout_changes: None,
        };
        let command = self.assignment.mission.verify_command.clone();
        // Nothing is ever committed in a user's own directory. Without a turn, nothing is work of this attempt.
        if self.assignment.ours && !check.worktree_is_gone && self.run.turns > 0 {
            let (assignment, before) = (self.assignment.clone(), check.before.clone());
            let is_unverified = command.is_none();
            let both = move || {
                in_parallel(
                    || is_unverified.then(|| main_checkout::changes(&assignment)),
                    || uncommitted::put_on_branch(&assignment, before.as_ref()),
                )
            };
            (check.main_checkout_changes, check.branch) = blocking(both).await;
        }
        if let Some(error) = self.own_clone.error() {
            check.branch.unreadable.get_or_insert_with(|| error.to_owned());
            let lost = git::not_on_branch::unknown(&self.assignment.directory, error);
            check.branch.not_on_branch.get_or_insert_default().push(lost);
        }
        crash_point::at(Point::ChangesCommitted);
        let Some(command) = command else { return check };
        // The command may change files.
        check.branch.status = None;
        let ran_well = end.stop.is_none() && end.report.end.is_ok() && !check.worktree_is_gone;
        check.verification = match &check.branch.unreadable {
            _ if !ran_well => Verification::Skipped,
            Some(why) => Verification::CouldNotRun { why: why.clone() },
            None => passed_if_committed(self.verify(&command).await, check.branch.uncommitted),
        };
        if ran_well && self.assignment.ours {
            self.add_lost_to_verification(&mut check).await;
        }
        check.likely_cause = self.likely_cause(&command, &check.verification).await;
        check
    }

    /// Adds the parts of the work that the verification removed from the branch, such as commits by a reset.
    async fn add_lost_to_verification(&self, check: &mut WorkCheck) {
        let Some(known) = check.branch.not_on_branch.take() else { return };
        let (assignment, before) = (self.assignment.clone(), check.before.clone());
        let all = blocking(move || uncommitted::after_verification(&assignment, before.as_ref(), known)).await;
        check.branch.not_on_branch = Some(all);
    }

    /// Returns whether git or the verification may have started processes since the sweep after the turn. Also true if
    /// that sweep was inconclusive.
    fn may_have_started_processes(&self) -> bool {
        self.cleanup.is_inconclusive() || self.assignment.ours || self.assignment.mission.verify_command.is_some()
    }

    /// Returns whether the worktree was removed, and with it its link to the repository, or the repository was moved.
    fn worktree_is_gone(&self) -> bool {
        let directory = &self.assignment.directory;
        let has_link = std::fs::symlink_metadata(directory.join(".git")).is_ok();
        self.assignment.ours && (!has_link || git::leads_nowhere(directory))
    }

    async fn verify(&mut self, command: &str) -> Verification {
        self.status.set_phase(Phase::Verifying, "verifying");
        if let Some(repository) = self.verifies_in_copy() {
            let verification = self.verify_in_copy(repository, command).await;
            crash_point::at(Point::Verified);
            return verification;
        }
        let state = self.tree_state().await;
        let commit = if self.assignment.ours { self.head().await } else { None };
        let log = self.dir.verify_log();
        let log_from = std::fs::metadata(&log).map_or(0, |metadata| metadata.len());
        let copy = match self.copy_folder().await {
            Ok(copy) => copy,
            Err(error) => return Verification::CouldNotRun { why: with_hints(&error) },
        };
        let directory = copy.as_ref().map_or_else(|| self.assignment.start_directory(), |copy| copy.path.clone());
        let variables = self.assignment.variables();
        let verify_command = ShellCommand {
            command,
            directory: &directory,
            tag: &self.assignment.tag,
            log: &log,
            settings: &self.assignment.settings,
            variables: &variables,
            sockets: &self.sockets,
            confine: self.rules.verification.as_ref(),
        };
        if let Err(error) = self.enter_clone().await {
            return Verification::CouldNotRun { why: with_hints(&error) };
        }
        let result = verify::verify(&verify_command, commit, self.inbox.until_stopped()).await;
        crash_point::at(Point::Verified);
        let output = super::exit::end_of(&log, log_from);
        self.refused_writes.record(&output, self.rules.verification.as_ref());
        // Processes that the command left running could still change the tree.
        self.sweep().await;
        self.leave_clone().await;
        match result {
            None => Verification::Skipped,
            Some(passed @ Verification::Passed { .. }) => {
                verify::passed_if_unchanged(passed, state, self.tree_state().await)
            }
            Some(mut verification) => {
                copy.iter().for_each(|copy| copy.note(&mut verification));
                verification
            }
        }
    }

    /// Returns the state of HEAD and the tracked files, without the untracked files that a verification builds. Empty
    /// outside a repository.
    async fn tree_state(&self) -> Result<String, CommandError> {
        if self.git.is_none() {
            return Ok(String::new());
        }
        let directory = self.assignment.checkout();
        blocking(move || git::tracked_state(&directory)).await
    }

    async fn head(&self) -> Option<String> {
        let directory = self.assignment.checkout();
        blocking(move || git::head(&directory)).await.ok().flatten()
    }

    async fn changes(&self, check: &mut WorkCheck) -> Changes {
        let assignment = self.assignment.clone();
        let known = facts::KnownFacts {
            before: check.before.take(),
            not_on_branch: check.branch.not_on_branch.take(),
            status: check.branch.status.take(),
        };
        let gone = self.git.as_ref().filter(|_| check.worktree_is_gone).map(|git| match self.moved_to() {
            Some(_) => self.moved_repository().map_or_else(PathBuf::new, |it| it.common_dir),
            None => git.common.clone(),
        });
        let main_checkout_changes = check.main_checkout_changes.take();
        let mut changes = blocking(move || match gone {
            Some(common) => facts::branch_changes(&assignment, &common),
            None => {
                let outside = || main_checkout_changes.unwrap_or_else(|| main_checkout::changes(&assignment));
                let (main_checkout_changes, changes) = in_parallel(outside, || facts::changes(&assignment, known));
                Changes { main_checkout_changes, ..changes }
            }
        })
        .await;
        changes.committed_by_us = check.branch.committed;
        changes.outside_worktree = self.outside_edits.paths();
        let set_up = self.run.setup.as_ref().map_or(0, |setup| setup.changed_files);
        if set_up > 0 {
            changes.notes.push(format!("setup changed {}", words::count(set_up, "tracked file")));
        }
        let checkout = self.assignment.repository.as_ref().and_then(|repository| repository.main_worktree.as_deref());
        changes.notes.extend(self.refused_writes.notes(&self.assignment.directory, checkout));
        changes.notes.extend(self.own_clone.notes());
        for port in &self.assignment.ports_in_use {
            changes
                .notes
                .push(format!("another process listened at port {port} of this worker when the attempt began"));
        }
        changes
    }

    async fn cli_settings_changed(&self) -> Option<String> {
        let (settings, state) = (self.cli_settings.clone()?, self.dir.state_dir());
        blocking(move || settings.end(&state)).await
    }

    fn outcome(&mut self, end: &TurnEnd, check: WorkCheck, changes: Changes) -> Outcome {
        let mut status = self.ending(end, &check.verification);
        let mut run = std::mem::take(&mut self.run);
        // Texts that the supervisor queued by itself are not messages of the boss or the user.
        let posted: Vec<Uuid> = self.dir.inbox_entries(0).unwrap_or_default().iter().map(|entry| entry.id).collect();
        let undelivered = self.inbox.take_queue().into_iter().filter(|message| posted.contains(&message.id));
        run.undelivered = undelivered.map(|message| message.text).collect();
        let never_ran = run.failure.as_ref().is_some_and(|failure| failure.kind == FailureKind::CouldNotStart);
        if run.turns == 0 || (never_ran && run.turns == 1) {
            let written = self.assignment.written.iter().map(|message| message.text.clone());
            run.undelivered = written.chain(std::mem::take(&mut run.undelivered)).collect();
        }
        run.elapsed_seconds = Some(self.status.elapsed_seconds());
        run.cancelled = self.inbox.cancelled().filter(|_| status == Ending::Cancelled).cloned();
        // A node without the shared folder has removed nothing.
        let is_missing_here = never_ran && self.is_job();
        if check.worktree_is_gone
            && !is_missing_here
            && matches!(status, Ending::Completed | Ending::Failed | Ending::Interrupted)
        {
            status = Ending::Failed;
            run.failure = Some(self.worktree_removed());
        }
        if status == Ending::Failed && run.failure.is_none() {
            let message = format!("verification: {}", check.verification.as_str());
            run.failure = Some(Failure { kind: FailureKind::Verification, message, resets_at: None });
        }
        Outcome {
            worker_id: self.assignment.worker_id.clone(),
            attempt: self.assignment.attempt,
            backend: self.assignment.backend.clone(),
            status,
            run,
            verification: check.verification,
            likely_cause: check.likely_cause,
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
                "its repository was moved while it ran, so the attempt was stopped: its commits are on branch {branch}, its uncommitted changes are in {0}; `git worktree repair {0}` repairs git's links",
                here.display()
            );
            return Failure { kind: FailureKind::Lost, message, resets_at: None };
        }
        if std::fs::symlink_metadata(here).is_ok() {
            let message = format!(
                "its worktree was disconnected from git while it ran (its `.git` file or git's record of it is gone): its commits are on branch {branch}, its uncommitted changes are in {}; a retry repairs the worktree and continues there",
                here.display()
            );
            return Failure { kind: FailureKind::Lost, message, resets_at: None };
        }
        let message = format!(
            "its worktree {} was removed or moved while it ran: its commits are on branch {branch}, its uncommitted changes are gone with the folder; a retry creates the worktree again from the branch",
            here.display()
        );
        Failure { kind: FailureKind::Lost, message, resets_at: None }
    }

    fn ending(&self, end: &TurnEnd, verification: &Verification) -> Ending {
        let is_verified = matches!(verification, Verification::NotRequested | Verification::Passed { .. });
        match &end.stop {
            Some(Stop::Cancelled) => Ending::Cancelled,
            Some(Stop::TimedOut) => Ending::TimedOut,
            Some(Stop::Interrupted) => Ending::Interrupted,
            Some(Stop::Failed(..)) => Ending::Failed,
            Some(Stop::ForMessage) if self.inbox.must_stop() => self.cancelled_or_interrupted(),
            None if end.is_interrupted() => Ending::Interrupted,
            None if end.report.end.is_ok() && is_verified => Ending::Completed,
            // A cancellation during the verification is not a failure.
            None if *verification == Verification::Skipped && end.report.end.is_ok() => self.cancelled_or_interrupted(),
            Some(Stop::ForMessage) | None => Ending::Failed,
        }
    }

    /// Returns whether the boss or else the system stopped the attempt.
    fn cancelled_or_interrupted(&self) -> Ending {
        if self.inbox.is_cancelled() { Ending::Cancelled } else { Ending::Interrupted }
    }
}

/// Returns a pass as unproven if there are uncommitted files, since the commit alone was not verified.
fn passed_if_committed(verification: Verification, uncommitted: u32) -> Verification {
    match verification {
        Verification::Passed { .. } if uncommitted > 0 => Verification::Inconclusive {
            why: format!(
                "it passed, but with {uncommitted} uncommitted files, so it verifies no commit: ask the worker to commit them, or the user to set commit_leftovers"
            ),
        },
        other => other,
    }
}
