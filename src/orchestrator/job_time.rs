//! The time that the job of a mission needs, and whether its partition allows it.

use std::sync::Arc;
use std::time::Duration;

use super::answers::RetryRequest;
use super::blocking::blocking;
use super::clusters::Cluster;
use super::context::Context;
use super::error::OrchestratorError;
use super::start;
use crate::attempt::state_dir::StateDir;
use crate::config::Settings;
use crate::launcher::slurm::{JobMinutes, TimeLimit};
use crate::mission::create::{Draft, DraftPlace};
use crate::mission::question::QuestionPolicy;
use crate::mission::registry::Worker;
use crate::mission::spec::{Place, RunOn};

type Result<T> = std::result::Result<T, OrchestratorError>;

/// Returns the minutes that the job of a mission needs.
pub(super) fn minutes(
    settings: &Settings,
    timeout_minutes: u32,
    verifies: bool,
    setup_minutes: Option<f64>,
) -> JobMinutes {
    let checks = verifies.then_some(settings.verify_timeout_minutes);
    let minutes = JobMinutes::new(timeout_minutes, setup_minutes, checks);
    match settings.questions {
        QuestionPolicy::Ask => minutes.with_questions(settings.question_limit()),
        QuestionPolicy::AllowInWorktree | QuestionPolicy::Deny => minutes,
    }
}

/// Refuses a mission whose job would wait for ever. Slurm accepts a time over the limit of the partition. Without an
/// answer of the cluster, nothing is refused.
pub(super) async fn refuse_too_long(context: &Arc<Context>, draft: &Draft) -> Result<()> {
    let Some(cluster) = draft.run_on.as_deref().and_then(|name| context.clusters.get(name)) else { return Ok(()) };
    let needed = async {
        let (inner, asked) = (Arc::clone(context), draft.clone());
        let setup = move || {
            let is_worktree = matches!(asked.place, DraftPlace::Worktree { .. });
            Ok(setup_minutes(&inner, is_worktree, asked.setup_command.is_some()))
        };
        let setup = blocking(setup).await?;
        Ok(minutes(&context.settings, draft.timeout_minutes, draft.verify_command.is_some(), setup))
    };
    refuse_over_limit(&cluster, needed).await
}

/// Refuses the next attempt of a settled worker for the same reason.
pub(super) async fn refuse_retry_too_long(
    context: &Arc<Context>,
    worker: &Arc<Worker>,
    request: &RetryRequest,
) -> Result<()> {
    let launcher = request.run_on.clone().map_or_else(|| worker.next.run_on.clone(), RunOn::launcher);
    let Some(cluster) = launcher.and_then(|name| context.clusters.get(&name)) else { return Ok(()) };
    let mission = &worker.mission;
    let needed = async {
        let (inner, worker, fresh) = (Arc::clone(context), Arc::clone(worker), request.fresh);
        let setup = blocking(move || setup_of_retry(&inner, &worker, fresh)).await?;
        Ok(minutes(&context.settings, mission.timeout_minutes, mission.verify_command.is_some(), setup))
    };
    refuse_over_limit(&cluster, needed).await
}

/// Refuses a job that needs more minutes than the partition allows. Their number is determined only if the partition
/// has a limit.
pub(super) async fn refuse_over_limit(
    cluster: &Cluster,
    needed: impl Future<Output = Result<JobMinutes>>,
) -> Result<()> {
    let TimeLimit::At(limit) = cluster.time_limit().await else { return Ok(()) };
    let needed = needed.await?;
    if TimeLimit::At(limit).allows(needed.total()) {
        return Ok(());
    }
    Err(OrchestratorError::TooLongForPartition {
        launcher: cluster.name.clone(),
        partition: cluster.settings.partition().map(str::to_owned),
        needed,
        allowed: whole_minutes(limit),
    })
}

fn whole_minutes(limit: Duration) -> u64 {
    limit.as_secs() / 60
}

/// Returns the time limit of the setup of the next attempt. `None` if its worktree is already set up.
fn setup_of_retry(context: &Context, worker: &Worker, fresh: bool) -> Result<Option<f64>> {
    if !fresh && StateDir::at(&context.state_root).worker(&worker.id).setup()?.is_some() {
        return Ok(None);
    }
    let is_worktree = matches!(worker.mission.place, Place::Worktree { .. });
    Ok(setup_minutes(context, is_worktree, worker.mission.setup_command.is_some()))
}

/// Returns the time limit of the setup of a mission. `None` without one. A directory of the user is set up only if the
/// mission names a command.
fn setup_minutes(context: &Context, is_worktree: bool, names_command: bool) -> Option<f64> {
    if !is_worktree && !names_command {
        return None;
    }
    let setup = start::setup_settings(context, context.repository.as_ref());
    (names_command || setup.command.is_some()).then_some(setup.timeout_minutes)
}
