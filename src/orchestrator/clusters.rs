//! The clusters that the settings name. For each, one task asks the scheduler for all jobs of this state directory at
//! once, as long as a worker of this server runs there, and repeats cancellations until the jobs are gone.
//!
//! The task publishes what the scheduler answers and decides nothing: [`super::follow`] does, for each worker.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{Timestamp, Zoned};
use tokio::sync::{Mutex as AsyncMutex, Notify, OnceCell, Semaphore, SemaphorePermit, watch};
use tokio::time::Instant;

use super::answers::LauncherView;
use super::blocking::blocking;
use super::error::OrchestratorError;
use crate::attempt::node_check::NodeCheck;
use crate::attempt::state_dir::StateDir;
use crate::config::{LauncherKind, LauncherSettings, Settings};
use crate::launcher::slurm::{self, Engine, JobNames, ObservedJob, TimeLimit};
use crate::mission::id::WorkerId;
use crate::mission::life::{EngineState, JobId};

/// Number of polls without an answer after which the scheduler is polled less often, and the intervals then.
const FAILURES: u32 = 3;
const AFTER_FAILURES: Duration = Duration::from_secs(30);
const AFTER_MORE_FAILURES: Duration = Duration::from_secs(60);
/// Time for which the time limit of a partition is not asked for again.
const LIMIT_HOLDS: Duration = Duration::from_secs(10 * 60);
/// Maximum number of times in a second that a server reads the files of a worker.
const LOOKS_PER_SECOND: usize = 200;
/// Number of workers whose files are read at the shortest interval.
const FEW: usize = 10;
/// Interval at which the files of more workers are read.
const WITH_MORE: Duration = Duration::from_secs(1);
/// Number of workers that are prepared at once if the machine has fewer processors than that.
const PREPARED_AT_ONCE: usize = 4;
/// Time after which a submission without an answer no longer reaches the scheduler. Behind another command, such as
/// `ssh`, only that command was ended, and `sbatch` may try for minutes.
const MAY_BE_SUBMITTED: Duration = Duration::from_secs(10 * 60);

type Attempt = (WorkerId, u32);

/// All clusters of the settings, by the name of their launcher.
#[derive(Default)]
pub(super) struct Clusters {
    by_name: BTreeMap<String, Arc<Cluster>>,
    state_root: PathBuf,
    is_checked: AtomicBool,
}

/// One launcher: jobs of one size on a cluster.
pub(super) struct Cluster {
    pub name: String,
    pub settings: LauncherSettings,
    pub engine: Engine,
    state_root: PathBuf,
    names: OnceCell<JobNames>,
    answers: watch::Sender<Answers>,
    activity: Mutex<Activity>,
    /// Notified when followers must check their workers at once.
    look: Notify,
    /// Notified when the scheduler must be polled, or a job cancelled, at once.
    ask: Notify,
    tracks_by_cgroup: OnceCell<bool>,
    preparations: Semaphore,
    /// The time limit of its partition, and until when it is not asked for again.
    time_limit: AsyncMutex<Option<(Instant, TimeLimit)>>,
}

/// The last answer of the scheduler about all jobs.
#[derive(Debug, Clone, Default)]
pub(super) struct Answers {
    /// The number of polls so far, so that each answer is considered once.
    pub number: u64,
    /// When the poll began. The answer does not cover jobs that were submitted later.
    pub asked: Option<Instant>,
    pub jobs: Arc<Vec<ObservedJob>>,
    pub problem: Option<Problem>,
}

/// The reason why the scheduler gives no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub why: String,
    pub since: Timestamp,
}

#[derive(Default)]
struct Activity {
    followers: usize,
    /// True if the scheduler must be asked once, for jobs of ended attempts.
    must_check: bool,
    /// True while the task runs.
    polls: bool,
    /// Attempts whose jobs are to be cancelled.
    to_cancel: BTreeMap<Attempt, Cancellation>,
}

