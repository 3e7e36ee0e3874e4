//! The rule of liveness for an attempt on another host. Three sources are read: the outcome record, the heartbeat of
//! the supervisor, and the engine (the cluster's scheduler). While an attempt that has begun may still run, only its
//! outcome record ends it. An engine that does not answer proves nothing.
//!
//! Pure: all times are durations by the clock of the server that watches. Clocks of two hosts are never compared.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Time between two answers of the engine, both that the job is over, after which an attempt that has not begun is
/// fenced.
pub const CONFIRMED_AFTER: Duration = Duration::from_secs(30);
/// Time for which a job runs without a claim until the user is notified.
pub const LATE_AFTER: Duration = Duration::from_secs(10 * 60);

/// The number of a job of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for JobId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// The state of an attempt's job, by the last answer of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineState {
    Waits {
        reason: String,
    },
    Runs,
    Ended(EndState),
    /// The engine answered, and does not know the job.
    Gone,
    /// The engine does not answer.
    Unknown,
}

/// A final state of a job, in the words of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EndState {
    Completed,
    Failed,
    Cancelled,
    Timeout,
    NodeFail,
    Preempted,
    BootFail,
    Deadline,
    OutOfMemory,
    Revoked,
}

/// States of a job that has no node: it waits for one, or an administrator holds it in the queue.
const WAITING: [&str; 6] = ["PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"];

impl EndState {
    const ALL: [Self; 10] = [
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::Timeout,
        Self::NodeFail,
        Self::Preempted,
        Self::BootFail,
        Self::Deadline,
        Self::OutOfMemory,
        Self::Revoked,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
            Self::Timeout => "TIMEOUT",
            Self::NodeFail => "NODE_FAIL",
            Self::Preempted => "PREEMPTED",
            Self::BootFail => "BOOT_FAIL",
            Self::Deadline => "DEADLINE",
            Self::OutOfMemory => "OUT_OF_MEMORY",
            Self::Revoked => "REVOKED",
        }
    }

    /// Returns whether the host failed or was taken away, so that the same work may succeed elsewhere.
    pub fn is_of_the_host(self) -> bool {
        matches!(self, Self::NodeFail | Self::Preempted | Self::BootFail)
    }
}

impl fmt::Display for EndState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl EngineState {
    /// Returns the state with this name. Every name that is not known counts as *runs*, since then nothing is ended.
    pub fn named(name: &str, reason: &str) -> Self {
        if WAITING.contains(&name) {
            return Self::Waits { reason: reason.to_owned() };
        }
        EndState::ALL.into_iter().find(|state| state.name() == name).map_or(Self::Runs, Self::Ended)
    }

    fn is_over(&self) -> bool {
        matches!(self, Self::Ended(_) | Self::Gone)
    }

    /// Returns whether both answers are of one kind. *Ended* and *gone* are one: the job is over.
    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Waits { .. }, Self::Waits { .. }) | (Self::Runs, Self::Runs) | (Self::Unknown, Self::Unknown) => {
                true
            }
            _ => self.is_over() && other.is_over(),
        }
    }
}

/// The answers of the engine about one job, as one server received them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineWatch {
    state: EngineState,
    since: Duration,
    latest: Duration,
}

impl EngineWatch {
    /// Begins with the first answer. `now` is a time of the server's monotonic clock.
    pub fn new(state: EngineState, now: Duration) -> Self {
        Self { state, since: now, latest: now }
    }

    /// Adds an answer. An answer of another kind restarts the time of confirmation, and so does *unknown*: what was seen
    /// before a controller stopped may differ from what it knows after its restart.
    pub fn add(&mut self, state: EngineState, now: Duration) {
        if !state.is_like(&self.state) {
            self.since = now;
        }
        (self.state, self.latest) = (state, now);
    }

    pub fn state(&self) -> &EngineState {
        &self.state
    }

    /// Returns the time between the first and the latest answer of this kind.
    pub fn confirmed_for(&self) -> Duration {
        self.latest.saturating_sub(self.since)
    }
}

/// The claim of an attempt. A claim that a server took (a fence) needs no rule: the attempt is then settled, or goes
/// back into the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    None,
    Supervisor,
}

/// The heartbeat of a supervisor, as one server has watched it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heartbeat {
    /// It changed, or was not watched for long enough.
    Advancing,
    Stale,
}

impl Heartbeat {
    /// Returns the heartbeat of a status that has not changed for this time of the server's own watching. A server that
    /// has just started has watched for no time, so it calls no worker lost at once.
    pub fn after(unchanged: Duration, lost_after: Duration) -> Self {
        if unchanged >= lost_after { Self::Stale } else { Self::Advancing }
    }
}

