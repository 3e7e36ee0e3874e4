//! Merging a worker's branch into another. Computed without a working tree; git's own room does it, this one names the
//! branches and remembers what was merged.

use std::sync::Arc;

use super::answers::*;
use super::context::Context;
use super::error::OrchestratorError;
use super::handle::{Orchestrator, blocking};
use super::mail::Ask;
use super::start::refused;
use super::{configuration, worktrees};
use crate::crash_point::{self, Point};
use crate::git::{self, IntegrationStatus, Strategy};
use crate::mission::entry::Entry;
use crate::mission::id::{BossId, WorkerId};
use crate::mission::race;
use crate::mission::registry::Worker;

type Result<T> = std::result::Result<T, OrchestratorError>;

pub(super) async fn integrate(
    orchestrator: &Orchestrator,
    boss: &BossId,
    request: IntegrationRequest,
) -> Result<IntegrationAnswer> {
    let name = match &request.source {
        IntegrationSource::Worker(name) => Some(name.clone()),
        IntegrationSource::Branch(_) => None,
    };
    let lookup = orchestrator.ask(|reply| Ask::Lookup { name, reply }).await??;
    if let Some(worker) = &lookup.worker {
        check(worker, boss)?;
    }
    let source = match (&request.source, &lookup.worker) {
        (IntegrationSource::Branch(branch), _) => branch.clone(),
        (IntegrationSource::Worker(_), Some(worker)) => branch_of(worker)?,
        (IntegrationSource::Worker(name), None) => return Err(OrchestratorError::Refused(format!("no worker {name}"))),
    };
    let context = orchestrator.shared();
    if let Some(worker) = lookup.worker.clone() {
        let (inner, branch) = (Arc::clone(&context), source.clone());
        blocking(move || check_branch(&inner, &worker, &branch)).await?;
    }
    let into = match request.into.clone().or(lookup.integration_branch) {
        Some(into) => into,
        None => context.repository()?.integration_branch().map_err(refused)?,
    };
    let integrate = git::Integrate {
        source: source.clone(),
        into: into.clone(),
        strategy: strategy(request.strategy),
        message: message(&source, lookup.worker.as_deref()),
        dry_run: request.dry_run,
    };
    let inner = Arc::clone(&context);
    let done = blocking(move || {
        configuration::check(&inner)?;
        git::integrate(inner.repository()?, &integrate).map_err(refused)
    })
    .await?;
    crash_point::at(Point::Merged);
    if let (Some(worker), Some(commit)) = (&lookup.worker, &done.commit) {
        let entry = Entry::Integrated { worker: worker.id.clone(), into: into.clone(), commit: commit.clone() };
        let worker = worker.id.clone();
        orchestrator.ask(|reply| Ask::Record { worker, entry, reply }).await??;
    }
    let notes = lookup.worker.iter().filter_map(|worker| race::note_on_loser(worker)).collect();
    let worker = lookup.worker.map(|worker| worker.id.clone());
    Ok(IntegrationAnswer { notes, ..answer(source, worker, into, done) })
}

fn check(worker: &Worker, boss: &BossId) -> Result<()> {
    if worker.boss != *boss {
        return Err(OrchestratorError::NotYours { name: worker.id.to_string(), what: "integrate" });
    }
    if !worker.status.is_settled() {
        return Err(OrchestratorError::NotSettled {
            worker: worker.id.to_string(),
            status: worker.status.as_str(),
            mend: "wait_for_worker until it has settled, then integrate it",
        });
    }
    if !worktrees::completed(worker) {
        let status = worker.status;
        return Err(OrchestratorError::Refused(format!(
            "worker {} ended as {status}, so its work is not integrated by its name: retry_worker it, or look at its diff and integrate its branch by name",
            worker.id
        )));
    }
    Ok(())
}

/// Somebody may have deleted it; its last commit is known.
fn check_branch(context: &Context, worker: &Worker, branch: &str) -> Result<()> {
    let repository = context.repository()?;
    let head = worker.last().and_then(|brief| brief.changes.head.as_deref());
    match head {
        Some(head) if repository.resolve(&format!("refs/heads/{branch}")).is_err() => {
            Err(OrchestratorError::Refused(format!(
                "branch {branch} of worker {} was deleted: `git branch {branch} {head}` brings it back as it was, as long as git has not cleaned up; then integrate again",
                worker.id
            )))
        }
        _ => Ok(()),
    }
}

fn branch_of(worker: &Worker) -> Result<String> {
    let branch = worker.last().and_then(|brief| brief.changes.branch.clone());
    branch.or_else(|| worker.mission.place.branch().map(str::to_owned)).ok_or_else(|| {
        OrchestratorError::Refused(format!(
            "worker {} has no branch of its own (it worked in {}): there is nothing to merge",
            worker.id,
            worker.mission.place.path().display()
        ))
    })
}

fn strategy(strategy: IntegrationStrategy) -> Strategy {
    match strategy {
        IntegrationStrategy::Merge => Strategy::Merge,
        IntegrationStrategy::Squash => Strategy::Squash,
        IntegrationStrategy::CherryPick => Strategy::CherryPick,
    }
}

fn message(source: &str, worker: Option<&Worker>) -> String {
    match worker {
        Some(worker) => format!("{}\n\nMerged from {source} ({}).", worker.mission.title, worker.id),
        None => format!("Merge branch '{source}'"),
    }
}

fn answer(source: String, worker: Option<WorkerId>, into: String, done: git::Integration) -> IntegrationAnswer {
    let status = match done.status {
        IntegrationStatus::Merged => "merged",
        IntegrationStatus::AlreadyMerged => "already_merged",
        IntegrationStatus::Conflicts => "conflicts",
        IntegrationStatus::WouldMerge => "would_merge",
    };
    IntegrationAnswer {
        status: status.to_owned(),
        source,
        worker,
        into,
        commit: done.commit,
        conflicts: done.conflicts.into_iter().map(|conflict| (conflict.path, conflict.kind)).collect(),
        notes: Vec::new(),
    }
}
