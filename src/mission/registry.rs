//! The state of all missions: data and queries. `fold` applies the journal's entries to it; nothing else changes it. It
//! makes no decisions. Callers decide under the journal's lock, on an up-to-date registry.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use super::background_wait::BackgroundWait;
use super::budget::Spent;
use super::id::{BackendName, BossId, ServerId, TaskId, WaitId, WorkerId};
use super::wake::Wakes;
pub use super::worker::{Integrated, Worker};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Registry {
    /// Sequence number of the newest applied entry.
    pub seq: u64,
    pub last_number: u64,
    /// The integration branch of each boss, as its newest worker recorded it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub integration_branches: BTreeMap<BossId, String>,
    pub servers: BTreeMap<ServerId, Server>,
    /// The directories of bosses without a session, so that the next such boss there can take over.
    pub anonymous: BTreeMap<BossId, PathBuf>,
    /// Number of workers that were ever moved into the history.
    pub archived: u64,
    /// The last repair of the journal, or the former state that was set aside, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repaired: Option<String>,
    /// Time at which a backend in backoff last answered.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub answered: BTreeMap<BackendName, Timestamp>,
    /// The usage of each boss's settled attempts, including those in the history.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub spent: BTreeMap<BossId, Spent>,
    /// The bosses that have ended their turn and are to be woken.
    #[serde(default, skip_serializing_if = "Wakes::is_empty")]
    pub wakes: Wakes,
    /// The background waits that are open, and the newest that have ended.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub waits: BTreeMap<WaitId, BackgroundWait>,
    /// By number, which is the order of creation.
    pub(super) workers: BTreeMap<u64, Arc<Worker>>,
    #[serde(skip)]
    index: RegistryIndex,
    #[serde(skip)]
    pub(super) broken_below: Derived<HashSet<u64>>,
    #[serde(skip)]
    pub(super) in_cycles: Derived<HashSet<u64>>,
}

/// A value that is derived from the others on first use, and so is not compared.
#[derive(Debug, Clone, Default)]
pub(super) struct Derived<T>(pub(super) OnceLock<T>);

impl<T> PartialEq for Derived<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// Indexes that are rebuilt after loading, to avoid scans of all workers.
#[derive(Debug, Clone, Default, PartialEq)]
struct RegistryIndex {
    requests: HashMap<String, u64>,
    /// The newest worker of each task.
    tasks: HashMap<TaskId, u64>,
    /// The numbers of all workers of each branch.
    branches: HashMap<String, BTreeSet<u64>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Server {
    pub boss: BossId,
    pub directory: PathBuf,
}

impl Registry {
    /// Returns a registry whose first worker gets the number after `last_number`.
    pub fn begin(last_number: u64, notice: String) -> Self {
        Self { last_number, repaired: Some(notice), ..Self::default() }
    }

    pub fn workers(&self) -> impl DoubleEndedIterator<Item = &Arc<Worker>> {
        self.workers.values()
    }

    pub fn get(&self, id: &WorkerId) -> Option<&Arc<Worker>> {
        self.workers.get(&WorkerId::number_in(id.as_str())?).filter(|worker| worker.id == *id)
    }

    pub fn by_number(&self, number: u64) -> Option<&Arc<Worker>> {
        self.workers.get(&number)
    }

    pub fn on_branch(&self, branch: &str) -> impl Iterator<Item = &Arc<Worker>> {
        self.index.branches.get(branch).into_iter().flatten().filter_map(|number| self.workers.get(number))
    }

    /// Returns the newest worker of a task, which is one of several if they race for it.
    pub(super) fn newest_of_task(&self, task: &TaskId) -> Option<&Arc<Worker>> {
        self.workers.get(self.index.tasks.get(task)?)
    }

    pub fn by_request(&self, request_id: &str) -> Option<&Arc<Worker>> {
        self.workers.get(self.index.requests.get(request_id)?)
    }

    /// Inserts a worker that was found elsewhere, for a registry that is being rebuilt. Everything else uses
    /// [`Registry::apply`].
    pub fn restore(&mut self, worker: Arc<Worker>) {
        self.forget_derived();
        self.count_all(&worker);
        self.put(worker);
    }

    /// Drops the derived values. Must be called after a change of anything for which a worker can wait.
    pub(super) fn forget_derived(&mut self) {
        self.broken_below = Derived::default();
        self.in_cycles = Derived::default();
    }

    /// Rebuilds the indexes. Must be called once after loading a saved registry.
    pub fn reindex(&mut self) {
        self.index = RegistryIndex::default();
        for (number, worker) in &self.workers {
            self.index.add(*number, worker);
        }
    }

    /// Adds the usage of all settled attempts of a worker to that of its boss.
    fn count_all(&mut self, worker: &Worker) {
        for (at, brief) in worker.settled.iter().enumerate() {
            let spent = Spent::by(brief, &worker.settled[..at]);
            self.spent.entry(worker.boss.clone()).or_default().add(spent);
        }
    }

    /// Inserts or replaces a worker.
    pub(super) fn put(&mut self, worker: Arc<Worker>) {
        let Some(number) = worker.number() else { return };
        if number > self.last_number
            && let Some(branch) = &worker.integration_branch
        {
            self.integration_branches.insert(worker.boss.clone(), branch.clone());
        }
        self.last_number = self.last_number.max(number);
        self.index.add(number, &worker);
        self.workers.insert(number, worker);
    }

    /// Removes a worker that is in the history now.
    pub(super) fn archive(&mut self, id: &WorkerId) {
        let Some(worker) = self.get(id).cloned() else { return };
        let Some(number) = worker.number() else { return };
        self.workers.remove(&number);
        self.index.remove(number, &worker);
        self.archived += 1;
    }

    pub(super) fn change(&mut self, id: &WorkerId, change: impl FnOnce(&mut Worker)) {
        let Some(number) = WorkerId::number_in(id.as_str()) else { return };
        if let Some(worker) = self.workers.get_mut(&number).filter(|worker| worker.id == *id) {
            change(Arc::make_mut(worker));
        }
    }
}

impl RegistryIndex {
    fn add(&mut self, number: u64, worker: &Worker) {
        if let Some(request) = &worker.mission.request_id {
            self.requests.insert(request.clone(), number);
        }
        let newest = self.tasks.entry(worker.mission.task_id.clone()).or_default();
        *newest = number.max(*newest);
        if let Some(branch) = worker.mission.place.branch() {
            self.branches.entry(branch.to_owned()).or_default().insert(number);
        }
    }

    fn remove(&mut self, number: u64, worker: &Worker) {
        if let Some(request) = &worker.mission.request_id {
            self.requests.remove(request);
        }
        if self.tasks.get(worker.task()) == Some(&number) {
            self.tasks.remove(worker.task());
        }
        if let Some(branch) = worker.mission.place.branch()
            && let Some(numbers) = self.branches.get_mut(branch)
        {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.branches.remove(branch);
            }
        }
    }
}
