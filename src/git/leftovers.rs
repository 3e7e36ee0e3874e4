//! What a worker left uncommitted becomes a commit on its branch, so that a result is always a commit.
//!
//! Only for worktrees that we made. No hook runs and nothing is signed, as both could ask a question. Where a commit
//! would be untrue (in the middle of a merge, on no branch) it is refused, and the caller salvages instead.

use std::path::{Path, PathBuf};

use super::command::{CommandError, Git};
use super::include::Copied;
use super::index::stage;
use super::repository::{Identity, commit_with, resolve_commit};
use super::status::{Status, Untracked, operation_in_progress, status};

#[derive(Debug, thiserror::Error)]
pub enum LeftoversError {
    #[error(transparent)]
    Git(#[from] CommandError),
    #[error("commit what is left in {}: a {operation} is not finished there", worktree.display())]
    InProgress { worktree: PathBuf, operation: &'static str },
    #[error("commit what is left in {}: its HEAD is detached", worktree.display())]
    Detached { worktree: PathBuf },
}

/// What is uncommitted in a worktree, for [`commit_leftovers`].
pub fn left(worktree: &Path) -> Result<Status, CommandError> {
    status(worktree, Untracked::Files)
}

/// Commits everything that git does not ignore, except `copies` (a worker may have stopped git from ignoring them) and
/// repositories inside. What was staged and then changed or deleted gets a commit of its own before that: it would be
/// nowhere else. The commit is `own`'s, else the user's, else `fallback`'s. Returns the newest commit, `None` when nothing was
/// left. What was `left` the caller has just looked up.
pub fn commit_leftovers(
    worktree: &Path,
    left: Status,
    message: &str,
    fallback: &Identity,
    own: Option<&Identity>,
    copies: &[Copied],
) -> Result<Option<String>, LeftoversError> {
    let is_copy = |path: &Path| copies.iter().any(|copy| Path::new(&copy.path) == path);
    let Status { branch, mut entries, .. } = left;
    entries.retain(|entry| !(entry.untracked && (entry.is_repository() || is_copy(&entry.path))));
    if entries.is_empty() {
        return Ok(None);
    }
    if let Some(operation) = operation_in_progress(worktree)? {
        return Err(LeftoversError::InProgress { worktree: worktree.to_owned(), operation });
    }
    if branch.is_none() {
        return Err(LeftoversError::Detached { worktree: worktree.to_owned() });
    }
    let mut committed = None;
    if entries.iter().any(|entry| entry.staged && entry.in_worktree) {
        committed = commit_staged(worktree, message, fallback, own)?;
    }
    stage(Git::write(worktree), &entries)?;
    Ok(commit_staged(worktree, message, fallback, own)?.or(committed))
}

fn commit_staged(
    worktree: &Path,
    message: &str,
    fallback: &Identity,
    own: Option<&Identity>,
) -> Result<Option<String>, LeftoversError> {
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
    use crate::git::testing::{Fixture, show};
    use std::fs;

    fn commit(fixture: &Fixture, copies: &[Copied]) -> Result<Option<String>, LeftoversError> {
        let fallback = Identity::fallback();
        commit_leftovers(fixture.root(), left(fixture.root())?, "left by the worker", &fallback, None, copies)
    }

    #[test]
    fn everything_left_becomes_one_commit_without_hooks() {
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
    fn what_was_staged_and_then_changed_or_deleted_is_committed_too() {
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
    fn a_missing_identity_is_filled_in() {
        let fixture = Fixture::new();
        fixture.git(&["config", "--unset", "user.name"]);
        fixture.git(&["config", "--unset", "user.email"]);
        fixture.git(&["config", "user.useConfigOnly", "true"]);
        fixture.write("new.txt", "x\n");
        commit(&fixture, &[]).unwrap().unwrap();
        let author = fixture.git(&["log", "-1", "--format=%an"]);
        assert_eq!(author, Identity::fallback().name);
    }

    #[test]
    fn copies_and_repositories_inside_stay_out() {
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
    fn an_unfinished_merge_and_a_detached_head_are_refused() {
        let fixture = Fixture::new();
        fixture.git(&["checkout", "-qb", "other"]);
        fixture.commit("readme.txt", "other\n");
        fixture.git(&["checkout", "-q", "main"]);
        fixture.commit("readme.txt", "main\n");
        let merge = Git::write(fixture.root()).args(["merge", "-q", "other"]);
        assert!(!merge.succeeds().unwrap());
        let error = commit(&fixture, &[]).unwrap_err();
        let LeftoversError::InProgress { operation, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(operation, "merge");
        fixture.git(&["merge", "--abort"]);
        fixture.git(&["checkout", "-q", "--detach"]);
        fixture.write("new.txt", "x\n");
        let error = commit(&fixture, &[]).unwrap_err();
        assert!(matches!(error, LeftoversError::Detached { .. }), "{error}");
    }
}
