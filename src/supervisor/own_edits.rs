//! Edits that a CLI makes in the project by itself, whatever it was asked for: OpenCode completes its configuration file when
//! it reads it. They are the CLI's and not the worker's, so they are undone, as soon as the CLI shows that it has begun and
//! once more at the end of its turn.

use std::fs;
use std::path::{Path, PathBuf};

use crate::backend::Backend;

/// The files that the CLI may edit by itself, as they were before it started.
#[derive(Debug, Default)]
pub(super) struct OwnEdits {
    before: Vec<(PathBuf, String)>,
}

impl OwnEdits {
    /// Looks in the directory and in those above it, up to the root of its worktree.
    pub fn before(backend: &dyn Backend, directory: &Path) -> Self {
        let root = directory.ancestors().find(|folder| folder.join(".git").symlink_metadata().is_ok());
        let folders =
            directory.ancestors().take_while(|folder| root.map_or(*folder == directory, |it| folder.starts_with(it)));
        let files = folders.flat_map(|folder| backend.edits_by_itself().iter().map(|name| folder.join(name)));
        let text_of = |path: PathBuf| fs::read_to_string(&path).ok().map(|text| (path, text));
        Self { before: files.filter_map(text_of).collect() }
    }

    /// Takes the CLI's own edit out again; what the worker has edited there stays.
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
