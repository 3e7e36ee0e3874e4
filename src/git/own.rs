//! What of a branch is its worker's own, seen from the branch that it is to come into: what that branch has already as other
//! commits (squashed, picked), and what its user has taken back from it since the worker began.
//!
//! Git's history alone does not tell: a squash leaves no link, and commits that were dropped by a reset or a rebase look like
//! new ones. The worker's base, the records of earlier integrations and the reflogs do.

use std::collections::{HashMap, HashSet};

use super::command::CommandError;
use super::integrate::contains;
use super::refs::{self, Logged};
use super::repository::Repository;

/// What is known of a worker beyond its branch.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Where it began.
    pub base: Option<String>,
    /// That was where the target stood then, so that all before it was on the target.
    pub from_target: bool,
    /// Seconds since 1970.
    pub began: i64,
    /// Its own branch, and those that it builds on.
    pub branches: Vec<String>,
    /// What of it, and of those that it builds on, came into the target.
    pub brought: Vec<Brought>,
}

/// An integration into the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brought {
    /// Where the branch stood.
    pub source: String,
    /// With which it came in.
    pub commit: String,
    /// It was the worker's own branch, and not one that it builds on.
    pub own: bool,
}

/// Commits of a branch that are not in its target and not to come in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Foreign {
    /// The target has the changes up to these.
    pub had: Vec<String>,
    /// The target's user has taken back all up to these.
    pub taken_back: Vec<String>,
    /// All of those, oldest first.
    pub dropped: Vec<String>,
    /// Of what it was built on, and not taken back: they come in with it.
    pub along: Vec<String>,
}

/// Looks what of `tip` is not to come into the branch `target`, which stands at `onto`.
pub fn foreign(repo: &Repository, target: &str, onto: &str, tip: &str, known: &Known) -> Result<Foreign, CommandError> {
    let fresh = Fresh::of(repo, tip, onto)?;
    if fresh.parents.is_empty() {
        return Ok(Foreign::default());
    }
    let had: Vec<String> =
        known.brought.iter().filter(|it| is_had(repo, onto, tip, &fresh, it)).map(|it| it.source.clone()).collect();
    // Its own branch comes first, then those that it builds on.
    let mut made = HashSet::new();
    let mut own = HashSet::new();
    for (at, branch) in known.branches.iter().enumerate() {
        let there: Vec<String> = refs::log(repo, branch)?.into_iter().filter(is_made_there).map(|it| it.to).collect();
        made.extend(there.iter().cloned());
        own.extend(there.into_iter().filter(|_| at == 0));
    }
    let taken_back = taken_back(repo, target, onto, tip, known, &fresh, &made)?;
    let dropped = fresh.up_to(&taken_back);
    let settled = fresh.up_to(&had);
    let below = fresh.up_to(known.base.as_slice());
    let is_along = |it: &&String| below.contains(*it) && !own.contains(*it);
    let along = fresh.order.iter().filter(is_along).filter(|it| !dropped.contains(*it) && !settled.contains(*it));
    Ok(Foreign {
        along: along.cloned().collect(),
        dropped: fresh.order.iter().filter(|it| dropped.contains(*it)).cloned().collect(),
        had,
        taken_back,
    })
}

/// Commits that the one side has and the other has not, with their parents.
struct Fresh {
    /// Oldest first.
    order: Vec<String>,
    parents: HashMap<String, Vec<String>>,
}

impl Fresh {
    fn of(repo: &Repository, tip: &str, onto: &str) -> Result<Self, CommandError> {
        let listed = match refs::only_in(repo.root(), tip, onto) {
            Some(listed) => listed,
            None => {
                let args = ["rev-list", "--topo-order", "--reverse", "--parents", tip, "--not", onto];
                let text = repo.read().args(args).text()?;
                let ids = |line: &str| {
                    let mut ids = line.split(' ').map(str::to_owned);
                    Some((ids.next()?, ids.collect()))
                };
                text.lines().filter_map(ids).collect()
            }
        };
        Ok(Self { order: listed.iter().map(|(id, _)| id.clone()).collect(), parents: listed.into_iter().collect() })
    }

