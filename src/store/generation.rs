//! The journal's files: a generation begins with a line that holds a whole registry, and goes on with one line a change.
//! Reading and writing them, and nothing about when; damage is reported here and mended by the journal.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::journal::JournalError;
use crate::files::{self, FileError};
use crate::mission::entry::{FORMAT, Line};
use crate::mission::registry::Registry;

/// First line of a generation.
#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    /// Not the fold of all lines that were ever written: see [`Generation::repaired`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    repaired: bool,
    registry: Registry,
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

/// One that was just opened.
pub struct Generation {
    pub number: u64,
    /// Of the build that began it.
    pub format: u32,
    pub file: File,
    /// Where the lines begin.
    pub offset: u64,
    /// As the first line has it.
    pub registry: Registry,
    /// It was begun after damage or loss: whoever knows more puts that back.
    pub repaired: bool,
}

/// Lines as they lie in the file, up to the first that makes no sense.
pub struct Lines {
    pub lines: Vec<Line>,
    /// Bytes of them.
    pub length: u64,
    pub damage: Option<Damage>,
}

/// A line that makes no sense, and those after it that do.
pub struct Damage {
    pub reason: String,
    pub after: Vec<Line>,
    pub unreadable: usize,
}

pub fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:06}.jsonl"))
}

pub fn newest(folder: &Path) -> Result<Option<u64>, JournalError> {
    let entries = fs::read_dir(folder).map_err(|source| FileError::read(folder, source))?;
    let numbers = entries.filter_map(|entry| {
        let name = entry.ok()?.file_name();
        name.to_str()?.strip_suffix(".jsonl")?.parse().ok()
    });
    Ok(numbers.max())
}

pub fn write(folder: &Path, number: u64, registry: &Registry, repaired: bool) -> Result<(), JournalError> {
    let path = path(folder, number);
    let header = Header { format: FORMAT, repaired, registry: registry.clone() };
    let mut bytes = serde_json::to_vec(&header)
        .map_err(|error| FileError::Damaged { path: path.clone(), reason: error.to_string() })?;
    bytes.push(b'\n');
    Ok(files::replace(&path, &bytes, true)?)
}

/// Opens one for reading and writing. A newer format is refused before anything else is looked at.
pub fn load(folder: &Path, number: u64) -> Result<Generation, JournalError> {
    load_with(files::private().write(true), folder, number)
}

/// The same, for reading alone.
pub fn look_at(folder: &Path, number: u64) -> Result<Generation, JournalError> {
    load_with(&mut files::private(), folder, number)
}

fn load_with(options: &mut OpenOptions, folder: &Path, number: u64) -> Result<Generation, JournalError> {
    let path = path(folder, number);
    let fail = |source| FileError::read(&path, source);
    let file = options.read(true).open(&path).map_err(fail)?;
    let mut first = Vec::new();
    BufReader::new(&file).read_until(b'\n', &mut first).map_err(fail)?;
    let damaged = |error: serde_json::Error| JournalError::Damaged { path: path.clone(), reason: error.to_string() };
    let FormatOnly { format } = serde_json::from_slice(&first).map_err(damaged)?;
    if format > FORMAT {
        return Err(JournalError::Newer { path, found: format });
    }
    let mut header: Header = serde_json::from_slice(&first).map_err(damaged)?;
    header.registry.reindex();
    let Header { registry, repaired, .. } = header;
    Ok(Generation { number, format, file, offset: first.len() as u64, registry, repaired })
}

/// Whole lines only: what another writer is appending just now is read the next time.
pub fn read_lines(file: &mut File, offset: u64) -> io::Result<Lines> {
    let mut bytes = Vec::new();
    if file.metadata()?.len() > offset {
        file.seek(SeekFrom::Start(offset))?;
        file.read_to_end(&mut bytes)?;
    }
    let whole = bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
    let mut read = Lines { lines: Vec::new(), length: 0, damage: None };
    for line in whole {
        match (serde_json::from_slice::<Line>(line), &mut read.damage) {
            (Ok(parsed), None) => {
                read.lines.push(parsed);
                read.length += line.len() as u64;
            }
            (Err(error), None) => {
                read.damage = Some(Damage { reason: error.to_string(), after: Vec::new(), unreadable: 1 });
            }
            (Ok(parsed), Some(damage)) => damage.after.push(parsed),
            (Err(_), Some(damage)) => damage.unreadable += 1,
        }
    }
    Ok(read)
}

/// All lines that can be read after a first line that cannot.
pub fn lines_without_head(folder: &Path, number: u64) -> Result<Vec<Line>, JournalError> {
    let path = path(folder, number);
    let bytes = fs::read(&path).map_err(|source| FileError::read(&path, source))?;
    let lines = bytes.split_inclusive(|byte| *byte == b'\n').skip(1);
    Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

/// Gives a damaged file another name beside the one that it has, so that it stays when that is taken away.
pub fn keep_aside(folder: &Path, number: u64, now: Timestamp) -> Result<PathBuf, JournalError> {
    let path = path(folder, number);
    for again in 0.. {
        let aside = path.with_extension(format!("jsonl.damaged-{}-{again}", now.as_second()));
        match fs::hard_link(&path, &aside) {
            Ok(()) => return Ok(aside),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            // Some file systems know no links.
            Err(_) => {
                let copied = fs::read(&path).map_err(|source| FileError::read(&path, source))?;
                match files::create_once(&aside, &copied) {
                    Err(FileError::Exists { .. }) => continue,
                    done => return Ok(done.map(|()| aside)?),
                }
            }
        }
    }
    unreachable!("a free name is found before numbers end")
}
