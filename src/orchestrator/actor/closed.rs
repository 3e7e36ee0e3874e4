//! The times in which a server on another host owns the state directory. This server then answers no request, follows no
//! worker and writes nothing. It watches the other one, and takes over when that is gone.

use std::collections::HashMap;
use std::time::Duration;

use super::Actor;
use crate::mission::delivery::Deliveries;
use crate::orchestrator::cancellations::Cancellations;
use crate::orchestrator::context::Context;
use crate::orchestrator::error::OrchestratorError;
use crate::orchestrator::records::Records;
use crate::orchestrator::waits::Waits;

/// Interval at which a one-shot client watches an owner that may be dead.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);

/// Opens the state directory, unless a server on another host owns it. A one-shot client then fails, after it has found
/// out whether that server lives. Blocks while it does so.
pub(super) fn open_at_start(records: &mut Records, context: &Context) -> Result<(), OrchestratorError> {
    loop {
        match (records.open(), context.is_one_shot) {
            (Err(OrchestratorError::WatchedOwner { .. }), true) => std::thread::sleep(WATCH_INTERVAL),
            (Err(_), false) if context.foreign_owner().is_some() => return Ok(()),
            (opened, _) => return opened,
        }
    }
}

impl Actor {
    /// Joins the other servers if one has created the folder since this one started, or if its owner on another host is
    /// gone. Returns `false` while a server on another host owns it.
    pub(super) fn join_if_there(&mut self) -> bool {
        self.state.records.keep_open();
        if self.state.records.is_open() || !self.state.context.has_state() {
            return true;
        }
        match self.state.records.open() {
            Ok(()) => self.take_over(),
            Err(error) if self.state.context.foreign_owner().is_some() => {
                tracing::debug!(%error, "the state directory stays closed");
                self.let_go();
                return false;
            }
            Err(error) => tracing::error!(%error, "cannot open the state directory"),
        }
        true
    }

    /// Does the same without a request, which leaves the state directory of an unused server closed.
    pub(super) fn stays_open(&mut self) -> bool {
        let is_unused = !self.state.records.is_open() && self.state.context.foreign_owner().is_none();
        is_unused || self.join_if_there()
    }

    /// Forgets what only the owner of the state directory may do. Callers that wait are answered with a refusal.
    fn let_go(&mut self) {
        self.following.drain().for_each(|(_, task)| task.abort());
        self.waits = Waits::default();
        self.deliveries = Deliveries::default();
        self.cancellations = Cancellations::default();
        self.late_messages = HashMap::new();
        self.state.live = HashMap::new();
        self.considered = 0;
    }
}
