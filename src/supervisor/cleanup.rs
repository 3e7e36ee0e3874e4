//! The sum of all sweeps of an attempt.

use std::time::Duration;

use crate::mission::outcome::{Cleanup, Containment};
use crate::process::Sweep;

/// Time that processes get to exit by themselves if they outlive their turn.
pub(super) const SWEEP_GRACE: Duration = Duration::from_secs(3);

/// The sweeps of all turns together.
#[derive(Debug, Clone, Default)]
pub(super) struct CleanupTotal {
    ended: u32,
    pub last: Cleanup,
}

impl CleanupTotal {
    pub fn add(&mut self, swept: Sweep) {
        self.ended += swept.ended as u32;
        let survivors = swept.survivors.len() as u32;
        self.last =
            Cleanup { survivors, containment: swept.containment, ended: self.ended, daemons_left: swept.allowlisted };
    }

    pub fn is_inconclusive(&self) -> bool {
        self.last.survivors > 0 || self.last.containment != Containment::Full
    }

    /// Returns whether it is certain that no process of the worker has run since an earlier sweep.
    pub fn found_nothing_since(&self, earlier: &Self) -> bool {
        !earlier.is_inconclusive() && !self.is_inconclusive() && earlier.ended == self.ended
    }
}
