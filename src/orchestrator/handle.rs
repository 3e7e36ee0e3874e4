//! The facade of this room for the rooms above: each method is one message to the actor, or one task.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::actor;
use super::actor_handle::ActorHandle;
use super::answers::*;
use super::blocking::blocking;
use super::builds::{BuildsStay, WorktreeBuilds};
use super::context::{Context, Startup};
use super::error::OrchestratorError;
use super::mailbox::{Ask, BegunWait, WakeOrder};
use super::question_error::QuestionError;
use super::waking::{self, NotWoken};
use super::{integrate, job_time, old_logs, probe, prune, questions, worktrees};
use crate::attempt::state_dir;
use crate::attempt::worker_dir::WorkerDir;
use crate::backend::Backends;
use crate::config::Settings;
use crate::git::Worktree;
use crate::mission::create::Draft;
use crate::mission::id::{BackendName, BossId, ThreadId, WaitId, WorkerId};
use crate::mission::message::Author;
use crate::mission::registry::Worker;
use crate::mission::wake::WakeFailure;

/// Time limit of the end of this process for cancellations of jobs that were not sent yet.
const LAST_CANCELLATIONS: Duration = Duration::from_secs(2);

type Result<T> = std::result::Result<T, OrchestratorError>;

/// A facade of the actor, cheap to clone. Dropping the last one stops nothing: see [`Orchestrator::shut_down`].
#[derive(Clone)]
pub struct Orchestrator {
    actor: ActorHandle,
}

/// Which workers to wait for, and how long.
#[derive(Debug, Clone)]
pub struct WaitRequest {
    /// Empty: all of this boss's.
    pub workers: Vec<String>,
    /// Receipts of settlements that the boss has.
    pub receipts: Vec<String>,
    pub timeout: Duration,
    /// Most settlements to answer with; the others stay for the next wait.
    pub most: usize,
    /// Time after which it ends, if it may go on in the background.
    pub background: Option<Duration>,
}

/// The answer to a wait.
pub enum Waited {
    Answered(Box<WaitAnswer>),
    /// It goes on in the background: see [`Orchestrator::poll_wait`].
    Background(OpenWait),
}

/// The guard of a wait's answer that is in flight. If it is dropped before [`DeliveryGuard::sent`], the answer is
/// withdrawn, and the next wait gets its content.
#[must_use]
pub struct DeliveryGuard {
    actor: ActorHandle,
    content: Guarded,
    sent: bool,
}

/// The content of an answer that may still be revoked.
enum Guarded {
    /// The answer of the wait with this ticket.
    Answer(u64),
    /// The id of a background wait, without which the client cannot ask for its end.
    Background(WaitId),
}

impl DeliveryGuard {
    /// Marks the answer as sent, after which it cannot be revoked. This boss's next request then shows that it arrived.
    pub fn sent(mut self) {
        self.sent = true;
        if let Guarded::Answer(ticket) = self.content {
            self.actor.send(Ask::Sent { ticket });
        }
    }
}

impl Drop for DeliveryGuard {
    fn drop(&mut self) {
        if self.sent {
            return;
        }
        self.actor.send(match &self.content {
            // If the answer is in flight already, the actor withdraws it.
            Guarded::Answer(ticket) => Ask::ForgetWait { ticket: *ticket },
            Guarded::Background(id) => Ask::CancelWait { id: id.clone(), reply: None },
        });
    }
}

impl Orchestrator {
    /// Opens the state directory and starts the actor, which takes over from earlier servers in the background.
    pub fn start(startup: Startup, backends: Backends) -> Result<Self> {
        Self::start_in(Context::new(startup, backends, false)?)
    }

    /// Starts a one-shot client, for a command. It takes over nothing from dead servers except what it is asked to end,
    /// and starts nothing except what it is asked to retry. It owns no lease after [`Orchestrator::shut_down`]. `None`
    /// if there is no state, and then nothing is created.
    pub fn visit(startup: Startup, backends: Backends) -> Result<Option<Self>> {
        let context = Context::new(startup, backends, true)?;
        state_dir::is_there(&context.state_root)?;
        if context.has_state() { Self::start_in(context).map(Some) } else { Ok(None) }
    }

