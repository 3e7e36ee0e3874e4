//! Where the state of a folder lies: one rule for the server and for every command that looks at what it keeps.

use std::path::{Path, PathBuf};
use std::{fs, io};

use super::error::OrchestratorError;
use crate::attempt::state_dir;
use crate::git::Repository;

/// What the settings name (relative to `directory`), else `.orchestrator` in the repository, else in the folder itself.
pub fn state_root(named: Option<&Path>, repository: Option<&Repository>, directory: &Path) -> PathBuf {
    match (named, repository) {
        (Some(folder), _) => directory.join(folder),
        (None, Some(repository)) => repository.root().join(state_dir::NAME),
        (None, None) => directory.join(state_dir::NAME),
    }
}

/// A folder that was there when the server started and is not any more was moved, or removed with all that is in it.
/// Nothing may be made at the old place: it would be in the way of what comes back.
pub(super) fn refuse_moved(folder: &Path) -> Result<(), OrchestratorError> {
    match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(OrchestratorError::Moved { path: folder.to_owned() })
        }
        _ => Ok(()),
    }
}
