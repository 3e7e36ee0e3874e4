//! Repairs the link between a worktree that this program created and git's record of it. A worker may have deleted its
//! `.git` file, or the record. The files are still there then, but git cannot work on them.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::checkout::branch_commit;
use super::command::Git;
use super::layout::{linked_git_dirs, own_git_dir, worktree_of};
use super::repository::Repository;
use super::worktree::{Worktree, WorktreeError, leads_nowhere, link, remember};

/// Folder for a new record, in the repository's git directory.
const UNFINISHED: &str = "orchestrator-boss.relink";

/// Repairs the link if the folder is still there with all files of the branch, and its `.git` file or the record is
/// gone. Each difference from the branch is an uncommitted change afterwards. The files are left alone, and so is a
/// folder with another repository in it. A folder that lacks files of the branch may be the user's, or the rest of an
/// unfinished removal: as a worktree, it would turn into a commit that deletes them.
pub fn relink(repo: &Repository, made: &Worktree) -> Result<(), WorktreeError> {
    let path = &made.path;
    clear_unfinished(repo)?;
    let is_folder = path.symlink_metadata().is_ok_and(|kind| kind.is_dir());
    let has_link = path.join(".git").symlink_metadata().is_ok();
    if !is_folder || has_link && !leads_nowhere(path) {
        return Ok(());
    }
    if !holds_its_branch(repo, made)? {
        return Ok(());
    }
    let _lock = repo.lock()?;
    match own_git_dir(&repo.common_dir, path) {
        // The repository was moved, which its user repairs.
        Some(_) if has_link && made.repo_path != repo.root() => Ok(()),
        Some(record) => replace_link(path, &record).map_err(|source| write_error(&path.join(".git"), source)),
        None => record_again(repo, made),
    }
}

/// Writes the `.git` file. A former one led nowhere.
fn replace_link(worktree: &Path, record: &Path) -> io::Result<()> {
    match fs::remove_file(worktree.join(".git")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => link(worktree, record),
    }
}

/// Returns whether all files of the branch are there. Their contents may differ.
fn holds_its_branch(repo: &Repository, made: &Worktree) -> Result<bool, WorktreeError> {
    let tip = branch_commit(&repo.checkout(), &made.branch)?.unwrap_or_else(|| made.base_commit.clone());
    let listed = repo.read().args(["ls-tree", "-r", "-z", "--full-tree", "--name-only", &tip]).run()?;
    let mut paths = listed.split(|byte| *byte == 0).filter(|path| !path.is_empty()).peekable();
    let has = |path: &[u8]| made.path.join(OsStr::from_bytes(path)).symlink_metadata().is_ok();
    Ok(paths.peek().is_some() && paths.all(has))
}

/// Makes a record as git does it, for an empty folder elsewhere, and then has it name this one.
fn record_again(repo: &Repository, made: &Worktree) -> Result<(), WorktreeError> {
    let folder = repo.common_dir.join(UNFINISHED);
    let beside = folder.join(made.path.file_name().unwrap_or_default());
    let recorded = record_beside(repo, made, &beside);
    let _ = fs::remove_dir_all(&folder);
    recorded?;
    Git::write(&repo.at(&made.path)).args(["reset", "--quiet"]).run()?;
    remember(repo, made)
}

/// Removes what a call that was killed has left: the folder, and the record of an empty worktree in it.
fn clear_unfinished(repo: &Repository) -> Result<(), WorktreeError> {
    let folder = repo.common_dir.join(UNFINISHED);
    if !folder.exists() {
        return Ok(());
    }
    let _lock = repo.lock()?;
    let is_in_it = |record: &PathBuf| worktree_of(record).is_some_and(|worktree| worktree.starts_with(&folder));
    let records: Vec<PathBuf> = linked_git_dirs(&repo.common_dir).filter(is_in_it).collect();
    for path in records.into_iter().chain([folder.clone()]) {
        match fs::remove_dir_all(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(write_error(&path, source)),
            _ => {}
        }
    }
    Ok(())
}

