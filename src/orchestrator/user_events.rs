//! Events for the user, and the task that passes them to the user's `notify_command`.
//!
//! The actor only compares each worker with what it last noted, and sends what is new through a channel. Nothing waits
//! for the command: it runs in a task of its own, with a time limit. Each worker's events come from the server that
//! owns its lease. What ends while no server lives is passed on by the next one.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::context::Context;
use crate::attempt::status::LiveStatus;
use crate::config::NotifyEvent;
use crate::mission::delivery;
use crate::mission::entry::AttemptSummary;
use crate::mission::graph;
use crate::mission::id::{BossId, WorkerId};
use crate::mission::lifecycle::{Ending, WorkerStatus};
use crate::mission::outcome::blocked_by;
use crate::mission::registry::{Registry, Worker};

/// Time for which events are collected after the first one.
const WAVE: Duration = Duration::from_secs(1);
/// Time limit of one run of the command.
const RUN_LIMIT: Duration = Duration::from_secs(10);
/// Time in which a server that shuts down starts the command for the last events. Its client does not wait longer.
const FLUSH_LIMIT: Duration = Duration::from_millis(60);
/// Maximum number of bytes that are logged of the command's error output.
const STDERR_SHOWN: usize = 500;

/// One event, as the command reads it.
#[derive(Debug, Clone, Serialize)]
struct UserEvent {
    event: NotifyEvent,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker_id: Option<WorkerId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repository: Option<PathBuf>,
    time: Timestamp,
}

/// The input of the command: the last event, and all that happened within a second.
#[derive(Debug, Serialize)]
struct Wave<'a> {
    #[serde(flatten)]
    last: &'a UserEvent,
    events: &'a [UserEvent],
}

/// The progress of a worker in one attempt. It only advances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
enum Progress {
    #[default]
    Open,
    NeedsPerson,
    Settled,
}

/// The events that were passed on, and the task that runs the command. Without a command it does nothing.
#[derive(Default)]
pub(super) struct UserEvents {
    runner: Option<Runner>,
    /// The newest attempt of each worker, and how far it was.
    noted: HashMap<WorkerId, (u32, Progress)>,
}

struct Runner {
    events: mpsc::UnboundedSender<UserEvent>,
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
        let task = tokio::spawn(run_all(command, context.directory.clone(), inbox));
        let nothing_live = HashMap::new();
        let noted = registry.workers().map(|worker| {
            let (progress, _) = progress(registry, worker, &nothing_live);
            (worker.id.clone(), (worker.attempt, progress))
        });
        Self { runner: Some(Runner { events, task }), noted: noted.collect() }
    }

    /// Passes on what is new of the workers of this server.
    pub fn note(&mut self, context: &Context, registry: &Registry, live: &HashMap<WorkerId, LiveStatus>) {
        let Some(runner) = &self.runner else { return };
        let is_wanted = |event: &NotifyEvent| context.settings.notify.contains(event);
        let repository = context.repository.as_ref().map(|repository| repository.root().to_owned());
        // The server may have no receiver any more, which ends with the runtime.
        let send = |event| drop(runner.events.send(event));
        let mut ended: BTreeSet<&BossId> = BTreeSet::new();
        for worker in registry.workers().filter(|worker| worker.lease == context.server) {
            let (progress, what) = progress(registry, worker, live);
            let noted = self.noted.entry(worker.id.clone()).or_default();
            if (worker.attempt, progress) <= *noted {
                continue;
            }
            *noted = (worker.attempt, progress);
            if progress == Progress::Settled {
                ended.insert(&worker.boss);
            }
            if let Some((event, reason)) = what.filter(|(event, _)| is_wanted(event)) {
                send(UserEvent {
                    event,
                    worker_id: Some(worker.id.clone()),
                    title: Some(worker.mission.title.clone()),
                    status: Some(worker.status.as_str()),
                    reason,
                    repository: repository.clone(),
                    time: Timestamp::now(),
                });
            }
        }
        let is_done = |boss: &BossId| registry.workers().filter(|it| it.boss == *boss).all(|it| delivery::is_final(it));
        if is_wanted(&NotifyEvent::AllDone) && ended.into_iter().any(is_done) {
            let event = NotifyEvent::AllDone;
            let (worker_id, title, status, reason) = (None, None, None, None);
            send(UserEvent { event, worker_id, title, status, reason, repository, time: Timestamp::now() });
        }
    }

    /// Passes on the last events, for a server that shuts down. A command that takes longer continues without it.
    pub async fn finish(self) {
        let Some(Runner { events, task }) = self.runner else { return };
        drop(events);
        let _ = timeout(FLUSH_LIMIT, task).await;
    }
}

