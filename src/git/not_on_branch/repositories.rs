//! Repositories inside the worktree, and submodule links whose commits may exist nowhere else.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{UNCOMMITTED, WorkScan, names, part, shown};
use crate::git::checkout::resolve_commit;
use crate::git::command::{CommandError, Git};
use crate::git::index::IndexError;
use crate::git::nested::{bare_repositories, has_commit, is_own_repository, unpublished_commits};
use crate::git::records::{LINK, changed, staged};
use crate::git::repository::Repository;
use crate::git::status::{Untracked, status};
use crate::git::trust::Checkout;
use crate::mission::outcome::NotOnBranch;
use crate::mission::words::count;

impl WorkScan<'_> {
    /// Lists nested repositories, including submodules and worktrees.
    pub(super) fn repositories(&self) -> Result<Vec<NotOnBranch>, IndexError> {
        let worktree = &self.examined.checkout();
        let mut parts = Vec::new();
        for path in self.inside.iter().map(|it| &it.path) {
            let left = status(&worktree.at(path), Untracked::Files)?;
            if !left.entries.is_empty() {
                let files: Vec<String> = left.entries.iter().map(|entry| shown(&entry.path)).collect();
                let what = format!("{} in a nested worktree: {}", count(files.len(), UNCOMMITTED), names(&files));
                let how = format!("commit them there, then merge that commit into {}", self.branch);
                parts.push(part(what, shown(path), how));
            }
        }
        let bare = bare_repositories(worktree, &self.status.entries);
        let untracked = self.status.entries.iter().filter(|entry| entry.is_repository()).map(|entry| &entry.path);
        let others = untracked
            .chain(&bare)
            .map(|path| worktree.join(path))
            .filter(|path| !self.inside.iter().any(|it| path.starts_with(&it.path)));
        for path in others {
            let how = format!(
                "push it to a remote of its own, or move its git folder away and commit its files on branch {}",
                self.branch
            );
            parts.push(part("a nested repository, with all of its content".to_owned(), shown(&path), how));
        }
        let index = folders_and_links(worktree)?;
        for folder in index.folders.iter().map(|folder| worktree.at(folder)) {
            if is_own_repository(&folder)? && resolve_commit(&folder, "HEAD")?.is_some() {
                let what = "the commits of a nested repository, whose files are also tracked here".to_owned();
                parts.push(part(what, shown(&folder), "push them to a remote of its own".to_owned()));
            }
        }
        for link in &index.links {
            parts.extend(self.submodule(link)?);
        }
        Ok(parts)
    }

    fn submodule(&self, link: &Path) -> Result<Option<NotOnBranch>, CommandError> {
        let path = self.examined.checkout().at(link);
        if !is_own_repository(&path)? {
            return Ok(None);
        }
        let entry = self.status.entries.iter().find(|entry| entry.path == *link);
        let dirty = entry.and_then(|entry| entry.submodule).is_some_and(|submodule| submodule.dirty);
        let head = resolve_commit(&path, "HEAD")?;
        let unpublished = unpublished_commits(&path, head.as_deref())?;
        let what = match (unpublished.is_empty(), dirty) {
            (true, false) => return Ok(None),
            (true, true) => "uncommitted files of a submodule",
            (false, false) => "commits of a submodule that exist nowhere else",
            (false, true) => "commits of a submodule that exist nowhere else, and its uncommitted files",
        };
        let how = format!("commit and push them there; then commit the submodule on branch {}", self.branch);
        Ok(Some(part(what.to_owned(), shown(&path), how)))
    }

    /// Lists new submodule links on the branch whose commit is not known to exist outside this worktree.
    pub(super) fn links(&self) -> Result<Vec<NotOnBranch>, IndexError> {
        let Some(tip) = &self.tip else { return Ok(Vec::new()) };
        let mut parts = Vec::new();
        for (path, commit) in new_links(self.examined.repo, self.examined.base, tip)? {
            let main = self.examined.repo.main_worktree.as_ref().map(|main| self.examined.repo.at(main.join(&path)));
            if main.is_some_and(|main| has_commit(&main, &commit)) {
                continue;
            }
            let here = self.examined.checkout().at(&path);
            let is_here = has_commit(&here, &commit);
            if is_here && unpublished_commits(&here, Some(&commit))?.is_empty() {
                continue;
            }
            let what =
                format!("the content of {}: branch {} only links to its commit {commit}", shown(&path), self.branch);
            let how = if is_here {
                "push that commit to the submodule's remote; or, if it is not meant to be a submodule, `git rm --cached` it, move its git folder away, and commit its files"
            } else {
                "no repository here has that commit: have it pushed to the submodule's remote, or remove the link"
            };
            parts.push(part(what, shown(&here), how.to_owned()));
        }
        Ok(parts)
    }
}

fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// Two kinds of places in the index: folders with tracked files that contain a `.git`, and links to other repositories.
#[derive(Default)]
struct Index {
    folders: BTreeSet<PathBuf>,
    links: Vec<PathBuf>,
}

fn folders_and_links(worktree: &Checkout) -> Result<Index, CommandError> {
    let mut found = Index::default();
    let mut seen = HashSet::new();
    for (path, is_link) in tracked(worktree)? {
        for folder in path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()) {
            if !seen.insert(folder.to_owned()) {
                break;
            }
            if worktree.join(folder).join(".git").symlink_metadata().is_ok() {
                found.folders.insert(folder.to_owned());
            }
        }
        if is_link {
            found.links.push(path);
        }
    }
    Ok(found)
}

fn tracked(worktree: &Checkout) -> Result<Vec<(PathBuf, bool)>, CommandError> {
    if let Ok(index) = git2::Repository::open(worktree).and_then(|opened| opened.index()) {
        return Ok(index
            .iter()
            .map(|entry| (path_of(&entry.path), entry.mode == u32::from(git2::FileMode::Commit)))
            .collect());
    }
    let listed = Git::read(worktree).args(["ls-files", "--stage", "-z"]).run()?;
    Ok(staged(&listed).map(|file| (file.path.to_owned(), file.mode == LINK)).collect())
}

/// Returns the submodule links that `tip` has and `base` lacks or has with another commit.
fn new_links(repo: &Repository, base: &str, tip: &str) -> Result<Vec<(PathBuf, String)>, CommandError> {
    if base == tip {
        return Ok(Vec::new());
    }
    if let Some(found) = new_links_by_libgit2(repo, base, tip) {
        return Ok(found);
    }
    let diff = ["diff-tree", "-r", "-z", "--no-renames", "--raw", "--no-abbrev", base, tip];
    let answer = repo.read().args(diff).run()?;
    let links = changed(&answer).filter(|it| it.new_mode == LINK);
    Ok(links.map(|link| (link.path.to_owned(), link.new_id.to_owned())).collect())
}

fn new_links_by_libgit2(repo: &Repository, base: &str, tip: &str) -> Option<Vec<(PathBuf, String)>> {
    let opened = git2::Repository::open(repo.root()).ok()?;
    let tree = |id: &str| opened.find_commit(git2::Oid::from_str(id).ok()?).ok()?.tree().ok();
    let diff = opened.diff_tree_to_tree(Some(&tree(base)?), Some(&tree(tip)?), None).ok()?;
    let links = diff.deltas().filter(|delta| delta.new_file().mode() == git2::FileMode::Commit);
    Some(
        links
            .map(|delta| {
                (path_of(delta.new_file().path_bytes().unwrap_or_default()), delta.new_file().id().to_string())
            })
            .collect(),
    )
}
