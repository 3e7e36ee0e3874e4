//! The conflict radar: which workers' branches do not merge cleanly into the integration branch, or with each other, as
//! they stand now. Looked at in the background, one look at a time, and only when a branch has moved. What it says is a
//! hint for the boss: nothing is decided by it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::actor::Actor;
use super::answers::Collision;
use super::mail::Ask;
use crate::git::radar::{self, Pair, Stamp};
use crate::git::{CommandError, Repository};
use crate::mission::causes::with_causes;
use crate::mission::id::{ServerId, WorkerId};
use crate::mission::registry::{Registry, Worker};

/// More workers than these are not looked at: the pairs grow with the square.
const MOST: usize = 32;

pub type Collisions = HashMap<WorkerId, Vec<Collision>>;

/// What earlier looks found out. Away with the look that is under way.
#[derive(Debug, Default)]
pub struct Radar {
    known: HashMap<Pair, Option<Vec<String>>>,
    last: Option<Scene>,
}

/// What there is to look at.
#[derive(Debug)]
struct Scene {
    watched: Vec<Arc<Worker>>,
    /// Theirs and the target.
    branches: Vec<String>,
    target: String,
    stamp: Stamp,
}

impl Scene {
    fn is_like(&self, other: &Scene) -> bool {
        let same = |(one, other)| Arc::ptr_eq(one, other);
        self.stamp == other.stamp
            && self.branches == other.branches
            && self.watched.iter().zip(&other.watched).all(same)
    }
}

impl Actor {
    pub(super) fn look_at_radar(&mut self) {
        if self.context.visitor {
            return;
        }
        let Some(repository) = self.context.repository.clone() else { return };
        let Some(target) = self.registry().integration_branch.clone() else { return };
        let watched = watched(self.registry());
        let is_ours = |worker: &Arc<Worker>| leads(self.registry(), &self.context.server, worker);
        if watched.is_empty() || !watched.iter().any(is_ours) {
            self.collisions.clear();
            return;
        }
        let Some(radar) = &self.radar else { return };
        let branch_of = |worker: &Arc<Worker>| worker.mission.place.branch().map(str::to_owned);
        let branches: Vec<String> = watched.iter().filter_map(branch_of).chain([target.clone()]).collect();
        // Here, and before the branches are read: a server at rest starts no thread for this, and what moves while a look
        // is under way is noticed at the next one.
        let scene = Scene { stamp: radar::stamp(&repository, &branches), watched, branches, target };
        if radar.last.as_ref().is_some_and(|last| last.is_like(&scene)) {
            return;
        }
        let Some(mut radar) = self.radar.take() else { return };
        let mailbox = self.mailbox.clone();
        self.runtime.spawn_blocking(move || {
            let scratch = radar::scratch();
            let looked = match &scratch {
                Ok(scratch) => radar.look(&repository, scene, scratch.path()).map_err(|error| with_causes(&error)),
                Err(error) => Err(with_causes(error)),
            };
            let found = looked.inspect_err(|why| tracing::debug!(why, "could not look which branches collide"));
            let _ = mailbox.send(Ask::Radar { radar: Box::new(radar), found: found.ok() });
            // Nobody waits for this.
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
        self.collisions.get(&worker.id).cloned().unwrap_or_default()
    }
}

/// The newest workers whose branches are there and not integrated, running ones first.
fn watched(registry: &Registry) -> Vec<Arc<Worker>> {
    let has_work = |worker: &Worker| {
        let settled = worker.status.is_settled() && worker.last().is_some_and(|last| last.changes.commits > 0);
        worker.mission.place.branch().is_some() && worker.integrated.is_none() && (worker.status.is_live() || settled)
    };
    let (live, settled): (Vec<_>, Vec<_>) =
        registry.workers().rev().filter(|worker| has_work(worker)).partition(|worker| worker.status.is_live());
    live.into_iter().chain(settled).take(MOST).cloned().collect()
}

/// One server is enough for each; of a settled one whose server is gone, nobody else's business is the radar.
fn leads(registry: &Registry, server: &ServerId, worker: &Worker) -> bool {
    worker.lease == *server || !registry.servers.contains_key(&worker.lease)
}

impl Radar {
    fn look(&mut self, repository: &Repository, scene: Scene, scratch: &Path) -> Result<Collisions, CommandError> {
        let target = scene.target.as_str();
        let tips = radar::tips(repository, &scene.branches)?;
        let Some(onto) = tips.get(target) else { return Ok(Collisions::new()) };
        let with_commits = scene.watched.iter().filter_map(|worker| {
            let tip = tips.get(worker.mission.place.branch()?)?;
            (worker.base_commit.as_ref() != Some(tip)).then_some((worker, tip))
        });
        let with_commits: Vec<(&Arc<Worker>, &String)> = with_commits.collect();
        let pairs = pairs(&with_commits, onto);
        self.learn(repository, onto, pairs.iter().map(|(pair, _)| pair), scratch)?;
        let mut found = Collisions::new();
        for (pair, between) in pairs {
            let Some(Some(paths)) = self.known.get(&pair) else { continue };
            if paths.is_empty() {
                continue;
            }
            let mut note = |worker: &Worker, other: Option<&Arc<Worker>>| {
                let collision = Collision {
                    with: other.map_or(target, |other| other.id.as_str()).to_owned(),
                    is_integration_branch: other.is_none(),
                    paths: paths.clone(),
                };
                found.entry(worker.id.clone()).or_default().push(collision);
            };
            let (one, other) = between;
            note(one, other);
            other.into_iter().for_each(|other| note(other, Some(one)));
        }
        self.last = Some(scene);
        Ok(found)
    }

    /// Asks git about pairs that are new, and forgets those that are no pairs any more.
    fn learn<'a>(
        &mut self,
        repository: &Repository,
        target: &str,
        pairs: impl Iterator<Item = &'a Pair> + Clone,
        scratch: &Path,
    ) -> Result<(), CommandError> {
        let mut former = std::mem::take(&mut self.known);
        self.known = pairs.clone().filter_map(|pair| former.remove_entry(pair)).collect();
        let new: Vec<Pair> = pairs.filter(|pair| !self.known.contains_key(*pair)).cloned().collect();
        let answers = radar::collisions(repository, target, &new, scratch)?;
        self.known.extend(new.into_iter().zip(answers));
        Ok(())
    }
}

type Between<'a> = (&'a Arc<Worker>, Option<&'a Arc<Worker>>);

/// Each with the target, and each with each but its rivals for the same task.
fn pairs<'a>(workers: &[(&'a Arc<Worker>, &String)], target: &str) -> Vec<(Pair, Between<'a>)> {
    let mut pairs = Vec::new();
    for (at, (worker, tip)) in workers.iter().enumerate() {
        pairs.push(((target.to_owned(), (*tip).clone()), (*worker, None)));
        for (other, others_tip) in &workers[at + 1..] {
            if other.task() != worker.task() {
                // In one order, whoever of the two comes first in the list the next time.
                let (one, two) = if tip < others_tip { (tip, others_tip) } else { (others_tip, tip) };
                pairs.push((((*one).clone(), (*two).clone()), (*worker, Some(*other))));
            }
        }
    }
    pairs
}
