//! Passes events for the user to the user's `notify_command`, while a server lives.
//!
//! The actor only compares each worker with what it last noted, and sends what is new through a channel. Nothing waits
//! for the command: it runs in a task of its own, with a time limit. Each worker's events come from the server that
//! owns its lease. An event of a stall or an end is claimed before it is sent, so that the server and the supervisor do
//! not both send it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::answers::asking;
use super::context::Context;
use super::records::Records;
use crate::attempt::notify_failure::NotifyFailure;
use crate::attempt::secrets;
use crate::attempt::status::LiveStatus;
use crate::attempt::worker_dir::{AttemptDir, AttemptEvent};
use crate::mission::causes::with_causes;
use crate::mission::id::{BossId, WorkerId};
use crate::mission::question::Question;
use crate::mission::registry::{Registry, Worker};
use crate::mission::user_event::{self, NotifyEvent, Progress, UserEvent, Wave, last_of_all, progress};
use crate::process::{UserCommand, run_user_command};

/// Time for which events are collected after the first one.
pub const WAVE: Duration = Duration::from_secs(1);
/// Time limit of one run of the command.
const RUN_LIMIT: Duration = Duration::from_secs(10);
/// Time in which a server that shuts down starts the command for the last events. Its client does not wait longer.
const FLUSH_LIMIT: Duration = Duration::from_millis(60);

/// An event, and the claim that it needs. `None` for an event that only this server sends.
struct Queued {
    event: UserEvent,
    claim: Option<(AttemptDir, AttemptEvent)>,
}

/// The events that were passed on, and the task that runs the command. Without a command it does nothing.
#[derive(Default)]
pub(super) struct UserEvents {
    runner: Option<Runner>,
    /// The newest attempt of each worker, and its progress.
    noted: HashMap<WorkerId, (u32, Progress)>,
    /// The open questions whose events were sent.
    questions: HashSet<(WorkerId, String)>,
}

struct Runner {
    events: mpsc::UnboundedSender<Queued>,
    task: JoinHandle<()>,
}

impl UserEvents {
    /// Starts the task if the user has set a command. What has settled before is not reported again. Must be called on
    /// a runtime.
    pub fn start(context: &Context, registry: &Registry) -> Self {
        let Some(command) = context.settings.notify_command.clone().filter(|_| !context.is_one_shot) else {
            return Self::default();
        };
        // Unbounded: each worker causes a few events.
        let (events, inbox) = mpsc::unbounded_channel();
        let task = tokio::spawn(run_all(command, context.directory.clone(), context.state_root.clone(), inbox));
        let noted = registry.workers().map(|worker| {
            let (progress, _) = progress(registry, worker, None);
            (worker.id.clone(), (worker.attempt, progress))
        });
        Self { runner: Some(Runner { events, task }), noted: noted.collect(), questions: HashSet::new() }
    }

    /// Passes on the new events of the workers of this server.
    pub fn note(&mut self, context: &Context, records: &Records, live: &HashMap<WorkerId, LiveStatus>) {
        let Some(runner) = &self.runner else { return };
        let registry = records.registry();
        let is_wanted = |event: &NotifyEvent| context.settings.notify.contains(event);
        let repository = || context.repository.as_ref().map(|repository| repository.root().to_owned());
        let folder = |worker: &Worker| records.dir().map(|dir| dir.worker(&worker.id).attempt(worker.attempt));
        // The server may have no receiver any more, which ends with the runtime.
        let send = |event, claim| drop(runner.events.send(Queued { event, claim }));
        let now = Timestamp::now();
        let mut ended: BTreeSet<&BossId> = BTreeSet::new();
        for (worker, question) in new_questions(&mut self.questions, context, registry, live) {
            if is_wanted(&NotifyEvent::NeedsAnswer) {
                let worker = asking(Arc::clone(worker), live.get(&worker.id));
                let event = UserEvent::of_worker(&worker, user_event::asked(question), repository(), now);
                send(event, folder(&worker).zip(Some(AttemptEvent::Asked(question.id.clone()))));
            }
        }
        for worker in registry.workers().filter(|worker| worker.lease == context.server) {
            let stalled = live.get(&worker.id).and_then(|live| live.stalled.as_deref());
            let (progress, event) = progress(registry, worker, stalled);
            let noted = self.noted.entry(worker.id.clone()).or_default();
            if (worker.attempt, progress) <= *noted {
                continue;
            }
            *noted = (worker.attempt, progress);
            let claimed = match progress {
                Progress::Settled => Some(AttemptEvent::Ended),
                _ => stalled.map(|_| AttemptEvent::Stalled),
            };
            if progress == Progress::Settled {
                ended.insert(&worker.boss);
            }
            if let Some(event) = event.filter(|(event, _)| is_wanted(event)) {
                send(UserEvent::of_worker(worker, event, repository(), now), folder(worker).zip(claimed));
            }
        }
        if !is_wanted(&NotifyEvent::AllDone) {
            return;
        }
        let all = || registry.workers().map(|worker| &**worker);
        if let Some(last) = ended.into_iter().find_map(|boss| last_of_all(all(), boss)) {
            send(UserEvent::all_done(repository(), now), folder(last).zip(Some(AttemptEvent::AllDone)));
        }
    }

    /// Passes on the last events, for a server that shuts down. A command that takes longer continues without it.
    pub async fn finish(self) {
        let Some(Runner { events, task }) = self.runner else { return };
        drop(events);
        let _ = timeout(FLUSH_LIMIT, task).await;
    }
}

