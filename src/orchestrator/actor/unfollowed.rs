//! Live workers that another server follows. Their status is read from its file, so that a boss gets the questions and
//! stalls of its workers from any server. This server neither settles nor stops them.

use super::{Actor, State};
use crate::attempt::status::LiveStatus;
use crate::mission::id::WorkerId;
use crate::mission::registry::Worker;

impl Actor {
    /// Reads the status of each such worker. Answers the waits that have something new to report.
    pub(super) fn read_unfollowed(&mut self) {
        // A status of an earlier attempt must not be shown as that of the next one.
        let State { live, records, .. } = &mut self.state;
        live.retain(|id, _| records.registry().get(id).is_some_and(|worker| worker.status.is_live()));
        let me = &self.state.context.server;
        let is_followed = |worker: &Worker| worker.lease == *me || self.following.contains_key(&worker.id);
        let live = self.registry().workers().filter(|worker| worker.status.is_live() && !is_followed(worker));
        let read: Vec<(WorkerId, Option<LiveStatus>)> = live
            .map(|worker| {
                let dir = self.attempt_dir(worker);
                let status = dir.and_then(|dir| LiveStatus::read(&dir).ok().flatten());
                (worker.id.clone(), status)
            })
            .collect();
        let mut is_new = false;
        for (id, status) in read {
            let Some(status) = status else {
                self.state.live.remove(&id);
                continue;
            };
            let known = self.state.live.get(&id);
            let is_changed =
                known.is_none_or(|known| known.questions != status.questions || known.stalled != status.stalled);
            is_new |= is_changed && (status.needs_answer() || status.stalled.is_some());
            self.state.live.insert(id, status);
        }
        if is_new {
            self.answer_waits();
            self.wake_bosses();
        }
    }
}
