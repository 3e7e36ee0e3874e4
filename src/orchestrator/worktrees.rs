//! Worktrees that bosses ask for by name, their removal, and what a worker's folder has to tell.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::actor::{Ask, Context, Lookup};
use super::answers::*;
use super::error::OrchestratorError;
use super::follow;
use super::handle::{Orchestrator, blocking};
use super::start::refused;
use crate::crash_point::{self, Point};
use crate::git::{self, Repository};
use crate::mission::causes::with_causes;
use crate::mission::entry::Entry;
use crate::mission::id::BossId;
use crate::mission::lifecycle::{Ending, WorkerStatus};
use crate::mission::registry::Worker;
use crate::mission::spec::Place;
use crate::store::file;
use crate::store::state_dir::StateDir;
use crate::store::worker_dir::{AttemptDir, Content};
use crate::supervisor::assignment::{Assignment, LiveStatus};

type Result<T> = std::result::Result<T, OrchestratorError>;

pub(super) fn create(context: &Context, request: WorktreeRequest) -> Result<WorktreeAnswer> {
    let repository = repository(context, request.repo_path.as_deref())?;
    let request = git::Request {
        branch: request.branch,
        base: request.base,
        path: request.path,
        allowed_roots: context.allowed_roots(),
    };
    let made = git::create(&repository, &request, None).map_err(refused)?;
    Ok(WorktreeAnswer {
        path: made.path,
        branch: made.branch,
        base_commit: made.base_commit,
        created_branch: made.created_branch,
        repo_path: made.repo_path,
    })
}

pub(super) fn repository(context: &Context, named: Option<&Path>) -> Result<Repository> {
    let Some(path) = named else { return context.repository().cloned() };
    let path = context.directory.join(path);
    Repository::discover(&path).map_err(refused)?.ok_or(OrchestratorError::NoRepository { path })
}

/// One worktree to remove, and the worker that it was made for, if any.
struct Removal {
    path: PathBuf,
    worker: Option<Arc<Worker>>,
}

pub(super) async fn remove(
    orchestrator: &Orchestrator,
    boss: &BossId,
    request: RemovalRequest,
) -> Result<RemovalAnswer> {
    let lookup = orchestrator.ask(|reply| Ask::Lookup { name: None, reply }).await??;
    let context = orchestrator.shared();
    let targets = match &request.target {
        RemovalTarget::Path(path) => {
            let path = context.directory.join(path);
            vec![Removal { worker: worker_in(&lookup, &path), path }]
        }
        RemovalTarget::Worker(name) => {
            let worker = orchestrator.ask(|reply| Ask::Lookup { name: Some(name.clone()), reply }).await??.worker;
            worker.into_iter().map(of_worker).collect()
        }
        RemovalTarget::AllIntegrated => {
            lookup.all.iter().filter(|it| is_integrated(it, boss)).cloned().map(of_worker).collect()
        }
    };
    let integration_branch = lookup.integration_branch;
    let mut answer = RemovalAnswer::default();
    for target in targets {
        let (context, request, branch) = (Arc::clone(&context), request.clone(), integration_branch.clone());
        let worker = target.worker.clone();
        let path = target.path.clone();
        if let Some(settled) = worker.as_ref().filter(|worker| worker.status.is_settled()) {
            let dir = StateDir::open(&context.state_root)?.worker(&settled.id);
            follow::sweep_again(&dir, settled.attempt).await;
        }
        match blocking(move || remove_one(&context, &request, target, branch)).await {
            Ok(removed) => {
                crash_point::at(Point::WorktreeRemoved);
                let salvage_ref = removed.salvage_ref.clone();
                if let Some(worker) = worker {
                    let entry = Entry::WorktreeRemoved { worker: worker.id.clone(), salvage_ref };
                    let worker = worker.id.clone();
                    orchestrator.ask(|reply| Ask::Record { worker, entry, reply }).await??;
                }
                answer.removed.push(removed);
            }
            Err(error) => answer.kept.push(KeptWorktree { path, why: with_causes(&error) }),
        }
    }
    Ok(answer)
}

fn of_worker(worker: Arc<Worker>) -> Removal {
    Removal { path: worker.mission.place.path().to_owned(), worker: Some(worker) }
}

/// The newest worker whose place this is.
fn worker_in(lookup: &Lookup, path: &Path) -> Option<Arc<Worker>> {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    lookup.all.iter().rev().find(|worker| worker.mission.place.path() == path).cloned()
}

fn is_integrated(worker: &Worker, boss: &BossId) -> bool {
    let ours = matches!(worker.mission.place, Place::Worktree { .. }) && !worker.worktree_removed;
    ours && worker.boss == *boss && worker.status.is_settled() && worker.integrated.is_some()
}

