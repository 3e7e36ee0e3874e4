//! The current merge state of workers' work, according to git. Records only name the places to check, since a user may
//! have merged by hand or undone a merge. Every view of a worker is updated here before it is shown.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::answers::WorkerView;
use crate::attempt::facts;
use crate::git::merged::{self, MergeQuery, Merged};
use crate::git::origins::EarlierIntegration;
use crate::git::radar::{RefStamp, stamp};
use crate::git::{self, Repository, Trust};
use crate::mission::id::WorkerId;
use crate::mission::registry::{Integrated, Worker};
use crate::mission::spec::Place;

/// A cache of merge states, each valid until a branch moves.
#[derive(Debug, Default)]
pub struct MergedCache {
    known: Mutex<HashMap<WorkerId, (Key, Merged)>>,
    /// Locked while git is queried. A later request finds the answers of an earlier one.
    asking: Mutex<()>,
}

/// A worker, and the branch that its work is to be merged into.
pub(super) type Asked = (Arc<Worker>, Option<String>);

/// The inputs that a cached state depends on.
#[derive(Debug, Clone, PartialEq)]
struct Key {
    stamp: RefStamp,
    integrations: usize,
    attempts: usize,
}

impl MergedCache {
    /// Sets `integrated` of these views to the current state in git. Git is queried only if a branch has moved. Blocks.
    pub fn bring_up_to_date<'a>(
        &self,
        repository: Option<&Repository>,
        views: impl Iterator<Item = &'a mut WorkerView>,
    ) {
        let mut views: Vec<&mut WorkerView> = views.filter(|view| may_be_merged(&view.worker)).collect();
        let workers: Vec<Asked> = views.iter().map(|view| (Arc::clone(&view.worker), view.meant_for.clone())).collect();
        for (view, answer) in views.iter_mut().zip(self.ask(repository, &workers)) {
            view.merge_is_unknown = answer == Merged::Unknown;
            view.worker = with(Arc::clone(&view.worker), &answer);
            view.unmerged = match answer {
                Merged::Partly(rest) => Some(facts::of_branch(rest)),
                _ => None,
            };
        }
    }

    /// Returns the merge states of these workers, in their order. Blocks.
    pub(super) fn ask(&self, repository: Option<&Repository>, workers: &[Asked]) -> Vec<Merged> {
        let mut answers = vec![Merged::No; workers.len()];
        let mut asked: HashMap<Option<PathBuf>, Vec<usize>> = HashMap::new();
        for (at, (worker, _)) in workers.iter().enumerate().filter(|(_, (worker, _))| may_be_merged(worker)) {
            asked.entry(place(worker)).or_default().push(at);
        }
        let trust = repository.map_or_else(Trust::nothing, |it| it.trust.clone());
        for (place, places) in asked {
            let found = place.as_deref().and_then(|place| Repository::discover(place, &trust).ok().flatten());
            let is_ours = place.is_none() || found.as_ref() == repository;
            let Some(repository) = (if is_ours { repository } else { found.as_ref() }) else {
                places.iter().for_each(|at| answers[*at] = Merged::Unknown);
                continue;
            };
            let checked_out = repository.integration_branch().ok();
            let target = |meant_for: &Option<String>| meant_for.clone().filter(|_| is_ours).or(checked_out.clone());
            let of = places.iter().map(|at| &workers[*at]);
            let works: Vec<MergeQuery> =
                of.clone().map(|(worker, meant_for)| work(worker, target(meant_for))).collect();
            let of: Vec<&Worker> = of.map(|(worker, _)| &**worker).collect();
            for (at, answer) in places.iter().zip(self.query(repository, &of, works)) {
                answers[*at] = answer;
            }
        }
        answers
    }

    fn query(&self, repository: &Repository, workers: &[&Worker], works: Vec<MergeQuery>) -> Vec<Merged> {
        let _asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let key = |(worker, work): (&&Worker, &MergeQuery)| Key {
            stamp: stamp(repository, &work.targets.iter().chain([&work.branch]).cloned().collect::<Vec<_>>()),
            integrations: worker.integrations().count(),
            attempts: worker.settled.len(),
        };
        // Before git is queried, so that a branch that moves meanwhile is checked again.
        let keys: Vec<Key> = workers.iter().zip(&works).map(key).collect();
        let known = |worker: &Worker, key: &Key| {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.get(&worker.id).filter(|(then, _)| then == key).map(|(_, answer)| answer.clone())
        };
        let mut answers: Vec<Option<Merged>> =
            workers.iter().zip(&keys).map(|(worker, key)| known(worker, key)).collect();
        let new: Vec<usize> = (0..works.len()).filter(|at| answers[*at].is_none()).collect();
        let found = merged::merged(repository, &new.iter().map(|at| works[*at].clone()).collect::<Vec<_>>());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for (at, answer) in new.into_iter().zip(found) {
            if answer != Merged::Unknown {
                known.insert(workers[at].id.clone(), (keys[at].clone(), answer.clone()));
            }
            answers[at] = Some(answer);
        }
        answers.into_iter().map(|answer| answer.unwrap_or(Merged::Unknown)).collect()
    }
}

