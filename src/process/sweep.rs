//! Ends all processes of a worker, and checks that none is left.
//!
//! A sweep sends SIGTERM, waits, then freezes and kills. It scans after every step, until two scans in a row find
//! nothing or its limits are reached. Only processes that a scan attributes to the worker are signalled (see
//! `scope.rs`).

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions, waitid, waitpid};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::identity::{PreexistingProcesses, records};
use super::platform;
use super::record::{Identity, ProcessState};
use super::scope::{FoundProcess, ProcessScope, ScanResult, scan};
use super::signal::{Signal, SignalResult, send, signal_group};
use crate::mission::outcome::Containment;

/// Time for which killing is repeated. SIGKILL works at once, except on a process that hangs in the kernel.
const KILL_CEILING: Duration = Duration::from_secs(5);
/// Maximum number of scans of a tree that grows faster than it is frozen.
const FREEZE_ROUNDS: usize = 10;
const PAUSE: Duration = Duration::from_millis(5);
/// Interval of scans while signalled processes live. A scan costs more than checking whether they live.
const SCAN_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Clone, Debug, Serialize)]
pub struct Sweep {
    /// Number of processes that were found and have ended.
    pub ended: usize,
    /// Processes that could not be ended: another user's (sudo), or hanging in the kernel.
    pub survivors: Vec<FoundProcess>,
    /// Names of the shared daemons that were left alone.
    pub allowlisted: Vec<String>,
    /// Certainty that no other process survives.
    pub containment: Containment,
}

/// Sends SIGTERM to all processes in the scope and kills them after `grace`. Takes at most `grace` and about 6 s.
/// Dropping the future leaves the remaining processes running, never frozen.
pub async fn sweep(scope: &ProcessScope, grace: Duration) -> Sweep {
    let mut sweeper = Sweeper {
        scope,
        seen: BTreeSet::new(),
        zombies: BTreeSet::new(),
        found_any: true,
        last: ScanResult::default(),
    };
    if !sweeper.terminate(grace).await {
        sweeper.kill().await;
    }
    sweeper.report()
}

/// Reaps the ended orphans that a subreaper has adopted. A supervisor calls it regularly, for a worker that runs for
/// hours. Returns their number. Never waits for a pid in `own_children`.
pub fn reap_orphans(own_children: &[u32]) -> usize {
    // Usually none has ended, and one call finds that out without a scan.
    let any_ended = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    if !matches!(waitid(WaitId::All, any_ended), Ok(Some(_))) {
        return 0;
    }
    let own = std::process::id();
    let ended = records(&PreexistingProcesses::default()).into_iter().filter(|record| {
        record.parent == own && record.state == ProcessState::Zombie && !own_children.contains(&record.pid)
    });
    ended.filter(|record| reap(record.pid)).count()
}

fn reap(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| matches!(waitpid(Some(pid), WaitOptions::NOHANG), Ok(Some(_))))
}

struct Sweeper<'a> {
    scope: &'a ProcessScope,
    seen: BTreeSet<Identity>,
    zombies: BTreeSet<Identity>,
    last: ScanResult,
    /// True if the last scan found a living process or a new zombie.
    found_any: bool,
}

impl Sweeper<'_> {
    /// Sends SIGTERM and waits. Returns whether nothing is left.
    async fn terminate(&mut self, grace: Duration) -> bool {
        let deadline = Instant::now() + grace;
        let mut terminated = BTreeSet::new();
        while self.anything_left().await {
            for found in self.last.found.iter().filter(|found| terminated.insert(found.identity)) {
                send(&found.identity, Signal::Terminate);
                if found.stopped {
                    send(&found.identity, Signal::Continue);
                }
            }
            if Instant::now() >= deadline {
                return false;
            }
            self.wait_for_exits(deadline.min(Instant::now() + SCAN_INTERVAL)).await;
        }
        true
    }

    async fn kill(&mut self) {
        let deadline = Instant::now() + KILL_CEILING;
        while self.anything_left().await {
            let refused = self.freeze_and_kill();
            if refused || Instant::now() >= deadline {
                self.anything_left().await;
                return;
            }
            self.wait_for_exits(Instant::now() + SCAN_INTERVAL).await;
        }
    }

    /// Scans twice, since the first scan can miss a process during a fork or an exec. One scan is enough if the kernel
    /// reports no descendant: another process with the tag was started by a foreign process, a while ago.
    async fn anything_left(&mut self) -> bool {
        if self.scan_again() {
            return true;
        }
        if self.last.containment == Containment::Full && platform::has_no_descendants() {
            return false;
        }
        sleep(PAUSE).await;
        self.scan_again()
    }

    /// Returns false only if nothing lives, and nothing has ended since the last scan.
    fn scan_again(&mut self) -> bool {
        // Only after the signals were sent: an unreaped zombie keeps the number of its group from being reused.
        for zombie in &self.last.zombies {
            reap(zombie.pid);
        }
        self.last = scan(self.scope);
        self.seen.extend(self.last.found.iter().map(|found| found.identity));
        // Only new ones count: under an init that does not reap, zombies stay for ever.
        let known = self.zombies.len();
        self.zombies.extend(&self.last.zombies);
        self.found_any = !self.last.found.is_empty() || self.zombies.len() > known;
        self.found_any
    }

    /// Freezes all processes and then kills them, since a process that forks in a loop starts children faster than they
    /// can be killed one by one. There is no await in here, so no process stays frozen. Returns true if the system
    /// refused every signal.
    fn freeze_and_kill(&mut self) -> bool {
        let mut frozen = BTreeSet::new();
        for _ in 0..FREEZE_ROUNDS {
            let count = frozen.len();
            frozen.extend(self.last.found.iter().map(|found| found.identity));
            if frozen.len() == count {
                break;
            }
            self.signal_all(Signal::Stop);
            self.scan_again();
        }
        self.signal_all(Signal::Kill)
    }

    /// Signals the processes one by one, and then whole groups: a group signal also reaches processes that were forked
    /// since the scan. Group numbers are not reused so soon, since pids are handed out in a circle. Returns true if
    /// every signal was refused.
    fn signal_all(&self, signal: Signal) -> bool {
        let found = &self.last.found;
        let refused =
            found.iter().filter(|found| matches!(send(&found.identity, signal), SignalResult::Refused(_))).count();
        for group in &self.last.whole_groups {
            signal_group(*group, signal);
        }
        !found.is_empty() && refused == found.len()
    }

    async fn wait_for_exits(&self, until: Instant) {
        while Instant::now() < until && self.last.found.iter().any(|found| found.identity.is_alive()) {
            sleep(PAUSE).await;
        }
    }

    fn report(self) -> Sweep {
        let containment = if self.found_any { Containment::BestEffort } else { self.last.containment };
        Sweep {
            ended: self.seen.len() - self.last.found.len(),
            survivors: self.last.found,
            allowlisted: self.last.allowlisted.into_iter().map(|found| found.name).collect(),
            containment,
        }
    }
}
