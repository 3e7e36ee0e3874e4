//! The state of the attempt that a supervisor runs, and the steps between two turns: the next input, the record of the
//! run, and the sweep of processes. The turns, the end and the search for a likely cause are in files of their own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::cleanup::{CleanupTotal, SWEEP_GRACE};
use super::confinement_decision::Deciding;
use super::inbox::{Inbox, QueuedMessage};
use super::isolation::SocketFolder;
use super::limits::WorkerLimits;
use super::outside_edits::OutsideEdits;
use super::own_clone::OwnClone;
use super::questions::Questions;
use super::refused_writes::RefusedWrites;
use super::self_edits::SelfEdits;
use super::startup::SupervisorError;
use super::status_publisher::StatusPublisher;
use super::write_rules::AttemptRules;
use crate::attempt::assignment::Assignment;
use crate::attempt::cli_settings::CliSettings;
use crate::attempt::inbox::{InboxEntry, Instruction};
use crate::attempt::prompt;
use crate::attempt::worker_dir::AttemptDir;
use crate::backend::{Backend, Backends, TurnReport};
use crate::git::{self, Repository, Trust};
use crate::mission::outcome::{Exit, Failure, FailureKind, Run, Usage, says_blocked};
use crate::process::{self, Identity, PreexistingProcesses, ProcessScope, WorkerPlaces};

/// The state of a running attempt that its parts share.
pub(super) struct LiveAttempt {
    pub assignment: Assignment,
    pub dir: AttemptDir,
    pub backend: Arc<dyn Backend>,
    pub status: StatusPublisher,
    pub inbox: Inbox,
    pub limits: WorkerLimits,
    /// The supervisor's own process.
    pub supervisor: Identity,
    /// The processes from before the first process of this attempt.
    preexisting: PreexistingProcesses,
    began: Instant,
    pub git: Option<GitContext>,
    pub outside_edits: OutsideEdits,
    pub refused_writes: RefusedWrites,
    pub cli_settings: Option<CliSettings>,
    pub self_edits: SelfEdits,
    pub questions: Questions,
    pub run: Run,
    /// True if it was interrupted once because it showed no activity.
    pub was_interrupted_as_stalled: bool,
    /// True if each turn of this CLI counts its usage from zero, so that earlier turns are added.
    turns_add_up: bool,
    pub cleanup: CleanupTotal,
    pub sockets: SocketFolder,
    /// See [`LiveAttempt::begin_confinement`].
    pub deciding: Option<Deciding>,
    pub rules: AttemptRules,
    pub own_clone: OwnClone,
    /// The beginning of the attempt, by the clock of file timestamps.
    since: SystemTime,
}

/// The data of the repository that CLIs need to commit in it.
pub(super) struct GitContext {
    pub common: PathBuf,
    pub own: PathBuf,
    /// The identity of the committer, if the backend needs it.
    pub identity: Option<git::CommitIdentity>,
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

#[derive(Debug)]
pub(super) struct TurnInput {
    pub text: String,
    /// The session to resume.
    pub session: Option<String>,
    /// Messages that this text delivers.
    pub messages: Vec<QueuedMessage>,
}

#[derive(Debug)]
pub(super) struct TurnEnd {
    pub report: TurnReport,
    /// The exit of the CLI. `None` if nothing was started.
    pub exit: Option<Exit>,
    pub stop: Option<Stop>,
}

impl LiveAttempt {
    pub fn new(assignment: Assignment, dir: AttemptDir, backends: &Backends) -> Result<Self, SupervisorError> {
        let supervisor = Identity::own()?;
        let preexisting = PreexistingProcesses::now();
        let backend = backends.get(assignment.backend.as_str())?;
        Ok(Self {
            preexisting,
            status: StatusPublisher::new(&dir, supervisor)?,
            inbox: Inbox::new(&dir, Arc::new(Notify::new())),
            limits: WorkerLimits::new(&assignment, &dir),
            git: git_context(&assignment, backend.as_ref()),
            backend,
            outside_edits: OutsideEdits::of(&assignment.directory),
            refused_writes: RefusedWrites::default(),
            cli_settings: None,
            self_edits: SelfEdits::default(),
            questions: Questions::new(assignment.settings.question_limit()),
            turns_add_up: false,
            was_interrupted_as_stalled: false,
            run: Run { started_at: Some(Timestamp::now()), ..Run::default() },
            cleanup: CleanupTotal::default(),
            sockets: SocketFolder::default(),
            deciding: None,
            rules: AttemptRules::default(),
            own_clone: OwnClone::default(),
            since: SystemTime::now(),
            supervisor,
            began: Instant::now(),
            assignment,
            dir,
        })
    }