/// The cancellation of a job.
#[derive(Debug, Clone, Copy, Default)]
struct Cancellation {
    /// The time at which it was last sent.
    sent: Option<Instant>,
    /// The time until which the job may still appear. `None` if it has appeared.
    until: Option<Instant>,
}

impl Cancellation {
    /// Returns whether the job is over if a poll that began at this time did not find it.
    fn shows_end(&self, asked: Instant) -> bool {
        self.sent.is_some_and(|sent| sent < asked) && self.until.is_none_or(|until| until < asked)
    }
}

impl Clusters {
    pub fn of(settings: &Settings, state_root: &Path) -> Self {
        let preparations = std::thread::available_parallelism().map_or(1, usize::from).max(PREPARED_AT_ONCE);
        let mut engines: BTreeMap<Vec<String>, Engine> = BTreeMap::new();
        let by_name = settings.launchers.iter().map(|(name, launcher)| {
            let command = &launcher.command;
            let engine = engines.entry(command.clone()).or_insert_with(|| Engine::new(command)).clone();
            let cluster = Cluster {
                name: name.clone(),
                settings: launcher.clone(),
                engine,
                state_root: state_root.to_owned(),
                names: OnceCell::new(),
                answers: watch::Sender::new(Answers::default()),
                activity: Mutex::default(),
                look: Notify::new(),
                ask: Notify::new(),
                tracks_by_cgroup: OnceCell::new(),
                preparations: Semaphore::new(preparations),
                time_limit: AsyncMutex::default(),
            };
            (name.clone(), Arc::new(cluster))
        });
        Self { by_name: by_name.collect(), state_root: state_root.to_owned(), is_checked: AtomicBool::new(false) }
    }

    /// Returns the cluster of a launcher. `None` if the settings have none of this name.
    pub fn get(&self, launcher: &str) -> Option<Arc<Cluster>> {
        self.by_name.get(launcher).cloned()
    }

    /// Asks all clusters whether they answer. `jobs` has the numbers of waiting and of running workers of each
    /// launcher.
    pub async fn views(&self, jobs: &HashMap<String, (usize, usize)>) -> Vec<LauncherView> {
        let view = async |cluster: &Arc<Cluster>| {
            let (waiting, running) = jobs.get(&cluster.name).copied().unwrap_or_default();
            let problem = cluster.problem().await;
            LauncherView {
                name: cluster.name.clone(),
                kind: cluster.settings.kind,
                answers: problem.is_none(),
                problem: problem.or_else(|| cluster.problem_of_nodes()),
                waiting,
                running,
                limit: cluster.settings.max_jobs,
            }
        };
        let mut views = futures_util::future::join_all(self.by_name.values().map(view)).await;
        let is_removed = |(name, _): &(&String, _)| !self.by_name.contains_key(*name);
        views.extend(jobs.iter().filter(is_removed).map(|(name, counts)| removed(name, *counts)));
        views
    }

    /// Begins to look for waiting jobs whose attempts have ended, and to cancel them. The process that ended such an
    /// attempt may have ended itself before it could cancel the job. Later calls do nothing.
    pub fn check_for_ended_attempts(&self) {
        if self.by_name.is_empty() || self.is_checked.swap(true, Ordering::Relaxed) {
            return;
        }
        if StateDir::at(&self.state_root).existing_id().is_none() {
            return;
        }
        let mut asked = BTreeSet::new();
        for cluster in self.by_name.values().filter(|cluster| asked.insert(&cluster.settings.command)) {
            cluster.activity().must_check = true;
            cluster.poll_in_background();
        }
    }

    /// Sends the cancellations that were not sent yet. Without an answer of the scheduler, the next server sends them.
    pub async fn send_cancellations(&self) {
        for cluster in self.by_name.values() {
            let unsent = cluster.unsent_cancellations();
            if !unsent.is_empty() {
                cluster.send_or_log(unsent).await;
            }
        }
    }

