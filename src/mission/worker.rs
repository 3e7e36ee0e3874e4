//! A worker as the registry keeps it: its mission, its attempts and their results, and its race. Data and queries only.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::id::{BackendName, BossId, RaceId, ServerId, TaskId, WorkerId};
use super::life::JobId;
use super::lifecycle::{Ending, WorkerStatus};
use super::message::{Author, Cancelled, Message};
use super::notification::Notification;
use super::spec::Mission;
use super::summary::AttemptSummary;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    pub id: WorkerId,
    /// The boss that its end is reported to, whichever server holds the lease.
    pub boss: BossId,
    pub mission: Mission,
    pub status: WorkerStatus,
    /// The server that is responsible for it while it is open.
    pub lease: ServerId,
    /// The attempt that runs or ran last; 0 before the first one started.
    pub attempt: u32,
    /// The settings of the attempt that waits or runs.
    pub next: NextAttempt,
    /// Names of the environment variables without which no server may start it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub race: Option<Race>,
    /// The integration branch: see [`NewWorker::integration_branch`](super::entry::NewWorker::integration_branch).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integration_branch: Option<String>,
    /// One summary per attempt, oldest first.
    pub settled: Vec<AttemptSummary>,
    pub notification: Notification,
    /// The notification of its current block, which its boss gets only once.
    pub block_notification: Notification,
    pub created_at: Timestamp,
    pub queued_at: Timestamp,
    /// The journal entry that queued it, so that the order of the queue depends on no clock.
    pub queued_seq: u64,
    /// The journal entry that admitted it last, so that the turns of bosses depend on no clock.
    pub admitted_seq: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// The job of its current or last attempt, if a cluster accepted one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Job>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_commit: Option<String>,
    /// The integration branch, if it contained `base_commit` when the worker began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_branch: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled_by: Option<Author>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integrated: Option<Integrated>,
    /// Earlier integrations, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub integrated_before: Vec<Integrated>,
    /// The repository that holds its work, if it is not the one of this state directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<PathBuf>,
    pub worktree_removed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salvage_ref: Option<String>,
    /// The reason why it failed over to another backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_over: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Integrated {
    pub into: String,
    pub commit: String,
    /// The commit of the worker's branch that was integrated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// True if commits of it were left out, since the user had removed them from the target.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

/// A job of a cluster that runs, or will run, the supervisor of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The name of the launcher in the settings.
    pub launcher: String,
    pub id: JobId,
    /// The launcher's `retry_lost` at the submission.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retry_lost: bool,
}

impl Worker {
    /// Returns whether its attempt is handed over to a cluster and has not begun. It is shown as queued.
    pub fn is_submitted(&self) -> bool {
        self.status == WorkerStatus::Starting && self.next.run_on.is_some()
    }

    /// Returns the status to show: `needs_answer` while it has an open question, `queued` while its job waits in the queue
    /// of a cluster.
    pub fn shown_status(&self, needs_answer: bool) -> WorkerStatus {
        if self.is_submitted() { WorkerStatus::Queued } else { self.status.asking(needs_answer) }
    }

    /// Returns all recorded integrations of its work, oldest first. Some may have been undone since, which only git
    /// shows.
    pub fn integrations(&self) -> impl DoubleEndedIterator<Item = &Integrated> {
        self.integrated_before.iter().chain(&self.integrated)
    }

    /// Returns the branch that its last attempt ended on, or else the one that it was given.
    pub fn branch(&self) -> Option<&str> {
        let last = self.last().and_then(|brief| brief.changes.branch.as_deref());
        last.or_else(|| self.mission.place.branch())
    }

    pub fn last(&self) -> Option<&AttemptSummary> {
        self.settled.last()
    }

    /// Returns the commit of its branch when its last attempt settled.
    pub fn last_commit(&self) -> Option<&str> {
        self.last()?.changes.head.as_deref()
    }

    /// Returns the requested cancellation, if any.
    pub fn cancelled(&self) -> Option<Cancelled> {
        let reason = self.cancel.clone()?;
        Some(Cancelled { by: self.cancelled_by, reason })
    }

    /// Returns the duration of its settled attempts in seconds, including verification.
    pub fn settled_seconds(&self) -> u64 {
        self.settled.iter().map(AttemptSummary::elapsed).fold(0, u64::saturating_add)
    }

    /// Returns whether it reported that it is blocked and still needs an answer.
    pub fn needs_you(&self) -> bool {
        let says_so = self.last().is_some_and(|last| last.status == Ending::Completed && last.says_blocked);
        let is_over = self.integrated.is_some() || self.worktree_removed || self.has_lost_race();
        self.status.is_settled() && says_so && !is_over
    }

    /// Returns the number in its id. `None` for a foreign id.
    pub fn number(&self) -> Option<u64> {
        WorkerId::number_in(self.id.as_str())
    }

    pub fn task(&self) -> &TaskId {
        &self.mission.task_id
    }

    /// Returns whether another racer has won and this one was not retried since.
    pub fn has_lost_race(&self) -> bool {
        let lost = |race: &Race| race.winner.as_ref().is_some_and(|winner| *winner != self.id);
        self.race.as_ref().is_some_and(|race| !race.is_over_for_it && lost(race))
    }
}

/// The settings of the attempt that waits in the queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NextAttempt {
    pub backend: BackendName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effort: Option<String>,
    pub start: Start,
    /// See [`Mission::run_on`]. A retry may name another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_on: Option<String>,
    /// The boss or the user asked to start anew, so the worktree is set up again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fresh: bool,
    /// Messages that were written for this attempt. `start` contains their texts too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub written: Vec<Message>,
}

impl NextAttempt {
    /// Returns whether the attempt begins with the context of its mission. A resumed session has it already.
    pub fn takes_context(&self) -> bool {
        !matches!(self.start, Start::Resume { .. })
    }
}

/// The input of an attempt's first turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Start {
    /// The mission's own prompt, in a new session.
    Mission,
    /// Another text in a new session, in the same worktree.
    Prompt { text: String },
    /// A text for the session of the former attempt.
    Resume { session_id: String, text: String },
}

/// The state of a worker's race. The decision is stored with each racer and never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Race {
    pub id: RaceId,
    /// All racers, including this worker, in order of creation.
    pub racers: Vec<WorkerId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub winner: Option<WorkerId>,
    /// True after a retry that followed the decision. It no longer races.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_over_for_it: bool,
}

impl Race {
    pub fn new(id: RaceId, racers: Vec<WorkerId>) -> Self {
        Self { id, racers, winner: None, is_over_for_it: false }
    }
}
