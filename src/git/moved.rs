//! Worktrees whose repository was moved: git's record says where they lay, and their folders lie elsewhere.

use std::fs;
use std::path::{Path, PathBuf};

use super::loose::own_git_dir;
use super::repository::Repository;
use super::worktree::list;

/// As many folders beside the repository are searched.
const MOST_NEIGHBOURS: usize = 1_000;

/// Where the folder of a worktree lies now that is not at `path` any more, if it lies at the same place in the repository,
/// or in a folder beside it. A folder counts by its `.git` file, which names git's record of it.
pub(super) fn moved_to(repo: &Repository, path: &Path) -> Option<PathBuf> {
    let record = own_git_dir(repo, path);
    let id = record.as_deref().unwrap_or(path).file_name()?;
    let known = list(repo).ok()?;
    let is_it = |folder: &PathBuf| {
        folder != path && !known.iter().any(|it| it.path == *folder && !it.missing) && names(folder, id.as_ref())
    };
    candidates(repo, path).find(is_it)
}

/// The ends of the old path, joined to the repository's folder, to the one around it, and to those beside it.
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

/// Whether its `.git` file leads to a record of this name.
fn names(folder: &Path, id: &Path) -> bool {
    let link = fs::read_to_string(folder.join(".git")).ok();
    let record = link.as_deref().and_then(|link| link.strip_prefix("gitdir: ")).map(|it| Path::new(it.trim_end()));
    record.is_some_and(|it| it.ends_with(Path::new("worktrees").join(id)))
}
