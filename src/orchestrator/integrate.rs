//! Integration of workers' branches into another branch. This file reads the request: which branches, from which
//! commits, into which branch. [`super::train`] carries it out, as a job of [`super::jobs`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::actor_handle::ActorHandle;
use super::answers::*;
use super::blocking::blocking;
use super::context::Context;
use super::error::OrchestratorError;
use super::jobs::{Joined, Order, Source};
use super::mailbox::Ask;
use super::train;
use super::{configuration, integration_branch, merged, not_included, worktrees};
use crate::git::merged::Merged;
use crate::git::{self, IntegrateError, Repository};
use crate::mission::hint::Advice;
use crate::mission::id::BossId;
use crate::mission::outcome::NotOnBranch;
use crate::mission::race;
use crate::mission::registry::Worker;
use crate::mission::spec::Place;

type Result<T> = std::result::Result<T, OrchestratorError>;

pub(super) async fn integrate(
    actor: &ActorHandle,
    boss: &BossId,
    request: IntegrationRequest,
) -> Result<IntegrationAnswer> {
    let context = Arc::clone(&actor.context);
    let (order, left_out, workers) = read(actor, boss, &request).await?;
    let (inner, repository) = (Arc::clone(&context), order.repository.clone());
    blocking(move || configuration::check(&inner, &repository)).await?;
    let own_worktree = matches!(workers.as_slice(), [one] if matches!(one.mission.place, Place::Worktree { .. }));
    let (inner, repository, sources) = (Arc::clone(&context), order.repository.clone(), order.sources.clone());
    let not_included = blocking(move || Ok(not_included::of_sources(&inner, &repository, &sources, &workers)));
    // Runs in parallel: both mostly start git, and neither changes what the other reads.
    let (answer, not_included) = tokio::join!(carry_out(actor, &request, order, left_out), not_included);
    Ok(with_not_included(IntegrationAnswer { own_worktree, ..answer? }, not_included?))
}

/// Adds the work that is not on its branch to the answer. An answer `already_merged` or `already_integrated` then
/// becomes `incomplete`.
fn with_not_included(answer: IntegrationAnswer, not_included: Vec<(String, NotOnBranch)>) -> IntegrationAnswer {
    let mut answer = IntegrationAnswer { not_included, ..answer };
    let is_there = matches!(answer.status, IntegrationStatus::AlreadyMerged | IntegrationStatus::AlreadyIntegrated);
    if is_there && !answer.not_included.is_empty() {
        answer.status = IntegrationStatus::Incomplete;
        answer.integrated.retain(|name| answer.not_included.iter().all(|(of, _)| of != name));
    }
    answer
}

async fn carry_out(
    actor: &ActorHandle,
    request: &IntegrationRequest,
    order: Order,
    left_out: Vec<(String, Advice)>,
) -> Result<IntegrationAnswer> {
    if request.dry_run {
        let mut answer = train::try_out(actor, &order, left_out).await?;
        answer.notes.extend(foretold(actor, &order).await?);
        return Ok(answer);
    }
    let (repository, into) = (order.repository.clone(), order.into.clone());
    let target = blocking(move || Ok(git::integrate::tip(&repository, &into).ok())).await?;
    let begin = |progress| train::run(actor.clone(), order.clone(), left_out, progress);
    match actor.jobs.join(&order, target.as_deref(), request.patience, begin).await {
        Joined::Done(answer) => *answer,
        Joined::Running(doing) => Ok(running(&order, doing)),
    }
}

/// Returns notes on known conflicts with workers that are not part of the order. They will conflict when they are
/// merged later.
async fn foretold(actor: &ActorHandle, order: &Order) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    for worker in order.sources.iter().filter_map(|source| source.worker.as_ref()) {
        let view = actor.get(worker.as_str()).await?;
        let is_in = |id: &str| order.sources.iter().any(|it| it.worker.as_ref().is_some_and(|it| it.as_str() == id));
        let others = view.collisions.iter().filter(|it| !it.is_with_integration_branch() && !is_in(it.with.name()));
        let named: Vec<String> = others.map(|it| format!("{} in {}", it.with.name(), it.paths.join(", "))).collect();
        if !named.is_empty() {
            notes.push(format!("once {worker} is merged, these conflict with it: {}", named.join("; ")));
        }
        if view.unchecked.is_some() {
            notes.push(format!(
                "whether {worker} conflicts with other workers' branches was not checked, as there are too many"
            ));
        }
    }
    Ok(notes)
}

fn running(order: &Order, doing: String) -> IntegrationAnswer {
    IntegrationAnswer { notes: vec![doing], ..train::answer(order, IntegrationStatus::Running) }
}

