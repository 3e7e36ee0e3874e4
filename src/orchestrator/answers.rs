//! The arguments and answers of the facade: plain data, without the types of the protocol.

mod messages;
mod waits;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::budget::so_far;
use super::error::OrchestratorError;
use super::message_views::MessageView;
use crate::attempt::status::{LiveStatus, OpenQuestion};
use crate::attempt::worker_dir::WorkerDir;
use crate::backend::{AgentEvent, Enforcement};
use crate::config::LauncherKind;
pub use crate::git::{DiffPage, PushResult, Pushed, Strategy};
use crate::mission::budget::Spent;
use crate::mission::hint::Advice;
use crate::mission::id::{BackendName, RaceId, WorkerId};
use crate::mission::lifecycle::WorkerStatus;
use crate::mission::outcome::{Changes, Containment, LikelyCause, NotOnBranch, Outcome, Usage, Verification};
use crate::mission::race;
use crate::mission::registry::Worker;
use crate::mission::spec::RunOn;
pub use crate::store::state_file::{Collision, Unchecked, With};
pub use messages::*;
pub use waits::*;

/// A worker as the server presents it.
#[derive(Debug, Clone)]
pub struct WorkerView {
    /// The worker. In views that are shown, `integrated` reflects the current state in git.
    pub worker: Arc<Worker>,
    /// The branch that its work is to be merged into.
    pub meant_for: Option<String>,
    /// True if git could not be queried whether its work is merged.
    pub merge_is_unknown: bool,
    /// The changes that are not merged, if an earlier part of its work is merged.
    pub unmerged: Option<Changes>,
    /// The last status from its supervisor, while it runs.
    pub live: Option<LiveStatus>,
    /// Seconds since its attempt began, while it runs. `idle_seconds` counts from its last sign of life.
    pub elapsed_seconds: Option<u64>,
    pub idle_seconds: Option<u64>,
    /// The reason why its task waits for the boss, if it does.
    pub block: Option<Advice>,
    /// The condition that a queued worker waits for.
    pub waits_for: Option<String>,
    /// True if that does not come about by itself: its cluster would never start its job.
    pub needs_change: bool,
    /// Branches that its branch does not merge cleanly with, as far as they were checked.
    pub collisions: Vec<Collision>,
    /// The part of the conflict check that was skipped.
    pub unchecked: Option<Unchecked>,
    pub redelivered: bool,
    /// The mechanism that enforces its permissions.
    pub enforced: Option<Enforcement>,
    /// The budget, if one was set, and how it is enforced.
    pub budget: Option<String>,
    pub race: Option<RaceView>,
    /// The node that its attempt runs on, if a cluster runs it. Also the last one, in an answer about one worker.
    pub node: Option<String>,
}

impl WorkerView {
    /// Describes a worker by its record and its last status alone.
    pub fn of(worker: Arc<Worker>, live: Option<LiveStatus>) -> Self {
        let worker = asking(worker, live.as_ref());
        let host = live.as_ref().and_then(|live| live.host.as_ref()).filter(|_| worker.job.is_some());
        Self {
            node: host.map(|host| host.name.clone()),
            worker,
            meant_for: None,
            merge_is_unknown: false,
            unmerged: None,
            elapsed_seconds: live.as_ref().map(|live| live.ran().as_secs()),
            idle_seconds: live.as_ref().map(|live| live.idle().as_secs()),
            live,
            block: None,
            waits_for: None,
            needs_change: false,
            collisions: Vec::new(),
            unchecked: None,
            redelivered: false,
            enforced: None,
            budget: None,
            race: None,
        }
    }

    /// Adds the node that its last attempt ran on, which is in the worker's folder.
    pub fn with_last_node(mut self, folder: &WorkerDir) -> Self {
        if self.node.is_none() && self.worker.job.is_some() {
            self.node = LiveStatus::host_name(&folder.attempt(self.worker.attempt));
        }
        self
    }

