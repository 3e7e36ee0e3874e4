//! Lists the work of a worker that its branch does not contain, in any state of git in its worktree. This covers
//! uncommitted files, unfinished operations, commits elsewhere, stashes, nested repositories and ignored files.
//!
//! Nothing is changed here. In the usual case (everything is committed and HEAD is on the branch) no git process is
//! started. Nothing here fails: a part that cannot be read is reported as such, since it may contain work.

mod commits;
mod files;
mod ignored;
mod meanwhile;
mod repositories;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::checkout::{branch_commit, git_dir};
use super::command::CommandError;
use super::fingerprint::Fingerprint;
use super::include::Copied;
use super::layout::Listed;
use super::list::list;
use super::reflog::{HeadMove, head_moves};
use super::repository::Repository;
use super::status::Status;
use super::trust::Checkout;
use crate::mission::hint::with_hints;
use crate::mission::outcome::NotOnBranch;
use crate::mission::words;

pub use ignored::{ignored, still_ignored, still_there};
pub use meanwhile::appeared;

/// Maximum number of parts listed. The last one then states how many more there are.
const MOST_PARTS: usize = 12;
/// Maximum number of paths named in one sentence.
const MOST_NAMED: usize = 5;

const UNCOMMITTED: &str = "uncommitted file";

/// The worker whose work is examined.
pub struct Examined<'a> {
    pub repo: &'a Repository,
    pub worktree: &'a Path,
    /// Branch for which the worktree was created.
    pub branch: &'a str,
    /// Commit at which the work began.
    pub base: &'a str,
    /// Files that this program copied into the worktree; they are not work.
    pub copies: &'a [Copied],
    /// State of the repository before the work, if known.
    pub before: Option<&'a Fingerprint>,
    /// Reason why uncommitted changes were not committed.
    pub why: Option<&'a str>,
}

impl Examined<'_> {
    fn checkout(&self) -> Checkout {
        self.repo.at(self.worktree)
    }
}

/// Returns all parts except ignored files, for which there is [`ignored()`]. `status` is the current one of the
/// worktree.
pub fn not_on_branch(examined: &Examined, status: &Status) -> Vec<NotOnBranch> {
    let scan = match WorkScan::of(examined, status) {
        Ok(scan) => scan,
        Err(error) => return vec![unknown(examined.worktree, &with_hints(&error))],
    };
    let mut parts = scan.files();
    for others in [scan.marked(), scan.repositories(), scan.links(), scan.commits(), scan.stashes(), scan.tags()] {
        parts.extend(others.unwrap_or_else(|error| vec![unknown(examined.worktree, &with_hints(&error))]));
    }
    bounded(parts)
}

/// Returns the part for a worktree whose folder is not the one that git works on. Nothing else can be determined there.
pub fn out_of_place(worktree: &Path, why: &str) -> NotOnBranch {
    part("the files in its worktree".to_owned(), shown(worktree), format!("nothing there could be committed: {why}"))
}

/// Limits the list to [`MOST_PARTS`]; the last part summarises the rest.
fn bounded(mut parts: Vec<NotOnBranch>) -> Vec<NotOnBranch> {
    if parts.len() > MOST_PARTS {
        let more = parts.split_off(MOST_PARTS - 1);
        let places: BTreeSet<String> = more.iter().map(|part| part.place.clone()).collect();
        let places: Vec<String> = places.into_iter().collect();
        parts.push(part(format!("{} more", more.len()), names(&places), more[0].how_to_include.clone()));
    }
    parts
}

fn part(what: String, place: String, how_to_include: String) -> NotOnBranch {
    NotOnBranch { what, place, how_to_include, files: None }
}

/// Returns the part for something that git could not read.
pub fn unknown(worktree: &Path, why: &str) -> NotOnBranch {
    let how = format!("check it by hand: {why}");
    part("what could not be checked".to_owned(), shown(worktree), how)
}

/// Returns the branch that the work is taken from: the checked out one, unless [`is_anothers`] excludes it, else the
/// assigned one.
pub fn own_branch<'a>(assigned: &'a str, checked_out: Option<&'a str>, before: Option<&Fingerprint>) -> &'a str {
    checked_out.filter(|branch| !is_anothers(assigned, branch, before)).unwrap_or(assigned)
}

/// Returns whether a branch is not the worker's: it is not the assigned one, it existed before, and no linked worktree
/// had it checked out.
pub fn is_anothers(assigned: &str, branch: &str, before: Option<&Fingerprint>) -> bool {
    let name = format!("refs/heads/{branch}");
    let was_there = |it: &Fingerprint| {
        it.branch.as_deref() == Some(branch) || it.refs.contains_key(&name) && !it.worktree_branches.contains(&name)
    };
    branch != assigned && before.is_some_and(was_there)
}

/// A worktree and its state, in which the parts are looked for.
struct WorkScan<'a> {
    examined: &'a Examined<'a>,
    status: &'a Status,
    branch: &'a str,
    /// Tip of `branch`; `None` if the branch is gone.
    tip: Option<String>,
    git_dir: PathBuf,
    /// Moves of the worktree's own HEAD, oldest first.
    moves: Vec<HeadMove>,
    /// Worktrees of the same repository inside this one.
    inside: Vec<Listed>,
}

impl<'a> WorkScan<'a> {
    fn of(examined: &'a Examined<'a>, status: &'a Status) -> Result<Self, CommandError> {
        // A branch without a commit contains no work.
        let checked_out = status.branch.as_deref().filter(|_| status.head.is_some());
        let branch = own_branch(examined.branch, checked_out, examined.before);
        let git_dir = git_dir(&examined.checkout())?;
        let is_inside =
            |it: &Listed| it.path != examined.worktree && it.path.starts_with(examined.worktree) && !it.missing;
        Ok(Self {
            inside: list(examined.repo)?.into_iter().filter(is_inside).collect(),
            tip: branch_commit(&examined.repo.checkout(), branch)?,
            moves: head_moves(&examined.checkout(), &git_dir)?,
            examined,
            status,
            branch,
            git_dir,
        })
    }
}

fn names(names: &[String]) -> String {
    words::first(names, MOST_NAMED)
}

/// Formats a path. One with control characters or invalid UTF-8 is quoted.
fn shown(path: &Path) -> String {
    match path.to_str() {
        Some(name) if !name.contains(char::is_control) => name.to_owned(),
        _ => format!("{path:?}"),
    }
}

#[cfg(test)]
mod tests;
