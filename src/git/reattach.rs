//! Moves a worker's branch to its work in the unambiguous cases. In the first, HEAD was left detached, and all commits
//! beyond the branch were made there and are on no other ref. In the second, the branch was deleted. No files are
//! changed.

use std::fs;
use std::path::Path;

use super::checkout::{branch_commit, current_branch, git_dir, resolve_commit};
use super::command::{CommandError, Git};
use super::integrate::contains;
use super::layout::{NOT_BORROWED, zero_id};
use super::list::list;
use super::reflog::head_moves;
use super::repository::Repository;
use super::status::operation_in_progress_in;
use super::trust::Checkout;

/// Reason written to the reflogs.
const REASON: &str = "orchestrator-boss: put its branch where its work is";

/// Reattaches HEAD to the branch, which is moved or restored if necessary. Returns whether something was changed. In
/// the usual case, with HEAD on the branch, no git process is started.
pub fn reattach(repo: &Repository, worktree: &Path, branch: &str, base: &str) -> Result<bool, CommandError> {
    let worktree = &repo.at(worktree);
    let git_dir = git_dir(worktree)?;
    let tip = branch_commit(&repo.checkout(), branch)?;
    let on = checked_out(worktree, &git_dir)?;
    let is_on_it = on.as_deref() == Some(branch);
    if on.is_some() && !(is_on_it && tip.is_none()) || operation_in_progress_in(&git_dir).is_some() {
        return Ok(false);
    }
    if is_on_it {
        // The branch was deleted while HEAD was on it, so the reflog of HEAD contains its last commit. The deletion
        // itself may be logged too, with a zero id.
        let mut moves = head_moves(worktree, &git_dir)?.into_iter().rev();
        let last = moves.find(|it| it.new.bytes().any(|digit| digit != b'0'));
        let last = last.map(|last| resolve_commit(&repo.checkout(), &last.new)).transpose()?.flatten();
        let Some(last) = last.filter(|last| contains(repo, last, base)) else { return Ok(false) };
        set(repo, branch, &last, None)?;
        return Ok(true);
    }
    let Some(head) = resolve_commit(worktree, "HEAD")? else { return Ok(false) };
    let from = tip.as_deref().unwrap_or(base);
    if tip.as_deref() != Some(&head) {
        if is_elsewhere(repo, worktree, branch)? || !contains(repo, &head, from) || !is_only_here(repo, from, &head)? {
            return Ok(false);
        }
        set(repo, branch, &head, tip.as_deref())?;
    } else if is_elsewhere(repo, worktree, branch)? {
        return Ok(false);
    }
    let name = format!("refs/heads/{branch}");
    Git::write(worktree).args(["symbolic-ref", "-m", REASON, "HEAD", &name]).run()?;
    Ok(true)
}

/// Returns the branch that HEAD is on, without starting git if git's files are enough.
fn checked_out(worktree: &Checkout, git_dir: &Path) -> Result<Option<String>, CommandError> {
    let head = fs::read_to_string(git_dir.join("HEAD")).unwrap_or_default();
    match head.trim_end().strip_prefix("ref: refs/heads/") {
        // Git writes this placeholder into the HEAD file if refs are stored as reftable.
        Some(".invalid") | None if git_dir.join("reftable").exists() => current_branch(worktree),
        Some(branch) => Ok(Some(branch.to_owned())),
        None => Ok(None),
    }
}

fn set(repo: &Repository, branch: &str, to: &str, from: Option<&str>) -> Result<(), CommandError> {
    let from = from.map_or_else(|| zero_id(to), str::to_owned);
    repo.write().args(["update-ref", "-m", REASON, &format!("refs/heads/{branch}"), to, &from]).run().map(drop)
}

fn is_elsewhere(repo: &Repository, worktree: &Path, branch: &str) -> Result<bool, CommandError> {
    Ok(list(repo)?.iter().any(|it| it.path != worktree && it.branch.as_deref() == Some(branch)))
}

/// Returns whether no ref contains any of the commits beyond `from`, so that they were made only here.
fn is_only_here(repo: &Repository, from: &str, head: &str) -> Result<bool, CommandError> {
    let number = |not: &[&str]| repo.read().args(["rev-list", "--count", head, "--not", from]).args(not).text();
    Ok(number(&[])? == number(&[NOT_BORROWED, "--glob=refs/"])?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::testing::{Fixture, at, commit, git};
    use std::path::PathBuf;

    fn work() -> (Fixture, PathBuf, String) {
        let fixture = Fixture::new();
        let made = fixture.worktree("work");
        (fixture, made.path, made.base_commit)
    }

    #[test]
    fn detached_commits_move_onto_the_branch() {
        let (fixture, path, base) = work();
        assert!(!reattach(&fixture.repo, &path, "work", &base).unwrap());
        git(&path, &["checkout", "-q", "--detach"]);
        let made = commit(&path, "a.txt", "a\n");
        crate::git::testing::write(&path, "left.txt", "x");
        assert!(reattach(&fixture.repo, &path, "work", &base).unwrap());
        assert_eq!(fixture.git(&["rev-parse", "work"]), made);
        assert_eq!(git(&path, &["status", "--porcelain", "--branch"]), "## work\n?? left.txt");
    }

    #[test]
    fn deleted_branch_is_recreated_at_its_commit() {
        for detach in [false, true] {
            let (fixture, path, base) = work();
            let made = commit(&path, "a.txt", "a\n");
            if detach {
                git(&path, &["checkout", "-q", "--detach"]);
            }
            git(&path, &["update-ref", "-d", "refs/heads/work"]);
            assert!(reattach(&fixture.repo, &path, "work", &base).unwrap());
            assert_eq!(fixture.git(&["rev-parse", "work"]), made);
            assert_eq!(git(&path, &["status", "--porcelain", "--branch"]), "## work");
        }
    }

    #[test]
    fn foreign_and_diverged_commits_are_not_taken() {
        let (fixture, path, base) = work();
        let theirs = fixture.commit("theirs.txt", "x\n");
        git(&path, &["checkout", "-q", "--detach", &theirs]);
        assert!(!reattach(&fixture.repo, &path, "work", &base).unwrap(), "the commit of another");
        commit(&path, "on-theirs.txt", "x\n");
        assert!(!reattach(&fixture.repo, &path, "work", &base).unwrap(), "on top of the commit of another");
        git(&path, &["checkout", "-q", "work"]);
        commit(&path, "a.txt", "a\n");
        git(&path, &["checkout", "-q", "--detach", &base]);
        commit(&path, "b.txt", "b\n");
        assert!(!reattach(&fixture.repo, &path, "work", &base).unwrap(), "it has parted from the branch");
        assert_eq!(git(&path, &["branch", "--show-current"]), "");
    }

    #[test]
    fn unfinished_rebase_is_left_alone() {
        let (fixture, path, base) = work();
        commit(&path, "readme.txt", "mine\n");
        let theirs = fixture.commit("readme.txt", "theirs\n");
        assert!(!super::super::command::Git::write(&at(&path)).args(["rebase", "-q", &theirs]).succeeds().unwrap());
        assert!(!reattach(&fixture.repo, &path, "work", &base).unwrap());
    }
}
