//! The journal: an append-only log with one line per change, shared by all servers of a state directory.
//!
//! To make a decision, a server takes the lock, reads what others have appended, decides, appends, and releases the
//! lock. Servers therefore never decide differently, and a change costs the same at ten tasks as at ten thousand. A
//! segment begins with a snapshot of the registry, followed by lines. When it has grown, the next segment begins with a
//! new snapshot under the same lock.
//!
//! Damage is repaired under that lock too, from the remaining lines, this server's registry and the workers' folders. A
//! damaged file is kept under another name. A journal that is missing at the start is rebuilt. One that is removed
//! while a server runs is refused by that server until it is restarted.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

pub use super::error::JournalError;
use super::former_format;
use super::history::{History, HistoryRecord};
use super::lock::{self, LOCK};
use super::rebuild;
use super::repair::{self, apply_later};
use super::segment::{self, DamagedLines, JournalSegment};
use crate::attempt::state_dir::StateDir;
use crate::crash_point::{self, Point};
use crate::files::{self, FileError};
use crate::mission::archive::{self, Retention};
use crate::mission::entry::{Entry, FORMAT, Line};
use crate::mission::id::{ServerId, TaskId};
use crate::mission::name::Named;
use crate::mission::registry::{Registry, Worker};

/// Number of lines after which a new segment begins: about a megabyte, which is read in about 10 ms.
const LINES_PER_SEGMENT: u64 = 2_000;
/// The same for `tests/crash_points`, whose journals are short.
const LINES_PER_SEGMENT_IN_TEST: u64 = 20;

/// A server's view of the journal: a registry that is up to date as of the last read.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    dir: StateDir,
    server: ServerId,
    lock: File,
    /// The number of the open segment.
    segment: u64,
    file: File,
    /// Bytes of `file` that `registry` holds.
    offset: u64,
    lines: u64,
    registry: Registry,
    /// Settled workers beyond those that the registry keeps.
    history: History,
    pub(super) retention: Retention,
}

/// Workers that a decision needs in the registry, from the history if necessary.
#[derive(Debug, Clone, Default)]
pub struct Needed {
    /// Any of their names: see [`Journal::find`].
    pub names: Vec<String>,
    pub requests: Vec<String>,
}

impl Journal {
    /// Opens the newest segment, or begins the first. `folder` is the `journal/` of a state directory.
    pub fn open(folder: &Path, server: ServerId) -> Result<Self, JournalError> {
        let lock = lock::take(folder)?;
        let dir = StateDir::around(folder);
        let history = History::open(dir.history())?;
        former_format::refuse(&dir)?;
        let JournalSegment { number, format, file, offset, registry } = repair::open_newest(folder, &dir, &history)?;
        let mut journal = Self {
            folder: folder.to_owned(),
            dir,
            server,
            lock,
            segment: number,
            file,
            offset,
            lines: 0,
            registry,
            history,
            retention: Retention::default(),
        };
        let opened = journal.read_new_lines().and_then(|()| journal.find_missing_lines());
        if opened.is_ok() && format < FORMAT {
            journal.raise_format();
        }
        journal.unlock()?;
        opened.map(|()| journal)
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Finds a worker by any of its names, in the registry or the history: see [`crate::mission::name::Name`].
    pub fn find(&self, text: &str) -> Option<Arc<Worker>> {
        self.named(text).one()
    }

    pub fn named(&self, text: &str) -> Named {
        self.history.named_with(&self.registry, text)
    }

    pub fn knows_request(&self, request: &str) -> bool {
        self.registry.by_request(request).is_some() || self.history.request(request).is_some()
    }

    /// Returns the number of workers that are only in the history.
    pub fn in_history(&self) -> usize {
        self.history.moved_from(&self.registry).count()
    }

    /// Returns the workers that are only in the history, oldest first, each read from there.
    pub fn archived(&self) -> impl Iterator<Item = Arc<Worker>> {
        self.history.moved_from(&self.registry).filter_map(|number| self.history.worker(number))
    }

    /// Reads what others have written. This takes the lock, since a writer whose disk is full removes what it wrote.
    pub fn catch_up(&mut self) -> Result<(), JournalError> {
        if self.is_behind()? { self.locked(Self::read_changes) } else { Ok(()) }
    }

    fn is_behind(&self) -> Result<bool, JournalError> {
        let path = self.path();
        let length = self.file.metadata().map_err(|source| FileError::read(&path, source))?.len();
        Ok(length > self.offset || self.is_outdated())
    }

    fn locked<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, JournalError>) -> Result<T, JournalError> {
        self.lock.lock().map_err(|source| FileError::write(&self.folder, source))?;
        let result = self.check_in_place().and_then(|()| work(self));
        self.unlock()?;
        result
    }

