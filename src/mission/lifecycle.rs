//! The one place that says which status may follow which. Pure and small enough to see at once.

use serde::{Deserialize, Serialize};
use thiserror::Error;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerStatus {
    Queued,
    Starting,
    Running,
    Verifying,
    #[serde(untagged)]
    Settled(Ending),
}

/// How an attempt ended; once recorded it never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The run ended well by its structured end, and verification passed or was not asked for.
    Completed,
    Failed,
    Cancelled,
    TimedOut,
    /// Stopped from outside (a signal that we did not send) before it could end by itself.
    Interrupted,
    /// Nobody saw the end.
    Lost,
}

/// What can happen to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A server took it out of the queue.
    Admitted,
    /// Its supervisor runs the CLI. Also after verification, when a message opened another turn.
    TurnStarted,
    VerificationStarted,
    Settled(Ending),
    /// A retry, or a message to a settled worker, opened the next attempt.
    Requeued,
    /// The server that admitted it died before anything ran, and that was proven.
    StartAbandoned,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a {from} worker cannot take the event {event:?}")]
pub struct IllegalTransition {
    pub from: WorkerStatus,
    pub event: Event,
}

pub fn next(from: WorkerStatus, event: Event) -> Result<WorkerStatus, IllegalTransition> {
    use Event::*;
    use WorkerStatus as S;
    match (from, event) {
        (S::Queued, Admitted) => Ok(S::Starting),
        (S::Starting | S::Running | S::Verifying, TurnStarted) => Ok(S::Running),
        (S::Running | S::Verifying, VerificationStarted) => Ok(S::Verifying),
        // Nothing ran yet, so it can only have been called off, or found impossible to start.
        (S::Queued, Settled(Ending::Cancelled | Ending::Failed)) => Ok(to_settled(event)),
        (S::Starting | S::Running | S::Verifying, Settled(_)) => Ok(to_settled(event)),
        (S::Settled(_), Requeued) | (S::Starting, StartAbandoned) => Ok(S::Queued),
        (from, event) => Err(IllegalTransition { from, event }),
    }
}

fn to_settled(event: Event) -> WorkerStatus {
    match event {
        Event::Settled(ending) => WorkerStatus::Settled(ending),
        _ => unreachable!("called for Settled only, by the match above"),
    }
}

impl WorkerStatus {
    pub fn is_settled(self) -> bool {
        matches!(self, WorkerStatus::Settled(_))
    }

    /// Admitted and not settled: it holds a slot, and processes of its may live.
    pub fn is_live(self) -> bool {
        matches!(self, WorkerStatus::Starting | WorkerStatus::Running | WorkerStatus::Verifying)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            WorkerStatus::Queued => "queued",
            WorkerStatus::Starting => "starting",
            WorkerStatus::Running => "running",
            WorkerStatus::Verifying => "verifying",
            WorkerStatus::Settled(ending) => ending.as_str(),
        }
    }
}

impl Ending {
    pub fn as_str(self) -> &'static str {
        match self {
            Ending::Completed => "completed",
            Ending::Failed => "failed",
            Ending::Cancelled => "cancelled",
            Ending::TimedOut => "timed_out",
            Ending::Interrupted => "interrupted",
            Ending::Lost => "lost",
        }
    }
}

impl std::fmt::Display for WorkerStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ENDINGS: [Ending; 6] =
        [Ending::Completed, Ending::Failed, Ending::Cancelled, Ending::TimedOut, Ending::Interrupted, Ending::Lost];

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Admitted),
            Just(Event::TurnStarted),
            Just(Event::VerificationStarted),
            Just(Event::Requeued),
            Just(Event::StartAbandoned),
            prop::sample::select(&ENDINGS[..]).prop_map(Event::Settled),
        ]
    }

    proptest! {
        #[test]
        fn no_sequence_of_events_leaves_an_ending_but_by_requeueing(events in prop::collection::vec(any_event(), 0..40)) {
            let mut status = WorkerStatus::Queued;
            for event in events {
                let was = status;
                let Ok(now) = next(status, event) else { continue };
                if was.is_settled() {
                    prop_assert_eq!((event, now), (Event::Requeued, WorkerStatus::Queued));
                }
                if now == WorkerStatus::Settled(Ending::Completed) {
                    prop_assert!(was.is_live(), "{} cannot complete", was);
                }
                if let Event::Settled(ending) = event {
                    prop_assert_eq!(now, WorkerStatus::Settled(ending));
                }
                status = now;
            }
        }
    }

    #[test]
    fn statuses_are_written_as_the_contract_names_them() {
        for ending in ENDINGS {
            let status = WorkerStatus::Settled(ending);
            let json = serde_json::to_string(&status).unwrap();
            assert_eq!(json, format!("\"{status}\""));
            assert_eq!(serde_json::from_str::<WorkerStatus>(&json).unwrap(), status);
        }
        assert_eq!(serde_json::from_str::<WorkerStatus>("\"verifying\"").unwrap(), WorkerStatus::Verifying);
    }
}