fn remove_one(
    context: &Context,
    request: &RemovalRequest,
    target: Removal,
    integration_branch: Option<String>,
) -> Result<RemovedWorktree> {
    if let Some(worker) = &target.worker {
        check_removable(worker)?;
    }
    let repository = repository(context, request.repo_path.as_deref())?;
    let copies = match &target.worker {
        Some(worker) => {
            let dir = StateDir::open(&context.state_root)?.worker(&worker.id);
            // Its own lock, from when it was made; nobody else's is taken off.
            unlock(&repository, &target.path, worker)?;
            dir.worktree()?.map(|made: git::Worktree| made.copies).unwrap_or_default()
        }
        None => Vec::new(),
    };
    let salvage_name = match &target.worker {
        Some(worker) => worker.id.to_string(),
        None => target.path.file_name().map_or("worktree".into(), |name| name.to_string_lossy().into_owned()),
    };
    let remove = git::Remove {
        path: target.path,
        force: request.force,
        delete_branch: request.delete_branch,
        integration_branch,
        salvage_name,
        copies,
        branch: target.worker.as_ref().and_then(|worker| worker.mission.place.branch().map(str::to_owned)),
    };
    let removed = git::remove(&repository, &remove).map_err(refused)?;
    Ok(RemovedWorktree {
        path: removed.path,
        branch: removed.branch,
        salvage_ref: removed.salvage_ref.map(|salvaged| salvaged.name),
    })
}

/// Not by force either: a live worktree holds a worker's work.
fn check_removable(worker: &Worker) -> Result<()> {
    if let Place::Directory { path } = &worker.mission.place {
        let why =
            format!("{} is the user's own directory, not a worktree of ours: it is never removed", path.display());
        return Err(OrchestratorError::Refused(why));
    }
    match worker.status {
        WorkerStatus::Settled(_) => Ok(()),
        status => Err(OrchestratorError::NotSettled {
            worker: worker.id.to_string(),
            status: status.as_str(),
            mend: "wait for it, or cancel_worker it, before its worktree is removed",
        }),
    }
}

fn unlock(repository: &Repository, path: &Path, worker: &Worker) -> Result<()> {
    let worktrees = git::list(repository).map_err(refused)?;
    let reason = super::start::lock_reason(worker);
    let locked_by_us = worktrees.iter().any(|it| it.path == path && it.locked.as_deref() == Some(&reason));
    if locked_by_us {
        git::unlock(repository, path).map_err(refused)?;
    }
    Ok(())
}

/// What the files of a worker say beyond the registry. Blocks.
pub(super) fn details(context: &Context, view: WorkerView, include: &Include) -> Result<Details> {
    let worker = Arc::clone(&view.worker);
    let dir = context.state_root.join("workers").join(worker.id.as_str());
    let folder = crate::store::worker_dir::WorkerDir::new(dir);
    let attempt = folder.attempt(worker.attempt);
    Ok(Details {
        log: include.log.then(|| newest_events(&attempt, include.log_lines)),
        diff: if include.diff { diff(context, &worker, &attempt, include)? } else { None },
        messages: include.messages.then(|| messages(&attempt)).transpose()?,
        attempts: include
            .attempts
            .then(|| (1..=worker.attempt).filter_map(|n| folder.attempt(n).outcome().ok().flatten()).collect()),
        folder: folder.root().to_owned(),
        view,
    })
}

/// The last events of an attempt, oldest of them first.
fn newest_events(attempt: &AttemptDir, most: usize) -> Vec<LoggedEvent> {
    let text = std::fs::read_to_string(attempt.events()).unwrap_or_default();
    let mut newest: Vec<LoggedEvent> =
        text.lines().rev().filter_map(|line| serde_json::from_str(line).ok()).take(most).collect();
    newest.reverse();
    newest
}

/// Against the files in its directory; of a worktree that is gone, what is on its branch.
fn diff(context: &Context, worker: &Worker, attempt: &AttemptDir, include: &Include) -> Result<Option<DiffPage>> {
    let assignment = file::read_json::<Assignment>(&attempt.assignment())?;
    let told = assignment.and_then(|assignment| assignment.base_commit);
    let Some(base) = told.or_else(|| worker.base_commit.clone()) else { return Ok(None) };
    let (directory, offset, most) = (worker.mission.place.path(), include.diff_offset as u64, include.diff_bytes);
    let page = match worker.mission.place.branch().filter(|_| !directory.exists()) {
        Some(branch) => git::branch_diff(context.repository()?, branch, &base, offset, most).map_err(refused)?,
        None => git::diff(directory, &base, offset, most).map_err(refused)?,
    };
    Ok(Some(DiffPage { text: page.text, next_offset: page.next_offset.map(|offset| offset as usize) }))
}

fn messages(attempt: &AttemptDir) -> Result<Vec<MessageView>> {
    // Without it only the receipts are missing, not the messages.
    let status: Option<LiveStatus> = file::read_json(&attempt.status()).ok().flatten();
    let receipts = status.map(|status| status.receipts).unwrap_or_default();
    let letters = attempt.letters(0)?.into_iter().filter(|letter| matches!(letter.content, Content::Message { .. }));
    let view = |letter: crate::store::worker_dir::Letter| MessageView {
        // The newest says how far it came.
        receipt: receipts.iter().rev().find(|receipt| receipt.message_id == letter.id).cloned(),
        letter,
    };
    Ok(letters.map(view).collect())
}

/// Whether a worker's result can be merged: it ended well, or the boss asks for it by branch.
pub(super) fn completed(worker: &Worker) -> bool {
    worker.status == WorkerStatus::Settled(Ending::Completed)
}
