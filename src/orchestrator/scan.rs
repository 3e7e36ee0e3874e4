//! The scan for collisions: which workers' branches do not merge cleanly into the integration branch, or with each
//! other, as they are now. It runs in the background, one scan at a time, and only when a branch has moved. Its results
//! are hints for the boss. No decision depends on them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::answers::{Unchecked, With};
use super::collisions::{Collisions, Own, ScanCache, Scene};
use super::context::Context;
use super::effect::Effect;
use super::integration_branch;
use super::mailbox::Ask;
use crate::git::integrate::CommitGraph;
use crate::git::radar::{self, CommitPair, MergeResult};
use crate::git::{CommandError, Repository};
use crate::mission::hint::with_hints;
use crate::mission::id::ServerId;
use crate::mission::lifecycle::{Ending, WorkerStatus};
use crate::mission::race;
use crate::mission::registry::{Registry, Worker};

/// Maximum number of branches that are checked with the integration branch.
const MOST: usize = 256;
/// Maximum number of branches that are checked with each other: the number of pairs grows with the square.
const MOST_WITH_EACH_OTHER: usize = 32;

/// The scans of this server, one at a time.
pub(super) struct Scans {
    /// `None` while a scan is running.
    cache: Option<ScanCache>,
    found: Collisions,
}

impl Scans {
    pub fn new(found: Collisions) -> Self {
        Self { cache: Some(ScanCache::default()), found }
    }

    pub fn found(&self) -> &Collisions {
        &self.found
    }

    /// Starts a scan if a branch has moved since the last one.
    pub fn check(
        &mut self,
        registry: &Registry,
        context: &Context,
        mailbox: &mpsc::UnboundedSender<Ask>,
    ) -> Vec<Effect> {
        let Some(repository) = context.repository.clone().filter(|_| !context.is_one_shot) else { return Vec::new() };
        let watched = watched(registry);
        let is_ours = |worker: &Arc<Worker>| is_checked_by(registry, &context.server, worker);
        if !watched.iter().any(is_ours) {
            self.found = Collisions::default();
            return Vec::new();
        }
        let Some(cache) = &self.cache else { return Vec::new() };
        let set = context.settings.integration_branch.as_deref();
        let target_of = |worker: &Arc<Worker>| integration_branch::of_worker(set, Some(worker));
        // A scan has one target: that of the first watched worker that this server checks. Work for other branches
        // stays unchecked.
        let Some(target) = watched.iter().find(|worker| is_ours(worker)).and_then(target_of) else {
            return Vec::new();
        };
        // The stamp is read here, and before the branches are. An idle server then starts no thread for this, and a
        // branch that moves during a scan is noticed at the next.
        let scene = scene(&repository, watched, target, target_of);
        if cache.last.as_ref().is_some_and(|last| last.is_like(&scene)) {
            return Vec::new();
        }
        let Some(mut cache) = self.cache.take() else { return Vec::new() };
        let mailbox = mailbox.clone();
        let scan = move || {
            let scratch = radar::scratch();
            let scanned = match &scratch {
                Ok(scratch) => cache.scan(&repository, scene, scratch.path()).map_err(|error| with_hints(&error)),
                Err(error) => Err(with_hints(error)),
            };
            let found = scanned.inspect_err(|why| tracing::debug!(why, "cannot determine which branches collide"));
            let _ = mailbox.send(Ask::Scanned { cache: Box::new(cache), found: found.ok() });
            // The folder is removed after the report, which waits for nothing.
            drop(scratch);
        };
        vec![Effect::spawn(async move { drop(tokio::task::spawn_blocking(scan).await) })]
    }

    /// Stores the results of a scan. `found` is `None` if git failed.
    pub fn note(&mut self, cache: ScanCache, found: Option<Collisions>) -> Vec<Effect> {
        self.cache = Some(cache);
        match found.filter(|found| *found != self.found) {
            Some(found) => {
                self.found = found;
                vec![Effect::WriteState]
            }
            None => Vec::new(),
        }
    }
}

