//! The journal: an append-only log with one line per change, shared by all servers of a state directory.
//!
//! To make a decision, a server takes the lock, reads what others have appended, decides, appends, and releases the
//! lock. Servers therefore never decide differently, and a change costs the same at ten tasks as at ten thousand. A
//! segment begins with a snapshot of the registry, followed by lines. When it has grown, the next segment begins with a
//! new snapshot under the same lock.
//!
//! Damage and removal are repaired under that lock too. The state is restored from the remaining lines, the registry in
//! each server's memory, and the workers' folders. A damaged file is kept under another name. Each server that finds
//! such a new segment adds the entries that only it has.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use thiserror::Error;

use super::generation::{self, Damage, Generation};
use super::history::{History, Record};
use super::mend::{apply_later, gather, mended, open_newest, replace_damaged};
use super::rebuild;
use crate::attempt::state_dir::StateDir;
use crate::crash_point::{self, Point};
use crate::files::{self, FileError};
use crate::mission::archive::{self, Kept};
use crate::mission::entry::{Entry, FORMAT, Line};
use crate::mission::hint::{Hint, Hinted};
use crate::mission::id::{ServerId, TaskId};
use crate::mission::name::Named;
use crate::mission::registry::{Registry, Worker};
use crate::mission::reunion;

/// Number of lines after which a new segment begins: about a megabyte, which is read in about 10 ms.
const LINES_PER_GENERATION: u64 = if cfg!(feature = "crash-points") { 20 } else { 2_000 };

#[derive(Debug, Error)]
pub enum JournalError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot read {}: a newer version of orchestrator-boss wrote it (format {found}; this one knows {FORMAT})", path.display())]
    Newer { path: PathBuf, found: u32 },
    #[error("cannot read {}: it is damaged: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("cannot save to {}: it was removed meanwhile, and another server began it anew; nothing of this was saved", path.display())]
    Removed { path: PathBuf },
}

impl Hinted for JournalError {
    fn hints(&self) -> Vec<Hint> {
        match self {
            Self::File(error) => error.hints(),
            Self::Newer { .. } => vec![Hint::to("use that version"), Hint::to("choose another --state-dir")],
            Self::Removed { .. } => vec![Hint::to("repeat the call")],
            Self::Damaged { .. } => Vec::new(),
        }
    }
}

/// This process's view of the journal: a registry that is up to date as of the last look.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    dir: StateDir,
    server: ServerId,
    lock: File,
    /// The folder was made anew since somebody last asked.
    is_new_folder: bool,
    generation: u64,
    file: File,
    /// Bytes of `file` that `registry` holds.
    offset: u64,
    lines: u64,
    registry: Registry,
    /// Settled workers beyond those that the registry keeps.
    history: History,
    pub(super) kept: Kept,
}

/// Where a journal stood before a change that may come to nothing.
struct Before {
    generation: u64,
    file: File,
    offset: u64,
    lines: u64,
    registry: Registry,
}

/// Who is needed in the registry for a decision, though he may have moved into the history.
#[derive(Debug, Clone, Default)]
pub struct Needed {
    /// As [`Journal::find`] takes them.
    pub names: Vec<String>,
    pub requests: Vec<String>,
}