    fn start_in(context: Context) -> Result<Self> {
        let context = Arc::new(context);
        let mailbox = actor::start(Arc::clone(&context))?;
        let actor = ActorHandle::new(context, mailbox);
        if !actor.context.is_one_shot {
            tokio::spawn(old_logs::keep_removing(actor.clone()));
            tokio::spawn(prune::keep_pruning(actor.clone()));
        }
        Ok(Self { actor })
    }

    /// Returns the current steps of the running integrations.
    pub fn integrations(&self) -> Vec<String> {
        self.actor.jobs.doing()
    }

    pub fn owns_lease_of(&self, worker: &Worker) -> bool {
        worker.lease == self.actor.context.server
    }

    /// Returns the boss of requests that name no session.
    pub fn default_boss(&self) -> &BossId {
        &self.actor.context.boss
    }

    pub fn settings(&self) -> &Settings {
        &self.actor.context.settings
    }

    /// Returns the path of the state file, which is written within 100 ms of each change.
    pub fn state_file(&self) -> PathBuf {
        state_dir::state_file(&self.actor.context.state_root)
    }

    /// Returns the folder of all files of a worker. It does not exist before the first attempt.
    pub fn folder(&self, worker: &WorkerId) -> WorkerDir {
        state_dir::worker(&self.actor.context.state_root, worker)
    }

    pub fn backends(&self) -> &Backends {
        &self.actor.context.backends
    }

    /// Notes a request of this boss, which means that the earlier answers to waits have arrived.
    pub fn arrived(&self, boss: &BossId) {
        self.actor.send(Ask::Arrived { boss: boss.clone() });
    }

    /// Notes a request of this boss from a thread that can be woken, with its turn if a queued message began that.
    pub fn arrived_from(&self, boss: &BossId, thread: &ThreadId, woken_turn: Option<&str>) {
        let woken_turn = woken_turn.map(str::to_owned);
        self.actor.send(Ask::ArrivedFrom { boss: boss.clone(), thread: thread.clone(), woken_turn });
    }

    /// Returns whether this server can wake a thread of its client.
    pub fn can_wake(&self) -> std::result::Result<(), NotWoken> {
        waking::check(self.settings())
    }

    /// Records that a boss ends its turn and is to be woken. It is woken at once if something is already due.
    pub async fn request_wake(&self, order: WakeOrder) -> Result<()> {
        self.actor.ask(|reply| Ask::RequestWake { order, reply }).await?
    }

    /// Returns the last failure to wake a boss, unless a boss was woken since.
    pub async fn wake_failure(&self) -> Result<Option<WakeFailure>> {
        self.actor.ask(|reply| Ask::WakeFailure { reply }).await
    }

    /// Registers the missions of a batch, and answers in their order. No slow work has been done when this returns.
    pub async fn create(&self, boss: &BossId, drafts: Vec<Result<Draft>>, kind: BatchKind) -> Result<Creation> {
        let boss = boss.clone();
        let mut creation = self.actor.ask(|reply| Ask::Create { boss, drafts, kind, reply }).await??;
        if let Some(view) = creation.view.take() {
            creation.view = self.actor.up_to_date(vec![view]).await?.pop();
        }
        Ok(creation)
    }

    /// Waits until there is something to report, the time is up, or `stop` is cancelled (then nothing is consumed). The
    /// answer counts as delivered only after [`DeliveryGuard::sent`]. A wait that may go on in the background returns at
    /// once.
    pub async fn wait(
        &self,
        boss: &BossId,
        request: WaitRequest,
        stop: &CancellationToken,
    ) -> Result<(Waited, DeliveryGuard)> {
        let (answer, mut reply) = oneshot::channel();
        let WaitRequest { workers, receipts, timeout, most, background } = request;
        let boss = boss.clone();
        let asked =
            self.actor.ask(|reply| Ask::Wait { boss, workers, receipts, most, background, answer, reply }).await??;
        let (ticket, open) = match asked {
            BegunWait::Blocking(ticket) => (ticket, None),
            BegunWait::Waiting(ticket, id) => (ticket, Some(id)),
            BegunWait::Background(wait) => {
                let guard = self.guard(Guarded::Background(wait.id.clone()));
                return Ok((Waited::Background(wait), guard));
            }
        };
        let guard = self.guard(Guarded::Answer(ticket));
        let timeout = if open.is_some() { Duration::ZERO } else { timeout };
        let answer = tokio::select! {
            biased;
            () = stop.cancelled() => Err(OrchestratorError::ShuttingDown),
            answer = &mut reply => answer.map_err(|_| self.actor.unanswered()),
            () = tokio::time::sleep(timeout) => self.end_wait(ticket, &mut reply).await,
        };
        let mut answer = answer?;
        answer.settled = self.actor.up_to_date(answer.settled).await?;
        answer.already_reported = self.actor.up_to_date(answer.already_reported).await?;
        answer.background = open;
        Ok((Waited::Answered(Box::new(answer)), guard))
    }