    fn has(&self, commit: &str) -> bool {
        self.parents.contains_key(commit)
    }

    /// These and all before them.
    fn up_to(&self, tips: &[String]) -> HashSet<&String> {
        let mut found = HashSet::new();
        let mut left: Vec<&String> = tips.iter().collect();
        while let Some((id, parents)) = left.pop().and_then(|id| self.parents.get_key_value(id)) {
            if found.insert(id) {
                left.extend(parents);
            }
        }
        found
    }

    /// Those that nothing among them comes after.
    fn newest(&self, of: &HashSet<&String>) -> Vec<String> {
        let below: HashSet<&String> = of.iter().flat_map(|id| &self.parents[*id]).collect();
        self.order.iter().filter(|id| of.contains(id) && !below.contains(id)).cloned().collect()
    }
}

/// What came in as other commits, which are still there and which the branch has not merged back.
fn is_had(repo: &Repository, onto: &str, tip: &str, fresh: &Fresh, brought: &Brought) -> bool {
    (brought.own || fresh.has(&brought.source))
        && contains(repo, onto, &brought.commit)
        && !contains(repo, onto, &brought.source)
        && !contains(repo, tip, &brought.commit)
}

fn taken_back(
    repo: &Repository,
    target: &str,
    onto: &str,
    tip: &str,
    known: &Known,
    fresh: &Fresh,
    own: &HashSet<String>,
) -> Result<Vec<String>, CommandError> {
    let base = known.base.as_ref().filter(|base| fresh.has(base));
    let log = refs::log(repo, target)?;
    // Where the branch's own log is gone, nobody can tell its own commits from others that were on the target.
    let was_target = log.iter().filter(|it| !own.is_empty() && fresh.has(&it.to) && !own.contains(&it.to));
    let mut tips: Vec<String> = was_target.map(|it| it.to.clone()).collect();
    tips.extend(base.filter(|_| known.from_target).cloned());
    let mut dropped = fresh.up_to(&tips);
    if base.is_some() {
        let before = log.iter().filter(|it| it.at <= known.began && !own.contains(&it.to) && !fresh.has(&it.to));
        let never = never_on(repo, tip, onto, before)?;
        let below = fresh.up_to(known.base.as_slice());
        dropped.extend(never.iter().flat_map(|never| below.iter().filter(|it| !never.contains(**it)).copied()));
    }
    Ok(fresh.newest(&dropped))
}

/// Commits that were neither before nor are now on the target; `None`: it was never elsewhere.
fn never_on<'a>(
    repo: &Repository,
    tip: &str,
    onto: &str,
    before: impl Iterator<Item = &'a Logged>,
) -> Result<Option<HashSet<String>>, CommandError> {
    let former: HashSet<&String> = before.map(|it| &it.to).collect();
    if former.is_empty() {
        return Ok(None);
    }
    let lines: String = former.iter().map(|it| format!("^{it}\n")).collect();
    let git = repo.read().args(["rev-list", "--ignore-missing", "--stdin", tip, "--not", onto]);
    Ok(Some(git.input(lines).text()?.lines().map(str::to_owned).collect()))
}

/// What people call these commits: short ids and titles, a few of them.
pub fn titles(repo: &Repository, commits: &[String]) -> Result<String, CommandError> {
    const NAMED: usize = 3;
    let args = ["log", "--no-walk=unsorted", "--no-show-signature", "--format=%h %<(40,trunc)%s"];
    let shown = repo.read().args(args).args(commits.iter().take(NAMED)).text()?;
    let named: Vec<&str> = shown.lines().map(str::trim).collect();
    let more = commits.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Ok(format!("{}{more}", named.join(", ")))
}

/// A commit that was made on the branch, and did not come there by a move of the branch to another's commit.
fn is_made_there(logged: &Logged) -> bool {
    let why = logged.why.as_str();
    let moved = ["branch:", "reset:", "clone:"].iter().any(|it| why.starts_with(it)) || why.ends_with("Fast-forward");
    let rebased_to = why.rsplit_once(" onto ").is_some_and(|(_, onto)| onto == logged.to);
    !why.is_empty() && !moved && !rebased_to
}

#[cfg(test)]
mod tests;
