//! All messages to the actor: requests of the handle, reports of tasks, and the snapshots in their answers. No logic.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::answers::*;
use super::collisions::{Collisions, ScanCache};
use super::error::OrchestratorError;
use crate::attempt::inbox::InboxEntry;
use crate::attempt::state_dir::StateDir;
use crate::attempt::status::LiveStatus;
use crate::mission::create::Draft;
use crate::mission::entry::Entry;
use crate::mission::id::{BackendName, BossId, ThreadId, WaitId, WorkerId};
use crate::mission::message::Author;
use crate::mission::outcome::Outcome;
use crate::mission::registry::Worker;
use crate::mission::wake::WakeFailure;
use crate::mission::worker::Job;

pub(super) type Reply<T> = oneshot::Sender<T>;
type Result<T> = std::result::Result<T, OrchestratorError>;

/// A message to the actor: a request with its reply channel, or a report.
pub enum Ask {
    Arrived {
        boss: BossId,
    },
    /// A request of this boss from a thread that can be woken, with its turn if a queued message began that.
    ArrivedFrom {
        boss: BossId,
        thread: ThreadId,
        woken_turn: Option<String>,
    },
    RequestWake {
        order: WakeOrder,
        reply: Reply<Result<()>>,
    },
    /// The end of a run of the client's command, with the reason if it failed.
    Woke {
        thread: ThreadId,
        failure: Option<String>,
    },
    /// The last failure of such a run.
    WakeFailure {
        reply: Reply<Option<WakeFailure>>,
    },
    /// A batch to check, then to register. Checking takes time, so the answer follows by [`Ask::Register`].
    Create {
        boss: BossId,
        drafts: Vec<Result<Draft>>,
        kind: BatchKind,
        reply: Reply<Result<Creation>>,
    },
    Register(Box<CheckedBatch>),
    /// The integration branch that the boss's workers recorded.
    RecordedBranch {
        boss: BossId,
        reply: Reply<Option<String>>,
    },
    Wait {
        boss: BossId,
        workers: Vec<String>,
        receipts: Vec<String>,
        most: usize,
        /// Time after which it ends, if it may go on in the background.
        background: Option<Duration>,
        answer: Reply<WaitAnswer>,
        reply: Reply<Result<BegunWait>>,
    },
    EndWait {
        ticket: u64,
        reply: Reply<Option<WaitAnswer>>,
    },
    Sent {
        ticket: u64,
    },
    ForgetWait {
        ticket: u64,
    },
    /// A client polls for the end of a background wait.
    PollWait {
        id: WaitId,
        /// True if the client can show forms to the user.
        forms: bool,
        render: RenderWait,
        reply: Reply<WaitState>,
    },
    /// Asks for the boss of a wait that is open and covers this worker.
    BossOfForm {
        id: WaitId,
        worker: String,
        reply: Reply<Option<BossId>>,
    },
    /// Ends a background wait, which then reports nothing.
    CancelWait {
        id: WaitId,
        reply: Option<Reply<()>>,
    },
    /// The background waits of a boss whose end no conversation has shown yet.
    UnacknowledgedWaits {
        boss: BossId,
        reply: Reply<Vec<WaitId>>,
    },
    /// A conversation of the boss shows the ends of these background waits.
    WaitsShown {
        boss: BossId,
        waits: Vec<WaitId>,
        reply: Reply<()>,
    },
    Progress {
        boss: BossId,
        workers: Vec<String>,
        reply: Reply<String>,
    },
    List {
        boss: BossId,
        scope: Scope,
        reply: Reply<ListAnswer>,
    },
    Page {
        boss: BossId,
        request: PageRequest,
        reply: Reply<ListPage>,
    },
    Get {
        name: String,
        reply: Reply<Result<WorkerView>>,
    },
    /// The waiting and the running workers of each launcher.
    Jobs {
        reply: Reply<HashMap<String, (usize, usize)>>,
    },
    Counts {
        reply: Reply<HashMap<BackendName, Counts>>,
    },
    Message {
        boss: BossId,
        name: String,
        message: NewMessage,
        reply: Reply<Result<MessageAnswer>>,
    },
    Answer {
        boss: BossId,
        name: String,
        request: AnswerRequest,
        /// The author, if it is not the caller of this process.
        by: Option<Author>,
        reply: Reply<Result<Posted>>,
    },
    Cancel {
        boss: BossId,
        name: String,
        reason: String,
        reply: Reply<Result<CancelAnswer>>,
    },
    CancelAll {
        boss: BossId,
        scope: Scope,
        reason: String,
        reply: Reply<Result<CancelAllAnswer>>,
    },
    Retry {
        boss: BossId,
        name: String,
        request: RetryRequest,
        reply: Reply<Result<WorkerView>>,
    },
    /// An entry about one worker, for work that was done outside the actor.
    Record {
        worker: WorkerId,
        entry: Entry,
        reply: Reply<Result<()>>,
    },
    /// The state directory, created if necessary.
    StateDir {
        reply: Reply<Result<StateDir>>,
    },
    /// A snapshot for work outside the actor: of one worker and its integration branch, or of all workers.
    Lookup {
        name: Option<String>,
        reply: Reply<Result<Lookup>>,
    },
    /// A report from the task that starts and follows a worker.
    Reported {
        worker: WorkerId,
        attempt: u32,
        report: Report,
    },
    /// The current login state of a CLI.
    LoginSeen {
        backend: BackendName,
        login: Login,
    },
    /// The end of a scan for collisions. `found` is `None` if git failed.
    Scanned {
        cache: Box<ScanCache>,
        found: Option<Collisions>,
    },
    /// The free disk space where workers are to work.
    DiskSeen {
        folder: PathBuf,
        free_mib: Option<u64>,
    },
    /// A change of the journal by another server.
    JournalChanged,
    ShutDown {
        reply: Reply<()>,
    },
}

