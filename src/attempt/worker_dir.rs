//! `workers/<id>/`: one folder per worker, and in it one per attempt. Each file has one writer.
//!
//! The outcome record settles an attempt. It is created once, and disk space for it is reserved at the start. The inbox
//! has many writers: see [`super::inbox`].

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::files::lease::{self, Lease};
use crate::files::{self, FileError};
use crate::mission::outcome::{Outcome, WorktreeSetup};
use crate::mission::registry::Worker;

/// Bytes reserved for an outcome record. A larger record is cut to fit when the disk is full.
const RESERVE: usize = 64 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerDir {
    root: PathBuf,
}

impl WorkerDir {
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Creates the folder, and `workers/` if necessary.
    fn make(&self) -> Result<(), FileError> {
        files::make_private_dir_within(above_worker(&self.root), &self.root)
    }

    /// Records the worktree that was created for this worker.
    pub fn record_worktree(&self, worktree: &impl Serialize) -> Result<(), FileError> {
        files::refuse_links_in(&self.root)?;
        self.make()?;
        files::replace_json(&self.root.join("worktree.json"), worktree, true)
    }

    pub fn worktree<T: DeserializeOwned>(&self) -> Result<Option<T>, FileError> {
        files::read_json(&self.root.join("worktree.json"))
    }

    /// Records that the setup of the worktree succeeded, so that no later attempt repeats it.
    pub fn record_setup(&self, setup: &WorktreeSetup) -> Result<(), FileError> {
        files::replace_json(&self.setup_path(), setup, true)
    }

    /// Returns the setup that succeeded in the worktree.
    pub fn setup(&self) -> Result<Option<WorktreeSetup>, FileError> {
        files::read_json(&self.setup_path())
    }

    /// Removes the record of the setup, durably. Must be called before a worktree is created or parts of it are
    /// deleted, so that a crash leaves no record of an earlier state.
    pub fn forget_setup(&self) -> Result<(), FileError> {
        let path = self.setup_path();
        match fs::remove_file(&path) {
            Ok(()) => files::sync_parent(&path),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(FileError::write(&path, source)),
        }
    }

    /// Records which builds were last deleted from the worktree.
    pub fn record_pruning(&self, pruning: &impl Serialize) -> Result<(), FileError> {
        files::replace_json(&self.root.join("pruned.json"), pruning, false)
    }

    /// Returns which builds were last deleted from the worktree.
    pub fn pruning<T: DeserializeOwned>(&self) -> Result<Option<T>, FileError> {
        files::read_json(&self.root.join("pruned.json"))
    }

    /// Excludes other processes from deleting builds of the worktree. Blocks while one of them does so.
    pub fn lock_pruning(&self) -> Result<Lease, FileError> {
        self.make()?;
        lease::wait_for(&self.root.join("pruning.lock"))
    }

    fn setup_path(&self) -> PathBuf {
        self.root.join("setup.json")
    }

    /// Records the worker at the beginning of an attempt, so that a lost registry can be rebuilt.
    pub fn record(&self, worker: &Worker) -> Result<(), FileError> {
        self.make()?;
        files::replace_json(&self.root.join("worker.json"), worker, true)
    }

    pub fn recorded(&self) -> Result<Option<Worker>, FileError> {
        files::read_json(&self.root.join("worker.json"))
    }

    /// Returns the numbers of the attempts that have a folder, in order.
    pub fn attempts(&self) -> Vec<u32> {
        let Ok(entries) = fs::read_dir(self.root.join("attempts")) else { return Vec::new() };
        let mut numbers: Vec<u32> =
            entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        numbers.sort_unstable();
        numbers
    }

    pub fn attempt(&self, number: u32) -> AttemptDir {
        AttemptDir { root: self.root.join("attempts").join(number.to_string()) }
    }
}

/// The folder of an attempt, `workers/<id>/attempts/<n>/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptDir {
    root: PathBuf,
}

/// The content of an attempt's claim. It is created once. After that, a server may only revoke it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Claim {
    Signed {
        by: Claimant,
        /// Distinguishes the writer from all others.
        token: Uuid,
    },
    /// As earlier versions wrote it.
    Plain(Claimant),
}

