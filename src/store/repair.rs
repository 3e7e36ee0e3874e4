//! Repair of a damaged or missing journal. The readable lines, the segment before and the workers' folders are combined
//! in a new segment. Must be called under the journal's lock. Nothing is overwritten.

use std::fs;
use std::path::Path;

use jiff::Timestamp;

use super::error::JournalError;
use super::history::History;
use super::rebuild;
use super::segment::{self, JournalSegment};
use crate::attempt::state_dir::StateDir;
use crate::files::FileError;
use crate::mission::entry::Line;
use crate::mission::registry::Registry;

/// Opens the newest segment, after a repair if its first line is damaged. Begins the first one if there is none.
pub(super) fn open_newest(folder: &Path, dir: &StateDir, history: &History) -> Result<JournalSegment, JournalError> {
    let Some(newest) = segment::newest(folder)? else {
        let mut registry = Registry::default();
        if rebuild::is_possible(dir) || !history.is_empty() {
            gather(&mut registry, dir, history, "the journal was missing");
        }
        segment::write(folder, 1, &registry)?;
        return segment::open(folder, 1);
    };
    let reason = match segment::open(folder, newest) {
        Err(JournalError::Damaged { reason, .. }) => reason,
        opened => return opened,
    };
    let registry = around_damaged_header(folder, newest)?;
    let what = format!("its first line could not be read ({reason})");
    replace_damaged(folder, newest, registry, dir, history, &what)
}

/// Returns the state after the segment before and the readable lines of this one. Changes nothing.
pub(super) fn around_damaged_header(folder: &Path, newest: u64) -> Result<Registry, JournalError> {
    let mut registry = state_after(folder, newest.saturating_sub(1))?;
    apply_later(&mut registry, &segment::lines_after_header(folder, newest)?);
    Ok(registry)
}

/// Returns the state after a segment. Empty if it is gone or damaged as well.
fn state_after(folder: &Path, number: u64) -> Result<Registry, JournalError> {
    match segment::open_read_only(folder, number) {
        Ok(mut before) => {
            let path = segment::path(folder, number);
            let read = segment::read_lines(&mut before.file, before.offset);
            let read = read.map_err(|source| FileError::read(&path, source))?;
            apply_later(&mut before.registry, &read.lines);
            apply_later(&mut before.registry, &read.damage.map(|damage| damage.after).unwrap_or_default());
            Ok(before.registry)
        }
        Err(error @ JournalError::Newer { .. }) => Err(error),
        Err(_) => Ok(Registry::default()),
    }
}

/// Applies the lines that are newer than the registry.
pub(super) fn apply_later(registry: &mut Registry, lines: &[Line]) {
    for line in lines {
        if line.seq > registry.seq {
            registry.apply(line);
        }
    }
}

/// Begins the next segment and keeps the damaged one under another name. At every instant, one of them exists.
pub(super) fn replace_damaged(
    folder: &Path,
    number: u64,
    mut registry: Registry,
    dir: &StateDir,
    history: &History,
    what: &str,
) -> Result<JournalSegment, JournalError> {
    let aside = segment::keep_damaged(folder, number, Timestamp::now())?;
    let path = segment::path(folder, number);
    let what = format!("{} was damaged: {what}; it is kept as {}", path.display(), aside.display());
    gather(&mut registry, dir, history, &what);
    segment::write(folder, number + 1, &registry)?;
    fs::remove_file(&path).map_err(|source| FileError::write(&path, source))?;
    segment::open(folder, number + 1)
}

/// Adds the content of the workers' folders, and records the repair in words.
pub(super) fn gather(registry: &mut Registry, dir: &StateDir, history: &History, what: &str) {
    let found = rebuild::rebuild(registry, dir, history, Timestamp::now());
    let mut repair = format!(
        "{what}; from the workers' folders, {} workers were rebuilt and {} brought up to date",
        found.rebuilt, found.brought_up_to_date
    );
    if !found.lost.is_empty() {
        repair.push_str(&format!("; these could not be rebuilt and must be created again: {}", found.lost.join(", ")));
    }
    tracing::error!("{repair}");
    registry.repaired = Some(format!("{}: {repair}", Timestamp::now()));
}
