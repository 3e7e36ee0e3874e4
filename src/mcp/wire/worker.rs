//! A worker as a list shows it, and as an answer about it does.

use schemars::JsonSchema;
use serde::Serialize;

use super::confined::ConfinedReport;
use super::conflicts::{ConflictReport, conflicts};
use super::next_step::next_step;
use super::outcome::{
    DENIED, FINAL_MESSAGE, NOT_ON_BRANCH, NOTE, NOTES, OutcomeReport, denied, not_on_branch, notes, size_of_list,
    tokens,
};
use super::question::QuestionReport;
use super::race::RaceReport;
use super::{ObjectPlaceholder, is_zero};
use crate::backend::Enforcement;
use crate::mcp::{hint, size};
use crate::mission::spec::Place;
use crate::mission::{delivery, registry};
use crate::orchestrator::{QuestionView, WorkerView};

/// Maximum size in bytes of the conflicts of a worker in a list.
const CONFLICTS: usize = 400;
/// Maximum size in bytes of the conflicts of a worker in an answer about it.
const ALL_CONFLICTS: usize = 2_000;

/// A worker in a list.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(in crate::mcp) struct WorkerSummary {
    #[serde(flatten)]
    identity: WorkerIdentity,
    #[serde(flatten)]
    description: Description,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
