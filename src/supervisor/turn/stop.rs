//! The stop escalation of a CLI: the backend's own steps, each with a grace period, then SIGKILL.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::backend::{StopAction, StopSignal, StopStep};
use crate::process::{self, Identity, Signal};

/// Time between SIGKILL and giving up on a process.
const KILL_GRACE: Duration = Duration::from_secs(10);

/// The remaining steps of stopping a process, and the time of the next one.
#[derive(Default)]
pub(super) struct StopEscalation {
    steps: VecDeque<Step>,
    due: Option<Instant>,
    /// True while the CLI may answer the request to cancel its turn.
    cancels: bool,
}

#[derive(Clone, Copy)]
enum Step {
    Backend(StopStep),
    Kill,
    GiveUp,
}

/// A step that was taken, or that the caller has to take.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StopTaken {
    Signalled,
    /// The caller asks the CLI to cancel its turn, or calls [`StopEscalation::skip`].
    CancelTurn,
    /// The caller closes stdin, or calls [`StopEscalation::skip`].
    CloseStdin,
    /// The process could not be made to exit.
    GaveUp,
}

impl StopEscalation {
    /// Creates an escalation whose first step is due at this time.
    pub fn starting_at(due: Instant, steps: &[StopStep]) -> Self {
        let steps = steps.iter().copied().map(Step::Backend).chain([Step::Kill, Step::GiveUp]);
        Self { steps: steps.collect(), due: Some(due), cancels: false }
    }

    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Takes the next step against the process.
    pub fn advance(&mut self, target: &Identity) -> StopTaken {
        self.cancels = false;
        let (taken, grace) = match self.steps.pop_front() {
            Some(Step::Backend(step)) => (self.take(step.action, target), step.grace),
            Some(Step::Kill) => {
                // Not its group, which may contain a daemon that is shared between projects. The rest is swept.
                process::send(target, Signal::Kill);
                (StopTaken::Signalled, KILL_GRACE)
            }
            Some(Step::GiveUp) | None => return StopTaken::GaveUp,
        };
        self.due = Some(Instant::now() + grace);
        taken
    }

    fn take(&mut self, action: StopAction, target: &Identity) -> StopTaken {
        let signal = match action {
            StopAction::CancelTurn => {
                self.cancels = true;
                return StopTaken::CancelTurn;
            }
            StopAction::CloseStdin => return StopTaken::CloseStdin,
            StopAction::Signal(StopSignal::Interrupt) => Signal::Interrupt,
            StopAction::Signal(StopSignal::Terminate) => Signal::Terminate,
        };
        process::send(target, signal);
        StopTaken::Signalled
    }

    /// Makes the next step due now, since the last one had nothing to do.
    pub fn skip(&mut self) {
        self.due = Some(Instant::now());
    }

    /// Makes the next step due now if the CLI was asked to cancel its turn, which has ended.
    pub fn turn_ended(&mut self) {
        if std::mem::take(&mut self.cancels) {
            self.skip();
        }
    }
}
