//! The requests of bosses that change workers: create, message, cancel, retry.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{Actor, Effect, Reply, Result, takeover};
use crate::attempt::inbox::{Delivery, InboxEntry, Instruction, PostResult};
use crate::attempt::status::{LiveStatus, Phase};
use crate::attempt::worker_dir::AttemptDir;
use crate::crash_point::{self, Point};
use crate::mission::create::{self, Defaults, Draft, Registered};
use crate::mission::entry::{Entry, NextAttempt, Start};
use crate::mission::id::{BackendName, BossId};
use crate::mission::lifecycle::WorkerStatus;
use crate::mission::message::{Author, Message};
use crate::mission::question::Decision;
use crate::mission::registry::Worker;
use crate::mission::spec::RunOn;
use crate::mission::{graph, retry};
use crate::orchestrator::answers::*;
use crate::orchestrator::error::OrchestratorError;
use crate::orchestrator::mailbox::{Ask, CheckedBatch};
use crate::orchestrator::question_error::QuestionError;
use crate::orchestrator::{cancellations, checks, follow, questions, settle};
use crate::store::journal::Needed;

/// Time after which a supervisor that has not ended its worker is ended, together with the worker's processes.
const CANCEL_CEILING: Duration = Duration::from_secs(60);

impl Actor {
    /// Checks a batch in a task of its own, which mails it back. Request ids that are known need no check.
    pub(super) fn check_batch(
        &mut self,
        boss: BossId,
        drafts: Vec<Result<Draft>>,
        kind: BatchKind,
        reply: Reply<Result<Creation>>,
    ) {
        let requests = drafts.iter().flatten().filter_map(|draft| draft.request_id.clone());
        let known: HashSet<String> = requests.filter(|request| self.knows_request(request)).collect();
        let recorded = self.recorded_branch(&boss);
        let (context, mailbox) = (Arc::clone(&self.state.context), self.mailbox.clone());
        self.apply(vec![Effect::spawn(async move {
            let (drafts, base) = checks::check_all(context, drafts, known, recorded).await;
            let _ = mailbox.send(Ask::Register(Box::new(CheckedBatch { boss, drafts, kind, base, reply })));
        })]);
    }

    /// Registers a checked batch, unless its caller has gone.
    pub(super) fn register_batch(&mut self, batch: CheckedBatch) {
        let CheckedBatch { boss, drafts, kind, base, reply } = batch;
        if reply.is_closed() {
            return;
        }
        let branch = base.as_ref().map(|base| base.branch.clone());
        let created = self.create(&boss, drafts, kind, branch.as_deref()).map(|items| {
            let single = items.first().filter(|_| kind == BatchKind::Single).and_then(|item| item.as_ref().ok());
            let view = single.and_then(|created| self.views().named(created.worker_id.as_str()).ok());
            Creation { results: items, base, view }
        });
        let _ = reply.send(created);
    }

    fn create(
        &mut self,
        boss: &BossId,
        drafts: Vec<Result<Draft>>,
        kind: BatchKind,
        integration_branch: Option<&str>,
    ) -> Result<Vec<BatchItem>> {
        let is_race = kind == BatchKind::Race;
        if let Some(index) = drafts.iter().position(|draft| draft.is_err()).filter(|_| is_race) {
            let refused = || create::Rejection::RaceRefused { index }.into();
            return Ok(drafts.into_iter().map(|draft| Err(draft.err().unwrap_or_else(refused))).collect());
        }
        let (mut good, mut refused) = (Vec::new(), Vec::new());
        for draft in drafts {
            refused.push(draft.map(|draft| good.push(draft)).err());
        }
        let registered =
            if good.is_empty() { Vec::new() } else { self.register(boss, &good, is_race, integration_branch)? };
        crash_point::at(Point::BatchRegistered);
        let mut registered = registered.into_iter();
        let items = refused.into_iter().filter_map(|refused| match refused {
            None => registered.next(),
            Some(error) => Some(Err(error)),
        });
        Ok(items.collect())
    }

