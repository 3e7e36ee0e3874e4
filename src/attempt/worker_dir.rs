//! `workers/<id>/`: one folder a worker, one folder in it for each attempt, one writer a file.
//!
//! The outcome record is what makes an attempt settled: it is created once, and space for it is kept free from the
//! start, so that a full disk cannot swallow an ending. The inbox has many writers and is guarded by a lock of its own,
//! so that no message falls between the last look of a supervisor and its end.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::state_dir::{self, StateDir};
use crate::files::{self, FileError};
use crate::mission::message::{Author, Cancelled};
use crate::mission::outcome::Outcome;
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

    /// Within `<state folder>/workers/`, which may be gone as well.
    fn make(&self) -> Result<(), FileError> {
        files::make_private_dir_within(state_dir::above_worker(&self.root), &self.root)
    }

    /// Keeps what is known of the worktree that was made for this worker.
    pub fn remember_worktree(&self, worktree: &impl Serialize) -> Result<(), FileError> {
        files::refuse_links_in(&self.root)?;
        self.make()?;
        files::replace_json(&self.root.join("worktree.json"), worktree, true)
    }

    pub fn worktree<T: DeserializeOwned>(&self) -> Result<Option<T>, FileError> {
        files::read_json(&self.root.join("worktree.json"))
    }

    /// Keeps the worker as it is when an attempt begins: what a registry that was lost can be rebuilt from.
    pub fn remember(&self, worker: &Worker) -> Result<(), FileError> {
        self.make()?;
        files::replace_json(&self.root.join("worker.json"), worker, true)
    }

    pub fn remembered(&self) -> Result<Option<Worker>, FileError> {
        files::read_json(&self.root.join("worker.json"))
    }

    /// Numbers of the attempts that have a folder, in order.
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

/// `workers/<id>/attempts/<n>/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptDir {
    root: PathBuf,
}

/// Who has the right to run an attempt; decided once, for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Claim {
    Supervisor,
    /// A server made sure that it never begins.
    Nobody,
}

/// A message to the supervisor, on which it acts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboxEntry {
    pub id: Uuid,
    pub at: Timestamp,
    /// The author. `None` if the server wrote it on its own, or if an earlier build did not record the author.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Author>,
    #[serde(flatten)]
    pub instruction: Instruction,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Instruction {
    Message {
        text: String,
        delivery: Delivery,
    },
    Cancel {
        reason: String,
    },
    /// What its boss's workers may use up together is used up.
    OverBudget {
        reason: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Live where the CLI can hear it, else at the end of the turn.
    #[default]
    WhenReady,
    /// Stops what the worker is doing.
    Interrupt,
}

/// What became of a posted message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Posted {
    Accepted,
    /// The attempt is over: a message opens the next one.
    Closed,
}

impl AttemptDir {
    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the state directory that this attempt is in.
    pub fn state_dir(&self) -> StateDir {
        StateDir::at(state_dir::above_attempt(&self.root))
    }

    pub fn assignment(&self) -> PathBuf {
        self.root.join("assignment.json")
    }

    /// Created once, by whoever decides whether this attempt runs.
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

    /// What runs below the supervisor, as it was written down last.
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

    pub fn verify_log(&self) -> PathBuf {
        self.root.join("verify.log")
    }

    /// What the supervisor itself has to say.
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

    fn reserve(&self) -> PathBuf {
        self.root.join("reserve")
    }

    fn inbox(&self) -> PathBuf {
        self.root.join("inbox")
    }

    fn inbox_closed(&self) -> PathBuf {
        self.root.join("inbox/closed")
    }

    /// Makes the folder, with the assignment in it.
    pub fn create(&self, assignment: &impl Serialize) -> Result<(), FileError> {
        self.make()?;
        files::replace_json(&self.assignment(), assignment, true)
    }

