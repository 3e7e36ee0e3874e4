//! The state file of a server: when it is due, and what the actor writes into it. The journal is complete without it.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::integration_branch;
use super::records::{Records, make_way_for_state_file};
use super::views::Views;
use crate::mission::registry::Worker;
use crate::store::state_file::{self, SavedState};

/// Maximum delay between the journal and the state file.
const DELAY: Duration = Duration::from_millis(50);
/// Time after which a failed write is repeated.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// The time at which the state file is to be written, if it is not current.
#[derive(Default)]
pub(super) struct StateFileTimer {
    due: Option<Instant>,
}

impl StateFileTimer {
    pub fn request(&mut self) {
        self.due.get_or_insert_with(|| Instant::now() + DELAY);
    }

    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Requests a write if the file was deleted or replaced.
    pub fn check(&mut self, records: &Records) {
        let Some(dir) = records.dir().filter(|dir| !state_file::is_there(&dir.state_file())) else { return };
        match make_way_for_state_file(dir) {
            Ok(()) => drop(self.due.get_or_insert_with(Instant::now)),
            Err(error) => tracing::warn!(%error, "cannot write the state file"),
        }
    }

    pub fn write(&mut self, records: &Records, views: &Views<'_>) {
        self.due = None;
        let (Some(dir), context) = (records.dir(), views.context) else { return };
        if context.is_one_shot && records.has_other_servers() {
            // Only servers check for conflicts.
            return;
        }
        let repository = context.repository.as_ref().map(|repository| repository.root());
        let load = views.load();
        let waits_for = |worker: &Worker| views.hold(&load, worker).map(|hold| hold.to_string());
        // A one-shot client does not check for conflicts, so it keeps the results of the last server.
        let written = if context.is_one_shot { SavedState::read(&dir.state_file()) } else { SavedState::default() };
        let written = written.by_worker();
        let collides = |worker: &Worker| match written.get(&worker.id) {
            Some(written) if written.is_of(worker.shown_status(false)) && worker.integrated.is_none() => {
                (written.conflicts_with.clone(), written.conflicts_unchecked)
            }
            _ => (views.collisions.of(&worker.id).to_vec(), views.collisions.unchecked(&worker.id)),
        };
        let branch = integration_branch::checked_out_at_a_glance(context);
        let about = state_file::RepositoryInfo { repository, integration_branch: branch.as_deref() };
        let asks = |worker: &Worker| {
            let live = views.live.get(&worker.id).filter(|_| worker.status.is_live());
            live.map(|live| live.questions.clone()).unwrap_or_default()
        };
        let content = state_file::project(views.registry, about, Timestamp::now(), waits_for, collides, asks);
        if let Err(error) = state_file::write(&dir.state_file(), &content) {
            tracing::warn!(%error, "cannot write the state file");
            self.due = Some(Instant::now() + RETRY_AFTER);
        }
    }
}
