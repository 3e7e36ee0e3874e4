//! A one-shot client: an orchestrator in this process, for a command that acts and exits. It acts in the place of the
//! worker's own boss, which is notified of the results as usual. It consumes no notifications and takes over no
//! workers. A server of that boss manages what it starts, if one runs; otherwise the next server does.

use std::env;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::here::Here;
use super::out::End;
use super::places::Places;
use super::recorded;
use crate::attempt::worker_dir::Delivery;
use crate::backend::Backends;
use crate::cli::hint;
use crate::mission::lifecycle::WorkerStatus;
use crate::orchestrator::{
    CancelAnswer, MessageAnswer, MessageDelivery, NewMessage, Observer, Orchestrator, OrchestratorError, RetryRequest,
    Startup, WorkerView,
};
use crate::process;

/// So long a queued worker is looked at before it is called queued: a place may be left to others for five seconds.
const PATIENCE: Duration = Duration::from_secs(8);
/// A living server of the boss hears of it at once.
const PATIENCE_WITH_OTHERS: Duration = Duration::from_secs(4);
/// What is waited for at first may only be the answer of a file system that was just asked what it has free.
const PASSING: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(30);

pub(super) struct Visit {
    orchestrator: Orchestrator,
}

/// An attempt that was asked for.
pub(super) struct Begun {
    pub view: WorkerView,
    /// The reason why it does not run yet, if it does not.
    pub waits_for: Option<String>,
}

/// Opens a one-shot client. Refuses a worker as the caller, since workers do not manage workers. Creates no state where
/// no mission was ever created.
pub(super) async fn visit(places: &Places) -> Result<Visit, End> {
    visit_for(places, &[]).await
}

/// Opens a one-shot client for a command that acts on these workers. Uses the settings with which they were started,
/// unless the user names others.
pub(super) async fn visit_for(places: &Places, workers: &[String]) -> Result<Visit, End> {
    let here = Here::find(places).map_err(End::Failed)?;
    let settings = match places.config {
        Some(_) => here.settings.clone(),
        None => recorded::settings(&here, workers),
    };
    let Here { directory, state_root, .. } = here;
    if let Some(tag) = process::inherited_tag().filter(|tag| process::depth_of(tag) >= settings.max_depth) {
        let most = settings.max_depth;
        return Err(End::Failed(format!(
            "this is a worker of an orchestrator ({tag}), and workers do not lead workers (the user's setting max_depth is {most})"
        )));
    }
    let startup = Startup {
        settings,
        directory: directory.clone(),
        boss: None,
        program: env::current_exe()
            .map_err(|error| End::Failed(format!("could not find the path of this program: {error}")))?,
    };
    let backends = Backends::with_custom(startup.settings.custom.clone());
    let visiting = tokio::task::spawn_blocking(move || Orchestrator::visit(startup, backends));
    let orchestrator =
        visiting.await.map_err(|error| End::Failed(format!("could not open the state directory: {error}")))?;
    match orchestrator.map_err(refused)? {
        Some(orchestrator) => Ok(Visit { orchestrator }),
        None => Err(nobody(&directory, &state_root)),
    }
}

/// Who only looks, where there is something to look at.
pub(super) fn observer(here: &Here) -> Result<Observer, End> {
    here.observe().map_err(End::Failed)?.ok_or_else(|| nobody(&here.directory, &here.state_root))
}

/// Nothing was ever asked for here, or elsewhere than is thought: `state_root` says where was looked.
pub(super) fn nobody(directory: &Path, state_root: &Path) -> End {
    End::Usage(format!(
        "there are no workers here: nothing was ever asked for in {} ({} has none; --state-dir names another place)",
        directory.display(),
        state_root.display()
    ))
}

impl Visit {
    pub fn orchestrator(&self) -> &Orchestrator {
        &self.orchestrator
    }

    /// By id, by its number (`w-3`), or by its task; the error names those that there are.
    pub async fn find(&self, name: &str) -> Result<WorkerView, End> {
        self.orchestrator.get(name).await.map_err(refused)
    }

    /// To a running worker as soon as it can hear it; one that has settled goes on with it.
    pub async fn message(&self, name: &str, text: String, delivery: Delivery) -> Result<MessageAnswer, End> {
        let worker = self.find(name).await?.worker;
        let sent = self.orchestrator.send_message(&worker.boss, name, NewMessage { text, delivery }).await;
        let answer = sent.map_err(refused)?;
        if answer.delivered == MessageDelivery::NextAttempt {
            self.see_begin(worker.id.as_str()).await?;
        }
        Ok(answer)
    }

    /// Returns when nothing of it is left that can be ended. Dropping the future does not call it back.
    pub async fn cancel(&self, name: &str, reason: &str) -> Result<CancelAnswer, End> {
        let worker = self.find(name).await?.worker;
        self.orchestrator.cancel(&worker.boss, name, reason).await.map_err(refused)
    }

    /// Returns when the next attempt runs, or it is known what it waits for.
    pub async fn retry(&self, name: &str, request: RetryRequest) -> Result<Begun, End> {
        let worker = self.find(name).await?.worker;
        let view = self.orchestrator.retry(&worker.boss, name, request).await.map_err(refused)?;
        self.see_begin(view.worker.id.as_str()).await
    }

    /// What this process starts must have its supervisor before it may go.
    async fn see_begin(&self, id: &str) -> Result<Begun, End> {
        let began = Instant::now();
        loop {
            let view = self.find(id).await?;
            let ours = self.orchestrator.leads(&view.worker);
            match view.worker.status {
                WorkerStatus::Starting if ours || began.elapsed() < PATIENCE_WITH_OTHERS => {}
                WorkerStatus::Queued => {
                    let patience = if ours { PATIENCE } else { PATIENCE_WITH_OTHERS };
                    let is_known = ours && view.waits_for.is_some() && began.elapsed() > PASSING;
                    if view.block.is_some() || is_known || began.elapsed() > patience {
                        let waits_for = view.block.as_ref().map(hint::line).or(view.waits_for.clone());
                        let waits_for = waits_for.unwrap_or_else(|| "its turn".to_owned());
                        return Ok(Begun { view, waits_for: Some(waits_for) });
                    }
                }
                _ => return Ok(Begun { view, waits_for: None }),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Lets go of everything; what was begun goes on.
    pub async fn leave(self) {
        self.orchestrator.shut_down().await;
    }
}

/// Converts an error to the words of the command line.
pub(super) fn refused(error: OrchestratorError) -> End {
    let text = hint::of(&error);
    match error {
        OrchestratorError::UnknownWorker { .. }
        | OrchestratorError::NoWorkers { .. }
        | OrchestratorError::AmbiguousWorker { .. } => End::Usage(text),
        _ => End::Failed(text),
    }
}