    /// Refuses a journal that was removed or replaced, or whose whole state directory was moved.
    fn check_in_place(&self) -> Result<(), JournalError> {
        if files::is_at(&self.lock, &self.folder.join(LOCK)) {
            return Ok(());
        }
        let root = self.dir.root();
        match root.parent() {
            Some(above) if !root.exists() => Err(FileError::Gone { path: above.to_owned() }.into()),
            _ => Err(JournalError::Removed { path: self.folder.clone() }),
        }
    }

    fn read_changes(&mut self) -> Result<(), JournalError> {
        self.follow_segments()?;
        self.read_new_lines()?;
        // After the lines: a worker that they archive was in the history before.
        self.history.catch_up()
    }

    /// Returns whether the open segment is outdated. Two segments are kept, so a server that missed two rotations finds
    /// neither its own nor the next.
    fn is_outdated(&self) -> bool {
        segment::path(&self.folder, self.segment + 1).exists() || !files::is_at(&self.file, &self.path())
    }

    /// Decides on the newest state and saves the decision. `decide` sees every change of every server, and no other
    /// server decides meanwhile. When this returns, the entries are on disk; on an error, none of them is.
    pub fn transact<T>(
        &mut self,
        now: Timestamp,
        decide: impl FnOnce(&Registry) -> (Vec<Entry>, T),
    ) -> Result<T, JournalError> {
        self.transact_with(now, &Needed::default(), decide)
    }

    /// Does the same after it has recalled these workers from the history.
    pub fn transact_with<T>(
        &mut self,
        now: Timestamp,
        needed: &Needed,
        decide: impl FnOnce(&Registry) -> (Vec<Entry>, T),
    ) -> Result<T, JournalError> {
        self.locked(|journal| journal.transact_locked(now, needed, decide))
    }

    fn transact_locked<T>(
        &mut self,
        now: Timestamp,
        needed: &Needed,
        decide: impl FnOnce(&Registry) -> (Vec<Entry>, T),
    ) -> Result<T, JournalError> {
        self.read_changes()?;
        self.cut_torn_tail()?;
        self.recall(now, needed)?;
        let (entries, answer) = decide(&self.registry);
        if !entries.is_empty() {
            self.note_succession(&entries)?;
            let has_settled = entries.iter().any(|entry| matches!(entry, Entry::Settled { .. }));
            self.append(now, entries)?;
            if has_settled && let Err(error) = self.archive(now) {
                tracing::warn!(%error, "could not move settled workers into the history");
            }
            let most = if crash_point::is_armed() { LINES_PER_SEGMENT_IN_TEST } else { LINES_PER_SEGMENT };
            if self.lines >= most {
                // The change is already saved, and the next one tries again.
                if let Err(error) = self.rotate() {
                    tracing::warn!(%error, "could not begin a new journal segment");
                }
            }
        }
        Ok(answer)
    }

    fn recall(&mut self, now: Timestamp, needed: &Needed) -> Result<(), JournalError> {
        // An ambiguous name needs all its workers, so that it can be refused.
        let named = needed.names.iter().flat_map(|name| self.named(name).all());
        let asked = needed.requests.iter().filter_map(|request| self.history.request(request));
        // A newer worker of the same task takes precedence.
        let newest = |task: &TaskId| self.history.task(task).filter(|_| self.registry.task(task).is_none());
        let found = named.chain(asked).flat_map(|worker| [newest(worker.task()), Some(worker)]).flatten();
        let racers = |worker: &Arc<Worker>| -> Vec<Arc<Worker>> {
            let race = worker.race.iter().flat_map(|race| &race.racers);
            race.filter_map(|id| self.find(id.as_str())).collect()
        };
        let found = found.flat_map(|worker| racers(&worker).into_iter().chain([worker]).collect::<Vec<_>>());
        let mut workers: Vec<_> = found.filter(|it| self.registry.get(&it.id).is_none()).collect();
        workers.sort_by_key(|worker| worker.number());
        workers.dedup_by_key(|worker| worker.number());
        if workers.is_empty() { Ok(()) } else { self.append(now, vec![Entry::Recalled { workers }]) }
    }

