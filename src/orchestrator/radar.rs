//! The conflict check: which workers' branches do not merge cleanly into the integration branch, or with each other, as
//! they are now. It runs in the background, one check at a time, and only when a branch has moved. Its results are
//! hints for the boss. No decision depends on them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::actor::Actor;
use super::answers::{Collision, Unchecked};
use super::mail::Ask;
use crate::git::integrate::CommitGraph;
use crate::git::radar::{self, CommitPair, MergeResult, RefStamp};
use crate::git::{CommandError, Repository};
use crate::mission::hint::with_hints;
use crate::mission::id::{ServerId, WorkerId};
use crate::mission::lifecycle::{Ending, WorkerStatus};
use crate::mission::race;
use crate::mission::registry::{Registry, Worker};
use crate::store::state_file::SavedState;

/// Maximum number of branches that are checked with the integration branch.
const MOST: usize = 256;
/// Maximum number of branches that are checked with each other: the number of pairs grows with the square.
const MOST_WITH_EACH_OTHER: usize = 32;

/// Results of the conflict check. The branch of a worker that is not listed merges cleanly, or does not exist.
#[derive(Debug, Default, PartialEq)]
pub struct Collisions {
    of: HashMap<WorkerId, Vec<Collision>>,
    unchecked: HashMap<WorkerId, Unchecked>,
}

/// Results of earlier checks. A running check owns them.
#[derive(Debug, Default)]
pub struct Radar {
    known: HashMap<CommitPair, Option<MergeResult>>,
    /// Parts of conflicts that are the pair's own, by the commit of the target and the pair.
    own: HashMap<(String, CommitPair), Own>,
    last: Option<Scene>,
}

/// The part of a pair's conflict that is its own, and not one with the target.
#[derive(Debug, Clone)]
enum Own {
    /// The whole conflict: both branches left the target at the same commit, or are unrelated to it.
    All,
    Paths(Vec<String>),
    /// A part that cannot be separated from the conflicts of each branch with the target.
    Mixed,
}

/// The input of a check.
#[derive(Debug)]
struct Scene {
    watched: Vec<Arc<Worker>>,
    /// Workers that are not checked at all, and why.
    beyond: Vec<(WorkerId, Unchecked)>,
    /// Branches of the watched workers, and the target.
    branches: Vec<String>,
    target: String,
    stamp: RefStamp,
}

impl Scene {
    fn is_like(&self, other: &Scene) -> bool {
        let same = |(one, other)| Arc::ptr_eq(one, other);
        self.stamp == other.stamp
            && self.branches == other.branches
            && self.beyond == other.beyond
            && self.watched.iter().zip(&other.watched).all(same)
    }
}

impl Actor {
    pub(super) fn look_at_radar(&mut self) {
        if self.context.visitor {
            return;
        }
        let Some(repository) = self.context.repository.clone() else { return };
        let watched = watched(self.registry());
        let is_ours = |worker: &Arc<Worker>| leads(self.registry(), &self.context.server, worker);
        if watched.is_empty() || !watched.iter().any(is_ours) {
            self.collisions = Collisions::default();
            return;
        }
        let target_of = |worker: &Arc<Worker>| self.branch_of(worker);
        // A check has one target: that of the first watched worker that this server checks. Work for other branches
        // stays unchecked.
        let Some(target) = watched.iter().find(|worker| is_ours(worker)).and_then(target_of) else { return };
        let Some(radar) = &self.radar else { return };
        let (mut watched, others): (Vec<_>, Vec<_>) =
            watched.into_iter().partition(|worker| target_of(worker).as_ref() == Some(&target));
        let too_many = watched.split_off(watched.len().min(MOST));
        let named = |why: Unchecked| move |worker: Arc<Worker>| (worker.id.clone(), why);
        let others = others.into_iter().map(named(Unchecked::OtherTarget));
        let beyond = others.chain(too_many.into_iter().map(named(Unchecked::Anything))).collect();
        let branch_of = |worker: &Arc<Worker>| worker.branch().map(str::to_owned);
        let branches: Vec<String> = watched.iter().filter_map(branch_of).chain([target.clone()]).collect();
        // Here, and before the branches are read. An idle server then starts no thread for this, and a branch that
        // moves during a check is noticed at the next.
        let scene = Scene { stamp: radar::stamp(&repository, &branches), watched, beyond, branches, target };
        if radar.last.as_ref().is_some_and(|last| last.is_like(&scene)) {
            return;
        }
        let Some(mut radar) = self.radar.take() else { return };
        let mailbox = self.mailbox.clone();
        self.runtime.spawn_blocking(move || {
            let scratch = radar::scratch();
            let looked = match &scratch {
                Ok(scratch) => radar.look(&repository, scene, scratch.path()).map_err(|error| with_hints(&error)),
                Err(error) => Err(with_hints(error)),
            };
            let found = looked.inspect_err(|why| tracing::debug!(why, "could not look which branches collide"));
            let _ = mailbox.send(Ask::Radar { radar: Box::new(radar), found: found.ok() });
            // No caller waits for this.
            drop(scratch);
        });
    }

