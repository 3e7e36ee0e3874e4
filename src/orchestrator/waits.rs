//! The blocking waits that are open, and the content of an answer to a wait, blocking or not. Background waits are in the
//! registry, and are checked here whenever their clients poll.
//!
//! A wait that begins after the end of a worker is answered at once. A wait whose client has gone is forgotten and
//! consumes nothing. This module saves and sends nothing: the actor records an answer as in flight before it sends it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::oneshot;

use super::answers::*;
use super::views::Views;
use crate::mission::admission::Load;
use crate::mission::delivery::{self, Content, Deliveries, Due, Selection, SentSettlement};
use crate::mission::hint::Advice;
use crate::mission::id::{BossId, TaskId, WaitId, WorkerId};
use crate::mission::lifecycle::WorkerStatus;
use crate::mission::registry::{Registry, Worker};
use crate::mission::wake::DueCounts;

/// Maximum number of reasons for queued workers in one answer.
const REASONS: usize = 3;
/// Maximum number of queued workers that are shown when the machine is full.
const HELD_SHOWN: usize = 3;
/// Time in which the user can answer a question in a form. Then the boss is woken.
const FORM_TIME: SignedDuration = SignedDuration::from_secs(60);
/// Maximum number of questions in one answer.
const QUESTIONS_SHOWN: usize = 3;
/// Time after a poll in which the client of a background wait counts as present. Clients poll each second.
const POLLED_WITHIN: Duration = Duration::from_secs(60);
/// Maximum number of running workers in a line of progress.
const RUNNING_SHOWN: usize = 3;

/// The worker of a question, and the id of the question.
type QuestionKey = (WorkerId, String);

#[derive(Default)]
pub(super) struct Waits {
    next_ticket: u64,
    open: Vec<Wait>,
    /// Workers whose stall was reported; each is reported once.
    reported_stalls: HashSet<WorkerId>,
    /// Questions that were reported; each is reported once, until it is answered.
    reported_questions: HashSet<QuestionKey>,
    /// The questions in answers that may still be withdrawn, by ticket.
    unsent_questions: HashMap<u64, Vec<QuestionKey>>,
    /// Bosses that were notified that none of their workers can start. Forgotten when one can again.
    reported_full: HashSet<BossId>,
    /// Time of the last poll for the end of each background wait, in this server.
    polled: HashMap<WaitId, Instant>,
}

pub(super) struct Wait {
    ticket: u64,
    pub asked: Asked,
    reply: oneshot::Sender<WaitAnswer>,
}

/// The workers that a wait is for, and the maximum number of settlements in its answer.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub boss: BossId,
    pub selection: Selection,
    pub most: usize,
}

/// An answer that is to be recorded, and then sent.
pub(super) struct Ready {
    pub asked: Asked,
    pub answer: WaitAnswer,
    stalled: Vec<WorkerId>,
    is_full: bool,
}

/// The content that a wait must report at once.
struct Pressing<'a> {
    due: Due<'a>,
    stalled: Vec<WorkerId>,
    /// Workers with a question that was not reported.
    asking: usize,
    is_full: bool,
}

impl Ready {
    /// Returns the notifications in the answer.
    pub fn content(&self) -> Content {
        let settled = self.answer.settled.iter().map(|view| SentSettlement {
            worker: view.worker.id.clone(),
            attempt: view.worker.attempt,
            redelivered: view.redelivered,
        });
        let blocked = self.answer.blocked.iter().map(|(task, _)| task.clone());
        Content { settled: settled.collect(), blocked: blocked.collect() }
    }
}

