//! The legal changes of a worker's status. Pure.
//!
//! The records never have [`WorkerStatus::NeedsAnswer`]: a question exists only while its supervisor runs, in the status
//! file. Views add it to the recorded status, by [`WorkerStatus::asking`].

use serde::{Deserialize, Serialize};
use thiserror::Error;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerStatus {
    Queued,
    Starting,
    Running,
    /// Its CLI waits for the answer to a question.
    NeedsAnswer,
    Verifying,
    #[serde(untagged)]
    Settled(Ending),
}

/// The end of an attempt. Once recorded, it never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The run ended well by its structured end, and verification passed or was not requested.
    Completed,
    Failed,
    Cancelled,
    TimedOut,
    /// Stopped by a signal that orchestrator-boss did not send.
    Interrupted,
    /// The end was not observed.
    Lost,
}

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
    /// The server that admitted it died, provably before anything ran.
    StartAbandoned,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("cannot apply the event {event:?} to a worker that is {from}")]
pub struct IllegalTransition {
    pub from: WorkerStatus,
    pub event: Event,
}

pub fn next(from: WorkerStatus, event: Event) -> Result<WorkerStatus, IllegalTransition> {
    use Event::*;
    use WorkerStatus as S;
    match (from, event) {
        (S::Queued, Admitted) => Ok(S::Starting),
        (S::Starting | S::Running | S::NeedsAnswer | S::Verifying, TurnStarted) => Ok(S::Running),
        (S::Running | S::NeedsAnswer | S::Verifying, VerificationStarted) => Ok(S::Verifying),
        // Nothing ran yet, so it was cancelled or could not start.
        (S::Queued, Settled(Ending::Cancelled | Ending::Failed)) => Ok(to_settled(event)),
        (S::Starting | S::Running | S::NeedsAnswer | S::Verifying, Settled(_)) => Ok(to_settled(event)),
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

    /// Returns whether it is admitted and not settled: it holds a slot and may have processes.
    pub fn is_live(self) -> bool {
        use WorkerStatus::{NeedsAnswer, Running, Starting, Verifying};
        matches!(self, Starting | Running | NeedsAnswer | Verifying)
    }

    /// Returns the status to show for a recorded one, given whether the worker waits for an answer.
    pub fn asking(self, needs_answer: bool) -> Self {
        if needs_answer && self.is_live() { WorkerStatus::NeedsAnswer } else { self }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            WorkerStatus::Queued => "queued",
            WorkerStatus::Starting => "starting",
            WorkerStatus::Running => "running",
            WorkerStatus::NeedsAnswer => "needs_answer",
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
        fn only_requeueing_leaves_a_settled_status(events in prop::collection::vec(any_event(), 0..40)) {
            let mut status = WorkerStatus::Queued;
            for event in events {
                // A question changes what is shown, and never what may happen.
                let asks = status.asking(true);
                prop_assert_eq!(asks.is_live(), status.is_live());
                let was = status;
                if was != WorkerStatus::Starting {
                    prop_assert_eq!(next(asks, event).ok(), next(was, event).ok());
                }
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
                prop_assert_ne!(now, WorkerStatus::NeedsAnswer);
                status = now;
            }
        }
    }

    #[test]
    fn statuses_have_their_contract_names() {
        for ending in ENDINGS {
            let status = WorkerStatus::Settled(ending);
            let json = serde_json::to_string(&status).unwrap();
            assert_eq!(json, format!("\"{status}\""));
            assert_eq!(serde_json::from_str::<WorkerStatus>(&json).unwrap(), status);
        }
        let needs_answer = serde_json::to_string(&WorkerStatus::NeedsAnswer).unwrap();
        assert_eq!(needs_answer, format!("\"{}\"", WorkerStatus::NeedsAnswer));
        assert_eq!(serde_json::from_str::<WorkerStatus>("\"verifying\"").unwrap(), WorkerStatus::Verifying);
    }
}