/// The evidence about an attempt on another host.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    pub has_outcome: bool,
    pub claim: Claim,
    pub engine: &'a EngineWatch,
    pub heartbeat: Heartbeat,
}

/// The verdict on an attempt on another host, and what its server must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Apply the outcome. If the engine has queued the job anew, cancel it.
    Settled,
    /// Report the reason for which the job waits. Nothing else to do.
    Waits,
    /// Nothing to do: the job runs, and its supervisor is about to claim the attempt.
    Starts,
    /// Report that the job runs and the supervisor has not started, with the engine's log. Change nothing.
    StartsLate,
    /// Ask the engine again: one answer that the job is over is no proof.
    AskAgain,
    /// Fence the attempt (take its claim). If that fails, it has begun: ask again. If it succeeds, nothing ran and
    /// nothing can: settle it as `could_not_start` with the state of the engine and the end of its log, or put it back
    /// into the queue if the engine does not know the job.
    Fence,
    /// Report that the engine does not answer. Submit, end and cancel nothing.
    NotKnown,
    /// Nothing to do.
    Alive,
    /// Report the age of the heartbeat and the state of the engine as a flag. The job may be suspended: end nothing.
    Silent,
    /// The engine has queued a job anew whose first run goes on. Cancel the job only when the attempt has settled.
    AliveAndQueued,
    /// The first run was killed and its job was queued anew. Cancel the job. When the engine has done that, the verdict
    /// is [`Life::Lost`].
    CancelQueued,
    /// Nothing to do: the node is cut off from the engine. The attempt ends by itself, with its outcome.
    CutOff,
    /// Look for the outcome once more. If there is none, revoke the claim, and settle the attempt as `lost`, with
    /// `host_lost` if its node failed.
    Lost,
}

/// Returns the verdict on an attempt.
pub fn life(evidence: &Evidence) -> Life {
    let state = evidence.engine.state();
    match (evidence.claim, evidence.heartbeat) {
        _ if evidence.has_outcome => Life::Settled,
        (Claim::None, _) => not_begun(evidence.engine),
        (Claim::Supervisor, Heartbeat::Advancing) => match state {
            EngineState::Waits { .. } => Life::AliveAndQueued,
            EngineState::Runs | EngineState::Unknown => Life::Alive,
            EngineState::Ended(_) | EngineState::Gone => Life::CutOff,
        },
        (Claim::Supervisor, Heartbeat::Stale) => match state {
            EngineState::Waits { .. } => Life::CancelQueued,
            EngineState::Runs | EngineState::Unknown => Life::Silent,
            EngineState::Ended(_) | EngineState::Gone => Life::Lost,
        },
    }
}

