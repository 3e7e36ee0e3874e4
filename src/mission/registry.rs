//! The state of all missions, folded from the journal's entries. Pure: it applies entries and makes no decisions.
//! Callers decide under the journal's lock, on an up-to-date registry.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::budget::Spent;
use super::delivery::Notification;
use super::entry::{Brief, Entry, Line, NewWorker, NextAttempt, Start};
use super::graph;
use super::id::{BackendName, BossId, ServerId, TaskId, WorkerId};
use super::lifecycle::{self, Ending, Event, WorkerStatus};
use super::message::{Author, Cancelled};
use super::name::{Candidates, Name, Named};
use super::race::{self, Race};
use super::spec::Mission;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Registry {
    /// Sequence number of the newest applied entry.
    pub seq: u64,
    pub last_number: u64,
    /// The integration branch of workers that recorded none, which earlier builds created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integration_branch: Option<String>,
    /// The integration branch of each boss, as its newest worker recorded it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub integration_branches: BTreeMap<BossId, String>,
    pub servers: BTreeMap<ServerId, Server>,
    /// The directories of bosses without a session, so that the next such boss there can take over.
    #[serde(default)]
    pub anonymous: BTreeMap<BossId, PathBuf>,
    /// Number of workers that were ever moved into the history.
    #[serde(default)]
    pub archived: u64,
    /// The repair of the journal when it was last found damaged or missing, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repaired: Option<String>,
    /// Time at which a backend in backoff last answered.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub answered: BTreeMap<BackendName, Timestamp>,
    /// The usage of each boss's settled attempts, including those in the history.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub spent: BTreeMap<BossId, Spent>,
    /// By number, which is the order of creation.
    workers: BTreeMap<u64, Arc<Worker>>,
    #[serde(skip)]
    index: Index,
    #[serde(skip)]
    broken_below: Derived<HashSet<u64>>,
}

/// Worked out from the rest when it is first asked for, and so no part of what is compared.
#[derive(Debug, Clone, Default)]
struct Derived<T>(OnceLock<T>);

impl<T> PartialEq for Derived<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// Indexes that are rebuilt after loading, to avoid scans of all workers.
#[derive(Debug, Clone, Default, PartialEq)]
struct Index {
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

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    pub id: WorkerId,
    /// Who is told of its end; stays through every change of server.
    pub boss: BossId,
    pub mission: Mission,
    pub status: WorkerStatus,
    /// The server that looks after it while it is open.
    pub lease: ServerId,
    /// The attempt that runs or ran last; 0 before the first one started.
    pub attempt: u32,
    /// The settings of the attempt that waits or runs.
    pub next: NextAttempt,
    /// Names of the environment variables without which no server may start it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub race: Option<Race>,
    /// The integration branch: see [`NewWorker::integration_branch`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integration_branch: Option<String>,
    /// One brief per attempt, oldest first.
    pub settled: Vec<Brief>,
    #[serde(default, alias = "report")]
    pub notification: Notification,
    /// The notification of its current block, which its boss gets only once.
    #[serde(default, alias = "block_report")]
    pub block_notification: Notification,
    pub created_at: Timestamp,
    pub queued_at: Timestamp,
    /// The journal's entry that queued it: what is first in the queue does not depend on a clock.
    #[serde(default)]
    pub queued_seq: u64,
    /// The one that took it out of the queue last: whose turn it is does not depend on a clock either.
    #[serde(default)]
    pub admitted_seq: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_commit: Option<String>,
    /// The integration branch, if it contained `base_commit` when the worker began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_branch: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<String>,
    /// The author of the cancellation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled_by: Option<Author>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integrated: Option<Integrated>,
    /// Earlier integrations, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub integrated_before: Vec<Integrated>,
    /// The repository that holds its work, if it is not the one of this state directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<PathBuf>,
    #[serde(default)]
    pub worktree_removed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salvage_ref: Option<String>,
    /// The reason why it failed over to another backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diverted: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Integrated {
    pub into: String,
    pub commit: String,
    /// The commit of the worker's branch that was integrated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// True if commits of it were left out, since the user had removed them from the target.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

impl Worker {
    fn new(new: &NewWorker, line: &Line) -> Self {
        let mission = new.mission.clone();
        let next = NextAttempt {
            backend: mission.backend.clone(),
            model: mission.model.clone(),
            effort: mission.effort.clone(),
            start: Start::Mission,
            written: Vec::new(),
        };
        Self {
            id: new.id.clone(),
            boss: new.boss.clone(),
            mission,
            status: WorkerStatus::Queued,
            lease: line.server.clone(),
            attempt: 0,
            next,
            needs: new.needs.clone(),
            race: new.race.clone(),
            integration_branch: new.integration_branch.clone(),
            settled: Vec::new(),
            notification: Notification::Pending,
            block_notification: Notification::Pending,
            created_at: line.at,
            queued_at: line.at,
            queued_seq: line.seq,
            admitted_seq: 0,
            started_at: None,
            base_commit: None,
            base_branch: None,
            cancel: None,
            cancelled_by: None,
            integrated: None,
            integrated_before: Vec::new(),
            repository: None,
            worktree_removed: false,
            salvage_ref: None,
            diverted: None,
        }
    }