impl Waits {
    pub fn begin(&mut self, asked: Asked, reply: oneshot::Sender<WaitAnswer>) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.open.push(Wait { ticket, asked, reply });
        ticket
    }

    /// Returns the workers of an unanswered wait.
    pub fn asked(&self, ticket: u64) -> Option<&Asked> {
        self.open.iter().find(|wait| wait.ticket == ticket).map(|wait| &wait.asked)
    }

    /// Removes a wait. `None` if it was answered or forgotten.
    pub fn take(&mut self, ticket: u64) -> Option<Wait> {
        let at = self.open.iter().position(|wait| wait.ticket == ticket)?;
        Some(self.open.remove(at))
    }

    /// Notes that the answer of a wait was written.
    pub fn sent(&mut self, ticket: u64) {
        self.unsent_questions.remove(&ticket);
    }

    /// Forgets a wait whose client has gone. The questions in an answer that it did not receive are reported again.
    pub fn forget(&mut self, ticket: u64) {
        self.take(ticket);
        for key in self.unsent_questions.remove(&ticket).into_iter().flatten() {
            self.reported_questions.remove(&key);
        }
    }

    /// Returns the tickets of the waits whose clients still listen, and forgets the others.
    pub fn tickets(&mut self) -> Vec<u64> {
        self.open.retain(|wait| !wait.reply.is_closed());
        self.open.iter().map(|wait| wait.ticket).collect()
    }

    /// Returns the answer of a wait that has something to report.
    pub fn ready(&mut self, ticket: u64, views: &Views<'_>, deliveries: &Deliveries) -> Option<Ready> {
        let asked = self.asked(ticket)?.clone();
        self.report(asked, views, deliveries)
    }

    /// Returns what there is to report to such a wait.
    pub fn report(&mut self, asked: Asked, views: &Views<'_>, deliveries: &Deliveries) -> Option<Ready> {
        let Pressing { due, stalled, is_full, .. } = self.pressing(views, &asked.boss, &asked.selection, deliveries)?;
        let answer = self.answer(views, &due, &asked);
        Some(Ready { asked, answer, stalled, is_full })
    }

    /// Returns the counts of what a boss that has ended its turn is to be woken for.
    pub fn due_counts(
        &mut self,
        views: &Views<'_>,
        boss: &BossId,
        selection: &Selection,
        deliveries: &Deliveries,
    ) -> Option<DueCounts> {
        let Pressing { due, stalled, asking, .. } = self.pressing(views, boss, selection, deliveries)?;
        let (settled, blocked) = (due.settled.len(), blocked_tasks(&due).len());
        Some(DueCounts { settled, blocked, stalled: stalled.len(), asking })
    }

    /// Returns what a wait for these workers must report at once.
    fn pressing<'a>(
        &mut self,
        views: &Views<'a>,
        boss: &BossId,
        selection: &Selection,
        deliveries: &Deliveries,
    ) -> Option<Pressing<'a>> {
        let stalled = self.new_stalls(views, selection, boss);
        let asking = self.new_askers(views, selection, boss);
        let is_full = self.is_newly_full(views, selection, boss);
        let due = delivery::due(views.registry, boss, selection, &views.context.server);
        if !due.is_pressing() && stalled.is_empty() && asking == 0 && !is_full {
            return None;
        }
        // The content of an answer that may still be withdrawn becomes due again for this wait.
        let has_content = !due.settled.is_empty() || !due.blocked.is_empty() || !stalled.is_empty() || asking > 0;
        if !has_content && deliveries.has_unsent(boss) {
            return None;
        }
        Some(Pressing { due, stalled, asking, is_full })
    }

    /// Removes a wait whose answer is recorded, with what the answer has reported.
    pub fn answered(&mut self, ticket: u64, ready: Ready) -> Option<(oneshot::Sender<WaitAnswer>, WaitAnswer)> {
        let asked = ready.answer.questions.iter().map(key_of);
        let new: Vec<QuestionKey> = asked.filter(|key| !self.reported_questions.contains(key)).collect();
        if !new.is_empty() {
            self.unsent_questions.insert(ticket, new);
        }
        let answer = self.note_reported(ready);
        Some((self.take(ticket)?.reply, answer))
    }

    /// Notes what an answer has reported, and returns the answer.
    pub fn note_reported(&mut self, ready: Ready) -> WaitAnswer {
        if ready.is_full {
            self.reported_full.insert(ready.asked.boss);
        }
        self.reported_stalls.extend(ready.stalled);
        self.reported_questions.extend(ready.answer.questions.iter().map(key_of));
        ready.answer
    }

    /// Returns the answer of a wait whose time is up. Notifications that cannot be recorded stay for the next wait.
    pub fn timed_out(&self, asked: &Asked, views: &Views<'_>) -> WaitAnswer {
        let mut due = delivery::due(views.registry, &asked.boss, &asked.selection, &views.context.server);
        due.open += due.settled.len() + due.blocked.len();
        (due.settled, due.blocked) = (Vec::new(), Vec::new());
        self.answer(views, &due, asked)
    }

    /// Notes that a client asks for the end of a background wait.
    pub fn note_poll(&mut self, id: &WaitId) {
        let now = Instant::now();
        self.polled.retain(|_, polled| now.duration_since(*polled) < POLLED_WITHIN);
        self.polled.insert(id.clone(), now);
    }

    /// Returns whether a client has asked for the end of a background wait lately, so that its boss will be woken.
    pub fn is_polled(&self, id: &WaitId) -> bool {
        self.polled.get(id).is_some_and(|polled| polled.elapsed() < POLLED_WITHIN)
    }

    fn new_stalls(&mut self, views: &Views<'_>, selection: &Selection, boss: &BossId) -> Vec<WorkerId> {
        let is_stalled = |id: &WorkerId| views.live.get(id).is_some_and(|status| status.stalled.is_some());
        self.reported_stalls.retain(|id| is_stalled(id));
        let workers = selection.workers(views.registry, boss);
        let stalled = workers.into_iter().map(|worker| &worker.id).filter(|id| is_stalled(id));
        stalled.filter(|id| !self.reported_stalls.contains(*id)).cloned().collect()
    }

    /// Returns the new questions that would end a wait, while the user still has time to answer them in a form.
    pub fn for_the_user(&self, answer: &WaitAnswer, now: Timestamp) -> Vec<QuestionView> {
        let new = answer.questions.iter().filter(|view| !self.reported_questions.contains(&key_of(view)));
        let new: Vec<QuestionView> = new.filter(|_| answer.status == WaitStatus::Question).cloned().collect();
        let is_recent = |view: &QuestionView| now.duration_since(view.open.asked_at) < FORM_TIME;
        if new.iter().all(is_recent) { new } else { Vec::new() }
    }

    fn new_askers(&mut self, views: &Views<'_>, selection: &Selection, boss: &BossId) -> usize {
        let is_open = |(id, question): &QuestionKey| {
            views.live.get(id).is_some_and(|status| status.questions.iter().any(|it| it.question.id == *question))
        };
        self.reported_questions.retain(|key| is_open(key));
        let workers = selection.workers(views.registry, boss);
        let asks = |worker: &&Arc<Worker>| {
            let live = views.live.get(&worker.id).filter(|_| worker.status.is_live());
            let keys = live.into_iter().flat_map(|live| &live.questions).map(|it| it.question.id.clone());
            keys.into_iter().any(|question| !self.reported_questions.contains(&(worker.id.clone(), question)))
        };
        workers.into_iter().filter(asks).count()
    }

    /// Returns the open questions of these workers, the new ones first.
    fn questions(&self, running: &[WorkerView]) -> Vec<QuestionView> {
        let mut questions: Vec<QuestionView> = running.iter().flat_map(QuestionView::of).collect();
        questions.sort_by_key(|view| (self.reported_questions.contains(&key_of(view)), view.open.asked_at));
        questions.truncate(QUESTIONS_SHOWN);
        questions
    }

    /// Returns whether nothing runs and nothing can start for long, if that was not reported yet. Without a report, the
    /// caller could wait for ever.
    fn is_newly_full(&mut self, views: &Views<'_>, selection: &Selection, boss: &BossId) -> bool {
        if !self.reported_full.contains(boss) {
            return !held_up(views, selection, boss).is_empty();
        }
        if held_up(views, &Selection::Mine, boss).is_empty() {
            self.reported_full.remove(boss);
        }
        false
    }

    fn answer(&self, views: &Views<'_>, due: &Due<'_>, asked: &Asked) -> WaitAnswer {
        let Asked { boss, selection, most } = asked;
        let load = views.load();
        let settled: Vec<WorkerView> = due
            .settled
            .iter()
            .take(*most)
            .map(|it| WorkerView { redelivered: it.redelivered, ..views.view_in(&load, it.worker) })
            .collect();
        let workers = selection.workers(views.registry, boss);
        let waits_for = reasons(views, &load, &workers);
        let live = workers.into_iter().filter(|worker| worker.status.is_live());
        let running: Vec<WorkerView> = live.map(|worker| views.view_in(&load, worker)).collect();
        let mut attention: Vec<WorkerView> = running.iter().filter(|view| is_stalled(view)).cloned().collect();
        if !self.reported_full.contains(boss) {
            let held = held_up(views, selection, boss).into_iter().take(HELD_SHOWN);
            attention.extend(held.map(|worker| views.view_in(&load, worker)));
        }
        let already_reported = already_reported(views, due, selection, *most);
        // Settlements need the room. The next wait reports the questions at once.
        let has_settled = !settled.is_empty() || !already_reported.is_empty();
        let questions = if has_settled { Vec::new() } else { self.questions(&running) };
        let status = if has_settled {
            WaitStatus::Settled
        } else if !due.blocked.is_empty() {
            WaitStatus::Blocked
        } else if due.open == 0 {
            WaitStatus::Idle
        } else if questions.iter().any(|view| !self.reported_questions.contains(&key_of(view))) {
            WaitStatus::Question
        } else if attention.iter().any(|view| !self.reported_stalls.contains(&view.worker.id)) {
            WaitStatus::Attention
        } else {
            WaitStatus::StillRunning
        };
        WaitAnswer {
            status,
            more: due.settled.len() - settled.len(),
            settled,
            attention,
            blocked: blocked_tasks(due),
            questions,
            already_reported,
            still_running: running,
            queued: due.queued,
            waits_for,
            spent: views.spent(boss),
            background: None,
        }
    }
}

