//! All messages that reach the actor: what the handle asks for, what the tasks that follow workers report, and the
//! snapshots that are given away. No logic.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::answers::*;
use super::error::OrchestratorError;
use super::probe::Login;
use super::radar::{Collisions, Radar};
use crate::attempt::state_dir::StateDir;
use crate::attempt::status::LiveStatus;
use crate::attempt::worker_dir::InboxEntry;
use crate::mission::create::Draft;
use crate::mission::entry::Entry;
use crate::mission::id::{BackendName, BossId, WorkerId};
use crate::mission::outcome::Outcome;
use crate::mission::registry::Worker;

pub(super) type Reply<T> = oneshot::Sender<T>;
type Result<T> = std::result::Result<T, OrchestratorError>;

/// What the actor is asked and told.
pub enum Ask {
    Arrived {
        boss: BossId,
    },
    Create {
        boss: BossId,
        drafts: Vec<Result<Draft>>,
        /// True if all drafts are one task: see [`crate::mission::race`].
        race: bool,
        integration_branch: Option<String>,
        reply: Reply<Result<Vec<Result<Created>>>>,
    },
    /// The integration branch that the boss's workers recorded.
    RecordedBranch {
        boss: BossId,
        reply: Reply<Option<String>>,
    },
    Wait {
        boss: BossId,
        workers: Vec<String>,
        most: usize,
        answer: Reply<WaitAnswer>,
        reply: Reply<Result<u64>>,
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
    Counts {
        reply: Reply<HashMap<BackendName, Counts>>,
    },
    /// Which of these `request_id`s were here before.
    Known {
        requests: Vec<String>,
        reply: Reply<HashSet<String>>,
    },
    Message {
        boss: BossId,
        name: String,
        message: NewMessage,
        reply: Reply<Result<MessageAnswer>>,
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
    /// Something that was done outside and is to be remembered, for one worker.
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
    Told {
        worker: WorkerId,
        attempt: u32,
        news: News,
    },
    /// The current login state of a CLI.
    LoginSeen {
        backend: BackendName,
        login: Login,
    },
    /// The end of a conflict check. `found` is `None` if git failed.
    Radar {
        radar: Box<Radar>,
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

/// A report from a worker's task.
pub enum News {
    /// The supervisor is running.
    Started {
        base_commit: Option<String>,
        /// The integration branch, if it contained the base.
        base_branch: Option<String>,
        /// The repository that the worker works in, if it is not the server's own.
        repository: Option<PathBuf>,
    },
    Status(Box<LiveStatus>),
    /// The outcome record exists.
    Ended(Box<Outcome>),
    /// An attempt that certainly never began and never will. `inbox_entries` are the messages that it got meanwhile.
    NeverBegan {
        inbox_entries: Vec<InboxEntry>,
    },
    /// The attempt may run on, but it cannot be followed; looked at again later.
    OutOfSight {
        why: String,
    },
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    pub running: usize,
    pub queued: usize,
    /// What the first of the queued ones waits for.
    pub waits_for: Option<String>,
    /// Nothing new of it starts before, unless it is found to be back.
    pub held_until: Option<Timestamp>,
    /// It is held for a login that was lost.
    pub login_lost: bool,
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
