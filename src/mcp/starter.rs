//! Starts the orchestrator beside the session. After a failed start the next call starts it again, since the cause (a
//! full disk, a missing permission, a wrong setting) may be gone by then.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use thiserror::Error;

use crate::config::ConfigError;
use crate::mission::hint::{Hint, Hinted};
use crate::orchestrator::{Orchestrator, OrchestratorError};

/// The reason why the orchestrator did not start.
#[derive(Debug, Error)]
pub enum StartError {
    #[error(
        "cannot manage workers: this is a worker of another orchestrator ({tag}), and workers do not manage workers \
         (the user's setting max_depth is {most})"
    )]
    InWorker { tag: String, most: u32 },
    #[error("cannot start orchestrator-boss")]
    Settings(#[from] ConfigError),
    #[error("cannot start orchestrator-boss")]
    Directory(#[from] io::Error),
    #[error("cannot start orchestrator-boss")]
    Orchestrator(#[from] OrchestratorError),
    #[error("cannot start orchestrator-boss because of a bug")]
    Panicked,
}

impl Hinted for StartError {
    fn hints(&self) -> Vec<Hint> {
        let mut hints = match self {
            Self::InWorker { .. } => {
                let alone = "do the mission yourself, and end with a line that begins with BLOCKED: if you cannot";
                return vec![Hint::to(alone)];
            }
            Self::Settings(error) => error.hints(),
            Self::Orchestrator(error) => error.hints(),
            Self::Directory(_) => Vec::new(),
            Self::Panicked => vec![Hint::to("see its log (stderr)")],
        };
        hints.push(Hint::to("tell the user, who can fix it: the next call tries again, no restart is needed"));
        hints
    }
}

type StartFn = dyn Fn() -> Result<Orchestrator, StartError> + Send + Sync;
type Starting = Shared<BoxFuture<'static, Result<Orchestrator, Arc<StartError>>>>;

#[derive(Clone)]
pub(super) struct Starter {
    start: Arc<StartFn>,
    newest: Arc<Mutex<Starting>>,
}

impl Starter {
    /// Begins the first start at once.
    pub fn new(start: impl Fn() -> Result<Orchestrator, StartError> + Send + Sync + 'static) -> Self {
        let start: Arc<StartFn> = Arc::new(start);
        let newest = Arc::new(Mutex::new(begin(Arc::clone(&start))));
        Self { start, newest }
    }

    /// Returns the orchestrator once it has started, or the reason why it did not.
    pub async fn get(&self) -> Result<Orchestrator, Arc<StartError>> {
        self.newest().await
    }

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

fn begin(start: Arc<StartFn>) -> Starting {
    let started = tokio::task::spawn_blocking(move || start());
    let starting = async {
        match started.await {
            Ok(Ok(orchestrator)) => Ok(orchestrator),
            Ok(Err(error)) => Err(Arc::new(error)),
            Err(_) => Err(Arc::new(StartError::Panicked)),
        }
    };
    let starting = starting.boxed().shared();
    // The start must progress while no call waits for it.
    tokio::spawn(starting.clone());
    starting
}
