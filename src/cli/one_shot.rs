//! A one-shot client: an orchestrator in this process, for a command that acts and exits. It acts in place of the
//! worker's own boss, which is notified of the results as usual. It consumes no notifications and takes over no
//! workers. A server of that boss manages what it starts, if one runs; otherwise the next server does.

use std::env;
use std::time::Duration;

use tokio::time::Instant;

use super::error::CliError;
use super::hint;
use super::places::Places;
use super::recorded_settings;
use super::workspace::Workspace;
use crate::attempt::inbox::Delivery;
use crate::backend::Backends;
use crate::mission::lifecycle::WorkerStatus;
use crate::orchestrator::{
    AnswerRequest, Answered, CancelAnswer, MessageAnswer, MessageDelivery, NewMessage, Orchestrator, RetryRequest,
    Startup, WorkerView,
};
use crate::process;

/// Time limit for a queued worker to start before it is reported as queued. A slot may be left to others for five
/// seconds.
const START_LIMIT: Duration = Duration::from_secs(8);
/// Time limit if a server of the boss runs, which notices the worker at once.
const START_LIMIT_ELSEWHERE: Duration = Duration::from_secs(4);
/// Time before the reason for waiting is final. The first reason may be a file system that was just asked for its free
/// space.
const SETTLING: Duration = Duration::from_secs(2);
const POLL_INTERVAL: Duration = Duration::from_millis(30);

pub(super) struct OneShotClient {
    orchestrator: Orchestrator,
}

pub(super) struct StartedAttempt {
    pub view: WorkerView,
    /// The reason why it does not run yet, if it does not.
    pub waits_for: Option<String>,
}

/// Opens a one-shot client. Refuses a worker as the caller, since workers do not manage workers. Creates no state where
/// no mission was ever created.
pub(super) async fn open(places: &Places) -> Result<OneShotClient, CliError> {
    open_for(places, &[]).await
}

/// Opens a one-shot client for a command that acts on these workers. Uses the settings with which they were started,
/// unless the user names others.
pub(super) async fn open_for(places: &Places, workers: &[String]) -> Result<OneShotClient, CliError> {
    let workspace = Workspace::find(places)?;
    let settings = match places.config {
        Some(_) => workspace.settings.clone(),
        None => recorded_settings::of(&workspace, workers),
    };
    if let Some(tag) = process::inherited_tag().filter(|tag| process::depth_of(tag) >= settings.max_depth) {
        let most = settings.max_depth;
        return Err(CliError::Failed(format!(
            "this is a worker of an orchestrator ({tag}), and workers do not manage workers (the user's setting max_depth is {most})"
        )));
    }
    let startup = Startup {
        settings,
        directory: workspace.directory.clone(),
        boss: None,
        program: env::current_exe()
            .map_err(|error| CliError::Failed(format!("cannot find the path of this program: {error}")))?,
    };
    let backends = Backends::with_custom(startup.settings.custom.clone());
    let opening = tokio::task::spawn_blocking(move || Orchestrator::visit(startup, backends));
    let orchestrator =
        opening.await.map_err(|error| CliError::Failed(format!("cannot open the state directory: {error}")))?;
    match orchestrator? {
        Some(orchestrator) => Ok(OneShotClient { orchestrator }),
        None => Err(workspace.no_workers()),
    }
}

impl OneShotClient {
    pub fn orchestrator(&self) -> &Orchestrator {
        &self.orchestrator
    }

    /// Finds a worker by its id, number (`w-3`) or task. The error names the known workers.
    pub async fn find(&self, name: &str) -> Result<WorkerView, CliError> {
        self.orchestrator.get(name).await.map_err(CliError::from)
    }

    /// Sends a message. A settled worker resumes with it.
    pub async fn message(&self, name: &str, text: String, delivery: Delivery) -> Result<MessageAnswer, CliError> {
        let worker = self.find(name).await?.worker;
        let sent = self.orchestrator.send_message(&worker.boss, name, NewMessage { text, delivery, by: None }).await;
        let answer = sent?;
        if answer.delivered == MessageDelivery::NextAttempt {
            self.wait_for_start(worker.id.as_str()).await?;
        }
        Ok(answer)
    }

    /// Answers a question of a running worker.
    pub async fn answer(&self, name: &str, request: AnswerRequest) -> Result<Answered, CliError> {
        let worker = self.find(name).await?.worker;
        self.orchestrator.answer(&worker.boss, name, request).await.map_err(CliError::from)
    }

    /// Cancels a worker and returns when its processes have ended. Dropping the future does not revoke the
    /// cancellation.
    pub async fn cancel(&self, name: &str, reason: &str) -> Result<CancelAnswer, CliError> {
        let worker = self.find(name).await?.worker;
        self.orchestrator.cancel(&worker.boss, name, reason).await.map_err(CliError::from)
    }

    /// Starts the next attempt. Returns when it runs, or when the reason for its waiting is known.
    pub async fn retry(&self, name: &str, request: RetryRequest) -> Result<StartedAttempt, CliError> {
        let worker = self.find(name).await?.worker;
        let view = self.orchestrator.retry(&worker.boss, name, request).await?;
        self.wait_for_start(view.worker.id.as_str()).await
    }

    /// Waits for the supervisor of an attempt that this process starts. Without it, the attempt would not start.
    async fn wait_for_start(&self, id: &str) -> Result<StartedAttempt, CliError> {
        let began = Instant::now();
        loop {
            let view = self.find(id).await?;
            let ours = self.orchestrator.owns_lease_of(&view.worker);
            match view.worker.status {
                WorkerStatus::Starting if ours || began.elapsed() < START_LIMIT_ELSEWHERE => {}
                WorkerStatus::Queued => {
                    let limit = if ours { START_LIMIT } else { START_LIMIT_ELSEWHERE };
                    let is_known = ours && view.waits_for.is_some() && began.elapsed() > SETTLING;
                    if view.block.is_some() || is_known || began.elapsed() > limit {
                        let waits_for = view.block.as_ref().map(hint::line).or(view.waits_for.clone());
                        let waits_for = waits_for.unwrap_or_else(|| "its turn".to_owned());
                        return Ok(StartedAttempt { view, waits_for: Some(waits_for) });
                    }
                }
                _ => return Ok(StartedAttempt { view, waits_for: None }),
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Ends the client. Started attempts keep running.
    pub async fn close(self) {
        self.orchestrator.shut_down().await;
    }
}
