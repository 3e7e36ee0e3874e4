//! Edits that a CLI makes in the project by itself: OpenCode completes its configuration file when it reads it. They
//! are not the worker's edits, so they are undone: as soon as the CLI has begun, and again at the end of its turn.

use std::fs;
use std::path::{Path, PathBuf};

use crate::backend::Backend;

/// The files that the CLI may edit by itself, as they were before it started.
#[derive(Debug, Default)]
pub(super) struct OwnEdits {
    before: Vec<(PathBuf, String)>,
}

impl OwnEdits {
    /// Reads the files in the directory and in its parents, up to the root of its worktree.
    pub fn before(backend: &dyn Backend, directory: &Path) -> Self {
        let root = directory.ancestors().find(|folder| folder.join(".git").symlink_metadata().is_ok());
        let folders =
            directory.ancestors().take_while(|folder| root.map_or(*folder == directory, |it| folder.starts_with(it)));
        let files = folders.flat_map(|folder| backend.edits_by_itself().iter().map(|name| folder.join(name)));
        let text_of = |path: PathBuf| fs::read_to_string(&path).ok().map(|text| (path, text));
        Self { before: files.filter_map(text_of).collect() }
    }

    /// Reverts the CLI's own edits. Edits of the worker stay.
    pub fn undo(&self, backend: &dyn Backend) {
        for (path, before) in &self.before {
            let Some(now) = fs::read_to_string(path).ok().filter(|now| now != before) else { continue };
            let Some(without) = backend.without_own_edit(before, &now) else { continue };
            if let Err(error) = fs::write(path, without) {
                tracing::warn!(path = %path.display(), %error, "an edit that the CLI made by itself could not be undone");
            }
        }
    }
}
