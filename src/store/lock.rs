//! The lock of a journal, under which servers read, decide and write.

use std::fs::File;
use std::path::Path;

use super::error::JournalError;
use crate::attempt::state_dir::StateDir;
use crate::files::{self, FileError};

/// The name of the lock file in the journal's folder.
pub const LOCK: &str = "lock";

/// Takes the lock, after it has created the folder if necessary. It lasts until the file is dropped or unlocked. A lock
/// file that was removed or replaced meanwhile is not the journal's any more.
pub fn take(folder: &Path) -> Result<File, JournalError> {
    let path = folder.join(LOCK);
    let fail = |source| FileError::write(&path, source);
    loop {
        files::make_private_dir_within(StateDir::around(folder).root(), folder)?;
        let file = files::private().create(true).append(true).open(&path).map_err(fail)?;
        file.lock().map_err(fail)?;
        if files::is_at(&file, &path) {
            return Ok(file);
        }
    }
}
