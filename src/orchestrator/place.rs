//! Where the state of a folder lies: one rule for the server and for every command that looks at what it keeps.

use std::path::{Path, PathBuf};

use crate::git::Repository;
use crate::store::state_dir;

/// What the settings name (relative to `directory`), else `.orchestrator` in the repository, else in the folder itself.
pub fn state_root(named: Option<&Path>, repository: Option<&Repository>, directory: &Path) -> PathBuf {
    match (named, repository) {
        (Some(folder), _) => directory.join(folder),
        (None, Some(repository)) => repository.root().join(state_dir::NAME),
        (None, None) => directory.join(state_dir::NAME),
    }
}
