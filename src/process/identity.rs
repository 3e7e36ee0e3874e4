//! Who a process is: its pid together with the time it started, since pids are used again.
//!
//! Reads only; nothing here signals or waits.

use std::collections::{BTreeSet, HashSet};

use serde::{Deserialize, Serialize};

use super::platform;

/// On a machine that starts processes all the time there is always somebody new.
const LISTINGS: usize = 5;

/// A process that cannot be confused with a later one of the same pid. Valid on this host until it reboots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    pub pid: u32,
    /// When it started. Linux: clock ticks since boot; macOS: microseconds since 1970. Only ever compared.
    pub started: u64,
}

/// Why a process could not be identified.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("read the start time of this process ({pid}): the process table is hidden; on Linux /proc must be mounted")]
    OwnHidden { pid: u32 },
}

impl Identity {
    /// This very process.
    pub fn own() -> Result<Self, IdentityError> {
        let pid = std::process::id();
        Self::of(pid).ok_or(IdentityError::OwnHidden { pid })
    }

    /// Whoever has this pid now, a zombie that nobody has reaped included.
    pub fn of(pid: u32) -> Option<Self> {
        platform::record(pid).map(|record| record.identity())
    }

    /// True while exactly this process exists and has not ended. A zombie has ended.
    pub fn is_alive(&self) -> bool {
        self.record().is_some_and(|record| record.state != State::Zombie)
    }

    /// The parent, if both still exist.
    pub fn parent(&self) -> Option<Self> {
        let parent = Self::of(self.record()?.parent)?;
        // The parent may have ended, and its pid been used again, between the two reads.
        let in_order = !platform::STARTS_IN_ORDER || parent.started <= self.started;
        let still = in_order && self.record()?.parent == parent.pid;
        still.then_some(parent)
    }

    /// The short name that the system keeps: a hint for people, never a proof.
    pub fn name(&self) -> Option<String> {
        self.record().map(|record| record.name)
    }

    /// Whether it was started with `key=value` in its environment. `None`: the system hides that from us.
    pub fn environment_has(&self, key: &str, value: &str) -> Option<bool> {
        let has = platform::environment_has(self.pid, key, value)?;
        // Read last: if it is the same process now, it was the same one while its environment was read.
        Some(has && self.record().is_some())
    }

    pub(super) fn record(&self) -> Option<Record> {
        platform::record(self.pid).filter(|record| record.started == self.started)
    }
}

/// One line of the process table.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub pid: u32,
    pub started: u64,
    pub parent: u32,
    pub group: u32,
    pub session: u32,
    pub state: State,
    pub name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Active,
    Stopped,
    Zombie,
}

impl Record {
    pub fn identity(&self) -> Identity {
        Identity { pid: self.pid, started: self.started }
    }
}

/// A pid, and what tells it from a later one of the same number, where the system lists that too.
pub(super) type Listed = (u32, Option<u64>);

/// Who was there at one moment. What costs in a look is to read about each process, not to list them; a later look leaves
/// these out, since nobody is started by somebody who came after him.
#[derive(Clone, Debug, Default)]
pub struct Bystanders(HashSet<(u32, u64)>);

impl Bystanders {
    /// All but this process. To be called before it starts anything.
    pub fn now() -> Self {
        let own = std::process::id();
        let others = platform::listed().into_iter().filter(|(pid, _)| *pid != own);
        Self(others.filter_map(|(pid, folder)| Some((pid, folder?))).collect())
    }

    fn contain(&self, (pid, folder): &Listed) -> bool {
        folder.is_some_and(|folder| self.0.contains(&(*pid, folder)))
    }
}

/// The process table but for these, zombies included; empty if it cannot be read.
///
/// A list of pids is older than what is then read about them: a process that lives for a millisecond, and goes on in
/// its child, is listed while it lives and read when it is gone. So it is listed again until there is nobody new.
pub(super) fn records(but: &Bystanders) -> Vec<Record> {
    let mut listed = BTreeSet::new();
    let mut records = Vec::new();
    for _ in 0..LISTINGS {
        let others = platform::listed().into_iter().filter(|listed| !but.contain(listed)).map(|(pid, _)| pid);
        let new: Vec<u32> = others.filter(|pid| listed.insert(*pid)).collect();
        if new.is_empty() {
            break;
        }
        records.extend(new.into_iter().filter_map(platform::record));
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};
    use std::time::{Duration, Instant};

    /// A child that is ended with the test, passed or not.
    struct Guarded(Child);

    impl Guarded {
        fn start(program: &str, argument: &str) -> Self {
            Self(Command::new(program).arg(argument).env("MARK", "here").spawn().unwrap())
        }

        fn end(&mut self) {
            // It may have ended by itself.
            let _ = self.0.kill();
            self.0.wait().unwrap();
        }
    }

    impl Drop for Guarded {
        fn drop(&mut self) {
            self.end();
        }
    }

    fn eventually(what: &str, condition: impl Fn() -> bool) {
        let started = Instant::now();
        while !condition() {
            assert!(started.elapsed() < Duration::from_secs(90), "waited 90 s for {what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn knows_itself_and_its_child() {
        let own = Identity::own().unwrap();
        let mut child = Guarded::start("sleep", "30");
        let identity = Identity::of(child.0.id()).unwrap();

        assert!(own.is_alive());
        assert_eq!(identity.parent(), Some(own));
        // An environment reads as empty until the exec is complete.
        eventually("its environment", || identity.environment_has("MARK", "here") == Some(true));
        assert_eq!(identity.environment_has("MARK", "her"), Some(false));
        assert_eq!(identity.environment_has("ARK", "here"), Some(false));
        assert_eq!(identity.name().as_deref(), Some("sleep"));

        child.end();
        assert!(!identity.is_alive());
        assert_eq!(identity.parent(), None);
    }

    #[test]
    fn a_zombie_is_known_but_not_alive() {
        let mut child = Guarded::start("true", "");
        let identity = Identity::of(child.0.id()).unwrap();
        eventually("`true` to end", || !identity.is_alive());
        assert_eq!(Identity::of(child.0.id()), Some(identity));
        child.end();
        assert_ne!(Identity::of(child.0.id()), Some(identity));
    }

    #[test]
    fn another_start_time_is_another_process() {
        let own = Identity::own().unwrap();
        let earlier = Identity { started: own.started - 1, ..own };
        let path = std::env::var("PATH").unwrap();
        assert!(!earlier.is_alive());
        assert_eq!(earlier.name(), None);
        assert_eq!(own.environment_has("PATH", &path), Some(true));
        assert_eq!(earlier.environment_has("PATH", &path), Some(false));
    }
}
