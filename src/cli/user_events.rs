//! Notifies the user of attempts that stall, ask or end while no server runs. A supervisor process does this: at a
//! stall, at a question, and after its attempt has settled. It changes no state, except that it claims the events that
//! it sends.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use crate::attempt::assignment::Assignment;
use crate::attempt::secrets::Secrets;
use crate::attempt::servers::Servers;
use crate::attempt::state_dir::StateDir;
use crate::attempt::worker_dir::{AttemptDir, AttemptEvent};
use crate::config::Settings;
use crate::files::{self, FileError, lease};
use crate::mission::delivery;
use crate::mission::id::BossId;
use crate::mission::registry::Worker;
use crate::mission::user_event::{self, NotifyEvent, UserEvent};
use crate::orchestrator::{EVENT_WAVE, OrchestratorError, send_user_events};
use crate::store::reader::Reader;
use crate::supervisor::Alert;

/// Notifies the user of the end of this attempt, unless a server runs: then that server or its successor does it.
pub(super) fn after_attempt(root: &Path) {
    if let Err(error) = notify(&AttemptDir::at(root.to_owned())) {
        tracing::warn!(%error, "cannot notify the user; the next server will");
    }
}

/// Notifies the user that this attempt needs a person, unless a server runs and does so.
pub(super) fn on_alert(root: &Path, alert: &Alert) {
    if let Err(error) = notify_of(&AttemptDir::at(root.to_owned()), alert) {
        tracing::warn!(%error, "cannot notify the user that a worker needs them");
    }
}

fn notify(attempt: &AttemptDir) -> Result<(), OrchestratorError> {
    let Some(sender) = Sender::of(attempt)? else { return Ok(()) };
    if attempt.outcome()?.is_none() {
        return Ok(());
    }
    files::create_once(&attempt.event_pending(), b"")?;
    // One supervisor at a time: the first one also sends the events of attempts that end meanwhile.
    let _lock = lease::wait_for(&attempt.state_dir().events_lock())?;
    if !attempt.event_pending().exists() {
        return Ok(());
    }
    std::thread::sleep(EVENT_WAVE);
    sender.send(|reader, settings, repository| claim_all(reader, settings, repository))
}

fn notify_of(attempt: &AttemptDir, alert: &Alert) -> Result<(), OrchestratorError> {
    let Some(sender) = Sender::of(attempt)? else { return Ok(()) };
    let worker = sender.assignment.worker_id.clone();
    sender.send(|reader, settings, repository| {
        let Some(worker) = reader.registry().get(&worker) else { return Ok(Vec::new()) };
        let (event, claim) = match alert {
            Alert::Stalled(evidence) => {
                (user_event::progress(reader.registry(), worker, Some(evidence)).1, AttemptEvent::Stalled)
            }
            Alert::Asked(question) => (Some(user_event::asked(question)), AttemptEvent::Asked(question.id.clone())),
        };
        let Some(event) = event.filter(|(event, _)| settings.notify.contains(event)) else { return Ok(Vec::new()) };
        let mut worker = Worker::clone(worker);
        worker.status = worker.status.asking(matches!(alert, Alert::Asked(_)));
        let event = UserEvent::of_worker(&worker, event, repository, Timestamp::now());
        Ok(if attempt.claim_event(&claim)? { vec![event] } else { Vec::new() })
    })
}

/// A supervisor that sends events because no server runs.
struct Sender {
    command: String,
    assignment: Assignment,
    reader: Reader,
}

impl Sender {
    /// Returns `None` if a server runs, or if the user has set no command.
    fn of(attempt: &AttemptDir) -> Result<Option<Self>, OrchestratorError> {
        let Some(mut assignment) = files::read_json::<Assignment>(&attempt.assignment())? else { return Ok(None) };
        Secrets::inherited().restore(&mut assignment.settings);
        let Some(command) = assignment.settings.notify_command.take() else { return Ok(None) };
        let reader = Reader::open(attempt.state_dir().root())?.filter(|reader| !has_server(reader));
        Ok(reader.map(|reader| Self { command, assignment, reader }))
    }

    /// Runs the command once for the events that `claim` returns.
    fn send(
        mut self,
        claim: impl FnOnce(&mut Reader, &Settings, Option<PathBuf>) -> Result<Vec<UserEvent>, OrchestratorError>,
    ) -> Result<(), OrchestratorError> {
        let repository = self.assignment.repository.as_ref().map(|repository| repository.root().to_owned());
        let directory = repository.clone().unwrap_or_else(|| self.assignment.directory.clone());
        self.reader.catch_up()?;
        let events = claim(&mut self.reader, &self.assignment.settings, repository)?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(OrchestratorError::Thread)?;
        let state_root = self.reader.dir().root();
        runtime.block_on(send_user_events(&self.command, &directory, state_root, &events));
        Ok(())
    }
}

/// Returns whether a live server will notify the user. One-shot clients such as `retry` do not count.
fn has_server(reader: &Reader) -> bool {
    let mut servers = reader.registry().servers.iter().filter(|(_, server)| !server.boss.is_one_shot_client());
    let known = Servers::of(reader.dir().root());
    servers.any(|(id, _)| known.is_alive(id))
}

/// Claims the events of attempts that ended without a server, and returns them.
fn claim_all(
    reader: &Reader,
    settings: &Settings,
    repository: Option<PathBuf>,
) -> Result<Vec<UserEvent>, OrchestratorError> {
    let is_wanted = |event: NotifyEvent| settings.notify.contains(&event);
    let workers: Vec<Arc<Worker>> = reader.registry().workers().map(|worker| reader.up_to_date(worker)).collect();
    let (mut events, mut bosses) = (Vec::new(), Vec::<&BossId>::new());
    for worker in workers.iter().filter(|worker| delivery::is_final(worker)) {
        let attempt = newest_attempt(reader.dir(), worker);
        if !take_pending(&attempt)? {
            continue;
        }
        bosses.push(&worker.boss);
        let Some(event) = user_event::end(worker).filter(|(event, _)| is_wanted(*event)) else { continue };
        if attempt.claim_event(&AttemptEvent::Ended)? {
            events.push(UserEvent::of_worker(worker, event, repository.clone(), Timestamp::now()));
        }
    }
    let all = || workers.iter().map(|worker| &**worker);
    if let Some(last) = bosses.into_iter().find_map(|boss| user_event::last_of_all(all(), boss))
        && is_wanted(NotifyEvent::AllDone)
        && newest_attempt(reader.dir(), last).claim_event(&AttemptEvent::AllDone)?
    {
        events.push(UserEvent::all_done(repository, Timestamp::now()));
    }
    Ok(events)
}

fn newest_attempt(dir: &StateDir, worker: &Worker) -> AttemptDir {
    dir.worker(&worker.id).attempt(worker.attempt)
}

/// Removes the mark that the user must be notified of this attempt's end. Returns `false` without such a mark.
fn take_pending(attempt: &AttemptDir) -> Result<bool, FileError> {
    let path = attempt.event_pending();
    match fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(FileError::write(&path, source)),
    }
}
