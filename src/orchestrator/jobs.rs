//! Running integrations. Each is a task of its own, which outlasts the call that started it and is joined by the same
//! call. Integrations into one branch run one after another. Nothing is kept on disk: an integration that ends with the
//! server was either landed and recorded, or not begun.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::answers::IntegrationAnswer;
use super::error::OrchestratorError;
use super::train::Order;
use crate::git::Repository;

type Result<T> = std::result::Result<T, OrchestratorError>;
/// The answer, and the commit of the target branch at that time. The answer is stale once the target branch has moved.
pub(super) type Done = (std::result::Result<IntegrationAnswer, Arc<OrchestratorError>>, Option<String>);

/// The branch queue: a lock that is held while one integration into a branch runs.
pub(super) type Lane = Arc<tokio::sync::Mutex<()>>;

/// Number of jobs above which finished ones are dropped, even if no caller has fetched the answer.
const MOST_UNFETCHED: usize = 64;

#[derive(Default)]
pub(super) struct Jobs {
    jobs: Mutex<HashMap<Order, Job>>,
    /// Branch queues, by repository and target branch.
    lanes: Mutex<HashMap<(Repository, String), Lane>>,
}

#[derive(Clone)]
struct Job {
    news: watch::Receiver<News>,
    task: AbortHandle,
}

#[derive(Clone)]
struct News {
    doing: String,
    since: Instant,
    done: Option<Arc<Done>>,
}

/// A handle by which a job reports its progress.
#[derive(Clone)]
pub(super) struct Teller(watch::Sender<News>);

impl Teller {
    pub fn doing(&self, what: String) {
        self.0.send_modify(|news| (news.doing, news.since) = (what, Instant::now()));
    }
}

/// The result of waiting for a job.
pub(super) enum Joined {
    Done(Box<Result<IntegrationAnswer>>),
    /// The job is still running, with its current step.
    Running(String),
}

impl Jobs {
    pub fn lane(&self, repository: &Repository, branch: &str) -> Lane {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(lanes.entry((repository.clone(), branch.to_owned())).or_default())
    }

    /// Joins the job of this order, or starts it. `target` is the current commit of the branch. Dropping the future
    /// leaves the job running.
    pub async fn join<F>(
        &self,
        order: &Order,
        target: Option<&str>,
        patience: Option<Duration>,
        begin: impl FnOnce(Teller) -> F,
    ) -> Joined
    where
        F: Future<Output = Done> + Send + 'static,
    {
        let mut news = self.find_or_begin(order, target, begin);
        let until_done = async {
            let done = news.wait_for(|news| news.done.is_some()).await;
            done.ok().and_then(|news| news.done.clone())
        };
        let done = match patience {
            None => Ok(until_done.await),
            Some(patience) => tokio::time::timeout(patience, until_done).await,
        };
        let Ok(done) = done else { return Joined::Running(news.borrow().doing.clone()) };
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
        begin: impl FnOnce(Teller) -> F,
    ) -> watch::Receiver<News>
    where
        F: Future<Output = Done> + Send + 'static,
    {
        let mut jobs = self.jobs();
        if let Some(job) = jobs.get(order) {
            let news = job.news.borrow();
            // One that panicked or was ended has told nothing and never will.
            let goes_on = news.done.is_none() && !job.task.is_finished();
            if goes_on || news.done.as_ref().is_some_and(|done| done.1.as_deref() == target) {
                return job.news.clone();
            }
        }
        if jobs.len() >= MOST_UNFETCHED {
            jobs.retain(|_, job| !job.task.is_finished());
        }
        let (sender, news) = watch::channel(News { doing: String::new(), since: Instant::now(), done: None });
        let work = begin(Teller(sender.clone()));
        let task = tokio::spawn(async move {
            let done = work.await;
            sender.send_modify(|news| news.done = Some(Arc::new(done)));
        });
        jobs.insert(order.clone(), Job { news: news.clone(), task: task.abort_handle() });
        news
    }

    /// It was told. The same order may have begun anew meanwhile, for another caller.
    fn forget(&self, order: &Order, told: Option<&Arc<Done>>) {
        let mut jobs = self.jobs();
        let same = |job: &Job| match (&job.news.borrow().done, told) {
            (Some(done), Some(told)) => Arc::ptr_eq(done, told),
            _ => job.task.is_finished(),
        };
        if jobs.get(order).is_some_and(same) {
            jobs.remove(order);
        }
    }

    /// What those that are going on do, each with how long it has done so.
    pub fn doing(&self) -> Vec<String> {
        let jobs = self.jobs();
        let going_on = jobs.values().filter(|job| !job.task.is_finished());
        let doing = going_on.map(|job| {
            let news = job.news.borrow();
            format!("{} ({} s)", news.doing, news.since.elapsed().as_secs())
        });
        doing.collect()
    }

    /// What is going on stops where it is; its processes and worktrees go with it.
    pub fn end_all(&self) {
        self.jobs().drain().for_each(|(_, job)| job.task.abort());
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<Order, Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
