//! Runs the user's actions as the commands do, each as a one-shot client on the runtime, so that the screen never waits
//! for git or a server. Results come back as events.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::answer::Answer;
use super::programs::Program;
use super::state::{Label, ScreenEvent};
use crate::attempt::inbox::Delivery;
use crate::cli::attach::Session;
use crate::cli::error::{self, CliError};
use crate::cli::integrate::{self, IntegrationSummary};
use crate::cli::open::Editor;
use crate::cli::places::Places;
use crate::cli::{answer, cancel, message, one_shot, output, retry, sanitize};
use crate::mission::id::WorkerId;
use crate::orchestrator::RetryRequest;

/// Time limit for running actions when the user quits. A merge has none, since its check may take long.
const FINISH: Duration = Duration::from_secs(20);
const REASON: &str = "cancelled in status --watch";

pub(super) struct ActionRunner {
    runtime: Runtime,
    places: Places,
    events: Sender<ScreenEvent>,
    running: Vec<Running>,
    /// Held by the running merge, since each merge must see the result of the previous ones.
    merges: Arc<tokio::sync::Mutex<()>>,
    /// Stops the merges that are not complete, which undoes them.
    stop: CancellationToken,
}

struct Running {
    label: Label,
    task: JoinHandle<()>,
}

impl ActionRunner {
    pub fn new(runtime: Runtime, places: Places, events: Sender<ScreenEvent>) -> Self {
        let (merges, stop) = (Arc::default(), CancellationToken::new());
        Self { runtime, places, events, running: Vec::new(), merges, stop }
    }

    pub fn cancel(&mut self, worker: WorkerId) {
        let places = self.places.clone();
        self.act(Label::Cancel(worker.clone()), async move {
            let client = one_shot::open_for(&places, &[worker.to_string()]).await?;
            let result = cancel::cancel_one(&client, worker.as_str(), REASON).await;
            client.close().await;
            if result.is_good() { Ok(result.line()) } else { Err(CliError::Failed(result.line())) }
        });
    }

    pub fn send(&mut self, worker: WorkerId, text: String) {
        let places = self.places.clone();
        self.act(Label::Message(worker.clone()), async move {
            let (worker, answer) = message::send(&places, worker.as_str(), text, Delivery::WhenReady).await?;
            Ok(message::line(&worker, answer.delivered))
        });
    }

    pub fn answer(&mut self, answer: Answer) {
        let places = self.places.clone();
        let Answer { worker, question, decision, reason } = answer;
        self.act(Label::Answer(worker.clone()), async move {
            answer::answer(&places, worker.as_str(), question, decision, reason).await
        });
    }

    pub fn retry(&mut self, worker: WorkerId, feedback: Option<String>) {
        let places = self.places.clone();
        self.act(Label::Retry(worker.clone()), async move {
            let client = one_shot::open_for(&places, &[worker.to_string()]).await?;
            let request = RetryRequest { feedback, ..RetryRequest::default() };
            let retried = retry::retry(&client, worker.as_str(), request).await;
            client.close().await;
            let retried = retried?;
            if retried.failed { Err(CliError::Failed(retried.line())) } else { Ok(retried.line()) }
        });
    }

    /// Merges the worker's branch after its own check. Several merges run one after the other.
    pub fn merge(&mut self, worker: WorkerId) {
        let label = Label::Merge(worker.clone());
        let (places, events, stop) = (self.places.clone(), self.events.clone(), self.stop.clone());
        let (merges, step_of) = (Arc::clone(&self.merges), label.clone());
        self.act(label, async move {
            let show = |step: &str| {
                let _ = events.send(ScreenEvent::Step { what: step_of.clone(), step: step.to_owned() });
            };
            let stopped = || {
                CliError::Failed(format!("the merge of {worker} was stopped before it was done: nothing was merged"))
            };
            let _turn = tokio::select! {
                turn = merges.lock() => turn,
                () = stop.cancelled() => return Err(stopped()),
            };
            let client = one_shot::open_for(&places, &[worker.to_string()]).await?;
            let merged = tokio::select! {
                merged = integrate::integrate_one(&client, &worker, show) => merged,
                () = stop.cancelled() => Err(stopped()),
            };
            // This undoes a stopped merge.
            client.close().await;
            let merged: IntegrationSummary = merged?;
            if merged.is_good { Ok(merged.text()) } else { Err(CliError::Failed(merged.text())) }
        });
    }

