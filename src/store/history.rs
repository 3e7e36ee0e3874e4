//! `history.jsonl`: the settled workers that are no longer in the registry, one per line.
//!
//! It is written under the journal's lock, before the journal records the move. A crash in between leaves a worker in
//! both, and then the registry's version counts. Memory holds only the position of each line, so that a server does not
//! grow over the years. Nothing is ever removed: a worker that returns and moves again has two lines, and the later one
//! counts.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::error::JournalError;
use crate::files::{self, FileError};
use crate::mission::entry::{FORMAT, OLDEST_FORMAT};
use crate::mission::id::{BossId, TaskId, WorkerId};
use crate::mission::name::{Candidates, Name, Named};
use crate::mission::race;
use crate::mission::registry::{Registry, Worker};

#[derive(Debug)]
pub struct History {
    path: PathBuf,
    /// True for processes that change nothing.
    read_only: bool,
    /// The open file. `None` if nothing has been moved yet.
    file: Option<File>,
    /// Bytes of the file that are in the index.
    read: u64,
    index: HistoryIndex,
}

#[derive(Debug, Default)]
struct HistoryIndex {
    /// Position of each worker's last line, by number: its first byte and its length.
    lines: BTreeMap<u64, (u64, u32)>,
    /// Number of the newest worker, by hash of the task id. The line itself is compared with the whole id.
    tasks: HashMap<u64, u64>,
    requests: HashMap<u64, u64>,
    /// Numbers of all workers of each branch, by hash of the branch name.
    branches: HashMap<u64, BTreeSet<u64>>,
    successors: HashMap<BossId, BossId>,
}

/// A line after the first.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HistoryRecord {
    Worker(Arc<Worker>),
    /// Successions of bosses that the journal recorded, for the workers that are here.
    Succeeded {
        from: Vec<BossId>,
        to: BossId,
    },
}

/// The first line.
#[derive(Serialize, Deserialize)]
struct HistoryHeader {
    format: u32,
}

/// As much of a record as the index needs.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum RecordKey {
    Worker(WorkerKey),
    Succeeded { from: Vec<BossId>, to: BossId },
}

#[derive(Deserialize)]
struct WorkerKey {
    id: WorkerId,
    mission: MissionKey,
}

#[derive(Deserialize)]
struct MissionKey {
    task_id: TaskId,
    request_id: Option<String>,
    place: Option<PlaceKey>,
}

#[derive(Deserialize)]
struct PlaceKey {
    branch: Option<String>,
}

impl History {
    /// Opens the history. Must be called under the journal's lock, as must all methods here that take `&mut self`.
    pub fn open(path: PathBuf) -> Result<Self, JournalError> {
        Self::open_with(path, false)
    }

    /// Opens the history for reading only. If the file is removed, it is not restored, and the lines that were read
    /// stay available.
    pub fn open_read_only(path: PathBuf) -> Result<Self, JournalError> {
        Self::open_with(path, true)
    }

    fn open_with(path: PathBuf, read_only: bool) -> Result<Self, JournalError> {
        let mut history = Self { path, read_only, file: None, read: 0, index: HistoryIndex::default() };
        history.catch_up()?;
        Ok(history)
    }

    /// Returns whether there is anything in it.
    pub fn is_empty(&self) -> bool {
        self.index.lines.is_empty()
    }

    pub fn contains(&self, number: u64) -> bool {
        self.index.lines.contains_key(&number)
    }

    pub fn numbers(&self) -> impl DoubleEndedIterator<Item = u64> {
        self.index.lines.keys().copied()
    }

    pub fn worker(&self, number: u64) -> Option<Arc<Worker>> {
        let (offset, length) = *self.index.lines.get(&number)?;
        match self.read_worker(offset, length) {
            Ok(worker) => Some(worker),
            Err(error) => {
                tracing::warn!(path = %self.path.display(), number, %error, "a line of the history cannot be read");
                None
            }
        }
    }

    pub fn task(&self, task: &TaskId) -> Option<Arc<Worker>> {
        let worker = self.worker(*self.index.tasks.get(&hash(task.as_str()))?)?;
        (worker.task() == task).then_some(worker)
    }

    pub fn request(&self, request: &str) -> Option<Arc<Worker>> {
        let worker = self.worker(*self.index.requests.get(&hash(request))?)?;
        (worker.mission.request_id.as_deref() == Some(request)).then_some(worker)
    }

    /// Resolves a name in the registry and the history: see [`Name`].
    pub fn named_with(&self, registry: &Registry, text: &str) -> Named {
        let name = Name::new(text);
        let by_number = |number: u64| registry.by_number(number).cloned().or_else(|| self.worker(number));
        let task = TaskId::from(name.task());
        // The winner of a race represents the task.
        let winner = |newest: &Worker| by_number(WorkerId::number_in(race::lost_to(newest)?.as_str())?);
        let archived = || self.task(&task).map(|newest| winner(&newest).unwrap_or(newest));
        let branch = name.branch();
        let here = self.index.branches.get(&hash(branch)).into_iter().flatten();
        let here = here.filter(|number| registry.by_number(**number).is_none());
        let here = here.filter_map(|number| self.worker(*number));
        name.choose(Candidates {
            numbered: name.number().and_then(by_number),
            task: registry.task(&task).cloned().or_else(archived),
            on_branch: here
                .filter(|worker| worker.mission.place.branch() == Some(branch))
                .chain(registry.on_branch(branch).cloned())
                .collect(),
        })
    }

    /// Returns the numbers of the workers that are only in the history, oldest first.
    pub fn moved_from(&self, registry: &Registry) -> impl DoubleEndedIterator<Item = u64> {
        self.numbers().filter(|number| registry.by_number(*number).is_none())
    }

