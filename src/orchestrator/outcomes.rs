//! Outcome records of attempts that had no supervisor to write them. Nothing here writes.

use jiff::Timestamp;

use crate::mission::lifecycle::Ending;
use crate::mission::outcome::{Changes, Cleanup, Containment, Failure, FailureKind, Outcome, Run, Verification};
use crate::mission::registry::Worker;
use crate::mission::retry;

/// Returns the record of an attempt that never ran.
pub(super) fn never_ran(worker: &Worker, attempt: u32, status: Ending, failure: Option<Failure>) -> Outcome {
    Outcome {
        worker_id: worker.id.clone(),
        attempt,
        backend: worker.next.backend.clone(),
        status,
        run: Run {
            failure,
            cancelled: worker.cancelled().filter(|_| status == Ending::Cancelled),
            undelivered: retry::still_undelivered(worker),
            ..Run::default()
        },
        verification: skipped(worker),
        likely_cause: None,
        changes: Changes::default(),
        // Nothing was started, so nothing can be left.
        cleanup: Cleanup { containment: Containment::Full, ..Cleanup::default() },
        settled_at: Timestamp::now(),
    }
}

/// Returns the record of an attempt whose folder was removed while it ran.
pub(super) fn folder_removed(worker: &Worker) -> Outcome {
    let message = "its folder was removed while it ran, so how it ended is unknown; its work is in its directory";
    let failure = Failure { kind: FailureKind::Lost, message: message.to_owned(), resets_at: None };
    let cleanup = Cleanup { containment: Containment::BestEffort, ..Cleanup::default() };
    Outcome { cleanup, ..never_ran(worker, worker.attempt, Ending::Lost, Some(failure)) }
}

/// Returns the verification of an attempt that did not reach it.
pub(super) fn skipped(worker: &Worker) -> Verification {
    match worker.mission.verify_command {
        Some(_) => Verification::Skipped,
        None => Verification::NotRequested,
    }
}
