//! The handle: what the rooms above can ask of the orchestrator.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::actor;
use super::answers::*;
use super::context::Context;
use super::error::OrchestratorError;
use super::mail::Ask;
use super::{checks, configuration, integrate, merged, probe, worktrees};
use crate::attempt::state_dir;
use crate::attempt::worker_dir::WorkerDir;
use crate::backend::Backends;
use crate::config::Settings;
use crate::mission::create::Draft;
use crate::mission::id::{BackendName, BossId, WorkerId};
use crate::mission::registry::Worker;

type Result<T> = std::result::Result<T, OrchestratorError>;

/// Where and for whom a server starts.
#[derive(Debug, Clone)]
pub struct Startup {
    pub settings: Settings,
    /// The directory that the client started the server in.
    pub directory: PathBuf,
    /// `None`: this client names no session, so the boss is whoever works in this directory.
    pub boss: Option<BossId>,
    /// Our own program, to start supervisors with.
    pub program: PathBuf,
}

/// Cheap to clone; the last one that is dropped does not stop anything: see [`Orchestrator::shut_down`].
#[derive(Clone)]
pub struct Orchestrator {
    context: Arc<Context>,
    mailbox: mpsc::UnboundedSender<Ask>,
}

/// Maximum time that an answer waits for git to determine what is merged.
const MERGED_CEILING: Duration = Duration::from_secs(5);

/// Which workers to wait for, and how long.
#[derive(Debug, Clone)]
pub struct WaitRequest {
    /// Empty: all of this boss's.
    pub workers: Vec<String>,
    pub timeout: Duration,
    /// Most settlements to answer with; the others stay for the next wait.
    pub most: usize,
}

/// The answer of a wait, on its way to the boss. If it is dropped before [`Handing::sent`], the wait is forgotten, and
/// the next wait gets its content.
#[must_use]
pub struct Handing {
    orchestrator: Orchestrator,
    ticket: u64,
    sent: bool,
}

impl Handing {
    /// Marks the answer as sent, after which it cannot be revoked. This boss's next request then shows that it arrived.
    pub fn sent(mut self) {
        self.sent = true;
        self.orchestrator.tell(Ask::Sent { ticket: self.ticket });
    }
}

impl Drop for Handing {
    fn drop(&mut self) {
        if !self.sent {
            // Should the answer be on its way already, the actor takes it back.
            self.orchestrator.tell(Ask::ForgetWait { ticket: self.ticket });
        }
    }
}

impl Orchestrator {
    /// Opens the state directory and starts the actor. Quick: what earlier servers left is taken over behind it.
    pub fn start(startup: Startup, backends: Backends) -> Result<Self> {
        Self::start_in(Context::new(startup, backends, false)?)
    }

    /// Starts a one-shot client, for a command. It takes over nothing from dead servers except what it is asked to end,
    /// and starts nothing except what it is asked to retry. It owns no lease after [`Orchestrator::shut_down`]. `None`
    /// if there is no state, and then nothing is created.
    pub fn visit(startup: Startup, backends: Backends) -> Result<Option<Self>> {
        let context = Context::new(startup, backends, true)?;
        state_dir::is_there(&context.state_root)?;
        match context.has_state() {
            true => Self::start_in(context).map(Some),
            false => Ok(None),
        }
    }

    fn start_in(context: Context) -> Result<Self> {
        let context = Arc::new(context);
        configuration::keep_to_what_is_remembered(&context);
        let mailbox = actor::start(Arc::clone(&context))?;
        Ok(Self { context, mailbox })
    }

    pub(super) fn visits(&self) -> bool {
        self.context.visitor
    }

    /// What the integrations that go on do just now.
    pub fn integrations(&self) -> Vec<String> {
        self.context.jobs.doing()
    }

    /// Whether this very server looks after the worker.
    pub fn leads(&self, worker: &Worker) -> bool {
        worker.lease == self.context.server
    }

    /// The boss of requests that name no session themselves.
    pub fn default_boss(&self) -> &BossId {
        &self.context.boss
    }

    pub fn settings(&self) -> &Settings {
        &self.context.settings
    }

    /// The record that bosses and people may read; written within 100 ms of each change.
    pub fn state_file(&self) -> PathBuf {
        state_dir::state_file(&self.context.state_root)
    }

    /// Where all files of a worker lie. Nothing of it is there before its first attempt.
    pub fn folder(&self, worker: &WorkerId) -> WorkerDir {
        state_dir::worker(&self.context.state_root, worker)
    }

    pub fn backends(&self) -> &Backends {
        &self.context.backends
    }

    pub(super) fn shared(&self) -> Arc<Context> {
        Arc::clone(&self.context)
    }

    /// Notes a request of this boss, which means that the earlier answers to waits have arrived.
    pub fn arrived(&self, boss: &BossId) {
        self.tell(Ask::Arrived { boss: boss.clone() });
    }

