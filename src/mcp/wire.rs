//! What the boss reads: twins of the domain's types, in the contract's words, with every text cut to size.
//!
//! Pure, and without a clock. Each constructor keeps to the room it is given, so that an answer made of them
//! keeps to its own.

use schemars::JsonSchema;
use serde::Serialize;

use self::race::RaceReport;
use super::size;
use crate::backend::Enforcement;
use crate::mcp::hint;
use crate::mission::budget::Spent;
use crate::mission::entry;
use crate::mission::lifecycle::{Ending, WorkerStatus};
use crate::mission::outcome::{Changes, Exit, FailureKind, LikelyCause, NotOnBranch, Outcome, Usage, Verification};
use crate::mission::race as races;
use crate::mission::spec::Place;
use crate::orchestrator::{Collision, Unchecked, WorkerView};

mod race;

const LIKELY_CAUSE: usize = 400;

/// Bytes that a list spends on the conflicts of one worker.
const CONFLICTS: usize = 400;
/// Bytes that an answer about one worker spends on its conflicts, if there is room.
const ALL_CONFLICTS: usize = 2_000;

/// Maximum size in bytes of the final message: roughly its first 400 and its last 1,200 characters.
const FINAL_MESSAGE: usize = 1_700;

/// Maximum sizes in bytes: of the work that is not on the branch, of one note, and of all notes.
const NOT_ON_BRANCH: usize = 2_400;
const NOTE: usize = 500;
const NOTES: usize = 1_200;

/// A worker in a list.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct Brief {
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

/// A conflict of a branch with another, and the files. No name is cut: names without room are counted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct ConflictReport {
    #[serde(skip_serializing_if = "Option::is_none")]
    worker_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    branch: Option<String>,
    paths: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    more_paths: usize,
}

/// One worker, with what it came to. The order is that in which it is read: how it ended, what changed, whether it
/// verifies and what to do next come before everything that could be cut off.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct Worker {
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

/// A placeholder for a [`Worker`] in the schemas of all tools but one. The full schema is long, and a client would hold
/// it seven times.
#[derive(JsonSchema)]
#[schemars(description = "A worker, as wait_for_any_worker describes it.")]
pub(super) struct SomeWorker {}

/// A placeholder for an [`OutcomeReport`] that another schema has in full.
#[derive(JsonSchema)]
#[schemars(inline, description = "An outcome, as wait_for_any_worker describes it.")]
pub(super) struct SomeOutcome {}