fn scene(
    repository: &Repository,
    watched: Vec<Arc<Worker>>,
    target: String,
    target_of: impl Fn(&Arc<Worker>) -> Option<String>,
) -> Scene {
    let (mut watched, others): (Vec<_>, Vec<_>) =
        watched.into_iter().partition(|worker| target_of(worker).as_ref() == Some(&target));
    let too_many = watched.split_off(watched.len().min(MOST));
    let named = |why: Unchecked| move |worker: Arc<Worker>| (worker.id.clone(), why);
    let others = others.into_iter().map(named(Unchecked::OtherTarget));
    let beyond = others.chain(too_many.into_iter().map(named(Unchecked::Anything))).collect();
    let branch_of = |worker: &Arc<Worker>| worker.branch().map(str::to_owned);
    let branches: Vec<String> = watched.iter().filter_map(branch_of).chain([target.clone()]).collect();
    Scene { stamp: radar::stamp(repository, &branches), watched, beyond, branches, target }
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
fn is_checked_by(registry: &Registry, server: &ServerId, worker: &Worker) -> bool {
    worker.lease == *server || !registry.servers.contains_key(&worker.lease)
}

type WorkerBranch<'a> = (&'a Arc<Worker>, &'a String);

impl ScanCache {
    fn scan(&mut self, repository: &Repository, scene: Scene, scratch: &Path) -> Result<Collisions, CommandError> {
        let tips = radar::tips(repository, &scene.branches)?;
        let Some(onto) = tips.get(&scene.target) else { return Ok(Collisions::default()) };
        let mut scan = ConflictScan {
            repository,
            history: CommitGraph::of(repository),
            target: &scene.target,
            onto,
            scratch,
            former: std::mem::take(self),
            now: self,
            reported: HashMap::new(),
        };
        let with_commits = scene.watched.iter().filter_map(|worker| {
            let tip = tips.get(worker.branch()?)?;
            (worker.base_commit.as_ref() != Some(tip) && !is_integrated(worker, tip)).then_some((worker, tip))
        });
        let branches = scan.unmerged(with_commits.collect())?;
        let (paired, alone) = branches.split_at(branches.len().min(MOST_WITH_EACH_OTHER));
        let pairs = pairs(paired);
        scan.learn(pairs.iter().map(|(pair, ..)| pair.clone()).collect())?;

        let mut found = Collisions::default();
        for (worker, tip) in &branches {
            let paths = scan.conflicts_with_target(tip);
            found.note(worker, With::Branch(scene.target.clone()), paths);
        }
        for (pair, one, other) in &pairs {
            let paths = scan.own_conflicts(pair, paired)?;
            found.note(one, With::WorkerId(other.id.to_string()), &paths);
            found.note(other, With::WorkerId(one.id.to_string()), &paths);
        }
        found.note_unchecked(alone.iter().map(|(worker, _)| (worker.id.clone(), Unchecked::OtherWorkers)));
        found.note_unchecked(scene.beyond.iter().cloned());
        self.last = Some(scene);
        Ok(found)
    }
}

/// A running scan. It takes over earlier results as far as they are needed again.
struct ConflictScan<'a> {
    repository: &'a Repository,
    history: CommitGraph<'a>,
    target: &'a str,
    /// The commit of the target.
    onto: &'a String,
    scratch: &'a Path,
    former: ScanCache,
    now: &'a mut ScanCache,
    reported: HashMap<CommitPair, Vec<String>>,
}

impl ConflictScan<'_> {
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
    fn unmerged<'b>(&mut self, branches: Vec<WorkerBranch<'b>>) -> Result<Vec<WorkerBranch<'b>>, CommandError> {
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
    fn own_conflicts(&mut self, pair: &CommitPair, branches: &[WorkerBranch<'_>]) -> Result<Vec<String>, CommandError> {
        if self.conflicts(pair).is_empty() {
            return Ok(Vec::new());
        }
        if let Some(known) = self.reported.get(pair) {
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
        self.reported.insert(pair.clone(), paths.clone());
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
fn pairs<'a>(branches: &[WorkerBranch<'a>]) -> Vec<(CommitPair, &'a Arc<Worker>, &'a Arc<Worker>)> {
    let mut pairs = Vec::new();
    for (at, (worker, tip)) in branches.iter().enumerate() {
        let others = branches[at + 1..].iter().filter(|(other, _)| other.task() != worker.task());
        pairs.extend(others.map(|(other, others_tip)| (ordered(tip, others_tip), *worker, *other)));
    }
    pairs
}

/// Returns a pair in a fixed order, regardless of the order of the list.
fn ordered(one: &str, other: &str) -> CommitPair {
    let (first, second) = if one < other { (one, other) } else { (other, one) };
    (first.to_owned(), second.to_owned())
}
