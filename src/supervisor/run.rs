//! The loop of one attempt: begin, turn after turn, end. See [`super::turn`] for one turn and [`super::finish`] for the
//! order in which an attempt ends, which is what makes its record true.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use thiserror::Error;
use tokio::signal::unix::SignalKind;
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use super::apart::Sockets;
use super::board::Board;
use super::inbox::{Inbox, Message};
use super::limits::Limits;
use super::outside::Outside;
use super::own_edits::OwnEdits;
use super::socket::Socket;
use super::{finish, tree, turn};
use crate::attempt::assignment::Assignment;
use crate::attempt::secrets::Secrets;
use crate::attempt::status::{Delivered, READY};
use crate::attempt::worker_dir::AttemptDir;
use crate::attempt::{prompt, sockets};
use crate::backend::{Backend, Backends, TurnReport, UnknownBackend};
use crate::crash_point::{self, Point};
use crate::files::lease;
use crate::files::{self, FileError};
use crate::git::{self, Repository};
use crate::mission::outcome::{Exit, Failure, FailureKind, Outcome, Run, Usage, says_blocked};
use crate::process::{self, Bystanders, Identity, Private, Scope};

#[derive(Debug, Error)]
pub enum SupervisorError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("there is no assignment in {0}")]
    NoAssignment(String),
    #[error("the attempt is claimed: another supervisor runs it or ran it")]
    Claimed,
    #[error(transparent)]
    Identity(#[from] process::IdentityError),
    #[error(transparent)]
    Session(#[from] process::SessionError),
    #[error("could not start the runtime")]
    Runtime(#[source] std::io::Error),
    #[error(transparent)]
    Backend(#[from] UnknownBackend),
}

/// Time for which writing an outcome is retried.
const SETTLE_CEILING: Duration = Duration::from_secs(3_600);

/// The state of an attempt that its parts share.
pub(super) struct Attempt {
    pub assignment: Assignment,
    pub dir: AttemptDir,
    pub backend: Arc<dyn Backend>,
    pub board: Board,
    pub inbox: Inbox,
    pub limits: Limits,
    pub me: Identity,
    /// Pre-existing processes: those from before the first process of this attempt.
    pub bystanders: Bystanders,
    pub began: tokio::time::Instant,
    pub git: Option<GitContext>,
    pub outside: Outside,
    pub own_edits: OwnEdits,
    pub run: Run,
    /// True if it was interrupted once because it showed no sign of life.
    pub woken: bool,
    /// True if each turn of this CLI counts its usage from zero, so that earlier turns are added.
    pub turns_add_up: bool,
    pub cleanup: finish::CleanupSoFar,
    pub sockets: Sockets,
    /// The beginning of the attempt, by the clock of file timestamps.
    since: SystemTime,
}

/// The data of the repository that CLIs need to commit in it.
pub(super) struct GitContext {
    pub common: std::path::PathBuf,
    pub own: std::path::PathBuf,
    /// The identity of the committer, if the backend needs it.
    pub identity: Option<git::Identity>,
}

/// The reason why the supervisor stopped a turn or the attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stop {
    Cancelled,
    TimedOut,
    /// A request of the system that this process ends.
    Interrupted,
    /// A message that interrupts the turn. The attempt continues.
    ForMessage,
    /// A limit, or a failure that a retry cannot fix.
    Failed(FailureKind, String),
}

/// Runs the process of a supervisor. Its results are in the attempt's folder, not in its output.
pub fn run(root: &Path) -> ExitCode {
    process::show_program_name();
    let supervised = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(SupervisorError::Runtime)
        .and_then(|runtime| runtime.block_on(supervise(root)));
    match supervised {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the attempt could not be supervised");
            ExitCode::FAILURE
        }
    }
}

/// Runs the attempt in this folder until its outcome. Prints [`READY`] when it has claimed it.
async fn supervise(root: &Path) -> Result<(), SupervisorError> {
    process::become_session_leader()?;
    process::become_subreaper()?;
    let dir = AttemptDir::at(root.to_owned());
    let mut assignment: Assignment = files::read_json(&dir.assignment())?
        .ok_or_else(|| SupervisorError::NoAssignment(root.display().to_string()))?;
    let _lease = take_lease(&dir.lock()).await?;
    dir.reserve_outcome()?;
    Secrets::inherited().restore(&mut assignment.settings);
    let backends = Backends::with_custom(assignment.settings.custom.clone());
    let mut attempt = Attempt::new(assignment, dir, &backends)?;
    // After everything that can fail: an attempt without a claim never began, and the server reports why.
    if !attempt.dir.take_claim()? {
        return Err(SupervisorError::Claimed);
    }
    attempt.sockets = Sockets::make(sockets::folder_beside(&attempt.assignment.socket));
    crash_point::at(Point::Claimed);
    attempt.board.write();
    for kind in [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt()] {
        if let Err(error) = attempt.inbox.heed(kind) {
            tracing::warn!(%error, "a signal cannot be heeded: it would end the supervisor as it stands");
        }
    }
    let knocked = attempt.inbox.bell();
    let socket = Socket::bind(&attempt.assignment.socket, attempt.board.listen(), knocked);
    if let Err(error) = &socket {
        tracing::warn!(%error, "no socket: servers will look at the files");
    }
    let tree = tree::keep(attempt.dir.processes());
    say_ready();
    crash_point::at(Point::SaidReady);

    let outcome = attempt.run_to_the_end().await;
    tree.abort();
    let settled = settle(&attempt.dir, outcome).await;
    crash_point::at(Point::Settled);
    settled
}

/// The disk may be full beyond the room that was kept: then its texts are cut, and it is tried until there is room.
async fn settle(dir: &AttemptDir, mut outcome: Outcome) -> Result<(), SupervisorError> {
    let began = tokio::time::Instant::now();
    let moved = moved_to(dir);
    let dir = moved.as_ref().unwrap_or(dir);
    while let Err(error) = dir.settle(&outcome) {
        tracing::error!(%error, "could not write the outcome");
        if began.elapsed() > SETTLE_CEILING || !dir.is_still_claimed() {
            return Err(error.into());
        }
        outcome.cut_texts();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// Returns the current path of the attempt's folder, if it was moved (with its repository) while the attempt ran. It is
/// the supervisor's working directory, so the system tracks it.
pub(super) fn moved_to(dir: &AttemptDir) -> Option<AttemptDir> {
    if dir.is_still_claimed() {
        return None;
    }
    let now = AttemptDir::at(std::env::current_dir().ok()?);
    now.is_still_claimed().then_some(now)
}

/// Somebody who looks whether it is held holds it for a moment, or for longer where he is stopped in the midst of that.
/// Below what the server waits for a supervisor to be ready.
const LEASE_PATIENCE: Duration = Duration::from_secs(20);

pub(super) async fn take_lease(lock: &Path) -> Result<lease::Lease, SupervisorError> {
    let began = Instant::now();
    loop {
        match lease::take(lock)? {
            Some(lease) => return Ok(lease),
            None if began.elapsed() > LEASE_PATIENCE => return Err(SupervisorError::Claimed),
            None => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// The server reads one line and then nobody reads: never print again.
pub(super) fn say_ready() {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{}", READY).and_then(|()| out.flush());
}

impl Attempt {
    fn new(assignment: Assignment, dir: AttemptDir, backends: &Backends) -> Result<Self, SupervisorError> {
        let me = Identity::own()?;
        let bystanders = Bystanders::now();
        let backend = backends.get(assignment.backend.as_str())?;
        Ok(Self {
            bystanders,
            board: Board::new(&dir, me)?,
            inbox: Inbox::new(&dir, Arc::new(Notify::new())),
            limits: Limits::new(&assignment, &dir),
            git: keep_to_what_was_configured(&assignment, backend.as_ref()),
            backend,
            outside: Outside::of(&assignment.directory),
            own_edits: OwnEdits::default(),
            turns_add_up: false,
            woken: false,
            run: Run { started_at: Some(Timestamp::now()), ..Run::default() },
            cleanup: finish::CleanupSoFar::default(),
            sockets: Sockets::default(),
            since: SystemTime::now(),
            me,
            began: tokio::time::Instant::now(),
            assignment,
            dir,
        })
    }

    async fn run_to_the_end(&mut self) -> Outcome {
        let (text, session) = prompt::first(&self.assignment);
        let mut next = turn::Begin { text, session, messages: Vec::new() };
        loop {
            let ended = self.turn(next).await;
            self.take_in(&ended);
            if let Some(begin) = self.next_turn(&ended) {
                next = begin;
                continue;
            }
            match self.finish(&ended).await {
                finish::Finished::Settled(outcome) => return *outcome,
                // A message came in while the attempt was ending: it is not lost, the work goes on.
                finish::Finished::GoOn(begin) => next = begin,
            }
        }
    }

    /// Another turn, if messages wait and the attempt is not over.
    pub(super) fn next_turn(&mut self, ended: &turn::Ended) -> Option<turn::Begin> {
        for message in self.inbox.look() {
            self.inbox.keep(message);
        }
        let over = self.inbox.is_over()
            || self.inbox.over_budget().is_some()
            || !matches!(ended.stop, None | Some(Stop::ForMessage));
        // A turn that failed is the boss's to judge; a message to it opens the next attempt.
        let failed = ended.stop.is_none() && ended.report.end.is_err();
        let messages = if over || failed { Vec::new() } else { self.inbox.take_queue() };
        (!messages.is_empty()).then(|| self.begin_with(messages))
    }

    fn begin_with(&self, messages: Vec<Message>) -> turn::Begin {
        let text = messages.iter().map(|message| message.text.as_str()).collect::<Vec<_>>().join("\n\n");
        match &self.run.session_id {
            Some(session) => turn::Begin { text, session: Some(session.clone()), messages },
            None => turn::Begin { text: prompt::anew(&self.assignment, &text), session: None, messages },
        }
    }

    /// Adds a turn to the record of the run.
    fn take_in(&mut self, ended: &turn::Ended) {
        let report: &TurnReport = &ended.report;
        self.run.turns += 1;
        self.run.exit = ended.exit;
        self.run.denials += report.denials;
        self.turns_add_up = !report.usage_is_cumulative;
        self.run.usage = self.spent_with(report.usage);
        self.run.usage_is_cumulative = report.usage_is_cumulative;
        self.board.set_usage(self.run.usage);
        if report.session_id.is_some() {
            self.run.session_id.clone_from(&report.session_id);
        }
        if !report.final_message.is_empty() {
            self.run.final_message.clone_from(&report.final_message);
            self.run.says_blocked = says_blocked(&report.final_message);
        }
        self.run.failure = failure(ended);
        self.run.ended_at = Some(Timestamp::now());
        self.run.seconds = Some(self.began.elapsed().as_secs());
    }

    /// Returns the usage of the attempt when its current turn has used `now`.
    pub(super) fn spent_with(&self, now: Usage) -> Usage {
        match self.turns_add_up {
            true => joined(self.run.usage, now, u64::saturating_add, |before, now| before + now),
            // A turn that was killed may report less than was already counted.
            false => joined(self.run.usage, now, u64::max, f64::max),
        }
    }

    /// Ends whatever of the worker still runs.
    pub(super) async fn sweep(&mut self) {
        let swept = process::sweep(&self.scope(), finish::SWEEP_GRACE).await;
        self.cleanup.add(swept);
    }

    pub(super) fn scope(&self) -> Scope {
        Scope {
            tag: self.assignment.tag.clone(),
            roots: vec![self.me],
            spare: self.assignment.settings.shared_daemons.clone(),
            private: self.private(),
            own_children: Vec::new(),
            bystanders: self.bystanders.clone(),
        }
    }

    fn private(&self) -> Private {
        let tree = self.assignment.ours.then(|| self.assignment.directory.clone());
        let sockets = self.sockets.path().map(Path::to_owned);
        let places = tree.into_iter().chain(sockets).chain([self.dir.root().to_owned()]).collect();
        Private { places, since: Some(self.since) }
    }

    pub(super) fn note_received(&mut self, id: Uuid) {
        self.board.note_receipt(id, Delivered::Received);
    }
}

fn failure(ended: &turn::Ended) -> Option<Failure> {
    let fail = |kind, message: &str| Some(Failure { kind, message: message.to_owned(), resets_at: None });
    match (&ended.stop, &ended.report.end) {
        (Some(Stop::Failed(kind, message)), _) => fail(*kind, message),
        (Some(Stop::Interrupted), _) => {
            fail(FailureKind::Other, "the system asked its supervisor to end (a logout or a shutdown)")
        }
        (Some(Stop::TimedOut), _) => fail(FailureKind::Other, "timeout_minutes was reached"),
        (Some(Stop::Cancelled | Stop::ForMessage), _) | (None, Ok(())) => None,
        (None, Err(failure)) => Some(failure.clone()),
    }
}

fn joined(before: Usage, now: Usage, tokens: fn(u64, u64) -> u64, dollars: fn(f64, f64) -> f64) -> Usage {
    Usage {
        input_tokens: tokens(before.input_tokens, now.input_tokens),
        cached_tokens: tokens(before.cached_tokens, now.cached_tokens),
        output_tokens: tokens(before.output_tokens, now.output_tokens),
        cost_usd: match (before.cost_usd, now.cost_usd) {
            (Some(before), Some(now)) => Some(dollars(before, now)),
            (before, now) => before.or(now),
        },
    }
}

/// Before the CLI runs for the first time: it could put another repository in the place of this one.
fn keep_to_what_was_configured(assignment: &Assignment, backend: &dyn Backend) -> Option<GitContext> {
    git::configuration::keep_to_known();
    // Outside of a repository there is none.
    let before = assignment.configuration.clone()?;
    let told = assignment.repository.clone();
    let repository = told.or_else(|| Repository::discover(&assignment.directory).ok().flatten())?;
    git::configuration::keep_to(&repository, before);
    let own = git::git_dir(&assignment.directory).ok()?;
    let identity = backend.hides_identity().then(|| repository.identity().ok()).flatten();
    Some(GitContext { identity, common: repository.common_dir, own })
}

/// Whether a signal that we did not send ended the process.
pub(super) fn was_interrupted(ended: &turn::Ended) -> bool {
    let by_signal = matches!(ended.exit, Some(Exit::Signal(_)));
    let no_word = matches!(&ended.report.end, Err(failure) if failure.kind == FailureKind::NoResult);
    ended.stop.is_none() && by_signal && no_word
}
