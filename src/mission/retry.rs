//! Retries: when a failed attempt is followed by another without asking the boss, and when further attempts make no
//! sense. Pure.

use super::hint::{Advice, Hint};
use super::id::BackendName;
use super::lifecycle::{Ending, WorkerStatus};
use super::outcome::FailureKind;
use super::summary::{AttemptSummary, reasons};
use super::worker::{NextAttempt, Start, Worker};

/// Returns the attempt that follows a failed one automatically, if the mission allows it.
///
/// It never uses a backend whose login or limits failed. There is none after a cancellation, even if the attempt failed
/// before that arrived, and none while processes of the failed attempt survive. A lost attempt is not retried either,
/// since the boss has to judge its work, except after the failure of a node if the user has set `retry_lost` for its
/// launcher. A setup that failed would fail on every backend.
pub fn automatic(worker: &Worker) -> Option<NextAttempt> {
    let last = worker.last()?;
    let has_lost_host = last.failure.as_ref().is_some_and(|failure| failure.kind == FailureKind::HostLost);
    let failed = match worker.status {
        WorkerStatus::Settled(Ending::Lost) => has_lost_host && worker.job.as_ref().is_some_and(|job| job.retry_lost),
        status => matches!(status, WorkerStatus::Settled(Ending::Failed | Ending::TimedOut)),
    };
    if !failed
        || last.survivors > 0
        || last.failure.as_ref().is_some_and(|failure| failure.kind == FailureKind::SetupFailed)
        || worker.cancel.is_some()
        || worker.settled.len() as u32 >= worker.mission.max_attempts
    {
        return None;
    }
    if has_lost_host {
        return Some(again(worker, last.backend.clone(), &digest(worker)?));
    }
    let backend = fallback(worker).or_else(|| {
        let circumstance = last.failure.as_ref().is_some_and(|failure| failure.kind.is_circumstance());
        (!circumstance).then(|| last.backend.clone())
    })?;
    Some(again(worker, backend, &digest(worker)?))
}

/// Returns the first fallback that was not tried.
fn fallback(worker: &Worker) -> Option<BackendName> {
    let tried = |name: &BackendName| worker.settled.iter().any(|brief| brief.backend == *name);
    worker.mission.fallback_backends.iter().find(|name| !tried(name)).cloned()
}

/// Returns the attempt that a queued worker runs instead, while its backend is in backoff. It uses the first fallback
/// that was not tried and is not in backoff. A session cannot be moved to another backend.
pub fn failover(worker: &Worker, in_backoff: impl Fn(&BackendName) -> bool) -> Option<NextAttempt> {
    let tried = |name: &BackendName| worker.settled.iter().any(|brief| brief.backend == *name);
    let usable = |name: &&BackendName| **name != worker.next.backend && !tried(name) && !in_backoff(name);
    let backend = worker.mission.fallback_backends.iter().find(usable)?.clone();
    let NextAttempt { start, .. } = worker.next.clone();
    let written = worker.next.written.clone();
    (!matches!(start, Start::Resume { .. })).then_some(NextAttempt {
        backend,
        model: None,
        effort: None,
        start,
        run_on: worker.next.run_on.clone(),
        fresh: worker.next.fresh,
        written,
    })
}

/// Returns the mission again, in the same worktree, for a backend that did not run the earlier attempt.
pub fn again(worker: &Worker, backend: BackendName, feedback: &str) -> NextAttempt {
    let same = backend == worker.mission.backend;
    let text = format!("{}\n\n{feedback}", worker.mission.prompt);
    NextAttempt {
        backend,
        model: worker.mission.model.clone().filter(|_| same),
        effort: worker.mission.effort.clone().filter(|_| same),
        start: Start::Prompt { text },
        run_on: worker.next.run_on.clone(),
        fresh: false,
        written: Vec::new(),
    }
}

