//! A worker, as the boss reads it: in a list, and by itself.

use schemars::JsonSchema;
use serde::Serialize;

use super::conflicts::{ConflictReport, conflicts};
use super::next_step::next_step;
use super::outcome::{
    FINAL_MESSAGE, NOT_ON_BRANCH, NOTE, NOTES, OutcomeReport, not_on_branch, notes, size_of_list, tokens,
};
use super::race::RaceReport;
use super::{Described, is_zero};
use crate::backend::Enforcement;
use crate::mcp::{hint, size};
use crate::mission::registry;
use crate::mission::spec::Place;
use crate::orchestrator::WorkerView;

/// Bytes that a list spends on the conflicts of one worker.
const CONFLICTS: usize = 400;
/// Bytes that an answer about one worker spends on its conflicts, if there is room.
const ALL_CONFLICTS: usize = 2_000;

/// A worker in a list.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(in crate::mcp) struct Brief {
    #[serde(flatten)]
    head: Head,
    #[serde(flatten)]
    about: About,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
struct Head {
    /// How every other tool calls it; `w-3` alone is enough.
    worker_id: String,
    /// queued, starting, running, verifying; settled: completed, failed, cancelled, timed_out, interrupted, lost.
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
struct About {
    title: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<String>,
    backend: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    branch: Option<String>,
    /// How long it ran, over all its attempts and with verification.
    #[serde(skip_serializing_if = "Option::is_none")]
    elapsed_seconds: Option<u64>,
    /// Since it last showed anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_seconds: Option<u64>,
    /// No sign of life for long; get_worker_status has the evidence.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stalled: bool,
    /// Why its task waits for the boss.
    #[serde(skip_serializing_if = "Option::is_none")]
    blocked: Option<String>,
    /// What a queued worker waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    waits_for: Option<String>,
    /// What its branch, as it stands, does not merge cleanly with: {worker_id or branch, paths, more_paths?}.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Described>")]
    conflicts_with: Vec<ConflictReport>,
    #[serde(skip_serializing_if = "is_zero")]
    more_conflicts: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_activity: Option<String>,
}

/// One worker, with what it came to. The order is that in which it is read: how it ended, what changed, whether it
/// verifies and what to do next come before everything that could be cut off.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(in crate::mcp) struct Worker {
    #[serde(flatten)]
    head: Head,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<OutcomeReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    integrated: Option<Integrated>,
    /// Its last line began with BLOCKED: it says that it cannot go on.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    says_blocked: bool,
    /// What to do about it; not said twice where the whole answer is about this worker.
    #[serde(skip_serializing_if = "String::is_empty")]
    next_step: String,
    /// This news may have reached you before.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    redelivered: bool,
    /// You were told before, and asked again by name.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    already_reported: bool,
    /// Processes of its that could not be ended.
    #[serde(skip_serializing_if = "is_zero")]
    survivors: u32,
    /// Evidence of a stall.
    #[serde(skip_serializing_if = "Option::is_none")]
    stall: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    race: Option<RaceReport>,
    #[serde(flatten)]
    about: About,
    attempt: u32,
    /// The directory that it works in.
    #[serde(skip_serializing_if = "Option::is_none")]
    worktree: Option<String>,
    /// The subfolder in which it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    directory: Option<String>,
    /// {branch, commit}: where it is merged into, and started.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Described>")]
    base: Option<WorkerBase>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<String>,
    /// Who keeps it to its permissions: sandbox, cli or none.
    #[serde(skip_serializing_if = "Option::is_none")]
    enforced: Option<&'static str>,
    /// And whether it is enforced.
    #[serde(skip_serializing_if = "Option::is_none")]
    budget: Option<String>,
    /// Why it is not on its first backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    diverted: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_usd: Option<f64>,
    /// Read and written together.
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<u64>,
    /// The worker's own last words; what it claims, not what was proven.
    #[serde(skip_serializing_if = "String::is_empty")]
    final_message: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(in crate::mcp) struct Integrated {
    into: String,
    commit: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in crate::mcp) struct WorkerBase {
    #[serde(skip_serializing_if = "Option::is_none")]
    branch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<String>,
}

/// A worker as the tools answer it, for programs that ask on the command line: without what to call next.
pub fn worker_json(view: &WorkerView) -> serde_json::Value {
    let mut worker = Worker::new(view, size::LONG_ANSWER);
    worker.next_step = String::new();
    serde_json::to_value(worker).unwrap_or_default()
}

impl Brief {
    pub(in crate::mcp) fn new(view: &WorkerView) -> Self {
        let worker = &view.worker;
        let live = view.live.as_ref().filter(|_| worker.status.is_live());
        let task = (worker.task().as_str() != worker.id.as_str()).then(|| size::line(worker.task().as_str(), 110));
        let last = worker.last().filter(|_| worker.status.is_settled());
        let backend = last.map_or(&worker.next.backend, |last| &last.backend);
        let model = last.map_or(&worker.next.model, |last| &last.model);
        let head = Head { worker_id: worker.id.to_string(), status: worker.status.as_str() };
        let (conflicts_with, more_conflicts) = conflicts(&view.collisions, CONFLICTS);
        let about = About {
            title: size::line(&worker.mission.title, 80),
            task_id: task,
            backend: size::line(backend.as_str(), 40),
            model: model.as_deref().map(|model| size::line(model, 60)),
            branch: worker.branch().map(|branch| size::line(branch, 160)),
            elapsed_seconds: view.ran_seconds(),
            idle_seconds: view.idle_seconds,
            stalled: live.is_some_and(|live| live.stalled.is_some()),
            blocked: view.block.as_ref().map(|why| size::line(&hint::line(why), 160)),
            waits_for: view.waits_for.as_deref().map(|what| size::line(what, 160)),
            conflicts_with,
            more_conflicts,
            last_activity: live.map(|live| size::line(&live.activity, 120)).filter(|line| !line.is_empty()),
        };
        Self { head, about }
    }
}

impl Worker {
    /// Builds a report of at most `room` bytes. It always has the identity and the result, which take up to 2,080 bytes
    /// (and 700 in practice).
    pub(in crate::mcp) fn new(view: &WorkerView, room: usize) -> Self {
        let worker = &view.worker;
        let last = worker.last().filter(|_| worker.status.is_settled());
        let live = view.live.as_ref().filter(|_| worker.status.is_live());
        let usage = last.map(|last| last.usage).or(live.map(|live| live.usage)).unwrap_or_default();
        let session = last.and_then(|last| last.session_id.as_ref()).or(live.and_then(|live| live.session_id.as_ref()));
        let Brief { head, about } = Brief::new(view);
        let mut report = Self {
            head,
            about,
            worktree: directory(worker),
            directory: worker.mission.place.subfolder().map(|inner| size::line(&inner.to_string_lossy(), 160)),
            base: WorkerBase::of(worker),
            attempt: worker.attempt,
            session_id: session.map(|id| size::line(id, 60)),
            enforced: view.enforced.map(enforced),
            budget: view.budget.as_deref().map(|budget| size::line(budget, 140)),
            diverted: worker.diverted.as_deref().map(|why| size::line(why, 160)),
            cost_usd: usage.cost_usd,
            tokens: tokens(&usage),
            outcome: last.map(OutcomeReport::of_brief),
            integrated: worker.integrated.as_ref().map(|integrated| Integrated {
                into: size::line(&integrated.into, 80),
                commit: integrated.commit.clone(),
            }),
            says_blocked: last.is_some_and(|last| last.says_blocked),
            survivors: last.map_or(0, |last| last.survivors),
            redelivered: view.redelivered,
            already_reported: false,
            stall: None,
            race: view.race.as_ref().map(RaceReport::new),
            final_message: String::new(),
            next_step: next_step(view),
        };
        report.fill(view, room);
        report
    }

