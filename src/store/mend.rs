//! Mending a journal that somebody damaged or removed: what its other lines, the generation before and the workers' folders
//! know is put together in a new generation. Called under the journal's lock; nothing is ever overwritten.

use std::fs;
use std::path::Path;

use jiff::Timestamp;

use super::generation::{self, Generation};
use super::history::History;
use super::journal::JournalError;
use super::rebuild;
use crate::attempt::state_dir::StateDir;
use crate::files::FileError;
use crate::mission::entry::Line;
use crate::mission::registry::Registry;

/// The newest generation, mended where its first line is damaged; begun where there is none.
pub(super) fn open_newest(folder: &Path, dir: &StateDir, history: &History) -> Result<Generation, JournalError> {
    let Some(newest) = generation::newest(folder)? else {
        let mut registry = Registry::default();
        let is_lost = rebuild::is_possible(dir) || !history.is_empty();
        if is_lost {
            gather(&mut registry, dir, history, "the journal was missing");
        }
        generation::write(folder, 1, &registry, is_lost)?;
        return generation::load(folder, 1);
    };
    let reason = match generation::load(folder, newest) {
        Err(JournalError::Damaged { reason, .. }) => reason,
        loaded => return loaded,
    };
    let registry = around_damaged_head(folder, newest)?;
    let what = format!("its first line could not be read ({reason})");
    replace_damaged(folder, newest, registry, dir, history, &what)
}

/// What the generation before and the lines that can be read lead to. Changes nothing.
pub(super) fn around_damaged_head(folder: &Path, newest: u64) -> Result<Registry, JournalError> {
    let mut registry = former(folder, newest)?;
    apply_later(&mut registry, &generation::lines_without_head(folder, newest)?);
    Ok(registry)
}

/// Where the generation before this one led to; nothing where that is gone or damaged as well.
fn former(folder: &Path, newest: u64) -> Result<Registry, JournalError> {
    match generation::look_at(folder, newest.saturating_sub(1)) {
        Ok(mut former) => {
            let path = generation::path(folder, former.number);
            let read = generation::read_lines(&mut former.file, former.offset);
            let read = read.map_err(|source| FileError::read(&path, source))?;
            apply_later(&mut former.registry, &read.lines);
            apply_later(&mut former.registry, &read.damage.map(|damage| damage.after).unwrap_or_default());
            Ok(former.registry)
        }
        Err(error @ JournalError::Newer { .. }) => Err(error),
        Err(_) => Ok(Registry::default()),
    }
}

/// Only what comes after: a line that is in already is not applied again.
pub(super) fn apply_later(registry: &mut Registry, lines: &[Line]) {
    for line in lines {
        if line.seq > registry.seq {
            registry.apply(line);
        }
    }
}

/// Begins the next generation and keeps the damaged one under another name. At no instant is there neither.
pub(super) fn replace_damaged(
    folder: &Path,
    number: u64,
    mut registry: Registry,
    dir: &StateDir,
    history: &History,
    what: &str,
) -> Result<Generation, JournalError> {
    let aside = generation::keep_aside(folder, number, Timestamp::now())?;
    let path = generation::path(folder, number);
    gather(
        &mut registry,
        dir,
        history,
        &format!("{} was damaged: {what}; it is kept as {}", path.display(), aside.display()),
    );
    generation::write(folder, number + 1, &registry, true)?;
    fs::remove_file(&path).map_err(|source| FileError::write(&path, source))?;
    generation::load(folder, number + 1)
}

/// Adds what the workers' folders know, and says what was done.
pub(super) fn gather(registry: &mut Registry, dir: &StateDir, history: &History, what: &str) {
    let found = rebuild::rebuild(registry, dir, history, Timestamp::now());
    let mut said = format!(
        "{what}; from the workers' folders, {} workers were rebuilt and {} brought up to date",
        found.rebuilt, found.brought_up_to_date
    );
    if !found.lost.is_empty() {
        said.push_str(&format!(
            "; not to be rebuilt, and to be asked for again if still wanted: {}",
            found.lost.join(", ")
        ));
    }
    mended(registry, &said);
}

pub(super) fn mended(registry: &mut Registry, what: &str) {
    tracing::error!("{what}");
    registry.repaired = Some(format!("{}: {what}", Timestamp::now()));
}