    /// Returns the launcher that its attempt waits for or runs on. `None` for the host of its server.
    pub fn launcher(&self) -> Option<&str> {
        let worker = &self.worker;
        worker.job.as_ref().map(|job| job.launcher.as_str()).or(worker.next.run_on.as_deref())
    }

    /// Returns the questions that wait for an answer, the oldest first.
    pub fn open_questions(&self) -> impl Iterator<Item = &OpenQuestion> {
        let live = self.live.iter().filter(|_| self.worker.status.is_live());
        live.flat_map(|live| &live.questions)
    }

    /// Returns how long it ran, over all attempts and including verification. All screens, answers and reports show
    /// this number. It never decreases. `None` before the first attempt began.
    pub fn ran_seconds(&self) -> Option<u64> {
        let running = self.elapsed_seconds.filter(|_| self.worker.status.is_live());
        let is_begun = !self.worker.settled.is_empty() || running.is_some();
        is_begun.then(|| self.worker.settled_seconds().saturating_add(running.unwrap_or(0)))
    }

    /// Returns the usage of all attempts, including the running one, as far as the CLIs report it. A resumed session is
    /// counted once.
    pub fn spent(&self) -> Spent {
        let mut sum = Spent::default();
        for (at, brief) in self.worker.settled.iter().enumerate() {
            sum.add(Spent::by(brief, &self.worker.settled[..at]));
        }
        if let Some(live) = &self.live {
            sum.add(so_far(&self.worker, live));
        }
        sum
    }
}

/// Returns the worker with the status to show: see [`Worker::shown_status`].
pub(super) fn asking(mut worker: Arc<Worker>, live: Option<&LiveStatus>) -> Arc<Worker> {
    let shown = worker.shown_status(live.is_some_and(LiveStatus::needs_answer));
    if shown != worker.status {
        Arc::make_mut(&mut worker).status = shown;
    }
    worker
}

/// A question of a worker that waits for a decision.
#[derive(Debug, Clone, PartialEq)]
pub struct QuestionView {
    pub worker_id: WorkerId,
    pub open: OpenQuestion,
}

impl QuestionView {
    /// Returns the open questions of a worker, oldest first.
    pub fn of(view: &WorkerView) -> impl Iterator<Item = Self> {
        let questions = view.live.iter().flat_map(|live| &live.questions);
        questions.map(|open| Self { worker_id: view.worker.id.clone(), open: open.clone() })
    }
}

/// The race that a worker runs or ran in.
#[derive(Debug, Clone, PartialEq)]
pub struct RaceView {
    pub id: RaceId,
    pub winner: Option<WorkerId>,
    /// The racers, in the order of the request.
    pub racers: Vec<RacerView>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct RacerView {
    pub worker_id: WorkerId,
    pub backend: BackendName,
    pub status: WorkerStatus,
    /// The usage of all its attempts. `None` if its CLI did not report it.
    pub spent: Option<Usage>,
}

impl RaceView {
    /// Describes the race of a worker. `find` returns a racer, and the usage of its running attempt.
    pub(super) fn of(
        worker: &Worker,
        find: impl Fn(&WorkerId) -> Option<(Arc<Worker>, Option<Usage>)>,
    ) -> Option<Self> {
        let race = worker.race.as_ref()?;
        let racer = |id: &WorkerId| {
            let (racer, live) = find(id)?;
            let backend = racer.last().map_or(&racer.next.backend, |last| &last.backend).clone();
            let spent = race::spent(&racer, live);
            Some(RacerView { worker_id: racer.id.clone(), backend, status: racer.status, spent })
        };
        let racers = race.racers.iter().filter_map(racer).collect();
        Some(Self { id: race.id.clone(), winner: race.winner.clone(), racers })
    }
}

/// The branch that the workers of a boss start from and are merged into, and its current commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    pub branch: String,
    pub commit: String,
    /// A note for the boss, such as that the user has checked out another branch.
    pub note: Option<String>,
}