    pub(in crate::mcp) fn already_reported(mut self) -> Self {
        self.already_reported = true;
        self
    }

    pub(in crate::mcp) fn next_step(&self) -> &str {
        &self.next_step
    }

    /// For an answer that is about this worker alone and says it by itself.
    pub(in crate::mcp) fn take_next_step(&mut self) -> String {
        std::mem::take(&mut self.next_step)
    }

    /// Spends the room that is left on the texts: first why it failed, then its last words, then the files.
    fn fill(&mut self, view: &WorkerView, room: usize) {
        // What the keys of the texts take, when all of them are there.
        const KEYS: usize = 120;
        let mut left = room.saturating_sub(size::of(self) + KEYS);
        if let (Some(report), Some(race)) = (&mut self.race, &view.race) {
            left = left.saturating_sub(report.fill(race, left));
        }
        let about = &mut self.about;
        let before = size::of(&about.conflicts_with);
        (about.conflicts_with, about.more_conflicts) =
            conflicts(&view.collisions, CONFLICTS.max((before + left / 3).min(ALL_CONFLICTS)));
        left = left.saturating_sub(size::of(&about.conflicts_with).saturating_sub(before));
        let mut share = |text: &str, most: usize| {
            let cut = size::ends(text, most.min(left));
            left = left.saturating_sub(size::of(&cut));
            Some(cut).filter(|cut| !cut.is_empty() && most > 0)
        };
        if let Some(evidence) = view.live.as_ref().and_then(|live| live.stalled.as_deref()) {
            self.stall = share(evidence, 300);
        }
        let Some(last) = view.worker.last().filter(|_| view.worker.status.is_settled()) else { return };
        let Some(outcome) = &mut self.outcome else { return };
        if let Some(reasons) = last.reasons() {
            outcome.run.message = share(&reasons, 400);
        }
        if let Some(note) = last.verification.note() {
            outcome.verification.output_tail = share(&note, 600);
        }
        outcome.changes.not_on_branch = not_on_branch(&last.changes, NOT_ON_BRANCH.min(left / 2));
        left = left.saturating_sub(size_of_list(&outcome.changes.not_on_branch));
        outcome.changes.notes = notes(&last.changes, NOTES.min(left / 2));
        if let Some(names) = last.left_running().filter(|_| left > 200) {
            let note = size::line(&format!("left running, as others may use it: {names}"), NOTE.min(left / 4));
            outcome.changes.notes.push(note);
        }
        left = left.saturating_sub(size_of_list(&outcome.changes.notes));
        self.final_message = size::ends(&last.final_message, FINAL_MESSAGE.min(left));
        left = left.saturating_sub(size::of(&self.final_message));
        let files = last.changes.files.iter().map(|file| size::line(file, 120)).take(20);
        outcome.changes.files = size::fit(files, left.min(600)).0;
    }
}

impl WorkerBase {
    fn of(worker: &registry::Worker) -> Option<Self> {
        // The recorded branch is one of this state directory's repository.
        let branch = worker.integration_branch.as_deref().filter(|_| worker.repository.is_none());
        let branch = branch.map(|branch| size::line(branch, 160));
        let commit = worker.base_commit.as_deref().map(|commit| size::line(commit, 64));
        (branch.is_some() || commit.is_some()).then_some(Self { branch, commit })
    }
}

fn directory(worker: &registry::Worker) -> Option<String> {
    let made = matches!(worker.mission.place, Place::Worktree { .. });
    let gone = made && (worker.worktree_removed || worker.attempt == 0);
    (!gone).then(|| size::line(&worker.mission.place.path().to_string_lossy(), 260))
}

fn enforced(enforcement: Enforcement) -> &'static str {
    match enforcement {
        Enforcement::Sandbox => "sandbox",
        Enforcement::Cli => "cli",
        Enforcement::None => "none",
    }
}

#[cfg(test)]
mod tests;
