//! The entries of the journal, one per change. The registry is their fold.
//!
//! Servers of different builds may share this on-disk form. Fields are added with a default, and never renamed or given
//! a new meaning. A change that an older reader would misread raises [`FORMAT`].

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::id::{BackendName, BossId, ServerId, ThreadId, WaitId, WorkerId};
use super::spec::Mission;
pub use super::summary::{AttemptSummary, FailureSummary, reasons};
pub use super::worker::{Job, NextAttempt, Start};
use super::worker::{Race, Worker};

/// Format version of everything in the state directory. A newer one is refused.
///
/// 4 added entries of jobs, background waits and wakes, which a reader of 3 takes for damage. A server that opens a
/// journal of 3 begins a segment of 4, so that such a reader refuses it.
pub const FORMAT: u32 = 4;
/// The oldest format that is read. An earlier one is set aside unread.
pub const OLDEST_FORMAT: u32 = 3;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub seq: u64,
    pub at: Timestamp,
    /// The server that wrote it.
    pub server: ServerId,
    pub entry: Entry,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Entry {
    /// A server began to work on this state directory.
    ServerJoined {
        boss: BossId,
        directory: PathBuf,
    },
    /// Servers that shut down, or were found dead.
    ServersGone {
        servers: Vec<ServerId>,
    },
    /// A takeover: a boss without a session inherits the workers of such bosses in the same directory that are gone.
    BossSucceeded {
        from: Vec<BossId>,
        to: BossId,
    },
    /// A whole batch in one line, so that it is recorded completely or not at all.
    Created {
        workers: Vec<NewWorker>,
    },
    /// The admission of a worker: a server dequeued it, and has the sole right to start this attempt.
    Starting {
        worker: WorkerId,
        attempt: u32,
    },
    /// An attempt that provably never began. The worker returns to the queue.
    Unstarted {
        worker: WorkerId,
        attempt: u32,
    },
    /// A cluster accepted the job of an attempt. The attempt begins when a node of the cluster is free.
    Submitted {
        worker: WorkerId,
        attempt: u32,
        job: Job,
    },
    Running {
        worker: WorkerId,
        attempt: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        base_commit: Option<String>,
        /// The integration branch, if it contained the base then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        base_branch: Option<String>,
        /// The repository that the worker works in, if it is not the one of this state directory.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        repository: Option<PathBuf>,
    },
    Verifying {
        worker: WorkerId,
        attempt: u32,
    },
    Settled {
        worker: WorkerId,
        brief: Box<AttemptSummary>,
    },
    /// A retry, or a message to a settled worker, requested a further attempt.
    Requeued {
        worker: WorkerId,
        next: Box<NextAttempt>,
        /// The server that is to start it. The default is the one that wrote this.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lease: Option<ServerId>,
    },
    /// A message was added to the prompt of a queued worker.
    Amended {
        worker: WorkerId,
        next: Box<NextAttempt>,
    },
    /// A queued worker failed over to another backend, since its own is in backoff.
    FailedOver {
        worker: WorkerId,
        next: Box<NextAttempt>,
        reason: String,
    },
    /// A backend in backoff answered, or was logged in again.
    Answered {
        backend: BackendName,
    },
    CancelRequested {
        worker: WorkerId,
        by: BossId,
        reason: String,
    },
    /// Settlements and blocks that a wait is about to answer with. The line's `seq` identifies this delivery.
    Notified {
        boss: BossId,
        settled: Vec<(WorkerId, u32)>,
        blocked: Vec<WorkerId>,
    },
    /// The acknowledgement of deliveries by a later request of the boss. It includes their content, which another
    /// server may have sent again meanwhile.
    Acknowledged {
        deliveries: Vec<u64>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        settled: Vec<(WorkerId, u32)>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        blocked: Vec<WorkerId>,
    },
    /// The answer of a delivery was never sent.
    Withdrawn {
        delivery: u64,
    },
    /// A boss ends its turn, and is to be woken when something is due for these workers. Without workers: for all of its
    /// own.
    WakeRequested {
        boss: BossId,
        thread: ThreadId,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        workers: Vec<WorkerId>,
        /// The turn that ends. A call from it does not show that a pointer arrived.
        #[serde(default)]
        turn: String,
    },
    /// This server is about to run the client's command with a pointer.
    WakeSent {
        thread: ThreadId,
    },
    /// The command has ended. Without a failure, the client has accepted the pointer, but may never deliver it.
    WakeRan {
        thread: ThreadId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<String>,
    },
    /// A call of the turn that a pointer began.
    WakeArrived {
        thread: ThreadId,
    },
    /// A call of this thread after an answer to a wait: its boss is active again, and has received what was due.
    WakeEnded {
        thread: ThreadId,
    },
    /// A wait of this boss goes on in the background. Without workers: for all of its own.
    WaitOpened {
        id: WaitId,
        boss: BossId,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        workers: Vec<WorkerId>,
        deadline: Timestamp,
    },
    /// The end of a background wait. Its answer, with these settlements and blocks, was stored before. The line's `seq`
    /// identifies this delivery.
    WaitEnded {
        id: WaitId,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        settled: Vec<(WorkerId, u32)>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        blocked: Vec<WorkerId>,
        /// The reason of a cancellation, which reports nothing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cancelled: Option<String>,
    },
    /// This server took the leases of these workers.
    LeaseTaken {
        workers: Vec<WorkerId>,
    },
    Integrated {
        worker: WorkerId,
        into: String,
        commit: String,
        /// The commit of the worker's branch at that time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<String>,
        /// Whether commits of it were left out, since the user had removed them from the target.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        partial: bool,
    },
    WorktreeRemoved {
        worker: WorkerId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        salvage_ref: Option<String>,
    },
    /// Workers that moved into the history, where they were written first.
    Archived {
        workers: Vec<WorkerId>,
    },
    /// Workers that returned from the history, since a decision concerns them.
    Recalled {
        workers: Vec<Arc<Worker>>,
    },
}

impl Entry {
    /// Returns whether it changes nothing that another task could wait for.
    pub(super) fn changes_no_dependency(&self) -> bool {
        matches!(
            self,
            Entry::Notified { .. }
                | Entry::Acknowledged { .. }
                | Entry::Withdrawn { .. }
                | Entry::WaitOpened { .. }
                | Entry::WaitEnded { .. }
                | Entry::Answered { .. }
                | Entry::WakeRequested { .. }
                | Entry::WakeSent { .. }
                | Entry::WakeRan { .. }
                | Entry::WakeArrived { .. }
                | Entry::WakeEnded { .. }
                | Entry::Submitted { .. }
                | Entry::Running { .. }
                | Entry::Verifying { .. }
        )
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewWorker {
    pub id: WorkerId,
    pub boss: BossId,
    pub mission: Mission,
    /// Names of environment variables (keys of its backend) that the server which created it has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// The race that the worker takes part in: others do the same task, and the first to complete it wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub race: Option<Race>,
    /// The branch that its work starts from and is merged into: its boss's integration branch at creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integration_branch: Option<String>,
}
