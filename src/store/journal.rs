//! The journal: one appended line a change, shared by all servers of a state directory.
//!
//! To decide anything, a server takes the lock, reads what others have appended, decides, appends, releases. So two
//! servers never decide differently, and a change costs the same at ten tasks as at ten thousand. A file begins with a
//! whole registry, then lines; when it has grown, the next generation begins with a new registry under the same lock.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::file::{self, FileError};
use crate::crash_point::{self, Point};
use crate::mission::entry::{Entry, FORMAT, Line};
use crate::mission::id::ServerId;
use crate::mission::registry::Registry;

/// Lines after which a new generation begins: about a megabyte, read in some 10 ms.
const LINES_PER_GENERATION: u64 = if cfg!(feature = "crash-points") { 20 } else { 2_000 };

#[derive(Debug, Error)]
pub enum JournalError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{} was written by a newer version of orchestrator-boss (format {found}; this one knows {FORMAT}): use that version, or another --state-dir", path.display())]
    Newer { path: PathBuf, found: u32 },
    #[error("{} is damaged at byte {offset}: {reason}; move the folder aside to begin anew, the workers' folders and branches stay", path.display())]
    Damaged { path: PathBuf, offset: u64, reason: String },
}

/// First line of a generation.
#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    registry: Registry,
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

/// This process's view of the journal: a registry that is up to date as of the last look.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    server: ServerId,
    lock: File,
    generation: u64,
    file: File,
    /// Bytes of `file` that `registry` holds.
    offset: u64,
    lines: u64,
    registry: Registry,
}

