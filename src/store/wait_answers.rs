//! The answers of background waits that have ended, one file each. An answer is written under the journal's lock, before
//! the entry that ends the wait. So every server gives the same answer, until it is old and removed. This module decides
//! nothing.

use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::attempt::state_dir::StateDir;
use crate::files::{self, FileError};
use crate::mission::delivery::Recorded;
use crate::mission::id::WaitId;

/// Maximum number of answers. The oldest beyond it are removed.
const KEPT: usize = 1_000;

/// The answer of a background wait, as stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WaitAnswerFile {
    pub opened_at: Timestamp,
    pub ended_at: Timestamp,
    /// The notifications in the answer.
    pub recorded: Recorded,
    /// The answer as the boss gets it.
    pub answer: Value,
}

/// Reads an answer. `None` if there is none. A damaged one counts as missing: its settlements are due again.
pub fn read(dir: &StateDir, id: &WaitId) -> Option<WaitAnswerFile> {
    files::read_json(&path(dir, id)).unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot read the answer of a background wait");
        None
    })
}

/// Returns whether there is a file for the answer of this wait, even a damaged one.
pub fn exists(dir: &StateDir, id: &WaitId) -> bool {
    path(dir, id).symlink_metadata().is_ok()
}

/// Writes an answer. The caller holds the journal's lock, and the wait is open: an earlier answer was never sent.
pub fn write(dir: &StateDir, id: &WaitId, answer: &WaitAnswerFile) -> Result<(), FileError> {
    files::refuse_no_folder(&dir.waits())?;
    files::make_private_dir(&dir.waits())?;
    files::replace_json(&path(dir, id), answer, true)
}

/// Removes the answers that were written before this time, and those beyond the newest [`KEPT`].
pub fn remove_old(dir: &StateDir, before: Timestamp) {
    let entries = fs::read_dir(dir.waits()).into_iter().flatten().flatten();
    let mut answers: Vec<(SystemTime, PathBuf)> =
        entries.filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()))).collect();
    answers.sort_by(|a, b| b.cmp(a));
    for (at, (written, path)) in answers.into_iter().enumerate() {
        if at >= KEPT || written < SystemTime::from(before) {
            let _ = fs::remove_file(path);
        }
    }
}

fn path(dir: &StateDir, id: &WaitId) -> PathBuf {
    dir.waits().join(format!("{id}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mission::id::WorkerId;
    use serde_json::json;

    #[test]
    fn answer_stays_until_it_is_old() {
        let folder = tempfile::tempdir().unwrap();
        let dir = StateDir::open(folder.path()).unwrap();
        let id = WaitId::new("any-1-of-2", "k7f2");
        assert_eq!(read(&dir, &id), None);
        let now = Timestamp::now();
        let answer = WaitAnswerFile {
            opened_at: now,
            ended_at: now,
            recorded: Recorded { settled: vec![(WorkerId::new(1, "a"), 1)], blocked: Vec::new() },
            answer: json!({"status": "settled"}),
        };
        write(&dir, &id, &answer).unwrap();
        let hour = jiff::SignedDuration::from_hours(1);
        remove_old(&dir, now - hour);
        assert_eq!(read(&dir, &id), Some(answer));
        remove_old(&dir, now + hour);
        assert!(!exists(&dir, &id));
    }

    #[test]
    fn number_of_answers_is_limited() {
        let folder = tempfile::tempdir().unwrap();
        let dir = StateDir::open(folder.path()).unwrap();
        fs::create_dir(dir.waits()).unwrap();
        for number in 0..KEPT + 3 {
            fs::write(dir.waits().join(format!("wait-{number}.json")), "{}").unwrap();
        }
        remove_old(&dir, Timestamp::UNIX_EPOCH);
        assert_eq!(fs::read_dir(dir.waits()).unwrap().count(), KEPT);
    }

    #[test]
    fn damaged_answer_counts_as_missing() {
        let folder = tempfile::tempdir().unwrap();
        let dir = StateDir::open(folder.path()).unwrap();
        let id = WaitId::new("any-1-of-2", "k7f2");
        fs::create_dir(dir.waits()).unwrap();
        fs::write(path(&dir, &id), "{").unwrap();
        assert_eq!((read(&dir, &id), exists(&dir, &id)), (None, true));
    }
}