/// The answer to a batch, in its order.
#[derive(Debug)]
pub struct Creation {
    pub results: Vec<BatchItem>,
    /// The start of the workers. `None` if it could not be determined, such as outside a repository.
    pub base: Option<Base>,
    /// The view of the worker of a [`BatchKind::Single`], if it was created.
    pub view: Option<WorkerView>,
}

/// The answer to one mission of a batch.
pub type BatchItem = Result<Created, OrchestratorError>;

/// The relation between the missions of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchKind {
    /// One mission, answered with the view of its worker.
    Single,
    /// Missions that are registered independently.
    Independent,
    /// One task for several workers, registered all or none: see [`crate::mission::race`].
    Race,
}

#[derive(Debug, Clone)]
pub struct Created {
    pub worker_id: WorkerId,
    pub status: WorkerStatus,
    /// True if the `request_id` was known, so that nothing was created.
    pub existing: bool,
    pub race: Option<RaceId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    #[default]
    Mine,
    All,
}

#[derive(Debug, Clone)]
pub struct ListAnswer {
    /// The workers with the requested statuses, in order of creation.
    pub workers: Vec<WorkerView>,
    /// Workers of other bosses that `mine` leaves out.
    pub others: usize,
    /// Number of workers of all bosses in the history. They are found by name, and are not among `workers`.
    pub in_history: usize,
}

/// The selection of one page. All workers in scope are counted.
pub struct PageRequest {
    pub scope: Scope,
    pub shows: Box<dyn Fn(&Summary<'_>) -> bool + Send>,
    pub limit: usize,
}

/// The facts by which a page selects workers. They are cheap to determine.
pub struct Summary<'a> {
    pub worker: &'a Worker,
    /// The status to show.
    pub status: WorkerStatus,
    /// True if its task waits for the boss.
    pub blocked: bool,
    pub stalled: bool,
}

#[derive(Debug, Clone)]
pub struct ListPage {
    /// The newest first, up to the limit.
    pub workers: Vec<WorkerView>,
    /// Number of workers that would be shown without the limit.
    pub matching: usize,
    /// The status of each worker in scope, and whether its task waits for the boss.
    pub statuses: Vec<(WorkerStatus, bool)>,
    /// Counts as in [`ListAnswer`].
    pub others: usize,
    pub in_history: usize,
    /// The usage of all workers of this boss, as far as the CLIs report it.
    pub spent: Spent,
}

/// The parts to return beside the worker itself.
#[derive(Debug, Clone, Default)]
pub struct Include {
    pub log: bool,
    pub diff: bool,
    pub messages: bool,
    pub attempts: bool,
    /// Maximum number of events. The newest are returned.
    pub log_lines: usize,
    /// Byte offset into the diff.
    pub diff_offset: usize,
    /// Maximum number of bytes of diff.
    pub diff_bytes: usize,
}

#[derive(Debug, Clone)]
pub struct Details {
    pub view: WorkerView,
    pub log: Option<Vec<LoggedEvent>>,
    pub diff: Option<DiffPage>,
    pub messages: Option<Vec<MessageView>>,
    pub attempts: Option<Vec<Outcome>>,
    /// The folder with all files of the worker.
    pub folder: PathBuf,
}

/// One line of an attempt's `events.jsonl`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LoggedEvent {
    pub at: Timestamp,
    #[serde(flatten)]
    pub event: AgentEvent,
}

#[derive(Debug, Clone)]
pub struct CancelAnswer {
    pub worker_id: WorkerId,
    pub status: WorkerStatus,
    pub survivors: u32,
    pub proof: Containment,
    /// True if it had settled before, so that nothing was done.
    pub already_settled: bool,
    /// Messages that it never received. Its next attempt receives them first.
    pub undelivered: Vec<String>,
}

/// The open workers, each with a receiver of its answer, which follows when it has settled.
pub struct CancelAllAnswer {
    pub ending: Vec<(WorkerId, oneshot::Receiver<Result<CancelAnswer, OrchestratorError>>)>,
    pub already_settled: usize,
}

