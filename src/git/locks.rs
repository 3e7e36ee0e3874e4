//! Handling of lock files that a killed git left in a worktree. Until they are deleted, nothing can be committed.
//!
//! Git deletes its locks when it exits normally. A remaining lock was left by a killed git, or another git is working
//! in the worktree. Only the caller can distinguish the two, by the running processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::checkout::{checked_out, git_dir};
use super::repository::Repository;

/// Minimum age of a lock that may be deleted. A library that writes the index directly holds its lock for milliseconds.
const AT_LEAST_AS_OLD: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Deletes the locks of a worktree, of its HEAD and of its branch if all are old enough and `is_git_at_work` returns
/// `false`. Returns the remaining locks.
///
/// Locks of files that all worktrees share (`packed-refs.lock`, `config.lock`) are left alone: any git of the
/// repository may hold them.
pub fn clear_stale_locks(
    repo: &Repository,
    worktree: &Path,
    branch: Option<&str>,
    is_git_at_work: impl Fn() -> bool,
) -> Vec<PathBuf> {
    let began = Instant::now();
    loop {
        let locks = locks(repo, worktree, branch);
        if locks.is_empty() {
            return locks;
        }
        let is_old = |lock: &PathBuf| age(lock).is_none_or(|age| age >= AT_LEAST_AS_OLD);
        if locks.iter().all(is_old) {
            return if is_git_at_work() {
                locks
            } else {
                locks.into_iter().filter(|lock| fs::remove_file(lock).is_err() && lock.exists()).collect()
            };
        }
        if began.elapsed() > 2 * AT_LEAST_AS_OLD {
            // A lock that keeps reappearing belongs to a running process, or its time lies in the future.
            return locks;
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Deletes the locks of the HEAD and the branch of a worktree in which no worker has run yet, if they are old enough:
/// git holds them for milliseconds. Returns whether there were any.
pub(super) fn clear_stale_ref_locks(repo: &Repository, worktree: &Path) -> bool {
    let branch = checked_out(&repo.at(worktree)).ok().flatten();
    let locks = locks(repo, worktree, branch.as_deref()).into_iter().filter(|lock| !lock.ends_with("index.lock"));
    let stale = locks.filter(|lock| age(lock).is_none_or(|age| age >= AT_LEAST_AS_OLD));
    stale.filter(|lock| fs::remove_file(lock).is_ok()).count() > 0
}

fn locks(repo: &Repository, worktree: &Path, branch: Option<&str>) -> Vec<PathBuf> {
    let Ok(own) = git_dir(&repo.at(worktree)) else { return Vec::new() };
    let names = ["index.lock", "HEAD.lock", "config.worktree.lock"];
    let of_branch = branch.map(|branch| repo.common_dir.join("refs/heads").join(format!("{branch}.lock")));
    names.iter().map(|name| own.join(name)).chain(of_branch).filter(|path| path.is_file()).collect()
}

/// Returns the age of a file, `None` if it cannot be determined.
fn age(path: &Path) -> Option<Duration> {
    let written = path.metadata().ok()?.modified().ok()?;
    // A time in the future counts as now.
    Some(SystemTime::now().duration_since(written).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::testing::Fixture;

    #[test]
    fn lock_is_removed_only_without_running_git() {
        let fixture = Fixture::new();
        let git = fixture.root().join(".git");
        let made = [git.join("index.lock"), git.join("HEAD.lock"), git.join("refs/heads/main.lock")];
        let shared = git.join("packed-refs.lock");
        for lock in made.iter().chain([&shared]) {
            fs::write(lock, "").unwrap();
        }
        assert_eq!(clear_stale_locks(&fixture.repo, fixture.root(), Some("main"), || true), made);
        assert!(clear_stale_locks(&fixture.repo, fixture.root(), Some("main"), || false).is_empty());
        assert!(made.iter().all(|lock| !lock.exists()) && shared.exists());
    }
}
