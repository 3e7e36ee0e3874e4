//! The stop escalation of a CLI: the backend's own signals, each with a grace period, then SIGKILL.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::backend::{StopSignal, StopStep};
use crate::process::{self, Identity, Signal};

/// Time between SIGKILL and giving up on a process.
const KILL_GRACE: Duration = Duration::from_secs(10);

/// The remaining steps of stopping a process, and the time of the next one.
#[derive(Default)]
pub(super) struct StopEscalation {
    steps: VecDeque<StopAction>,
    due: Option<Instant>,
}

#[derive(Clone, Copy)]
enum StopAction {
    Signal(StopStep),
    Kill,
    GiveUp,
}

impl StopEscalation {
    /// Creates an escalation whose first step is due at this time.
    pub fn starting_at(due: Instant, steps: &[StopStep]) -> Self {
        let steps = steps.iter().copied().map(StopAction::Signal).chain([StopAction::Kill, StopAction::GiveUp]);
        Self { steps: steps.collect(), due: Some(due) }
    }

    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Takes the next step against the process. Returns true if there is none left.
    pub fn advance(&mut self, target: &Identity) -> bool {
        let grace = match self.steps.pop_front() {
            Some(StopAction::Signal(step)) => {
                let signal = match step.signal {
                    StopSignal::Interrupt => Signal::Interrupt,
                    StopSignal::Terminate => Signal::Terminate,
                };
                process::send(target, signal);
                step.grace
            }
            Some(StopAction::Kill) => {
                // Not its group, which may contain a daemon that is shared between projects. The rest is swept.
                process::send(target, Signal::Kill);
                KILL_GRACE
            }
            Some(StopAction::GiveUp) | None => return true,
        };
        self.due = Some(Instant::now() + grace);
        false
    }
}