    fn register(
        &mut self,
        boss: &BossId,
        drafts: &[Draft],
        is_race: bool,
        integration_branch: Option<&str>,
    ) -> Result<Vec<BatchItem>> {
        let context = Arc::clone(&self.state.context);
        let worktrees = context.worktrees();
        let branch_prefix = &context.settings.branch_prefix;
        let defaults = Defaults { worktrees: &worktrees, branch_prefix, integration_branch };
        let needed = Needed {
            names: drafts.iter().flat_map(|it| it.depends_on.iter().chain(&it.context_from).cloned()).collect(),
            requests: drafts.iter().filter_map(|draft| draft.request_id.clone()).collect(),
        };
        let created = self.state.records.transact_with(&needed, |registry| {
            let register = if is_race { create::register_race } else { create::register };
            let made = register(registry, boss, drafts, defaults);
            let mut workers = Vec::new();
            let created = made.into_iter().map(|it| match it {
                Ok(Registered::New(new)) => {
                    let (worker_id, race) = (new.id.clone(), new.race.as_ref().map(|race| race.id.clone()));
                    workers.push(*new);
                    Ok(Created { worker_id, status: WorkerStatus::Queued, existing: false, race })
                }
                Ok(Registered::Existing(id)) => {
                    let known = registry.get(&id);
                    let status = known.map_or(WorkerStatus::Queued, |worker| worker.status);
                    let race = known.and_then(|worker| Some(worker.race.as_ref()?.id.clone()));
                    Ok(Created { worker_id: id, status, existing: true, race })
                }
                Err(rejection) => Err(rejection.into()),
            });
            let created: Vec<_> = created.collect();
            let mut entries = Vec::new();
            if !workers.is_empty() {
                entries.push(Entry::Created { workers });
            }
            (entries, created)
        })?;
        let is_new = |made: &BatchItem| made.as_ref().is_ok_and(|made| !made.existing);
        self.has_created |= boss == &context.boss && created.iter().any(is_new);
        Ok(created)
    }

    pub(super) fn message(
        &mut self,
        boss: &BossId,
        name: &str,
        message: NewMessage,
        reply: oneshot::Sender<Result<MessageAnswer>>,
    ) {
        let worker = match self.views().one_of_mine(boss, name, "write to") {
            Ok(worker) => worker,
            Err(error) => return drop(reply.send(Err(error))),
        };
        let answer = match worker.status {
            WorkerStatus::Queued => self.amend(&worker, &message),
            WorkerStatus::Settled(_) => self.reopen(&worker, &message).map(Some),
            _ => self.post_message(&worker, &message),
        };
        match answer {
            Ok(Some(answer)) => drop(reply.send(Ok(answer))),
            Err(error) => drop(reply.send(Err(error))),
            // The attempt is ending. The message is sent again as soon as the outcome is known.
            Ok(None) => {
                let late = self.late_messages.entry(worker.id.clone()).or_default();
                late.push((worker.attempt, message, reply));
            }
        }
    }

    /// Posts a message to a running attempt. `None` if its inbox was closed a moment ago.
    fn post_message(&mut self, worker: &Worker, message: &NewMessage) -> Result<Option<MessageAnswer>> {
        let instruction = Instruction::Message { text: message.text.clone(), delivery: message.delivery };
        let by = message.by.unwrap_or(self.author());
        let Some(id) = self.post(worker, Some(by), instruction)? else { return Ok(None) };
        let running = self.phase(worker) == Some(Phase::Running);
        let hears =
            self.state.context.backends.get(worker.next.backend.as_str()).is_ok_and(|it| it.accepts_live_messages());
        let live = running && (hears || message.delivery == Delivery::Interrupt);
        Ok(Some(MessageAnswer {
            message_id: id,
            delivered: if live { MessageDelivery::Live } else { MessageDelivery::Queued },
            status: worker.status,
        }))
    }