    /// Finds the editor for the worker's worktree.
    pub fn open(&self, worker: WorkerId) {
        self.prepare(move |places| Editor::of(places, worker.as_str()).map(Program::Editor));
    }

    /// Finds the session of the worker.
    pub fn attach(&self, worker: WorkerId) {
        self.prepare(move |places| Session::of(places, worker.as_str()).map(Program::Session));
    }

    fn prepare(&self, find: impl FnOnce(&Places) -> Result<Program, CliError> + Send + 'static) {
        let (places, events) = (self.places.clone(), self.events.clone());
        self.runtime.spawn_blocking(move || {
            let event = match find(&places) {
                Ok(program) => ScreenEvent::Ready(Box::new(program)),
                Err(error) => ScreenEvent::Returned(Err(error)),
            };
            let _ = events.send(event);
        });
    }

    fn act(&mut self, label: Label, work: impl Future<Output = Result<String, CliError>> + Send + 'static) {
        let (events, what) = (self.events.clone(), label.clone());
        self.running.retain(|it| !it.task.is_finished());
        let task = self.runtime.spawn(async move {
            let _ = events.send(ScreenEvent::Done { what: Some(what), answer: work.await });
        });
        self.running.push(Running { label, task });
    }

    /// Waits for the running actions after the screen has ended, and prints their results. A signal, or `at_once`,
    /// undoes the merges that are not complete. Returns the exit status after a signal.
    pub fn finish(mut self, at_once: bool, inbox: &Receiver<ScreenEvent>) -> Option<u8> {
        let mut interrupted = None;
        self.running.retain(|it| !it.task.is_finished());
        let merges = self.running.iter().any(|it| matches!(it.label, Label::Merge(_)));
        if !self.running.is_empty() {
            let doing = self.running.iter().map(|it| it.label.to_string()).collect::<Vec<_>>().join(", ");
            if at_once {
                self.stop.cancel();
            } else {
                let hint = if merges { " (Ctrl-C stops a merge and undoes it)" } else { "" };
                print(&format!("{doing} …{hint}"));
            }
            let limit = if merges && !at_once { Duration::MAX } else { FINISH };
            let tasks = std::mem::take(&mut self.running).into_iter().map(|it| it.task);
            let mut all = futures_util::future::join_all(tasks);
            let (runtime, stop) = (&self.runtime, &self.stop);
            let is_done = runtime.block_on(async {
                let waiting = output::unless_interrupted(tokio::time::timeout(limit, &mut all)).await;
                if waiting.is_err() {
                    interrupted = Some(error::INTERRUPTED);
                }
                if waiting.is_err() && merges {
                    print("interrupted: the merge is stopped and undone …");
                    stop.cancel();
                    return tokio::time::timeout(FINISH, &mut all).await.is_ok();
                }
                matches!(waiting, Ok(Ok(_)))
            });
            for event in inbox.try_iter() {
                match event {
                    ScreenEvent::End(code) => interrupted = interrupted.map(|_| code),
                    ScreenEvent::Done { answer: Ok(text), .. } => print(&text),
                    ScreenEvent::Done { answer: Err(error), .. } => print(&format!("error: {error}")),
                    _ => {}
                }
            }
            if !is_done {
                print("some actions continue without this screen");
            }
        }
        self.runtime.shutdown_background();
        interrupted
    }
}

/// Prints a line for the user, where the screen was.
fn print(text: &str) {
    let _ = writeln!(io::stderr(), "{}", sanitize::text(text));
}