    /// Makes all followers check the files of their workers now.
    pub fn wake_followers(&self) {
        self.by_name.values().for_each(|cluster| cluster.look.notify_waiters());
    }
}

/// Returns the view of a launcher that the settings no longer have, although workers of it are open.
fn removed(name: &str, (waiting, running): (usize, usize)) -> LauncherView {
    let problem = "it is not in the settings any more: its workers are followed by their files".to_owned();
    LauncherView {
        name: name.to_owned(),
        kind: LauncherKind::Slurm,
        answers: false,
        problem: Some(problem),
        waiting,
        running,
        limit: 0,
    }
}

/// Counts a follower until it is dropped.
pub(super) struct Followed(Arc<Cluster>);

impl Drop for Followed {
    fn drop(&mut self) {
        let mut activity = self.0.activity();
        activity.followers -= 1;
        // A job that was submitted twice may wait although its attempt has ended.
        activity.must_check = true;
    }
}

impl Cluster {
    /// Counts a follower. While there is one, the scheduler is asked from time to time.
    pub fn count_follower(self: &Arc<Self>) -> Followed {
        self.activity().followers += 1;
        self.poll_in_background();
        Followed(Arc::clone(self))
    }

    /// Cancels the job of an attempt, again and again until the scheduler no longer has the job. One cancellation is
    /// not enough: a scheduler that stops soon afterwards may forget the cancellation.
    /// Without a known job, a submission without an answer may still reach the scheduler.
    pub fn cancel(self: &Arc<Self>, worker: &WorkerId, attempt: u32, job: Option<JobId>) {
        let key = (worker.clone(), attempt);
        let is_new = !self.activity().to_cancel.contains_key(&key);
        if is_new {
            let until = job.is_none().then(|| Instant::now() + MAY_BE_SUBMITTED);
            self.activity().to_cancel.insert(key, Cancellation { sent: None, until });
            self.ask.notify_one();
        }
        self.poll_in_background();
    }

    pub fn answers(&self) -> Answers {
        self.answers.borrow().clone()
    }

    /// Returns why the scheduler does not answer. Asks it only if the background task does not poll it anyway.
    async fn problem(&self) -> Option<String> {
        if self.activity().polls {
            return self.answers.borrow().problem.as_ref().map(|problem| problem.why.clone());
        }
        slurm::partition_limit(&self.engine, self.settings.partition()).await.err()
    }

    /// Returns what the last check of its nodes found missing.
    fn problem_of_nodes(&self) -> Option<String> {
        let problems = NodeCheck::problems(&self.state_root, &self.name, Timestamp::now());
        (!problems.is_empty()).then(|| problems.join("; "))
    }

    /// Returns the time limit of its jobs. `Unknown` if the scheduler does not answer.
    pub async fn time_limit(&self) -> TimeLimit {
        // The lock is held while asking, so that a batch of missions asks once.
        let mut known = self.time_limit.lock().await;
        if let Some((until, limit)) = *known
            && Instant::now() < until
        {
            return limit;
        }
        let asked = slurm::partition_limit(&self.engine, self.settings.partition()).await;
        let holds = if asked.is_ok() { LIMIT_HOLDS } else { AFTER_MORE_FAILURES };
        let limit = asked.unwrap_or(TimeLimit::Unknown);
        *known = Some((Instant::now() + holds, limit));
        limit
    }

    pub fn lost_after(&self) -> Duration {
        Duration::from_secs(self.settings.lost_after_seconds)
    }

    /// Returns the names of the jobs of this state directory.
    pub async fn names(&self) -> Result<&JobNames, OrchestratorError> {
        let root = self.state_root.clone();
        let read = || async { blocking(move || Ok(StateDir::at(&root).id().map(JobNames::of)?)).await };
        self.names.get_or_try_init(read).await
    }