    pub(super) fn note_radar(&mut self, radar: Radar, found: Option<Collisions>) {
        self.radar = Some(radar);
        if let Some(found) = found.filter(|found| *found != self.collisions) {
            self.collisions = found;
            self.write_state_file_soon();
        }
    }

    pub(super) fn collisions_of(&self, worker: &Worker) -> Vec<Collision> {
        self.collisions.of.get(&worker.id).cloned().unwrap_or_default()
    }

    pub(super) fn unchecked_of(&self, worker: &Worker) -> Option<Unchecked> {
        self.collisions.unchecked.get(&worker.id).copied()
    }
}

/// Returns the workers whose branches are to be merged, or may become so: running ones first, then settled ones, then
/// integrated ones, each newest first.
fn watched(registry: &Registry) -> Vec<Arc<Worker>> {
    let mut watched: Vec<_> = registry.workers().rev().filter(|worker| counts(worker)).cloned().collect();
    watched.sort_by_key(|worker| (!worker.status.is_live(), worker.integrated.is_some()));
    watched
}

/// Returns whether a branch is checked. Work that failed or lost its race does not conflict with later merges.
fn counts(worker: &Worker) -> bool {
    let completed = worker.status == WorkerStatus::Settled(Ending::Completed);
    let has_work = completed && worker.last().is_some_and(|last| last.changes.commits > 0);
    let is_here = worker.repository.is_none() && worker.branch().is_some();
    is_here && !race::has_lost(worker) && (worker.status.is_live() || has_work)
}

/// Returns whether this tip of a worker's branch was integrated. A branch with later commits is checked again.
fn is_integrated(worker: &Worker, tip: &String) -> bool {
    worker.integrated.as_ref().is_some_and(|it| it.source.as_ref().is_none_or(|source| source == tip))
}

/// Returns whether this server checks a worker: it owns the lease, or the lease owner is gone. One server is enough for
/// each.
fn leads(registry: &Registry, server: &ServerId, worker: &Worker) -> bool {
    worker.lease == *server || !registry.servers.contains_key(&worker.lease)
}

type Branch<'a> = (&'a Arc<Worker>, &'a String);

impl Radar {
    fn look(&mut self, repository: &Repository, scene: Scene, scratch: &Path) -> Result<Collisions, CommandError> {
        let tips = radar::tips(repository, &scene.branches)?;
        let Some(onto) = tips.get(&scene.target) else { return Ok(Collisions::default()) };
        let mut look = Look {
            repository,
            history: CommitGraph::of(repository),
            target: &scene.target,
            onto,
            scratch,
            former: std::mem::take(self),
            now: self,
            told: HashMap::new(),
        };
        let with_commits = scene.watched.iter().filter_map(|worker| {
            let tip = tips.get(worker.branch()?)?;
            (worker.base_commit.as_ref() != Some(tip) && !is_integrated(worker, tip)).then_some((worker, tip))
        });
        let branches = look.unmerged(with_commits.collect())?;
        let (paired, alone) = branches.split_at(branches.len().min(MOST_WITH_EACH_OTHER));
        let pairs = pairs(paired);
        look.learn(pairs.iter().map(|(pair, ..)| pair.clone()).collect())?;

        let mut found = Collisions::default();
        for (worker, tip) in &branches {
            let paths = look.conflicts_with_target(tip);
            found.note(worker, &scene.target, true, paths);
        }
        for (pair, one, other) in &pairs {
            let paths = look.own_conflicts(pair, paired)?;
            found.note(one, other.id.as_str(), false, &paths);
            found.note(other, one.id.as_str(), false, &paths);
        }
        found.unchecked.extend(alone.iter().map(|(worker, _)| (worker.id.clone(), Unchecked::OtherWorkers)));
        found.unchecked.extend(scene.beyond.iter().cloned());
        self.last = Some(scene);
        Ok(found)
    }
}

impl Collisions {
    /// Returns the results that a server has written down.
    pub(super) fn told(told: &SavedState) -> Self {
        let mut collisions = Self::default();
        for (worker, task) in told.by_worker() {
            let with: Vec<_> = task.conflicts_with.iter().cloned().map(Collision::from).collect();
            if !with.is_empty() {
                collisions.of.insert(worker.clone(), with);
            }
            collisions.unchecked.extend(task.conflicts_unchecked.map(|unchecked| (worker.clone(), unchecked)));
        }
        collisions
    }

    fn note(&mut self, worker: &Worker, with: &str, is_integration_branch: bool, paths: &[String]) {
        if !paths.is_empty() {
            let collision = Collision { with: with.to_owned(), is_integration_branch, paths: paths.to_vec() };
            self.of.entry(worker.id.clone()).or_default().push(collision);
        }
    }
}

/// A single check. It takes over earlier results as far as they are needed again.
struct Look<'a> {
    repository: &'a Repository,
    history: CommitGraph<'a>,
    target: &'a str,
    /// The commit of the target.
    onto: &'a String,
    scratch: &'a Path,
    former: Radar,
    now: &'a mut Radar,
    /// The paths that are reported for each pair.
    told: HashMap<CommitPair, Vec<String>>,
}

