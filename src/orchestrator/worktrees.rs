//! Worktrees that bosses request by name, their removal, and the details in a worker's folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use super::actor_handle::ActorHandle;
use super::answers::*;
use super::blocking::blocking;
use super::checks;
use super::context::Context;
use super::error::OrchestratorError;
use super::follow;
use super::integration_branch;
use super::mailbox::{Ask, Lookup};
use super::merged;
use super::message_views;
use super::not_included;
use super::ports;
use crate::attempt::assignment::Assignment;
use crate::attempt::state_dir::StateDir;
use crate::attempt::worker_dir::{AttemptDir, WorkerDir};
use crate::crash_point::{self, Point};
use crate::files;
use crate::git::merged::Merged;
use crate::git::{self, Checkout, RemoveError, Repository};
use crate::mission::entry::Entry;
use crate::mission::hint::{Hint, Hinted};
use crate::mission::id::BossId;
use crate::mission::lifecycle::{Ending, WorkerStatus};
use crate::mission::outcome::PartFiles;
use crate::mission::registry::Worker;
use crate::mission::spec::Place;

type Result<T> = std::result::Result<T, OrchestratorError>;

pub(super) fn create(context: &Context, recorded: Option<String>, request: WorktreeRequest) -> Result<git::Worktree> {
    let repository = repository(context, request.repo_path.as_deref())?;
    let (tree, start) = match &request.repo_path {
        Some(path) => (git::working_tree(&context.directory.join(path)), None),
        None => (Some(context.tree().to_owned()), start(context, recorded, &request)?),
    };
    let request = git::Request {
        branch: request.branch,
        base: request.base,
        start,
        tree,
        is_made_up: false,
        path: request.path,
        folder: Some(context.worktrees_of(&repository)),
        allowed_roots: context.allowed_roots(&repository),
    };
    Ok(git::create(&repository, &request, None)?)
}

