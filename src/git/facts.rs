//! Counts a worker's changes: commits, files and lines since its base, and uncommitted files. All of it comes from git,
//! never from the worker's own report.
//!
//! Commits are read with libgit2. For repositories that it cannot read (sha256, reftable, partial clones), the git
//! program gives the same answer. Uncommitted files always come from the git program, which alone applies the user's
//! filters.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::checkout::{branch_commit, resolve_commit};
use super::command::{CommandError, Git};
use super::repository::RepositoryError;
use super::status::{Status, Untracked, status};
use super::trust::Checkout;

/// Maximum number of files listed. The totals count all of them.
const MOST_FILES: usize = 200;

/// Changes of a worktree or branch since its base commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BranchChanges {
    /// `None` when HEAD is detached.
    pub branch: Option<String>,
    pub head: String,
    pub base: String,
    /// Number of commits reachable from `head` and not from `base`.
    pub commits: usize,
    /// Changed files between `base` and `head`, up to a limit.
    pub files: Vec<FileChange>,
    pub files_changed: usize,
    pub insertions: usize,
    pub deletions: usize,
    /// Number of files that differ from `head`, including untracked ones, without ignored ones.
    pub uncommitted: usize,
}

/// A changed file with its line counts, which are zero for binary files. A renamed file has its new name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChange {
    pub path: String,
    pub insertions: usize,
    pub deletions: usize,
}

pub fn changes(worktree: &Checkout, base: &str) -> Result<BranchChanges, RepositoryError> {
    changes_of(worktree, base, &status(worktree, Untracked::Files)?)
}

/// Returns the same as [`changes`] for a status that the caller has just read.
pub fn changes_of(worktree: &Checkout, base: &str, status: &Status) -> Result<BranchChanges, RepositoryError> {
    let unknown = |name: &str| RepositoryError::UnknownCommit { name: name.to_owned() };
    // The readers below fail if a full id does not exist.
    let base = if is_full_id(base) {
        base.to_owned()
    } else {
        resolve_commit(worktree, base)?.ok_or_else(|| unknown(base))?
    };
    let head = status.head.clone().ok_or_else(|| unknown("HEAD"))?;
    let committed = match committed_by_libgit2(worktree, &base, &head) {
        Ok(committed) => committed,
        Err(reason) => {
            tracing::debug!(%reason, "libgit2 cannot read here, the git program does");
            committed_by_git(worktree, &base, &head)?
        }
    };
    Ok(counted(committed, status.branch.clone(), base, head, status.entries.len()))
}

