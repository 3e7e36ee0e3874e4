//! The segments of the journal: files that begin with a snapshot of the registry, followed by one line per change.
//! Reads and writes them; damage is reported here and repaired elsewhere.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::error::JournalError;
use crate::files::{self, FileError};
use crate::mission::entry::{FORMAT, Line, OLDEST_FORMAT};
use crate::mission::registry::Registry;

/// The first line of a segment.
#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    registry: Registry,
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

/// A segment that was just opened.
pub struct JournalSegment {
    pub number: u64,
    pub format: u32,
    pub file: File,
    /// The length of the first line, where the others begin.
    pub offset: u64,
    /// The snapshot in the first line.
    pub registry: Registry,
}

/// The lines of a segment, up to the first that is damaged.
pub struct SegmentLines {
    pub lines: Vec<Line>,
    /// Their length in bytes.
    pub length: u64,
    pub damage: Option<DamagedLines>,
}

/// A damaged line, and the readable lines after it.
pub struct DamagedLines {
    pub reason: String,
    pub after: Vec<Line>,
    pub unreadable: usize,
}

pub fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:06}.jsonl"))
}

/// Returns the number of the newest segment.
pub fn newest(folder: &Path) -> Result<Option<u64>, JournalError> {
    let entries = fs::read_dir(folder).map_err(|source| FileError::read(folder, source))?;
    let numbers = entries.filter_map(|entry| {
        let name = entry.ok()?.file_name();
        name.to_str()?.strip_suffix(".jsonl")?.parse().ok()
    });
    Ok(numbers.max())
}

/// Writes a segment that begins with this registry.
pub fn write(folder: &Path, number: u64, registry: &Registry) -> Result<(), JournalError> {
    let path = path(folder, number);
    let header = Header { format: FORMAT, registry: registry.clone() };
    let mut bytes = serde_json::to_vec(&header)
        .map_err(|error| FileError::Damaged { path: path.clone(), reason: error.to_string() })?;
    bytes.push(b'\n');
    Ok(files::replace(&path, &bytes, true)?)
}

/// Opens a segment for reading and writing. Another format is refused before the rest of the line is parsed.
pub fn open(folder: &Path, number: u64) -> Result<JournalSegment, JournalError> {
    open_with(files::private().write(true), folder, number)
}

pub fn open_read_only(folder: &Path, number: u64) -> Result<JournalSegment, JournalError> {
    open_with(&mut files::private(), folder, number)
}

fn open_with(options: &mut OpenOptions, folder: &Path, number: u64) -> Result<JournalSegment, JournalError> {
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
    if format < OLDEST_FORMAT {
        return Err(JournalError::Former { path, found: format });
    }
    let Header { mut registry, .. } = serde_json::from_slice(&first).map_err(damaged)?;
    registry.reindex();
    Ok(JournalSegment { number, format, file, offset: first.len() as u64, registry })
}

/// Reads the whole lines from an offset on. A line that another process is appending is read the next time.
pub fn read_lines(file: &mut File, offset: u64) -> io::Result<SegmentLines> {
    let mut bytes = Vec::new();
    if file.metadata()?.len() > offset {
        file.seek(SeekFrom::Start(offset))?;
        file.read_to_end(&mut bytes)?;
    }
    let whole = bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
    let mut read = SegmentLines { lines: Vec::new(), length: 0, damage: None };
    for line in whole {
        match (serde_json::from_slice::<Line>(line), &mut read.damage) {
            (Ok(parsed), None) => {
                read.lines.push(parsed);
                read.length += line.len() as u64;
            }
            (Err(error), None) => {
                read.damage = Some(DamagedLines { reason: error.to_string(), after: Vec::new(), unreadable: 1 });
            }
            (Ok(parsed), Some(damage)) => damage.after.push(parsed),
            (Err(_), Some(damage)) => damage.unreadable += 1,
        }
    }
    Ok(read)
}

/// Returns all readable lines after the first, which may be damaged.
pub fn lines_after_header(folder: &Path, number: u64) -> Result<Vec<Line>, JournalError> {
    let path = path(folder, number);
    let bytes = fs::read(&path).map_err(|source| FileError::read(&path, source))?;
    let lines = bytes.split_inclusive(|byte| *byte == b'\n').skip(1);
    Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

/// Gives a damaged segment a second name, under which it stays when it is removed under its own.
pub fn keep_damaged(folder: &Path, number: u64, now: Timestamp) -> Result<PathBuf, JournalError> {
    let path = path(folder, number);
    for again in 0.. {
        let aside = path.with_extension(format!("jsonl.damaged-{}-{again}", now.as_second()));
        match fs::hard_link(&path, &aside) {
            Ok(()) => return Ok(aside),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            // Some file systems have no hard links.
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
