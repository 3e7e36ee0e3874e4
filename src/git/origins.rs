//! Determines which commits of a worker's branch must not go into its target branch. These are commits whose changes
//! the target already has as other commits (squashed, picked). They are also commits that the user has removed from the
//! target since the worker began.
//!
//! Git's history alone is not enough. A squash leaves no link, and commits dropped by a reset or a rebase look like new
//! ones. The worker's base, the records of earlier integrations and the reflogs supply the rest.

use std::collections::{HashMap, HashSet};

use super::command::CommandError;
use super::integrate::contains;
use super::reflog;
use super::refs::{self, Logged};
use super::repository::Repository;

/// The recorded history of a worker and its branches.
#[derive(Debug, Clone, Default)]
pub struct WorkerHistory {
    /// Commit at which the worker began.
    pub base: Option<String>,
    /// True if the target contained `base` at that time.
    pub from_target: bool,
    /// Unix time at which the worker, or the first of those that it builds on, began.
    pub began: i64,
    /// The worker's own branch, followed by those that it builds on.
    pub branches: Vec<String>,
    /// The branch that the worker was given, if it ended on another one.
    pub assigned: Option<String>,
    /// Integrations into the target of the worker's branch and of those that it builds on.
    pub earlier_integrations: Vec<EarlierIntegration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EarlierIntegration {
    /// Tip of the integrated branch.
    pub source: String,
    /// Commit of the target that integrated it.
    pub commit: String,
    /// True if commits of `source` were left out. They may exist nowhere else.
    pub partial: bool,
    /// True for the worker's own branch, false for one that it builds on.
    pub own: bool,
}

/// The origins of those commits of a branch that are not new work of its worker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommitOrigins {
    /// Commits up to which the target already has the changes.
    pub contained: Vec<String>,
    /// Commits up to which the user removed the history from the target.
    pub withdrawn: Vec<String>,
    /// All commits up to `withdrawn`, oldest first.
    pub dropped: Vec<String>,
    /// Commits of branches that the worker builds on, neither dropped nor already in the target. They are integrated
    /// together with the worker's own.
    pub inherited: Vec<String>,
    /// Commits that the worker has taken from other branches since it began, by branch. They are integrated too.
    pub others: Vec<(String, usize)>,
}

/// Maximum number of other branches that are named.
const MOST_OTHERS: usize = 8;

/// Finds the commits of `tip` that are not new work, for an integration into the branch `target`, which is at `onto`.
pub fn commit_origins(
    repo: &Repository,
    target: &str,
    onto: &str,
    tip: &str,
    known: &WorkerHistory,
) -> Result<CommitOrigins, CommandError> {
    let new = NewCommits::of(repo, tip, onto)?;
    if new.parents.is_empty() {
        return Ok(CommitOrigins::default());
    }
    let contained: Vec<String> = known
        .earlier_integrations
        .iter()
        .filter(|it| is_contained(repo, onto, tip, &new, it))
        .map(|it| it.source.clone())
        .collect();
    // The worker's own branch comes first.
    let mut made = HashSet::new();
    let mut own = HashSet::new();
    for (at, branch) in known.branches.iter().enumerate() {
        let there: Vec<String> =
            reflog::log(repo, branch)?.into_iter().filter(is_created_there).map(|it| it.to).collect();
        made.extend(there.iter().cloned());
        own.extend(there.into_iter().filter(|_| at == 0));
    }
    let withdrawn = withdrawn(repo, target, onto, tip, known, &new, &made)?;
    let dropped = new.up_to(&withdrawn);
    let settled = new.up_to(&contained);
    let below = new.up_to(known.base.as_slice());
    let is_inherited = |it: &&String| below.contains(*it) && !own.contains(*it);
    let is_left_out = |it: &String| dropped.contains(it) || settled.contains(it);
    let inherited = new.order.iter().filter(is_inherited).filter(|it| !is_left_out(it));
    let by_worker = made_by_worker(repo, &new, &below, known)?;
    let is_others = |it: &&String| !by_worker.contains(*it) && !below.contains(*it) && !is_left_out(it);
    let taken: HashSet<&String> = new.order.iter().filter(is_others).collect();
    Ok(CommitOrigins {
        inherited: inherited.cloned().collect(),
        others: holders(repo, target, &new, taken, known)?,
        dropped: new.order.iter().filter(|it| dropped.contains(*it)).cloned().collect(),
        contained,
        withdrawn,
    })
}

/// Returns the commits that were made on the worker's branches, according to their reflogs. A rebase is logged with its
/// last commit only, so the first parents are followed to where the branch came from. All commits if there is no log.
fn made_by_worker<'a>(
    repo: &Repository,
    new: &'a NewCommits,
    below: &HashSet<&String>,
    known: &WorkerHistory,
) -> Result<HashSet<&'a String>, CommandError> {
    let mut log = Vec::new();
    for branch in known.branches.first().into_iter().chain(&known.assigned) {
        log.extend(reflog::log(repo, branch)?);
    }
    if log.is_empty() {
        return Ok(new.parents.keys().collect());
    }
    let (made, moved): (Vec<Logged>, Vec<Logged>) = log.into_iter().partition(is_created_there);
    let onto = made.iter().filter_map(|it| Some(it.why.rsplit_once(" onto ")?.1));
    let origins: HashSet<&str> = moved.iter().map(|it| it.to.as_str()).chain(onto).collect();
    let mut own = HashSet::new();
    for commit in made.iter().map(|it| &it.to) {
        let mut next = Some(commit);
        while let Some((id, parents)) = next.and_then(|id| new.parents.get_key_value(id)) {
            let is_origin = id != commit && origins.contains(id.as_str());
            if is_origin || below.contains(id) || !own.insert(id) {
                break;
            }
            next = parents.first();
        }
    }
    Ok(own)
}

