//! Worktrees that were moved, alone or with their repository: git's record has the old path, but the folder is
//! elsewhere.

use std::fs;
use std::path::{Path, PathBuf};

use super::layout::own_git_dir;
use super::list::list;
use super::repository::Repository;

/// Maximum number of folders searched beside the repository.
const MOST_NEIGHBOURS: usize = 1_000;

/// Returns the new path of a worktree that is no longer at `path`. The search covers the repository, its parent folder,
/// and the folders beside it. A folder matches if its `.git` file names git's record of the worktree, or the former
/// path of that record.
pub(super) fn moved_to(repo: &Repository, path: &Path) -> Option<PathBuf> {
    let record = own_git_dir(&repo.common_dir, path)?;
    let known = list(repo).ok()?;
    let is_it = |folder: &PathBuf| {
        folder != path && !known.iter().any(|it| it.path == *folder && !it.missing) && names(folder, &record)
    };
    candidates(repo, path).find(is_it)
}

/// Returns suffixes of the old path, joined to the repository's folder, to its parent, and to the folders beside it.
fn candidates(repo: &Repository, path: &Path) -> impl Iterator<Item = PathBuf> {
    let root = repo.root().to_owned();
    let around = root.parent().unwrap_or(&root).to_owned();
    let beside = fs::read_dir(&around).into_iter().flatten().flatten().take(MOST_NEIGHBOURS).map(|it| it.path());
    let parts: Vec<_> = path.iter().skip(1).collect();
    let ends: Vec<PathBuf> = (0..parts.len()).rev().map(|at| parts[at..].iter().collect()).collect();
    let name = ends.first().cloned().unwrap_or_default();
    let within = ends.into_iter().flat_map(move |end| [root.join(&end), around.join(end)]);
    within.chain(beside.map(move |folder| folder.join(&name)))
}

/// Returns whether the folder's `.git` file names this record. A link that leads nowhere may date from before a move of
/// the repository, so only the record's id is compared. One to a different record is that of another repository.
fn names(folder: &Path, record: &Path) -> bool {
    let Ok(link) = fs::read_to_string(folder.join(".git")) else { return false };
    let Some(named) = link.strip_prefix("gitdir: ").map(|it| folder.join(it.trim_end())) else { return false };
    match named.canonicalize() {
        Ok(named) => record.canonicalize().is_ok_and(|record| record == named),
        Err(_) => record.file_name().is_some_and(|id| named.ends_with(Path::new("worktrees").join(id))),
    }
}
