//! Identification of processes by pid and start time, since pids are reused. Nothing here signals or waits.

use std::collections::{BTreeSet, HashSet};

use super::platform;
use super::record::{Identity, ListedPid, ProcessRecord, ProcessState};

/// Maximum number of listings, since a busy machine starts new processes all the time.
const LISTINGS: usize = 5;

/// The reason why a process could not be identified.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error(
        "cannot read the start time of this process ({pid}): the process table is hidden; on Linux /proc must be mounted"
    )]
    OwnHidden { pid: u32 },
}

impl Identity {
    pub fn own() -> Result<Self, IdentityError> {
        let pid = std::process::id();
        Self::of(pid).ok_or(IdentityError::OwnHidden { pid })
    }

    /// Returns the process that has this pid now, also if it is an unreaped zombie.
    pub fn of(pid: u32) -> Option<Self> {
        platform::record(pid).map(|record| record.identity())
    }

    /// Returns whether exactly this process exists and has not ended. A zombie has ended.
    pub fn is_alive(&self) -> bool {
        self.record().is_some_and(|record| record.state != ProcessState::Zombie)
    }

    /// Returns the parent, if both still exist.
    pub fn parent(&self) -> Option<Self> {
        let parent = Self::of(self.record()?.parent)?;
        // The parent may have ended between the two reads, and its pid may have been reused.
        let in_order = !platform::STARTS_IN_ORDER || parent.started <= self.started;
        let still = in_order && self.record()?.parent == parent.pid;
        still.then_some(parent)
    }

    /// Returns the short name in the process table. It is a hint for users and no evidence.
    pub fn name(&self) -> Option<String> {
        self.record().map(|record| record.name)
    }

    /// Returns whether it was started with `key=value` in its environment. `None` if the system hides the environment.
    pub fn environment_has(&self, key: &str, value: &str) -> Option<bool> {
        let has = platform::environment_has(self.pid, key, value)?;
        // Checked last: if it is the same process now, it was the same while its environment was read.
        Some(has && self.record().is_some())
    }

    pub(super) fn record(&self) -> Option<ProcessRecord> {
        platform::record(self.pid).filter(|record| record.started == self.started)
    }
}

/// Returns the arguments of at most `most` ancestors of this process, the parent first.
pub fn ancestors(most: usize) -> Vec<Vec<String>> {
    let parent = Identity::own().ok().and_then(|own| own.parent());
    let parents = std::iter::successors(parent, Identity::parent);
    parents.take(most).map(|process| platform::arguments(process.pid)).collect()
}

/// The processes that existed at one moment. A later scan skips them, since reading each process is expensive and
/// listing them is not. None of them can descend from a process that was started later.
#[derive(Clone, Debug, Default)]
pub struct PreexistingProcesses(HashSet<(u32, u64)>);

impl PreexistingProcesses {
    /// Returns all processes except this one. To be called before this process starts any.
    pub fn now() -> Self {
        let own = std::process::id();
        let others = platform::listed().into_iter().filter(|(pid, _)| *pid != own);
        Self(others.filter_map(|(pid, number)| Some((pid, number?))).collect())
    }

    fn contain(&self, (pid, number): &ListedPid) -> bool {
        number.is_some_and(|number| self.0.contains(&(*pid, number)))
    }
}

/// Returns the process table without these processes, zombies included. Empty if it cannot be read.
///
/// The pids are listed first and then read. A process that lives for a millisecond and continues in its child may be
/// listed while it lives and read when it is gone. Therefore they are listed again until no new pid appears.
pub(super) fn records(except: &PreexistingProcesses) -> Vec<ProcessRecord> {
    let mut listed = BTreeSet::new();
    let mut records = Vec::new();
    for _ in 0..LISTINGS {
        let others = platform::listed().into_iter().filter(|listed| !except.contain(listed)).map(|(pid, _)| pid);
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

    /// A child that is killed at the end of the test.
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
    fn own_process_and_child_are_identified() {
        let own = Identity::own().unwrap();
        let mut child = Guarded::start("sleep", "30");
        let identity = Identity::of(child.0.id()).unwrap();

        assert!(own.is_alive());
        assert_eq!(ancestors(1), [platform::arguments(own.parent().unwrap().pid)]);
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
    fn zombie_is_identified_but_not_alive() {
        let mut child = Guarded::start("true", "");
        let identity = Identity::of(child.0.id()).unwrap();
        eventually("`true` to end", || !identity.is_alive());
        assert_eq!(Identity::of(child.0.id()), Some(identity));
        child.end();
        assert_ne!(Identity::of(child.0.id()), Some(identity));
    }

    #[test]
    fn other_start_time_is_another_process() {
        let own = Identity::own().unwrap();
        let earlier = Identity { started: own.started - 1, ..own };
        let path = std::env::var("PATH").unwrap();
        assert!(!earlier.is_alive());
        assert_eq!(earlier.name(), None);
        assert_eq!(own.environment_has("PATH", &path), Some(true));
        assert_eq!(earlier.environment_has("PATH", &path), Some(false));
    }
}