    fn guard(&self, content: Guarded) -> DeliveryGuard {
        DeliveryGuard { actor: self.actor.clone(), content, sent: false }
    }

    /// Returns the state of a background wait. The first call that finds something to report ends it; any other is cheap.
    /// With `forms`, the client can show questions to the user first.
    pub async fn poll_wait(&self, id: &WaitId, forms: bool, render: RenderWait) -> Result<WaitState> {
        let id = id.clone();
        self.actor.ask(|reply| Ask::PollWait { id, forms, render, reply }).await
    }

    /// Ends a background wait if it is open. Its workers go on, and it reports nothing.
    pub async fn cancel_wait(&self, id: &WaitId) -> Result<()> {
        let id = id.clone();
        self.actor.ask(|reply| Ask::CancelWait { id, reply: Some(reply) }).await
    }

    /// Returns the background waits of a boss that have ended, and whose answers the boss has not acknowledged.
    pub async fn unacknowledged_waits(&self, boss: &BossId) -> Result<Vec<WaitId>> {
        let boss = boss.clone();
        self.actor.ask(|reply| Ask::UnacknowledgedWaits { boss, reply }).await
    }

    /// Notes that a conversation of the boss shows the ends of these background waits.
    pub async fn waits_shown(&self, boss: &BossId, waits: Vec<WaitId>) -> Result<()> {
        let boss = boss.clone();
        self.actor.ask(|reply| Ask::WaitsShown { boss, waits, reply }).await
    }

    /// Ends a wait whose time is up. If the actor has answered at the same moment, that answer counts.
    async fn end_wait(&self, ticket: u64, reply: &mut oneshot::Receiver<WaitAnswer>) -> Result<WaitAnswer> {
        let late = self.actor.ask(|reply| Ask::EndWait { ticket, reply }).await?;
        match late {
            Some(answer) => Ok(answer),
            None => reply.await.map_err(|_| self.actor.unanswered()),
        }
    }

    /// Returns one line for the progress of a call: the activity of workers, and the steps of integrations.
    pub async fn progress(&self, boss: &BossId, workers: &[String]) -> Result<String> {
        let (boss, workers) = (boss.clone(), workers.to_vec());
        let mut said = self.actor.jobs.doing();
        said.push(self.actor.ask(|reply| Ask::Progress { boss, workers, reply }).await?);
        Ok(said.join("; "))
    }

    pub async fn list(&self, boss: &BossId, scope: Scope) -> Result<ListAnswer> {
        let boss = boss.clone();
        let answer = self.actor.ask(|reply| Ask::List { boss, scope, reply }).await?;
        Ok(ListAnswer { workers: self.actor.up_to_date(answer.workers).await?, ..answer })
    }

    /// Returns one page of workers. Details are determined only for the workers on it.
    pub async fn page(&self, boss: &BossId, request: PageRequest) -> Result<ListPage> {
        let boss = boss.clone();
        self.actor.ask(|reply| Ask::Page { boss, request, reply }).await
    }

    pub async fn get(&self, name: &str) -> Result<WorkerView> {
        self.actor.get(name).await
    }

    pub async fn details(&self, name: &str, include: Include) -> Result<Details> {
        let view = self.get(name).await?;
        let context = Arc::clone(&self.actor.context);
        blocking(move || worktrees::details(&context, view, &include)).await
    }

    pub async fn send_message(&self, boss: &BossId, name: &str, message: NewMessage) -> Result<MessageAnswer> {
        let (boss, name) = (boss.clone(), name.to_owned());
        self.actor.ask(|reply| Ask::Message { boss, name, message, reply }).await?
    }

    /// Answers a question of a worker. Returns when its CLI has the answer, or an error that names the answer that counts.
    pub async fn answer(&self, boss: &BossId, name: &str, request: AnswerRequest) -> Result<Answered> {
        questions::answer(&self.actor, boss, name, request, None).await
    }