    /// Returns the end of an attempt that was stopped before its first turn. Its CLI would otherwise run for a moment.
    pub fn refuse_if_stopped(&mut self) -> Result<(), Box<TurnEnd>> {
        let is_stop = |entry: &InboxEntry| {
            matches!(entry.instruction, Instruction::Cancel { .. } | Instruction::OverBudget { .. })
        };
        if self.dir.inbox_entries(0).unwrap_or_default().iter().any(is_stop) {
            self.inbox.enqueue_new();
        }
        let Some(stop) = self.stop_requested() else { return Ok(()) };
        let failure = Failure { kind: FailureKind::Other, message: String::new(), resets_at: None };
        let end = TurnEnd::not_started(failure, Some(stop));
        // The next attempt can still resume it.
        self.run.session_id = prompt::first(&self.assignment).1;
        self.record_end(&end);
        Err(Box::new(end))
    }

    /// Returns the reason why no turn may begin, if the boss, the system or a budget has given one.
    pub fn stop_requested(&self) -> Option<Stop> {
        if self.inbox.is_cancelled() {
            Some(Stop::Cancelled)
        } else if self.inbox.is_shutting_down() {
            Some(Stop::Interrupted)
        } else {
            let over_budget = self.inbox.over_budget();
            over_budget.map(|why| Stop::Failed(FailureKind::Budget, why.clone()))
        }
    }

    /// Returns the input of another turn, if messages wait and the attempt may continue.
    pub fn next_turn(&mut self, end: &TurnEnd) -> Option<TurnInput> {
        self.inbox.enqueue_new();
        let is_over = self.inbox.must_stop()
            || self.is_revoked()
            || self.inbox.over_budget().is_some()
            || !matches!(end.stop, None | Some(Stop::ForMessage));
        // The boss decides about a failed turn, and a message to the worker then starts the next attempt. After a denial
        // that ends the turn, a waiting message continues the attempt, since it may give another way.
        let is_failure = |failure: &Failure| failure.kind != FailureKind::Permission;
        let failed = end.stop.is_none() && end.report.end.as_ref().is_err_and(is_failure);
        let messages = if is_over || failed { Vec::new() } else { self.inbox.take_queue() };
        (!messages.is_empty()).then(|| self.input_of(messages))
    }

    fn input_of(&self, messages: Vec<QueuedMessage>) -> TurnInput {
        let text = messages.iter().map(|message| message.text.as_str()).collect::<Vec<_>>().join("\n\n");
        match &self.run.session_id {
            Some(session) => TurnInput { text, session: Some(session.clone()), messages },
            None => TurnInput { text: prompt::anew(&self.assignment, &text), session: None, messages },
        }
    }

    /// Returns the input of the first turn, with the messages that arrived before it.
    pub fn first_turn(&mut self) -> TurnInput {
        let (text, session) = prompt::first(&self.assignment);
        let messages = self.inbox.take_queue();
        let texts = [text.as_str()].into_iter().chain(messages.iter().map(|message| message.text.as_str()));
        TurnInput { text: texts.collect::<Vec<_>>().join("\n\n"), session, messages }
    }

    /// Adds a turn to the record of the run.
    pub fn record_turn(&mut self, end: &TurnEnd) {
        let report = &end.report;
        self.run.turns += 1;
        self.run.exit = end.exit;
        self.run.denials += report.denials;
        self.turns_add_up = !report.usage_is_cumulative;
        self.run.usage = self.spent_with(report.usage);
        self.run.usage_is_cumulative = report.usage_is_cumulative;
        self.status.set_usage(self.run.usage);
        if report.session_id.is_some() {
            self.run.session_id.clone_from(&report.session_id);
        }
        if !report.final_message.is_empty() {
            self.run.final_message.clone_from(&report.final_message);
            self.run.says_blocked = says_blocked(&report.final_message);
        }
        self.record_end(end);
    }

    /// Records the end of a turn, or of an attempt that had none.
    pub fn record_end(&mut self, end: &TurnEnd) {
        self.run.failure = end.failure(self.is_job());
        self.run.ended_at = Some(Timestamp::now());
        self.run.seconds = Some(self.began.elapsed().as_secs());
    }