fn record_beside(repo: &Repository, made: &Worktree, beside: &Path) -> Result<(), WorktreeError> {
    let add = repo.write().args(["worktree", "add", "--quiet", "--no-checkout"]);
    match branch_commit(&repo.checkout(), &made.branch)? {
        Some(_) => add.arg("--").arg(beside).arg(&made.branch).run()?,
        None => add.args(["--detach", "--"]).arg(beside).arg(&made.base_commit).run()?,
    };
    let link = made.path.join(".git");
    fs::copy(beside.join(".git"), &link).map_err(|source| write_error(&link, source))?;
    repo.write().args(["worktree", "repair", "--"]).arg(&made.path).run()?;
    Ok(())
}

fn write_error(path: &Path, source: io::Error) -> WorktreeError {
    WorktreeError::Remember { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::testing::{Fixture, commit, git, write};
    use crate::git::{Request, check_in_place, create, made_by_us};

    #[test]
    fn deleted_link_or_record_is_recreated() {
        for what in ["link", "record", "both", "wrong link"] {
            let fixture = Fixture::new();
            let request = Request { branch: "work".to_owned(), ..Request::default() };
            let made = create(&fixture.repo, &request, Some("a worker")).unwrap();
            commit(&made.path, "a.txt", "a\n");
            write(&made.path, "b.txt", "b\n");
            if what == "wrong link" {
                write(&made.path, ".git", "gitdir: /no/such/place\n");
            }
            if ["record", "both"].contains(&what) {
                fs::remove_dir_all(own_git_dir(&fixture.repo.common_dir, &made.path).unwrap()).unwrap();
            }
            if ["link", "both"].contains(&what) {
                fs::remove_file(made.path.join(".git")).unwrap();
            }
            relink(&fixture.repo, &made).unwrap();
            check_in_place(&fixture.repo, &made.path).unwrap();
            assert_eq!(git(&made.path, &["status", "--porcelain"]), "?? b.txt", "{what}");
            assert_eq!(git(&made.path, &["branch", "--show-current"]), "work");
            assert_eq!(made_by_us(&fixture.repo, &made.path), Some(made.clone()));
            relink(&fixture.repo, &made).unwrap();
            assert_eq!(fixture.git(&["worktree", "list"]).lines().count(), 2);
        }
    }

    #[test]
    fn killed_call_does_not_block_the_next() {
        let fixture = Fixture::new();
        let made = fixture.worktree("work");
        commit(&made.path, "a.txt", "a\n");
        fs::remove_dir_all(own_git_dir(&fixture.repo.common_dir, &made.path).unwrap()).unwrap();
        let beside = fixture.repo.common_dir.join(UNFINISHED).join(made.path.file_name().unwrap());
        fixture.git(&["worktree", "add", "-q", "--no-checkout", beside.to_str().unwrap(), "work"]);
        relink(&fixture.repo, &made).unwrap();
        check_in_place(&fixture.repo, &made.path).unwrap();
        assert_eq!(git(&made.path, &["status", "--porcelain", "--branch"]), "## work");
        assert_eq!(fixture.git(&["worktree", "list"]).lines().count(), 2);
        assert!(!fixture.repo.common_dir.join(UNFINISHED).exists());
    }

    #[test]
    fn folder_lacking_branch_files_is_left_alone() {
        for left in [None, Some("a.txt"), Some("precious.txt")] {
            let fixture = Fixture::new();
            let made = fixture.worktree("work");
            commit(&made.path, "a.txt", "a\n");
            fixture.git(&["worktree", "remove", "--force", made.path.to_str().unwrap()]);
            fs::create_dir_all(&made.path).unwrap();
            left.into_iter().for_each(|name| write(&made.path, name, "x\n"));
            relink(&fixture.repo, &made).unwrap();
            assert!(!made.path.join(".git").exists(), "{left:?}");
            assert_eq!(fixture.git(&["worktree", "list"]).lines().count(), 1);
        }
    }

    #[test]
    fn foreign_repository_and_missing_folder_stay_unchanged() {
        let fixture = Fixture::new();
        let made = fixture.worktree("work");
        fs::remove_file(made.path.join(".git")).unwrap();
        git(&made.path, &["init", "-q"]);
        relink(&fixture.repo, &made).unwrap();
        assert!(made.path.join(".git").is_dir());
        fs::remove_dir_all(&made.path).unwrap();
        relink(&fixture.repo, &made).unwrap();
        assert!(!made.path.exists());
    }
}
