//! Commits the uncommitted changes of a worker to its branch, so that a result is always a commit.
//!
//! This applies only to worktrees that this program created. No hook runs and nothing is signed, as both could prompt.
//! A commit that would be misleading is an error: with conflicts, in the middle of a rebase, or on no branch.
//! [`super::not_on_branch()`] then lists the uncommitted changes.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::checkout::{git_dir, resolve_commit};
use super::command::{CommandError, Git};
use super::identity::{CommitIdentity, commit_with};
use super::include::Copied;
use super::index::stage;
use super::nested::{bare_repositories, is_own_repository, unpublished_commits};
use super::status::{
    Status, StatusEntry, Untracked, operation_in_progress_in, status, status_with_ignored, waits_for_its_commit,
};
use super::trust::Checkout;
use crate::mission::hint::{Hint, Hinted};

/// Maximum number of files that git may refuse to stage. More of them indicate a different problem, and the call fails.
const MOST_REFUSED: usize = 20;

#[derive(Debug, thiserror::Error)]
pub enum UncommittedError {
    #[error(transparent)]
    Git(#[from] CommandError),
    #[error("cannot commit the uncommitted changes in {}: a {operation} is not finished there", worktree.display())]
    InProgress { worktree: PathBuf, operation: &'static str },
    #[error("cannot commit the uncommitted changes in {}: there are unresolved conflicts", worktree.display())]
    Conflicts { worktree: PathBuf },
    #[error("cannot commit the uncommitted changes in {}: its HEAD is on no branch", worktree.display())]
    Detached { worktree: PathBuf },
    #[error("cannot commit the uncommitted changes in {}: its branch {branch} has no commit", worktree.display())]
    Unborn { worktree: PathBuf, branch: String },
}

impl Hinted for UncommittedError {
    fn hints(&self) -> Vec<Hint> {
        match self {
            Self::Git(error) => error.hints(),
            Self::InProgress { .. } | Self::Conflicts { .. } | Self::Detached { .. } | Self::Unborn { .. } => {
                Vec::new()
            }
        }
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// The newest commit; `None` if there was nothing to commit.
    pub commit: Option<String>,
    /// Number of files committed, over all commits of the call.
    pub files: usize,
    /// Number of status entries that are still uncommitted, without copies that this program made.
    pub still_uncommitted: usize,
    /// The first reason why git refused to stage a file.
    pub refused: Option<String>,
    /// The status after the commit, if it is certain without asking git again.
    pub status: Option<Status>,
}

/// Returns the uncommitted changes of a worktree, with every untracked file.
pub fn uncommitted(worktree: &Checkout) -> Result<Status, CommandError> {
    status(worktree, Untracked::Files)
}

/// Returns the tracked files that differ from HEAD.
pub fn changed_tracked_files(worktree: &Checkout) -> Result<Vec<PathBuf>, CommandError> {
    Ok(status(worktree, Untracked::Omitted)?.entries.into_iter().map(|entry| entry.path).collect())
}

/// Returns the uncommitted changes of a worktree for [`commit_uncommitted`], and the ignored files.
pub fn uncommitted_and_ignored(worktree: &Checkout) -> Result<Status, CommandError> {
    status_with_ignored(worktree)
}

/// Commits everything that git does not ignore. The exceptions are `copies` (a worker may have changed the ignore
/// rules), nested repositories, and submodules with commits that exist nowhere else.
///
/// Staged content that was changed or deleted afterwards gets a separate commit first, as it is stored nowhere else.
/// The commit's identity is `own`, else the user's, else `fallback`.
///
/// A merge, cherry-pick or revert that lacks only its commit is committed too. Git then reports that nothing else
/// remains, and its resolutions are stored nowhere else. `left` is a recent result of [`uncommitted_and_ignored`].
pub fn commit_uncommitted(
    worktree: &Checkout,
    left: Status,
    message: &str,
    fallback: &CommitIdentity,
    own: Option<&CommitIdentity>,
    copies: &[Copied],
) -> Result<Committed, UncommittedError> {
    let git_dir = git_dir(worktree)?;
    let operation = operation_in_progress_in(&git_dir);
    let (head, branch, before) = (left.head.clone(), left.branch.clone(), left.clone());
    let mut work = ToCommit::of(worktree, left, copies)?;
    if work.entries.is_empty() && operation.is_none() {
        return Ok(Committed { still_uncommitted: work.skipped, ..Committed::default() });
    }
    let place = || worktree.to_path_buf();
    let mut committed = Committed::default();
    let mut files: HashSet<PathBuf> = HashSet::new();
    if let Some(operation) = operation {
        let can_end = branch.is_some()
            && waits_for_its_commit(&git_dir)
            && !work.has_conflicts()
            && !has_conflict_markers(worktree)?;
        if !can_end {
            if work.entries.is_empty() && operation == "bisect" {
                return Ok(Committed { still_uncommitted: work.skipped, ..Committed::default() });
            }
            return Err(UncommittedError::InProgress { worktree: place(), operation });
        }
        files.extend(work.entries.iter().filter(|entry| entry.staged).map(|entry| entry.path.clone()));
        committed.files = files.len();
        committed.commit = finish_operation(worktree, fallback, own)?;
        work = ToCommit::of(worktree, status(worktree, Untracked::Files)?, copies)?;
    }
    committed.still_uncommitted = work.skipped;
    if work.entries.is_empty() {
        return Ok(committed);
    }
    match (&head, branch) {
        _ if work.has_conflicts() => return Err(UncommittedError::Conflicts { worktree: place() }),
        (_, None) => return Err(UncommittedError::Detached { worktree: place() }),
        (None, Some(branch)) => return Err(UncommittedError::Unborn { worktree: place(), branch }),
        (Some(_), Some(_)) => {}
    }
    if work.entries.iter().any(|entry| entry.staged && entry.in_worktree) {
        committed.commit = commit_staged(worktree, message, fallback, own)?.or(committed.commit);
    }
    let refused = stage_accepted(worktree, &work.entries)?;
    let is_refused = |entry: &&StatusEntry| refused.iter().any(|(path, _)| *path == entry.path);
    files.extend(work.entries.iter().filter(|entry| !is_refused(entry)).map(|entry| entry.path.clone()));
    committed.files = files.len();
    committed.still_uncommitted += refused.len();
    committed.refused = refused.into_iter().next().map(|(_, why)| why);
    committed.commit = commit_staged(worktree, message, fallback, own)?.or(committed.commit);
    if operation.is_none() && committed.refused.is_none() {
        committed.status = committed.commit.as_ref().and_then(|commit| after(worktree, before, commit, &work.entries));
    }
    Ok(committed)
}

/// Returns the status after these entries were committed. `None` unless libgit2 confirms that HEAD, the index and the
/// files agree.
fn after(worktree: &Path, mut before: Status, commit: &str, committed: &[StatusEntry]) -> Option<Status> {
    let opened = git2::Repository::open(worktree).ok()?;
    let head = opened.head().ok()?.peel_to_commit().ok()?;
    let mut index = opened.index().ok()?;
    // Git has just written this tree and noted its id in the index.
    let is_committed = head.id().to_string() == commit && index.write_tree().ok()? == head.tree_id();
    let is_as_staged = |entry: &StatusEntry| {
        let found = worktree.join(&entry.path).symlink_metadata();
        match (index.get_path(&entry.path, 0), found) {
            (Some(staged), Ok(file)) => {
                let staged_at = (i64::from(staged.mtime.seconds()), i64::from(staged.mtime.nanoseconds()));
                staged.file_size == file.len() as u32 && staged_at == (file.mtime(), file.mtime_nsec())
            }
            // The second kind occurs if a parent folder is a file now.
            (None, Err(error)) => matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
            _ => false,
        }
    };
    let is_certain = |entry: &StatusEntry| entry.submodule.is_none() && is_as_staged(entry);
    if !is_committed || before.complaint.is_some() || !committed.iter().all(is_certain) {
        return None;
    }
    before.head = Some(commit.to_owned());
    let paths: HashSet<&PathBuf> = committed.iter().map(|entry| &entry.path).collect();
    before.keep_entries(|entry| !paths.contains(&entry.path));
    Some(before)
}

/// The entries of a status that are to be committed.
struct ToCommit {
    entries: Vec<StatusEntry>,
    skipped: usize,
}

impl ToCommit {
    fn of(worktree: &Checkout, status: Status, copies: &[Copied]) -> Result<Self, CommandError> {
        let is_copy = |path: &Path| copies.iter().any(|copy| Path::new(&copy.path) == path);
        let bare = bare_repositories(worktree, &status.entries);
        let (mut entries, mut skipped) = (Vec::new(), 0);
        for entry in status.entries {
            if entry.untracked && is_copy(&entry.path) {
                continue;
            }
            let in_bare = bare.iter().any(|folder| entry.path.starts_with(folder));
            let is_own = match entry.submodule {
                _ if entry.untracked => !entry.is_repository() && !in_bare,
                None => true,
                Some(_) if entry.staged => true,
                Some(submodule) => submodule.moved && !is_nowhere_else(&worktree.at(&entry.path))?,
            };
            // A submodule that is committed at its new commit can still have uncommitted files of its own.
            skipped += usize::from(!is_own || entry.submodule.is_some_and(|submodule| submodule.dirty));
            if is_own {
                entries.push(entry);
            }
        }
        Ok(Self { entries, skipped })
    }

    fn has_conflicts(&self) -> bool {
        self.entries.iter().any(|entry| entry.in_conflict)
    }
}

/// Returns whether a submodule has commits that exist nowhere else and would be lost with the worktree.
fn is_nowhere_else(submodule: &Checkout) -> Result<bool, CommandError> {
    if !is_own_repository(submodule)? {
        return Ok(false);
    }
    let head = resolve_commit(submodule, "HEAD")?;
    Ok(!unpublished_commits(submodule, head.as_deref())?.is_empty())
}

/// Returns whether the staged changes contain conflict markers.
fn has_conflict_markers(worktree: &Checkout) -> Result<bool, CommandError> {
    let check = ["diff", "--no-ext-diff", "--no-textconv", "--cached", "--check", "--ignore-submodules"];
    let output = Git::read(worktree).args(check).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).contains("leftover conflict marker"))
}

/// Commits as `git commit` would, with the message and the author that the operation has prepared.
fn finish_operation(
    worktree: &Checkout,
    fallback: &CommitIdentity,
    own: Option<&CommitIdentity>,
) -> Result<Option<String>, CommandError> {
    commit_with(worktree, fallback, |git| {
        let git = own.into_iter().fold(git, |git, own| own.commit_as(git));
        git.config("commit.gpgSign=false")
            .config("core.editor=true")
            .args(["commit", "--quiet", "--no-verify", "--allow-empty-message", "--no-edit"])
            .args(["--cleanup=strip", "--no-status"])
    })?;
    resolve_commit(worktree, "HEAD")
}

/// Stages the entries and returns those that git refuses, each with git's message. One unreadable file must not block
/// the others.
fn stage_accepted(worktree: &Checkout, entries: &[StatusEntry]) -> Result<Vec<(PathBuf, String)>, CommandError> {
    let Err(error) = stage(Git::write(worktree), entries) else { return Ok(Vec::new()) };
    let concerns_all_files = |stderr: &str| stderr.contains(".lock'") || stderr.contains("No space left");
    match &error {
        CommandError::Failed { stderr, .. } if concerns_all_files(stderr) => Err(error),
        CommandError::Failed { .. } if entries.len() > 1 => {
            let (some, others) = entries.split_at(entries.len() / 2);
            let mut refused = stage_accepted(worktree, some)?;
            if refused.len() > MOST_REFUSED {
                return Err(error);
            }
            refused.extend(stage_accepted(worktree, others)?);
            Ok(refused)
        }
        CommandError::Failed { stderr, .. } => {
            let why = stderr.replace('\n', "; ");
            Ok(entries.iter().map(|entry| (entry.path.clone(), why.clone())).collect())
        }
        _ => Err(error),
    }
}

fn commit_staged(
    worktree: &Checkout,
    message: &str,
    fallback: &CommitIdentity,
    own: Option<&CommitIdentity>,
) -> Result<Option<String>, UncommittedError> {
    let committed = commit_with(worktree, fallback, |git| {
        let git = own.into_iter().fold(git, |git, own| own.commit_as(git));
        git.config("commit.gpgSign=false")
            .args(["commit", "--quiet", "--no-verify", "--allow-empty-message"])
            .args(["--cleanup=whitespace", "--no-status", "--file=-"])
            .input(message)
    });
    if let Err(error) = committed {
        let staged = ["diff", "--no-ext-diff", "--no-textconv", "--cached", "--quiet", "--ignore-submodules=none"];
        if Git::read(worktree).args(staged).succeeds()? {
            // Only a submodule's own files differ: they are in no commit of this repository.
            return Ok(None);
        }
        return Err(error.into());
    }
    Ok(resolve_commit(worktree, "HEAD")?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::testing::{Fixture, at, show};
    use std::fs;

    fn commit(fixture: &Fixture, copies: &[Copied]) -> Result<Option<String>, UncommittedError> {
        Ok(commit_all(fixture, copies)?.commit)
    }

    fn commit_all(fixture: &Fixture, copies: &[Copied]) -> Result<Committed, UncommittedError> {
        let fallback = CommitIdentity::fallback();
        commit_uncommitted(
            &at(fixture.root()),
            uncommitted_and_ignored(&at(fixture.root()))?,
            "left by the worker",
            &fallback,
            None,
            copies,
        )
    }

    #[test]
    fn all_changes_become_one_commit_without_hooks() {
        let fixture = Fixture::new();
        fixture.commit("gone.txt", "x\n");
        assert_eq!(commit(&fixture, &[]).unwrap(), None);
        let hook = fixture.repo.common_dir.join("hooks/pre-commit");
        fs::write(&hook, "#!/bin/sh\nexit 1\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&hook, mode).unwrap();
        fixture.git(&["config", "commit.gpgSign", "true"]);
        fixture.write("readme.txt", "changed\n");
        fixture.write("odd * name.txt", "new\n");
        fs::remove_file(fixture.root().join("gone.txt")).unwrap();
        let made = commit(&fixture, &[]).unwrap().unwrap();
        let listed = fixture.git(&["ls-tree", "--name-only", &made]);
        assert_eq!(listed, "odd * name.txt\nreadme.txt");
        assert_eq!(show(fixture.root(), &made, "readme.txt"), "changed\n");
        assert_eq!(fixture.git(&["status", "--porcelain"]), "");
        assert_eq!(fixture.git(&["log", "-1", "--format=%an"]), "Tess Ter");
    }

    #[test]
    fn replaced_staged_content_is_committed_first() {
        let fixture = Fixture::new();
        fixture.write("changed.txt", "staged\n");
        fixture.write("gone.txt", "only staged\n");
        fixture.git(&["add", "-A"]);
        fixture.write("changed.txt", "after\n");
        fs::remove_file(fixture.root().join("gone.txt")).unwrap();
        let made = commit(&fixture, &[]).unwrap().unwrap();
        let before = format!("{made}~1");
        assert_eq!(show(fixture.root(), &made, "changed.txt"), "after\n");
        assert_eq!(show(fixture.root(), &before, "changed.txt"), "staged\n");
        assert_eq!(show(fixture.root(), &before, "gone.txt"), "only staged\n");
        assert_eq!(fixture.git(&["status", "--porcelain"]), "");
    }

    #[test]
    fn missing_identity_is_filled_in() {
        let fixture = Fixture::new();
        fixture.git(&["config", "--unset", "user.name"]);
        fixture.git(&["config", "--unset", "user.email"]);
        fixture.git(&["config", "user.useConfigOnly", "true"]);
        fixture.write("new.txt", "x\n");
        commit(&fixture, &[]).unwrap().unwrap();
        let author = fixture.git(&["log", "-1", "--format=%an"]);
        assert_eq!(author, CommitIdentity::fallback().name);
    }

    #[test]
    fn copies_and_nested_repositories_stay_out() {
        let fixture = Fixture::new();
        fixture.write(".env", "SECRET=1\n");
        fixture.git(&["init", "-q", "inner"]);
        fixture.write("inner/file", "x\n");
        let copies = [Copied { path: ".env".to_owned(), hash: String::new() }];
        assert_eq!(commit(&fixture, &copies).unwrap(), None);
        fixture.write("new.txt", "x\n");
        let made = commit(&fixture, &copies).unwrap().unwrap();
        assert_eq!(fixture.git(&["ls-tree", "-r", "--name-only", &made]), "new.txt\nreadme.txt");
    }

    #[test]
    fn file_in_two_commits_is_counted_once() {
        let fixture = Fixture::new();
        fixture.git(&["checkout", "-qb", "other"]);
        fixture.commit("merged.txt", "x\n");
        fixture.git(&["checkout", "-q", "main"]);
        fixture.git(&["merge", "-q", "--no-ff", "--no-commit", "other"]);
        fixture.write("merged.txt", "changed\n");
        fixture.write("new.txt", "x\n");
        let committed = commit_all(&fixture, &[]).unwrap();
        assert_eq!((committed.files, committed.still_uncommitted), (2, 0));
        assert_eq!(
            show(fixture.root(), "HEAD~", "merged.txt") + &show(fixture.root(), "HEAD", "merged.txt"),
            "x\nchanged\n"
        );
    }

    #[test]
    fn returned_status_equals_that_of_git() {
        let fixture = Fixture::new();
        for name in ["gone.txt", "deep/er/old.txt", "mode.sh"] {
            fixture.commit(name, "x\n");
        }
        fixture.git(&["init", "-q", "inner"]);
        fixture.write(".gitignore", "*.log\n");
        fixture.write("a.log", "ignored\n");
        fixture.write(".env", "SECRET=1\n");
        fixture.write("readme.txt", "staged\n");
        fixture.git(&["add", "readme.txt"]);
        fixture.write("readme.txt", "after\n");
        fixture.write("odd \u{e9} \n name.txt", "new\n");
        fs::remove_file(fixture.root().join("gone.txt")).unwrap();
        fs::remove_dir_all(fixture.root().join("deep")).unwrap();
        fixture.write("deep", "a file now\n");
        std::os::unix::fs::symlink("nowhere", fixture.root().join("link")).unwrap();
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(fixture.root().join("mode.sh"), executable).unwrap();
        let copies = [Copied { path: ".env".to_owned(), hash: String::new() }];
        let committed = commit_all(&fixture, &copies).unwrap();
        let after = uncommitted_and_ignored(&at(fixture.root())).unwrap();
        let names: Vec<_> = after.entries.iter().map(|entry| entry.path.to_str().unwrap()).collect();
        assert_eq!((committed.status.as_ref(), names), (Some(&after), vec![".env", "inner/"]));
    }

    #[test]
    fn uncertain_status_is_not_returned() {
        let fixture = Fixture::new();
        fixture.write("new.txt", "1\n");
        let before = uncommitted_and_ignored(&at(fixture.root())).unwrap();
        let commit = commit(&fixture, &[]).unwrap().unwrap();
        let entries = &before.entries;
        let known = || after(fixture.root(), before.clone(), &commit, entries).is_some();
        assert!(known());
        assert!(after(fixture.root(), before.clone(), &fixture.git(&["rev-parse", "HEAD~1"]), entries).is_none());
        fixture.write("new.txt", "22\n");
        assert!(!known(), "another size");
        fixture.git(&["add", "new.txt"]);
        assert!(!known(), "staged");
        fixture.git(&["reset", "-q", "--hard"]);
        assert!(known());
        fs::remove_file(fixture.root().join("new.txt")).unwrap();
        assert!(!known(), "deleted");
        let sha256 = Fixture::empty(&["--object-format=sha256"]);
        sha256.commit("readme.txt", "x\n");
        sha256.write("new.txt", "x\n");
        let committed = commit_all(&sha256, &[]).unwrap();
        assert_eq!((committed.files, committed.status), (1, None));
    }

    #[test]
    fn unfinished_merges_and_detached_heads_are_refused() {
        let fixture = Fixture::new();
        fixture.git(&["checkout", "-qb", "other"]);
        fixture.commit("readme.txt", "other\n");
        fixture.git(&["checkout", "-q", "main"]);
        fixture.commit("readme.txt", "main\n");
        let merge = Git::write(&at(fixture.root())).args(["merge", "-q", "other"]);
        assert!(!merge.succeeds().unwrap());
        let error = commit(&fixture, &[]).unwrap_err();
        let UncommittedError::InProgress { operation, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(operation, "merge");
        fixture.git(&["merge", "--abort"]);
        fixture.git(&["checkout", "-q", "--detach"]);
        fixture.write("new.txt", "x\n");
        let error = commit(&fixture, &[]).unwrap_err();
        assert!(matches!(error, UncommittedError::Detached { .. }), "{error}");
    }
}