    /// Makes what is missing of the folder. What lies there already may have been put there by anybody.
    pub fn make(&self) -> Result<(), FileError> {
        for folder in self.root.ancestors().take(3).collect::<Vec<_>>().into_iter().rev() {
            files::refuse_links_in(folder)?;
        }
        files::make_private_dir_within(state_dir::above_attempt(&self.root), &self.inbox())
    }

    /// Takes the right to run this attempt; `false` when it was taken before.
    pub fn take_claim(&self) -> Result<bool, FileError> {
        self.claim_for(Claim::Supervisor)
    }

    /// Takes the claim for nobody, so that the attempt never begins. `false`: a supervisor has it.
    pub fn renounce(&self) -> Result<bool, FileError> {
        // Looked at first: on a full disk it cannot be written, and it may be there.
        if let Some(claim) = self.claimed_for()? {
            return Ok(claim == Claim::Nobody);
        }
        self.make()?;
        Ok(self.claim_for(Claim::Nobody)? || self.claimed_for()? == Some(Claim::Nobody))
    }

    /// By the supervisor that took it. No longer, when somebody has removed the folder.
    pub fn is_still_claimed(&self) -> bool {
        matches!(self.claimed_for(), Ok(Some(Claim::Supervisor)))
    }

    fn claim_for(&self, claim: Claim) -> Result<bool, FileError> {
        match files::create_json_once(&self.claim(), &claim) {
            Ok(()) => Ok(true),
            Err(FileError::Exists { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn claimed_for(&self) -> Result<Option<Claim>, FileError> {
        files::read_json(&self.claim())
    }

    /// Keeps space free for the outcome.
    pub fn reserve_outcome(&self) -> Result<(), FileError> {
        // Written, not truncated to size: a hole reserves nothing.
        files::replace(&self.reserve(), &vec![b' '; RESERVE], false)
    }

    /// Writes the record that settles the attempt. `false`: it was settled before, and stays as it was.
    pub fn settle(&self, outcome: &Outcome) -> Result<bool, FileError> {
        let _ = fs::remove_file(self.reserve());
        match files::create_json_once(&self.outcome_path(), outcome) {
            Ok(()) => Ok(true),
            Err(FileError::Exists { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub fn outcome(&self) -> Result<Option<Outcome>, FileError> {
        files::read_json(&self.outcome_path())
    }

    pub fn post(&self, inbox_entry: &InboxEntry) -> Result<Posted, FileError> {
        let _lock = self.lock_inbox()?;
        if self.inbox_closed().exists() || self.outcome_path().exists() {
            return Ok(Posted::Closed);
        }
        let path = self.inbox().join(format!("{:06}.json", self.count_entries()?));
        files::replace_json(&path, inbox_entry, true)?;
        Ok(Posted::Accepted)
    }

    /// All messages from number `from` on, in the order in which they were posted.
    pub fn inbox_entries(&self, from: usize) -> Result<Vec<InboxEntry>, FileError> {
        let mut inbox_entries = Vec::new();
        while let Some(inbox_entry) =
            files::read_json(&self.inbox().join(format!("{:06}.json", from + inbox_entries.len())))?
        {
            inbox_entries.push(inbox_entry);
        }
        Ok(inbox_entries)
    }

    /// Closes the inbox, unless there are messages from number `read` on: then it stays open and they are returned.
    pub fn close_inbox(&self, read: usize) -> Result<Vec<InboxEntry>, FileError> {
        let _lock = self.lock_inbox()?;
        let unread = self.inbox_entries(read)?;
        if unread.is_empty() {
            files::replace(&self.inbox_closed(), b"", false)?;
        }
        Ok(unread)
    }

    /// Closes the inbox and returns all messages that were ever posted.
    pub fn close_inbox_unread(&self) -> Result<Vec<InboxEntry>, FileError> {
        self.make()?;
        let _lock = self.lock_inbox()?;
        files::replace(&self.inbox_closed(), b"", false)?;
        self.inbox_entries(0)
    }

    /// Returns the requested cancellation, if any.
    pub fn called_off(&self) -> Option<Cancelled> {
        self.inbox_entries(0).unwrap_or_default().into_iter().find_map(|inbox_entry| match inbox_entry.instruction {
            Instruction::Cancel { reason } => Some(Cancelled { by: inbox_entry.by, reason }),
            Instruction::Message { .. } | Instruction::OverBudget { .. } => None,
        })
    }

    fn count_entries(&self) -> Result<usize, FileError> {
        let inbox = self.inbox();
        let entries = fs::read_dir(&inbox).map_err(|source| FileError::read(&inbox, source))?;
        let is_entry = |entry: io::Result<fs::DirEntry>| {
            entry.is_ok_and(|entry| entry.file_name().to_str().is_some_and(|name| name.ends_with(".json")))
        };
        Ok(entries.filter_map(|entry| is_entry(entry).then_some(())).count())
    }

    /// Held until dropped.
    fn lock_inbox(&self) -> Result<File, FileError> {
        let path = self.root.join("inbox.lock");
        let fail = |source| FileError::write(&path, source);
        let file = files::private().create(true).append(true).open(&path).map_err(fail)?;
        file.lock().map_err(fail)?;
        Ok(file)
    }
}

/// Appends JSON lines to one file.
#[derive(Debug)]
pub struct LineWriter {
    path: PathBuf,
    file: File,
    /// Its length in bytes, without a line that could not be written whole. Nobody else writes to it.
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
        // Most are that short; else it grows.
        let mut line = Vec::with_capacity(1024);
        serde_json::to_writer(&mut line, value)
            .map_err(|error| FileError::Damaged { path: self.path.clone(), reason: error.to_string() })?;
        line.push(b'\n');
        if let Err(source) = self.file.write_all(&line) {
            // The disk is full: half a line would spoil the next one too.
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

    fn inbox_entry(text: &str) -> InboxEntry {
        let instruction = Instruction::Message { text: text.to_owned(), delivery: Delivery::WhenReady };
        InboxEntry { id: Uuid::new_v4(), at: Timestamp::UNIX_EPOCH, by: None, instruction }
    }

    #[test]
    fn no_letter_falls_between_the_last_look_and_the_close() {
        let folder = tempfile::tempdir().unwrap();
        let attempt = WorkerDir::new(folder.path().to_owned()).attempt(1);
        attempt.create(&()).unwrap();
        let first = inbox_entry("one");
        assert_eq!(attempt.post(&first).unwrap(), Posted::Accepted);
        assert_eq!(attempt.inbox_entries(0).unwrap(), [first]);

        let late = inbox_entry("two");
        attempt.post(&late).unwrap();
        assert_eq!(attempt.close_inbox(1).unwrap(), [late], "an unread message keeps it open");
        assert_eq!(attempt.post(&inbox_entry("three")).unwrap(), Posted::Accepted);
        assert_eq!(attempt.close_inbox(3).unwrap(), []);
        assert_eq!(attempt.post(&inbox_entry("four")).unwrap(), Posted::Closed);
    }

    #[test]
    fn what_nobody_will_run_stays_so_and_its_letters_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let attempt = WorkerDir::new(folder.path().to_owned()).attempt(1);
        attempt.create(&()).unwrap();
        let first = inbox_entry("one");
        attempt.post(&first).unwrap();
        for _server in 0..2 {
            assert!(attempt.renounce().unwrap());
            assert_eq!(attempt.close_inbox_unread().unwrap(), std::slice::from_ref(&first));
        }
        assert!(!attempt.take_claim().unwrap());
        assert_eq!(attempt.post(&inbox_entry("two")).unwrap(), Posted::Closed);
    }

    #[test]
    fn an_attempt_is_claimed_once() {
        let folder = tempfile::tempdir().unwrap();
        let attempt = WorkerDir::new(folder.path().to_owned()).attempt(1);
        attempt.create(&()).unwrap();
        assert!(attempt.take_claim().unwrap());
        assert!(!attempt.take_claim().unwrap());
        assert!(!attempt.renounce().unwrap(), "a supervisor has it");
    }
}