    /// Returns all recorded integrations of its work, oldest first. Some may have been undone since, which only git
    /// shows.
    pub fn integrations(&self) -> impl DoubleEndedIterator<Item = &Integrated> {
        self.integrated_before.iter().chain(&self.integrated)
    }

    /// Returns the branch that its last attempt ended on, or else the one that it was given.
    pub fn branch(&self) -> Option<&str> {
        let last = self.last().and_then(|brief| brief.changes.branch.as_deref());
        last.or_else(|| self.mission.place.branch())
    }

    pub fn last(&self) -> Option<&Brief> {
        self.settled.last()
    }

    /// Returns the requested cancellation, if any.
    pub fn cancelled(&self) -> Option<Cancelled> {
        let reason = self.cancel.clone()?;
        Some(Cancelled { by: self.cancelled_by, reason })
    }

    /// Returns the duration of its settled attempts in seconds, including verification.
    pub fn settled_seconds(&self) -> u64 {
        self.settled.iter().map(Brief::elapsed).fold(0, u64::saturating_add)
    }

    /// Returns whether it reported that it is blocked and still needs an answer.
    pub fn needs_you(&self) -> bool {
        let says_so = self.last().is_some_and(|last| last.status == Ending::Completed && last.says_blocked);
        let is_over = self.integrated.is_some() || self.worktree_removed || race::has_lost(self);
        self.status.is_settled() && says_so && !is_over
    }

    /// Returns the number in its id. `None` for a foreign id.
    pub fn number(&self) -> Option<u64> {
        WorkerId::number_in(self.id.as_str())
    }

    pub fn task(&self) -> &TaskId {
        &self.mission.task_id
    }

    /// Moves on as the lifecycle allows; an entry that it forbids changes nothing and says so.
    fn advance(&mut self, event: Event) -> bool {
        match lifecycle::next(self.status, event) {
            Ok(status) => {
                self.status = status;
                true
            }
            Err(_) => false,
        }
    }

    /// Advances the worker if the event is about its current attempt. Two servers may follow an attempt, and the slower
    /// one may report it after the next has begun. A queued worker has no current attempt, so only its next one is
    /// accepted.
    fn advance_in(&mut self, attempt: u32, event: Event) -> bool {
        let meant = if self.status == WorkerStatus::Queued { self.attempt + 1 } else { self.attempt };
        attempt == meant && self.advance(event)
    }
}

impl Registry {
    pub fn workers(&self) -> impl DoubleEndedIterator<Item = &Arc<Worker>> {
        self.workers.values()
    }

    pub fn get(&self, id: &WorkerId) -> Option<&Arc<Worker>> {
        self.workers.get(&WorkerId::number_in(id.as_str())?).filter(|worker| worker.id == *id)
    }

    pub fn by_number(&self, number: u64) -> Option<&Arc<Worker>> {
        self.workers.get(&number)
    }

