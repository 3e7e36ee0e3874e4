//! Verification of a commit in a worktree of its own, by a supervisor that ends with this server. Also the removal of
//! what a killed supervisor has left.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::actor_handle::ActorHandle;
use super::blocking::blocking;
use super::configuration;
use super::confinement::confines;
use super::context::Context;
use super::error::OrchestratorError;
use super::jobs::Order;
use super::mailbox::Ask;
use super::{job_environment, ports, start};
use crate::attempt::assignment::{self, SetupTask};
use crate::attempt::launch;
use crate::attempt::secrets::Secrets;
use crate::attempt::sockets;
use crate::attempt::state_dir::StateDir;
use crate::attempt::verification::{self, SubmittedVerification, VerificationAssignment, VerificationResult};
use crate::attempt::verification_dir::VerificationDir;
use crate::config::SetupSettings;
use crate::crash_point::{self, Point};
use crate::files;
use crate::files::lease;
use crate::git::Trust;
use crate::launcher::slurm::{self, VerificationJob};
use crate::launcher::{RunningVerification, local};
use crate::mission::hint::with_hints;
use crate::mission::id::{ServerId, WorkerId};
use crate::mission::outcome::{Missing, Verification, tail};
use crate::mission::spec::Permissions;
use crate::process::{self, ProcessScope, ProcessTree, WorkerPlaces};

type Result<T> = std::result::Result<T, OrchestratorError>;

/// Time that its processes get to exit by themselves if its supervisor has died.
const GRACE: Duration = Duration::from_secs(3);
/// Bytes of the log of a job that a result quotes.
const QUOTED: usize = 700;

/// The result of a verification run. `log` is its full output, if it did not pass and printed anything.
pub(super) struct Verified {
    pub result: Verification,
    /// Files and folders that the main checkout has and its worktree lacks, if it did not pass.
    pub lacks: Vec<Missing>,
    pub log: Option<PathBuf>,
}

/// Runs the command on the commit, in a worktree that is set up as the order says. Dropping the future ends the run.
pub(super) async fn verify(actor: &ActorHandle, order: &Order, commit: &str, command: &str) -> Result<Verified> {
    let context = Arc::clone(&actor.context);
    let state = actor.ask(|reply| Ask::StateDir { reply }).await??;
    let dir = VerificationDir::new(&state, &context.server);
    let ports = VerificationPorts::new(&state);
    let (inner, place, order) = (Arc::clone(&context), dir.clone(), order.clone());
    let (what, command, (state_dir, owner)) = (commit.to_owned(), command.to_owned(), ports.parts());
    let variables = move || assignment::worker_variables(&owner, ports::block_of(&state_dir, &owner));
    let limit = blocking(move || prepare(&inner, &place, order, what, command, variables())).await?;
    crash_point::at(Point::VerificationPrepared);
    let result = match start_run(&context, &dir, limit).await {
        Ok(mut run) => {
            // Only its exit matters: by then, its result is in its folder.
            let _ = (&mut run.exited).await;
            drop(run.stdin.take());
            files::read_json(&dir.result()).map_err(|error| with_hints(&error))
        }
        Err(why) => Err(why),
    };
    let result = match result {
        Ok(Some(VerificationResult { verification, lacks })) => (verification, lacks),
        Ok(None) => (Verification::CouldNotRun { why: without_result(&context, &dir) }, Vec::new()),
        Err(why) => (Verification::CouldNotRun { why }, Vec::new()),
    };
    let (result, lacks) = result;
    let log = if matches!(result, Verification::Passed { .. }) { None } else { keep_log(&dir, &state, commit) };
    remove(&context.trust, &dir).await;
    Ok(Verified { result, lacks, log })
}

/// Starts the supervisor of a run where the settings say. Returns when it has begun, or the reason why it does not.
async fn start_run(
    context: &Context,
    dir: &VerificationDir,
    limit: Duration,
) -> std::result::Result<RunningVerification, String> {
    let Some(cluster) = context.clusters.get(&context.settings.verify_on) else {
        return local::start_verification(&context.program, dir).await.map_err(|error| with_hints(&error));
    };
    let settings = &cluster.settings;
    let names = cluster.names().await.map_err(|error| with_hints(&error))?;
    let job = VerificationJob {
        name: names.of_verification(),
        dir,
        program: settings.program.as_deref().unwrap_or_else(|| context.program.path()),
        launcher: &cluster.name,
        settings,
        limit,
    };
    let prepared = || {
        let submitted = SubmittedVerification { launcher: cluster.name.clone(), name: job.name.clone() };
        files::replace_json(&dir.job(), &submitted, true)?;
        job_environment::passed_to_verification(settings).write(dir.root())?;
        files::replace(&dir.job_script(), &job.script(), false)?;
        dir.open_supervisor_log()
    };
    let log = prepared().map_err(|error| with_hints(&error))?;
    let started = slurm::start_verification(&cluster.engine, &job, log).await;
    started.map_err(|error| format!("on {}, which verify_on names: {}", cluster.name, with_hints(&error)))
}

/// Returns the reason why a run left no result. Only the log of a job says more: Slurm writes there too.
fn without_result(context: &Context, dir: &VerificationDir) -> String {
    let log = std::fs::read_to_string(dir.supervisor_log()).unwrap_or_default();
    let said = tail(log.trim_end(), QUOTED);
    match context.clusters.get(&context.settings.verify_on) {
        Some(cluster) if !said.is_empty() => format!("its supervisor died on {}:\n{said}", cluster.name),
        _ => "its supervisor died".to_owned(),
    }
}