/// Returns the queued workers of a selection that cannot start for long, if none of the selection runs.
fn held_up<'a>(views: &Views<'a>, selection: &Selection, boss: &BossId) -> Vec<&'a Arc<Worker>> {
    let workers = selection.workers(views.registry, boss);
    let load = views.load();
    let may_be_held = load.waits_for_long() || views.cluster_waits.values().any(|waits| waits.is_lasting);
    if !may_be_held || workers.iter().any(|worker| worker.shown_status(false).is_live()) {
        return Vec::new();
    }
    let is_held = |worker: &&Arc<Worker>| views.hold(&load, worker).is_some_and(|hold| hold.is_lasting());
    workers.into_iter().filter(is_held).collect()
}

/// Returns the reasons of queued workers, the most frequent first, each with the number of workers.
fn reasons(views: &Views<'_>, load: &Load<'_>, workers: &[&Arc<Worker>]) -> Option<String> {
    let mut reasons: Vec<(String, usize)> = Vec::new();
    for hold in workers.iter().filter_map(|worker| views.hold(load, worker)) {
        let text = hold.to_string();
        match reasons.iter_mut().find(|(known, _)| *known == text) {
            Some((_, count)) => *count += 1,
            None => reasons.push((text, 1)),
        }
    }
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let more = reasons.len().saturating_sub(REASONS);
    let mut texts: Vec<String> =
        reasons.into_iter().take(REASONS).map(|(text, count)| format!("{count} for {text}")).collect();
    if more > 0 {
        texts.push(format!("{more} more reasons"));
    }
    (!texts.is_empty()).then(|| texts.join("; "))
}