    /// Resolves a name to a worker: see [`Name`].
    pub fn named(&self, text: &str) -> Named {
        let name = Name::new(text);
        name.choose(Candidates {
            numbered: name.number().and_then(|number| self.workers.get(&number)).cloned(),
            task: self.task(&TaskId::from(name.task())).cloned(),
            on_branch: self.on_branch(name.branch()).cloned().collect(),
        })
    }

    pub fn on_branch(&self, branch: &str) -> impl Iterator<Item = &Arc<Worker>> {
        self.index.branches.get(branch).into_iter().flatten().filter_map(|number| self.workers.get(number))
    }

    /// Returns the newest worker of a task. For a race, it is the winner, or a racer that may still win.
    pub fn task(&self, task: &TaskId) -> Option<&Arc<Worker>> {
        let newest = self.workers.get(self.index.tasks.get(task)?)?;
        Some(race::spokesman(self, newest))
    }

    pub fn by_request(&self, request_id: &str) -> Option<&Arc<Worker>> {
        self.workers.get(self.index.requests.get(request_id)?)
    }

    /// See [`graph::broken_below`]; asked for every worker at every change, and so worked out once for all of them.
    pub(super) fn is_broken_below(&self, worker: &Worker) -> bool {
        let broken = self.broken_below.0.get_or_init(|| graph::broken_below(self));
        !broken.is_empty() && WorkerId::number_in(worker.id.as_str()).is_some_and(|number| broken.contains(&number))
    }

    /// Inserts a worker that was found elsewhere, for a registry that is being rebuilt. Everything else uses
    /// [`Registry::apply`].
    pub fn restore(&mut self, worker: Arc<Worker>) {
        self.broken_below = Derived::default();
        self.count_all(&worker);
        self.put(worker);
    }

    /// To be called once after loading a saved registry.
    pub fn reindex(&mut self) {
        // What an earlier build saved has no sums.
        if self.spent.is_empty() {
            let workers: Vec<Arc<Worker>> = self.workers.values().cloned().collect();
            workers.iter().for_each(|worker| self.count_all(worker));
        }
        self.index = Index::default();
        for (number, worker) in &self.workers {
            self.index.add(*number, worker);
        }
    }

    /// Takes in one line. What the lifecycle forbids is left out: the journal is ours, but files get damaged.
    pub fn apply(&mut self, line: &Line) {
        self.seq = line.seq;
        if !line.entry.is_only_news() {
            self.broken_below = Derived::default();
        }
        match &line.entry {
            Entry::ServerJoined { boss, directory } => {
                if boss.is_anonymous() {
                    self.anonymous.insert(boss.clone(), directory.clone());
                }
                let server = Server { boss: boss.clone(), directory: directory.clone() };
                self.servers.insert(line.server.clone(), server);
            }
            Entry::ServersGone { servers } => self.servers.retain(|id, _| !servers.contains(id)),
            Entry::BossSucceeded { from, to } => {
                self.anonymous.retain(|boss, _| !from.contains(boss));
                let branches: Vec<_> = from.iter().filter_map(|boss| self.integration_branches.remove(boss)).collect();
                for branch in branches {
                    self.integration_branches.entry(to.clone()).or_insert(branch);
                }
                for spent in from
                    .iter()
                    .filter(|boss| *boss != to)
                    .filter_map(|boss| self.spent.remove(boss))
                    .collect::<Vec<_>>()
                {
                    self.spent.entry(to.clone()).or_default().add(spent);
                }
                for worker in self.workers.values_mut().filter(|worker| from.contains(&worker.boss)) {
                    Arc::make_mut(worker).boss = to.clone();
                }
            }
            Entry::Answered { backend } => drop(self.answered.insert(backend.clone(), line.at)),
            Entry::IntegrationBranch { branch } => self.integration_branch = Some(branch.clone()),
            Entry::Created { workers } => {
                workers.iter().for_each(|new| self.add(new, line));
                self.forget_mended_blocks();
            }
            Entry::Notified { settled, blocked, .. } => {
                self.change_notifications(settled, blocked, |it| it.send(line.seq, &line.server));
            }
            Entry::Acknowledged { deliveries, settled, blocked } => {
                self.change_all_notifications(|it| it.acknowledged(deliveries));
                self.change_notifications(settled, blocked, Notification::confirm);
            }
            Entry::Withdrawn { delivery } => self.change_all_notifications(|it| it.withdrawn(*delivery)),
            Entry::LeaseTaken { workers } => {
                for id in workers {
                    self.change(id, |worker| worker.lease = line.server.clone());
                }
            }
            Entry::Archived { workers } => workers.iter().for_each(|id| self.archive(id)),
            Entry::Recalled { workers } => workers.iter().for_each(|worker| self.put(Arc::clone(worker))),
            entry => self.apply_to_worker(entry, line),
        }
    }

