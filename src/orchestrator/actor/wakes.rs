//! Wakes: the requests of bosses that end their turn, the pointers to them, and their arrival.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Actor, Effect, Result};
use crate::mission::delivery::Selection;
use crate::mission::entry::Entry;
use crate::mission::id::{BossId, ServerId, ThreadId};
use crate::mission::registry::Registry;
use crate::mission::wake::DueCounts;
use crate::orchestrator::mailbox::WakeOrder;
use crate::orchestrator::waking;

impl Actor {
    /// Records the request of a boss. The boss is answered only after that.
    pub(super) fn request_wake(&mut self, request: WakeOrder) -> Result<()> {
        let WakeOrder { boss, workers, thread, turn } = request;
        let workers = match self.views().select(&boss, &workers)? {
            Selection::Mine => Vec::new(),
            Selection::Named(workers) => workers,
        };
        let requested = Entry::WakeRequested { boss, thread, workers, turn };
        self.state.records.transact(|_| (vec![requested], ()))
    }

    /// Notes a call from a thread. In a turn that a queued message began, its pointer has arrived. After an answer with
    /// something to report, its boss is active again and needs no pointer for an earlier request.
    pub(super) fn note_arrival_from(&mut self, boss: &BossId, thread: ThreadId, woken_turn: Option<String>) {
        let reported = self.note_arrival(boss);
        let wakes = &self.registry().wakes;
        if woken_turn.is_some_and(|turn| wakes.has_arrived(&thread, &turn)) {
            self.apply(vec![Effect::note("save that a boss was woken", Entry::WakeArrived { thread })]);
        } else if reported.is_some_and(|delivery| wakes.is_overtaken(&thread, delivery)) {
            self.apply(vec![Effect::note("save that a boss is active again", Entry::WakeEnded { thread })]);
        }
    }

    /// Sends a pointer to every thread that waits for one and has something due.
    pub(super) fn wake_bosses(&mut self) {
        let me = self.state.context.server.clone();
        let now = Timestamp::now();
        let requested = self.registry().wakes.requested();
        let may_send = requested.filter(|(thread, _)| may_send(self.registry(), thread, now, &me));
        let threads: Vec<_> = may_send
            .map(|(thread, wake)| {
                let workers = wake.workers().to_vec();
                let selection = if workers.is_empty() { Selection::Mine } else { Selection::Named(workers) };
                (thread.clone(), wake.boss.clone(), selection)
            })
            .collect();
        if threads.is_empty() || self.is_one_shot() {
            return;
        }
        for (thread, boss, selection) in threads {
            let due = self.waits.due_counts(&self.state.views(), &boss, &selection, &self.deliveries);
            if let Some(due) = due {
                self.send_pointer(thread, due);
            }
        }
    }

    /// Records a run of the client's command, and starts it. Of several servers, the first one to record it does so.
    fn send_pointer(&mut self, thread: ThreadId, due: DueCounts) {
        // The program is searched for again when it runs, so that its absence is recorded as a failure.
        if matches!(waking::check(&self.state.context.settings), Err(why) if why != waking::NotWoken::NoProgram) {
            return;
        }
        let (me, now) = (self.state.context.server.clone(), Timestamp::now());
        let recorded = self.state.records.transact(|registry| {
            let is_first = may_send(registry, &thread, now, &me);
            (is_first.then(|| Entry::WakeSent { thread: thread.clone() }).into_iter().collect(), is_first)
        });
        match recorded {
            Ok(true) => {
                let (context, mailbox) = (Arc::clone(&self.state.context), self.mailbox.clone());
                // Forgets the runs that have ended.
                while self.wakes.try_join_next().is_some() {}
                self.wakes.spawn_on(waking::send(context, mailbox, thread, due.pointer()), &self.runtime);
            }
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "cannot save that a boss is woken; retrying"),
        }
    }

    /// Records the result of a run of the client's command.
    pub(super) fn note_run(&mut self, thread: ThreadId, failure: Option<String>) {
        self.apply(vec![Effect::note("save the result of waking a boss", Entry::WakeRan { thread, failure })]);
    }
}

fn may_send(registry: &Registry, thread: &ThreadId, now: Timestamp, me: &ServerId) -> bool {
    registry.wakes.may_send(thread, now, me, |server| registry.servers.contains_key(server))
}