    /// Waits until another worker may be prepared. If hundreds were prepared at once, all would be ready only at the
    /// end, in any order. With this limit, the first jobs are submitted while others are prepared, in the order in
    /// which they were created.
    pub async fn turn_to_prepare(&self) -> Option<SemaphorePermit<'_>> {
        self.preparations.acquire().await.ok()
    }

    /// Waits until the files of a worker are to be read again.
    pub async fn until_next_look(&self, shortest: Duration) {
        let followers = self.activity().followers;
        let for_all = Duration::from_secs_f64(followers as f64 / LOOKS_PER_SECOND as f64);
        let interval = if followers <= FEW { shortest } else { WITH_MORE.max(for_all) };
        let _ = tokio::time::timeout(interval, self.look.notified()).await;
    }

    /// Waits until the followers are notified, as they are after each poll of the scheduler, but at most for the usual
    /// interval.
    pub async fn until_next_poll(&self) {
        let _ = tokio::time::timeout(self.interval(0), self.look.notified()).await;
    }

    /// Returns whether no process of a job outlives it. `false` if the scheduler does not say so.
    pub async fn tracks_by_cgroup(&self) -> bool {
        let ask = || async { slurm::tracks_by_cgroup(&self.engine).await };
        self.tracks_by_cgroup.get_or_try_init(ask).await.copied().unwrap_or(false)
    }

    /// Returns whether the scheduler reaches this node. `false` if the scheduler does not say so.
    pub async fn answers_on(&self, node: &str) -> bool {
        slurm::node_answers(&self.engine, node).await.unwrap_or(false)
    }

    fn activity(&self) -> MutexGuard<'_, Activity> {
        self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll_in_background(self: &Arc<Self>) {
        let mut activity = self.activity();
        if !std::mem::replace(&mut activity.polls, true) {
            tokio::spawn(Arc::clone(self).poll());
        }
    }

    async fn poll(self: Arc<Self>) {
        let mut failures = 0;
        while self.is_needed() {
            self.cancel_all().await;
            let asked = Instant::now();
            match self.observe().await {
                Ok(jobs) => {
                    failures = 0;
                    self.forget_cancelled(asked, &jobs);
                    self.cancel_jobs_of_ended_attempts(&jobs).await;
                    self.note(asked, jobs);
                }
                Err(why) => {
                    failures += 1;
                    self.note_problem(why);
                }
            }
            self.look.notify_waiters();
            let _ = tokio::time::timeout(self.interval(failures), self.ask.notified()).await;
        }
    }

    /// Returns whether the task has work. If not, records that the task has ended.
    fn is_needed(&self) -> bool {
        let mut activity = self.activity();
        activity.polls = activity.followers > 0 || activity.must_check || !activity.to_cancel.is_empty();
        activity.polls
    }

    fn interval(&self, failures: u32) -> Duration {
        let usual = Duration::from_secs(self.settings.poll_seconds);
        match failures {
            0..FAILURES => usual,
            FAILURES..6 => usual.max(AFTER_FAILURES),
            _ => usual.max(AFTER_MORE_FAILURES),
        }
    }

    async fn observe(&self) -> Result<Vec<ObservedJob>, String> {
        let names = self.names().await.map_err(|error| error.to_string())?;
        slurm::observe(&self.engine, names).await
    }

    /// Cancels the waiting jobs of attempts that have ended. A server of this state directory on another host would
    /// keep it closed, so the files are as this host has written them.
    async fn cancel_jobs_of_ended_attempts(&self, jobs: &[ObservedJob]) {
        let state = StateDir::at(&self.state_root);
        let waits = |job: &&ObservedJob| matches!(job.state, EngineState::Waits { .. });
        let waiting: Vec<Attempt> = jobs.iter().filter(waits).map(|job| (job.worker.clone(), job.attempt)).collect();
        let is_over = move |(worker, attempt): &Attempt| state.worker(worker).attempt(*attempt).is_over();
        let ended = blocking(move || Ok(waiting.into_iter().filter(is_over).collect::<Vec<_>>())).await;
        let mut activity = self.activity();
        activity.must_check = false;
        let known = activity.to_cancel.len();
        for attempt in ended.unwrap_or_default() {
            activity.to_cancel.entry(attempt).or_default();
        }
        if activity.to_cancel.len() > known {
            self.ask.notify_one();
        }
    }

    async fn cancel_all(&self) {
        let attempts: Vec<Attempt> = self.activity().to_cancel.keys().cloned().collect();
        self.send_or_log(attempts).await;
    }

    async fn send_or_log(&self, attempts: Vec<Attempt>) {
        if let Err(error) = self.send_cancellations(attempts).await {
            tracing::warn!(cluster = %self.name, error, "cannot cancel a job; trying again");
        }
    }

    fn unsent_cancellations(&self) -> Vec<Attempt> {
        let activity = self.activity();
        activity.to_cancel.iter().filter(|(_, it)| it.sent.is_none()).map(|(attempt, _)| attempt.clone()).collect()
    }

    /// Cancels jobs by their names: a scheduler that was restarted with an older state may give a number to another
    /// job. Stops at the first failure, since each command without an answer takes seconds.
    async fn send_cancellations(&self, attempts: Vec<Attempt>) -> Result<(), String> {
        let names = self.names().await.map_err(|error| error.to_string())?;
        for (worker, attempt) in attempts {
            slurm::cancel_by_name(&self.engine, &names.name(&worker, attempt)).await?;
            self.note_sent((worker, attempt));
        }
        Ok(())
    }

    fn note_sent(&self, attempt: Attempt) {
        if let Some(cancellation) = self.activity().to_cancel.get_mut(&attempt) {
            cancellation.sent = Some(Instant::now());
        }
    }

    /// Forgets the cancellations that were sent before this poll began, if the answer shows that their jobs are over.
    fn forget_cancelled(&self, asked: Instant, jobs: &[ObservedJob]) {
        let is_there = |(worker, attempt): &Attempt| {
            slurm::job_of(jobs, worker, *attempt)
                .is_some_and(|job| matches!(job.state, EngineState::Waits { .. } | EngineState::Runs))
        };
        self.activity().to_cancel.retain(|attempt, it| !it.shows_end(asked) || is_there(attempt));
    }

    fn note(&self, asked: Instant, jobs: Vec<ObservedJob>) {
        self.answers.send_modify(|answers| {
            answers.number += 1;
            (answers.asked, answers.jobs, answers.problem) = (Some(asked), Arc::new(jobs), None);
        });
    }

    fn note_problem(&self, why: String) {
        self.answers.send_modify(|answers| {
            answers.number += 1;
            let since = answers.problem.as_ref().map_or_else(Timestamp::now, |problem| problem.since);
            answers.problem = Some(Problem { why, since });
        });
    }
}

impl Problem {
    /// Describes the problem for users, with the time at which it began.
    pub fn words(&self) -> String {
        let since = Zoned::new(self.since, jiff::tz::TimeZone::system());
        format!("the cluster, which does not answer ({}, since {})", self.why, since.strftime("%H:%M"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_that_may_still_appear_is_not_over() {
        let now = Instant::now();
        let at = |seconds: u64| now + Duration::from_secs(seconds);
        let cancellation =
            |sent: Option<u64>, until: Option<u64>| Cancellation { sent: sent.map(at), until: until.map(at) };
        for (sent, until, asked, expected) in [
            (None, None, 9, false),
            (Some(5), None, 4, false),
            (Some(5), None, 6, true),
            (Some(5), Some(600), 6, false),
            (Some(5), Some(600), 601, true),
            (Some(700), Some(600), 650, false),
        ] {
            assert_eq!(cancellation(sent, until).shows_end(at(asked)), expected, "{sent:?} {until:?} {asked}");
        }
    }
}