    fn apply_to_worker(&mut self, entry: &Entry, line: &Line) {
        match entry {
            Entry::Starting { worker, attempt } => self.change(worker, |worker| {
                if worker.advance(Event::Admitted) {
                    worker.attempt = *attempt;
                    worker.admitted_seq = line.seq;
                    worker.lease = line.server.clone();
                }
            }),
            Entry::Unstarted { worker, attempt } => self.change(worker, |worker| {
                worker.advance_in(*attempt, Event::StartAbandoned);
            }),
            Entry::Running { worker, attempt, base_commit, base_branch, repository } => self.change(worker, |worker| {
                if worker.advance_in(*attempt, Event::TurnStarted) {
                    // The attempt runs in it, so it was created again.
                    worker.worktree_removed = false;
                    worker.started_at.get_or_insert(line.at);
                    worker.base_commit = base_commit.clone().or(worker.base_commit.take());
                    worker.base_branch = base_branch.clone().or(worker.base_branch.take());
                    worker.repository = repository.clone().or(worker.repository.take());
                }
            }),
            Entry::Verifying { worker, attempt } => self.change(worker, |worker| {
                worker.advance_in(*attempt, Event::VerificationStarted);
            }),
            Entry::Settled { worker, brief } => {
                self.settle(worker, brief);
                self.decide_race(worker);
            }
            Entry::Requeued { worker, next, lead } => {
                self.requeue(worker, next, lead.as_ref().unwrap_or(&line.server), line)
            }
            Entry::Amended { worker, next } => self.change(worker, |worker| worker.next = NextAttempt::clone(next)),
            Entry::Diverted { worker, next, why } => self.change(worker, |worker| {
                if worker.status == WorkerStatus::Queued {
                    worker.next = NextAttempt::clone(next);
                    worker.diverted = Some(why.clone());
                }
            }),
            Entry::CancelRequested { worker, by, reason } => self.change(worker, |worker| {
                worker.cancel = Some(reason.clone());
                worker.cancelled_by = Some(if by.is_visitor() { Author::User } else { Author::Boss });
            }),
            Entry::Integrated { worker, into, commit, source, partial } => self.change(worker, |worker| {
                let (into, commit, source, partial) = (into.clone(), commit.clone(), source.clone(), *partial);
                let former = worker.integrated.replace(Integrated { into, commit, source, partial });
                worker.integrated_before.extend(former.filter(|former| worker.integrated.as_ref() != Some(former)));
            }),
            Entry::WorktreeRemoved { worker, salvage_ref } => self.change(worker, |worker| {
                worker.worktree_removed = true;
                worker.salvage_ref = salvage_ref.clone().or(worker.salvage_ref.take());
            }),
            _ => {}
        }
    }

    fn settle(&mut self, id: &WorkerId, brief: &Brief) {
        let mut spent = None;
        self.change(id, |worker| {
            if worker.advance_in(brief.attempt, Event::Settled(brief.status)) {
                spent = Some((worker.boss.clone(), Spent::by(brief, &worker.settled)));
                worker.attempt = brief.attempt;
                worker.settled.push(brief.clone());
                worker.notification = Notification::Pending;
            }
        });
        if let Some((boss, spent)) = spent {
            self.spent.entry(boss).or_default().add(spent);
        }
    }

