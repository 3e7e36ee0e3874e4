//! Waits that block: their beginning, their answers, and the acknowledgement of what an answer reported. The components
//! decide what is due; `background.rs` has the waits that go on in the background.

use tokio::sync::oneshot;

use super::{Actor, Effect, Result};
use crate::crash_point::{self, Point};
use crate::mission::delivery::InFlight;
use crate::mission::entry::Entry;
use crate::mission::id::BossId;
use crate::orchestrator::answers::WaitAnswer;
use crate::orchestrator::waits::{Asked, Ready};

impl Actor {
    pub(super) fn begin_wait(
        &mut self,
        boss: &BossId,
        names: &[String],
        most: usize,
        answer: oneshot::Sender<WaitAnswer>,
    ) -> Result<u64> {
        let selection = self.views().select(boss, names)?;
        let ticket = self.waits.begin(Asked { boss: boss.clone(), selection, most }, answer);
        self.answer_waits();
        Ok(ticket)
    }

    /// Returns the answer of a wait whose time is up. `None` if it was answered a moment ago.
    pub(super) fn end_wait(&mut self, ticket: u64) -> Option<WaitAnswer> {
        if let Some(ready) = self.waits.ready(ticket, &self.state.views(), &self.deliveries)
            && let Some((_, answer)) = self.deliver(ticket, ready)
        {
            return Some(answer);
        }
        let wait = self.waits.take(ticket)?;
        Some(self.waits.timed_out(&wait.asked, &self.state.views()))
    }

    /// Answers every wait that has something to report. Each sees what the ones before it have reported.
    pub(super) fn answer_waits(&mut self) {
        for ticket in self.waits.tickets() {
            let ready = self.waits.ready(ticket, &self.state.views(), &self.deliveries);
            if let Some((reply, answer)) = ready.and_then(|ready| self.deliver(ticket, ready))
                && reply.send(answer).is_err()
            {
                self.forget_wait(ticket);
            }
        }
    }

    /// Records an answer as in flight, and returns it with its reply channel. `None` if it cannot be saved, or another
    /// server of this boss has sent the same meanwhile; the wait then stays open.
    pub(super) fn deliver(&mut self, ticket: u64, ready: Ready) -> Option<(oneshot::Sender<WaitAnswer>, WaitAnswer)> {
        let content = ready.content();
        if !content.is_empty() {
            let server = self.state.context.server.clone();
            let recorded = self.state.records.transact(|registry| {
                let wait = (ticket, &ready.asked.boss, &ready.asked.selection);
                let (entry, in_flight) = InFlight::begin(registry, &server, wait, &content).unzip();
                (entry.into_iter().collect(), in_flight)
            });
            match recorded {
                Ok(in_flight) => self.deliveries.add(in_flight?),
                Err(error) => {
                    tracing::error!(%error, "cannot save what a wait reports; it stays due");
                    return None;
                }
            }
            crash_point::at(Point::Notified);
        }
        self.waits.answered(ticket, ready)
    }

    /// Marks an answer as written. The boss's next request then acknowledges it.
    pub(super) fn note_sent(&mut self, ticket: u64) {
        self.waits.sent(ticket);
        if self.deliveries.mark_sent(ticket, std::time::Instant::now()) {
            crash_point::at(Point::AnswerSent);
        }
        self.answer_waits();
    }

    /// Forgets a wait whose client has gone or has cancelled it.
    pub(super) fn forget_wait(&mut self, ticket: u64) {
        self.waits.forget(ticket);
        if let Some(withdrawn) = self.deliveries.withdraw(ticket) {
            self.apply(vec![Effect::note("save the withdrawal of an answer", withdrawn)]);
        }
    }

    /// Acknowledges what a request of this boss shows to have arrived. Returns the newest of these deliveries.
    pub(super) fn note_arrival(&mut self, boss: &BossId) -> Option<u64> {
        let acknowledged = self.deliveries.acknowledge(boss, std::time::Instant::now())?;
        let Entry::Acknowledged { deliveries, .. } = &acknowledged else { return None };
        let newest = deliveries.iter().max().copied();
        let effect = Effect::note("save that notifications arrived", acknowledged);
        self.apply(vec![effect.at(Point::Acknowledged)]);
        newest
    }
}