/// A boss ends its turn, and is to be woken when something is due for these workers. Without workers: for all of its own.
pub struct WakeOrder {
    pub boss: BossId,
    pub workers: Vec<String>,
    pub thread: ThreadId,
    pub turn: String,
}

/// A wait that has begun. It may have been answered already.
pub enum BegunWait {
    /// Its answer follows.
    Blocking(u64),
    /// It goes on in the background instead.
    Background(OpenWait),
    /// It is not needed, since this background wait is open for the same workers.
    Waiting(u64, WaitId),
}

/// A checked batch, with the reply channel of its request.
pub struct CheckedBatch {
    pub boss: BossId,
    pub drafts: Vec<Result<Draft>>,
    pub kind: BatchKind,
    pub base: Option<Base>,
    pub reply: Reply<Result<Creation>>,
}

/// A report from a worker's task.
pub enum Report {
    /// The supervisor is running.
    Started {
        base_commit: Option<String>,
        /// The integration branch, if it contained the base.
        base_branch: Option<String>,
        /// The repository that the worker works in, if it is not the server's own.
        repository: Option<PathBuf>,
    },
    /// A cluster has accepted the job of the attempt.
    Submitted {
        job: Job,
    },
    /// Why the job of the attempt has not begun.
    Waits(ClusterWait),
    Status(Box<LiveStatus>),
    /// The outcome record exists.
    Ended(Box<Outcome>),
    /// An attempt that certainly never began and never will. `inbox_entries` are the messages that it got meanwhile.
    NeverBegan {
        inbox_entries: Vec<InboxEntry>,
    },
    /// The attempt may run on, but it cannot be followed now.
    OutOfSight {
        why: String,
    },
}

#[derive(Debug, Clone)]
pub struct Lookup {
    pub worker: Option<Arc<Worker>>,
    /// All workers, if none was named. Of those in the history, only the ones whose worktree may still exist.
    pub all: Vec<Arc<Worker>>,
    /// The integration branch of that worker, from the setting or the records.
    pub integration_branch: Option<String>,
}

/// A message to an attempt (of this number) that was just ending.
pub(super) type LateMessage = (u32, NewMessage, Reply<Result<MessageAnswer>>);
