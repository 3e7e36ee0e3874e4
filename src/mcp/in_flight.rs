//! Which requests wait for their answer, so that an answer and a cancellation of the same request cannot cross: either
//! the call learns that it was cancelled, or its answer goes out and the cancellation is ignored.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rmcp::model::RequestId;

#[derive(Clone, Default)]
pub(super) struct InFlight {
    requests: Arc<Mutex<HashMap<RequestId, Stage>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    /// The answer is on its way out.
    Answered,
}

impl InFlight {
    /// `false`: a request with this id is in flight already.
    pub(super) fn begin(&self, id: &RequestId) -> bool {
        let mut requests = self.requests();
        let new = !requests.contains_key(id);
        if new {
            requests.insert(id.clone(), Stage::Running);
        }
        new
    }

    /// `false`: too late, the answer is on its way. A cancelled request is never answered, so its id is free at once.
    pub(super) fn cancel(&self, id: &RequestId) -> bool {
        let mut requests = self.requests();
        match requests.get(id) {
            Some(Stage::Answered) => false,
            Some(Stage::Running) => requests.remove(id).is_some(),
            None => true,
        }
    }

    /// The call is done. `false`: it was cancelled, and what it says will be heard by nobody.
    pub(super) fn answer(&self, id: &RequestId) -> bool {
        match self.requests().get_mut(id) {
            Some(stage) => {
                *stage = Stage::Answered;
                true
            }
            None => false,
        }
    }

    /// The answer is written.
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
    fn an_answer_and_a_cancellation_exclude_each_other() {
        let in_flight = InFlight::default();
        let id = RequestId::Number(1);
        assert!(in_flight.begin(&id) && !in_flight.begin(&id));
        assert!(in_flight.answer(&id) && !in_flight.cancel(&id));
        in_flight.end(&id);
        assert!(in_flight.begin(&id) && in_flight.cancel(&id) && !in_flight.answer(&id));
        assert!(in_flight.begin(&id), "the id of a cancelled request is free");
    }
}
