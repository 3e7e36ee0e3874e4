//! Waking a boss that has ended its turn: its request, and the pointer that the client's own command passes to its
//! thread. A pointer counts what is due, and never has its content. Pure: time comes in as an argument.
//!
//! The client (Codex) makes each message a turn of its own, in order, and none can be taken back. Its command reports
//! success also for messages that it never delivers. The rules follow from that:
//!
//! - A request gets at most one pointer that the command has accepted. It is not sent again, even if it has not arrived
//!   for long: a stored message would otherwise become a second turn with nothing to report.
//! - The pointer has arrived when a call comes from a turn that a queued message began. That also ends its request.
//! - A request also ends with an answer to a wait of its thread that reports something. The pointer stays outstanding
//!   then, since the client still has it.
//! - A later request shows that the boss is active. Its own pointer waits for the arrival of an earlier one, and at most
//!   [`OUTSTANDING`]: the earlier one may be lost.
//! - A run is recorded before it begins. If its server dies before the result is recorded, another server repeats it. So
//!   a pointer is not lost with its server, but may be sent again.
//! - A run that fails is repeated after a pause, up to [`MOST_RUNS`] runs. Then the boss is not woken, and the next wait
//!   reports what is due.
//! - The server that recorded the request sends the pointer. If it has ended, the first other one that can does so.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::entry::{Entry, Line};
use super::id::{BossId, ServerId, ThreadId, WorkerId};

/// Maximum number of runs of the command for one request.
pub const MOST_RUNS: u32 = 3;
/// Pause after the first run that failed.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// Factor by which the pause grows with each further run.
const GROWTH: u32 = 6;
/// Time for which an accepted pointer of an earlier request delays the next one.
const OUTSTANDING: Duration = Duration::from_secs(600);
/// Time after a failure in which no boss is promised a wake.
const DISTRUSTED: Duration = Duration::from_secs(600);
/// Time after which a thread is forgotten. The next wait of its boss reports what is due.
const KEPT: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Maximum number of bytes of a failure that are kept.
const FAILURE: usize = 300;

/// All wakes, by thread, and the last failure of the command.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Wakes {
    threads: BTreeMap<ThreadId, Wake>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<WakeFailure>,
}

/// A failed run of the client's command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WakeFailure {
    pub at: Timestamp,
    pub reason: String,
}

impl WakeFailure {
    /// Returns whether the command is likely to fail again.
    pub fn is_recent(&self, now: Timestamp) -> bool {
        !has_passed(DISTRUSTED, self.at, now)
    }
}

/// The open request of a thread, and the pointer that is on its way to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Wake {
    pub boss: BossId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request: Option<WakeRequest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pointer: Option<Pointer>,
}

/// The request of a boss to be woken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct WakeRequest {
    seq: u64,
    at: Timestamp,
    /// Empty: all workers of the boss.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    workers: Vec<WorkerId>,
    /// The turn that made it.
    #[serde(default)]
    turn: String,
    /// The server that is to send the pointer.
    server: ServerId,
    /// Number of runs of the command.
    runs: u32,
    last_run: Timestamp,
}

/// A message that was passed to the client, and whose arrival is not known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Pointer {
    seq: u64,
    at: Timestamp,
    server: ServerId,
    /// True if the command has succeeded. False while it runs, or if its server died.
    is_accepted: bool,
}

/// The counts in the text of a pointer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DueCounts {
    pub settled: usize,
    pub blocked: usize,
    pub stalled: usize,
    /// Number of workers that ask something.
    pub asking: usize,
}

impl Wakes {
    pub fn is_empty(&self) -> bool {
        self.threads.is_empty() && self.failure.is_none()
    }

    /// Returns the threads with a request that waits for its pointer.
    pub fn requested(&self) -> impl Iterator<Item = (&ThreadId, &Wake)> {
        self.threads.iter().filter(|(_, wake)| wake.request.is_some())
    }

    /// Returns whether a delivery to the boss came after the request of this thread, so that the boss is active again.
    pub fn is_overtaken(&self, thread: &ThreadId, delivery: u64) -> bool {
        let request = self.threads.get(thread).and_then(|wake| wake.request.as_ref());
        request.is_some_and(|request| request.seq < delivery)
    }

    /// Returns whether a turn that a queued message began is that of the pointer. In the turn that made the request, an
    /// earlier message did.
    pub fn has_arrived(&self, thread: &ThreadId, turn: &str) -> bool {
        let is_later = |wake: &Wake| wake.request.as_ref().is_none_or(|request| request.turn != turn);
        self.threads.get(thread).is_some_and(|wake| wake.pointer.is_some() && is_later(wake))
    }

    /// Returns whether this server may send a pointer to a thread now, if something is due.
    pub fn may_send(
        &self,
        thread: &ThreadId,
        now: Timestamp,
        me: &ServerId,
        lives: impl Fn(&ServerId) -> bool,
    ) -> bool {
        self.threads.get(thread).is_some_and(|wake| wake.may_send(now, me, lives))
    }