struct WorkerIdentity {
    /// `w-3` is enough for other tools.
    worker_id: String,
    /// queued, starting, running, needs_answer, verifying; settled: completed, failed, cancelled, timed_out, interrupted, lost.
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
struct Description {
    title: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<String>,
    backend: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    branch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    launcher: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    node: Option<String>,
    /// Over all attempts, with verification.
    #[serde(skip_serializing_if = "Option::is_none")]
    elapsed_seconds: Option<u64>,
    /// Seconds since its last activity.
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_seconds: Option<u64>,
    /// Inactive for long; get_worker_status has the evidence.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stalled: bool,
    /// Why its task needs you.
    #[serde(skip_serializing_if = "Option::is_none")]
    blocked: Option<String>,
    /// Why a queued worker has not started.
    #[serde(skip_serializing_if = "Option::is_none")]
    waits_for: Option<String>,
    /// Branches that its branch does not merge cleanly with: {worker_id or branch, paths, more_paths?}.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<ObjectPlaceholder>")]
    conflicts_with: Vec<ConflictReport>,
    #[serde(skip_serializing_if = "is_zero")]
    more_conflicts: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_activity: Option<String>,
}

/// A worker with its outcome. The outcome and the next step come first, since clients may cut the rest.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(in crate::mcp) struct WorkerReport {
    #[serde(flatten)]
    identity: WorkerIdentity,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<OutcomeReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    integrated: Option<IntegratedReport>,
    /// Its last line began with BLOCKED: it cannot continue without help.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    says_blocked: bool,
    /// Absent if the answer itself has one.
    #[serde(skip_serializing_if = "String::is_empty")]
    next_step: String,
    /// Hand it back in receipts of a wait: this settlement is then not repeated.
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<String>,
    /// An earlier answer may have reported this settlement.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    redelivered: bool,
    /// An earlier answer reported this settlement; you named the worker again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    already_reported: bool,
    /// Processes still running.
    #[serde(skip_serializing_if = "is_zero")]
    survivors: u32,
    /// Answer with send_message_to_worker.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<ObjectPlaceholder>")]
    questions: Vec<QuestionReport>,
    /// Evidence of a stall.
    #[serde(skip_serializing_if = "Option::is_none")]
    stall: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    race: Option<RaceReport>,
    #[serde(flatten)]
    description: Description,
    attempt: u32,
    /// The number of its job on a cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    job: Option<u64>,
    /// The profile that completed its mission.
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<String>,
    /// Its working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    worktree: Option<String>,
    /// The subfolder it runs in.
    #[serde(skip_serializing_if = "Option::is_none")]
    directory: Option<String>,
    /// {branch, commit}: its merge target and its start commit, if the outcome does not name the latter.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ObjectPlaceholder>")]
    base: Option<WorkerBase>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<String>,
    /// Its permissions: by kernel, sandbox, cli or none.
    #[serde(skip_serializing_if = "Option::is_none")]
    enforced: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    confined: Option<ConfinedReport>,
    /// Its limits, and whether they are enforced.
    #[serde(skip_serializing_if = "Option::is_none")]
    budget: Option<String>,
    /// Why it runs on another backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    diverted: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_usd: Option<f64>,
    /// Input and output together.
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<u64>,
    /// The worker's own summary: a claim, not a fact.
    #[serde(skip_serializing_if = "String::is_empty")]
    final_message: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(in crate::mcp) struct IntegratedReport {
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

/// Returns a worker as the tools report it, without the next step, for the command line.
pub fn worker_json(view: &WorkerView) -> serde_json::Value {
    let mut worker = WorkerReport::with_confinement(view, size::LONG_ANSWER);
    worker.next_step = String::new();
    serde_json::to_value(worker).unwrap_or_default()
}

impl WorkerSummary {
    pub(in crate::mcp) fn new(view: &WorkerView) -> Self {
        let worker = &view.worker;
        let live = view.live.as_ref().filter(|_| worker.status.is_live());
        let task = (worker.task().as_str() != worker.id.as_str()).then(|| size::line(worker.task().as_str(), 110));
        let last = worker.last().filter(|_| worker.status.is_settled());
        let backend = last.map_or(&worker.next.backend, |last| &last.backend);
        let model = last.map_or(&worker.next.model, |last| &last.model);
        let identity = WorkerIdentity { worker_id: worker.id.to_string(), status: worker.status.as_str() };
        let (conflicts_with, more_conflicts) = conflicts(&view.collisions, CONFLICTS);
        let (launcher, node) = place(view);
        let description = Description {
            title: size::line(&worker.mission.title, 80),
            task_id: task,
            backend: size::line(backend.as_str(), 40),
            model: model.as_deref().map(|model| size::line(model, 60)),
            branch: worker.branch().map(|branch| size::line(branch, 160)),
            launcher,
            node,
            elapsed_seconds: view.ran_seconds(),
            idle_seconds: view.idle_seconds,
            stalled: live.is_some_and(|live| live.stalled.is_some()),
            blocked: view.block.as_ref().map(|why| size::line(&hint::line(why), 160)),
            waits_for: view.waits_for.as_deref().map(|what| size::line(what, 160)),
            conflicts_with,
            more_conflicts,
            last_activity: live.map(|live| size::line(&live.activity, 120)).filter(|line| !line.is_empty()),
        };
        Self { identity, description }
    }

    /// Leaves out the branch, which matters once the worker has settled.
    pub(in crate::mcp) fn without_branch(mut self) -> Self {
        self.description.branch = None;
        self
    }
}

/// Returns the launcher and the node of a worker that a cluster runs.
fn place(view: &WorkerView) -> (Option<String>, Option<String>) {
    (view.launcher().map(|name| size::line(name, 60)), view.node.as_deref().map(|name| size::line(name, 60)))
}

impl WorkerReport {
    /// Builds a report of at most `room` bytes. It always has the identity and the result, which take up to 2,080 bytes
    /// (and 700 in practice).
    pub(in crate::mcp) fn new(view: &WorkerView, room: usize) -> Self {
        Self::with(None, view, room)
    }

    /// Builds a report that also says how the kernel confines the worker. Answers about many workers leave that out.
    pub(in crate::mcp) fn with_confinement(view: &WorkerView, room: usize) -> Self {
        Self::with(view.confinement().map(ConfinedReport::of), view, room)
    }

    fn with(confined: Option<ConfinedReport>, view: &WorkerView, room: usize) -> Self {
        let worker = &view.worker;
        let last = worker.last().filter(|_| worker.status.is_settled());
        let live = view.live.as_ref().filter(|_| worker.status.is_live());
        let usage = last.map(|last| last.usage).or(live.map(|live| live.usage)).unwrap_or_default();
        let session = last.and_then(|last| last.session_id.as_ref()).or(live.and_then(|live| live.session_id.as_ref()));
        let WorkerSummary { identity, description } = WorkerSummary::new(view);
        let description = Description { launcher: None, node: None, ..description };
        let mut report = Self {
            identity,
            description,
            worktree: directory(worker),
            directory: worker.mission.place.subfolder().map(|inner| size::line(&inner.to_string_lossy(), 160)),
            base: WorkerBase::of(worker),
            attempt: worker.attempt,
            job: None,
            profile: None,
            session_id: session.map(|id| size::line(id, 60)),
            enforced: view.enforced.map(enforced),
            confined,
            budget: view.budget.as_deref().map(|budget| size::line(budget, 140)),
            diverted: worker.failed_over.as_deref().map(|why| size::line(why, 160)),
            cost_usd: usage.cost_usd,
            tokens: tokens(&usage),
            outcome: last.map(OutcomeReport::of_brief),
            integrated: worker.integrated.as_ref().map(|integrated| IntegratedReport {
                into: size::line(&integrated.into, 80),
                commit: integrated.commit.clone(),
            }),
            says_blocked: last.is_some_and(|last| last.says_blocked),
            survivors: last.map_or(0, |last| last.survivors),
            redelivered: view.redelivered,
            already_reported: false,
            receipt: None,
            questions: Vec::new(),
            stall: None,
            race: view.race.as_ref().map(RaceReport::new),
            final_message: String::new(),
            next_step: next_step(view),
        };
        report.fill(view, room);
        report
    }

    /// Adds the receipt of its settlement, for the answer of a wait.
    pub(in crate::mcp) fn with_receipt(mut self, view: &WorkerView) -> Self {
        self.receipt = delivery::receipt(&view.worker);
        self
    }

    pub(in crate::mcp) fn already_reported(mut self) -> Self {
        self.already_reported = true;
        self
    }

    pub(in crate::mcp) fn next_step(&self) -> &str {
        &self.next_step
    }

    /// Leaves out commits that the outcome names already: answers about many workers must be short.
    pub(in crate::mcp) fn with_each_commit_once(mut self) -> Self {
        let Some(outcome) = &mut self.outcome else { return self };
        if outcome.verification.commit == outcome.changes.head_commit {
            outcome.verification.commit = None;
        }
        if let Some(base) = self.base.as_mut().filter(|base| base.commit == outcome.changes.base_commit) {
            base.commit = None;
        }
        self
    }

    /// Moves the next step out, for an answer that has it.
    pub(in crate::mcp) fn take_next_step(&mut self) -> String {
        std::mem::take(&mut self.next_step)
    }

    /// Fills the remaining bytes with texts: first the causes of failure, then the final message, then the files.
    fn fill(&mut self, view: &WorkerView, room: usize) {
        /// Bytes for the keys of all texts.
        const KEYS: usize = 120;
        /// Bytes for a profile, of which its name takes up to 60.
        const PROFILE: usize = 80;
        /// Bytes for the launcher, the job and the node, of which the two names take up to 60 each.
        const PLACE: usize = 190;
        let mut left = room.saturating_sub(size::of(self) + KEYS);
        if let Some(profile) = view.worker.mission.profile.as_deref().filter(|_| left > PROFILE) {
            self.profile = Some(size::line(profile, 60));
            left -= PROFILE;
        }
        if view.launcher().is_some() && left > PLACE {
            self.job = view.worker.job.as_ref().map(|job| job.id.0);
            (self.description.launcher, self.description.node) = place(view);
            left -= PLACE;
        }
        if let (Some(report), Some(race)) = (&mut self.race, &view.race) {
            left = left.saturating_sub(report.fill(race, left));
        }
        let description = &mut self.description;
        let before = size::of(&description.conflicts_with);
        (description.conflicts_with, description.more_conflicts) =
            conflicts(&view.collisions, CONFLICTS.max((before + left / 3).min(ALL_CONFLICTS)));
        left = left.saturating_sub(size::of(&description.conflicts_with).saturating_sub(before));
        let questions =
            QuestionView::of(view).map(|question| QuestionReport::new(&question, left / 3).of_known_worker());
        self.questions = size::fit(questions, left / 2).0;
        left = left.saturating_sub(size_of_list(&self.questions));
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
            let note = size::line(&format!("left running, as other processes may use it: {names}"), NOTE.min(left / 4));
            outcome.changes.notes.push(note);
        }
        left = left.saturating_sub(size_of_list(&outcome.changes.notes));
        outcome.changes.denied = denied(&last.denied, DENIED.min(left / 4));
        left = left.saturating_sub(size_of_list(&outcome.changes.denied));
        self.final_message = size::ends(&last.final_message, FINAL_MESSAGE.min(left));
        left = left.saturating_sub(size::of(&self.final_message));
        let files = last.changes.files.iter().map(|file| size::line(file, 120)).take(20);
        outcome.changes.files = size::fit(files, left.min(600)).0;
    }
}

impl WorkerBase {
    fn of(worker: &registry::Worker) -> Option<Self> {
        // The recorded branch belongs to the repository of this state directory.
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
        Enforcement::Kernel => "kernel",
        Enforcement::Sandbox => "sandbox",
        Enforcement::Cli => "cli",
        Enforcement::None => "none",
    }
}

#[cfg(test)]
mod tests;