/// Marks the merge state of these views as unknown, for display.
pub(super) fn set_unknown(views: &mut [WorkerView]) {
    views.iter_mut().for_each(set_unknown_of);
}

/// Marks the merge state of this view as unknown, for display.
pub(super) fn set_unknown_of(view: &mut WorkerView) {
    if may_be_merged(&view.worker) {
        view.merge_is_unknown = true;
        view.worker = with(Arc::clone(&view.worker), &Merged::Unknown);
    }
}

/// Returns the worker with `integrated` set to the state in git, for display.
fn with(mut worker: Arc<Worker>, answer: &Merged) -> Arc<Worker> {
    let integrated = match answer {
        Merged::Into { branch, commit } => Some(now(&worker, branch.clone(), commit.clone())),
        Merged::No | Merged::Partly(_) | Merged::Unknown => None,
    };
    if worker.integrated != integrated {
        Arc::make_mut(&mut worker).integrated = integrated;
    }
    worker
}

/// Returns the recorded integration that matches the state in git, or else a new one.
fn now(worker: &Worker, into: String, commit: String) -> Integrated {
    let recorded = worker.integrations().rev().find(|it| it.into == into && it.commit == commit);
    recorded.cloned().unwrap_or(Integrated { into, commit, source: None, partial: false })
}

/// Returns whether the worker has settled and has work on a branch.
pub fn may_be_merged(worker: &Worker) -> bool {
    let did = worker.last().is_some_and(|last| last.changes.commits > 0) || worker.integrated.is_some();
    did && worker.status.is_settled() && worker.branch().is_some()
}

/// Returns a folder of the repository that it worked in. `None` for the repository of the state directory.
fn place(worker: &Worker) -> Option<PathBuf> {
    worker.repository.clone().or_else(|| match &worker.mission.place {
        Place::Directory { path } => Some(path.clone()).filter(|path| Path::exists(path)),
        Place::Worktree { .. } => None,
    })
}

/// Returns what git is asked about a worker with work on a branch.
pub(super) fn work(worker: &Worker, target: Option<String>) -> MergeQuery {
    let mut targets: Vec<String> = target.iter().map(|it| git::names::branch_name(it).to_owned()).collect();
    for integrated in worker.integrations() {
        if !targets.contains(&integrated.into) {
            targets.push(integrated.into.clone());
        }
    }
    MergeQuery {
        branch: worker.branch().unwrap_or_default().to_owned(),
        last_seen: worker.last().and_then(|last| last.changes.head.clone()),
        base: worker.base_commit.clone(),
        earlier_integrations: earlier_integrations(worker),
        targets,
        is_continued: worker.settled.len() > 1,
    }
}

/// Returns the recorded integrations, for git to check whether they are still in place.
pub(super) fn earlier_integrations(worker: &Worker) -> Vec<(String, EarlierIntegration)> {
    let earlier_integrations = |it: &Integrated| {
        let (source, commit) = (it.source.clone()?, it.commit.clone());
        Some((it.into.clone(), EarlierIntegration { source, commit, partial: it.partial, own: true }))
    };
    worker.integrations().filter_map(earlier_integrations).collect()
}