impl Journal {
    /// Opens the newest generation, or begins the first.
    pub fn open(folder: &Path, server: ServerId) -> Result<Self, JournalError> {
        file::make_private_dir(folder)?;
        let lock_path = folder.join("lock");
        let lock = file::private()
            .create(true)
            .append(true)
            .open(&lock_path)
            .map_err(|source| FileError::write(&lock_path, source))?;
        lock.lock().map_err(|source| FileError::write(&lock_path, source))?;
        let generation = match newest_generation(folder)? {
            Some(generation) => generation,
            None => {
                write_generation(folder, 1, &Registry::default())?;
                1
            }
        };
        let (file, offset, registry) = load(folder, generation)?;
        let mut journal =
            Self { folder: folder.to_owned(), server, lock, generation, file, offset, lines: 0, registry };
        journal.read_new_lines()?;
        journal.unlock()?;
        Ok(journal)
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Takes in what others have written. Under the lock, since a writer whose disk is full takes back what it wrote.
    pub fn catch_up(&mut self) -> Result<(), JournalError> {
        if !self.is_behind()? {
            return Ok(());
        }
        self.lock.lock_shared().map_err(|source| FileError::write(&self.folder, source))?;
        let result = self.read_news();
        self.unlock()?;
        result
    }

    fn is_behind(&self) -> Result<bool, JournalError> {
        let path = self.path();
        let length = self.file.metadata().map_err(|source| FileError::read(&path, source))?.len();
        Ok(length > self.offset || self.is_outdated())
    }

    fn read_news(&mut self) -> Result<(), JournalError> {
        self.follow_generations()?;
        self.read_new_lines()
    }

    /// Of the generations two stay, so one that slept through two others finds neither its own nor the next.
    fn is_outdated(&self) -> bool {
        generation_path(&self.folder, self.generation + 1).exists() || !self.path().exists()
    }

    /// Decides on the newest state and makes it so: `decide` sees every change of every server, and nobody else decides
    /// meanwhile. When this returns, the entries are on disk; on an error, none of them is.
    pub fn transact<T>(
        &mut self,
        now: Timestamp,
        decide: impl FnOnce(&Registry) -> (Vec<Entry>, T),
    ) -> Result<T, JournalError> {
        self.lock.lock().map_err(|source| FileError::write(&self.folder, source))?;
        let result = self.transact_locked(now, decide);
        self.unlock()?;
        result
    }

    fn transact_locked<T>(
        &mut self,
        now: Timestamp,
        decide: impl FnOnce(&Registry) -> (Vec<Entry>, T),
    ) -> Result<T, JournalError> {
        self.read_news()?;
        self.cut_torn_tail()?;
        let (entries, answer) = decide(&self.registry);
        if !entries.is_empty() {
            self.append(now, entries)?;
            if self.lines >= LINES_PER_GENERATION {
                // Not worth failing a change that is already made; the next one tries again.
                if let Err(error) = self.rotate() {
                    tracing::warn!(%error, "could not begin a new journal generation");
                }
            }
        }
        Ok(answer)
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
        self.offset += bytes.len() as u64;
        self.lines += lines.len() as u64;
        lines.iter().for_each(|line| self.registry.apply(line));
        Ok(())
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
        write_generation(&self.folder, self.generation + 1, &self.registry)?;
        crash_point::at(Point::GenerationWritten);
        let older = self.generation.checked_sub(1).map(|older| generation_path(&self.folder, older));
        self.follow_generations()?;
        crash_point::at(Point::GenerationOpened);
        // One former generation stays, for a reader that has it open and for the curious.
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
        let newest = newest_generation(&self.folder)?.unwrap_or(self.generation + 1);
        let (file, offset, registry) = load(&self.folder, newest)?;
        (self.generation, self.file, self.offset, self.registry, self.lines) = (newest, file, offset, registry, 0);
        Ok(())
    }

    /// Whole lines only: what another writer is appending just now is read the next time.
    fn read_new_lines(&mut self) -> Result<(), JournalError> {
        let path = self.path();
        let fail = |source| FileError::read(&path, source);
        let length = self.file.metadata().map_err(fail)?.len();
        if length <= self.offset {
            return Ok(());
        }
        self.file.seek(SeekFrom::Start(self.offset)).map_err(fail)?;
        let mut bytes = Vec::new();
        (&self.file).take(length - self.offset).read_to_end(&mut bytes).map_err(fail)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for line in bytes[..whole].split_inclusive(|byte| *byte == b'\n') {
            let parsed: Line = serde_json::from_slice(line).map_err(|error| JournalError::Damaged {
                path: path.clone(),
                offset: self.offset,
                reason: error.to_string(),
            })?;
            self.registry.apply(&parsed);
            self.offset += line.len() as u64;
            self.lines += 1;
        }
        Ok(())
    }

    fn path(&self) -> PathBuf {
        generation_path(&self.folder, self.generation)
    }

    fn unlock(&self) -> Result<(), JournalError> {
        self.lock.unlock().map_err(|source| FileError::write(&self.folder, source).into())
    }
}

/// Notes of delivery may be lost with the power: then something is told twice, marked. All else was promised.
fn must_outlast_power_failure(entry: &Entry) -> bool {
    !matches!(
        entry,
        Entry::Offered { .. } | Entry::Delivered { .. } | Entry::Withdrawn { .. } | Entry::Verifying { .. }
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

fn generation_path(folder: &Path, generation: u64) -> PathBuf {
    folder.join(format!("{generation:06}.jsonl"))
}

fn newest_generation(folder: &Path) -> Result<Option<u64>, JournalError> {
    let entries = fs::read_dir(folder).map_err(|source| FileError::read(folder, source))?;
    let numbers = entries.filter_map(|entry| {
        let name = entry.ok()?.file_name();
        name.to_str()?.strip_suffix(".jsonl")?.parse().ok()
    });
    Ok(numbers.max())
}

fn write_generation(folder: &Path, generation: u64, registry: &Registry) -> Result<(), JournalError> {
    let path = generation_path(folder, generation);
    let header = Header { format: FORMAT, registry: registry.clone() };
    let mut bytes = serde_json::to_vec(&header)
        .map_err(|error| FileError::Damaged { path: path.clone(), reason: error.to_string() })?;
    bytes.push(b'\n');
    Ok(file::replace(&path, &bytes, true)?)
}

fn load(folder: &Path, generation: u64) -> Result<(File, u64, Registry), JournalError> {
    let path = generation_path(folder, generation);
    let fail = |source| FileError::read(&path, source);
    let file = file::private().read(true).write(true).open(&path).map_err(fail)?;
    let mut first = Vec::new();
    BufReader::new(&file).read_until(b'\n', &mut first).map_err(fail)?;
    let damaged =
        |error: serde_json::Error| JournalError::Damaged { path: path.clone(), offset: 0, reason: error.to_string() };
    let FormatOnly { format } = serde_json::from_slice(&first).map_err(damaged)?;
    if format > FORMAT {
        return Err(JournalError::Newer { path, found: format });
    }
    let mut header: Header = serde_json::from_slice(&first).map_err(damaged)?;
    header.registry.reindex();
    Ok((file, first.len() as u64, header.registry))
}

#[cfg(test)]
mod tests;