    /// Records successions of bosses in the history too.
    fn note_succession(&mut self, entries: &[Entry]) -> Result<(), JournalError> {
        let succeeded = entries.iter().filter_map(|entry| match entry {
            Entry::BossSucceeded { from, to } => Some(HistoryRecord::Succeeded { from: from.clone(), to: to.clone() }),
            _ => None,
        });
        let records: Vec<HistoryRecord> = succeeded.filter(|_| !self.history.is_empty()).collect();
        if records.is_empty() { Ok(()) } else { self.history.append(&records) }
    }

    /// Moves settled workers into the history. They are written there first, so that a crash loses none.
    fn archive(&mut self, now: Timestamp) -> Result<(), JournalError> {
        let ids = archive::movable(&self.registry, self.retention, now);
        if ids.is_empty() {
            return Ok(());
        }
        let workers = ids.iter().filter_map(|id| self.registry.get(id)).cloned();
        self.history.append(&workers.map(HistoryRecord::Worker).collect::<Vec<_>>())?;
        self.append(now, vec![Entry::Archived { workers: ids }])
    }

    fn append(&mut self, now: Timestamp, entries: Vec<Entry>) -> Result<(), JournalError> {
        let durable = entries.iter().any(must_outlast_power_failure);
        let mut seq = self.registry.seq;
        let lines: Vec<Line> = entries
            .into_iter()
            .map(|entry| {
                seq += 1;
                Line { seq, at: now, server: self.server.clone(), entry }
            })
            .collect();
        let bytes = to_bytes(&self.path(), &lines)?;
        let written = self.write(&bytes, durable).map_err(|source| FileError::write(&self.path(), source).into());
        if let Err(error) = written.and_then(|()| self.check_written()) {
            // No reader may see anything of a change that failed.
            let _ = self.file.set_len(self.offset);
            return Err(error);
        }
        self.offset += bytes.len() as u64;
        self.lines += lines.len() as u64;
        lines.iter().for_each(|line| self.registry.apply(line));
        Ok(())
    }

    /// Refuses lines that were written into files that are no longer the journal's.
    fn check_written(&self) -> Result<(), JournalError> {
        self.check_in_place()?;
        if files::is_at(&self.file, &self.path()) {
            Ok(())
        } else {
            Err(JournalError::Removed { path: self.folder.clone() })
        }
    }

    fn write(&mut self, bytes: &[u8], durable: bool) -> io::Result<()> {
        crash_point::at(Point::JournalAppend);
        self.file.seek(SeekFrom::Start(self.offset))?;
        crash_point::in_the_middle(Point::JournalLine, || drop((&self.file).write_all(&bytes[..bytes.len() / 2])));
        self.file.write_all(bytes)?;
        crash_point::at(Point::JournalWritten);
        let synced = if durable { self.file.sync_data() } else { Ok(()) };
        crash_point::at(Point::JournalSynced);
        synced
    }

    /// Removes the part of a line that a killed writer left. Its change was never answered.
    fn cut_torn_tail(&mut self) -> Result<(), JournalError> {
        let path = self.path();
        let length = self.file.metadata().map_err(|source| FileError::read(&path, source))?.len();
        if length > self.offset {
            self.file.set_len(self.offset).map_err(|source| FileError::write(&path, source))?;
        }
        Ok(())
    }

    /// Begins a segment of the present format, so that a server of an older version refuses what it would misread.
    fn raise_format(&mut self) {
        if let Err(error) = self.rotate() {
            tracing::warn!(%error, "cannot begin a journal of this format yet; a server of an older version may misread it");
        }
    }

    fn rotate(&mut self) -> Result<(), JournalError> {
        crash_point::at(Point::RotationBegins);
        segment::write(&self.folder, self.segment + 1, &self.registry)?;
        crash_point::at(Point::SegmentWritten);
        let older = self.segment.checked_sub(1).map(|older| segment::path(&self.folder, older));
        self.follow_segments()?;
        crash_point::at(Point::SegmentOpened);
        // The segment before stays, for readers that have it open, and in case the new one gets damaged.
        if let Some(older) = older {
            let _ = fs::remove_file(older);
        }
        crash_point::at(Point::OldSegmentRemoved);
        Ok(())
    }

    fn follow_segments(&mut self) -> Result<(), JournalError> {
        if !self.is_outdated() {
            return Ok(());
        }
        let newest = segment::newest(&self.folder)?.filter(|newest| *newest > self.segment);
        let Some(newest) = newest else { return Err(JournalError::Removed { path: self.folder.clone() }) };
        match segment::open(&self.folder, newest) {
            Ok(segment) => {
                self.adopt(segment);
                Ok(())
            }
            Err(JournalError::Damaged { reason, .. }) => self.repair_header(newest, &reason),
            Err(error) => Err(error),
        }
    }