/// Returns the commit of the boss's integration branch, if one is needed. On a detached HEAD, the worktree starts at
/// HEAD.
fn start(context: &Context, recorded: Option<String>, request: &WorktreeRequest) -> Result<Option<String>> {
    let repository = context.repository()?;
    let is_there = git::names::tip(repository, git::names::branch_name(&request.branch)).is_ok_and(|tip| tip.is_some());
    if request.base.is_some() || is_there {
        return Ok(None);
    }
    match integration_branch::determine(context, recorded) {
        Ok(base) => Ok(Some(base.commit)),
        Err(_) if git::checked_out(&context.checkout()).is_ok_and(|branch| branch.is_none()) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn repository(context: &Context, named: Option<&Path>) -> Result<Repository> {
    let Some(path) = named else { return context.repository().cloned() };
    let path = context.directory.join(path);
    let otherwise = "leave it out for the repository that this server works in";
    let path = checks::existing_directory("repo_path", &path, otherwise)?;
    Repository::discover(&path, &context.trust)?.ok_or(OrchestratorError::NoRepository { path })
}

/// A worktree to remove.
struct Removal {
    path: PathBuf,
    /// True if it was requested by its path, and not by the name of its worker.
    by_path: bool,
    /// The worker that it was made for, or that was the last to work in it.
    worker: Option<Arc<Worker>>,
    /// Open workers that work in it, or in a folder of it.
    in_use_by: Vec<Arc<Worker>>,
}

pub(super) async fn remove(actor: &ActorHandle, boss: &BossId, request: RemovalRequest) -> Result<RemovalAnswer> {
    let lookup = actor.ask(|reply| Ask::Lookup { name: None, reply }).await??;
    let context = Arc::clone(&actor.context);
    let mut answer = RemovalAnswer::default();
    let targets = match &request.target {
        RemovalTarget::Path(path) => vec![at_path(&lookup, &context.directory.join(path))],
        RemovalTarget::Worker(name) => {
            let worker = actor.ask(|reply| Ask::Lookup { name: Some(name.clone()), reply }).await??.worker;
            worker.into_iter().map(|worker| of_worker(&lookup, worker)).collect()
        }
        RemovalTarget::AllIntegrated => {
            let ours: Vec<Arc<Worker>> = lookup.all.iter().filter(|it| is_removable(it, boss)).cloned().collect();
            let inner = Arc::clone(&context);
            let (integrated, unknown) = blocking(move || Ok(only_merged(&inner, ours))).await?;
            answer.kept.extend(unknown);
            integrated.into_iter().map(|worker| of_worker(&lookup, worker)).collect()
        }
    };
    for target in targets {
        let worker = target.worker.clone();
        let set = context.settings.integration_branch.as_deref();
        let branch = integration_branch::of_worker(set, worker.as_deref());
        let (context, request) = (Arc::clone(&context), request.clone());
        let path = target.path.clone();
        if let Some(settled) = worker.as_ref().filter(|worker| worker.status.is_settled()) {
            let dir = StateDir::open(&context.state_root)?.worker(&settled.id);
            follow::sweep_again(&dir, settled.attempt).await;
        }
        let removed = blocking(move || match why_not_all_is_on_its_branch(&context, &request, &target)? {
            Some(why) => Err(OrchestratorError::NotOnBranch { path: target.path.clone(), why }),
            None => remove_one(&context, &request, target, branch),
        });
        match removed.await {
            Ok(removed) => {
                crash_point::at(Point::WorktreeRemoved);
                let salvage_ref = removed.salvage_ref.clone();
                if let Some(worker) = worker {
                    let entry = Entry::WorktreeRemoved { worker: worker.id.clone(), salvage_ref };
                    let worker = worker.id.clone();
                    actor.ask(|reply| Ask::Record { worker, entry, reply }).await??;
                }
                answer.removed.push(removed);
            }
            Err(error) => answer.kept.push(KeptWorktree { path, why: Arc::new(error) }),
        }
    }
    Ok(answer)
}

fn of_worker(lookup: &Lookup, worker: Arc<Worker>) -> Removal {
    let path = worker.mission.place.path().to_owned();
    Removal { in_use_by: open_in(lookup, &path), path, by_path: false, worker: Some(worker) }
}

fn at_path(lookup: &Lookup, path: &Path) -> Removal {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    // The newest worker with this place.
    let worker = lookup.all.iter().rev().find(|worker| worker.mission.place.path() == path).cloned();
    Removal { in_use_by: open_in(lookup, &path), path, by_path: true, worker }
}

fn open_in(lookup: &Lookup, path: &Path) -> Vec<Arc<Worker>> {
    let works_there = |it: &&Arc<Worker>| !it.status.is_settled() && it.mission.place.path().starts_with(path);
    lookup.all.iter().filter(works_there).cloned().collect()
}

fn is_removable(worker: &Worker, boss: &BossId) -> bool {
    let ours = matches!(worker.mission.place, Place::Worktree { .. }) && !worker.worktree_removed;
    ours && worker.boss == *boss && worker.status.is_settled()
}

/// Returns the workers whose work is merged, and the worktrees of those of which git does not show whether it is.
fn only_merged(context: &Context, workers: Vec<Arc<Worker>>) -> (Vec<Arc<Worker>>, Vec<KeptWorktree>) {
    let set = context.settings.integration_branch.as_deref();
    let target = |worker: &Worker| integration_branch::of_worker(set, Some(worker));
    let asked: Vec<_> = workers.iter().map(|worker| (Arc::clone(worker), target(worker))).collect();
    let answers = context.caches.merged.ask(context.repository.as_ref(), &asked);
    let (mut merged, mut unknown) = (Vec::new(), Vec::new());
    for (worker, answer) in workers.into_iter().zip(answers) {
        match answer {
            Merged::Into { .. } => merged.push(worker),
            Merged::No | Merged::Partly(_) => {}
            Merged::Unknown => unknown.push(KeptWorktree {
                path: worker.mission.place.path().to_owned(),
                why: Arc::new(OrchestratorError::MergeUnknown { worker: worker.id.to_string() }),
            }),
        }
    }
    (merged, unknown)
}

/// Returns why a worktree stays when all integrated ones are removed: part of its work is not on its branch. A worktree
/// that is named by itself is not checked here.
fn why_not_all_is_on_its_branch(
    context: &Context,
    request: &RemovalRequest,
    target: &Removal,
) -> Result<Option<String>> {
    let RemovalTarget::AllIntegrated = request.target else { return Ok(None) };
    let Some(worker) = &target.worker else { return Ok(None) };
    let folder = StateDir::open(&context.state_root)?.worker(&worker.id);
    Ok(not_included::in_words(&not_included::of_worker(&context.trust, &folder, worker)))
}

fn remove_one(
    context: &Context,
    request: &RemovalRequest,
    target: Removal,
    integration_branch: Option<String>,
) -> Result<RemovedWorktree> {
    let repository = repository_at(context, request, &target)?;
    check_removable(context, &repository, &target)?;
    let made: Option<git::Worktree> = match &target.worker {
        Some(worker) => StateDir::open(&context.state_root)?.worker(&worker.id).worktree()?,
        None => None,
    };
    if let Some(made) = made.as_ref().filter(|made| made.path == target.path) {
        git::relink(&repository, made)?;
    }
    let remove = git::Remove {
        force: request.force,
        delete_branch: request.delete_branch,
        ignored: target
            .worker
            .as_deref()
            .map(|worker| ignored_work(&repository.at(&target.path), worker))
            .unwrap_or_default(),
        ..removal(target.path, target.worker.as_deref(), made, integration_branch)
    };
    let removed = match &target.worker {
        Some(worker) => {
            // Only its own lock is removed, and no lock of the user.
            let unlocked = match unlock(&repository, &remove.path, worker) {
                Err(_) if is_gone(&repository, &remove.path) => false,
                unlocked => unlocked?,
            };
            let removed = git::remove(&repository, &remove);
            if removed.is_err() && unlocked && !is_gone(&repository, &remove.path) {
                // One that stays is as safe as before.
                git::lock(&repository, &remove.path, &super::start::lock_reason(worker))?;
            }
            removed
        }
        None => git::remove(&repository, &remove),
    };
    let removed = match removed {
        // Another process has removed it first. This finishes the remaining steps.
        Err(_) if is_gone(&repository, &remove.path) => git::remove(&repository, &remove),
        removed => removed,
    };
    let removed = removed?;
    if let Some(worker) = &target.worker {
        ports::release(&StateDir::at(&context.state_root), &worker.id);
    }
    context.remove_empty_folder(&repository, &removed.path);
    Ok(RemovedWorktree {
        path: removed.path,
        branch: removed.branch,
        branch_deleted: removed.branch_deleted,
        salvage_ref: removed.salvage_ref.map(|salvaged| salvaged.name),
        note: removed.note,
    })
}

/// Returns the named repository, the one that the worktree belongs to, or else the server's own.
fn repository_at(context: &Context, request: &RemovalRequest, target: &Removal) -> Result<Repository> {
    if request.repo_path.is_none() {
        let is_there = target.by_path && target.path.exists();
        let around = if is_there { Repository::discover(&target.path, &context.trust).ok().flatten() } else { None };
        let recorded = || Some(repository_of(context, target.worker.as_ref()?));
        if let Some(found) = around.map(Ok).or_else(recorded) {
            return found;
        }
    }
    repository(context, request.repo_path.as_deref())
}

fn removal(
    path: PathBuf,
    worker: Option<&Worker>,
    made: Option<git::Worktree>,
    integration_branch: Option<String>,
) -> git::Remove {
    git::Remove {
        integration_branch,
        salvage_name: worker.map_or_else(|| salvage_name(&path), |worker| worker.id.to_string()),
        base: made.as_ref().map(|made| made.base_commit.clone()),
        copies: made.map(|made| made.copies).unwrap_or_default(),
        branch: worker.and_then(|worker| worker.mission.place.branch().map(str::to_owned)),
        earlier_integrations: worker.map(merged::earlier_integrations).unwrap_or_default(),
        path,
        ..git::Remove::default()
    }
}

/// Returns the ignored files and folders that outcomes of the worker named and that are still there.
fn ignored_work(path: &Checkout, worker: &Worker) -> Vec<PathBuf> {
    let parts = worker.settled.iter().flat_map(|brief| &brief.changes.not_on_branch);
    let recorded: Vec<_> = parts.filter_map(|part| part.files.as_ref()).filter_map(PartFiles::ignored).collect();
    if recorded.is_empty() || path.join(".git").symlink_metadata().is_err() {
        return Vec::new();
    }
    // If git cannot list them, the removal fails too and reports why.
    let now = git::uncommitted_and_ignored(path).map(|status| status.ignored).unwrap_or_default();
    recorded.iter().flat_map(|paths| git::not_on_branch::still_there(path, &now, *paths)).collect()
}

/// The reason why a worktree must not be removed.
#[derive(Debug, Error)]
pub enum StayReason {
    #[error("its worker is {status}")]
    Unsettled { status: WorkerStatus },
    #[error("its branch {branch} is not merged into {into} (commits that are not there: {commits})")]
    Unmerged { branch: String, into: String, commits: usize },
    #[error("uncommitted files: {count} ({})", samples.join(", "))]
    Uncommitted { count: usize, samples: Vec<String> },
    #[error("{0}")]
    NotOnBranch(String),
    #[error(transparent)]
    Failed(#[from] OrchestratorError),
}

impl Hinted for StayReason {
    fn hints(&self) -> Vec<Hint> {
        match self {
            Self::Failed(error) => error.hints(),
            _ => Vec::new(),
        }
    }
}

/// Returns why the worktree of a settled worker must not be removed: it, or its branch, holds work that exists nowhere
/// else. `None` if all of its work exists elsewhere. Changes nothing. Blocks.
pub fn why_it_stays(
    repository: &Repository,
    folder: &WorkerDir,
    worker: &Worker,
    integration_branch: Option<String>,
) -> Option<StayReason> {
    let made = match folder.worktree() {
        Ok(made) => made,
        Err(error) => return Some(StayReason::Failed(error.into())),
    };
    let path = worker.mission.place.path().to_owned();
    let remove = removal(path, Some(worker), made, integration_branch);
    match git::check_merged(repository, &remove, &super::start::lock_reason(worker)) {
        Ok(()) => {
            let parts = not_included::of_worker(&repository.trust, folder, worker);
            not_included::in_words(&parts).map(StayReason::NotOnBranch)
        }
        Err(RemoveError::Unmerged { branch, into, commits }) => Some(StayReason::Unmerged { branch, into, commits }),
        Err(RemoveError::Dirty { count, samples, .. }) => Some(StayReason::Uncommitted { count, samples }),
        Err(error) => Some(StayReason::Failed(error.into())),
    }
}

/// A folder may have a name that no ref can have.
fn salvage_name(path: &Path) -> String {
    let name = path.file_name().map_or("worktree".into(), |name| name.to_string_lossy());
    let plain = |character: char| if character.is_ascii_alphanumeric() || character == '-' { character } else { '-' };
    name.chars().map(plain).collect()
}

/// Not by force either: a live worktree holds a worker's work.
fn check_removable(context: &Context, repository: &Repository, target: &Removal) -> Result<()> {
    if let Some(worker) = target.in_use_by.first() {
        return Err(OrchestratorError::not_settled(worker, "remove the worktree of"));
    }
    let users_own = target.worker.as_ref().is_some_and(|it| matches!(it.mission.place, Place::Directory { .. }));
    // A worktree of create_worktree is removed by its path, regardless of the workers in it.
    if users_own && !(target.by_path && git::made_by_us(repository, &target.path).is_some()) {
        let path = target.path.clone();
        return Err(match git::made_by_us(repository, &path) {
            Some(_) => OrchestratorError::MadeByRequest { path },
            None => OrchestratorError::UsersDirectory { path },
        });
    }
    if context.directory.starts_with(&target.path) {
        return Err(OrchestratorError::OwnDirectory { path: target.path.clone() });
    }
    Ok(())
}

/// Its folder is not there, and git knows of it no more.
fn is_gone(repository: &Repository, path: &Path) -> bool {
    !path.exists() && git::list(repository).is_ok_and(|known| known.iter().all(|it| it.path != path))
}

/// Returns whether the lock is ours.
fn unlock(repository: &Repository, path: &Path, worker: &Worker) -> Result<bool> {
    let worktrees = git::list(repository)?;
    let reason = super::start::lock_reason(worker);
    let locked_by_us = worktrees.iter().any(|it| it.path == path && it.locked.as_deref() == Some(&reason));
    if locked_by_us {
        git::unlock(repository, path)?;
    }
    Ok(locked_by_us)
}

/// Returns the details of a worker that only its files contain. Blocks.
pub(super) fn details(context: &Context, view: WorkerView, include: &Include) -> Result<Details> {
    let worker = Arc::clone(&view.worker);
    let dir = context.state_root.join("workers").join(worker.id.as_str());
    let folder = crate::attempt::worker_dir::WorkerDir::new(dir);
    let attempt = folder.attempt(worker.attempt);
    Ok(Details {
        log: include.log.then(|| newest_events(&attempt, include.log_lines)),
        diff: if include.diff { diff(context, &worker, &attempt, include)? } else { None },
        messages: include.messages.then(|| message_views::messages_to_newest_attempt(&worker, &folder)),
        attempts: include
            .attempts
            .then(|| (1..=worker.attempt).filter_map(|n| folder.attempt(n).outcome().ok().flatten()).collect()),
        view: view.with_last_node(&folder),
        folder: folder.root().to_owned(),
    })
}

/// Returns the last events of an attempt, oldest first, without bookkeeping.
fn newest_events(attempt: &AttemptDir, most: usize) -> Vec<LoggedEvent> {
    let text = std::fs::read_to_string(attempt.events()).unwrap_or_default();
    let events = text.lines().rev().filter_map(|line| serde_json::from_str::<LoggedEvent>(line).ok());
    let mut newest: Vec<LoggedEvent> = events.filter(|logged| !logged.event.is_bookkeeping()).take(most).collect();
    newest.reverse();
    newest
}

/// Returns the commit that a worker's changes are counted from. `None` if it has not begun, or outside a repository.
pub fn base_commit(worker: &Worker, attempt: &AttemptDir) -> Result<Option<String>> {
    let assignment = files::read_json::<Assignment>(&attempt.assignment())?;
    let recorded = assignment.and_then(|assignment| assignment.base_commit);
    Ok(recorded.or_else(|| worker.base_commit.clone()))
}

/// Returns the branch that shows a worker's changes because its directory cannot: the directory is gone, or it is no
/// working tree any more, since its `.git` file is.
pub fn branch_to_compare(worker: &Worker) -> Option<&str> {
    let is_usable = match &worker.mission.place {
        Place::Worktree { path, .. } => git::is_working_tree(path),
        Place::Directory { path } => path.exists(),
    };
    worker.branch().filter(|_| !is_usable)
}

/// Returns the changes in its directory or, if the worktree is gone, those on its branch.
fn diff(context: &Context, worker: &Worker, attempt: &AttemptDir, include: &Include) -> Result<Option<DiffPage>> {
    let Some(base) = base_commit(worker, attempt)? else { return Ok(None) };
    let (directory, offset, most) = (worker.mission.place.path(), include.diff_offset, include.diff_bytes);
    Ok(Some(match branch_to_compare(worker) {
        Some(branch) => {
            let repository = repository_of(context, worker)?;
            let tip = git::branch_tip(&repository, branch, worker.last_commit())?;
            git::commit_diff(&repository, &tip.commit, &base, offset, most)?
        }
        None => git::diff(&context.checkout_of(directory), &base, offset, most)?,
    }))
}

/// Returns whether a worker has completed, so that its result can be merged.
pub(super) fn completed(worker: &Worker) -> bool {
    worker.status == WorkerStatus::Settled(Ending::Completed)
}

/// Returns the repository that holds a worker's work: the recorded one, or else the one around its directory, or else
/// that of this state directory.
pub(super) fn repository_of(context: &Context, worker: &Worker) -> Result<Repository> {
    if let Some(root) = &worker.repository {
        let found = if root.exists() { Repository::discover(root, &context.trust)? } else { None };
        let gone = || OrchestratorError::RepositoryGone { worker: worker.id.to_string(), path: root.clone() };
        return found.ok_or_else(gone);
    }
    if let Place::Directory { path } = &worker.mission.place
        && path.exists()
        && let Some(found) = Repository::discover(path, &context.trust)?
    {
        return Ok(found);
    }
    context.repository().cloned()
}
