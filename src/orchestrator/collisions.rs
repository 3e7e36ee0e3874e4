//! Branches that do not merge cleanly into the integration branch, or with each other: the results of a scan, and what
//! the next scan reuses. Data only.

use std::collections::HashMap;
use std::sync::Arc;

use super::answers::{Collision, Unchecked, With};
use crate::git::radar::{CommitPair, MergeResult, RefStamp};
use crate::mission::id::WorkerId;
use crate::mission::registry::Worker;
use crate::store::state_file::SavedState;

/// The results of a scan. The branch of a worker that is not listed merges cleanly, or does not exist.
#[derive(Debug, Default, PartialEq)]
pub struct Collisions {
    of: HashMap<WorkerId, Vec<Collision>>,
    unchecked: HashMap<WorkerId, Unchecked>,
}

/// Results of earlier scans. A running scan owns them.
#[derive(Debug, Default)]
pub struct ScanCache {
    pub(super) known: HashMap<CommitPair, Option<MergeResult>>,
    /// Parts of conflicts that are the pair's own, by the commit of the target and the pair.
    pub(super) own: HashMap<(String, CommitPair), Own>,
    pub(super) last: Option<Scene>,
}

/// The part of a pair's conflict that is its own, and not one with the target.
#[derive(Debug, Clone)]
pub(super) enum Own {
    /// The whole conflict: both branches left the target at the same commit, or are unrelated to it.
    All,
    Paths(Vec<String>),
    /// A part that cannot be separated from the conflicts of each branch with the target.
    Mixed,
}

/// The input of a scan.
#[derive(Debug)]
pub(super) struct Scene {
    pub watched: Vec<Arc<Worker>>,
    /// Workers that are not checked at all, and why.
    pub beyond: Vec<(WorkerId, Unchecked)>,
    /// Branches of the watched workers, and the target.
    pub branches: Vec<String>,
    pub target: String,
    pub stamp: RefStamp,
}

impl Scene {
    pub fn is_like(&self, other: &Scene) -> bool {
        let same = |(one, other)| Arc::ptr_eq(one, other);
        self.stamp == other.stamp
            && self.branches == other.branches
            && self.beyond == other.beyond
            && self.watched.iter().zip(&other.watched).all(same)
    }
}

impl Collisions {
    pub fn of(&self, worker: &WorkerId) -> &[Collision] {
        self.of.get(worker).map_or(&[], Vec::as_slice)
    }

    pub fn unchecked(&self, worker: &WorkerId) -> Option<Unchecked> {
        self.unchecked.get(worker).copied()
    }

    pub(super) fn note_unchecked(&mut self, workers: impl IntoIterator<Item = (WorkerId, Unchecked)>) {
        self.unchecked.extend(workers);
    }

    /// Returns the results that a server has written down.
    pub(super) fn read(written: &SavedState) -> Self {
        let mut collisions = Self::default();
        for (worker, task) in written.by_worker() {
            if !task.conflicts_with.is_empty() {
                collisions.of.insert(worker.clone(), task.conflicts_with.clone());
            }
            collisions.unchecked.extend(task.conflicts_unchecked.map(|unchecked| (worker.clone(), unchecked)));
        }
        collisions
    }

    pub(super) fn note(&mut self, worker: &Worker, with: With, paths: &[String]) {
        if !paths.is_empty() {
            self.of.entry(worker.id.clone()).or_default().push(Collision { with, paths: paths.to_vec() });
        }
    }
}