/// Describes the last attempt for the next one. `None` before the first has settled.
pub fn digest(worker: &Worker) -> Option<String> {
    let last = worker.last()?;
    let failure = last.failure.as_ref().map(|failure| failure.message.as_str());
    let why = reasons(failure, &last.cancelled, &[]).map_or_else(String::new, |why| format!(": {why}"));
    let mut digest = format!(
        "An earlier attempt at this ({}) ended as {}{why}\nIts changes are in this directory ({} commits): check them first, and keep what is good.",
        last.backend,
        last.status.as_str(),
        last.changes.commits,
    );
    if let Some(note) = last.verification.note() {
        digest.push_str(&format!("\nThe verification printed:\n{note}"));
    }
    if let Some(cause) = &last.likely_cause {
        match cause.fix() {
            Some(fix) => {
                digest.push_str(&format!("\nThe likely cause is not the work: {}. First {fix}.", cause.words()))
            }
            None => digest.push_str(&format!("\nThe cause may not be the work: {}.", cause.words())),
        }
    }
    if !last.final_message.is_empty() {
        digest.push_str(&format!("\nIts last message was:\n{}", last.final_message));
    }
    if let Some(undelivered) = undelivered(worker) {
        digest.push_str(&format!("\n\n{undelivered}"));
    }
    Some(digest)
}

/// Returns the messages that the last attempt did not receive, as a text for the next one.
pub fn undelivered(worker: &Worker) -> Option<String> {
    let messages = &worker.last()?.undelivered;
    (!messages.is_empty()).then(|| format!("You were sent this in the meantime:\n{}", messages.join("\n\n")))
}

/// Returns the messages that an attempt did not receive because it never ran, for the next attempt.
pub fn still_undelivered(worker: &Worker) -> Vec<String> {
    let before = worker.last().into_iter().flat_map(|last| last.undelivered.iter().cloned());
    before.chain(worker.next.written.iter().map(|message| message.text.clone())).collect()
}

/// Returns the prompt that resumes a session when the boss gives no feedback. It states how the last turn ended.
pub fn go_on(last: &AttemptSummary) -> String {
    let verification = last.failure.as_ref().is_some_and(|failure| failure.kind == FailureKind::Verification);
    let how = match last.status {
        Ending::Completed if last.says_blocked => "You said that you were blocked.",
        Ending::Completed => "Your last turn ended well, and you are asked to check the task once more.",
        Ending::Failed if verification => "Your last turn ended well, but the verification of your work did not pass.",
        Ending::Failed => "Your last turn did not end well.",
        Ending::TimedOut => "Your last turn was stopped because its time was up.",
        Ending::Cancelled => "Your last turn was cancelled before it had ended.",
        Ending::Interrupted => "Your last turn was interrupted from outside.",
        Ending::Lost => "The end of your last turn was not observed.",
    };
    let said = last.verification.note().filter(|_| verification);
    let said = said.map_or_else(String::new, |note| format!("\nThe verification printed:\n{}\n", note.trim_end()));
    let gap = if said.is_empty() { " " } else { "" };
    format!("{how}{said}{gap}Check what is there, and finish what is missing.")
}

/// Returns whether an attempt shows that the backend cannot do the task. Login, limits, failures to start or verify, an
/// incomplete worktree and external stops are no evidence.
fn is_failure_of_the_backend(brief: &AttemptSummary) -> bool {
    let circumstance = brief.failure.as_ref().is_some_and(|failure| {
        failure.kind.is_circumstance()
            || (failure.kind == FailureKind::Verification && brief.verification.as_str() == "could_not_run")
            || brief.likely_cause.as_ref().is_some_and(|cause| !cause.lacks.is_empty())
    });
    matches!(brief.status, Ending::Failed | Ending::TimedOut) && !circumstance
}

/// Returns the reasons if two different backends have failed on the task.
pub fn exhausted(worker: &Worker) -> Option<Advice> {
    let mut reasons: Vec<(&BackendName, String)> = Vec::new();
    for brief in worker.settled.iter().filter(|brief| is_failure_of_the_backend(brief)) {
        if reasons.iter().any(|(backend, _)| *backend == &brief.backend) {
            continue;
        }
        let why = brief.failure.as_ref().map_or(brief.status.as_str(), |failure| failure.message.as_str());
        reasons.push((&brief.backend, format!("{}: {why}", brief.backend)));
    }
    (reasons.len() >= 2).then(|| {
        let reasons = reasons.into_iter().map(|(_, why)| why).collect::<Vec<_>>().join("; ");
        let hints = vec![Hint::to("narrow the task"), Hint::to("do without it")];
        Advice::new(format!("two backends failed on it ({reasons})"), hints)
    })
}

#[cfg(test)]
mod tests;