/// Returns the settled workers to show when nothing is due. Workers in the history were reported before they moved
/// there.
fn already_reported(views: &Views<'_>, due: &Due<'_>, selection: &Selection, most: usize) -> Vec<WorkerView> {
    let archived = archived(selection, views.registry).filter(|_| due.is_exhausted());
    let archived = archived.filter_map(|id| views.find(id.as_str()).ok());
    let all = due.already_reported.iter().map(|it| Arc::clone(it)).chain(archived);
    all.take(most).map(|it| views.view(&it)).collect()
}

/// Returns one line for people: the number of settled workers, and the activity of those that moved last.
pub(super) fn progress(views: &Views<'_>, boss: &BossId, names: &[String]) -> String {
    views.select(boss, names).map_or_else(|_| String::new(), |selection| progress_of(views, boss, &selection))
}

/// Returns the same line for workers that are known already.
pub(super) fn progress_of(views: &Views<'_>, boss: &BossId, selection: &Selection) -> String {
    let workers = selection.workers(views.registry, boss);
    let count =
        |wanted: fn(WorkerStatus) -> bool| workers.iter().filter(|worker| wanted(worker.shown_status(false))).count();
    let archived = archived(selection, views.registry).count();
    let settled = count(WorkerStatus::is_settled) + archived;
    let mut line = format!("{settled} of {} settled", workers.len() + archived);
    let queued = count(|status| status == WorkerStatus::Queued);
    if queued > 0 {
        line.push_str(&format!(", {queued} queued"));
        if let Some(reasons) = reasons(views, &views.load(), &workers) {
            line.push_str(&format!(" ({reasons})"));
        }
    }
    let live = workers.iter().filter(|worker| worker.status.is_live());
    let mut live: Vec<_> = live.filter_map(|worker| Some((worker, views.live.get(&worker.id)?))).collect();
    live.sort_by_key(|(_, status)| status.idle());
    for (worker, status) in live.into_iter().take(RUNNING_SHOWN) {
        let idle = status.idle().as_secs();
        let number = WorkerId::number_in(worker.id.as_str()).unwrap_or_default();
        line.push_str(&format!("; w-{number} {} ({idle} s)", status.activity));
    }
    line
}

/// Returns each blocked task once, although several workers may race for it.
fn blocked_tasks(due: &Due<'_>) -> Vec<(TaskId, Advice)> {
    let mut tasks: Vec<(TaskId, Advice)> = Vec::new();
    for (worker, why) in &due.blocked {
        let is_listed = worker.race.is_some() && tasks.iter().any(|(task, _)| task == worker.task());
        if !is_listed {
            tasks.push((worker.task().clone(), why.clone()));
        }
    }
    tasks
}

/// Returns the named workers that the registry no longer holds.
fn archived<'a>(selection: &'a Selection, registry: &'a Registry) -> impl Iterator<Item = &'a WorkerId> {
    selection.named().iter().filter(|id| registry.get(id).is_none())
}

fn key_of(view: &QuestionView) -> QuestionKey {
    (view.worker_id.clone(), view.open.question.id.clone())
}

fn is_stalled(view: &WorkerView) -> bool {
    view.live.as_ref().is_some_and(|status| status.stalled.is_some())
}