fn keep_log(dir: &VerificationDir, state: &StateDir, commit: &str) -> Option<PathBuf> {
    dir.keep_log(state, commit).unwrap_or_else(|error| {
        tracing::warn!(error = %with_hints(&error), "cannot keep the log of a verification");
        None
    })
}

/// The ports of one verification run, under an id of its own as for a worker. Dropping it frees them.
struct VerificationPorts {
    state: StateDir,
    owner: WorkerId,
}

impl VerificationPorts {
    fn new(state: &StateDir) -> Self {
        let name = format!("integration-{}", &Uuid::new_v4().simple().to_string()[..12]);
        Self { state: state.clone(), owner: WorkerId::new(0, &name) }
    }

    fn parts(&self) -> (StateDir, WorkerId) {
        (self.state.clone(), self.owner.clone())
    }
}

impl Drop for VerificationPorts {
    fn drop(&mut self) {
        ports::release(&self.state, &self.owner);
    }
}

/// Writes the assignment of a run. Returns the time that its commands may take.
fn prepare(
    context: &Context,
    dir: &VerificationDir,
    order: Order,
    commit: String,
    command: String,
    variables: BTreeMap<String, String>,
) -> Result<Duration> {
    let Order { repository, directory, setup_command, .. } = order;
    let SetupSettings { command: general, timeout_minutes, seed, .. } =
        start::setup_settings(context, Some(&repository));
    let minutes = f64::from(context.settings.verify_timeout_minutes) + timeout_minutes;
    let setup = setup_command.or(general).map(|command| SetupTask { command, timeout_minutes });
    let tag = process::tag_at_depth(format!("integration.{}", Uuid::new_v4().simple()), context.depth + 1);
    let run = VerificationAssignment {
        tag,
        tree: Some(context.worktrees_of(&repository).join(verification::tree_name())),
        repository: configuration::for_supervisor(context, repository)?,
        directory,
        commit,
        command,
        setup,
        seed,
        ignored_of: None,
        sockets: sockets::user_folder().ok().map(|folder| sockets::new_folder_in(&folder)),
        settings: Secrets::without(&context.settings),
        variables,
    };
    dir.create(&run)?;
    Ok(Duration::try_from_secs_f64(60.0 * minutes).unwrap_or(Duration::MAX))
}

/// Removes the verification runs of dead servers. A supervisor that is still ending by itself is left alone and checked
/// again later.
pub(super) async fn remove_abandoned(context: Arc<Context>, state: StateDir) {
    for dir in VerificationDir::all(&state) {
        let Some(server) = dir.server() else { continue };
        let is_abandoned =
            server != context.server && !context.servers.is_alive(&server) && !is_of_live_worker(&state, &server);
        if is_abandoned && is_job_over(&context, &dir).await {
            remove(&context.trust, &dir).await;
        }
    }
}

/// Ends the job of a dead server's run. Returns whether nothing runs any more, as far as a cluster knows.
async fn is_job_over(context: &Context, dir: &VerificationDir) -> bool {
    let Ok(Some(job)) = files::read_json::<SubmittedVerification>(&dir.job()) else { return true };
    let Some(cluster) = context.clusters.get(&job.launcher) else { return true };
    let ended = slurm::end_verification(&cluster.engine, &job.name).await;
    ended.unwrap_or_else(|why| {
        tracing::warn!(why, job = job.name, "cannot end the job of an abandoned verification");
        false
    })
}

/// Returns whether a worker runs this verification itself, perhaps on another host, where its lock does not show here.
fn is_of_live_worker(state: &StateDir, name: &ServerId) -> bool {
    let Some(folder) = WorkerId::from_folder(name.as_str()).map(|id| state.worker(&id)) else { return false };
    folder.attempts().last().is_some_and(|newest| launch::may_live(&folder.attempt(*newest)))
}

/// Removes one verification run. The lock keeps its supervisor from starting now, and other servers from doing the
/// same.
async fn remove(trust: &Trust, dir: &VerificationDir) {
    if !dir.root().exists() {
        return;
    }
    let Ok(Some(_lease)) = lease::take(&dir.lock()) else { return };
    let run: Option<VerificationAssignment> = files::read_json(&dir.assignment()).ok().flatten();
    if let Some(run) = &run {
        let known =
            files::read_json::<ProcessTree>(&dir.processes()).ok().flatten().map(ProcessTree::here).unwrap_or_default();
        let allowlist = run.settings.daemons_left(confines(&run.settings, Permissions::Edit));
        let private =
            WorkerPlaces { places: [run.tree(dir)].into_iter().chain(run.sockets.clone()).collect(), since: None };
        let scope = ProcessScope { tag: run.tag.clone(), roots: known, allowlist, private, ..ProcessScope::default() };
        process::sweep(&scope, GRACE).await;
        if let Some((sockets, folder)) = run.sockets.as_ref().zip(sockets::user_folder().ok()) {
            sockets::remove_left(sockets, &folder);
        }
    }
    let (trust, place) = (trust.clone(), dir.clone());
    let removed = blocking(move || {
        if let Some(mut run) = run {
            // A worker can write that file too.
            run.repository = run.repository.trusting(trust);
            run.remove_tree(&place)?;
        }
        Ok(place.remove()?)
    });
    if let Err(error) = removed.await {
        tracing::warn!(error = %with_hints(&error), folder = %dir.root().display(), "cannot remove the files of a verification");
    }
}
