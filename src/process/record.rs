//! The data of the process table, as both platforms read it.

use serde::{Deserialize, Serialize};

/// A process that cannot be confused with a later one of the same pid. Valid on this host until it reboots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    pub pid: u32,
    /// The time of its start, which is only compared. Linux: clock ticks since boot; macOS: microseconds since 1970.
    pub started: u64,
}

/// One line of the process table.
#[derive(Clone, Debug)]
pub(super) struct ProcessRecord {
    pub pid: u32,
    pub started: u64,
    pub parent: u32,
    pub group: u32,
    pub session: u32,
    pub state: ProcessState,
    pub name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProcessState {
    Active,
    Stopped,
    Zombie,
}

impl ProcessRecord {
    pub fn identity(&self) -> Identity {
        Identity { pid: self.pid, started: self.started }
    }
}

/// A pid, and a number that distinguishes it from a later process of the same pid, if the system lists one.
pub(super) type ListedPid = (u32, Option<u64>);
