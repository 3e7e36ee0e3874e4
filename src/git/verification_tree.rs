//! A detached worktree for verifying a commit. It belongs to this program alone and is removed with everything in it.

use std::fs;
use std::io;
use std::path::Path;

use super::list::{list, patiently};
use super::own_clone;
use super::repository::Repository;
use super::worktree::{WorktreeError, fill, make_private};

/// Lock reason that keeps other processes from pruning the worktree.
const REASON: &str = "orchestrator-boss: an integration is verified here";

/// Creates and fills the worktree, with submodules and the files that `.worktreeinclude` names.
pub fn make(repo: &Repository, path: &Path, commit: &str) -> Result<(), WorktreeError> {
    {
        let _lock = repo.lock()?;
        if let Some(folder) = path.parent() {
            make_private(folder).map_err(|source| WorktreeError::MakeFolder { path: folder.to_owned(), source })?;
        }
        patiently(|| {
            let add = repo.write().args(["worktree", "add", "--quiet", "--no-checkout", "--detach"]);
            add.args(["--lock", "--reason", REASON, "--"]).arg(path).arg(commit).run()
        })?;
    }
    fill(repo, path).map(drop)
}

/// Removes the worktree with all its content, even if its creation was interrupted. A missing worktree is not an error.
/// A clone in it goes too: what a verification commits is no work.
pub fn remove(repo: &Repository, path: &Path) -> Result<(), WorktreeError> {
    own_clone::give_up(repo, path)?;
    if let Err(source) = fs::remove_dir_all(path)
        && source.kind() != io::ErrorKind::NotFound
    {
        return Err(WorktreeError::RemoveVerificationTree { path: path.to_owned(), source });
    }
    let _lock = repo.lock()?;
    if list(repo)?.iter().any(|listed| listed.path == path) {
        // The second `--force` overrides this program's own lock.
        repo.write().args(["worktree", "remove", "--force", "--force", "--"]).arg(path).run()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::testing::{Fixture, commit, read, write};

    #[test]
    fn checkout_has_the_commit_and_leaves_nothing() {
        let fixture = Fixture::new();
        let first = fixture.git(&["rev-parse", "HEAD"]);
        fixture.commit("readme.txt", "changed\n");
        let before = fixture.git(&["for-each-ref"]);
        let path = fixture.beside("verification");
        make(&fixture.repo, &path, &first).unwrap();
        assert_eq!(read(&path, "readme.txt"), "hello\n");
        commit(&path, "readme.txt", "changed there\n");
        write(&path, "build/out.o", "x");
        for _again in 0..2 {
            remove(&fixture.repo, &path).unwrap();
            assert!(!path.exists());
            assert_eq!(list(&fixture.repo).unwrap().len(), 1);
        }
        assert_eq!(fixture.git(&["for-each-ref"]), before);
        assert!(!fixture.repo.common_dir.join("worktrees").exists());
    }
}
