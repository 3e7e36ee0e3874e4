//! Rebuilds a damaged or lost registry from the workers' folders and the state file: workers and attempts that it
//! lacks, and the highest number that was given. Changes no file.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::former_format;
use super::history::History;
use crate::attempt::state_dir::StateDir;
use crate::attempt::worker_dir::WorkerDir;
use crate::files;
use crate::mission::delivery::Notification;
use crate::mission::entry::AttemptSummary;
use crate::mission::id::{BossId, WorkerId};
use crate::mission::lifecycle::WorkerStatus;
use crate::mission::registry::{Registry, Worker};
use crate::mission::spec::Place;

/// Settlements older than this count as reported.
const REPORTED_BEFORE: SignedDuration = SignedDuration::from_hours(30 * 24);

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Number of workers that were not known.
    pub rebuilt: usize,
    /// Number of known workers with an attempt that was not known.
    pub brought_up_to_date: usize,
    /// Missions that cannot be rebuilt and must be created again.
    pub lost: Vec<String>,
}

/// Content of the state file that the folders lack.
#[derive(Default, Deserialize)]
#[serde(default)]
struct StateFileTasks {
    seq: u64,
    tasks: Vec<RecordedTask>,
    completed_tasks: Vec<RecordedTask>,
    blocked_tasks: Vec<RecordedTask>,
}

#[derive(Deserialize)]
struct RecordedTask {
    description: String,
    status: String,
    worker_id: WorkerId,
    #[serde(default)]
    race: Option<RecordedRace>,
}

#[derive(Deserialize)]
struct RecordedRace {
    #[serde(default)]
    winner: Option<WorkerId>,
}

impl StateFileTasks {
    fn tasks(&self) -> impl Iterator<Item = &RecordedTask> {
        self.tasks.iter().chain(&self.completed_tasks).chain(&self.blocked_tasks)
    }
}

/// Returns whether there is anything to rebuild from.
pub fn is_possible(dir: &StateDir) -> bool {
    !worker_ids(dir).is_empty() || dir.state_file().exists()
}

/// Adds to the registry what the files show. Workers in the history stay there.
pub fn rebuild(registry: &mut Registry, dir: &StateDir, history: &History, now: Timestamp) -> Rebuilt {
    let recorded = read_state_file(dir);
    let mut found = Rebuilt::default();
    registry.seq = registry.seq.max(recorded.seq);
    let ids = worker_ids(dir);
    for id in &ids {
        let folder = dir.worker(id);
        match registry.get(id).cloned() {
            Some(known) => {
                let brought = up_to_date(&known, &folder, Notification::Pending);
                if brought != *known {
                    registry.restore(Arc::new(brought));
                    found.brought_up_to_date += 1;
                }
            }
            None if is_in(history, id) => {}
            None => match folder.recorded().ok().flatten() {
                Some(worker) if worker.id == *id => {
                    registry.restore(Arc::new(from_folder(&worker, &folder, now)));
                    found.rebuilt += 1;
                }
                _ => found.lost.push(format!("{id} (its folder does not hold its mission)")),
            },
        }
    }
    let winners: Vec<WorkerId> = recorded.tasks().filter_map(|task| task.race.as_ref()?.winner.clone()).collect();
    registry.decide_races(&winners);
    let former = former_format::former_workers(dir);
    let numbers = ids.iter().chain(&former).chain(recorded.tasks().map(|task| &task.worker_id));
    let numbers = numbers.filter_map(|id| WorkerId::number_in(id.as_str())).chain(history.numbers());
    registry.last_number = numbers.max().unwrap_or(0).max(registry.last_number);
    take_in_bosses(registry, dir);
    let lost = recorded.tasks().filter(|task| is_lost(registry, history, &ids, task));
    found.lost.extend(lost.map(|task| format!("{} {:?} ({})", task.worker_id, task.description, task.status)));
    found
}

/// Returns the number of the newest change in the state file.
pub fn newest_in_state_file(dir: &StateDir) -> u64 {
    read_state_file(dir).seq
}

fn read_state_file(dir: &StateDir) -> StateFileTasks {
    files::read_json(&dir.state_file()).ok().flatten().unwrap_or_default()
}

fn worker_ids(dir: &StateDir) -> BTreeSet<WorkerId> {
    let Ok(entries) = fs::read_dir(dir.workers()) else { return BTreeSet::new() };
    entries.filter_map(|entry| WorkerId::from_folder(entry.ok()?.file_name().to_str()?)).collect()
}

fn is_in(history: &History, id: &WorkerId) -> bool {
    WorkerId::number_in(id.as_str()).is_some_and(|number| history.contains(number))
}

/// Returns a worker as its folder has it: as of the beginning of its newest attempt, with the outcome of that.
fn from_folder(worker: &Worker, folder: &WorkerDir, now: Timestamp) -> Worker {
    // Whether it was reported is unknown.
    let mut worker = up_to_date(worker, folder, Notification::Unconfirmed);
    let is_old = |brief: &AttemptSummary| now.duration_since(brief.settled_at) > REPORTED_BEFORE;
    if worker.status.is_settled() && worker.last().is_some_and(is_old) {
        worker.notification = Notification::Acknowledged;
    }
    let place = &worker.mission.place;
    worker.worktree_removed |=
        worker.status.is_settled() && matches!(place, Place::Worktree { .. }) && !place.path().exists();
    worker
}

/// Adds the attempts that its folder has and the worker lacks.
pub(super) fn up_to_date(worker: &Worker, folder: &WorkerDir, notification: Notification) -> Worker {
    let mut worker = worker.clone();
    for number in folder.attempts() {
        let known = worker.settled.iter().any(|brief| brief.attempt == number);
        if known || number < worker.attempt {
            continue;
        }
        match folder.attempt(number).outcome().ok().flatten() {
            Some(outcome) => {
                let model = worker.next.model.clone();
                worker.status = WorkerStatus::Settled(outcome.status);
                worker.settled.push(AttemptSummary::of(&outcome, model));
                worker.notification = notification.clone();
            }
            // The server that follows it finds its end.
            None if number > worker.attempt => worker.status = WorkerStatus::Starting,
            None => {}
        }
        worker.attempt = number;
    }
    worker
}

/// Adds the directories of bosses without a session, so that the next one there succeeds them. It was probably the root
/// of the repository.
fn take_in_bosses(registry: &mut Registry, dir: &StateDir) {
    let Some(directory) = dir.root().parent() else { return };
    let anonymous: BTreeSet<BossId> =
        registry.workers().map(|worker| worker.boss.clone()).filter(BossId::is_anonymous).collect();
    for boss in anonymous {
        registry.anonymous.entry(boss).or_insert_with(|| directory.to_owned());
    }
}

/// Returns whether the state file has a task as queued and nothing else is known of it.
fn is_lost(registry: &Registry, history: &History, ids: &BTreeSet<WorkerId>, task: &RecordedTask) -> bool {
    match registry.get(&task.worker_id) {
        Some(worker) => task.status == "queued" && worker.status.is_settled(),
        // Those with a folder were reported before.
        None => !is_in(history, &task.worker_id) && !ids.contains(&task.worker_id),
    }
}