fn not_begun(engine: &EngineWatch) -> Life {
    match engine.state() {
        EngineState::Waits { .. } => Life::Waits,
        EngineState::Runs if engine.confirmed_for() >= LATE_AFTER => Life::StartsLate,
        EngineState::Runs => Life::Starts,
        EngineState::Ended(_) | EngineState::Gone if engine.confirmed_for() >= CONFIRMED_AFTER => Life::Fence,
        EngineState::Ended(_) | EngineState::Gone => Life::AskAgain,
        EngineState::Unknown => Life::NotKnown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Heartbeat::{Advancing, Stale};

    fn waits() -> EngineState {
        EngineState::named("PENDING", "Resources")
    }

    fn verdict(claim: Claim, engine: &EngineWatch, heartbeat: Heartbeat) -> Life {
        life(&Evidence { has_outcome: false, claim, engine, heartbeat })
    }

    /// Returns a watch with two equal answers.
    fn watched(state: &EngineState, seconds: u64) -> EngineWatch {
        let mut watch = EngineWatch::new(state.clone(), Duration::from_secs(100));
        watch.add(state.clone(), Duration::from_secs(100 + seconds));
        watch
    }

    /// Every combination of claim, engine and heartbeat, except that an outcome settles all of them.
    #[test]
    fn each_row_has_its_verdict() {
        let (none, supervisor) = (Claim::None, Claim::Supervisor);
        let failed = EngineState::Ended(EndState::NodeFail);
        let table = [
            (none, waits(), 0, Advancing, Life::Waits),
            (none, waits(), 10_000, Stale, Life::Waits),
            (none, EngineState::Runs, 599, Advancing, Life::Starts),
            (none, EngineState::Runs, 599, Stale, Life::Starts),
            (none, EngineState::Runs, 600, Stale, Life::StartsLate),
            (none, failed.clone(), 29, Advancing, Life::AskAgain),
            (none, failed.clone(), 30, Advancing, Life::Fence),
            (none, failed.clone(), 30, Stale, Life::Fence),
            (none, EngineState::Gone, 0, Stale, Life::AskAgain),
            (none, EngineState::Gone, 30, Stale, Life::Fence),
            (none, EngineState::Unknown, 10_000, Advancing, Life::NotKnown),
            (none, EngineState::Unknown, 10_000, Stale, Life::NotKnown),
            (supervisor, waits(), 0, Advancing, Life::AliveAndQueued),
            (supervisor, waits(), 10_000, Stale, Life::CancelQueued),
            (supervisor, EngineState::Runs, 10_000, Advancing, Life::Alive),
            (supervisor, EngineState::Runs, 10_000, Stale, Life::Silent),
            (supervisor, EngineState::Unknown, 10_000, Advancing, Life::Alive),
            (supervisor, EngineState::Unknown, 10_000, Stale, Life::Silent),
            (supervisor, failed.clone(), 10_000, Advancing, Life::CutOff),
            (supervisor, EngineState::Gone, 10_000, Advancing, Life::CutOff),
            (supervisor, failed, 0, Stale, Life::Lost),
            (supervisor, EngineState::Gone, 0, Stale, Life::Lost),
        ];
        for (claim, state, seconds, heartbeat, expected) in table {
            let engine = watched(&state, seconds);
            let found = verdict(claim, &engine, heartbeat);
            assert_eq!(found, expected, "{claim:?} {state:?} {seconds} {heartbeat:?}");
            let settled = Evidence { has_outcome: true, claim, engine: &engine, heartbeat };
            assert_eq!(life(&settled), Life::Settled);
        }
    }

    #[test]
    fn only_an_attempt_without_claim_is_fenced() {
        let states = [waits(), EngineState::Runs, EngineState::Gone, EngineState::Unknown];
        let states = states.into_iter().chain(EndState::ALL.map(EngineState::Ended));
        for state in states {
            let engine = watched(&state, 1_000_000);
            for heartbeat in [Advancing, Stale] {
                assert_ne!(verdict(Claim::Supervisor, &engine, heartbeat), Life::Fence, "{state:?}");
                assert_ne!(verdict(Claim::None, &engine, heartbeat), Life::Lost, "{state:?}");
            }
            let is_lost = verdict(Claim::Supervisor, &engine, Stale) == Life::Lost;
            assert_eq!(is_lost, state.is_over(), "{state:?}");
        }
    }

    #[test]
    fn unknown_state_counts_as_running() {
        for name in ["RUNNING", "COMPLETING", "SUSPENDED", "CONFIGURING", "STAGE_OUT", "NEW_IN_26", "", "cancelled"] {
            assert_eq!(EngineState::named(name, "None"), EngineState::Runs, "{name}");
        }
        for state in EndState::ALL {
            assert_eq!(EngineState::named(state.name(), "None"), EngineState::Ended(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.name());
        }
        for name in WAITING {
            let reason = "JobHeldAdmin".to_owned();
            assert_eq!(EngineState::named(name, "JobHeldAdmin"), EngineState::Waits { reason }, "{name}");
        }
    }

    #[test]
    fn only_answers_in_a_row_confirm_each_other() {
        let at = Duration::from_secs;
        let mut watch = EngineWatch::new(EngineState::Gone, at(0));
        watch.add(EngineState::Ended(EndState::Failed), at(29));
        assert_eq!((watch.confirmed_for(), not_begun(&watch)), (at(29), Life::AskAgain));
        watch.add(EngineState::Unknown, at(40));
        assert_eq!(not_begun(&watch), Life::NotKnown);
        watch.add(EngineState::Gone, at(50));
        assert_eq!((watch.confirmed_for(), not_begun(&watch)), (at(0), Life::AskAgain));
        watch.add(EngineState::Gone, at(80));
        assert_eq!(not_begun(&watch), Life::Fence);
        watch.add(EngineState::Runs, at(90));
        assert_eq!((watch.state(), not_begun(&watch)), (&EngineState::Runs, Life::Starts));
    }

    #[test]
    fn heartbeat_is_stale_only_by_own_watching() {
        let (second, limit) = (Duration::from_secs(1), Duration::from_secs(120));
        assert_eq!(Heartbeat::after(Duration::ZERO, limit), Advancing);
        assert_eq!(Heartbeat::after(limit - second, limit), Advancing);
        assert_eq!(Heartbeat::after(limit, limit), Stale);
    }

    #[test]
    fn only_failed_hosts_are_retried() {
        let retried: Vec<_> = EndState::ALL.into_iter().filter(|state| state.is_of_the_host()).collect();
        assert_eq!(retried, [EndState::NodeFail, EndState::Preempted, EndState::BootFail]);
    }
}