/// Reads a request. Returns the order, the workers that cannot be part of it with the reason, and the named workers. A
/// single worker that cannot be integrated is an error.
async fn read(
    actor: &ActorHandle,
    boss: &BossId,
    request: &IntegrationRequest,
) -> Result<(Order, Vec<(String, Advice)>, Vec<Arc<Worker>>)> {
    let names = match &request.source {
        IntegrationSource::Worker(name) => vec![name.clone()],
        IntegrationSource::Train(names) => names.clone(),
        IntegrationSource::Branch(_) => Vec::new(),
    };
    let mut workers = Vec::new();
    let mut targets = Vec::new();
    for name in names {
        let lookup = actor.ask(|reply| Ask::Lookup { name: Some(name.clone()), reply }).await??;
        let unknown = || OrchestratorError::NoWorkers { name: name.clone() };
        let worker = lookup.worker.ok_or_else(unknown)?;
        // A one-shot client acts for the user, who may integrate the work of any boss.
        if worker.boss != *boss && !actor.context.is_one_shot {
            return Err(OrchestratorError::NotYours { name: worker.id.to_string(), what: "integrate" });
        }
        note(&mut targets, &worker, lookup.integration_branch);
        if !workers.iter().any(|it: &Arc<Worker>| it.id == worker.id) {
            workers.push(worker);
        }
    }
    let boss = boss.clone();
    let recorded = if workers.is_empty() {
        actor.ask(|reply| Ask::RecordedBranch { boss, reply }).await?
    } else {
        only_target(&targets, request.into.is_some())?
    };
    let all =
        if workers.is_empty() { actor.ask(|reply| Ask::Lookup { name: None, reply }).await??.all } else { Vec::new() };
    let (context, request) = (Arc::clone(&actor.context), request.clone());
    blocking(move || {
        let (order, left_out) = order(&context, &request, recorded, &workers, &all)?;
        Ok((order, left_out, workers))
    })
    .await
}

/// Adds a worker to the list of its target branch, which the setting or its own record names.
fn note(targets: &mut Vec<(String, Vec<String>)>, worker: &Worker, target: Option<String>) {
    let Some(target) = target else { return };
    match targets.iter_mut().find(|(branch, _)| *branch == target) {
        Some((_, workers)) => workers.push(worker.id.to_string()),
        None => targets.push((target, vec![worker.id.to_string()])),
    }
}

/// Returns the target branch that all workers share. Several targets are refused unless the request names one.
fn only_target(targets: &[(String, Vec<String>)], is_named: bool) -> Result<Option<String>> {
    match targets {
        [] => Ok(None),
        [(only, _)] => Ok(Some(only.clone())),
        _ if is_named => Ok(None),
        several => {
            let named = several.iter().map(|(branch, workers)| format!("{branch} for {}", workers.join(", ")));
            let named = named.collect::<Vec<_>>().join("; ");
            Err(OrchestratorError::SeveralTargets { named })
        }
    }
}

/// Builds the order. `all` lists the workers that may own a branch that is named.
fn order(
    context: &Context,
    request: &IntegrationRequest,
    recorded: Option<String>,
    workers: &[Arc<Worker>],
    all: &[Arc<Worker>],
) -> Result<(Order, Vec<(String, Advice)>)> {
    let mut left_out = Vec::new();
    let mut sources = Vec::new();
    let mut setup_command = setup_command(workers);
    let repository = match (&request.repo_path, workers.first()) {
        (None, Some(worker)) => worktrees::repository_of(context, worker)?,
        (named, _) => worktrees::repository(context, named.as_deref())?,
    };
    if let IntegrationSource::Branch(branch) = &request.source {
        let branch = git::names::branch_name(branch);
        let tip = git::integrate::tip(&repository, branch)
            .map_err(|error| elsewhere(context, &repository, all, branch, error))?;
        let message = format!("Merge branch '{branch}'");
        let is_its = |worker: &&Arc<Worker>| {
            worker.branch() == Some(branch)
                && worktrees::repository_of(context, worker).is_ok_and(|it| it == repository)
        };
        let owner = all.iter().rev().find(is_its);
        setup_command = owner.and_then(|worker| worker.mission.setup_command.clone());
        let made_by = owner.map(|worker| worker.id.clone());
        sources.push(Source { worker: None, made_by, branch: branch.to_owned(), tip, message, note: None });
    }
    for worker in workers {
        match (source(context, &repository, worker, request.into.as_deref()), &request.source) {
            (Ok(source), _) => sources.push(source),
            (Err(why), IntegrationSource::Train(_)) => left_out.push((worker.id.to_string(), Advice::of(&why))),
            (Err(why), _) => return Err(why),
        }
    }
    // Records and settings of the repository of this state directory do not apply to another one.
    let is_ours = context.repository.as_ref() == Some(&repository);
    let set = || context.settings.integration_branch.clone().filter(|_| workers.is_empty());
    let known = || set().or(recorded).filter(|_| is_ours);
    let into = match request.into.clone().or_else(known) {
        Some(into) => git::names::branch_name(&into).to_owned(),
        None if is_ours => integration_branch::checked_out(context)?,
        None => repository.integration_branch()?,
    };
    if let Some(same) = sources.iter().find(|source| source.branch == into) {
        return Err(IntegrateError::SameBranch { branch: same.branch.clone() }.into());
    }
    let order = Order {
        repository,
        sources,
        into,
        strategy: request.strategy,
        verify_command: request.verify_command.clone(),
        setup_command,
        directory: if is_ours { directory(context, workers) } else { None },
        push: request.push,
    };
    Ok((order, left_out))
}