impl Look<'_> {
    fn with_target(&self, tip: &str) -> CommitPair {
        (self.onto.clone(), tip.to_owned())
    }

    /// Queries git for the pairs without a known result.
    fn learn(&mut self, pairs: Vec<CommitPair>) -> Result<(), CommandError> {
        let mut new = Vec::new();
        for pair in pairs {
            match self.former.known.remove_entry(&pair) {
                Some((pair, tried)) => drop(self.now.known.insert(pair, tried)),
                None => new.push(pair),
            }
        }
        let tried = radar::merge_pairs(self.repository, self.target, &new, self.scratch)?;
        self.now.known.extend(new.into_iter().zip(tried));
        Ok(())
    }

    /// Returns the branches whose merge would change the target. Branches that were merged or squashed, by anyone, are
    /// no obstacle.
    fn unmerged<'b>(&mut self, branches: Vec<Branch<'b>>) -> Result<Vec<Branch<'b>>, CommandError> {
        self.learn(branches.iter().map(|(_, tip)| self.with_target(tip)).collect())?;
        let tree = radar::tree_of(self.repository, self.onto)?;
        let is_in = |tried: &MergeResult| tried.conflicts.is_empty() && tried.tree == tree;
        let known = |tip: &str| self.now.known.get(&self.with_target(tip)).and_then(Option::as_ref);
        Ok(branches.into_iter().filter(|(_, tip)| !known(tip).is_some_and(is_in)).collect())
    }

    fn conflicts(&self, pair: &CommitPair) -> &[String] {
        self.now.known.get(pair).and_then(Option::as_ref).map_or(&[], |tried| &tried.conflicts)
    }

    fn conflicts_with_target(&self, tip: &str) -> &[String] {
        self.conflicts(&self.with_target(tip))
    }

    /// Returns the paths of a conflict that are the pair's own. They exclude conflicts with the target, and those that
    /// are reported with a third branch that one of the two contains.
    fn own_conflicts(&mut self, pair: &CommitPair, branches: &[Branch<'_>]) -> Result<Vec<String>, CommandError> {
        if self.conflicts(pair).is_empty() {
            return Ok(Vec::new());
        }
        if let Some(known) = self.told.get(pair) {
            return Ok(known.clone());
        }
        let own = self.own(pair)?;
        let mut paths = match &own {
            Own::All | Own::Mixed => self.conflicts(pair).to_vec(),
            Own::Paths(paths) => paths.clone(),
        };
        if matches!(own, Own::Mixed) {
            for tip in [&pair.0, &pair.1] {
                let others = self.conflicts_with_target(tip);
                paths.retain(|path| !others.contains(path));
            }
        }
        for (holder, other) in [(&pair.0, &pair.1), (&pair.1, &pair.0)] {
            for (_, third) in branches.iter().filter(|(_, third)| *third != holder && *third != other) {
                let inner = ordered(third, other);
                let raw = self.conflicts(&inner);
                if paths.iter().any(|path| raw.contains(path)) && self.history.contains(holder, third) {
                    // Ends, since the third is an ancestor of the holder.
                    let theirs = self.own_conflicts(&inner, branches)?;
                    paths.retain(|path| !theirs.contains(path));
                }
            }
        }
        self.told.insert(pair.clone(), paths.clone());
        Ok(paths)
    }

    fn own(&mut self, pair: &CommitPair) -> Result<Own, CommandError> {
        let key = (self.onto.clone(), pair.clone());
        let own = match self.former.own.remove(&key) {
            Some(own) => own,
            None => self.ask_own(pair)?,
        };
        self.now.own.insert(key, own.clone());
        Ok(own)
    }

    fn ask_own(&self, pair: &CommitPair) -> Result<Own, CommandError> {
        let fork = |tip: &str| radar::merge_base(self.repository, self.onto, tip);
        let (Some(one), Some(other)) = (fork(&pair.0)?, fork(&pair.1)?) else { return Ok(Own::All) };
        if one == other {
            return Ok(Own::All);
        }
        let own = radar::own_conflicts(self.repository, self.target, pair, (&one, &other), self.scratch)?;
        Ok(own.map_or(Own::Mixed, Own::Paths))
    }
}

/// Returns all pairs of branches, except rivals for the same task.
fn pairs<'a>(branches: &[Branch<'a>]) -> Vec<(CommitPair, &'a Arc<Worker>, &'a Arc<Worker>)> {
    let mut pairs = Vec::new();
    for (at, (worker, tip)) in branches.iter().enumerate() {
        let others = branches[at + 1..].iter().filter(|(other, _)| other.task() != worker.task());
        pairs.extend(others.map(|(other, others_tip)| (ordered(tip, others_tip), *worker, *other)));
    }
    pairs
}

/// Returns a pair in a fixed order, whatever the order of the list.
fn ordered(one: &str, other: &str) -> CommitPair {
    let (first, second) = if one < other { (one, other) } else { (other, one) };
    (first.to_owned(), second.to_owned())
}