    /// Applies an entry about a wake. One that does not fit has no effect.
    pub(super) fn apply(&mut self, line: &Line) {
        match &line.entry {
            Entry::WakeRequested { boss, thread, workers, turn } => self.request((boss, thread), workers, turn, line),
            Entry::WakeSent { thread } => self.change(thread, |wake| wake.send(line)),
            Entry::WakeRan { thread, failure } => {
                if let Some(reason) = failure {
                    let reason = reason.chars().take(FAILURE).collect();
                    self.failure = Some(WakeFailure { at: line.at, reason });
                }
                self.change(thread, |wake| wake.end_run(failure.is_none()));
            }
            Entry::WakeArrived { thread } => {
                self.failure = None;
                self.change(thread, Wake::arrive);
            }
            Entry::WakeEnded { thread } => self.change(thread, |wake| wake.request = None),
            _ => {}
        }
    }

    fn request(&mut self, (boss, thread): (&BossId, &ThreadId), workers: &[WorkerId], turn: &str, line: &Line) {
        self.threads.retain(|_, wake| line.at.duration_since(wake.last_change()) < KEPT);
        let pointer = self.threads.remove(thread).and_then(|wake| wake.pointer);
        let request = WakeRequest {
            seq: line.seq,
            at: line.at,
            workers: workers.to_vec(),
            turn: turn.to_owned(),
            server: line.server.clone(),
            runs: 0,
            last_run: line.at,
        };
        self.threads.insert(thread.clone(), Wake { boss: boss.clone(), request: Some(request), pointer });
    }

    fn change(&mut self, thread: &ThreadId, change: impl FnOnce(&mut Wake)) {
        let Some(wake) = self.threads.get_mut(thread) else { return };
        change(wake);
        if wake.request.is_none() && wake.pointer.is_none() {
            self.threads.remove(thread);
        }
    }
}

impl Wake {
    /// Returns the workers that the request is about. Empty: all of its boss.
    pub fn workers(&self) -> &[WorkerId] {
        self.request.as_ref().map_or(&[], |request| &request.workers)
    }

    fn may_send(&self, now: Timestamp, me: &ServerId, lives: impl Fn(&ServerId) -> bool) -> bool {
        let Some(request) = &self.request else { return false };
        let is_other = |server: &ServerId| server != me && lives(server);
        if request.runs >= MOST_RUNS || is_other(&request.server) {
            return false;
        }
        match &self.pointer {
            Some(pointer) if pointer.is_accepted => {
                pointer.seq < request.seq && has_passed(OUTSTANDING, pointer.at, now)
            }
            // A run of a live server reports its result. A run of a dead one has none.
            Some(pointer) if pointer.server == *me || lives(&pointer.server) => false,
            _ => has_passed(request.pause(), request.last_run, now),
        }
    }

    fn send(&mut self, line: &Line) {
        let Some(request) = &mut self.request else { return };
        request.runs += 1;
        request.last_run = line.at;
        request.server = line.server.clone();
        self.pointer = Some(Pointer { seq: line.seq, at: line.at, server: line.server.clone(), is_accepted: false });
    }

    fn end_run(&mut self, has_succeeded: bool) {
        match &mut self.pointer {
            Some(pointer) if has_succeeded => pointer.is_accepted = true,
            _ => self.pointer = None,
        }
    }

    fn arrive(&mut self) {
        let Some(pointer) = self.pointer.take() else { return };
        self.request.take_if(|request| request.seq < pointer.seq);
    }

    fn last_change(&self) -> Timestamp {
        let sent = self.pointer.as_ref().map(|pointer| pointer.at);
        let requested = self.request.as_ref().map(|request| request.at.max(request.last_run));
        sent.max(requested).unwrap_or(Timestamp::MIN)
    }
}

impl WakeRequest {
    /// Returns the pause after the runs so far.
    fn pause(&self) -> Duration {
        match self.runs {
            0 => Duration::ZERO,
            runs => FIRST_PAUSE * GROWTH.saturating_pow(runs - 1),
        }
    }
}

/// Returns whether this time has passed. After a clock was set back it counts as passed, so that nothing waits for ever.
fn has_passed(pause: Duration, since: Timestamp, now: Timestamp) -> bool {
    Duration::try_from(now.duration_since(since)).map_or(true, |passed| passed >= pause)
}

impl DueCounts {
    /// Returns the text of the pointer, which the client shows as a message of the user. It has no text of workers, which
    /// could read like instructions.
    pub fn pointer(&self) -> String {
        let parts = [
            (self.settled, "worker settled", "workers settled"),
            (self.blocked, "task is blocked", "tasks are blocked"),
            (self.stalled, "worker has stalled", "workers have stalled"),
            (self.asking, "worker asks", "workers ask"),
        ];
        let due = parts.iter().filter(|(count, ..)| *count > 0);
        let due: Vec<String> =
            due.map(|(count, one, more)| format!("{count} {}", if *count == 1 { one } else { more })).collect();
        let due = if due.is_empty() { "nothing runs or can start".to_owned() } else { due.join(", ") };
        format!("orchestrator-boss: {due}; call wait_for_any_worker")
    }
}

#[cfg(test)]
mod tests;