/// Returns the setup command of the missions, if they share one.
fn setup_command(workers: &[Arc<Worker>]) -> Option<String> {
    let mut commands = workers.iter().map(|worker| worker.mission.setup_command.as_ref());
    let first = commands.next()?;
    first.filter(|first| commands.all(|other| other == Some(first))).cloned()
}

/// Returns the subfolder in which the verification runs: that of the workers if they share one, or else that of the
/// boss.
fn directory(context: &Context, workers: &[Arc<Worker>]) -> Option<PathBuf> {
    let mut places = workers.iter().map(|worker| worker.mission.place.subfolder());
    match places.next() {
        Some(first) if places.all(|other| other == first) => first.map(Path::to_owned),
        _ => Some(context.subfolder().to_owned()).filter(|own| !own.as_os_str().is_empty()),
    }
}

/// Improves the error for an unknown branch if a worker in another repository owns that branch.
fn elsewhere(
    context: &Context,
    repository: &Repository,
    all: &[Arc<Worker>],
    branch: &str,
    error: IntegrateError,
) -> OrchestratorError {
    let is_its = |worker: &&Arc<Worker>| worker.branch() == Some(branch);
    let with_place = |worker: &Arc<Worker>| Some((worker.clone(), worktrees::repository_of(context, worker).ok()?));
    let mut others = all.iter().rev().filter(is_its).filter_map(with_place);
    let other = others.find(|(_, other)| other != repository);
    match (&error, other) {
        (IntegrateError::UnknownBranch { .. }, Some((worker, other))) => OrchestratorError::BranchElsewhere {
            branch: branch.to_owned(),
            worker: worker.id.to_string(),
            repository: other.root().to_owned(),
        },
        _ => error.into(),
    }
}

fn source(context: &Context, repository: &Repository, worker: &Worker, into: Option<&str>) -> Result<Source> {
    check(worker)?;
    let own = worktrees::repository_of(context, worker)?;
    if own != *repository {
        return Err(OrchestratorError::WorkElsewhere {
            worker: worker.id.to_string(),
            repository: own.root().to_owned(),
            here: repository.root().to_owned(),
        });
    }
    let branch = branch_of(worker)?;
    let tip = tip_of(repository, worker, &branch, into)?;
    let message = format!("{}\n\nMerged from {branch} ({}).", worker.mission.title, worker.id);
    let (worker_id, note) = (Some(worker.id.clone()), race::note_on_loser(worker));
    Ok(Source { worker: worker_id, made_by: None, branch, tip, message, note })
}

fn check(worker: &Worker) -> Result<()> {
    if !worker.status.is_settled() {
        return Err(OrchestratorError::not_settled(worker, "integrate"));
    }
    if !worktrees::completed(worker) {
        return Err(OrchestratorError::NotCompleted {
            worker: worker.id.to_string(),
            status: worker.status,
            branch: branch_of(worker)?,
        });
    }
    Ok(())
}

/// Returns the tip of a worker's branch. If the branch was deleted, this is its last known commit if git shows that the
/// work is merged; else the error names that commit.
fn tip_of(repository: &Repository, worker: &Worker, branch: &str, into: Option<&str>) -> Result<String> {
    match (git::integrate::local_tip(repository, branch), worker.last_commit()) {
        (Err(IntegrateError::UnknownBranch { .. }), Some(head)) if is_merged(repository, worker, into) => {
            Ok(head.to_owned())
        }
        (Err(IntegrateError::UnknownBranch { .. }), Some(head)) => Err(OrchestratorError::BranchDeleted {
            worker: worker.id.to_string(),
            branch: branch.to_owned(),
            head: head.to_owned(),
        }),
        (tip, _) => tip.map_err(OrchestratorError::from),
    }
}

fn is_merged(repository: &Repository, worker: &Worker, into: Option<&str>) -> bool {
    let target = into.or(worker.integration_branch.as_deref()).map(str::to_owned);
    let target = target.or_else(|| repository.integration_branch().ok());
    let answers = git::merged::merged(repository, &[merged::work(worker, target)]);
    matches!(answers.as_slice(), [Merged::Into { .. }])
}

fn branch_of(worker: &Worker) -> Result<String> {
    worker.branch().map(str::to_owned).ok_or_else(|| {
        let path = worker.mission.place.path().to_owned();
        OrchestratorError::NoBranch { worker: worker.id.to_string(), path }
    })
}