    /// Registers the drafts independently, and answers in their order. No slow work has been done when this returns.
    pub async fn create(&self, boss: &BossId, drafts: Vec<Result<Draft>>) -> Result<Creation> {
        self.create_batch(boss, drafts, false).await
    }

    /// Registers drafts of one and the same task, whose workers race each other: all of them or none.
    pub async fn create_race(&self, boss: &BossId, drafts: Vec<Result<Draft>>) -> Result<Creation> {
        self.create_batch(boss, drafts, true).await
    }

    async fn create_batch(&self, boss: &BossId, drafts: Vec<Result<Draft>>, race: bool) -> Result<Creation> {
        let requests: Vec<String> = drafts.iter().flatten().filter_map(|draft| draft.request_id.clone()).collect();
        let known = match requests.is_empty() {
            true => HashSet::new(),
            false => self.ask(|reply| Ask::Known { requests, reply }).await?,
        };
        let (boss, of) = (boss.clone(), boss.clone());
        let recorded = self.ask(|reply| Ask::RecordedBranch { boss: of, reply }).await?;
        let (drafts, base) = checks::check_all(Arc::clone(&self.context), drafts, known, recorded).await;
        let integration_branch = base.as_ref().map(|base| base.branch.clone());
        let results = self.ask(|reply| Ask::Create { boss, drafts, race, integration_branch, reply }).await??;
        Ok(Creation { results, base })
    }

    /// Waits until there is something to report, the time is up, or `stop` is cancelled (then nothing is consumed). The
    /// answer counts as delivered only after [`Handing::sent`].
    pub async fn wait(
        &self,
        boss: &BossId,
        request: WaitRequest,
        stop: &CancellationToken,
    ) -> Result<(WaitAnswer, Handing)> {
        let (handing, mut reply) = self.begin_wait(boss, &request).await?;
        let answer = tokio::select! {
            biased;
            () = stop.cancelled() => Err(OrchestratorError::ShuttingDown),
            answer = &mut reply => answer.map_err(|_| OrchestratorError::ShuttingDown),
            () = tokio::time::sleep(request.timeout) => self.end_wait(handing.ticket, &mut reply).await,
        };
        let mut answer = answer?;
        answer.settled = self.up_to_date(answer.settled).await?;
        answer.already_reported = self.up_to_date(answer.already_reported).await?;
        Ok((answer, handing))
    }

    /// Updates the views with the current merge state in git. What git has not answered in time is unknown; the answer
    /// is there for a later request.
    async fn up_to_date(&self, mut views: Vec<WorkerView>) -> Result<Vec<WorkerView>> {
        if !views.iter().any(|view| merged::may_be_merged(&view.worker)) {
            return Ok(views);
        }
        let mut unknown = views.clone();
        let context = Arc::clone(&self.context);
        let asked = blocking(move || {
            context.merged.bring_up_to_date(context.repository.as_ref(), views.iter_mut());
            Ok(views)
        });
        match tokio::time::timeout(MERGED_CEILING, asked).await {
            Ok(views) => views,
            Err(_) => {
                merged::set_unknown(&mut unknown);
                Ok(unknown)
            }
        }
    }

    async fn begin_wait(
        &self,
        boss: &BossId,
        request: &WaitRequest,
    ) -> Result<(Handing, oneshot::Receiver<WaitAnswer>)> {
        let (answer, receiver) = oneshot::channel();
        let (boss, workers, most) = (boss.clone(), request.workers.clone(), request.most);
        let ticket = self.ask(|reply| Ask::Wait { boss, workers, most, answer, reply }).await??;
        Ok((Handing { orchestrator: self.clone(), ticket, sent: false }, receiver))
    }

    /// The time is up. The actor may have answered at the same moment; that answer counts then.
    async fn end_wait(&self, ticket: u64, reply: &mut oneshot::Receiver<WaitAnswer>) -> Result<WaitAnswer> {
        let late = self.ask(|reply| Ask::EndWait { ticket, reply }).await?;
        match late {
            Some(answer) => Ok(answer),
            None => reply.await.map_err(|_| OrchestratorError::ShuttingDown),
        }
    }

    /// One line on who does what, and how far integrations are, for the progress of a call.
    pub async fn progress(&self, boss: &BossId, workers: &[String]) -> Result<String> {
        let (boss, workers) = (boss.clone(), workers.to_vec());
        let mut said = self.context.jobs.doing();
        said.push(self.ask(|reply| Ask::Progress { boss, workers, reply }).await?);
        Ok(said.join("; "))
    }

    pub async fn list(&self, boss: &BossId, scope: Scope) -> Result<ListAnswer> {
        let boss = boss.clone();
        let answer = self.ask(|reply| Ask::List { boss, scope, reply }).await?;
        Ok(ListAnswer { workers: self.up_to_date(answer.workers).await?, ..answer })
    }

    /// Returns one page of workers. Details are determined only for the workers on it.
    pub async fn page(&self, boss: &BossId, request: PageRequest) -> Result<ListPage> {
        let boss = boss.clone();
        self.ask(|reply| Ask::Page { boss, request, reply }).await
    }

