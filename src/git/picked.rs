//! Determines whether the changes of a branch are in another branch as other commits: merged, picked one by one, or
//! squashed.
//!
//! The objects that a comparison needs are written to a scratch folder and not kept.

use super::command::{CommandError, Git};
use super::identity::CommitIdentity;
use super::integrate::with_objects_in;
use super::radar::scratch;
use super::repository::Repository;

/// Returns whether the commits are merged, or were squashed or picked with the same effect.
pub(super) fn is_integrated(repo: &Repository, tip: &str, into: &str) -> Result<bool, CommandError> {
    if repo.read().is_ancestor(tip, into)? {
        return Ok(true);
    }
    let Some(base) = repo.read().merge_base(tip, into)? else { return Ok(false) };
    let scratch = scratch()?;
    let git = || with_objects_in(repo.read(), repo, scratch.path());
    Ok(merging_changes_nothing(git, tip, into)? || is_picked_or_squashed_since(git, tip, &base, into)?)
}

/// Returns whether `into` has the changes in other commits, either one by one or squashed into one.
pub(super) fn is_picked_or_squashed(repo: &Repository, tip: &str, into: &str) -> Result<bool, CommandError> {
    let Some(base) = repo.read().merge_base(tip, into)? else { return Ok(false) };
    let scratch = scratch()?;
    let git = || with_objects_in(repo.read(), repo, scratch.path());
    is_picked_or_squashed_since(git, tip, &base, into)
}

/// Does the same by calls of git whose new objects are not kept.
fn is_picked_or_squashed_since(git: impl Fn() -> Git, tip: &str, base: &str, into: &str) -> Result<bool, CommandError> {
    Ok(is_picked(&git, tip, into)? || is_picked(&git, &squash(&git, tip, base)?, into)?)
}

fn merging_changes_nothing(git: impl Fn() -> Git, tip: &str, into: &str) -> Result<bool, CommandError> {
    let merged = git().args(["merge-tree", "--write-tree", "--no-messages", into, tip]).answer()?;
    let tree = git().tree_of(into)?;
    Ok(merged.is_some_and(|merged| merged.trim_ascii() == tree.as_bytes()))
}

/// Returns whether every commit has an equivalent with the same changes in `into`.
fn is_picked(git: impl Fn() -> Git, tip: &str, into: &str) -> Result<bool, CommandError> {
    let merges = git().args(["rev-list", "--merges", "--count", tip, "--not", into]).text()?;
    let commits = git().args(["cherry", into, tip]).text()?;
    // Merge commits are not compared by `git cherry`, and may hold changes of their own.
    Ok(merges == "0" && commits.lines().all(|line| line.starts_with('-')))
}

/// Makes one commit of all changes of a branch. No ref points at it.
fn squash(git: impl Fn() -> Git, tip: &str, base: &str) -> Result<String, CommandError> {
    let tree = format!("{tip}^{{tree}}");
    CommitIdentity::fallback().commit_as(git()).commit_tree(&tree, &[base], "squashed").text()
}
