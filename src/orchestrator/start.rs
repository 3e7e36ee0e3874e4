//! The start of a worker, from admission to running: the directory, the worker's folder, the supervisor. Each worker
//! has one task, which follows it afterwards. Nothing here changes the registry: the task reports to the actor.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::blocking::blocking;
use super::context::Context;
use super::error::OrchestratorError;
use super::mailbox::{Ask, Report};
use super::{configuration, follow, job_environment, outcomes, ports, probe, registrations};
use crate::attempt::assignment::{Assignment, SetupTask, folder_within};
use crate::attempt::inbox::InboxEntry;
use crate::attempt::launch::{Launch, PassedEnvironment};
use crate::attempt::secrets::Secrets;
use crate::attempt::sockets;
use crate::attempt::status::LiveStatus;
use crate::attempt::worker_dir::{AttemptDir, WorkerDir};
use crate::config::SetupSettings;
use crate::crash_point::{self, Point};
use crate::files::FileError;
use crate::git::merged::Merged;
use crate::git::{self, Repository};
use crate::launcher::local::{self, LaunchError};
use crate::mission::context;
use crate::mission::hint::with_hints;
use crate::mission::lifecycle::Ending;
use crate::mission::outcome::{Failure, FailureKind, Outcome};
use crate::mission::registry::Worker;
use crate::mission::spec::{ContextSource, Place};
use crate::process;

pub(super) struct StartOrder {
    pub worker: Arc<Worker>,
    pub worker_dir: WorkerDir,
    pub attempt_dir: AttemptDir,
    /// The commits to build on: see [`crate::mission::graph::bases`].
    pub bases: Vec<String>,
    /// Dependencies that were integrated once. The integration may have been undone since.
    pub integrated: Vec<Arc<Worker>>,
    /// The integration branch, by its full name.
    pub integration_branch: Option<String>,
    pub reports: Vec<ReportOrder>,
}

/// A worker whose final message is context of the one that starts.
pub(super) struct ReportOrder {
    pub source: ContextSource,
    /// `None` if it is no longer known.
    pub from: Option<Arc<Worker>>,
    /// The folder of its last settled attempt.
    pub dir: Option<AttemptDir>,
}

pub(super) async fn start(context: Arc<Context>, mailbox: mpsc::UnboundedSender<Ask>, order: StartOrder) {
    let order = Arc::new(order);
    let reporter = follow::Reporter::new(mailbox, &order.worker);
    match launch(&context, &order).await {
        // The follower reports the start of a supervisor that runs as a job.
        Ok(worker) if worker.next.run_on.is_some() => {}
        Ok(worker) => {
            let Worker { base_commit, base_branch, repository, .. } = worker;
            reporter.send(Report::Started { base_commit, base_branch, repository });
        }
        Err(error) => match order.attempt_dir.fence() {
            Ok(true) => return give_up(&context, &reporter, &order, &with_hints(&error)),
            // It claimed the attempt and failed later. Its record, or its loss, is found by following it.
            Ok(false) => tracing::warn!(worker = %order.worker.id, %error, "a supervisor had trouble starting"),
            // The folder belongs to another program: nothing was started there, and nothing can be written there.
            Err(FileError::Foreign { .. }) => {
                let outcome = could_not_start(&context, &order.worker, &with_hints(&error));
                return reporter.send(Report::Ended(Box::new(outcome)));
            }
            Err(unsure) => return reporter.send(Report::OutOfSight { why: format!("{error}; {unsure}") }),
        },
    }
    follow::follow(&context, order.attempt_dir.clone(), order.worker.clone(), reporter, true).await;
}

/// Prepares an attempt, and starts it unless a cluster does. Returns the worker with the data that its place has provided.
async fn launch(context: &Arc<Context>, order: &Arc<StartOrder>) -> Result<Worker, OrchestratorError> {
    let (inner, work) = (Arc::clone(context), Arc::clone(order));
    let cluster = order.worker.next.run_on.as_deref().and_then(|name| context.clusters.get(name));
    let turn = match &cluster {
        Some(cluster) => cluster.turn_to_prepare().await,
        None => None,
    };
    let begins = blocking(move || prepare(&inner, &work)).await?;
    drop(turn);
    crash_point::at(Point::AttemptPrepared);
    if begins.next.run_on.is_none() {
        local::start(&context.program, &order.attempt_dir, &Secrets::of(&context.settings)).await?;
        crash_point::at(Point::SupervisorReady);
    }
    Ok(begins)
}