impl Journal {
    /// Opens the newest generation, or begins the first.
    ///
    /// `folder` is the `journal/` of a state directory; the history lies beside it.
    pub fn open(folder: &Path, server: ServerId) -> Result<Self, JournalError> {
        let lock = lock(folder, None)?;
        let dir = StateDir::around(folder);
        let history = History::open(dir.history())?;
        let Generation { number, format, file, offset, registry, .. } = open_newest(folder, &dir, &history)?;
        let mut journal = Self {
            folder: folder.to_owned(),
            dir,
            server,
            lock,
            is_new_folder: false,
            generation: number,
            file,
            offset,
            lines: 0,
            registry,
            history,
            kept: Kept::default(),
        };
        let mut opened = journal.read_new_lines().and_then(|()| journal.find_what_is_missing());
        if format < FORMAT {
            // A server of the former build refuses that clearly; lines of ours after its own it would take for damage.
            opened = opened.and_then(|()| journal.rotate());
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

    /// Those in the history alone, oldest first, each read from there.
    pub fn archived(&self) -> impl Iterator<Item = Arc<Worker>> {
        self.history.moved_from(&self.registry).filter_map(|number| self.history.worker(number))
    }

    /// Takes in what others have written. Under the lock, since a writer whose disk is full takes back what it wrote.
    pub fn catch_up(&mut self) -> Result<(), JournalError> {
        match self.is_behind()? {
            true => self.locked(Self::read_news),
            false => Ok(()),
        }
    }

    fn is_behind(&self) -> Result<bool, JournalError> {
        let path = self.path();
        let length = self.file.metadata().map_err(|source| FileError::read(&path, source))?.len();
        Ok(length > self.offset || self.is_outdated())
    }

    /// Whether the folder was made anew, once: whoever watches it watches one that is gone.
    pub fn take_is_new_folder(&mut self) -> bool {
        std::mem::take(&mut self.is_new_folder)
    }

    fn locked<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, JournalError>) -> Result<T, JournalError> {
        self.take_lock()?;
        let result = work(self);
        self.unlock()?;
        result
    }

    fn take_lock(&mut self) -> Result<(), JournalError> {
        let held = self.lock.try_clone().map_err(|source| FileError::read(&self.folder, source))?;
        let there = lock(&self.folder, Some(held))?;
        if !files::is_at(&self.lock, &self.folder.join(LOCK)) {
            (self.lock, self.is_new_folder) = (there, true);
        }
        Ok(())
    }

    fn read_news(&mut self) -> Result<(), JournalError> {
        self.follow_generations()?;
        self.read_new_lines()?;
        // After the lines: what they say has moved was there before.
        self.history.catch_up()
    }

    /// Returns whether the open segment is outdated. Two segments are kept, so a server that missed two rotations finds
    /// neither its own nor the next. The same holds if the folder was removed.
    fn is_outdated(&self) -> bool {
        generation::path(&self.folder, self.generation + 1).exists() || !files::is_at(&self.file, &self.path())
    }

    /// Decides on the newest state and makes it so: `decide` sees every change of every server, and nobody else decides
    /// meanwhile. When this returns, the entries are on disk; on an error, none of them is.
    pub fn transact<T>(
        &mut self,
        now: Timestamp,
        decide: impl FnOnce(&Registry) -> (Vec<Entry>, T),
    ) -> Result<T, JournalError> {
        self.transact_with(now, &Needed::default(), decide)
    }

    /// The same, with these workers back in the registry, should they be in the history.
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
        self.read_news()?;
        self.cut_torn_tail()?;
        self.recall(now, needed)?;
        let (entries, answer) = decide(&self.registry);
        if !entries.is_empty() {
            self.note_succession(&entries)?;
            let has_settled = entries.iter().any(|entry| matches!(entry, Entry::Settled { .. }));
            self.append(now, entries)?;
            if has_settled && let Err(error) = self.archive(now) {
                tracing::warn!(%error, "could not move settled workers into the history; they stay where they are");
            }
            if self.lines >= LINES_PER_GENERATION {
                // Not worth failing a change that is already made; the next one tries again.
                if let Err(error) = self.rotate() {
                    tracing::warn!(%error, "could not begin a new journal generation");
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

    /// A boss is succeeded in all that was his, in the history too.
    fn note_succession(&mut self, entries: &[Entry]) -> Result<(), JournalError> {
        let succeeded = entries.iter().filter_map(|entry| match entry {
            Entry::BossSucceeded { from, to } => Some(Record::Succeeded { from: from.clone(), to: to.clone() }),
            _ => None,
        });
        let records: Vec<Record> = succeeded.filter(|_| !self.history.is_empty()).collect();
        if records.is_empty() { Ok(()) } else { self.history.append(&records) }
    }

    /// Into the history first: whatever happens in between, nobody is nowhere.
    fn archive(&mut self, now: Timestamp) -> Result<(), JournalError> {
        let ids = archive::movable(&self.registry, self.kept, now);
        if ids.is_empty() {
            return Ok(());
        }
        let workers = ids.iter().filter_map(|id| self.registry.get(id)).cloned();
        self.history.append(&workers.map(Record::Worker).collect::<Vec<_>>())?;
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
        if let Err(source) = self.write(&bytes, durable) {
            // Nothing of a change that failed may be seen by anybody.
            let _ = self.file.set_len(self.offset);
            return Err(FileError::write(&self.path(), source).into());
        }
        let before = match self.is_in_place() {
            true => None,
            false => Some(self.before()?),
        };
        self.offset += bytes.len() as u64;
        self.lines += lines.len() as u64;
        lines.iter().for_each(|line| self.registry.apply(line));
        match before {
            None => Ok(()),
            Some(before) => self.save_elsewhere(&lines).inspect_err(|_| self.go_back_to(before)),
        }
    }

    fn before(&self) -> Result<Before, JournalError> {
        let file = self.file.try_clone().map_err(|source| FileError::read(&self.path(), source))?;
        let (generation, offset, lines) = (self.generation, self.offset, self.lines);
        Ok(Before { generation, file, offset, lines, registry: self.registry.clone() })
    }

    /// In the file that was ours, which is not the one that others began meanwhile: the next look follows those.
    fn go_back_to(&mut self, before: Before) {
        let _ = before.file.set_len(before.offset);
        (self.generation, self.offset, self.lines) = (before.generation, before.offset, before.lines);
        (self.file, self.registry) = (before.file, before.registry);
    }

    /// Returns whether the written file and the lock are still the ones that all servers use.
    fn is_in_place(&self) -> bool {
        files::is_at(&self.lock, &self.folder.join(LOCK)) && files::is_at(&self.file, &self.path())
    }

    /// The folder was removed while these lines were written. They are in memory now, and with that they are put back,
    /// unless somebody else was quicker and gave the same numbers to others.
    fn save_elsewhere(&mut self, lines: &[Line]) -> Result<(), JournalError> {
        self.take_lock()?;
        self.follow_generations()?;
        self.read_new_lines()?;
        let created = lines.iter().filter_map(|line| match &line.entry {
            Entry::Created { workers } => Some(workers),
            _ => None,
        });
        match created.flatten().all(|new| self.registry.get(&new.id).is_some()) {
            true => Ok(()),
            false => Err(JournalError::Removed { path: self.folder.clone() }),
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

    /// A writer that was killed in the middle of a line left a part of it; what is not whole was never answered.
    fn cut_torn_tail(&mut self) -> Result<(), JournalError> {
        let path = self.path();
        let length = self.file.metadata().map_err(|source| FileError::read(&path, source))?.len();
        if length > self.offset {
            self.file.set_len(self.offset).map_err(|source| FileError::write(&path, source))?;
        }
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), JournalError> {
        crash_point::at(Point::RotationBegins);
        generation::write(&self.folder, self.generation + 1, &self.registry, false)?;
        crash_point::at(Point::GenerationWritten);
        let older = self.generation.checked_sub(1).map(|older| generation::path(&self.folder, older));
        self.follow_generations()?;
        crash_point::at(Point::GenerationOpened);
        // One former generation stays, for a reader that has it open, and should the new one get damaged.
        if let Some(older) = older {
            let _ = fs::remove_file(older);
        }
        crash_point::at(Point::OldGenerationRemoved);
        Ok(())
    }

    fn follow_generations(&mut self) -> Result<(), JournalError> {
        if !self.is_outdated() {
            return Ok(());
        }
        let newest = generation::newest(&self.folder)?.filter(|newest| *newest >= self.generation);
        let Some(newest) = newest else { return self.begin_anew() };
        match generation::load(&self.folder, newest) {
            Ok(generation) => self.go_on_with(generation),
            Err(JournalError::Damaged { reason, .. }) => self.mend_head(newest, &reason),
            Err(error) => Err(error),
        }
    }

    fn go_on_with(&mut self, next: Generation) -> Result<(), JournalError> {
        let begun = next.repaired.then(|| {
            self.take_in_what_is_left();
            next.registry.clone()
        });
        let before = (self.generation, self.offset, self.lines);
        let file = std::mem::replace(&mut self.file, next.file);
        let known = std::mem::replace(&mut self.registry, next.registry);
        (self.generation, self.offset, self.lines) = (next.number, next.offset, 0);
        let Some(begun) = begun else { return Ok(()) };
        let put_back = self.read_new_lines().and_then(|()| self.put_back(&known, &begun));
        if put_back.is_err() {
            // As if it had not been seen: the next look tries again.
            (self.generation, self.offset, self.lines) = before;
            (self.file, self.registry) = (file, known);
        }
        put_back
    }

    /// What was appended to our file, wherever that is now, can be read by whoever has it open.
    fn take_in_what_is_left(&mut self) {
        match self.take_in_new_lines() {
            Ok(Some(damage)) => apply_later(&mut self.registry, &damage.after),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the end of the former journal cannot be read"),
        }
    }

    /// Ours is all that there is to know: nothing is to be put back.
    fn adopt(&mut self, next: Generation) {
        (self.generation, self.offset, self.lines) = (next.number, next.offset, 0);
        (self.file, self.registry) = (next.file, next.registry);
    }

    fn put_back(&mut self, known: &Registry, begun: &Registry) -> Result<(), JournalError> {
        self.history.catch_up()?;
        for worker in reunion::conflicts(known, &self.registry) {
            tracing::error!(worker = %worker.id, "its number was given to another while the journal was lost; its folder and branch are there, its mission is to be asked for again");
        }
        let is_archived = |number| self.history.contains(number);
        let entries = reunion::missing(known, begun, &self.registry, &self.server, is_archived);
        if entries.is_empty() {
            return Ok(());
        }
        // The names of offers that are on their way are given to no others.
        self.registry.seq = self.registry.seq.max(known.seq);
        self.append(Timestamp::now(), entries)
    }

    /// Begins a new journal after the old one was removed. It begins with this server's registry and the lines that
    /// others appended to the file that is still open. Other servers add what only they have.
    fn begin_anew(&mut self) -> Result<(), JournalError> {
        self.take_in_what_is_left();
        let mut registry = self.registry.clone();
        mended(&mut registry, "the journal was removed; it was written again from a server's memory");
        let next = self.generation + 1;
        generation::write(&self.folder, next, &registry, true)?;
        self.adopt(generation::load(&self.folder, next)?);
        Ok(())
    }

    /// What is damaged is set aside, and what it said is gathered from the lines around it and the workers' folders.
    fn read_new_lines(&mut self) -> Result<(), JournalError> {
        match self.take_in_new_lines()? {
            Some(damage) => self.mend(damage),
            None => Ok(()),
        }
    }

    fn take_in_new_lines(&mut self) -> Result<Option<Damage>, JournalError> {
        let path = self.path();
        let read = generation::read_lines(&mut self.file, self.offset);
        let read = read.map_err(|source| FileError::read(&path, source))?;
        read.lines.iter().for_each(|line| self.registry.apply(line));
        self.offset += read.length;
        self.lines += read.lines.len() as u64;
        Ok(read.damage)
    }

    fn mend(&mut self, damage: Damage) -> Result<(), JournalError> {
        let mut registry = self.registry.clone();
        apply_later(&mut registry, &damage.after);
        let what = format!("{} lines could not be read ({})", damage.unreadable, damage.reason);
        let next = replace_damaged(&self.folder, self.generation, registry, &self.dir, &self.history, &what)?;
        self.adopt(next);
        Ok(())
    }

    /// What this server knew leads up to the first line that is damaged.
    fn mend_head(&mut self, number: u64, reason: &str) -> Result<(), JournalError> {
        self.take_in_what_is_left();
        let mut registry = self.registry.clone();
        apply_later(&mut registry, &generation::lines_without_head(&self.folder, number)?);
        let what = format!("its first line could not be read ({reason})");
        let next = replace_damaged(&self.folder, number, registry, &self.dir, &self.history, &what)?;
        self.adopt(next);
        Ok(())
    }

    /// What was removed while no server ran, though what is left looks whole.
    fn find_what_is_missing(&mut self) -> Result<(), JournalError> {
        let told = rebuild::newest_told(&self.dir);
        if told > self.registry.seq {
            let what = format!("the journal ends at change {}, and change {told} was made", self.registry.seq);
            let mut registry = self.registry.clone();
            gather(&mut registry, &self.dir, &self.history, &what);
            generation::write(&self.folder, self.generation + 1, &registry, true)?;
            self.adopt(generation::load(&self.folder, self.generation + 1)?);
        }
        self.find_lost_history()
    }

    /// A history that was removed while no server ran is written again from the folders of those who were in it.
    fn find_lost_history(&mut self) -> Result<(), JournalError> {
        if self.registry.archived == 0 || !self.history.is_empty() {
            return Ok(());
        }
        let mut all = self.registry.clone();
        let found = rebuild::rebuild(&mut all, &self.dir, &self.history, Timestamp::now());
        let moved = all.workers().filter(|worker| self.registry.get(&worker.id).is_none()).cloned();
        let moved: Vec<Record> = moved.map(Record::Worker).collect();
        tracing::warn!(rebuilt = moved.len(), lost = ?found.lost, "the history was missing; it was rebuilt from the workers' folders");
        if moved.is_empty() { Ok(()) } else { self.history.append(&moved) }
    }

    fn path(&self) -> PathBuf {
        generation::path(&self.folder, self.generation)
    }

    fn unlock(&self) -> Result<(), JournalError> {
        self.lock.unlock().map_err(|source| FileError::write(&self.folder, source).into())
    }
}

/// Notes of delivery may be lost with the power: then something is told twice, marked. All else was promised.
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

pub(super) const LOCK: &str = "lock";

/// Takes the lock that lies in the folder: one that was removed, or replaced, while it was waited for is nobody's, and
/// whoever holds it holds nothing.
fn lock(folder: &Path, held: Option<File>) -> Result<File, JournalError> {
    let path = folder.join(LOCK);
    let fail = |source| FileError::write(&path, source);
    let mut held = held.filter(|file| files::is_at(file, &path));
    loop {
        let file = match held.take() {
            Some(file) => file,
            None => {
                files::make_private_dir_within(StateDir::around(folder).root(), folder)?;
                files::private().create(true).append(true).open(&path).map_err(fail)?
            }
        };
        file.lock().map_err(fail)?;
        if files::is_at(&file, &path) {
            return Ok(file);
        }
    }
}

#[cfg(test)]
mod tests;