#[derive(Debug, Clone, Default)]
pub struct RetryRequest {
    pub backend: Option<BackendName>,
    pub model: Option<String>,
    pub effort: Option<String>,
    pub prompt: Option<String>,
    pub feedback: Option<String>,
    /// The host of the server, or a launcher. `None`: as before.
    pub run_on: Option<RunOn>,
    pub fresh: bool,
}

/// Why a worker that was handed over to a cluster has not begun.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterWait {
    pub why: String,
    /// True if the reason does not pass by itself.
    pub is_lasting: bool,
}

/// A launcher of the settings, with the jobs of this state directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LauncherView {
    pub name: String,
    pub kind: LauncherKind,
    /// Whether its cluster answers.
    pub answers: bool,
    /// Why it does not, or what the last check of its nodes found missing.
    pub problem: Option<String>,
    pub waiting: usize,
    pub running: usize,
    pub limit: u64,
}

#[derive(Debug, Clone)]
pub struct WorktreeRequest {
    pub branch: String,
    pub path: Option<PathBuf>,
    pub base: Option<String>,
    pub repo_path: Option<PathBuf>,
}

#[derive(Debug, Clone)]
pub enum RemovalTarget {
    Path(PathBuf),
    Worker(String),
    /// Worktrees of all settled workers whose branch is integrated.
    AllIntegrated,
}

#[derive(Debug, Clone)]
pub struct RemovalRequest {
    pub target: RemovalTarget,
    pub repo_path: Option<PathBuf>,
    pub force: bool,
    pub delete_branch: bool,
}

#[derive(Debug, Clone, Default)]
pub struct RemovalAnswer {
    pub removed: Vec<RemovedWorktree>,
    pub kept: Vec<KeptWorktree>,
}

#[derive(Debug, Clone)]
pub struct RemovedWorktree {
    pub path: PathBuf,
    pub branch: Option<String>,
    pub branch_deleted: bool,
    pub salvage_ref: Option<String>,
    /// A part of the request that failed although the worktree is removed.
    pub note: Option<String>,
}

#[derive(Debug, Clone)]
pub struct KeptWorktree {
    pub path: PathBuf,
    pub why: Arc<OrchestratorError>,
}

#[derive(Debug, Clone)]
pub enum IntegrationSource {
    Worker(String),
    /// Several workers, in order. One that cannot be integrated is left out.
    Train(Vec<String>),
    Branch(String),
}

#[derive(Debug, Clone)]
pub struct IntegrationRequest {
    pub source: IntegrationSource,
    pub into: Option<String>,
    pub strategy: Strategy,
    /// The command to run in a worktree of the result. The branch moves only if it passes.
    pub verify_command: Option<String>,
    /// True to push the branch to its upstream afterwards.
    pub push: bool,
    pub dry_run: bool,
    /// The repository of the branch. The default is the one that its worker worked in.
    pub repo_path: Option<PathBuf>,
    /// Time after which the answer is `running`, while the integration continues. The same request joins it. `None`
    /// waits until it is done.
    pub patience: Option<Duration>,
}

impl IntegrationRequest {
    /// A plain merge into the integration branch.
    pub fn of(source: IntegrationSource) -> Self {
        Self {
            source,
            into: None,
            strategy: Strategy::Merge,
            verify_command: None,
            push: false,
            dry_run: false,
            repo_path: None,
            patience: None,
        }
    }
}

/// The result of an integration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntegrationStatus {
    Merged,
    /// Merged before, according to git.
    AlreadyMerged,
    /// Merged before, according to the records.
    AlreadyIntegrated,
    /// The branch brings nothing and does not hold all of the work.
    Incomplete,
    WouldMerge,
    Conflicts,
    VerificationFailed,
    VerificationTimedOut,
    CouldNotVerify,
    Refused,
    Running,
}

