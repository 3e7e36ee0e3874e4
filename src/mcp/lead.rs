//! The orchestrator behind the session: started beside it, and started again by the next call where it could not be,
//! since what spoke against it (a full disk, a folder without permission, a wrong setting) may have been mended meanwhile.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use crate::orchestrator::Orchestrator;

type Start = dyn Fn() -> Result<Orchestrator, String> + Send + Sync;
type Starting = Shared<BoxFuture<'static, Result<Orchestrator, Arc<str>>>>;

#[derive(Clone)]
pub(super) struct Lead {
    start: Arc<Start>,
    newest: Arc<Mutex<Starting>>,
}

impl Lead {
    /// Begins at once.
    pub fn start(start: impl Fn() -> Result<Orchestrator, String> + Send + Sync + 'static) -> Self {
        let start: Arc<Start> = Arc::new(start);
        let newest = Arc::new(Mutex::new(begin(Arc::clone(&start))));
        Self { start, newest }
    }

    /// The orchestrator, once it has started, or why it cannot lead.
    pub async fn get(&self) -> Result<Orchestrator, Arc<str>> {
        self.newest().await
    }

    /// What there is without waiting.
    pub fn now(&self) -> Option<Orchestrator> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.peek()?.as_ref().ok().cloned()
    }

    /// A start that runs is waited for by all; one that failed before is made anew.
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
            Err(_) => {
                Err(Arc::from("orchestrator-boss could not start, which is a bug in it: its log (stderr) has more"))
            }
        }
    };
    let starting = starting.boxed().shared();
    // Somebody has to drive it while no call waits for it.
    tokio::spawn(starting.clone());
    starting
}
