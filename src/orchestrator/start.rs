//! From admitted to running: the directory, the worker's folder, the supervisor. One task for each worker; it ends in
//! following what it started. Nothing here changes the registry: it reports to the actor.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc;
use uuid::Uuid;

use super::actor::{Ask, Context, News};
use super::error::OrchestratorError;
use super::handle::blocking;
use super::{follow, probe, settle};
use crate::git::{self, Repository};
use crate::launcher::local;
use crate::mission::registry::Worker;
use crate::mission::spec::Place;
use crate::store::worker_dir::{AttemptDir, WorkerDir};
use crate::supervisor::assignment::Assignment;

pub(super) struct Order {
    pub worker: Arc<Worker>,
    pub worker_dir: WorkerDir,
    pub attempt_dir: AttemptDir,
    pub base_branches: Vec<String>,
    pub integration_branch: Option<String>,
}

pub(super) async fn start(context: Arc<Context>, mailbox: mpsc::UnboundedSender<Ask>, order: Order) {
    let order = Arc::new(order);
    let reporter = follow::Reporter::new(mailbox, &order.worker);
    match launch(&context, &order).await {
        Ok(base_commit) => reporter.tell(News::Started { base_commit }),
        Err(error) if !order.attempt_dir.is_claimed() => {
            return give_up(&reporter, &order, &error.to_string());
        }
        // It claimed the attempt and then went wrong: its record, or its loss, is found by following it.
        Err(error) => tracing::warn!(worker = %order.worker.id, %error, "a supervisor had trouble starting"),
    }
    follow::follow(order.attempt_dir.clone(), order.worker.clone(), reporter).await;
}

async fn launch(context: &Arc<Context>, order: &Arc<Order>) -> Result<Option<String>, OrchestratorError> {
    let (inner, work) = (Arc::clone(context), Arc::clone(order));
    let assignment = blocking(move || prepare(&inner, &work)).await?;
    local::start(&context.program, &order.attempt_dir)
        .await
        .map_err(|error| OrchestratorError::Refused(error.to_string()))?;
    Ok(assignment.base_commit)
}

/// Makes the directory and writes down what the supervisor needs to know.
fn prepare(context: &Context, order: &Order) -> Result<Assignment, OrchestratorError> {
    let worker = &order.worker;
    let program = probe::find_program(context, &worker.next.backend)?;
    let (directory, ours, base_commit) = place(context, order)?;
    let tag = format!("{}.{}.{}", worker.id, worker.attempt, Uuid::new_v4().simple());
    let socket_name = format!("{}.sock", &Uuid::new_v4().simple().to_string()[..16]);
    let folder = local::socket_folder().map_err(|error| OrchestratorError::Refused(error.to_string()))?;
    let assignment = Assignment {
        worker_id: worker.id.clone(),
        attempt: worker.attempt,
        tag,
        mission: worker.mission.clone(),
        backend: worker.next.backend.clone(),
        model: worker.next.model.clone().or_else(|| context.settings.backend(worker.next.backend.as_str()).model),
        effort: worker.next.effort.clone(),
        start: worker.next.start.clone(),
        directory,
        copies: order.worker_dir.worktree()?.map(|made: git::Worktree| made.copies).unwrap_or_default(),
        ours,
        base_commit,
        program,
        own_registrations: probe::own_registrations(&worker.next.backend),
        socket: folder.join(socket_name),
        settings: context.settings.clone(),
    };
    order.attempt_dir.create(&assignment)?;
    Ok(assignment)
}

/// The directory to work in, whether it is ours, and the commit that its changes are counted from.
fn place(context: &Context, order: &Order) -> Result<(PathBuf, bool, Option<String>), OrchestratorError> {
    match &order.worker.mission.place {
        Place::Directory { path } => {
            let repository = Repository::discover(path).ok().flatten();
            let head = repository.and_then(|_| git::head(path).ok().flatten());
            Ok((path.clone(), false, head))
        }
        Place::Worktree { path, .. } if path.join(".git").exists() => {
            let base = order.worker.base_commit.clone().or_else(|| git::head(path).ok().flatten());
            Ok((path.clone(), true, base))
        }
        Place::Worktree { path, branch, base } => {
            let repository = context
                .repository
                .as_ref()
                .ok_or_else(|| OrchestratorError::NoRepository { path: context.directory.clone() })?;
            let base = match base {
                Some(base) => Some(base.clone()),
                None => base_of(repository, order)?,
            };
            let allowed_roots = context.allowed_roots();
            let request = git::Request { branch: branch.clone(), base, path: Some(path.clone()), allowed_roots };
            let made = git::create(repository, &request, Some(&lock_reason(&order.worker))).map_err(refused)?;
            order.worker_dir.remember_worktree(&made)?;
            let base = order.worker.base_commit.clone().unwrap_or(made.base_commit);
            Ok((made.path, true, Some(base)))
        }
    }
}

/// Keeps everybody from removing the worktree while its worker is open.
pub(super) fn lock_reason(worker: &Worker) -> String {
    format!("orchestrator-boss: {} works here", worker.id)
}

/// What the mission depends on, merged; else the integration branch.
fn base_of(repository: &Repository, order: &Order) -> Result<Option<String>, OrchestratorError> {
    match order.base_branches.as_slice() {
        [] => Ok(order.integration_branch.clone()),
        [one] => Ok(Some(one.clone())),
        several => git::merge_of(repository, several).map(Some).map_err(refused),
    }
}

pub(super) fn refused(error: impl std::fmt::Display) -> OrchestratorError {
    OrchestratorError::Refused(error.to_string())
}

/// Nothing was started. Taking the claim makes sure that nothing ever will be, for this attempt.
fn give_up(reporter: &follow::Reporter, order: &Order, why: &str) {
    let attempt = &order.attempt_dir;
    let recorded = crate::store::file::make_private_dir(attempt.root()).and_then(|()| attempt.take_claim());
    if let Err(error) = recorded {
        tracing::error!(%error, "could not record that a worker did not start");
    }
    let outcome = settle::could_not_start(&order.worker, order.worker.attempt, why);
    if let Err(error) = attempt.settle(&outcome) {
        tracing::error!(%error, "could not record that a worker did not start");
    }
    reporter.tell(News::Ended(Box::new(outcome)));
}
