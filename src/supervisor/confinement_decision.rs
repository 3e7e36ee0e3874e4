//! The decision whether an attempt is confined, and by which rules. It reads many files, so it is made in a thread while
//! the attempt waits for the disk. Nothing that belongs to the attempt is written: it may not be claimed yet.

use std::path::Path;

use super::caches;
use super::own_clone::OwnClone;
use super::write_rules::{AttemptRules, ConfinementError, why_not, why_without_effect};
use crate::attempt::assignment::Assignment;
use crate::attempt::cli_settings::CliSettings;
use crate::backend::StateFolder;
use crate::mission::spec::Permissions;

#[derive(Debug)]
pub(super) enum Decision {
    Confined(Box<DecidedRules>),
    Unconfined { why: String },
}

/// The rules of an attempt without its own folders, which do not exist yet.
#[derive(Debug)]
pub(super) struct DecidedRules {
    pub rules: AttemptRules,
    pub own_clone: OwnClone,
    pub cli_settings: CliSettings,
}

/// Decides about an attempt whose CLI keeps its state in these folders. Creates them, and the caches that tools need.
/// `state` is the state directory.
pub(super) fn decide(
    assignment: &Assignment,
    folders: &[StateFolder],
    state: &Path,
) -> Result<Decision, ConfinementError> {
    let confine = assignment.settings.confine;
    let why = match assignment.mission.permissions {
        Permissions::Full => Some("permissions: full".to_owned()),
        _ => why_not(confine)?,
    };
    if let Some(why) = why {
        return Ok(Decision::Unconfined { why });
    }
    if let Ok(home) = etcetera::home_dir() {
        caches::create_needed(&home, |name| std::env::var_os(name));
    }
    let own_clone = OwnClone::of(assignment);
    let (rules, cli_state) = AttemptRules::of(assignment, folders, state, own_clone.is_used())?;
    let tried = rules.commands.as_ref().map(|rules| why_without_effect(confine, rules));
    if let Some(why) = tried.transpose()?.flatten() {
        return Ok(Decision::Unconfined { why });
    }
    let cli_settings = CliSettings::read(&assignment.worker_id, assignment.attempt, cli_state);
    Ok(Decision::Confined(Box::new(DecidedRules { rules, own_clone, cli_settings })))
}
