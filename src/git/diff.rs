//! Shows a worker's changes as text, page by page: committed changes since its base together with uncommitted ones.
//!
//! It runs no external diff program and no text conversion that the user has configured.

use super::checkout::{branch_commit, resolve_commit};
use super::command::{CommandError, Git};
use super::index::{IndexError, TemporaryIndex, add};
use super::repository::{Repository, RepositoryError};
use super::status::{Untracked, status};
use super::trust::Checkout;
use crate::mission::hint::{Hint, Hinted};

#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    #[error(transparent)]
    Git(#[from] CommandError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("cannot show the changes on branch {branch}: {}", deleted(last.as_deref()))]
    BranchDeleted { branch: String, last: Option<String> },
}

fn deleted(last: Option<&str>) -> String {
    match last {
        Some(last) => format!("it was deleted, and its last commit {last} no longer exists"),
        None => "it was deleted".to_owned(),
    }
}

impl Hinted for DiffError {
    fn hints(&self) -> Vec<Hint> {
        match self {
            Self::Git(error) => error.hints(),
            Self::Repository(error) => error.hints(),
            Self::Index(error) => error.hints(),
            Self::BranchDeleted { .. } => Vec::new(),
        }
    }
}

/// A part of a diff. Bytes that are not UTF-8 are shown as replacement characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiffPage {
    pub text: String,
    /// Byte offset of the next page; `None` at the end.
    pub next_offset: Option<usize>,
}

/// Returns at most `max_bytes` from `offset` on of the diff from `base` to the files in `worktree`, including untracked
/// ones.
pub fn diff(worktree: &Checkout, base: &str, offset: usize, max_bytes: usize) -> Result<DiffPage, DiffError> {
    let (base, index) = with_untracked(worktree, base)?;
    Ok(page(shown(index.git()).args([&base, "--"]), offset, max_bytes)?)
}

/// Format of a diff for a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiffStyle {
    pub colour: bool,
    /// Shows only the size of each file's change, in lines of this many columns.
    pub stat: Option<usize>,
}

/// Writes the whole of [`diff`] to `out` while git prints it.
pub fn show_diff(
    worktree: &Checkout,
    base: &str,
    style: DiffStyle,
    out: impl std::io::Write + Send + 'static,
) -> Result<(), DiffError> {
    let (base, index) = with_untracked(worktree, base)?;
    Ok(style.apply(index.git()).args([&base, "--"]).unlimited().pass_on(out)?)
}

/// Writes the whole of [`commit_diff`] to `out`.
pub fn show_commit_diff(
    repo: &Repository,
    tip: &str,
    base: &str,
    style: DiffStyle,
    out: impl std::io::Write + Send + 'static,
) -> Result<(), DiffError> {
    let (base, tip) = (repo.resolve(base)?, repo.resolve(tip)?);
    Ok(style.apply(repo.read()).args([&base, &tip, "--"]).unlimited().pass_on(out)?)
}

impl DiffStyle {
    fn apply(self, git: Git) -> Git {
        let git = shown(git).args([if self.colour { "--color=always" } else { "--no-color" }]);
        match self.stat {
            Some(columns) => git.args([format!("--stat={columns}")]),
            None => git,
        }
    }
}

/// Returns the commit that `base` names, and an index in which untracked files appear.
fn with_untracked(worktree: &Checkout, base: &str) -> Result<(String, TemporaryIndex), DiffError> {
    let base =
        resolve_commit(worktree, base)?.ok_or_else(|| RepositoryError::UnknownCommit { name: base.to_owned() })?;
    let index = TemporaryIndex::copy_of(worktree)?;
    let entries = status(worktree, Untracked::Files)?.entries;
    let untracked = entries.iter().filter(|e| e.untracked && !e.is_repository());
    // Makes them appear in a diff without storing them.
    let announce = ["--intent-to-add", "--sparse"];
    add(index.git(), &announce, untracked.map(|e| e.path.as_path()))?;
    Ok((base, index))
}

/// The commit up to which a branch shows its changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BranchTip {
    pub commit: String,
    /// True if the branch no longer exists, so that this is its last known commit.
    pub is_deleted: bool,
}

/// Returns the tip of a branch or, if it was deleted, `last`, its last known commit, as long as git has that.
pub fn branch_tip(repo: &Repository, branch: &str, last: Option<&str>) -> Result<BranchTip, DiffError> {
    let here = repo.checkout();
    if let Some(commit) = branch_commit(&here, branch)? {
        return Ok(BranchTip { commit, is_deleted: false });
    }
    let known = last.map_or(Ok(None), |last| resolve_commit(&here, last))?;
    let gone = || DiffError::BranchDeleted { branch: branch.to_owned(), last: last.map(str::to_owned) };
    known.map(|commit| BranchTip { commit, is_deleted: true }).ok_or_else(gone)
}

/// Returns a page of the diff from `base` to a commit without a worktree.
pub fn commit_diff(
    repo: &Repository,
    tip: &str,
    base: &str,
    offset: usize,
    max_bytes: usize,
) -> Result<DiffPage, DiffError> {
    let (base, tip) = (repo.resolve(base)?, repo.resolve(tip)?);
    Ok(page(shown(repo.read()).args([&base, &tip, "--"]), offset, max_bytes)?)
}

fn shown(git: Git) -> Git {
    git.args(["diff", "--no-color", "--no-ext-diff", "--no-textconv", "--find-renames", "--submodule=short"])
}

fn page(git: Git, offset: usize, max_bytes: usize) -> Result<DiffPage, CommandError> {
    let page = git.page(offset as u64, max_bytes)?;
    let mut bytes = page.bytes;
    if page.more {
        cut_at_character(&mut bytes);
    }
    Ok(DiffPage {
        next_offset: page.more.then_some(offset + bytes.len()),
        text: String::from_utf8_lossy(&bytes).into_owned(),
    })
}

/// Removes an incomplete character from the end. A page that would become empty is returned unchanged.
fn cut_at_character(bytes: &mut Vec<u8>) {
    let incomplete = match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => return,
    };
    if incomplete > 0 {
        bytes.truncate(incomplete);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::testing::{Fixture, at};

    #[test]
    fn pages_add_up_without_breaking_characters() {
        let fixture = Fixture::new();
        let base = fixture.git(&["rev-parse", "HEAD"]);
        fixture.commit("committed.txt", "ä€😀 committed\n");
        fixture.write("readme.txt", "modified ä€😀\n");
        fixture.write("untracked.txt", "ä€😀 untracked\n");
        let whole = diff(&at(fixture.root()), &base, 0, 1_000_000).unwrap();
        assert_eq!(whole.next_offset, None);
        for part in ["+ä€😀 committed", "+modified ä€😀", "+ä€😀 untracked"] {
            assert!(whole.text.contains(part), "{part} in {}", whole.text);
        }
        let (mut text, mut offset) = (String::new(), Some(0));
        while let Some(from) = offset {
            let page = diff(&at(fixture.root()), &base, from, 100).unwrap();
            text.push_str(&page.text);
            offset = page.next_offset;
        }
        assert_eq!(text, whole.text);
        assert_eq!(fixture.git(&["status", "--porcelain"]), " M readme.txt\n?? untracked.txt");
    }
}