    /// Of a worker that comes in with what it has behind it.
    fn count_all(&mut self, worker: &Worker) {
        for (at, brief) in worker.settled.iter().enumerate() {
            let spent = Spent::by(brief, &worker.settled[..at]);
            self.spent.entry(worker.boss.clone()).or_default().add(spent);
        }
    }

    fn add(&mut self, new: &NewWorker, line: &Line) {
        self.put(Arc::new(Worker::new(new, line)));
    }

    fn put(&mut self, worker: Arc<Worker>) {
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

    fn archive(&mut self, id: &WorkerId) {
        let Some(worker) = self.get(id).cloned() else { return };
        let Some(number) = worker.number() else { return };
        self.workers.remove(&number);
        self.index.remove(number, &worker);
        self.archived += 1;
    }

    fn requeue(&mut self, id: &WorkerId, next: &NextAttempt, lead: &ServerId, line: &Line) {
        self.change(id, |worker| {
            if worker.advance(Event::Requeued) {
                worker.next = next.clone();
                worker.lease = lead.clone();
                worker.queued_at = line.at;
                worker.queued_seq = line.seq;
                worker.started_at = None;
                (worker.cancel, worker.cancelled_by) = (None, None);
                worker.diverted = None;
                worker.notification = Notification::Pending;
                worker.block_notification = Notification::Pending;
                if let Some(race) = &mut worker.race {
                    race.is_over_for_it = race.winner.is_some();
                }
            }
        });
        self.forget_mended_blocks();
    }

    /// If this worker has just won its race, all racers know it and the others are called off. Once for ever.
    fn decide_race(&mut self, winner: &WorkerId) {
        let Some(decision) = self.get(winner).and_then(|worker| race::decide(self, worker)) else { return };
        for id in decision.racers {
            let is_called_off = decision.called_off.contains(&id);
            self.change(&id, |worker| {
                if let Some(race) = &mut worker.race {
                    race.winner = Some(winner.clone());
                }
                if is_called_off {
                    worker.cancel.get_or_insert_with(|| format!("{winner} won the race"));
                }
            });
        }
    }

    /// For a registry that was rebuilt from the workers' folders: as it was told, else by [`race::winners_by_time`].
    pub fn decide_races(&mut self, told: &[WorkerId]) {
        told.iter().for_each(|winner| self.decide_race(winner));
        race::winners_by_time(self).iter().for_each(|winner| self.decide_race(winner));
    }

    /// What no longer blocks may block again, and that is news then.
    fn forget_mended_blocks(&mut self) {
        let told = self.workers.values().filter(|worker| worker.block_notification != Notification::Pending);
        let mended: Vec<WorkerId> =
            told.filter(|worker| graph::block(self, worker).is_none()).map(|worker| worker.id.clone()).collect();
        for id in mended {
            self.change(&id, |worker| worker.block_notification = Notification::Pending);
        }
    }

    fn change_notifications(
        &mut self,
        settled: &[(WorkerId, u32)],
        blocked: &[WorkerId],
        change: impl Fn(&mut Notification),
    ) {
        for (id, attempt) in settled {
            self.change(id, |worker| {
                if worker.attempt == *attempt {
                    change(&mut worker.notification);
                }
            });
        }
        for id in blocked {
            self.change(id, |worker| change(&mut worker.block_notification));
        }
    }

    fn change_all_notifications(&mut self, changed: impl Fn(&Notification) -> Option<Notification>) {
        for worker in self.workers.values_mut() {
            if let Some(changed) = changed(&worker.notification) {
                Arc::make_mut(worker).notification = changed;
            }
            if let Some(changed) = changed(&worker.block_notification) {
                Arc::make_mut(worker).block_notification = changed;
            }
        }
    }

    fn change(&mut self, id: &WorkerId, change: impl FnOnce(&mut Worker)) {
        let Some(number) = WorkerId::number_in(id.as_str()) else { return };
        if let Some(worker) = self.workers.get_mut(&number).filter(|worker| worker.id == *id) {
            change(Arc::make_mut(worker));
        }
    }
}

impl Index {
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

#[cfg(test)]
mod tests;