    /// Writes the answer to a question of a running attempt into its inbox.
    pub(super) fn answer_question(
        &mut self,
        boss: &BossId,
        name: &str,
        request: AnswerRequest,
        by: Option<Author>,
    ) -> Result<Posted> {
        let worker = self.views().one_of_mine(boss, name, "answer")?;
        let not_running = || QuestionError::NotRunning { worker: worker.id.to_string(), status: worker.status };
        let dir = self.attempt_dir(&worker).filter(|_| worker.status.is_live()).ok_or_else(not_running)?;
        let status = LiveStatus::read(&dir)?.ok_or_else(not_running)?;
        let question = questions::meant(&worker.id, &status, &request)?.id.clone();
        let takes_reasons =
            self.state.context.backends.get(worker.next.backend.as_str()).is_ok_and(|it| it.takes_reasons());
        let is_reason = takes_reasons && request.decision == Decision::Deny;
        let (reason, message) = match request.message {
            Some(message) if is_reason => (Some(message.text), None),
            message => (None, message),
        };
        let answer = Instruction::Answer { question: question.clone(), decision: request.decision, reason };
        let entry = self.post(&worker, Some(by.unwrap_or(self.author())), answer)?;
        let Some(entry) = entry else {
            return Err(QuestionError::Withdrawn { worker: worker.id.to_string(), question }.into());
        };
        Ok(Posted { worker: worker.id.clone(), attempt: worker.attempt, dir, question, entry, message })
    }

    /// Returns the phase of a running attempt. A one-shot client follows no attempt, so it reads the file.
    fn phase(&self, worker: &Worker) -> Option<Phase> {
        if !self.is_one_shot() {
            return self.state.live.get(&worker.id).map(|status| status.phase);
        }
        let status = LiveStatus::read(&self.attempt_dir(worker)?).ok()?;
        status.map(|status| status.phase)
    }

    /// Puts an instruction into the inbox of the running attempt and wakes its supervisor. One that does not obey a
    /// cancellation in time is ended. `None` if the inbox is closed.
    pub(super) fn post(&self, worker: &Worker, by: Option<Author>, instruction: Instruction) -> Result<Option<Uuid>> {
        let Some(attempt) = self.attempt_dir(worker) else { return Err(OrchestratorError::ShuttingDown) };
        let is_cancel = matches!(instruction, Instruction::Cancel { .. });
        let inbox_entry = InboxEntry { id: Uuid::new_v4(), at: Timestamp::now(), by, instruction };
        // The task that starts the worker creates the folder too, but a message may come first.
        attempt.make()?;
        let posted = attempt.post(&inbox_entry)?;
        if is_cancel {
            let (context, of) = (Arc::clone(&self.state.context), (worker.id.clone(), worker.attempt));
            self.runtime.spawn(follow::insist(context, of, attempt.clone(), CANCEL_CEILING));
        }
        match posted {
            PostResult::Closed => Ok(None),
            PostResult::Accepted => {
                crash_point::at(Point::InboxEntryPosted);
                self.runtime.spawn(follow::wake(Arc::clone(&self.state.context), attempt));
                Ok(Some(inbox_entry.id))
            }
        }
    }

    /// Returns the author of actions by this process. A one-shot client acts for the user.
    fn author(&self) -> Author {
        if self.is_one_shot() { Author::User } else { Author::Boss }
    }

    /// Returns the id that the journal records for the author of a cancellation.
    fn cancels_as(&self, boss: &BossId) -> BossId {
        if self.is_one_shot() { BossId::one_shot_client(&self.state.context.server) } else { boss.clone() }
    }

    fn message_of(&self, text: &str, by: Option<Author>) -> Message {
        let by = by.unwrap_or(self.author());
        Message { id: Uuid::new_v4(), at: Timestamp::now(), by, text: text.to_owned() }
    }

    pub(super) fn attempt_dir(&self, worker: &Worker) -> Option<AttemptDir> {
        self.state.records.dir().map(|dir| dir.worker(&worker.id).attempt(worker.attempt))
    }

    /// Adds a message to a queued worker. `None` if another server has dequeued the worker a moment ago.
    fn amend(&mut self, worker: &Worker, message: &NewMessage) -> Result<Option<MessageAnswer>> {
        let written = self.message_of(&message.text, message.by);
        let message_id = written.id;
        let amended = self.state.records.transact(|registry| {
            let queued = registry.get(&worker.id).filter(|worker| worker.status == WorkerStatus::Queued);
            let next = queued.map(|worker| settle::with_message(&worker.next, &worker.mission, written));
            let entry = next.map(|next| Entry::Amended { worker: worker.id.clone(), next: Box::new(next) });
            (entry.iter().cloned().collect(), entry.is_some())
        })?;
        let status = WorkerStatus::Queued;
        Ok(amended.then_some(MessageAnswer { message_id, delivered: MessageDelivery::Queued, status }))
    }