    fn adopt(&mut self, next: JournalSegment) {
        (self.segment, self.offset, self.lines) = (next.number, next.offset, 0);
        (self.file, self.registry) = (next.file, next.registry);
    }

    /// Reads and applies new lines. Damage is repaired.
    fn read_new_lines(&mut self) -> Result<(), JournalError> {
        match self.apply_new_lines()? {
            Some(damage) => self.repair_lines(damage),
            None => Ok(()),
        }
    }

    fn apply_new_lines(&mut self) -> Result<Option<DamagedLines>, JournalError> {
        let path = self.path();
        let read = segment::read_lines(&mut self.file, self.offset);
        let read = read.map_err(|source| FileError::read(&path, source))?;
        read.lines.iter().for_each(|line| self.registry.apply(line));
        self.offset += read.length;
        self.lines += read.lines.len() as u64;
        Ok(read.damage)
    }

    fn repair_lines(&mut self, damage: DamagedLines) -> Result<(), JournalError> {
        let mut registry = self.registry.clone();
        apply_later(&mut registry, &damage.after);
        let what = format!("{} lines could not be read ({})", damage.unreadable, damage.reason);
        self.replace_damaged(self.segment, registry, &what)
    }

    /// Repairs the first line of the next segment. The registry of this server leads up to it.
    fn repair_header(&mut self, number: u64, reason: &str) -> Result<(), JournalError> {
        if let Some(damage) = self.apply_new_lines()? {
            apply_later(&mut self.registry, &damage.after);
        }
        let mut registry = self.registry.clone();
        apply_later(&mut registry, &segment::lines_after_header(&self.folder, number)?);
        self.replace_damaged(number, registry, &format!("its first line could not be read ({reason})"))
    }

    fn replace_damaged(&mut self, number: u64, registry: Registry, what: &str) -> Result<(), JournalError> {
        let next = repair::replace_damaged(&self.folder, number, registry, &self.dir, &self.history, what)?;
        self.adopt(next);
        Ok(())
    }

    /// Rebuilds changes that the state file has and the journal lacks: a segment was removed while no server ran.
    fn find_missing_lines(&mut self) -> Result<(), JournalError> {
        let recorded = rebuild::newest_in_state_file(&self.dir);
        if recorded > self.registry.seq {
            let what = format!("the journal ends at change {}, and change {recorded} was made", self.registry.seq);
            let mut registry = self.registry.clone();
            repair::gather(&mut registry, &self.dir, &self.history, &what);
            segment::write(&self.folder, self.segment + 1, &registry)?;
            self.adopt(segment::open(&self.folder, self.segment + 1)?);
        }
        self.find_lost_history()
    }

    /// Writes a history that was removed while no server ran again, from the folders of its workers.
    fn find_lost_history(&mut self) -> Result<(), JournalError> {
        if self.registry.archived == 0 || !self.history.is_empty() {
            return Ok(());
        }
        let mut all = self.registry.clone();
        let found = rebuild::rebuild(&mut all, &self.dir, &self.history, Timestamp::now());
        let moved = all.workers().filter(|worker| self.registry.get(&worker.id).is_none()).cloned();
        let moved: Vec<HistoryRecord> = moved.map(HistoryRecord::Worker).collect();
        tracing::warn!(rebuilt = moved.len(), lost = ?found.lost, "the history was missing; it was rebuilt from the workers' folders");
        if moved.is_empty() { Ok(()) } else { self.history.append(&moved) }
    }

    fn path(&self) -> PathBuf {
        segment::path(&self.folder, self.segment)
    }

    fn unlock(&self) -> Result<(), JournalError> {
        self.lock.unlock().map_err(|source| FileError::write(&self.folder, source).into())
    }
}

/// Returns whether an entry was promised. Without a delivery record, a notification is sent twice, marked.
fn must_outlast_power_failure(entry: &Entry) -> bool {
    !matches!(
        entry,
        Entry::Notified { .. } | Entry::Acknowledged { .. } | Entry::Withdrawn { .. } | Entry::Verifying { .. }
    )
}

fn to_bytes(path: &Path, lines: &[Line]) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut bytes, line)
            .map_err(|error| FileError::Damaged { path: path.to_owned(), reason: error.to_string() })?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
