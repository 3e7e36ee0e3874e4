//! Trying again: when a failed attempt is followed by another without the boss being asked, and when no more tries make
//! sense. Pure.

use super::entry::{Brief, NextAttempt, Start};
use super::id::BackendName;
use super::lifecycle::{Ending, WorkerStatus};
use super::outcome::FailureKind;
use super::registry::Worker;

/// The attempt that follows a failed one by itself, if the mission allows one more.
///
/// Never on a backend whose login or limits failed, never after a cancellation (though it failed before that reached it),
/// never after an end that nobody saw: what the lost one did is for the boss to judge. And never beside what is left of
/// the failed one.
pub fn automatic(worker: &Worker) -> Option<NextAttempt> {
    let last = worker.last()?;
    let failed = matches!(worker.status, WorkerStatus::Settled(Ending::Failed | Ending::TimedOut));
    if !failed
        || last.survivors > 0
        || worker.cancel.is_some()
        || worker.settled.len() as u32 >= worker.mission.max_attempts
    {
        return None;
    }
    let backend = fallback(worker).or_else(|| {
        let circumstance = last.failure.as_ref().is_some_and(|failure| failure.kind.is_circumstance());
        (!circumstance).then(|| last.backend.clone())
    })?;
    Some(again(worker, backend, &digest(worker)?))
}

/// The first fallback that was not tried.
fn fallback(worker: &Worker) -> Option<BackendName> {
    let tried = |name: &BackendName| worker.settled.iter().any(|brief| brief.backend == *name);
    worker.mission.fallback_backends.iter().find(|name| !tried(name)).cloned()
}

/// What a queued worker runs instead of waiting for a backend that is held: the first fallback that is neither tried nor
/// held. A session cannot go elsewhere.
pub fn instead(worker: &Worker, held: impl Fn(&BackendName) -> bool) -> Option<NextAttempt> {
    let tried = |name: &BackendName| worker.settled.iter().any(|brief| brief.backend == *name);
    let usable = |name: &&BackendName| **name != worker.next.backend && !tried(name) && !held(name);
    let backend = worker.mission.fallback_backends.iter().find(usable)?.clone();
    let NextAttempt { start, .. } = worker.next.clone();
    (!matches!(start, Start::Resume { .. })).then_some(NextAttempt { backend, model: None, effort: None, start })
}

/// The mission once more, for a backend that did not see the earlier attempt, in the same worktree.
pub fn again(worker: &Worker, backend: BackendName, feedback: &str) -> NextAttempt {
    let same = backend == worker.mission.backend;
    let text = format!("{}\n\n{feedback}", worker.mission.prompt);
    NextAttempt {
        backend,
        model: worker.mission.model.clone().filter(|_| same),
        effort: worker.mission.effort.clone().filter(|_| same),
        start: Start::Prompt { text },
    }
}

/// What the next attempt should know of the last one; `None` before the first has settled.
pub fn digest(worker: &Worker) -> Option<String> {
    let last = worker.last()?;
    let why = last.failure.as_ref().map_or(last.status.as_str().to_owned(), |failure| failure.message.clone());
    let mut digest = format!(
        "An earlier attempt at this ({}) ended as {}: {why}\nWhat it changed is in this directory ({} commits); look at it first, keep what is good.",
        last.backend,
        last.status.as_str(),
        last.changes.commits,
    );
    if let Some(note) = last.verification.note() {
        digest.push_str(&format!("\nThe verification said:\n{note}"));
    }
    if let Some(cause) = &last.likely_cause {
        digest.push_str(&format!("\nThe likely cause is not the work: {}.", cause.words()));
        if let Some(fix) = cause.fix() {
            digest.push_str(&format!(" First {fix}."));
        }
    }
    if !last.final_message.is_empty() {
        digest.push_str(&format!("\nIts last words were:\n{}", last.final_message));
    }
    if let Some(unheard) = unheard(worker) {
        digest.push_str(&format!("\n\n{unheard}"));
    }
    Some(digest)
}

/// What the last attempt was told and never heard.
pub fn unheard(worker: &Worker) -> Option<String> {
    let messages = &worker.last()?.unheard;
    (!messages.is_empty()).then(|| format!("The one who leads you had written meanwhile:\n{}", messages.join("\n\n")))
}

/// Whether it says that the backend cannot do the task. Login, limits, what could not be started or verified, a worktree
/// that lacks something, and ends that came from outside say nothing about that.
fn is_failure_of_the_backend(brief: &Brief) -> bool {
    let circumstance = brief.failure.as_ref().is_some_and(|failure| {
        failure.kind.is_circumstance()
            || (failure.kind == FailureKind::Verification && brief.verification.as_str() == "could_not_run")
            || brief.likely_cause.as_ref().is_some_and(|cause| !cause.lacks.is_empty())
    });
    matches!(brief.status, Ending::Failed | Ending::TimedOut) && !circumstance
}

/// Two different backends have failed on the task: the reasons of both.
pub fn exhausted(worker: &Worker) -> Option<String> {
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
        format!("two backends failed on it ({reasons}): narrow the task, or do without it")
    })
}

#[cfg(test)]
mod tests;
