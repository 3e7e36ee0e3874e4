//! The confinement of workers, as the server sees it: what the kernel of this machine can do before a worker starts, and
//! what it answered afterwards.

use super::answers::WorkerView;
use super::context::Context;
use super::error::OrchestratorError;
use crate::attempt::status::LiveStatus;
use crate::backend::Refusal;
use crate::config::{Confine, Settings};
use crate::mission::confined::Confinement;
use crate::mission::registry::Worker;
use crate::mission::spec::{Mission, Permissions};
use crate::process::confine::{self, Support};

impl Context {
    /// Returns whether the kernel of this machine confines workers with these permissions.
    pub fn confines(&self, permissions: Permissions) -> bool {
        confines(&self.settings, permissions)
    }

    /// Checks a mission with its backend. Where the kernel keeps a worker from writing, its CLI need not be able to.
    pub fn check_mission(&self, mission: &Mission) -> Result<(), OrchestratorError> {
        let backend = self.backends.get(mission.backend.as_str())?;
        match backend.check(mission) {
            Err(Refusal::Permissions { permissions: Permissions::ReadOnly, .. })
                if self.confines(Permissions::ReadOnly) =>
            {
                backend.check(&Mission { permissions: Permissions::Edit, ..mission.clone() })?;
            }
            checked => drop(checked?),
        }
        Ok(())
    }
}

/// Returns whether the kernel of this machine confines a worker with these settings and permissions.
pub fn confines(settings: &Settings, permissions: Permissions) -> bool {
    permissions != Permissions::Full
        && settings.confine != Confine::Off
        && matches!(confine::support(), Support::Yes(_))
}

impl WorkerView {
    /// Returns the confinement of its current or last attempt. `None` before its CLI runs.
    pub fn confinement(&self) -> Option<&Confinement> {
        confinement_of(&self.worker, self.live.as_ref().filter(|_| self.worker.status.is_live()))
    }
}

/// Returns the confinement of the running attempt, or else of the last one of a settled worker.
pub fn confinement_of<'a>(worker: &'a Worker, live: Option<&'a LiveStatus>) -> Option<&'a Confinement> {
    match live {
        Some(live) => live.confinement.as_ref(),
        None => worker.last().filter(|_| worker.status.is_settled())?.confinement.as_ref(),
    }
}
