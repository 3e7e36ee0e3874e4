//! Commits that the branch does not contain: on other branches, on a detached HEAD, in the reflog, and stashes.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use super::{WorkScan, names, part, shown};
use crate::git::checkout::{branch_commit, resolve_commit};
use crate::git::command::CommandError;
use crate::git::facts::is_full_id;
use crate::git::index::IndexError;
use crate::git::own_clone;
use crate::git::records::changed;
use crate::git::reflog::{HeadMove, stashes_with_messages};
use crate::git::reflog_only::without_children;
use crate::git::refs;
use crate::mission::outcome::NotOnBranch;
use crate::mission::words::count;

/// Maximum number of separate lines of commits that are examined one by one.
pub(super) const MOST_TIPS: usize = 24;
/// Maximum number of commits that are checked one by one with libgit2.
const MOST_BY_HAND: usize = 64;

impl WorkScan<'_> {
    /// Lists commits that were made in this worktree and that the branch does not contain.
    pub(super) fn commits(&self) -> Result<Vec<NotOnBranch>, IndexError> {
        let repo = self.examined.repo;
        let mut made = self.made_here();
        made.extend(self.status.head.clone().filter(|_| self.status.branch.as_deref() != Some(self.branch)));
        made.extend(self.inside.iter().filter_map(|it| it.head.clone()));
        made.extend(own_clone::nested(repo, self.examined.worktree)?);
        if self.branch != self.examined.branch {
            made.extend(branch_commit(&repo.checkout(), self.examined.branch)?);
        }
        let known: Vec<&str> = self.tip.iter().map(String::as_str).chain([self.examined.base]).collect();
        if made.len() <= MOST_BY_HAND {
            let is_known =
                |id: &String| known.iter().any(|whole| refs::is_ancestor(repo.root(), id, whole) == Some(true));
            made.retain(|id| !is_known(id));
        }
        if made.is_empty() {
            return Ok(Vec::new());
        }
        let hidden = self.known_before(&known)?;
        let input: String =
            made.iter().map(|id| format!("{id}\n")).chain(hidden.iter().map(|id| format!("^{id}\n"))).collect();
        let listed = ["rev-list", "--topo-order", "--parents", "--ignore-missing", "--stdin"];
        let listed = repo.read().args(listed).input(input).text()?;
        let mut tips = without_children(&listed);
        let others = tips.split_off(tips.len().min(MOST_TIPS));
        let mut parts = Vec::new();
        for tip in tips {
            parts.extend(self.commit(&tip, &hidden)?);
        }
        if !others.is_empty() {
            let what = format!("{} that were not examined", count(others.len(), "more commit"));
            let how = format!("`git log COMMIT` for each, then `git merge` the ones to keep on branch {}", self.branch);
            parts.push(part(what, names(&others), how));
        }
        Ok(parts)
    }

    /// Returns the commits that were made here according to the reflog, except those replaced by an amendment or a
    /// rebase.
    fn made_here(&self) -> BTreeSet<String> {
        let made = self.moves.iter().filter(|it| it.created_commit()).map(|it| it.new.clone());
        let mut made: BTreeSet<String> = made.collect();
        for superseded in self.moves.iter().filter(|it| it.replaced_commit()) {
            made.remove(&superseded.old);
        }
        made
    }

    /// Returns the `known` commits, those that existed before the work, and the current HEAD of the main checkout.
    fn known_before(&self, known: &[&str]) -> Result<BTreeSet<String>, CommandError> {
        let mut hidden: BTreeSet<String> = known.iter().map(|id| (*id).to_owned()).collect();
        if let Some(before) = self.examined.before {
            hidden.extend(before.head.iter().chain(before.refs.values()).filter(|id| is_full_id(id)).cloned());
        }
        hidden.extend(resolve_commit(&self.examined.repo.checkout(), "HEAD")?);
        Ok(hidden)
    }

    fn commit(&self, tip: &str, hidden: &BTreeSet<String>) -> Result<Option<NotOnBranch>, CommandError> {
        let repo = self.examined.repo;
        let holders = repo.read().args(["for-each-ref", "--format=%(refname)", "--contains", tip]).text()?;
        let in_clone = holders.lines().find_map(own_clone::name_in_clone);
        let holder = holders.lines().find(|name| !name.starts_with("refs/orchestrator/"));
        let at_head = self.status.head.as_deref() == Some(tip) && self.status.branch.is_none();
        if holder.is_none() && in_clone.is_none() && !at_head {
            // Skips a commit that was undone and committed again: the branch's own history contains all of its file
            // states.
            let branch = self.tip.as_deref().unwrap_or(self.examined.base);
            let states =
                ["diff", "-z", "--raw", "--no-renames", "--no-abbrev", "--no-ext-diff", "--ignore-submodules=none"];
            let states = repo.read().args(states).arg(format!("{branch}...{tip}")).output()?;
            let history = ["log", "-z", "--format=", "--raw", "--no-renames", "--no-abbrev", "--diff-merges=separate"];
            let history = repo.read().args(history).args([branch, "--not", self.examined.base]).output()?;
            if states.code == Some(0) && new_states(&states.stdout).is_subset(&new_states(&history.stdout)) {
                return Ok(None);
            }
        }
        let hidden: String = hidden.iter().map(|id| format!("^{id}\n")).collect();
        let number = repo.read().args(["rev-list", "--count", "--ignore-missing", "--stdin"]);
        let number = number.input(format!("{tip}\n{hidden}")).text()?;
        let commits = count(number.parse().unwrap_or(1), "commit");
        let (what, place) = match holder {
            Some(name) => match name.strip_prefix("refs/heads/") {
                Some(branch) => (format!("{commits} on branch {branch}"), format!("branch {branch}, commit {tip}")),
                None => (format!("{commits} at {name}"), format!("{name}, commit {tip}")),
            },
            None if in_clone.is_some() => {
                let name = in_clone.unwrap_or_default();
                let name = name.strip_prefix("refs/heads/").map_or_else(|| name.clone(), |it| format!("branch {it}"));
                (format!("{commits} on {name} of its clone"), format!("commit {tip}"))
            }
            None if at_head => (format!("{commits} on a detached HEAD"), format!("commit {tip}")),
            None => (format!("{commits} that only the reflog of its worktree names"), format!("commit {tip}")),
        };
        let branch = self.branch;
        let how = match &self.tip {
            Some(own) => {
                let is_related = repo.read().args(["merge-base", own, tip]).succeeds()?;
                let option = if is_related { "" } else { "--allow-unrelated-histories " };
                format!("`git switch {branch} && git merge {option}{tip}` in {}", shown(self.examined.worktree))
            }
            None => format!("its branch is gone: `git branch {branch} {tip}`"),
        };
        Ok(Some(part(what, place, how)))
    }

    /// Lists the tags of the worker's clone that the user has not taken.
    pub(super) fn tags(&self) -> Result<Vec<NotOnBranch>, IndexError> {
        let tags = own_clone::tags(self.examined.repo, self.examined.worktree)?;
        let tag = |(name, id): (String, String)| {
            let how = format!("`git update-ref refs/tags/{name} {id}` in {}", shown(self.examined.repo.root()));
            part(format!("the tag {name} of its clone"), format!("object {id}"), how)
        };
        Ok(tags.into_iter().map(tag).collect())
    }

    /// Lists the worker's stashes. All worktrees share one list of stashes; a stash's message names the branch that it
    /// was made on.
    pub(super) fn stashes(&self) -> Result<Vec<NotOnBranch>, IndexError> {
        let before = self.examined.before.map(|before| before.stashes.as_slice()).unwrap_or_default();
        let mut parts = Vec::new();
        for (commit, message) in stashes_with_messages(self.examined.repo)? {
            if before.contains(&commit) || !self.is_own_stash(&commit, &message)? {
                continue;
            }
            let how = format!("`git stash apply {commit}` in {}, then commit it", shown(self.examined.worktree));
            parts.push(part(format!("a stash ({message})"), format!("commit {commit}"), how));
        }
        for (commit, message) in own_clone::stashes(self.examined.repo, self.examined.worktree)? {
            let how = format!("`git stash apply {commit}` in {}, then commit it", shown(self.examined.worktree));
            parts.push(part(format!("a stash ({message})"), format!("commit {commit}"), how));
        }
        Ok(parts)
    }

    fn is_own_stash(&self, commit: &str, message: &str) -> Result<bool, CommandError> {
        let on = |branch: &str| {
            message.starts_with(&format!("WIP on {branch}:")) || message.starts_with(&format!("On {branch}:"))
        };
        let names = self.moves.iter().flat_map(HeadMove::branches).chain([self.branch, self.examined.branch]);
        if names.into_iter().any(on) {
            return Ok(true);
        }
        if !on("(no branch)") {
            return Ok(false);
        }
        let parent = resolve_commit(&self.examined.repo.checkout(), &format!("{commit}^1"))?;
        let was_here = |id: &String| id != self.examined.base && self.moves.iter().any(|it| it.new == *id);
        Ok(parent.is_some_and(|parent| was_here(&parent) || self.was_detached_at(&parent)))
    }

    /// Returns whether HEAD was at this commit and on no branch. The next checkout then began at a commit's id.
    fn was_detached_at(&self, commit: &str) -> bool {
        let is_detached_after = |at: usize| {
            let next = self.moves[at + 1..].iter().find_map(|it| it.branches().first().copied());
            next.map_or(self.status.branch.is_none(), is_full_id)
        };
        self.moves.iter().enumerate().any(|(at, it)| it.new == commit && is_detached_after(at))
    }
}

/// Returns the new mode, new id and path of each record.
fn new_states(raw: &[u8]) -> HashSet<(&str, &str, &Path)> {
    changed(raw).map(|it| (it.new_mode, it.new_id, it.path)).collect()
}
