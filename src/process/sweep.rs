//! Ends all that belongs to a worker, and proves that nothing is left.
//!
//! Ask (SIGTERM), wait, then freeze and kill, looking again after every step, until two looks in a row find nothing or
//! the bounds are reached. What a look proves is all that is ever signalled (see `scope.rs`).

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions, waitid, waitpid};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::identity::{Bystanders, Identity, State, records};
use super::platform;
use super::scope::{Found, Proof, Scope, Survey, look};
use super::signal::{Delivery, Signal, send, signal_group};

/// How long killing is repeated. SIGKILL works at once, except on a process that hangs in the kernel.
const INSIST: Duration = Duration::from_secs(5);
/// How often a tree that grows faster than it is stopped is looked at before it is killed as it stands.
const FREEZE_ROUNDS: usize = 10;
const PAUSE: Duration = Duration::from_millis(5);
/// While the asked still live, new ones are looked for this often; a look costs more than asking whether these live.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What a sweep did.
#[derive(Clone, Debug, Serialize)]
pub struct Sweep {
    /// How many processes were found and have ended.
    pub ended: usize,
    /// What could not be ended: another user's (sudo), or hanging in the kernel.
    pub survivors: Vec<Found>,
    /// Names of the shared daemons that were left alone.
    pub spared: Vec<String>,
    /// What an empty `survivors` is worth.
    pub proof: Proof,
}

/// Gives everything in the scope `grace` to end after SIGTERM, then kills. Takes at most `grace` and about 6 s.
/// Dropping the future between two steps leaves the rest running, never stopped.
pub async fn sweep(scope: &Scope, grace: Duration) -> Sweep {
    let mut sweeper =
        Sweeper { scope, seen: BTreeSet::new(), zombies: BTreeSet::new(), restless: true, last: Survey::default() };
    if !sweeper.ask(grace).await {
        sweeper.insist().await;
    }
    sweeper.report()
}

/// Reaps the orphans that a subreaper was given and that have ended. A supervisor calls it now and then, for a worker
/// that runs for hours. Returns how many; never waits for a pid in `own_children`.
pub fn reap_orphans(own_children: &[u32]) -> usize {
    // One call, where a look at the process table is hundreds: mostly none has ended.
    let any_ended = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    if !matches!(waitid(WaitId::All, any_ended), Ok(Some(_))) {
        return 0;
    }
    let own = std::process::id();
    let ended = records(&Bystanders::default())
        .into_iter()
        .filter(|record| record.parent == own && record.state == State::Zombie && !own_children.contains(&record.pid));
    ended.filter(|record| reap(record.pid)).count()
}

fn reap(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| matches!(waitpid(Some(pid), WaitOptions::NOHANG), Ok(Some(_))))
}

struct Sweeper<'a> {
    scope: &'a Scope,
    seen: BTreeSet<Identity>,
    zombies: BTreeSet<Identity>,
    last: Survey,
    /// Whether the last look found something living, or traces of it.
    restless: bool,
}

impl Sweeper<'_> {
    /// Whether nothing is left.
    async fn ask(&mut self, grace: Duration) -> bool {
        let deadline = Instant::now() + grace;
        let mut asked = BTreeSet::new();
        while self.anything_left().await {
            for found in self.last.found.iter().filter(|found| asked.insert(found.identity)) {
                send(&found.identity, Signal::Terminate);
                if found.stopped {
                    send(&found.identity, Signal::Continue);
                }
            }
            if Instant::now() >= deadline {
                return false;
            }
            self.wait_for_ends(deadline.min(Instant::now() + LOOK_AGAIN)).await;
        }
        true
    }

    async fn insist(&mut self) {
        let deadline = Instant::now() + INSIST;
        while self.anything_left().await {
            let refused = self.freeze_and_kill();
            if refused || Instant::now() >= deadline {
                self.anything_left().await;
                return;
            }
            self.wait_for_ends(Instant::now() + LOOK_AGAIN).await;
        }
    }

    /// Two looks, since the first can miss a process that is in the middle of a fork or an exec. One where the kernel says
    /// that nobody descends from us: whoever carries the tag all the same was started by a stranger, a while ago.
    async fn anything_left(&mut self) -> bool {
        if self.look_again() {
            return true;
        }
        if self.last.proof == Proof::Full && platform::has_no_descendants() {
            return false;
        }
        sleep(PAUSE).await;
        self.look_again()
    }

    /// False only if nothing lives, and nothing has ended since the last look.
    fn look_again(&mut self) -> bool {
        // Not before the signals were sent: a zombie that is not reaped keeps the number of its group from others.
        for zombie in &self.last.zombies {
            reap(zombie.pid);
        }
        self.last = look(self.scope);
        self.seen.extend(self.last.found.iter().map(|found| found.identity));
        // Only new ones count: under an init that does not reap, zombies are there for ever.
        let known = self.zombies.len();
        self.zombies.extend(&self.last.zombies);
        self.restless = !self.last.found.is_empty() || self.zombies.len() > known;
        self.restless
    }

    /// A process that forks in a loop makes children faster than they can be killed one by one; a stopped one does not.
    /// There is no await in here, so nothing is left frozen. True if the system refused every signal.
    fn freeze_and_kill(&mut self) -> bool {
        let mut frozen = BTreeSet::new();
        for _ in 0..FREEZE_ROUNDS {
            let count = frozen.len();
            frozen.extend(self.last.found.iter().map(|found| found.identity));
            if frozen.len() == count {
                break;
            }
            self.signal_all(Signal::Stop);
            self.look_again();
        }
        self.signal_all(Signal::Kill)
    }

    /// One by one, and then whole groups: a group signal reaches also what was forked since the look, and catches a
    /// process that goes on only in its children. The numbers of groups seen a moment ago are not given to others
    /// so soon: pids are handed out in a circle. True if every signal was refused.
    fn signal_all(&self, signal: Signal) -> bool {
        let found = &self.last.found;
        let refused =
            found.iter().filter(|found| matches!(send(&found.identity, signal), Delivery::Refused(_))).count();
        for group in &self.last.whole_groups {
            signal_group(*group, signal);
        }
        !found.is_empty() && refused == found.len()
    }

    async fn wait_for_ends(&self, until: Instant) {
        while Instant::now() < until && self.last.found.iter().any(|found| found.identity.is_alive()) {
            sleep(PAUSE).await;
        }
    }

    fn report(self) -> Sweep {
        let proof = if self.restless { Proof::BestEffort } else { self.last.proof };
        Sweep {
            ended: self.seen.len() - self.last.found.len(),
            survivors: self.last.found,
            spared: self.last.spared.into_iter().map(|found| found.name).collect(),
            proof,
        }
    }
}
