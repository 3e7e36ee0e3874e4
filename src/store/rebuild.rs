//! What the folders of the workers and the state file prove, for a registry that was damaged or lost: workers that it
//! does not know, attempts that it has not heard of, numbers that were given. Reads files; changes none.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::history::History;
use crate::attempt::state_dir::StateDir;
use crate::attempt::worker_dir::WorkerDir;
use crate::files;
use crate::mission::delivery::Notification;
use crate::mission::entry::Brief;
use crate::mission::id::{BossId, WorkerId};
use crate::mission::lifecycle::WorkerStatus;
use crate::mission::registry::{Registry, Worker};
use crate::mission::spec::Place;

/// What is older was told long ago, or nobody waits for it.
const TOLD_BEFORE: SignedDuration = SignedDuration::from_hours(30 * 24);

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Workers that were not known.
    pub rebuilt: usize,
    /// Known ones with an attempt that was not known.
    pub brought_up_to_date: usize,
    /// What was asked for and cannot be rebuilt: to be asked for again.
    pub lost: Vec<String>,
}

/// The state file, as far as it knows what the folders do not.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Remembered {
    seq: u64,
    integration_branch: Option<String>,
    tasks: Vec<Task>,
    completed_tasks: Vec<Task>,
    blocked_tasks: Vec<Task>,
}

#[derive(Deserialize)]
struct Task {
    description: String,
    status: String,
    worker_id: WorkerId,
    #[serde(default)]
    race: Option<Race>,
}

#[derive(Deserialize)]
struct Race {
    #[serde(default)]
    winner: Option<WorkerId>,
}

impl Remembered {
    fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.tasks.iter().chain(&self.completed_tasks).chain(&self.blocked_tasks)
    }
}

/// Whether there is anything to rebuild from.
pub fn is_possible(dir: &StateDir) -> bool {
    !worker_ids(dir).is_empty() || dir.state_file().exists()
}

/// Adds to the registry what the files prove. Whoever is in the history stays there.
pub fn rebuild(registry: &mut Registry, dir: &StateDir, history: &History, now: Timestamp) -> Found {
    let remembered = remembered(dir);
    let mut found = Found::default();
    registry.seq = registry.seq.max(remembered.seq);
    if registry.integration_branch.is_none() {
        registry.integration_branch = remembered.integration_branch.clone();
    }
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
            None => match folder.remembered().ok().flatten() {
                Some(worker) if worker.id == *id => {
                    registry.restore(Arc::new(newly_found(&worker, &folder, now)));
                    found.rebuilt += 1;
                }
                _ => found.lost.push(format!("{id} (its folder does not say what its mission was)")),
            },
        }
    }
    let winners: Vec<WorkerId> = remembered.tasks().filter_map(|task| task.race.as_ref()?.winner.clone()).collect();
    registry.decide_races(&winners);
    let numbers = ids.iter().chain(remembered.tasks().map(|task| &task.worker_id));
    let numbers = numbers.filter_map(|id| WorkerId::number_in(id.as_str())).chain(history.numbers());
    registry.last_number = numbers.max().unwrap_or(0).max(registry.last_number);
    take_in_bosses(registry, dir);
    let lost = remembered.tasks().filter(|task| is_lost(registry, history, &ids, task));
    found.lost.extend(lost.map(|task| format!("{} {:?} ({})", task.worker_id, task.description, task.status)));
    found
}

/// The newest change that the state file has seen.
pub fn newest_told(dir: &StateDir) -> u64 {
    remembered(dir).seq
}

fn remembered(dir: &StateDir) -> Remembered {
    files::read_json(&dir.state_file()).ok().flatten().unwrap_or_default()
}

fn worker_ids(dir: &StateDir) -> BTreeSet<WorkerId> {
    let Ok(entries) = fs::read_dir(dir.workers()) else { return BTreeSet::new() };
    entries.filter_map(|entry| WorkerId::from_folder(entry.ok()?.file_name().to_str()?)).collect()
}

fn is_in(history: &History, id: &WorkerId) -> bool {
    WorkerId::number_in(id.as_str()).is_some_and(|number| history.contains(number))
}

/// A worker as its folder knows it: as it was when its newest attempt began, and what came of that.
fn newly_found(worker: &Worker, folder: &WorkerDir, now: Timestamp) -> Worker {
    // It may have been told of, or not.
    let mut worker = up_to_date(worker, folder, Notification::Unconfirmed);
    let is_old = |brief: &Brief| now.duration_since(brief.settled_at) > TOLD_BEFORE;
    if worker.status.is_settled() && worker.last().is_some_and(is_old) {
        worker.notification = Notification::Acknowledged;
    }
    let place = &worker.mission.place;
    worker.worktree_removed |=
        worker.status.is_settled() && matches!(place, Place::Worktree { .. }) && !place.path().exists();
    worker
}

/// With the attempts that its folder has and it has not.
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
                worker.settled.push(Brief::of(&outcome, model));
                worker.notification = notification.clone();
            }
            // Whoever follows it finds out what it came to.
            None if number > worker.attempt => worker.status = WorkerStatus::Starting,
            None => {}
        }
        worker.attempt = number;
    }
    worker
}

/// A boss without a session is succeeded by the next one in its directory; that was the repository's root, most likely.
fn take_in_bosses(registry: &mut Registry, dir: &StateDir) {
    let Some(directory) = dir.root().parent() else { return };
    let anonymous: BTreeSet<BossId> =
        registry.workers().map(|worker| worker.boss.clone()).filter(BossId::is_anonymous).collect();
    for boss in anonymous {
        registry.anonymous.entry(boss).or_insert_with(|| directory.to_owned());
    }
}

/// Queued as the state file has it, and of that nothing is known.
fn is_lost(registry: &Registry, history: &History, ids: &BTreeSet<WorkerId>, task: &Task) -> bool {
    match registry.get(&task.worker_id) {
        Some(worker) => task.status == "queued" && worker.status.is_settled(),
        // One with a folder was named already.
        None => !is_in(history, &task.worker_id) && !ids.contains(&task.worker_id),
    }
}