pub(super) fn is_full_id(name: &str) -> bool {
    matches!(name.len(), 40 | 64) && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Returns the committed changes of a branch without a worktree. `repository` is its folder or its git directory.
pub fn branch_changes(repository: &Checkout, branch: &str, base: &str) -> Result<BranchChanges, RepositoryError> {
    let unknown = |name: &str| RepositoryError::UnknownCommit { name: name.to_owned() };
    let base = resolve_commit(repository, base)?.ok_or_else(|| unknown(base))?;
    let head = branch_commit(repository, branch)?.ok_or_else(|| unknown(branch))?;
    let committed = committed_by_git(repository, &base, &head)?;
    Ok(counted(committed, Some(branch.to_owned()), base, head, 0))
}

/// Returns the changes of the commits that are reachable from `head` and not from `without`, with the files that differ
/// from `start`. All of these are full ids.
pub(super) fn changes_without(
    repository: &Checkout,
    head: &str,
    start: &str,
    without: &[&str],
) -> Result<BranchChanges, CommandError> {
    let commits = count(repository, head, without)?;
    let committed = CommitStats { commits, files: numstat(repository, start, head)? };
    Ok(counted(committed, None, start.to_owned(), head.to_owned(), 0))
}

/// Returns the files that differ between two commits, which are given as full ids.
pub fn file_changes(repository: &Checkout, base: &str, head: &str) -> Result<Vec<FileChange>, RepositoryError> {
    if let Some(name) = [base, head].iter().find(|name| !is_full_id(name)) {
        return Err(RepositoryError::UnknownCommit { name: (*name).to_owned() });
    }
    let mut files = numstat(repository, base, head)?;
    files.truncate(MOST_FILES);
    Ok(files)
}

fn counted(
    committed: CommitStats,
    branch: Option<String>,
    base: String,
    head: String,
    uncommitted: usize,
) -> BranchChanges {
    let mut files = committed.files;
    let (files_changed, insertions, deletions) =
        (files.len(), files.iter().map(|file| file.insertions).sum(), files.iter().map(|file| file.deletions).sum());
    files.truncate(MOST_FILES);
    BranchChanges {
        branch,
        commits: committed.commits,
        files,
        files_changed,
        insertions,
        deletions,
        uncommitted,
        head,
        base,
    }
}

#[derive(Debug, PartialEq, Eq)]
struct CommitStats {
    commits: usize,
    files: Vec<FileChange>,
}

fn committed_by_libgit2(worktree: &Path, base: &str, head: &str) -> Result<CommitStats, git2::Error> {
    let repository = git2::Repository::open(worktree)?;
    let (base, head) = (git2::Oid::from_str(base)?, git2::Oid::from_str(head)?);
    let tree = |id| repository.find_commit(id)?.tree();
    let mut diff = repository.diff_tree_to_tree(Some(&tree(base)?), Some(&tree(head)?), None)?;
    diff.find_similar(Some(git2::DiffFindOptions::new().renames(true)))?;
    let mut files = Vec::new();
    for (index, delta) in diff.deltas().enumerate() {
        let (_, insertions, deletions) = match git2::Patch::from_diff(&diff, index)? {
            Some(patch) => patch.line_stats()?,
            None => (0, 0, 0),
        };
        let path = delta.new_file().path_bytes().unwrap_or_default();
        files.push(FileChange { path: String::from_utf8_lossy(path).into_owned(), insertions, deletions });
    }
    let (commits, _) = repository.graph_ahead_behind(head, base)?;
    Ok(CommitStats { commits, files })
}

fn committed_by_git(worktree: &Checkout, base: &str, head: &str) -> Result<CommitStats, CommandError> {
    Ok(CommitStats { commits: count(worktree, head, &[base])?, files: numstat(worktree, base, head)? })
}

fn count(dir: &Checkout, head: &str, without: &[&str]) -> Result<usize, CommandError> {
    let commits = Git::read(dir).args(["rev-list", "--count", head, "--not"]).args(without).text()?;
    Ok(commits.parse().unwrap_or(0))
}

fn numstat(dir: &Checkout, base: &str, head: &str) -> Result<Vec<FileChange>, CommandError> {
    let numbers = Git::read(dir)
        .args(["diff", "--numstat", "-z", "--find-renames"])
        .args(["--no-ext-diff", "--no-textconv", base, head])
        .run()?;
    Ok(parse_numstat(&numbers))
}

/// Parses records of the form `<insertions> TAB <deletions> TAB <path>`. After a rename's empty path, the old and new
/// path follow as records. Binary files have `-` instead of numbers.
fn parse_numstat(records: &[u8]) -> Vec<FileChange> {
    let text = String::from_utf8_lossy(records);
    let mut records = text.split('\0');
    let mut files = Vec::new();
    while let Some(record) = records.next() {
        let mut fields = record.splitn(3, '\t');
        let (Some(insertions), Some(deletions), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let path = if path.is_empty() { records.nth(1).unwrap_or_default() } else { path };
        files.push(FileChange {
            path: path.to_owned(),
            insertions: insertions.parse().unwrap_or(0),
            deletions: deletions.parse().unwrap_or(0),
        });
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::testing::{Fixture, at, git};
    use std::fs;

    fn work(fixture: &Fixture) -> String {
        let lines: String = (0..50).map(|n| format!("line {n}\n")).collect();
        fixture.write("old name.txt", &lines);
        fixture.write("gone.txt", "1\n2\n");
        let base = fixture.commit("blob.bin", "a\0b");
        fixture.git(&["mv", "old name.txt", "new name.txt"]);
        fixture.write("new name.txt", &format!("{lines}one more\n"));
        fs::remove_file(fixture.root().join("gone.txt")).unwrap();
        fixture.commit("blob.bin", "a\0c");
        fixture.commit("readme.txt", "hello\nworld\n");
        base
    }

    #[test]
    fn both_readers_give_the_same_answer() {
        let fixture = Fixture::new();
        let base = work(&fixture);
        let head = fixture.git(&["rev-parse", "HEAD"]);
        let mut fast = committed_by_libgit2(fixture.root(), &base, &head).unwrap();
        let mut plain = committed_by_git(&at(fixture.root()), &base, &head).unwrap();
        fast.files.sort_by(|a, b| a.path.cmp(&b.path));
        plain.files.sort_by(|a, b| a.path.cmp(&b.path));
        assert_eq!(fast, plain);
        let change = |path: &str, insertions, deletions| FileChange { path: path.to_owned(), insertions, deletions };
        let expected = [
            change("blob.bin", 0, 0),
            change("gone.txt", 0, 2),
            change("new name.txt", 1, 0),
            change("readme.txt", 1, 0),
        ];
        assert_eq!((fast.commits, fast.files.as_slice()), (2, &expected[..]));
    }

    #[test]
    fn committed_and_uncommitted_changes_are_counted_apart() {
        let fixture = Fixture::new();
        let base = work(&fixture);
        fixture.write("readme.txt", "changed\n");
        fixture.write("folder/untracked.txt", "x\n");
        let found = changes(&at(fixture.root()), &base).unwrap();
        assert_eq!(found.branch.as_deref(), Some("main"));
        assert_eq!((found.files_changed, found.insertions, found.deletions), (4, 2, 2));
        assert_eq!((found.commits, found.uncommitted), (2, 2));
    }

    #[test]
    fn git_reads_what_libgit2_cannot_open() {
        for option in ["--object-format=sha256", "--ref-format=reftable"] {
            let fixture = Fixture::empty(&[option]);
            let base = fixture.commit("a.txt", "1\n");
            let head = fixture.commit("a.txt", "1\n2\n");
            let dir = fixture.root();
            assert!(committed_by_libgit2(dir, &base, &head).is_err(), "{option}");
            let found = changes(&at(dir), &base).unwrap();
            assert_eq!((found.commits, found.insertions), (1, 1), "{option}");
            assert_eq!(found.head, git(dir, &["rev-parse", "HEAD"]));
        }
    }
}
