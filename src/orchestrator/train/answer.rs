//! The answer about an integration: its status, its notes, and why sources were left out.

use super::{Result, Train, Why};
use crate::git::origins::{self, CommitOrigins};
use crate::git::{self, Strategy};
use crate::mission::hint::Advice;
use crate::mission::outcome::{LikelyCause, Verification};
use crate::mission::words::{self, count};
use crate::orchestrator::OrchestratorError;
use crate::orchestrator::answers::*;
use crate::orchestrator::jobs::Order;

/// Returns an answer for an order with this status and nothing else.
pub(in crate::orchestrator) fn answer(order: &Order, status: IntegrationStatus) -> IntegrationAnswer {
    let worker = match order.sources.as_slice() {
        [one] => one.worker.clone(),
        _ => None,
    };
    IntegrationAnswer::new(status, worker, order.into.clone())
}

/// Returns the likely cause if nothing was integrated because the target alone does not pass.
fn likely_cause(train: &Train) -> Option<LikelyCause> {
    // A command that could not run shows nothing about the target, unless something was missing.
    let is_evidence =
        |found: &Verification| !matches!(found, Verification::CouldNotRun { .. }) || !train.lacks.is_empty();
    let fails = train.left.iter().any(|(_, why)| matches!(why, Why::TargetFails(found) if is_evidence(found)));
    let cause = LikelyCause {
        lacks: if fails { train.lacks.clone() } else { Vec::new() },
        fails_without: fails.then(|| train.from.clone()),
    };
    (cause != LikelyCause::default()).then_some(cause)
}

/// Returns the notes of an answer. `bypassed` is called only if something is integrated.
pub(super) fn notes(
    order: &Order,
    train: &Train,
    bypassed: impl FnOnce() -> Result<Vec<String>>,
) -> Result<Vec<String>> {
    let log = train.log.iter().map(|log| format!("the complete output of the failed verification: {}", log.display()));
    let mut notes: Vec<String> = log.chain(order.sources.iter().filter_map(|source| source.note.clone())).collect();
    for (at, origins) in &train.origins {
        notes.extend(note_on_origins(order, train, *at, origins)?);
    }
    let is_left = |at: &usize| train.left.iter().any(|(left, _)| left == at);
    for (at, commit) in train.by_hand.iter().filter(|(at, _)| !is_left(at)) {
        let title = origins::titles(&order.repository, std::slice::from_ref(commit))?;
        notes.push(format!(
            "{} already has the changes of {} up to {title} as other commits, and may have reverted them since: only later changes count",
            order.into,
            order.sources[*at].name()
        ));
    }
    if !train.stacked.is_empty() {
        notes.extend(bypassed()?);
    }
    let is_verified = order.verify_command.is_some() && (!train.stacked.is_empty() || !train.left.is_empty());
    if is_verified && git::lacks_submodules(&order.repository, &train.from) {
        notes.push("some submodules are empty where it is verified, because the main checkout does not have them: the command must fetch them".to_owned());
    }
    Ok(notes)
}

/// Describes the commits of a source that are not its worker's own: those left out, and those that are included with
/// it.
fn note_on_origins(order: &Order, train: &Train, at: usize, origins: &CommitOrigins) -> Result<Vec<String>> {
    let (name, into) = (order.sources[at].name(), &order.into);
    let comes_in = train.stacked.iter().any(|entry| entry.source == at);
    let titles = |commits: &[String]| origins::titles(&order.repository, commits).map_err(OrchestratorError::from);
    let mut notes = Vec::new();
    if !origins.dropped.is_empty() {
        let as_one = if comes_in && order.strategy == Strategy::Merge { ", as one commit" } else { "" };
        notes.push(format!(
            "{into} had {} that {name} was built on, and no longer has them ({}): they are left out, and only the changes of {name} itself count{as_one}",
            count(origins.dropped.len(), "commit"),
            titles(&origins.dropped)?
        ));
    }
    if comes_in && !origins.inherited.is_empty() {
        notes.push(format!(
            "{name} brings in {} that it was built on and that are not its own: {}",
            count(origins.inherited.len(), "commit"),
            titles(&origins.inherited)?
        ));
    }
    // Commits of another source of the same order need no note.
    let is_source = |branch: &str| train.stacked.iter().any(|entry| order.sources[entry.source].branch == branch);
    let others = origins.others.iter().filter(|(branch, _)| comes_in && !is_source(branch));
    let others: Vec<String> =
        others.map(|(branch, number)| format!("{} of {branch}", count(*number, "commit"))).collect();
    if !others.is_empty() {
        notes.push(format!("{name} brings in commits that it took from other branches: {}", others.join(", ")));
    }
    Ok(notes)
}

