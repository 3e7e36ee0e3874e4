//! Tracks the requests that wait for an answer, so that an answer and a cancellation of one request exclude each other:
//! a cancelled call is not answered, and a cancellation after the answer is ignored.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rmcp::model::RequestId;

#[derive(Clone, Default)]
pub(super) struct RequestsInFlight {
    requests: Arc<Mutex<HashMap<RequestId, Stage>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    /// The answer is about to be written.
    Answered,
}

impl RequestsInFlight {
    /// Adds a request. Returns `false` if its id is already in flight.
    pub(super) fn begin(&self, id: &RequestId) -> bool {
        match self.requests().entry(id.clone()) {
            Entry::Occupied(_) => false,
            Entry::Vacant(entry) => {
                entry.insert(Stage::Running);
                true
            }
        }
    }

    /// Cancels a request and frees its id. Returns `false` if it was answered before.
    pub(super) fn cancel(&self, id: &RequestId) -> bool {
        let mut requests = self.requests();
        match requests.get(id) {
            Some(Stage::Answered) => false,
            Some(Stage::Running) => requests.remove(id).is_some(),
            None => true,
        }
    }

    /// Marks a request as answered. Returns `false` if it was cancelled.
    pub(super) fn answer(&self, id: &RequestId) -> bool {
        self.requests().get_mut(id).map(|stage| *stage = Stage::Answered).is_some()
    }

    /// Removes a request whose answer is being written.
    pub(super) fn end(&self, id: &RequestId) {
        self.requests().remove(id);
    }

    fn requests(&self) -> MutexGuard<'_, HashMap<RequestId, Stage>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_and_cancellation_exclude_each_other() {
        let in_flight = RequestsInFlight::default();
        let id = RequestId::Number(1);
        assert!(in_flight.begin(&id) && !in_flight.begin(&id));
        assert!(in_flight.answer(&id) && !in_flight.cancel(&id));
        in_flight.end(&id);
        assert!(in_flight.begin(&id) && in_flight.cancel(&id) && !in_flight.answer(&id));
        assert!(in_flight.begin(&id), "the id of a cancelled request is free");
    }
}