/// Returns the open questions of the workers of this server whose events were not sent, and notes them.
fn new_questions<'a>(
    noted: &mut HashSet<(WorkerId, String)>,
    context: &Context,
    registry: &'a Registry,
    live: &'a HashMap<WorkerId, LiveStatus>,
) -> Vec<(&'a Arc<Worker>, &'a Question)> {
    let own = registry.workers().filter(|worker| worker.lease == context.server && worker.status.is_live());
    let asking = own.filter_map(|worker| Some((worker, live.get(&worker.id)?)));
    let open = asking.flat_map(|(worker, live)| live.questions.iter().map(move |open| (worker, &open.question)));
    let open: Vec<(&Arc<Worker>, &Question)> = open.collect();
    let key = |worker: &Worker, question: &Question| (worker.id.clone(), question.id.clone());
    let known = std::mem::replace(noted, open.iter().map(|(worker, question)| key(worker, question)).collect());
    open.into_iter().filter(|(worker, question)| !known.contains(&key(worker, question))).collect()
}

/// Runs the command for each wave of events, one after the other, until the server ends.
async fn run_all(
    command: String,
    directory: PathBuf,
    state_root: PathBuf,
    mut events: mpsc::UnboundedReceiver<Queued>,
) {
    while let Some(first) = events.recv().await {
        let mut wave = vec![first];
        let end = Instant::now() + WAVE;
        while let Ok(Some(event)) = timeout_at(end, events.recv()).await {
            wave.push(event);
        }
        let claimed: Vec<UserEvent> = wave.into_iter().filter(is_claimed).map(|queued| queued.event).collect();
        send(&command, &directory, &state_root, &claimed).await;
    }
}

/// Runs the command once for these events, if there are any. A failure is logged, and recorded for `doctor`.
pub async fn send(command: &str, directory: &Path, state_root: &Path, events: &[UserEvent]) {
    let Some(wave) = Wave::of(events) else { return };
    let mut input = serde_json::to_vec(&wave).expect("texts and times are JSON");
    input.push(b'\n');
    let run = UserCommand { command, directory, without_variable: secrets::VARIABLE, limit: RUN_LIMIT };
    let failure = run_user_command(&run, &input).await.err().map(|why| with_causes(&why));
    if let Some(why) = &failure {
        tracing::warn!("notify_command: {why}");
    }
    if let Err(error) = NotifyFailure::record(state_root, failure) {
        tracing::warn!(%error, "cannot record the result of notify_command");
    }
}

/// Claims an event. If that fails, for example on a full disk, the event is sent: a duplicate is better than a loss.
fn is_claimed(queued: &Queued) -> bool {
    let Some((attempt, event)) = &queued.claim else { return true };
    attempt.claim_event(event).unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn wave_of_events_is_one_call() {
        let folder = tempfile::tempdir().unwrap();
        let (events, inbox) = mpsc::unbounded_channel();
        for event in [NotifyEvent::Finished, NotifyEvent::Failed, NotifyEvent::AllDone] {
            let event = UserEvent { event, ..UserEvent::all_done(None, Timestamp::UNIX_EPOCH) };
            events.send(Queued { event, claim: None }).unwrap();
        }
        drop(events);
        let root = folder.path().to_owned();
        run_all("cat >> received".into(), root.clone(), root, inbox).await;
        let received = std::fs::read_to_string(folder.path().join("received")).unwrap();
        assert_eq!(
            received,
            "{\"event\":\"all_done\",\"time\":\"1970-01-01T00:00:00Z\",\"events\":[\
             {\"event\":\"finished\",\"time\":\"1970-01-01T00:00:00Z\"},\
             {\"event\":\"failed\",\"time\":\"1970-01-01T00:00:00Z\"},\
             {\"event\":\"all_done\",\"time\":\"1970-01-01T00:00:00Z\"}]}\n"
        );
    }

    #[tokio::test]
    async fn last_failure_is_recorded_until_a_success() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let events = [UserEvent::all_done(None, Timestamp::UNIX_EPOCH)];
        send("exit 0", root, root, &events).await;
        assert_eq!(NotifyFailure::last(root).unwrap(), None);
        send("echo broken >&2; exit 3", root, root, &events).await;
        let failure = NotifyFailure::last(root).unwrap().unwrap();
        assert_eq!(failure.error, "cannot complete the command: exit status: 3: broken");
        send("exit 0", root, root, &events).await;
        assert_eq!(NotifyFailure::last(root).unwrap(), None);
    }

    #[tokio::test]
    async fn claimed_event_is_not_sent() {
        let folder = tempfile::tempdir().unwrap();
        let (events, inbox) = mpsc::unbounded_channel();
        for claimed in [true, false] {
            let attempt = AttemptDir::at(folder.path().join(claimed.to_string()));
            attempt.make().unwrap();
            assert!(!claimed || attempt.claim_event(&AttemptEvent::Ended).unwrap());
            let reason = Some(claimed.to_string());
            let event =
                UserEvent { event: NotifyEvent::Failed, reason, ..UserEvent::all_done(None, Timestamp::UNIX_EPOCH) };
            events.send(Queued { event, claim: Some((attempt, AttemptEvent::Ended)) }).unwrap();
        }
        drop(events);
        let root = folder.path().to_owned();
        run_all("cat >> received".into(), root.clone(), root, inbox).await;
        let received = std::fs::read_to_string(folder.path().join("received")).unwrap();
        assert!(received.contains("\"reason\":\"false\"") && !received.contains("true"), "{received}");
    }
}