/// Returns which other branches these commits are on, each with their number. Commits that no other branch has are the
/// worker's, made in another way.
fn holders(
    repo: &Repository,
    target: &str,
    new: &NewCommits,
    taken: HashSet<&String>,
    known: &WorkerHistory,
) -> Result<Vec<(String, usize)>, CommandError> {
    let own: Vec<&String> = known.branches.first().into_iter().chain(&known.assigned).collect();
    let is_own = |branch: &str| own.iter().any(|own| *own == branch);
    // Branches without `refs/heads/` or `refs/remotes/`. A remote may have the worker's own one.
    let other = |name: &str| {
        let local = name.strip_prefix("refs/heads/").filter(|branch| *branch != target && !is_own(branch));
        let remote = name.strip_prefix("refs/remotes/");
        let remote = remote.filter(|it| it.split_once('/').is_some_and(|(_, it)| it != "HEAD" && !is_own(it)));
        local.or(remote).map(str::to_owned)
    };
    let mut left = taken;
    let mut found: Vec<(String, usize)> = Vec::new();
    for tip in new.newest(&left).into_iter().take(MOST_OTHERS) {
        let names = ["for-each-ref", "--format=%(refname)", "--contains", &tip, "refs/heads", "refs/remotes"];
        let names = repo.read().args(names).text()?;
        let Some(name) = names.lines().find_map(other) else { continue };
        let with_it = new.up_to(&[tip]);
        let before = left.len();
        left.retain(|it| !with_it.contains(it));
        match found.iter_mut().find(|(branch, _)| *branch == name) {
            Some((_, number)) => *number += before - left.len(),
            None => found.push((name, before - left.len())),
        }
    }
    Ok(found)
}

/// Commits that `tip` has and `onto` lacks, with their parents.
struct NewCommits {
    /// Ids of the commits, oldest first.
    order: Vec<String>,
    parents: HashMap<String, Vec<String>>,
}

impl NewCommits {
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

    /// Returns these commits and all of their ancestors.
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

    /// Returns those commits that are parents of no other one in the set.
    fn newest(&self, of: &HashSet<&String>) -> Vec<String> {
        let below: HashSet<&String> = of.iter().flat_map(|id| &self.parents[*id]).collect();
        self.order.iter().filter(|id| of.contains(id) && !below.contains(id)).cloned().collect()
    }
}

/// Returns whether an earlier integration added the changes as other commits. They must still be in the target, and
/// the branch must not have merged them back.
fn is_contained(repo: &Repository, onto: &str, tip: &str, new: &NewCommits, earlier: &EarlierIntegration) -> bool {
    (earlier.own || new.has(&earlier.source))
        && contains(repo, onto, &earlier.commit)
        && !contains(repo, onto, &earlier.source)
        && !contains(repo, tip, &earlier.commit)
}

fn withdrawn(
    repo: &Repository,
    target: &str,
    onto: &str,
    tip: &str,
    known: &WorkerHistory,
    new: &NewCommits,
    own: &HashSet<String>,
) -> Result<Vec<String>, CommandError> {
    let base = known.base.as_ref().filter(|base| new.has(base));
    let log = reflog::log(repo, target)?;
    // What left the target before the worker began, such as commits that the user moved to a branch, is no longer the
    // target's concern.
    let began = log.iter().position(|it| it.at <= known.began);
    let since = &log[..began.map_or(log.len(), |at| at + 1)];
    // The branch's commits cannot be distinguished from others on the target if its reflog is gone.
    let was_target = since.iter().filter(|it| !own.is_empty() && new.has(&it.to) && !own.contains(&it.to));
    let mut tips: Vec<String> = was_target.map(|it| it.to.clone()).collect();
    tips.extend(base.filter(|_| known.from_target).cloned());
    let mut dropped = new.up_to(&tips);
    if base.is_some() {
        let then = began.map(|at| &log[at].to).filter(|to| !own.contains(*to) && !new.has(to));
        let never = then.map(|then| never_on(repo, tip, onto, then)).transpose()?;
        let below = new.up_to(known.base.as_slice());
        dropped.extend(never.iter().flat_map(|never| below.iter().filter(|it| !never.contains(**it)).copied()));
    }
    Ok(new.newest(&dropped))
}

/// Returns the commits of `tip` that are in neither `onto` nor the commit of the target at which the worker began.
fn never_on(repo: &Repository, tip: &str, onto: &str, then: &str) -> Result<HashSet<String>, CommandError> {
    let never = repo.read().args(["rev-list", "--ignore-missing", tip, "--not", onto, then]).text()?;
    Ok(never.lines().map(str::to_owned).collect())
}

/// Returns the short ids and titles of the first few commits, for messages.
pub fn titles(repo: &Repository, commits: &[String]) -> Result<String, CommandError> {
    const NAMED: usize = 3;
    let args = ["log", "--no-walk=unsorted", "--no-show-signature", "--format=%h %<(40,trunc)%s"];
    let shown = repo.read().args(args).args(commits.iter().take(NAMED)).text()?;
    let named: Vec<&str> = shown.lines().map(str::trim).collect();
    let more = commits.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Ok(format!("{}{more}", named.join(", ")))
}

/// Returns whether the entry is a commit made on the branch, and not a move of the branch to an existing commit.
fn is_created_there(logged: &Logged) -> bool {
    let why = logged.why.as_str();
    let moved =
        ["branch:", "reset:", "clone:", "fetch"].iter().any(|it| why.starts_with(it)) || why.ends_with("Fast-forward");
    let rebased_to = why.rsplit_once(" onto ").is_some_and(|(_, onto)| onto == logged.to);
    !why.is_empty() && !moved && !rebased_to
}

#[cfg(test)]
mod tests;