    /// Returns the usage of the attempt when its current turn has used `now`.
    pub fn spent_with(&self, now: Usage) -> Usage {
        if self.turns_add_up {
            joined(self.run.usage, now, u64::saturating_add, |before, now| before + now)
        } else {
            // A turn that was killed may report less than was already counted.
            joined(self.run.usage, now, u64::max, f64::max)
        }
    }

    /// Ends the processes of the worker that still run.
    pub async fn sweep(&mut self) {
        let swept = process::sweep(&self.scope(), SWEEP_GRACE).await;
        self.cleanup.add(swept);
    }

    pub fn scope(&self) -> ProcessScope {
        ProcessScope {
            tag: self.assignment.tag.clone(),
            roots: vec![self.supervisor],
            allowlist: self.assignment.settings.daemons_left(self.rules.cli.is_some()),
            private: self.private(),
            own_children: Vec::new(),
            preexisting: self.preexisting.clone(),
        }
    }

    fn private(&self) -> WorkerPlaces {
        let tree = self.assignment.ours.then(|| self.assignment.directory.clone());
        let sockets = self.sockets.paths().map(Path::to_owned);
        let places = tree.into_iter().chain(sockets).chain([self.dir.root().to_owned()]).collect();
        WorkerPlaces { places, since: Some(self.since) }
    }

    /// Returns whether a server took the claim from this supervisor, and records the end of the attempt itself.
    pub fn is_revoked(&self) -> bool {
        let here = std::env::current_dir().map(AttemptDir::at);
        self.dir.is_revoked() || here.is_ok_and(|here| here.is_revoked())
    }

    /// Returns the current path of the attempt's folder, if it was moved (with its repository) while the attempt ran.
    /// It is the supervisor's working directory, so the system tracks it.
    pub fn moved_to(&self) -> Option<AttemptDir> {
        if self.dir.is_still_claimed() {
            return None;
        }
        let now = AttemptDir::at(std::env::current_dir().ok()?);
        now.is_still_claimed().then_some(now)
    }

    /// Returns the repository at its current path, if it was moved with the attempt's folder.
    pub fn moved_repository(&self) -> Option<Repository> {
        Repository::discover(self.moved_to()?.root(), &Trust::nothing()).ok().flatten()
    }
}

impl TurnEnd {
    /// Returns the end of an attempt whose CLI was not started.
    pub fn not_started(failure: Failure, stop: Option<Stop>) -> Self {
        let report = TurnReport {
            end: Err(failure),
            session_id: None,
            final_message: String::new(),
            usage: Usage::default(),
            // Without effect, since the usage is zero.
            usage_is_cumulative: false,
            denials: 0,
        };
        Self { report, exit: None, stop }
    }

    /// Returns whether a signal that the supervisor did not send ended the CLI.
    pub fn is_interrupted(&self) -> bool {
        let by_signal = matches!(self.exit, Some(Exit::Signal(_)));
        let no_result = matches!(&self.report.end, Err(failure) if failure.kind == FailureKind::NoResult);
        self.stop.is_none() && by_signal && no_result
    }

    fn failure(&self, is_job: bool) -> Option<Failure> {
        let fail = |kind, message: &str| Some(Failure { kind, message: message.to_owned(), resets_at: None });
        match (&self.stop, &self.report.end) {
            (Some(Stop::Failed(kind, message)), _) => fail(*kind, message),
            (Some(Stop::Interrupted), _) if is_job => {
                fail(FailureKind::Other, "the cluster asked it to end (`scancel`, a time limit or a preemption)")
            }
            (Some(Stop::Interrupted), _) => {
                fail(FailureKind::Other, "the system asked its supervisor to end (a logout or a shutdown)")
            }
            (Some(Stop::TimedOut), _) => fail(FailureKind::Other, "timeout_minutes was reached"),
            (Some(Stop::Cancelled | Stop::ForMessage), _) | (None, Ok(())) => None,
            (None, Err(failure)) => Some(failure.clone()),
        }
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

/// Reads the data of the repository. Called before the CLI runs, since the CLI could replace the repository. `None`
/// outside a repository.
fn git_context(assignment: &Assignment, backend: &dyn Backend) -> Option<GitContext> {
    let repository = assignment.repository.as_ref()?;
    let own = git::git_dir(&assignment.checkout()).ok()?;
    let identity = backend.hides_identity().then(|| repository.identity().ok()).flatten();
    Some(GitContext { identity, common: repository.common_dir.clone(), own })
}
