//! The state of a notification, with all its transitions: pending → in flight → unconfirmed → acknowledged. Pure.

use serde::{Deserialize, Serialize};

use super::id::ServerId;

/// The delivery state of the notification of a worker's last settlement, or of its current block.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Notification {
    #[default]
    Pending,
    /// Part of an answer to the client, with no evidence yet that it arrived.
    InFlight {
        /// The sequence number of the journal entry that recorded the answer.
        delivery: u64,
        /// The server whose client received it, or `background`.
        server: ServerId,
        redelivered: bool,
    },
    /// It may have arrived, and is sent once more, marked.
    Unconfirmed,
    Acknowledged,
}

impl Notification {
    /// Records that an answer with it is about to be sent.
    pub(super) fn send(&mut self, delivery: u64, server: &ServerId) {
        if *self != Notification::Acknowledged {
            let redelivered = *self != Notification::Pending;
            *self = Notification::InFlight { delivery, server: server.clone(), redelivered };
        }
    }

    /// Records that a background wait has ended with it. The client gets that answer as often as it asks, and never
    /// acknowledges it. So the notification is due again in every server until there is evidence that it arrived.
    pub(super) fn send_in_background(&mut self, delivery: u64) {
        self.send(delivery, &ServerId::from("background"));
    }

    /// Records that the boss has it, whichever server sent it last.
    pub(super) fn confirm(&mut self) {
        if *self != Notification::Pending {
            *self = Notification::Acknowledged;
        }
    }

    /// Returns the state after the acknowledgement of these deliveries. `None` if it was in none of them.
    pub(super) fn acknowledged(&self, deliveries: &[u64]) -> Option<Self> {
        let concerned = matches!(self, Notification::InFlight { delivery, .. } if deliveries.contains(delivery));
        concerned.then_some(Notification::Acknowledged)
    }

    /// Returns the state after the withdrawal of a delivery that was never sent. `None` if it was not in it.
    pub(super) fn withdrawn(&self, withdrawn: u64) -> Option<Self> {
        match self {
            Notification::InFlight { delivery, redelivered, .. } if *delivery == withdrawn => {
                Some(if *redelivered { Notification::Unconfirmed } else { Notification::Pending })
            }
            _ => None,
        }
    }

    /// Returns whether it must be sent, and then whether it must be marked as sent before. An answer of another server
    /// may be lost; one of this server is still in flight.
    pub(super) fn due(&self, server: &ServerId) -> Option<bool> {
        match self {
            Notification::Pending => Some(false),
            Notification::Unconfirmed => Some(true),
            Notification::InFlight { server: sender, .. } if sender != server => Some(true),
            Notification::InFlight { .. } | Notification::Acknowledged => None,
        }
    }
}
