//! Parts of workers' work that the integrated branches do not hold. Git is queried each time: parts that an outcome
//! named may be on the branch by now, and new files may exist.

use std::sync::Arc;
use std::time::SystemTime;

use super::context::Context;
use super::jobs::Source;
use crate::attempt::assignment::Assignment;
use crate::attempt::facts;
use crate::attempt::state_dir::StateDir;
use crate::attempt::worker_dir::WorkerDir;
use crate::files;
use crate::git::{self, Repository, Trust};
use crate::mission::hint::with_hints;
use crate::mission::outcome::NotOnBranch;
use crate::mission::registry::Worker;

/// Returns the parts that are missing from the sources, each with its worker or branch. Blocks.
pub(super) fn of_sources(
    context: &Context,
    repository: &Repository,
    sources: &[Source],
    workers: &[Arc<Worker>],
) -> Vec<(String, NotOnBranch)> {
    let of_source = |source: &Source| match &source.worker {
        Some(id) => {
            let worker = workers.iter().find(|worker| worker.id == *id);
            let folder = StateDir::open(&context.state_root).map(|dir| dir.worker(id)).ok();
            worker.zip(folder).map(|(worker, folder)| of_worker(&context.trust, &folder, worker)).unwrap_or_default()
        }
        None => of_branch(repository, &source.branch),
    };
    let name = |source: &Source| source.worker.as_ref().map_or_else(|| source.branch.clone(), ToString::to_string);
    sources.iter().flat_map(|source| of_source(source).into_iter().map(|part| (name(source), part))).collect()
}

/// Returns the parts of a settled worker. If its worktree is gone, they are those that its outcome named, which may be
/// at the salvage ref.
pub(super) fn of_worker(trust: &Trust, folder: &WorkerDir, worker: &Worker) -> Vec<NotOnBranch> {
    let recorded = worker.last().map(|last| last.changes.not_on_branch.clone()).unwrap_or_default();
    let attempt = folder.attempt(worker.attempt);
    let assignment = files::read_json::<Assignment>(&attempt.assignment()).ok().flatten();
    match assignment.filter(|assignment| assignment.directory.join(".git").symlink_metadata().is_ok()) {
        Some(mut assignment) => {
            // A worker can write that file too.
            assignment.repository = assignment.repository.map(|it| it.trusting(trust.clone()));
            let before = facts::before(&assignment, &attempt);
            let settled_at = worker.last().map_or(SystemTime::UNIX_EPOCH, |last| last.settled_at.into());
            facts::not_on_branch_now(&assignment, before.as_ref(), settled_at, &recorded)
        }
        None => recorded.into_iter().map(|part| at_salvage(part, worker)).collect(),
    }
}

/// Describes the parts in one sentence, as the reason why a worktree stays.
pub(super) fn in_words(parts: &[NotOnBranch]) -> Option<String> {
    let named = parts.iter().take(3).map(|part| part.what.as_str()).collect::<Vec<_>>().join("; ");
    let more = parts.len().saturating_sub(3);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    (!parts.is_empty()).then(|| format!("not all of its work is on its branch: {named}{more}"))
}

fn at_salvage(part: NotOnBranch, worker: &Worker) -> NotOnBranch {
    let was_there = part.place == worker.mission.place.path().to_string_lossy();
    match worker.salvage_ref.as_ref().filter(|_| was_there) {
        Some(salvage) => NotOnBranch {
            place: salvage.clone(),
            how_to_include: format!("`git checkout {salvage} -- PATH` on its branch, then commit"),
            ..part
        },
        None => part,
    }
}

/// Returns the parts of a branch that is named directly, from the worktree that orchestrator-boss made for it, if any.
fn of_branch(repository: &Repository, branch: &str) -> Vec<NotOnBranch> {
    let listed = match git::list(repository) {
        Ok(listed) => listed,
        Err(error) => return vec![git::not_on_branch::unknown(repository.root(), &with_hints(&error))],
    };
    let its = listed.into_iter().find(|it| it.branch.as_deref() == Some(branch) && !it.missing);
    let made = its.and_then(|it| git::made_by_us(repository, &it.path));
    made.map(|made| facts::not_on_branch_of(repository, &made)).unwrap_or_default()
}