    fn read_worker(&self, offset: u64, length: u32) -> io::Result<Arc<Worker>> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let mut line = vec![0; length as usize];
        file.read_exact_at(&mut line, offset)?;
        match serde_json::from_slice(&line)? {
            HistoryRecord::Worker(mut worker) => {
                if let Some(boss) = self.index.successor(&worker.boss) {
                    Arc::make_mut(&mut worker).boss = boss;
                }
                Ok(worker)
            }
            HistoryRecord::Succeeded { .. } => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Reads what other servers have appended.
    pub fn catch_up(&mut self) -> Result<(), JournalError> {
        self.follow_path()?;
        let Some(file) = &mut self.file else { return Ok(()) };
        let fail = |source| FileError::read(&self.path, source);
        if file.metadata().map_err(fail)?.len() <= self.read {
            return Ok(());
        }
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(self.read)).and_then(|_| file.read_to_end(&mut bytes)).map_err(fail)?;
        for line in bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
            if self.read == 0 {
                check_head(&self.path, line)?;
            } else {
                self.index.add(&self.path, self.read, line);
            }
            self.read += line.len() as u64;
        }
        Ok(())
    }

    /// Opens the file at the path if it is another one: another server created it, or it was removed.
    fn follow_path(&mut self) -> Result<(), JournalError> {
        let fail = |source| FileError::read(&self.path, source);
        if self.file.as_ref().is_some_and(|ours| files::is_at(ours, &self.path)) {
            return Ok(());
        }
        match files::private().read(true).write(!self.read_only).open(&self.path) {
            Ok(there) => (self.file, self.read, self.index) = (Some(there), 0, HistoryIndex::default()),
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.read_only => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.put_back()?,
            Err(source) => return Err(fail(source).into()),
        }
        Ok(())
    }

    /// Writes a file that was removed again, from the one that is still open.
    fn put_back(&mut self) -> Result<(), JournalError> {
        let Some(ours) = &mut self.file else { return Ok(()) };
        let fail = |source| FileError::read(&self.path, source);
        let mut bytes = Vec::new();
        ours.seek(SeekFrom::Start(0)).and_then(|_| ours.read_to_end(&mut bytes)).map_err(fail)?;
        files::replace(&self.path, &bytes, true)?;
        tracing::warn!(path = %self.path.display(), "the history was removed; it was written again");
        self.file = Some(files::private().read(true).write(true).open(&self.path).map_err(fail)?);
        Ok(())
    }

    /// Appends records. They are on disk when this returns; on an error, none of them is.
    pub fn append(&mut self, records: &[HistoryRecord]) -> Result<(), JournalError> {
        self.catch_up()?;
        if self.file.is_none() {
            files::replace(&self.path, &json_line(&self.path, &HistoryHeader { format: FORMAT })?, true)?;
            self.catch_up()?;
        }
        let mut bytes = Vec::new();
        for record in records {
            bytes.extend(json_line(&self.path, record)?);
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        // This overwrites the part of a line that a killed writer left.
        let written = file
            .set_len(self.read)
            .and_then(|()| file.seek(SeekFrom::Start(self.read)))
            .and_then(|_| file.write_all(&bytes))
            .and_then(|()| file.sync_data());
        if let Err(source) = written {
            let _ = file.set_len(self.read);
            return Err(FileError::write(&self.path, source).into());
        }
        self.catch_up()
    }
}

impl HistoryIndex {
    /// Adds a line to the index. A damaged line is left out, which does not affect the others.
    fn add(&mut self, path: &Path, offset: u64, line: &[u8]) {
        match serde_json::from_slice(line) {
            Ok(RecordKey::Worker(worker)) => {
                let Some(number) = WorkerId::number_in(worker.id.as_str()) else { return };
                self.lines.insert(number, (offset, line.len() as u32));
                let newest = self.tasks.entry(hash(worker.mission.task_id.as_str())).or_default();
                *newest = number.max(*newest);
                if let Some(branch) = worker.mission.place.and_then(|place| place.branch) {
                    self.branches.entry(hash(&branch)).or_default().insert(number);
                }
                if let Some(request) = worker.mission.request_id {
                    self.requests.insert(hash(&request), number);
                }
            }
            Ok(RecordKey::Succeeded { from, to }) => {
                self.successors.extend(from.into_iter().map(|boss| (boss, to.clone())));
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), offset, %error, "a line of the history is damaged; it is left out");
            }
        }
    }

    fn successor(&self, boss: &BossId) -> Option<BossId> {
        let next = |boss: &&BossId| self.successors.get(*boss);
        // The chain has at most this length unless it is a circle.
        let line = std::iter::successors(self.successors.get(boss), next).take(self.successors.len());
        line.last().cloned()
    }
}

fn check_head(path: &Path, line: &[u8]) -> Result<(), JournalError> {
    match serde_json::from_slice(line) {
        Ok(HistoryHeader { format }) if format > FORMAT => {
            Err(JournalError::Newer { path: path.to_owned(), found: format })
        }
        Ok(HistoryHeader { format }) if format < OLDEST_FORMAT => {
            Err(JournalError::Former { path: path.to_owned(), found: format })
        }
        Ok(_) => Ok(()),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the first line of the history is damaged; the others are read");
            Ok(())
        }
    }
}

fn json_line(path: &Path, value: &impl Serialize) -> Result<Vec<u8>, FileError> {
    let mut line = serde_json::to_vec(value)
        .map_err(|error| FileError::Damaged { path: path.to_owned(), reason: error.to_string() })?;
    line.push(b'\n');
    Ok(line)
}

/// Returns a key of the index. It is never written to disk.
fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
