//! Starts the orchestrator beside the session. After a failed start the next call starts it again, since the cause (a
//! full disk, a missing permission, a wrong setting) may be gone by then.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use crate::orchestrator::Orchestrator;

type Start = dyn Fn() -> Result<Orchestrator, String> + Send + Sync;
type Starting = Shared<BoxFuture<'static, Result<Orchestrator, Arc<str>>>>;

#[derive(Clone)]
pub(super) struct Starter {
    start: Arc<Start>,
    newest: Arc<Mutex<Starting>>,
}

impl Starter {
    /// Begins the first start at once.
    pub fn new(start: impl Fn() -> Result<Orchestrator, String> + Send + Sync + 'static) -> Self {
        let start: Arc<Start> = Arc::new(start);
        let newest = Arc::new(Mutex::new(begin(Arc::clone(&start))));
        Self { start, newest }
    }

    /// Returns the orchestrator once it has started, or the reason why it did not.
    pub async fn get(&self) -> Result<Orchestrator, Arc<str>> {
        self.newest().await
    }

    /// Returns the orchestrator if it has started already.
    pub fn started(&self) -> Option<Orchestrator> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.peek()?.as_ref().ok().cloned()
    }

    /// Returns the current start, or a new one if that has failed.
    fn newest(&self) -> Starting {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(newest.peek(), Some(Err(_))) {
            *newest = begin(Arc::clone(&self.start));
        }
        newest.clone()
    }
}

fn begin(start: Arc<Start>) -> Starting {
    let started = tokio::task::spawn_blocking(move || start());
    let starting = async {
        match started.await {
            Ok(Ok(orchestrator)) => Ok(orchestrator),
            Ok(Err(reason)) => Err(Arc::from(reason)),
            Err(_) => Err(Arc::from("orchestrator-boss cannot start because of a bug: see its log (stderr)")),
        }
    };
    let starting = starting.boxed().shared();
    // The start must progress while no call waits for it.
    tokio::spawn(starting.clone());
    starting
}