pub(super) fn describe(order: &Order, train: &Train, mut left_out: Vec<(String, Advice)>) -> IntegrationAnswer {
    let name = |at: usize| order.sources[at].name();
    let mut inside: Vec<usize> =
        train.stacked.iter().chain(train.there.iter().map(|(entry, _)| entry)).map(|entry| entry.source).collect();
    inside.sort_unstable();
    left_out.extend(train.left.iter().map(|(at, why)| (name(*at), reason(order, why))));
    let conflicts = train.left.iter().filter_map(|(_, why)| match why {
        Why::Conflicts(conflicts) => Some(conflicts.iter().map(|it| (it.path.clone(), it.kind.clone()))),
        _ => None,
    });
    IntegrationAnswer {
        integrated: inside.into_iter().map(name).collect(),
        left_out,
        conflicts: conflicts.flatten().collect(),
        commit: match (train.stacked.last(), train.there.as_slice()) {
            (Some(entry), _) => Some(entry.commit.clone()),
            (None, [(entry, true)]) => Some(entry.commit.clone()),
            _ => None,
        },
        verification: train.verification.clone(),
        likely_cause: likely_cause(train),
        verifications: train.verifications,
        ..answer(order, status(train))
    }
}

fn status(train: &Train) -> IntegrationStatus {
    if !train.stacked.is_empty() {
        return IntegrationStatus::Merged;
    }
    let unverified = train.left.iter().find_map(|(_, why)| match why {
        Why::NotVerified(verification) | Why::TargetFails(verification) => Some(verification),
        _ => None,
    });
    let conflicts = train.left.iter().any(|(_, why)| matches!(why, Why::Conflicts(_)));
    match unverified {
        Some(Verification::Failed { .. }) => IntegrationStatus::VerificationFailed,
        Some(Verification::TimedOut { .. }) => IntegrationStatus::VerificationTimedOut,
        Some(_) => IntegrationStatus::CouldNotVerify,
        None if conflicts => IntegrationStatus::Conflicts,
        None if train.there.is_empty() => IntegrationStatus::Refused,
        None if train.there.iter().all(|(_, known)| *known) => IntegrationStatus::AlreadyIntegrated,
        None => IntegrationStatus::AlreadyMerged,
    }
}

fn reason(order: &Order, why: &Why) -> Advice {
    let text = match why {
        Why::Conflicts(conflicts) => {
            let named: Vec<String> = conflicts.iter().map(|it| format!("{} ({})", it.path, it.kind)).collect();
            format!("it conflicts: {}", words::first(&named, 5))
        }
        Why::NotVerified(found) => format!("with it, the verification {}", found_out(found)),
        Why::TargetFails(found) => {
            format!("{} alone does not pass: the verification {}", order.into, found_out(found))
        }
        Why::Refused(error) => return Advice::of(&**error),
    };
    Advice::new(text, Vec::new())
}

fn found_out(verification: &Verification) -> String {
    let word = match verification.as_str() {
        "could_not_run" => "could not run",
        "timed_out" => "timed out",
        word => word,
    };
    match verification.note() {
        Some(note) => format!("{word}: {note}"),
        None => word.to_owned(),
    }
}
