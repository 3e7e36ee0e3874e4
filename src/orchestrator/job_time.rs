//! The time that the job of a mission needs, and whether its partition allows it.

use std::sync::Arc;
use std::time::Duration;

use super::blocking::blocking;
use super::context::Context;
use super::error::OrchestratorError;
use super::start;
use crate::config::Settings;
use crate::launcher::slurm::{self, MissionLimits, TimeLimit};
use crate::mission::create::{Draft, DraftPlace};

/// Returns the limits that the job of a mission must have time for.
pub(super) fn limits(
    settings: &Settings,
    timeout_minutes: u32,
    verifies: bool,
    setup_minutes: Option<f64>,
) -> MissionLimits {
    MissionLimits {
        timeout_minutes: timeout_minutes.into(),
        verify_minutes: verifies.then_some(settings.verify_timeout_minutes.into()),
        setup_minutes,
        question_limit: settings.question_limit(),
    }
}

/// Refuses a mission whose job would wait for ever. Slurm accepts a time over the limit of the partition. Without an
/// answer of the cluster, nothing is refused.
pub(super) async fn refuse_too_long(context: &Arc<Context>, draft: &Draft) -> Result<(), OrchestratorError> {
    let Some(cluster) = draft.run_on.as_deref().and_then(|name| context.clusters.get(name)) else { return Ok(()) };
    let TimeLimit::At(limit) = cluster.time_limit().await else { return Ok(()) };
    let (inner, asked) = (Arc::clone(context), draft.clone());
    let setup = blocking(move || Ok(setup_minutes(&inner, &asked))).await?;
    let minutes = limits(&context.settings, draft.timeout_minutes, draft.verify_command.is_some(), setup);
    let minutes = slurm::time_limit(&minutes);
    if TimeLimit::At(limit).allows(minutes) {
        return Ok(());
    }
    Err(OrchestratorError::TooLongForPartition {
        launcher: cluster.name.clone(),
        partition: cluster.settings.partition.clone(),
        timeout: draft.timeout_minutes.into(),
        needed: minutes,
        allowed: whole_minutes(limit),
    })
}

fn whole_minutes(limit: Duration) -> u64 {
    limit.as_secs() / 60
}

/// Returns the time limit of the setup of a mission. `None` without one.
fn setup_minutes(context: &Context, draft: &Draft) -> Option<f64> {
    if !matches!(draft.place, DraftPlace::Worktree { .. }) {
        return None;
    }
    let setup = start::setup_settings(context, context.repository.as_ref());
    (draft.setup_command.is_some() || setup.command.is_some()).then_some(setup.timeout_minutes)
}