    /// Answers a question as the user, who was shown a form for it by a client that waits for its worker.
    pub async fn answer_form(&self, wait: &WaitId, worker: &str, request: AnswerRequest) -> Result<Answered> {
        let (id, name) = (wait.clone(), worker.to_owned());
        let boss = self.actor.ask(|reply| Ask::BossOfForm { id, worker: name, reply }).await?;
        let not_open = || QuestionError::NotOpen {
            worker: worker.to_owned(),
            question: request.question.clone(),
            open: Vec::new(),
        };
        let boss = boss.ok_or_else(not_open)?;
        questions::answer(&self.actor, &boss, worker, request, Some(Author::User)).await
    }

    /// Ends the worker and proves that nothing of it is left; returns when that is done.
    pub async fn cancel(&self, boss: &BossId, name: &str, reason: &str) -> Result<CancelAnswer> {
        let (boss, name, reason) = (boss.clone(), name.to_owned(), reason.to_owned());
        self.actor.ask(|reply| Ask::Cancel { boss, name, reason, reply }).await?
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
            self.actor.ask(|reply| Ask::CancelAll { boss, scope, reason, reply }).await??;
        let ended = ending
            .into_iter()
            .map(|(id, answer)| async move { (id, answer.await.unwrap_or_else(|_| Err(self.actor.unanswered()))) });
        Ok((futures_util::future::join_all(ended).await, already_settled))
    }

    pub async fn retry(&self, boss: &BossId, name: &str, request: RetryRequest) -> Result<WorkerView> {
        // A logged-out CLI would only waste time, as at the creation of a mission.
        if let Some(backend) = &request.backend {
            let logged_out = probe::logged_out(&self.actor.context, BTreeSet::from([backend.clone()])).await;
            logged_out.into_values().try_for_each(Err::<(), _>)?;
        }
        let (boss, name) = (boss.clone(), name.to_owned());
        let asked = Some(name.clone());
        let found = self.actor.ask(|reply| Ask::Lookup { name: asked, reply }).await?;
        // Any other worker is refused below, with the reason.
        let settled = found.ok().and_then(|found| found.worker).filter(|worker| worker.status.is_settled());
        if let Some(worker) = settled {
            job_time::refuse_retry_too_long(&self.actor.context, &worker, &request).await?;
        }
        self.actor.ask(|reply| Ask::Retry { boss, name, request, reply }).await?
    }

    pub async fn create_worktree(&self, boss: &BossId, request: WorktreeRequest) -> Result<Worktree> {
        let (context, boss) = (Arc::clone(&self.actor.context), boss.clone());
        let recorded = self.actor.ask(|reply| Ask::RecordedBranch { boss, reply }).await?;
        blocking(move || worktrees::create(&context, recorded, request)).await
    }

    pub async fn remove_worktree(&self, boss: &BossId, request: RemovalRequest) -> Result<RemovalAnswer> {
        worktrees::remove(&self.actor, boss, request).await
    }

    /// Deletes the builds in the worktree of a settled worker, such as `node_modules`. Returns the deleted folders, and
    /// those that stay.
    pub async fn prune_builds(&self, name: &str) -> std::result::Result<WorktreeBuilds, BuildsStay> {
        prune::prune(&self.actor, name).await
    }

    /// Integrates branches. Continues in the background when `patience` is over or the future is dropped. The same
    /// request joins it.
    pub async fn integrate(&self, boss: &BossId, request: IntegrationRequest) -> Result<IntegrationAnswer> {
        integrate::integrate(&self.actor, boss, request).await
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
        let counts = self.actor.ask(|reply| Ask::Counts { reply }).await?;
        probe::status(&self.actor.context, only, &counts).await
    }

    /// Returns the launchers of the settings, and asks their clusters whether they answer.
    pub async fn launchers(&self) -> Result<Vec<LauncherView>> {
        let jobs = self.actor.ask(|reply| Ask::Jobs { reply }).await?;
        Ok(self.actor.context.clusters.views(&jobs).await)
    }

    /// Saves unsaved data and releases everything, then returns. The workers continue.
    pub async fn shut_down(&self) {
        // An integration that could not be recorded must not land.
        self.actor.jobs.end_all();
        let _ = self.actor.ask(|reply| Ask::ShutDown { reply }).await;
        let _ = timeout(LAST_CANCELLATIONS, self.actor.context.clusters.send_cancellations()).await;
    }
}
