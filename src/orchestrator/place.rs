//! The state directory of a folder: one rule for the server and for every command that reads it.

use std::path::{Path, PathBuf};
use std::{fs, io};

use super::error::OrchestratorError;
use crate::attempt::state_dir;
use crate::git::Repository;

/// Returns the directory that the settings name (relative to `directory`), or else `.orchestrator` in the repository,
/// or else in the folder itself.
pub fn state_root(named: Option<&Path>, repository: Option<&Repository>, directory: &Path) -> PathBuf {
    match (named, repository) {
        (Some(folder), _) => directory.join(folder),
        (None, Some(repository)) => repository.root().join(state_dir::NAME),
        (None, None) => directory.join(state_dir::NAME),
    }
}

/// Refuses a folder that was moved or removed since the server started. Nothing may be created at the old place, which
/// would be in the way when it is restored.
pub(super) fn refuse_moved(folder: &Path) -> Result<(), OrchestratorError> {
    match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(OrchestratorError::Moved { path: folder.to_owned() })
        }
        _ => Ok(()),
    }
}
