//! Running integrations. Each is a task of its own, which outlasts the call that started it and is joined by the same
//! call. Integrations into one branch run one after another. Nothing is kept on disk: an integration that ends with the
//! server was either landed and recorded, or has changed nothing.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::answers::IntegrationAnswer;
use super::error::OrchestratorError;
use crate::git::{Repository, Strategy};
use crate::mission::id::WorkerId;

type Result<T> = std::result::Result<T, OrchestratorError>;
/// The answer, and the commit of the target branch at that time. The answer is stale once the target branch has moved.
pub(super) type Done = (std::result::Result<IntegrationAnswer, Arc<OrchestratorError>>, Option<String>);

/// A requested integration. Equal orders are the same job.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Order {
    pub repository: Repository,
    pub sources: Vec<Source>,
    pub into: String,
    pub strategy: Strategy,
    pub verify_command: Option<String>,
    /// The command that sets up its worktree, if the missions agree on one. The default is that of the settings.
    pub setup_command: Option<String>,
    /// The subfolder in which the command runs.
    pub directory: Option<PathBuf>,
    pub push: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Source {
    pub worker: Option<WorkerId>,
    /// The worker that owns the branch, if the branch was requested by name.
    pub made_by: Option<WorkerId>,
    pub branch: String,
    /// The commit of the branch when it was requested.
    pub tip: String,
    /// The message of the merge or squash commit.
    pub message: String,
    /// A note for the boss who integrates it.
    pub note: Option<String>,
}

impl Source {
    pub fn name(&self) -> String {
        self.worker.as_ref().map_or_else(|| self.branch.clone(), ToString::to_string)
    }

    /// Returns the worker that owns the branch, however it was requested.
    pub fn by(&self) -> Option<&WorkerId> {
        self.worker.as_ref().or(self.made_by.as_ref())
    }
}

/// The branch queue: a lock that is held while one integration into a branch runs.
pub(super) type BranchQueue = Arc<tokio::sync::Mutex<()>>;

/// Number of jobs above which finished ones are dropped, even if no caller has fetched the answer.
const MOST_UNFETCHED: usize = 64;

#[derive(Default)]
pub(super) struct Jobs {
    jobs: Mutex<HashMap<Order, Job>>,
    queues: Mutex<HashMap<(Repository, String), BranchQueue>>,
}

#[derive(Clone)]
struct Job {
    state: watch::Receiver<JobState>,
    task: AbortHandle,
}

#[derive(Clone)]
struct JobState {
    doing: String,
    since: Instant,
    done: Option<Arc<Done>>,
}

/// A handle by which a job reports its progress.
#[derive(Clone)]
pub(super) struct Progress(watch::Sender<JobState>);

impl Progress {
    pub fn doing(&self, what: String) {
        self.0.send_modify(|state| (state.doing, state.since) = (what, Instant::now()));
    }
}

/// The result of waiting for a job.
pub(super) enum Joined {
    Done(Box<Result<IntegrationAnswer>>),
    /// The job is still running, with its current step.
    Running(String),
}

impl Jobs {
    pub fn branch_queue(&self, repository: &Repository, branch: &str) -> BranchQueue {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(queues.entry((repository.clone(), branch.to_owned())).or_default())
    }

    /// Joins the job of this order, or starts it. `target` is the current commit of the branch. Dropping the future
    /// leaves the job running.
    pub async fn join<F>(
        &self,
        order: &Order,
        target: Option<&str>,
        patience: Option<Duration>,
        begin: impl FnOnce(Progress) -> F,
    ) -> Joined
    where
        F: Future<Output = Done> + Send + 'static,
    {
        let mut state = self.find_or_begin(order, target, begin);
        let until_done = async {
            let done = state.wait_for(|state| state.done.is_some()).await;
            done.ok().and_then(|state| state.done.clone())
        };
        let done = match patience {
            None => Ok(until_done.await),
            Some(patience) => tokio::time::timeout(patience, until_done).await,
        };
        let Ok(done) = done else { return Joined::Running(state.borrow().doing.clone()) };
        self.forget(order, done.as_ref());
        Joined::Done(Box::new(match done {
            Some(done) => done.0.clone().map_err(OrchestratorError::from),
            None => Err(OrchestratorError::ShuttingDown),
        }))
    }

    fn find_or_begin<F>(
        &self,
        order: &Order,
        target: Option<&str>,
        begin: impl FnOnce(Progress) -> F,
    ) -> watch::Receiver<JobState>
    where
        F: Future<Output = Done> + Send + 'static,
    {
        let mut jobs = self.jobs();
        if let Some(job) = jobs.get(order) {
            let state = job.state.borrow();
            // A job that panicked or was aborted has no result and never will.
            let is_running = state.done.is_none() && !job.task.is_finished();
            if is_running || state.done.as_ref().is_some_and(|done| done.1.as_deref() == target) {
                return job.state.clone();
            }
        }
        if jobs.len() >= MOST_UNFETCHED {
            jobs.retain(|_, job| !job.task.is_finished());
        }
        let (sender, state) = watch::channel(JobState { doing: String::new(), since: Instant::now(), done: None });
        let work = begin(Progress(sender.clone()));
        let task = tokio::spawn(async move {
            let done = work.await;
            sender.send_modify(|state| state.done = Some(Arc::new(done)));
        });
        jobs.insert(order.clone(), Job { state: state.clone(), task: task.abort_handle() });
        state
    }

    /// Forgets a job whose result was returned. The same order may have begun anew meanwhile, for another caller.
    fn forget(&self, order: &Order, returned: Option<&Arc<Done>>) {
        let mut jobs = self.jobs();
        let same = |job: &Job| match (&job.state.borrow().done, returned) {
            (Some(done), Some(returned)) => Arc::ptr_eq(done, returned),
            _ => job.task.is_finished(),
        };
        if jobs.get(order).is_some_and(same) {
            jobs.remove(order);
        }
    }

    /// Returns the current steps of the running jobs, each with its duration.
    pub fn doing(&self) -> Vec<String> {
        let jobs = self.jobs();
        let running = jobs.values().filter(|job| !job.task.is_finished());
        let doing = running.map(|job| {
            let state = job.state.borrow();
            format!("{} ({} s)", state.doing, state.since.elapsed().as_secs())
        });
        doing.collect()
    }

    /// Aborts all jobs. Their processes and worktrees end with them.
    pub fn end_all(&self) {
        self.jobs().drain().for_each(|(_, job)| job.task.abort());
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<Order, Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