impl Claim {
    fn by(by: Claimant) -> Self {
        Self::Signed { by, token: Uuid::new_v4() }
    }

    fn claimant(self) -> Claimant {
        match self {
            Self::Signed { by, .. } | Self::Plain(by) => by,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Claimant {
    Supervisor,
    /// A server that fenced the attempt, so that it never begins.
    Fenced,
    /// A server that took the claim from a supervisor that it could not reach.
    Revoked,
}

/// An event of an attempt. One process claims it and notifies the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptEvent {
    Stalled,
    /// A question, by its id.
    Asked(String),
    Ended,
    /// The end of the last open worker of its boss.
    AllDone,
}

impl AttemptDir {
    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the folder of the worker.
    pub fn worker(&self) -> WorkerDir {
        WorkerDir::new(self.root.ancestors().nth(2).unwrap_or(&self.root).to_owned())
    }

    pub fn assignment(&self) -> PathBuf {
        self.root.join("assignment.json")
    }

    /// Created once, by the process that decides whether this attempt runs. It may be revoked.
    fn claim(&self) -> PathBuf {
        self.root.join("claim")
    }

    /// Locked by the supervisor for as long as it lives.
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub fn status(&self) -> PathBuf {
        self.root.join("status.json")
    }

    /// The processes below the supervisor, as last recorded.
    pub fn processes(&self) -> PathBuf {
        self.root.join("processes.json")
    }

    pub fn events(&self) -> PathBuf {
        self.root.join("events.jsonl")
    }

    /// Raw output of the CLI, all turns of the attempt one after another.
    pub fn stdout(&self) -> PathBuf {
        self.root.join("stdout.log")
    }

    pub fn stderr(&self) -> PathBuf {
        self.root.join("stderr.log")
    }

    pub fn setup_log(&self) -> PathBuf {
        self.root.join("setup.log")
    }

    /// Returns the logs that are removed when they are old.
    pub fn logs(&self) -> [PathBuf; 4] {
        [self.events(), self.stdout(), self.stderr(), self.setup_log()]
    }

    /// Shows that the logs were removed.
    fn removed_logs(&self) -> PathBuf {
        self.root.join("logs-removed")
    }

    /// Removes the logs of a settled attempt.
    pub fn remove_logs(&self) -> Result<(), FileError> {
        files::replace(&self.removed_logs(), b"", false)?;
        for log in self.logs() {
            match fs::remove_file(&log) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(FileError::write(&log, error)),
                _ => {}
            }
        }
        Ok(())
    }

    pub fn logs_are_removed(&self) -> bool {
        self.removed_logs().exists()
    }

    pub fn verify_log(&self) -> PathBuf {
        self.root.join("verify.log")
    }

    /// The output of the job that runs the supervisor, if it runs on a cluster.
    pub fn engine_log(&self) -> PathBuf {
        self.root.join("engine.log")
    }

    pub fn supervisor_log(&self) -> PathBuf {
        self.root.join("supervisor.log")
    }

    /// Files that the CLI's launch needs.
    pub fn scratch(&self) -> PathBuf {
        self.root.join("scratch")
    }

    pub fn outcome_path(&self) -> PathBuf {
        self.root.join("outcome.json")
    }

    /// Returns the path of the mark that this attempt ended while no server ran, and that the user must be notified.
    pub fn event_pending(&self) -> PathBuf {
        self.root.join("event-pending")
    }

    /// Claims an event for this process, which then notifies the user. Returns `false` if another process has claimed
    /// it.
    pub fn claim_event(&self, event: &AttemptEvent) -> Result<bool, FileError> {
        let name = match event {
            AttemptEvent::Stalled => "stall-sent".to_owned(),
            AttemptEvent::Asked(question) => format!("question-sent-{question}"),
            AttemptEvent::Ended => "event-sent".to_owned(),
            AttemptEvent::AllDone => "all-done-sent".to_owned(),
        };
        match files::create_once(&self.root.join(name), b"") {
            Ok(()) => Ok(true),
            Err(FileError::Exists { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn reserve(&self) -> PathBuf {
        self.root.join("reserve")
    }

    /// Returns the copy of the record of the settings of the CLI: see [`super::cli_settings`].
    pub fn cli_settings(&self) -> PathBuf {
        self.root.join("cli-settings.json")
    }

    pub fn create(&self, assignment: &impl Serialize) -> Result<(), FileError> {
        self.make()?;
        files::replace_json(&self.assignment(), assignment, true)
    }

    /// Creates missing parts of the folder. The existing parts may have been put there by the repository, so links in
    /// them are refused.
    pub fn make(&self) -> Result<(), FileError> {
        for folder in self.root.ancestors().take(3).collect::<Vec<_>>().into_iter().rev() {
            files::refuse_links_in(folder)?;
        }
        files::make_private_dir_within(above_attempt(&self.root), &self.inbox())?;
        self.make_inbox()
    }

    /// Claims the attempt for this supervisor. `false` if it was claimed before.
    pub fn take_claim(&self) -> Result<bool, FileError> {
        self.claim_for(Claimant::Supervisor)
    }

    /// Fences the attempt, so that it never begins. `false` if a supervisor has claimed it.
    pub fn fence(&self) -> Result<bool, FileError> {
        // Read first: a full disk prevents writing it, and it may exist.
        if let Some(claimant) = self.claimant()? {
            return Ok(claimant == Claimant::Fenced);
        }
        self.make()?;
        Ok(self.claim_for(Claimant::Fenced)? || self.claimant()? == Some(Claimant::Fenced))
    }

    /// Takes the claim from a supervisor that cannot be reached. A supervisor that still runs ends its CLI as soon as
    /// it sees the revocation, commits nothing and writes no outcome.
    pub fn revoke(&self) -> Result<(), FileError> {
        files::replace_json(&self.claim(), &Claim::by(Claimant::Revoked), true)
    }

    pub fn is_revoked(&self) -> bool {
        matches!(self.claimant(), Ok(Some(Claimant::Revoked)))
    }

    /// Returns whether a supervisor has the claim. The claim is lost if the folder was removed or the claim was
    /// revoked, but not by an error in reading it.
    pub fn is_still_claimed(&self) -> bool {
        matches!(self.claimant(), Ok(Some(Claimant::Supervisor)) | Err(_))
    }

    /// Returns whether no supervisor may begin the attempt or go on with it: it was fenced or lost, has an outcome, or
    /// its folder was removed. With an error in reading, it may.
    pub fn is_over(&self) -> bool {
        matches!(self.claimant(), Ok(Some(Claimant::Fenced | Claimant::Revoked)))
            || matches!(self.outcome(), Ok(Some(_)))
            || matches!(self.root.try_exists(), Ok(false))
    }

    fn claim_for(&self, by: Claimant) -> Result<bool, FileError> {
        match files::create_json_once(&self.claim(), &Claim::by(by)) {
            Ok(()) => Ok(true),
            Err(FileError::Exists { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn claimant(&self) -> Result<Option<Claimant>, FileError> {
        Ok(files::read_json::<Claim>(&self.claim())?.map(Claim::claimant))
    }

    /// Reserves disk space for the end of the inbox and for the outcome record.
    pub fn reserve_outcome(&self) -> Result<(), FileError> {
        self.reserve_inbox_end()?;
        // Written in full, since a sparse file reserves nothing.
        files::replace(&self.reserve(), &vec![b' '; RESERVE], false)
    }

    /// Writes the record that settles the attempt. `false` if it was settled before, which does not change.
    pub fn settle(&self, outcome: &Outcome) -> Result<bool, FileError> {
        let settled = self.record_outcome(outcome);
        self.free_reserve();
        settled
    }

    /// Does the same, and gives up the reserved room only if the record needs it. On some disks it takes longer to free
    /// the room than to write the record.
    pub fn record_outcome(&self, outcome: &Outcome) -> Result<bool, FileError> {
        let mut created = files::create_json_once(&self.outcome_path(), outcome);
        if matches!(created, Err(FileError::NoSpace { .. })) {
            self.free_reserve();
            created = files::create_json_once(&self.outcome_path(), outcome);
        }
        match created {
            Ok(()) => Ok(true),
            Err(FileError::Exists { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub fn free_reserve(&self) {
        let _ = fs::remove_file(self.reserve());
    }

    pub fn outcome(&self) -> Result<Option<Outcome>, FileError> {
        files::read_json(&self.outcome_path())
    }
}

/// Returns the root of the state directory that a folder of a worker is in.
fn above_worker(worker: &Path) -> &Path {
    worker.ancestors().nth(2).unwrap_or(worker)
}

/// Returns the root of the state directory that a folder of an attempt (`workers/<id>/attempts/<number>`) is in.
pub(super) fn above_attempt(attempt: &Path) -> &Path {
    attempt.ancestors().nth(4).unwrap_or(attempt)
}

/// Appends JSON lines to one file.
#[derive(Debug)]
pub struct LineWriter {
    path: PathBuf,
    file: File,
    /// Its length in bytes, without a partial line. It has no other writer.
    whole: u64,
}

impl LineWriter {
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let fail = |source| FileError::write(path, source);
        let file = files::private().create(true).append(true).open(path).map_err(fail)?;
        let whole = file.metadata().map_err(fail)?.len();
        Ok(Self { path: path.to_owned(), file, whole })
    }

    pub fn write(&mut self, value: &impl Serialize) -> Result<(), FileError> {
        let mut line = Vec::with_capacity(1024);
        serde_json::to_writer(&mut line, value)
            .map_err(|error| FileError::Damaged { path: self.path.clone(), reason: error.to_string() })?;
        line.push(b'\n');
        if let Err(source) = self.file.write_all(&line) {
            // The disk is full. A partial line would damage the next one too.
            if self.file.metadata().is_ok_and(|metadata| metadata.len() > self.whole) {
                let _ = self.file.set_len(self.whole);
            }
            return Err(FileError::write(&self.path, source));
        }
        self.whole += line.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempt_is_claimed_once() {
        let folder = tempfile::tempdir().unwrap();
        let attempt = WorkerDir::new(folder.path().to_owned()).attempt(1);
        attempt.create(&()).unwrap();
        assert!(attempt.take_claim().unwrap());
        assert!(!attempt.take_claim().unwrap());
        assert!(!attempt.fence().unwrap(), "a supervisor has it");
    }

    #[test]
    fn revoked_claim_is_neither_held_nor_free() {
        let folder = tempfile::tempdir().unwrap();
        let attempt = WorkerDir::new(folder.path().to_owned()).attempt(1);
        attempt.create(&()).unwrap();
        assert!(attempt.take_claim().unwrap());
        assert!(attempt.is_still_claimed() && !attempt.is_revoked());
        attempt.revoke().unwrap();
        assert!(!attempt.is_still_claimed() && attempt.is_revoked());
        assert!(!attempt.take_claim().unwrap());
        assert!(!attempt.fence().unwrap(), "it had begun");
    }

    #[test]
    fn removed_claim_is_lost_and_unreadable_claim_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let attempt = WorkerDir::new(folder.path().to_owned()).attempt(1);
        attempt.create(&()).unwrap();
        attempt.take_claim().unwrap();
        fs::remove_file(attempt.claim()).unwrap();
        assert!(!attempt.is_still_claimed());
        fs::create_dir(attempt.claim()).unwrap();
        assert!(attempt.is_still_claimed() && !attempt.is_revoked());
    }

    #[test]
    fn plain_claim_of_an_earlier_version_is_held() {
        let folder = tempfile::tempdir().unwrap();
        let attempt = WorkerDir::new(folder.path().to_owned()).attempt(1);
        attempt.create(&()).unwrap();
        fs::write(attempt.claim(), "\"supervisor\"").unwrap();
        assert!(attempt.is_still_claimed());
        assert!(!attempt.fence().unwrap());
    }
}