    pub async fn get(&self, name: &str) -> Result<WorkerView> {
        let name = name.to_owned();
        let view = self.ask(|reply| Ask::Get { name, reply }).await??;
        Ok(self.up_to_date(vec![view]).await?.remove(0))
    }

    pub async fn details(&self, name: &str, include: Include) -> Result<Details> {
        let view = self.get(name).await?;
        let context = Arc::clone(&self.context);
        blocking(move || worktrees::details(&context, view, &include)).await
    }

    pub async fn send_message(&self, boss: &BossId, name: &str, message: NewMessage) -> Result<MessageAnswer> {
        let (boss, name) = (boss.clone(), name.to_owned());
        self.ask(|reply| Ask::Message { boss, name, message, reply }).await?
    }

    /// Ends the worker and proves that nothing of it is left; returns when that is done.
    pub async fn cancel(&self, boss: &BossId, name: &str, reason: &str) -> Result<CancelAnswer> {
        let (boss, name, reason) = (boss.clone(), name.to_owned(), reason.to_owned());
        self.ask(|reply| Ask::Cancel { boss, name, reason, reply }).await?
    }

    /// Ends all open workers of the boss, or of all bosses, each as [`Orchestrator::cancel`] does; with how each ended.
    pub async fn cancel_all(
        &self,
        boss: &BossId,
        scope: Scope,
        reason: &str,
    ) -> Result<(Vec<(WorkerId, Result<CancelAnswer>)>, usize)> {
        let (boss, reason) = (boss.clone(), reason.to_owned());
        let CancelAllAnswer { ending, already_settled } =
            self.ask(|reply| Ask::CancelAll { boss, scope, reason, reply }).await??;
        let ended = ending
            .into_iter()
            .map(|(id, answer)| async move { (id, answer.await.unwrap_or(Err(OrchestratorError::ShuttingDown))) });
        Ok((futures_util::future::join_all(ended).await, already_settled))
    }

    pub async fn retry(&self, boss: &BossId, name: &str, request: RetryRequest) -> Result<WorkerView> {
        // As at the creation of a mission: a logged-out CLI would only spend time.
        if let Some(backend) = &request.backend {
            let logged_out = probe::logged_out(&self.context, BTreeSet::from([backend.clone()])).await;
            logged_out.into_values().try_for_each(Err::<(), _>)?;
        }
        let (boss, name) = (boss.clone(), name.to_owned());
        self.ask(|reply| Ask::Retry { boss, name, request, reply }).await?
    }

    pub async fn create_worktree(&self, boss: &BossId, request: WorktreeRequest) -> Result<WorktreeAnswer> {
        let (context, boss) = (Arc::clone(&self.context), boss.clone());
        let recorded = self.ask(|reply| Ask::RecordedBranch { boss, reply }).await?;
        blocking(move || worktrees::create(&context, recorded, request)).await
    }

    pub async fn remove_worktree(&self, boss: &BossId, request: RemovalRequest) -> Result<RemovalAnswer> {
        worktrees::remove(self, boss, request).await
    }

    /// Integrates branches. Continues in the background when `patience` is over or the future is dropped. The same
    /// request joins it.
    pub async fn integrate(&self, boss: &BossId, request: IntegrationRequest) -> Result<IntegrationAnswer> {
        integrate::integrate(self, boss, request).await
    }

    /// Returns whether an integration was unnecessary because the worker has no commits of its own.
    pub async fn had_nothing_to_integrate(&self, answer: &IntegrationAnswer) -> bool {
        let is_there = matches!(answer.status, IntegrationStatus::AlreadyMerged | IntegrationStatus::AlreadyIntegrated);
        let Some(worker) = answer.worker.as_ref().filter(|_| is_there) else { return false };
        let view = self.get(worker.as_str()).await;
        view.is_ok_and(|view| {
            let has_commits = view.worker.settled.iter().any(|brief| brief.changes.commits > 0);
            !has_commits && view.worker.integrated.is_none()
        })
    }

    pub async fn backend_status(&self, only: Option<&BackendName>) -> Result<Vec<BackendView>> {
        let counts = self.ask(|reply| Ask::Counts { reply }).await?;
        probe::status(&self.context, only, &counts).await
    }

    /// Saves unsaved data and releases everything, then returns. The workers continue.
    pub async fn shut_down(&self) {
        // An integration that could not be recorded must not land.
        self.context.jobs.end_all();
        let _ = self.ask(|reply| Ask::ShutDown { reply }).await;
    }

    pub(super) fn tell(&self, ask: Ask) {
        // A closed mailbox means that the server is shutting down, so no receiver is left.
        let _ = self.mailbox.send(ask);
    }

    pub(super) async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(ask(reply)).map_err(|_| OrchestratorError::ShuttingDown)?;
        answer.await.map_err(|_| OrchestratorError::ShuttingDown)
    }
}

/// Git and the disk are asked off the runtime's threads.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(OrchestratorError::ShuttingDown),
    }
}
