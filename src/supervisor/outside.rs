//! Whether a worker reached outside its worktree: what its CLI says that it edited elsewhere, and whether the main
//! checkout is another than before. The first is the worker's doing; the second only happened meanwhile.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::assignment::Assignment;
use crate::git::{self, Fingerprint, Repository};

/// As many paths as a record names.
const NAMED_PATHS: usize = 20;

pub struct Outside {
    directory: PathBuf,
    edited: BTreeSet<String>,
}

impl Outside {
    pub fn of(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), edited: BTreeSet::new() }
    }

    /// Takes note of a path that the CLI says it edited.
    pub fn note_edit(&mut self, path: &str) {
        let outside = Path::new(path).is_absolute() && !Path::new(path).starts_with(&self.directory);
        if outside && self.edited.len() < NAMED_PATHS {
            self.edited.insert(path.to_owned());
        }
    }

    pub fn edited(&self) -> Vec<String> {
        self.edited.iter().cloned().collect()
    }
}

/// What is different in the main checkout since before the worktree was made, in words. Blocks.
pub fn main_checkout_changes(assignment: &Assignment) -> Vec<String> {
    let Some(before) = &assignment.main_checkout else { return Vec::new() };
    let repository = Repository::discover(&assignment.directory).ok().flatten();
    match repository.map(|repository| git::fingerprint(&repository)) {
        Some(Ok(after)) => changes(before, &after),
        _ => vec!["it can no longer be read".to_owned()],
    }
}

/// Refs are left out: other workers' branches come and go all the time, and HEAD tells of the one that is checked out.
fn changes(before: &Fingerprint, after: &Fingerprint) -> Vec<String> {
    let changed = before.compare(after);
    let words = [
        (changed.branch, "another branch is checked out"),
        (changed.head, "its HEAD moved"),
        (changed.tree, "its index or files changed"),
        (changed.configuration, "the repository's configuration changed"),
    ];
    words.into_iter().filter(|(changed, _)| *changed).map(|(_, words)| words.to_owned()).collect()
}