    /// Queues the next attempt of a settled worker, with the message.
    fn reopen(&mut self, worker: &Worker, message: &NewMessage) -> Result<MessageAnswer> {
        let request = RetryRequest { feedback: Some(message.text.clone()), ..RetryRequest::default() };
        let written = self.message_of(&message.text, message.by);
        let message_id = written.id;
        self.requeue(worker, &request, vec![written])?;
        Ok(MessageAnswer { message_id, delivered: MessageDelivery::NextAttempt, status: WorkerStatus::Queued })
    }

    /// Delivers late messages whose attempt has ended or was taken back, whichever server determined that.
    pub(super) fn send_late_messages(&mut self) {
        for (id, late) in std::mem::take(&mut self.late_messages) {
            let Ok(worker) = self.state.records.find(id.as_str()) else { continue };
            for (attempt, message, reply) in late {
                if worker.status.is_live() && worker.attempt == attempt {
                    self.late_messages.entry(id.clone()).or_default().push((attempt, message, reply));
                } else {
                    self.message(&worker.boss, id.as_str(), message, reply);
                }
            }
        }
    }

    pub(super) fn cancel(
        &mut self,
        boss: &BossId,
        name: &str,
        reason: &str,
        reply: oneshot::Sender<Result<CancelAnswer>>,
    ) {
        let worker = match self.views().one_of_mine(boss, name, "cancel") {
            Ok(worker) => worker,
            Err(error) => return drop(reply.send(Err(error))),
        };
        if worker.status.is_settled() {
            return drop(reply.send(Ok(cancellations::answer(self.state.records.dir(), &worker, true))));
        }
        match self.request_cancellation(&worker, boss, reason) {
            // Answered as soon as it has settled.
            Ok(()) => self.cancellations.wait_for(&worker.id, reply),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// Cancels all open workers of a boss, or of all bosses, in one step. Workers of other bosses are cancelled in the
    /// name of their bosses, except by a one-shot client.
    pub(super) fn cancel_all(&mut self, boss: &BossId, scope: Scope, reason: &str) -> Result<CancelAllAnswer> {
        let mine = |worker: &Worker| scope == Scope::All || worker.boss == *boss;
        let as_user = self.is_one_shot().then(|| self.cancels_as(boss));
        let by = |worker: &Worker| as_user.clone().unwrap_or_else(|| worker.boss.clone());
        let (open, settled) = self.state.records.transact(|registry| {
            let (settled, open): (Vec<_>, Vec<_>) = registry
                .workers()
                .filter(|worker| mine(worker))
                .cloned()
                .partition(|worker| worker.status.is_settled());
            let entries = open.iter().map(|worker| cancellations::requested(worker, by(worker), reason));
            (entries.collect(), (open, settled.len()))
        })?;
        crash_point::at(Point::CancelNoted);
        let ending = open.into_iter().map(|worker| {
            let (reply, answer) = oneshot::channel();
            let posted = if worker.status.is_live() { self.post_cancel(&worker, reason) } else { Ok(()) };
            match posted {
                Ok(()) => self.cancellations.wait_for(&worker.id, reply),
                Err(error) => drop(reply.send(Err(error))),
            }
            (worker.id.clone(), answer)
        });
        Ok(CancelAllAnswer { ending: ending.collect(), already_settled: settled })
    }

    /// Records a cancellation and notifies a running attempt. A worker that is queued, or returns to the queue, is
    /// settled as a consequence of the entry.
    fn request_cancellation(&mut self, worker: &Worker, boss: &BossId, reason: &str) -> Result<()> {
        let by = self.cancels_as(boss);
        let worker = self.state.records.transact(|registry| {
            let open = registry.get(&worker.id).filter(|worker| !worker.status.is_settled()).cloned();
            let entry = open.as_ref().map(|worker| cancellations::requested(worker, by, reason));
            (entry.into_iter().collect(), open)
        })?;
        crash_point::at(Point::CancelNoted);
        match worker.filter(|worker| worker.status.is_live()) {
            Some(worker) => self.post_cancel(&worker, reason),
            None => Ok(()),
        }
    }

    fn post_cancel(&self, worker: &Worker, reason: &str) -> Result<()> {
        self.post(worker, Some(self.author()), Instruction::Cancel { reason: reason.to_owned() }).map(drop)
    }

    pub(super) fn retry(&mut self, boss: &BossId, name: &str, request: RetryRequest) -> Result<WorkerView> {
        let worker = self.views().one_of_mine(boss, name, "retry")?;
        if let Some(why) = graph::block(self.registry(), &worker).filter(|_| worker.status == WorkerStatus::Queued) {
            return Err(OrchestratorError::Blocked { worker: worker.id.to_string(), why: why.text });
        }
        if !worker.status.is_settled() {
            return Err(OrchestratorError::not_settled(&worker, "retry"));
        }
        let texts = [request.prompt.as_deref(), request.feedback.as_deref()].into_iter().flatten();
        let written = texts.map(|text| self.message_of(text, None)).collect();
        self.requeue(&worker, &request, written)?;
        self.views().named(worker.id.as_str())
    }

    fn requeue(&mut self, worker: &Worker, request: &RetryRequest, written: Vec<Message>) -> Result<()> {
        let next = NextAttempt { written, ..next_attempt(worker, request) };
        let mut mission = worker.mission.clone();
        (mission.backend, mission.model, mission.effort) =
            (next.backend.clone(), next.model.clone(), next.effort.clone());
        self.state.context.check_mission(&mission)?;
        if let Some(launcher) = &next.run_on {
            self.state.context.check_launcher(launcher, &next.backend, &worker.needs)?;
        }
        let id = worker.id.clone();
        // The workers for which it waits are needed too, since they are checked again.
        let waits_for = worker.mission.waits_for();
        let names = waits_for.iter().map(|source| source.name().to_owned()).chain([id.to_string()]);
        let needed = Needed { names: names.collect(), ..Needed::default() };
        let context = Arc::clone(&self.state.context);
        let requeued = self.state.records.transact_with(&needed, |registry| {
            let settled = registry.get(&id).filter(|worker| worker.status.is_settled());
            let entry = settled.map(|worker| Entry::Requeued {
                worker: id.clone(),
                next: Box::new(next),
                lease: takeover::lease_owner(registry, worker, &context.servers).filter(|_| context.is_one_shot),
            });
            let requeued = entry.is_some();
            (entry.into_iter().collect(), requeued)
        })?;
        crash_point::at(Point::Requeued);
        if requeued { Ok(()) } else { Err(OrchestratorError::StartedAgain { worker: worker.id.to_string() }) }
    }
}

/// Returns the next attempt: in the session of the last one if possible, or else a new one with a digest of the earlier
/// attempts.
fn next_attempt(worker: &Worker, request: &RetryRequest) -> NextAttempt {
    let last = worker.last();
    let backend = request.backend.clone().unwrap_or_else(|| worker.next.backend.clone());
    let same: bool = last.is_none_or(|brief| brief.backend == backend);
    let feedback = request.feedback.as_deref();
    let session = last.and_then(|brief| brief.session_id.clone()).filter(|_| same && !request.fresh);
    let start = match (session, &request.prompt) {
        (Some(session_id), None) => {
            let text = feedback.map(str::to_owned).or_else(|| last.map(retry::go_on));
            let parts = [retry::undelivered(worker), text];
            Start::Resume { session_id, text: parts.into_iter().flatten().collect::<Vec<_>>().join("\n\n") }
        }
        (_, prompt) => fresh_start(worker, prompt.as_deref(), feedback),
    };
    let kept = |value: &Option<String>| value.clone().filter(|_| same);
    NextAttempt {
        model: request.model.clone().or_else(|| kept(&worker.next.model)),
        effort: request.effort.clone().or_else(|| kept(&worker.next.effort)),
        backend: BackendName::clone(&backend),
        start,
        run_on: request.run_on.clone().map_or_else(|| worker.next.run_on.clone(), RunOn::launcher),
        fresh: request.fresh,
        written: Vec::new(),
    }
}

fn fresh_start(worker: &Worker, prompt: Option<&str>, feedback: Option<&str>) -> Start {
    let task = prompt.unwrap_or(&worker.mission.prompt);
    let parts = [Some(task.to_owned()), retry::digest(worker), feedback.map(str::to_owned)];
    Start::Prompt { text: parts.into_iter().flatten().collect::<Vec<_>>().join("\n\n") }
}