impl IntegrationStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            IntegrationStatus::Merged => "merged",
            IntegrationStatus::AlreadyMerged => "already_merged",
            IntegrationStatus::AlreadyIntegrated => "already_integrated",
            IntegrationStatus::Incomplete => "incomplete",
            IntegrationStatus::WouldMerge => "would_merge",
            IntegrationStatus::Conflicts => "conflicts",
            IntegrationStatus::VerificationFailed => "verification_failed",
            IntegrationStatus::VerificationTimedOut => "verification_timed_out",
            IntegrationStatus::CouldNotVerify => "could_not_verify",
            IntegrationStatus::Refused => "refused",
            IntegrationStatus::Running => "running",
        }
    }
}

#[derive(Debug, Clone)]
pub struct IntegrationAnswer {
    pub status: IntegrationStatus,
    /// Workers, or the branch, that are integrated now.
    pub integrated: Vec<String>,
    /// Workers that are not integrated, with the reason.
    pub left_out: Vec<(String, Advice)>,
    /// Parts of the work that the integrated branches do not hold, each with its worker or branch.
    pub not_included: Vec<(String, NotOnBranch)>,
    /// The worker concerned, if it is a single one.
    pub worker: Option<WorkerId>,
    /// True if that worker has a worktree that was made for it.
    pub own_worktree: bool,
    pub into: String,
    /// The commit that the branch was moved to, or the recorded commit of an earlier integration.
    pub commit: Option<String>,
    /// Paths in conflict, each with the kind of conflict.
    pub conflicts: Vec<(String, String)>,
    /// The last verification. If anything was integrated, it is that of the result.
    pub verification: Option<Verification>,
    /// The likely cause of a failed verification, if the source does not seem to be at fault.
    pub likely_cause: Option<LikelyCause>,
    /// Number of times that the command was run.
    pub verifications: usize,
    pub push: Option<Pushed>,
    /// Notes on deviations from the user's git, and on work that continues.
    pub notes: Vec<String>,
}

impl IntegrationAnswer {
    /// Returns an answer with this status and nothing else.
    pub fn new(status: IntegrationStatus, worker: Option<WorkerId>, into: String) -> Self {
        Self {
            status,
            integrated: Vec::new(),
            left_out: Vec::new(),
            not_included: Vec::new(),
            worker,
            own_worktree: false,
            into,
            commit: None,
            conflicts: Vec::new(),
            verification: None,
            likely_cause: None,
            verifications: 0,
            push: None,
            notes: Vec::new(),
        }
    }
}

#[derive(Debug, Clone)]
pub struct BackendView {
    pub backend: BackendName,
    /// True if lists leave it out unless it is installed.
    pub is_optional: bool,
    pub installed: bool,
    pub version: Option<String>,
    /// The consequence of a version that was not tested.
    pub untested: Option<String>,
    pub path: Option<PathBuf>,
    /// `None` if it cannot be determined without spending.
    pub authenticated: Option<bool>,
    pub how_to_fix: Option<String>,
    pub models: Vec<String>,
    pub running: usize,
    pub queued: usize,
    pub limit: usize,
    /// The reason why the first queued worker waits.
    pub waits_for: Option<String>,
    /// Time before which no new worker of it starts, unless it recovers earlier. Its login was lost, or it accepts no
    /// work now.
    pub held_until: Option<Timestamp>,
    /// True if its CLI asks before some actions, so that a boss or the user can decide.
    pub asks: bool,
}

/// The workers of a backend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    pub running: usize,
    pub queued: usize,
    /// The reason why the first queued worker waits.
    pub waits_for: Option<String>,
    /// Time before which no new worker of it starts, unless it recovers earlier.
    pub held_until: Option<Timestamp>,
    /// True if it is in backoff since its login was lost.
    pub login_lost: bool,
}

/// The evidence of a login. It changes when the user logs in again after a login was lost.
#[derive(Debug, Clone, PartialEq)]
pub struct Login {
    pub answer: Option<bool>,
    /// Modification time and length of each file that a login leaves.
    pub(super) files: Vec<Option<(SystemTime, u64)>>,
}