/// Creates the directory and writes down what the supervisor needs.
fn prepare(context: &Context, order: &StartOrder) -> Result<Worker, OrchestratorError> {
    let worker = &order.worker;
    let run_on = worker.next.run_on.as_deref();
    let program = match run_on {
        None => probe::find_program(context, &worker.next.backend)?,
        Some(_) => probe::program_on_node(context, &worker.next.backend)?,
    };
    if context.repository.is_some() {
        // The configuration is recorded before git writes a file of the new worktree.
        configuration::remember_ours(context)?;
    }
    let repository = match &worker.mission.place {
        Place::Directory { path } => Repository::discover(path, &context.trust)?,
        Place::Worktree { .. } => context.repository.clone(),
    };
    let (placed, main_checkout) = std::thread::scope(|scope| {
        // Runs in parallel with the creation of the worktree, which takes longer and does not affect it.
        let looking = scope.spawn(|| main_checkout(context, worker));
        (place(context, order, repository.as_ref()), looking.join().ok().flatten())
    });
    let (directory, ours, base_commit) = placed?;
    let start = worker.mission.place.subfolder().map_or_else(|| directory.clone(), |inner| directory.join(inner));
    let setup = setup(context, order, repository.as_ref())?;
    let made: Option<git::Worktree> = order.worker_dir.worktree()?;
    let prepared_at = order.worker_dir.setup()?.map(|setup| setup.ended_at);
    let prepared_at = prepared_at.max(made.as_ref().and_then(|made| made.seeded_at));
    let tag = format!("{}.{}.{}", worker.id, worker.attempt, Uuid::new_v4().simple());
    let tag = process::tag_at_depth(tag, context.depth + 1);
    let port = ours.then(|| ports::block_of(&order.attempt_dir.state_dir(), &worker.id)).flatten();
    let assignment = Assignment {
        worker_id: worker.id.clone(),
        attempt: worker.attempt,
        tag,
        mission: worker.mission.clone(),
        backend: worker.next.backend.clone(),
        model: worker.next.model.clone().or_else(|| context.settings.backend(worker.next.backend.as_str()).model),
        effort: worker.next.effort.clone(),
        start: worker.next.start.clone(),
        context: context_of(&order.reports),
        written: worker.next.written.clone(),
        repository: repository.map(|it| configuration::for_supervisor(context, it)).transpose()?,
        own_registrations: registrations::own(&worker.next.backend, &start),
        directory,
        copies: made.map(|made| made.copies).unwrap_or_default(),
        ours,
        base_commit,
        main_checkout,
        setup,
        prepared_at,
        port,
        ports_in_use: port.filter(|_| run_on.is_none()).map(ports::in_use).unwrap_or_default(),
        program,
        // A supervisor that runs as a job chooses its socket on the node.
        socket: match run_on {
            None => sockets::new_socket_in(&sockets::user_folder().map_err(LaunchError::from)?),
            Some(_) => PathBuf::new(),
        },
        launcher: run_on.map(str::to_owned),
        settings: Secrets::without(&context.settings),
        settings_file: context.settings.file.clone(),
    };
    let elsewhere = assignment.repository.as_ref().filter(|it| context.repository.as_ref() != Some(it));
    let begins = Worker {
        base_branch: base_branch(order, assignment.base_commit.as_deref(), assignment.repository.as_ref()),
        base_commit: assignment.base_commit.clone(),
        repository: elsewhere.map(|it| it.root().to_owned()),
        ..Worker::clone(worker)
    };
    // Runs in parallel, since each waits for the disk.
    std::thread::scope(|scope| {
        let remembered = scope.spawn(|| order.worker_dir.record(&begins));
        order.attempt_dir.create(&assignment)?;
        remembered.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    if let Some(launcher) = run_on {
        prepare_job(context, order, launcher)?;
    }
    Ok(begins)
}

/// Writes down what a job needs. The file that is written last marks the attempt as one that runs as a job. It exists
/// before the job is submitted.
fn prepare_job(context: &Context, order: &StartOrder, launcher: &str) -> Result<(), OrchestratorError> {
    let Some(settings) = context.settings.launcher(launcher)? else { return Ok(()) };
    LiveStatus::prepare(&order.attempt_dir)?;
    job_environment::passed(context, &order.worker, settings)?.write(order.attempt_dir.root())?;
    Launch { launcher: launcher.to_owned(), job: None }.write(&order.attempt_dir)?;
    crash_point::at(Point::JobPrepared);
    Ok(())
}

/// Returns the text before the prompt.
fn context_of(orders: &[ReportOrder]) -> Option<String> {
    let report = |order: &ReportOrder| match &order.from {
        Some(from) => context::Report::of(from, final_message(from, order.dir.as_ref())),
        None => context::Report::missing(&order.source),
    };
    context::assemble(&orders.iter().map(report).collect::<Vec<_>>())
}

/// Returns the whole final message from the record, or else the shortened one from the registry.
fn final_message(from: &Worker, dir: Option<&AttemptDir>) -> String {
    let recorded = dir.and_then(|dir| dir.outcome().ok().flatten()).map(|outcome| outcome.run.final_message);
    recorded.or_else(|| Some(from.last()?.final_message.clone())).unwrap_or_default()
}

/// Returns the setup that the attempt has to run. `None` if there is none, or if it succeeded in this worktree before.
/// A directory of the user is set up only if the mission names a command.
fn setup(
    context: &Context,
    order: &StartOrder,
    repository: Option<&Repository>,
) -> Result<Option<SetupTask>, OrchestratorError> {
    if order.worker.next.fresh {
        order.worker_dir.forget_setup()?;
    }
    if order.worker_dir.setup()?.is_some() {
        return Ok(None);
    }
    let mission = &order.worker.mission;
    let settings = setup_settings(context, repository);
    let general = settings.command.filter(|_| matches!(mission.place, Place::Worktree { .. }));
    let command = mission.setup_command.clone().or(general);
    Ok(command.map(|command| SetupTask { command, timeout_minutes: settings.timeout_minutes }))
}

pub(super) fn setup_settings(context: &Context, repository: Option<&Repository>) -> SetupSettings {
    let remotes = || repository.and_then(|it| git::remote_urls(it).ok()).unwrap_or_default();
    context.settings.setup(repository.map_or(Path::new(""), Repository::root), remotes)
}

/// Copies the ignored folders that the settings name into a new worktree. What is left out is named in the outcome.
fn seed(context: &Context, made: &mut git::Worktree) -> Result<(), OrchestratorError> {
    let repository = context.repository()?;
    let SetupSettings { seed: paths, seed_is_own, .. } = setup_settings(context, Some(repository));
    if paths.is_empty() {
        return Ok(());
    }
    let limit = context.settings.seed_limit();
    let seeded = git::seed(repository, &made.path, &paths, limit).map_err(git::WorktreeError::from)?;
    made.not_copied.extend(seeded.left_out);
    made.not_copied.extend(seeded.missing.into_iter().filter(|_| seed_is_own));
    made.seeded = Some(seeded.there);
    made.seeded_at = Some(Timestamp::now());
    Ok(git::worktree::remember(repository, made)?)
}

/// Returns the integration branch if it contains the commit at which the worker begins. An existing branch, or one from
/// a remote, can have commits that were never on it.
fn base_branch(order: &StartOrder, base: Option<&str>, repository: Option<&Repository>) -> Option<String> {
    let (worker, full_name) = (&order.worker, order.integration_branch.as_deref()?);
    if worker.base_commit.is_some() || !matches!(worker.mission.place, Place::Worktree { .. }) {
        return worker.base_branch.clone();
    }
    let (base, repository) = base.zip(repository)?;
    let tip = repository.resolve(full_name).ok()?;
    let contains = git::integrate::contains(repository, &tip, base);
    contains.then(|| git::names::branch_name(full_name).to_owned())
}

/// Returns the state of the main checkout before this worker begins, so that later changes outside its worktree can be
/// detected.
fn main_checkout(context: &Context, worker: &Worker) -> Option<git::Fingerprint> {
    let made_for_it = matches!(worker.mission.place, Place::Worktree { .. });
    let repository = context.repository.as_ref().filter(|_| made_for_it)?;
    context.caches.main_checkout.since(Instant::now(), || git::fingerprint(repository).ok())
}

/// The directory to work in, whether it is ours, and the commit that its changes are counted from.
fn place(
    context: &Context,
    order: &StartOrder,
    repository: Option<&Repository>,
) -> Result<(PathBuf, bool, Option<String>), OrchestratorError> {
    match &order.worker.mission.place {
        Place::Directory { path } => {
            let head = repository.and_then(|it| git::head(&it.at(path)).ok().flatten());
            Ok((path.clone(), false, head))
        }
        Place::Worktree { path, branch, base, directory } => {
            let (mut made, fresh) = worktree(context, order, path, branch, base.as_deref())?;
            if fresh {
                seed(context, &mut made)?;
            }
            crash_point::at(Point::WorktreeMade);
            // A branch that was deleted, such as a merged one, begins anew. Its changes count from there.
            let begins_anew = fresh && made.created_branch;
            let recorded = order.worker.base_commit.clone().filter(|_| !begins_anew);
            let base = recorded.unwrap_or_else(|| made.base_commit.clone());
            if fresh {
                order.worker_dir.record_worktree(&git::Worktree { base_commit: base.clone(), ..made.clone() })?;
            }
            crash_point::at(Point::WorktreeRemembered);
            // Only at first, since the worker itself may remove it later.
            if let Some(directory) = directory.as_ref().filter(|_| fresh && order.worker.attempt == 1) {
                refuse_missing(&made.path, directory)?;
            }
            Ok((made.path, true, Some(base)))
        }
    }
}

/// Returns the worker's worktree, and whether it was created now. An existing one is used as it is, unless its creation
/// was interrupted: then no worker has worked in it yet.
fn worktree(
    context: &Context,
    order: &StartOrder,
    path: &Path,
    branch: &str,
    base: Option<&str>,
) -> Result<(git::Worktree, bool), OrchestratorError> {
    let repository = context.repository()?;
    // The supervisor of an earlier attempt may have left a clone.
    git::bring_back(repository, path)?;
    restore_branch(repository, &order.worker, branch)?;
    if let Some(made) = order.worker_dir.worktree()? {
        git::relink(repository, &made)?;
    }
    refuse_cut_off(repository, &order.worker, path)?;
    let is_begun = || {
        let unfinished = path.exists() && order.worker_dir.worktree::<git::Worktree>()?.is_none();
        Ok::<_, OrchestratorError>(unfinished && is_registered_for(repository, path, &order.worker)?)
    };
    if path.join(".git").exists() || is_begun()? {
        let made_for_it =
            |made: &git::Worktree| git::made_by_us(repository, path).is_some_and(|record| record.branch == made.branch);
        return match order.worker_dir.worktree()? {
            Some(made) if made_for_it(&made) => {
                // A removal that was requested a moment ago, or refused, may have removed the lock.
                git::lock(repository, path, &lock_reason(&order.worker))?;
                Ok((made, false))
            }
            None if is_registered_for(repository, path, &order.worker)? => {
                order.worker_dir.forget_setup()?;
                Ok((git::refill(repository, path)?, true))
            }
            _ => Err(OrchestratorError::WorktreeOfAnother { path: path.to_owned() }),
        };
    }
    refuse_worktree_of_old(context, repository, &order.worker, path)?;
    if order.worker.attempt > 1 && is_registered_for(repository, path, &order.worker)? {
        // Its folder was removed. It is created again from its branch, which holds the commits.
        git::forget(repository, path)?;
    }
    // An existing branch, such as that of an earlier attempt, determines the start.
    let is_there = repository.resolve(&format!("refs/heads/{branch}")).is_ok();
    let request = git::Request {
        branch: branch.to_owned(),
        base: base.filter(|_| !is_there).map(str::to_owned),
        start: if is_there || base.is_some() { None } else { base_of(context, repository, order)? },
        tree: Some(context.tree().to_owned()),
        is_made_up: branch.ends_with(order.worker.id.as_str()),
        path: Some(path.to_owned()),
        folder: path.parent().filter(|parent| *parent == context.worktrees()).map(Path::to_owned),
        allowed_roots: context.allowed_roots(repository),
    };
    order.worker_dir.forget_setup()?;
    let made = git::create(repository, &request, Some(&lock_reason(&order.worker)))?;
    Ok((made, true))
}

/// Checks that the subfolder to run in exists and is within the worktree.
fn refuse_missing(worktree: &Path, directory: &Path) -> Result<(), OrchestratorError> {
    match folder_within(worktree, directory) {
        Some(_) => Ok(()),
        None => Err(OrchestratorError::NoSuchFolder { directory: directory.to_owned(), worktree: worktree.to_owned() }),
    }
}

/// Returns the lock reason that protects the worktree from removal while its worker is open.
pub(super) fn lock_reason(worker: &Worker) -> String {
    format!("orchestrator-boss: {} works here", worker.id)
}

/// Refuses a worktree that was moved with its repository: the mission names it by its former absolute path.
fn refuse_worktree_of_old(
    context: &Context,
    repository: &Repository,
    worker: &Worker,
    path: &Path,
) -> Result<(), OrchestratorError> {
    let name = path.file_name().unwrap_or_default();
    let now = context.worktrees().join(name);
    let moved = (now != path && now.exists()).then_some(now);
    let Some(now) = moved.filter(|_| worker.attempt > 1 && !path.starts_with(repository.root())) else {
        return Ok(());
    };
    let branch = worker.mission.place.branch().unwrap_or_default().to_owned();
    Err(OrchestratorError::WorktreeMoved { path: path.to_owned(), now, branch })
}

/// Refuses a worktree whose `.git` file leads nowhere, such as one beside a moved repository.
fn refuse_cut_off(repository: &Repository, worker: &Worker, path: &Path) -> Result<(), OrchestratorError> {
    if !git::leads_nowhere(path) || !git::has_record(repository, path) {
        return Ok(());
    }
    let branch = worker.mission.place.branch().unwrap_or_default().to_owned();
    Err(OrchestratorError::CutOff { path: path.to_owned(), branch })
}

/// Restores a branch that was deleted since the last attempt, at its last known commit. A branch that was removed
/// together with its worktree, on request, is not restored.
fn restore_branch(repository: &Repository, worker: &Worker, branch: &str) -> Result<(), OrchestratorError> {
    let last = worker.settled.iter().rev().find_map(|brief| brief.changes.head.as_ref());
    if let Some(commit) = last.filter(|_| !worker.worktree_removed) {
        repository.restore_branch(branch, commit)?;
    }
    Ok(())
}

/// Returns whether git has a worktree there that was begun for this worker. The lock reason names the worker from the
/// start.
fn is_registered_for(repository: &Repository, path: &Path, worker: &Worker) -> Result<bool, OrchestratorError> {
    let reason = lock_reason(worker);
    let worktrees = git::list(repository)?;
    Ok(worktrees.iter().any(|it| it.path == path && it.locked.as_ref() == Some(&reason)))
}

/// Returns the commit to start from: the merged dependencies, or else the integration branch. Dependencies whose
/// integration was undone are merged too.
fn base_of(
    context: &Context,
    repository: &Repository,
    order: &StartOrder,
) -> Result<Option<String>, OrchestratorError> {
    let asked: Vec<_> =
        order.integrated.iter().map(|worker| (Arc::clone(worker), order.integration_branch.clone())).collect();
    let answers = context.caches.merged.ask(Some(repository), &asked);
    let taken_back = asked.iter().zip(answers).filter(|(_, answer)| !matches!(answer, Merged::Into { .. }));
    let heads = taken_back.filter_map(|((worker, _), _)| worker.last()?.changes.head.clone());
    let heads = heads.filter(|head| !order.bases.contains(head));
    let bases: Vec<String> = order.bases.iter().cloned().chain(heads).collect();
    match bases.as_slice() {
        [] => Ok(order.integration_branch.clone()),
        [one] => Ok(Some(one.clone())),
        several => git::merge_of(repository, several).map(Some).map_err(OrchestratorError::from),
    }
}

/// Settles an attempt that was not started and never will be.
fn give_up(context: &Context, reporter: &follow::Reporter, order: &StartOrder, why: &str) {
    PassedEnvironment::remove(order.attempt_dir.root());
    let mut outcome = could_not_start(context, &order.worker, why);
    let unread = order.attempt_dir.close_inbox_unread().unwrap_or_default();
    outcome.run.undelivered.extend(unread.into_iter().filter_map(InboxEntry::into_text));
    if let Err(error) = order.attempt_dir.settle(&outcome) {
        tracing::error!(%error, "could not record that a worker did not start");
    }
    reporter.send(Report::Ended(Box::new(outcome)));
}

/// Returns the record of an attempt that could not start. What fails although the backend's program is there is the
/// repository or the place.
fn could_not_start(context: &Context, worker: &Worker, why: &str) -> Outcome {
    let failure = Failure { kind: FailureKind::CouldNotStart, message: why.to_owned(), resets_at: None };
    let mut outcome = outcomes::never_ran(worker, worker.attempt, Ending::Failed, Some(failure));
    outcome.run.place_failed = probe::find_program(context, &worker.next.backend).is_ok();
    outcome
}
