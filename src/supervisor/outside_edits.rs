//! Edits that a worker's CLI reports outside its worktree.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Maximum number of paths in a record.
const NAMED_PATHS: usize = 20;

pub struct OutsideEdits {
    directory: PathBuf,
    paths: BTreeSet<String>,
}

impl OutsideEdits {
    pub fn of(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), paths: BTreeSet::new() }
    }

    /// Records a path that the CLI reports as edited, if it is outside.
    pub fn record(&mut self, path: &str) {
        let is_outside = Path::new(path).is_absolute() && !Path::new(path).starts_with(&self.directory);
        if is_outside && self.paths.len() < NAMED_PATHS {
            self.paths.insert(path.to_owned());
        }
    }

    pub fn paths(&self) -> Vec<String> {
        self.paths.iter().cloned().collect()
    }
}