/// Returns how far a worker is, with the event that this is for the user. A cancelled worker is none: the user or the
/// boss ended it.
fn progress(
    registry: &Registry,
    worker: &Worker,
    live: &HashMap<WorkerId, LiveStatus>,
) -> (Progress, Option<(NotifyEvent, Option<String>)>) {
    if delivery::is_final(worker) {
        let last = worker.last();
        let reason = last.and_then(AttemptSummary::reasons);
        let event = match worker.status {
            WorkerStatus::Settled(Ending::Completed) if worker.needs_you() => {
                let what = last.and_then(|last| blocked_by(&last.final_message)).unwrap_or_default();
                Some((NotifyEvent::NeedsAnswer, Some(what.to_owned())))
            }
            WorkerStatus::Settled(Ending::Completed) => Some((NotifyEvent::Finished, reason)),
            WorkerStatus::Settled(Ending::Cancelled) => None,
            _ => Some((NotifyEvent::Failed, reason)),
        };
        return (Progress::Settled, event);
    }
    let stalled = live.get(&worker.id).and_then(|live| live.stalled.as_ref());
    let why = stalled.map(|evidence| format!("stalled: {evidence}"));
    match why.or_else(|| graph::block(registry, worker).map(|why| format!("blocked: {}", why.text))) {
        Some(why) => (Progress::NeedsPerson, Some((NotifyEvent::NeedsAnswer, Some(why)))),
        None => (Progress::Open, None),
    }
}

/// Runs the command for each wave of events, one after the other, until the server ends.
async fn run_all(command: String, directory: PathBuf, mut events: mpsc::UnboundedReceiver<UserEvent>) {
    while let Some(first) = events.recv().await {
        let mut wave = vec![first];
        let end = Instant::now() + WAVE;
        while let Ok(Some(event)) = timeout_at(end, events.recv()).await {
            wave.push(event);
        }
        if let Err(why) = run(&command, &directory, &wave, RUN_LIMIT).await {
            tracing::warn!("the notify_command failed: {why}");
        }
    }
}

/// Runs the command once, and ends it with its processes if it takes too long.
async fn run(command: &str, directory: &Path, events: &[UserEvent], limit: Duration) -> Result<(), String> {
    let Some(last) = events.last() else { return Ok(()) };
    let mut input = serde_json::to_vec(&Wave { last, events }).map_err(|error| error.to_string())?;
    input.push(b'\n');
    // A file and no pipe: a process that the command leaves behind may hold it open.
    let stderr = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
    let output = stderr.reopen().map_err(|error| error.to_string())?;
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command).current_dir(directory).process_group(0);
    let started = shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(output).spawn();
    let mut child = started.map_err(|error| format!("cannot start it: {error}"))?;
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let stdin = child.stdin.take();
    let ending = async {
        if let Some(mut stdin) = stdin {
            // A command need not read its input.
            let _ = stdin.write_all(&input).await;
        }
        child.wait().await
    };
    let Ok(status) = timeout(limit, ending).await else {
        // It is not reaped yet, so its process id cannot be reused.
        group.map(|group| kill_process_group(group, Signal::KILL));
        return Err(format!("it was ended after {} s", limit.as_secs()));
    };
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            let said = std::fs::read(stderr.path()).unwrap_or_default();
            let said = String::from_utf8_lossy(&said[..said.len().min(STDERR_SHOWN)]).trim().to_owned();
            Err(format!("{status}: {said}"))
        }
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(event: NotifyEvent) -> UserEvent {
        let (worker_id, title, status, reason) = (None, None, None, None);
        UserEvent { event, worker_id, title, status, reason, repository: None, time: Timestamp::UNIX_EPOCH }
    }

    #[tokio::test]
    async fn wave_of_events_is_one_call() {
        let folder = tempfile::tempdir().unwrap();
        let (events, inbox) = mpsc::unbounded_channel();
        for what in [NotifyEvent::Finished, NotifyEvent::Failed, NotifyEvent::AllDone] {
            events.send(event(what)).unwrap();
        }
        drop(events);
        run_all("cat >> received".into(), folder.path().to_owned(), inbox).await;
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
    async fn hanging_command_is_ended_with_its_processes() {
        let folder = tempfile::tempdir().unwrap();
        let command = "sleep 600 & echo $! > child.new; mv child.new child; wait";
        let limit = Duration::from_secs(5);
        let why = run(command, folder.path(), &[event(NotifyEvent::AllDone)], limit).await.unwrap_err();
        assert_eq!(why, "it was ended after 5 s");
        let child: u32 = std::fs::read_to_string(folder.path().join("child")).unwrap().trim().parse().unwrap();
        let began = Instant::now();
        // A killed process takes a moment to disappear.
        while crate::process::Identity::of(child).is_some_and(|child| child.is_alive()) {
            assert!(began.elapsed() < Duration::from_secs(60), "{child} still runs");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
