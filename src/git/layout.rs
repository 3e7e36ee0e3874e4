//! The layout of git's files: the folders of a repository and of its linked worktrees, and the names that this program
//! adds to them.
//!
//! This file only reads files and never starts git: the rest of this room builds on it.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use git2::{ObjectType, Oid};

/// Record of a worktree that this program made, in git's folder for the worktree. It is deleted with the worktree.
pub(super) const MADE_FILE: &str = "orchestrator-boss.json";

/// Folder for the clone of a confined worker, in git's folder for its worktree. It remains after the first clone, and
/// marks the worktree as one in which git is always given its folders by name.
pub(super) const CLONE_FOLDER: &str = "orchestrator-clone";

/// Prefix of the refs that keep git from deleting what the clones of workers borrow. They do not keep work.
pub(super) const BORROWED_REFS: &str = "refs/orchestrator/borrowed/";
/// Argument for `git rev-list` that leaves those refs out of the next `--glob`.
pub(super) const NOT_BORROWED: &str = "--exclude=refs/orchestrator/borrowed/*";

/// A worktree that git lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    pub path: PathBuf,
    /// `None` for a bare repository and before the first commit.
    pub head: Option<String>,
    /// `None` when HEAD is detached.
    pub branch: Option<String>,
    pub bare: bool,
    /// The reason given when it was locked, maybe empty.
    pub locked: Option<String>,
    /// True if its folder does not exist.
    pub missing: bool,
}

/// The two folders in which git keeps the data of one worktree.
pub(super) struct Folders {
    /// The worktree's own.
    pub own: PathBuf,
    /// The one that all worktrees of the repository share.
    pub common: PathBuf,
}

/// Finds the folders that git would use for a call in `dir`.
pub(super) fn folders(dir: &Path) -> Option<Folders> {
    let (own, common) = dir.ancestors().find_map(|folder| {
        let entry = folder.join(".git");
        if entry.is_dir() {
            return Some((entry.clone(), entry));
        }
        if let Ok(text) = fs::read_to_string(&entry) {
            let own = folder.join(text.strip_prefix("gitdir:")?.trim());
            let common = fs::read_to_string(own.join("commondir"));
            let common = common.map_or_else(|_| own.clone(), |common| own.join(common.trim()));
            return Some((own, common));
        }
        let is_one = folder.join("HEAD").is_file() && folder.join("objects").is_dir() && folder.join("refs").is_dir();
        is_one.then(|| (folder.to_owned(), folder.to_owned()))
    })?;
    Some(Folders { own: own.canonicalize().ok()?, common: common.canonicalize().ok()? })
}

/// Returns the folders of a linked worktree whose own one is known.
pub(super) fn folders_of(own: &Path) -> Option<Folders> {
    let common = own.join(fs::read_to_string(own.join("commondir")).ok()?.trim());
    Some(Folders { own: own.canonicalize().ok()?, common: common.canonicalize().ok()? })
}

/// Returns the git directory of a linked worktree, which holds its HEAD, index and reflog, even if the worktree's
/// folder is gone. `None` if git has no record of it.
pub(super) fn own_git_dir(common_dir: &Path, worktree: &Path) -> Option<PathBuf> {
    let is_of_worktree = |folder: &PathBuf| {
        worktree_of(folder).is_some_and(|it| it == worktree || it.canonicalize().is_ok_and(|it| it == worktree))
    };
    linked_git_dirs(common_dir).find(is_of_worktree)
}

/// Returns the git directories of all linked worktrees, including half created ones and those whose folders are gone.
pub(super) fn linked_git_dirs(common_dir: &Path) -> impl Iterator<Item = PathBuf> {
    let folders = fs::read_dir(common_dir.join("worktrees")).into_iter().flatten().flatten();
    folders.map(|folder| folder.path())
}

/// Returns git's folder for a worktree in which a worker had a clone. Git must be given it by name: the worktree's
/// `.git` may be the worker's.
pub(super) fn own_records(common_dir: &Path, worktree: &Path) -> Option<PathBuf> {
    let name = worktree.file_name()?.as_encoded_bytes();
    let is_named_so = |folder: &PathBuf| folder.file_name().is_some_and(|it| it.as_encoded_bytes().starts_with(name));
    linked_git_dirs(common_dir)
        .filter(|folder| is_named_so(folder) && folder.join(CLONE_FOLDER).is_dir())
        .find(|folder| worktree_of(folder).is_some_and(|it| it == worktree))
}

/// Returns the root of the linked worktree that this git directory belongs to.
pub(super) fn worktree_of(git_dir: &Path) -> Option<PathBuf> {
    let link = fs::read_to_string(git_dir.join("gitdir")).ok()?;
    // The link may be relative to the git directory.
    let link = git_dir.join(link.trim_end_matches('\n'));
    Some(link.parent().unwrap_or(&link).to_owned())
}

/// Returns the id that stands for "no object", in the length of the repository's ids.
pub(super) fn zero_id(like: &str) -> String {
    "0".repeat(like.len())
}

/// Returns twelve hex digits that identify a repository in file names.
pub(super) fn short_id(common_dir: &Path) -> String {
    let id = Oid::hash_object(ObjectType::Blob, common_dir.as_os_str().as_bytes());
    id.map_or_else(|_| "unnamed".to_owned(), |id| id.to_string()[..12].to_owned())
}