/// Stands for an object whose shape is told in words, or with a worker's outcome.
#[derive(JsonSchema)]
#[schemars(inline)]
pub(super) struct Described {}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct Integrated {
    into: String,
    commit: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct WorkerBase {
    #[serde(skip_serializing_if = "Option::is_none")]
    branch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<String>,
}

impl WorkerBase {
    fn of(worker: &crate::mission::registry::Worker) -> Option<Self> {
        // The recorded branch is one of this state directory's repository.
        let branch = worker.integration_branch.as_deref().filter(|_| worker.repository.is_none());
        let branch = branch.map(|branch| size::line(branch, 160));
        let commit = worker.base_commit.as_deref().map(|commit| size::line(commit, 64));
        (branch.is_some() || commit.is_some()).then_some(Self { branch, commit })
    }
}

/// Three separate answers, from facts and never from prose.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct OutcomeReport {
    run: Run,
    verification: VerificationReport,
    changes: ChangesReport,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct Run {
    /// completed, failed, cancelled, timed_out, interrupted or lost.
    result: &'static str,
    /// turn_complete, verification_failed, auth_error, rate_limited, usage_limit, model_error, crashed, …
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct VerificationReport {
    /// passed, failed, timed_out, could_not_run or not_requested.
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    /// What was verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_tail: Option<String>,
    /// Why it did not pass, where that seems not to be the work's fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    likely_cause: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct ChangesReport {
    commits: u32,
    files_changed: u32,
    insertions: u32,
    deletions: u32,
    /// As found at the turn's end; in a worktree of its own they were then committed to its branch.
    #[serde(skip_serializing_if = "is_zero")]
    uncommitted: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    head_commit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base_commit: Option<String>,
    /// Files elsewhere that this worker edited, as its CLI says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    outside_worktree: Vec<String>,
    /// What became different in the main checkout meanwhile; it may have been anybody.
    #[serde(skip_serializing_if = "Option::is_none")]
    main_checkout_changed: Option<String>,
    /// How often the worker's CLI refused itself something for want of permission.
    #[serde(skip_serializing_if = "is_zero")]
    permission_denials: u32,
    /// [{what, where, how_to_include}]: its work that its branch did not hold when it settled; no integration brings
    /// it in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Described>")]
    not_on_branch: Vec<NotOnBranchReport>,
    /// The first of the changed files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    files: Vec<String>,
    /// What the facts cannot say, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct NotOnBranchReport {
    what: String,
    #[serde(rename = "where", skip_serializing_if = "String::is_empty")]
    place: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    how_to_include: String,
}

/// One attempt, as get_worker_status tells it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct Attempt {
    attempt: u32,
    backend: String,
    #[schemars(with = "SomeOutcome")]
    outcome: OutcomeReport,
    settled_at: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    final_message: String,
}

/// Returns whether a count is zero, so that it is left out.
pub(super) fn is_zero<T: Default + PartialEq>(count: &T) -> bool {
    *count == T::default()
}

/// Formats what all workers of the boss have used. `None` if no CLI reported anything.
pub(super) fn spent(spent: &Spent) -> Option<String> {
    let cost = (spent.cost_usd > 0.0).then(|| format!("{:.2} USD", spent.cost_usd));
    let tokens = (spent.tokens > 0).then(|| format!("{} tokens", spent.tokens));
    let parts: Vec<String> = cost.into_iter().chain(tokens).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// For a boss that leads nobody where others do or did, which may have been itself in an earlier session.
pub(super) fn of_others(others: usize) -> String {
    format!(
        "you lead no workers, but there are {others} of other sessions here: list_worker_missions with scope all shows them, \
         and get_worker_status each; if you started them in an earlier session, go on with that one to be told of them; \
         otherwise batch_create_workers"
    )
}

/// A worker as the tools answer it, for programs that ask on the command line: without what to call next.
pub fn worker_json(view: &WorkerView) -> serde_json::Value {
    let mut worker = Worker::new(view, size::LONG_ANSWER);
    worker.next_step = String::new();
    serde_json::to_value(worker).unwrap_or_default()
}

impl NotOnBranchReport {
    pub(super) fn new(part: &NotOnBranch) -> Self {
        Self {
            what: one_line(&part.what, 400),
            place: one_line(&part.place, 260),
            how_to_include: one_line(&part.how_to_include, 600),
        }
    }

    /// Returns a placeholder for parts that had no room.
    pub(super) fn more(count: usize) -> Self {
        let what = format!("and {count} more");
        Self { what, place: String::new(), how_to_include: String::new() }
    }
}

/// Returns the parts that fit, or at least a placeholder for them, however little room there is.
fn not_on_branch(changes: &Changes, room: usize) -> Vec<NotOnBranchReport> {
    fit_or_say(changes.not_on_branch.iter().map(NotOnBranchReport::new), room, NotOnBranchReport::more)
}

fn notes(changes: &Changes, room: usize) -> Vec<String> {
    if room == 0 {
        return Vec::new();
    }
    fit_or_say(changes.notes.iter().map(|note| one_line(note, NOTE)), room, |more| format!("and {more} more"))
}

/// Returns the size of a list; 0 for an empty one, which is left out.
fn size_of_list<T: Serialize>(list: &[T]) -> usize {
    if list.is_empty() { 0 } else { size::of(&list) }
}

/// Shortens a text to one line with its beginning and its end, since a reason stands at the end.
fn one_line(text: &str, most: usize) -> String {
    size::line(&size::ends(&size::line(text, usize::MAX), most), most)
}

/// Returns the first items that fit, and in place of the others their number.
pub(super) fn fit_or_say<T: Serialize>(
    items: impl ExactSizeIterator<Item = T>,
    room: usize,
    say: impl Fn(usize) -> T,
) -> Vec<T> {
    let keeps = room.saturating_sub(size::of(&say(items.len())) + 1);
    let (mut fitting, more) = size::fit(items, keeps);
    if more > 0 {
        fitting.push(say(more));
    }
    fitting
}

impl Brief {
    pub(super) fn new(view: &WorkerView) -> Self {
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

/// Returns the conflicts that fit into `room` bytes, and the number of those that do not.
fn conflicts(collisions: &[Collision], room: usize) -> (Vec<ConflictReport>, usize) {
    let mut left = room;
    let mut named = Vec::new();
    for collision in collisions {
        let report = ConflictReport::new(collision, left);
        let Some(rest) = left.checked_sub(size::of(&report) + 1) else { continue };
        left = rest;
        named.push(report);
    }
    let more = collisions.len() - named.len();
    (named, more)
}

impl ConflictReport {
    fn new(collision: &Collision, room: usize) -> Self {
        let name = Some(collision.with.clone());
        let (worker_id, branch) = if collision.is_integration_branch { (None, name) } else { (name, None) };
        let mut report = Self { worker_id, branch, paths: Vec::new(), more_paths: collision.paths.len() };
        let left = room.saturating_sub(size::of(&report) + 1);
        (report.paths, report.more_paths) = size::fit(collision.paths.iter().cloned(), left);
        report
    }
}

impl Worker {
    /// Builds a report of at most `room` bytes. It always has the identity and the result, which take up to 2,080 bytes
    /// (and 700 in practice).
    pub(super) fn new(view: &WorkerView, room: usize) -> Self {
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

    pub(super) fn already_reported(mut self) -> Self {
        self.already_reported = true;
        self
    }

    pub(super) fn next_step(&self) -> &str {
        &self.next_step
    }

    /// For an answer that is about this worker alone and says it by itself.
    pub(super) fn take_next_step(&mut self) -> String {
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

impl OutcomeReport {
    /// Without the texts, which [`Worker::fill`] adds as there is room.
    fn of_brief(brief: &entry::Brief) -> Self {
        let reason = match (&brief.failure, brief.status) {
            (Some(failure), _) => Some(reason(failure.kind)),
            (None, Ending::Completed) => Some("turn_complete"),
            (None, _) => None,
        };
        let (exit_code, signal) = exit(brief.exit);
        Self {
            run: Run { result: brief.status.as_str(), reason, message: None, exit_code, signal },
            verification: VerificationReport::new(&brief.verification).because(brief.likely_cause.as_ref()),
            changes: ChangesReport::new(&brief.changes, brief.denials),
        }
    }

    fn of_outcome(outcome: &Outcome, text: usize) -> Self {
        let failure = outcome.run.failure.as_ref();
        let (exit_code, signal) = exit(outcome.run.exit);
        let note = outcome.verification.note();
        Self {
            run: Run {
                result: outcome.status.as_str(),
                reason: failure.map(|failure| reason(failure.kind)),
                message: entry::reasons(
                    failure.map(|failure| failure.message.as_str()),
                    &outcome.run.cancelled,
                    &outcome.run.unheard,
                )
                .map(|reasons| size::ends(&reasons, text)),
                exit_code,
                signal,
            },
            verification: VerificationReport {
                output_tail: note.map(|note| size::ends(&note, text)),
                ..VerificationReport::new(&outcome.verification).because(outcome.likely_cause.as_ref())
            },
            changes: ChangesReport {
                not_on_branch: not_on_branch(&outcome.changes, NOT_ON_BRANCH),
                notes: notes(&outcome.changes, NOTES),
                ..ChangesReport::new(&outcome.changes, outcome.run.denials)
            },
        }
    }
}

impl VerificationReport {
    /// With the end of what it said, if it did not pass.
    pub(super) fn with_tail(verification: &Verification, most: usize) -> Self {
        let output_tail = verification.note().map(|note| size::ends(&note, most));
        Self { output_tail, ..Self::new(verification) }
    }

    pub(super) fn because(mut self, cause: Option<&LikelyCause>) -> Self {
        self.likely_cause = cause.map(|cause| size::line(&cause.words(), LIKELY_CAUSE));
        self
    }

    /// Builds a report without the output, which is added if there is room.
    fn new(verification: &Verification) -> Self {
        let exit_code = match verification {
            Verification::Passed { .. } => Some(0),
            Verification::Failed { exit: Exit::Code(code), .. } => Some(*code),
            _ => None,
        };
        let commit = verification.commit().map(|commit| size::line(commit, 64));
        Self { result: verification.as_str(), exit_code, commit, output_tail: None, likely_cause: None }
    }
}

impl ChangesReport {
    fn new(changes: &Changes, denials: u32) -> Self {
        Self {
            commits: changes.commits,
            files_changed: changes.files_changed,
            insertions: changes.insertions,
            deletions: changes.deletions,
            uncommitted: changes.uncommitted + changes.committed_by_us,
            head_commit: changes.head.as_deref().map(|commit| size::line(commit, 64)),
            base_commit: changes.base_commit.as_deref().map(|commit| size::line(commit, 64)),
            outside_worktree: changes.outside_worktree.iter().take(3).map(|path| size::line(path, 120)).collect(),
            main_checkout_changed: main_checkout(&changes.main_checkout_changes),
            permission_denials: denials,
            not_on_branch: Vec::new(),
            files: Vec::new(),
            notes: Vec::new(),
        }
    }
}

impl Attempt {
    pub(super) fn new(outcome: &Outcome) -> Self {
        Self {
            attempt: outcome.attempt,
            backend: outcome.backend.to_string(),
            outcome: OutcomeReport::of_outcome(outcome, 800),
            settled_at: outcome.settled_at.to_string(),
            final_message: size::ends(&outcome.run.final_message, FINAL_MESSAGE),
        }
    }
}

fn directory(worker: &crate::mission::registry::Worker) -> Option<String> {
    let made = matches!(worker.mission.place, Place::Worktree { .. });
    let gone = made && (worker.worktree_removed || worker.attempt == 0);
    (!gone).then(|| size::line(&worker.mission.place.path().to_string_lossy(), 260))
}

fn tokens(usage: &Usage) -> Option<u64> {
    Some(usage.input_tokens + usage.output_tokens).filter(|tokens| *tokens > 0)
}

/// In the contract's words.
fn reason(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Auth => "auth_error",
        FailureKind::RateLimit => "rate_limited",
        FailureKind::Server => "model_error",
        FailureKind::Network => "network_error",
        FailureKind::NoResult => "crashed",
        FailureKind::Verification => "verification_failed",
        kind => kind.as_str(),
    }
}

fn main_checkout(changes: &[String]) -> Option<String> {
    (!changes.is_empty()).then(|| size::line(&changes.join("; "), 160))
}

fn enforced(enforcement: Enforcement) -> &'static str {
    match enforcement {
        Enforcement::Sandbox => "sandbox",
        Enforcement::Cli => "cli",
        Enforcement::None => "none",
    }
}

fn exit(exit: Option<Exit>) -> (Option<i32>, Option<i32>) {
    match exit {
        Some(Exit::Code(code)) => (Some(code), None),
        Some(Exit::Signal(signal)) => (None, Some(signal)),
        None => (None, None),
    }
}

/// Which tool to call next about this worker.
fn next_step(view: &WorkerView) -> String {
    let worker = &view.worker;
    let id = &worker.id;
    let stalled = view.live.as_ref().is_some_and(|live| live.stalled.is_some());
    let Some(last) = worker.last().filter(|_| worker.status.is_settled()) else {
        return match worker.status {
            WorkerStatus::Queued if view.block.is_some() => {
                format!("mend or retry what blocks it, or cancel_worker {id}")
            }
            WorkerStatus::Queued if view.waits_for.is_some() => {
                "wait_for_any_worker; it starts by itself when it has what it waits for".to_owned()
            }
            _ if stalled => format!(
                "get_worker_status {id} with include [\"log\"]; then send_message_to_worker with delivery interrupt, or cancel_worker"
            ),
            _ => "wait_for_any_worker tells you when it settles".to_owned(),
        };
    };
    let incomplete = !last.changes.not_on_branch.is_empty();
    let integrable = worker.branch().is_some() && last.changes.commits > 0;
    let winner = races::lost_to(worker).filter(|_| worker.integrated.is_none() && races::has_lost(worker));
    if let Some(winner) = winner {
        return format!(
            "nothing: {winner} won the race; its work is kept: get_worker_status {id} with include [\"diff\"] shows it"
        );
    }
    if races::is_undecided(worker) && view.block.is_none() {
        return "wait_for_any_worker: others still race for this task".to_owned();
    }
    match last.status {
        _ if incomplete && worker.integrated.is_some() => not_all_included(id.as_str()),
        _ if worker.integrated.is_some() => match worker.mission.place {
            Place::Worktree { .. } => format!("done; remove_worktree {id} when you need it no more"),
            Place::Directory { .. } => {
                "done; if create_worktree made its directory, remove_worktree with that path when you need it no more"
                    .to_owned()
            }
        },
        _ if view.merge_is_unknown => {
            format!("git could not be asked whether it is merged: look at its repository, then get_worker_status {id}")
        }
        _ if last.says_blocked => format!("read its final_message; answer it with send_message_to_worker {id}"),
        Ending::Completed if incomplete => not_all_on_branch(id.as_str(), integrable),
        Ending::Completed if integrable => match view.collisions.iter().find(|it| it.is_integration_branch) {
            Some(collision) => after_collision(id.as_str(), collision),
            None => format!("integrate_worker {id}{}", unchecked(view.unchecked)),
        },
        Ending::Completed => "read its final_message; it committed nothing that could be integrated".to_owned(),
        Ending::Cancelled => format!("nothing, or retry_worker {id} to begin again; its work is kept"),
        Ending::TimedOut => format!("retry_worker {id} to go on, or a narrower mission with create_worker_mission"),
        Ending::Lost => format!("get_worker_status {id} with include [\"diff\"], then retry_worker {id}"),
        Ending::Interrupted => format!("retry_worker {id}"),
        Ending::Failed => after_failure(id.as_str(), last),
    }
}

fn unchecked(unchecked: Option<Unchecked>) -> &'static str {
    match unchecked {
        None => "",
        Some(Unchecked::OtherWorkers) => {
            "; whether it conflicts with other workers' branches was not checked, as there are too many"
        }
        Some(Unchecked::Anything) => {
            "; whether it conflicts with anything was not checked, as there are too many branches: dry_run first"
        }
        Some(Unchecked::OtherTarget) => {
            "; whether it conflicts with anything was not checked, as other workers have another integration branch: dry_run first"
        }
    }
}

fn not_all_on_branch(id: &str, integrable: bool) -> String {
    let without =
        if integrable { format!("; integrate_worker {id} brings in the rest without it") } else { String::new() };
    format!(
        "not all of its work is on its branch: look at not_on_branch, then send_message_to_worker {id} to put it there{without}"
    )
}

fn not_all_included(id: &str) -> String {
    format!("merged without what not_on_branch names: see to that, then integrate_worker {id}")
}

fn after_collision(id: &str, collision: &Collision) -> String {
    let branch = size::line(&collision.with, 40);
    let paths = size::line(&collision.paths.join(", "), 120);
    format!(
        "it conflicts with {branch} in {paths}: send_message_to_worker {id} to merge {branch} into its branch, then integrate_worker"
    )
}

fn after_failure(id: &str, last: &entry::Brief) -> String {
    let backend = size::line(last.backend.as_str(), 40);
    match last.failure.as_ref().map(|failure| failure.kind) {
        Some(FailureKind::CouldNotStart) if last.place_failed => {
            format!("fix what its message names, in the repository or where its worktree lies; then retry_worker {id}")
        }
        Some(FailureKind::Auth | FailureKind::CouldNotStart) => {
            format!("get_backend_status {backend} says how to mend it; or retry_worker {id} with another backend")
        }
        Some(FailureKind::RateLimit | FailureKind::UsageLimit) => {
            format!("retry_worker {id} with another backend, or without one to wait until {backend} takes work again")
        }
        Some(FailureKind::Verification) => match &last.likely_cause {
            Some(cause) => after_likely_cause(id, cause),
            None => format!("retry_worker {id} with feedback on what failed"),
        },
        _ => format!("retry_worker {id} with feedback or another backend, or a narrower mission"),
    }
}

/// Names what the worktree lacks without evidence that it matters.
pub(super) fn perhaps_missing(cause: &LikelyCause) -> String {
    let first = cause.lacks.first().map(|lack| size::line(&lack.path, 120));
    first.map_or_else(String::new, |path| format!(" (perhaps for lack of {path}; see likely_cause)"))
}

/// Returns the next step when the work does not seem to be at fault. Feedback on the work would mislead the worker.
fn after_likely_cause(id: &str, cause: &LikelyCause) -> String {
    match cause.fix() {
        Some(fix) => {
            let fix = size::line(&fix, 200);
            format!("retry_worker {id} with feedback to {fix} before it goes on; its work may be right as it is")
        }
        None => format!(
            "if to make that pass is its mission, retry_worker {id} with feedback; otherwise have what it began at fixed \
             first, which fails without this work too{}, then retry_worker {id} with feedback to merge that",
            perhaps_missing(cause)
        ),
    }
}

#[cfg(test)]
pub(super) mod tests;
