//! A reader of the journal for commands that show a state, whether a server is alive or not. It changes, creates and
//! repairs nothing. Damage is skipped as a server would, and left in place.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::error::JournalError;
use super::former_format;
use super::history::History;
use super::lock::LOCK;
use super::rebuild;
use super::repair::{apply_later, around_damaged_header};
use super::segment::{self, JournalSegment};
use crate::attempt::state_dir::{self, StateDir};
use crate::files::{self, FileError};
use crate::mission::delivery::Notification;
use crate::mission::id::WorkerId;
use crate::mission::name::Named;
use crate::mission::registry::{Registry, Worker};

/// A state directory as of the last read.
#[derive(Debug)]
pub struct Reader {
    dir: StateDir,
    /// The open segment. `None` if the journal, or its first line, was lost. The registry then comes from other files.
    open: Option<OpenSegment>,
    registry: Registry,
    history: History,
}

#[derive(Debug)]
struct OpenSegment {
    number: u64,
    file: File,
    /// Bytes of it that the registry holds.
    offset: u64,
    /// True if the rest of the file is damaged.
    is_damaged: bool,
}

impl Reader {
    /// Opens a state directory. `None` if there is no sign that it ever held state.
    pub fn open(root: &Path) -> Result<Option<Self>, JournalError> {
        let dir = StateDir::at(root);
        if !state_dir::is_there(root)? {
            return Ok(None);
        }
        if !dir.journal().exists() && !rebuild::is_possible(&dir) {
            return Ok(None);
        }
        former_format::refuse(&dir)?;
        let history = History::open_read_only(dir.history())?;
        let mut reader = Self { dir, open: None, registry: Registry::default(), history };
        reader.catch_up()?;
        Ok(Some(reader))
    }

    pub fn dir(&self) -> &StateDir {
        &self.dir
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Resolves a name, including in the history: see [`crate::mission::name::Name`].
    pub fn named(&self, text: &str) -> Named {
        self.history.named_with(&self.registry, text)
    }

    pub fn find(&self, text: &str) -> Option<Arc<Worker>> {
        self.named(text).one()
    }

    /// Returns the number of workers that are only in the history.
    pub fn in_history(&self) -> usize {
        self.history.moved_from(&self.registry).count()
    }

    /// Returns the workers that are only in the history, oldest first, each read from there.
    pub fn archived(&self) -> impl Iterator<Item = Arc<Worker>> {
        self.history.moved_from(&self.registry).filter_map(|number| self.history.worker(number))
    }

    /// Returns the worker with the data that its folder has and the journal lacks: without a server, no end is recorded
    /// in the journal.
    pub fn up_to_date(&self, worker: &Arc<Worker>) -> Arc<Worker> {
        let brought = rebuild::up_to_date(worker, &self.dir.worker(&worker.id), Notification::Pending);
        if brought == **worker { Arc::clone(worker) } else { Arc::new(brought) }
    }

    pub fn folder(&self, id: &WorkerId) -> crate::attempt::worker_dir::WorkerDir {
        self.dir.worker(id)
    }

    /// Reads what was written since the last call.
    pub fn catch_up(&mut self) -> Result<(), JournalError> {
        // A writer whose disk is full removes what it wrote, so this must not read while it writes.
        let _lock = self.wait_for_writers()?;
        let journal = self.dir.journal();
        let newest = if journal.exists() { segment::newest(&journal)? } else { None };
        let is_same = |open: &OpenSegment| {
            newest == Some(open.number) && files::is_at(&open.file, &segment::path(&journal, open.number))
        };
        match newest {
            Some(_) if self.open.as_ref().is_some_and(is_same) => {}
            Some(number) => self.begin(&journal, number)?,
            None => self.gather(),
        }
        self.read_lines(&journal)?;
        self.history.catch_up()
    }

    /// Returns a lock that keeps writers out. `None` if there is no journal yet.
    fn wait_for_writers(&self) -> Result<Option<File>, JournalError> {
        let path = self.dir.journal().join(LOCK);
        let Ok(lock) = File::open(&path) else { return Ok(None) };
        lock.lock_shared().map_err(|source| FileError::read(&path, source))?;
        Ok(Some(lock))
    }

    fn begin(&mut self, journal: &Path, number: u64) -> Result<(), JournalError> {
        match segment::open_read_only(journal, number) {
            Ok(JournalSegment { number, file, offset, registry, .. }) => {
                self.open = Some(OpenSegment { number, file, offset, is_damaged: false });
                self.registry = registry;
            }
            Err(JournalError::Damaged { .. }) => {
                self.open = None;
                self.registry = around_damaged_header(journal, number)?;
                rebuild::rebuild(&mut self.registry, &self.dir, &self.history, Timestamp::now());
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn gather(&mut self) {
        (self.open, self.registry) = (None, Registry::default());
        rebuild::rebuild(&mut self.registry, &self.dir, &self.history, Timestamp::now());
    }

    fn read_lines(&mut self, journal: &Path) -> Result<(), JournalError> {
        let Some(open) = self.open.as_mut().filter(|open| !open.is_damaged) else { return Ok(()) };
        let path: PathBuf = segment::path(journal, open.number);
        let read = segment::read_lines(&mut open.file, open.offset);
        let read = read.map_err(|source| FileError::read(&path, source))?;
        read.lines.iter().for_each(|line| self.registry.apply(line));
        open.offset += read.length;
        if let Some(damage) = read.damage {
            // The next writer repairs it and begins another segment.
            open.is_damaged = true;
            apply_later(&mut self.registry, &damage.after);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
