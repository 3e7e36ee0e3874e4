//! The decision whether an attempt is confined, and by which rules. It reads many files, so it is made in a thread while
//! the attempt waits for the disk. Before the attempt is claimed, nothing that belongs to it is written.

use std::path::{Path, PathBuf};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::caches;
use super::isolation::TemporaryFolder;
use super::own_clone::OwnClone;
use super::write_rules::{AttemptRules, ConfinementError, why_not, why_without_effect};
use crate::attempt::assignment::Assignment;
use crate::attempt::cli_settings::CliSettings;
use crate::attempt::sockets;
use crate::backend::StateFolder;
use crate::mission::spec::Permissions;

#[derive(Debug)]
pub(super) enum Decision {
    Confined(Box<DecidedRules>),
    Unconfined { why: String },
}

/// The rules of an attempt, without the folders that it has to itself.
#[derive(Debug)]
pub(super) struct DecidedRules {
    pub rules: AttemptRules,
    pub temporary: TemporaryFolder,
    pub own_clone: OwnClone,
    pub cli_settings: CliSettings,
}

/// A decision that a thread makes.
#[derive(Debug)]
pub(super) struct Deciding {
    claimed: Option<oneshot::Sender<()>>,
    thread: JoinHandle<Result<Decision, ConfinementError>>,
}

impl Deciding {
    /// Begins to decide: see [`decide`]. Once the attempt is claimed, its folder for temporary files is created.
    pub fn begin(assignment: Assignment, folders: Vec<StateFolder>, state: PathBuf) -> Self {
        let (claimed, is_claimed) = oneshot::channel();
        let thread = tokio::task::spawn_blocking(move || {
            let mut decision = decide(&assignment, &folders, &state)?;
            if let Decision::Confined(decided) = &mut decision
                && is_claimed.blocking_recv().is_ok()
            {
                decided.temporary = TemporaryFolder::beside(&sockets::folder_beside(&assignment.socket));
            }
            Ok(decision)
        });
        Self { claimed: Some(claimed), thread }
    }

    /// To be called once the attempt is claimed.
    pub fn set_claimed(&mut self) {
        self.claimed.take().map(|claimed| claimed.send(()));
    }

    /// Waits for the decision.
    pub async fn end(self) -> Result<Decision, ConfinementError> {
        self.thread.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }
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
    Ok(Decision::Confined(Box::new(DecidedRules {
        rules,
        temporary: TemporaryFolder::default(),
        own_clone,
        cli_settings,
    })))
}
