//! `orchestrator-state.json`: the state for bosses and people, in the shape that the skill documents.
//!
//! It is a projection of the journal, and no decision depends on its content. Its version is read so that a file of a
//! newer build is not overwritten, and a damaged one is set aside. Data that only servers determine is read for
//! display.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::attempt::status::OpenQuestion;
use crate::files::{self, FileError};
use crate::mission::entry::FORMAT;
use crate::mission::hint::{Hint, Hinted};
use crate::mission::id::WorkerId;
use crate::mission::lifecycle::{Ending, WorkerStatus};
use crate::mission::registry::{Registry, Worker};
use crate::mission::spec::Place;
use crate::mission::{delivery, graph};

#[derive(Debug, Error)]
pub enum StateFileError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot read {}: a newer version of orchestrator-boss wrote it (version {found}; this one knows {FORMAT})", path.display())]
    Newer { path: PathBuf, found: u64 },
}

impl Hinted for StateFileError {
    fn hints(&self) -> Vec<Hint> {
        match self {
            Self::File(error) => error.hints(),
            Self::Newer { .. } => vec![Hint::to("use that version"), Hint::to("choose another --state-dir")],
        }
    }
}

#[derive(Debug, Serialize)]
pub struct StateFile<'a> {
    version: u32,
    /// The sequence number of the newest journal entry that it includes.
    seq: u64,
    as_of: Timestamp,
    integration_branch: Option<&'a str>,
    repository: Option<&'a Path>,
    /// The last repair of the journal, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    repaired: Option<&'a str>,
    tasks: Vec<Task<'a>>,
    completed_tasks: Vec<Task<'a>>,
    blocked_tasks: Vec<Task<'a>>,
}

#[derive(Debug, Serialize)]
struct Task<'a> {
    id: &'a str,
    description: &'a str,
    status: &'a str,
    worker_id: &'a str,
    boss_id: &'a str,
    backend: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    worktree: Option<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    working_directory: Option<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    branch: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    integration_branch: Option<&'a str>,
    depends_on: Vec<&'a str>,
    attempts: u32,
    created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    settled_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verification: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    integrated_into: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    salvage_ref: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    conflicts_with: Vec<Collision>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conflicts_unchecked: Option<Unchecked>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    questions: Vec<TaskQuestion>,
    #[serde(skip_serializing_if = "Option::is_none")]
    race: Option<TaskRace<'a>>,
}

#[derive(Debug, Serialize)]
struct TaskRace<'a> {
    race_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    winner: Option<&'a str>,
}

/// An open question of a worker, and the decisions that it accepts.
#[derive(Debug, Serialize)]
struct TaskQuestion {
    question_id: String,
    text: String,
    accepts: Vec<String>,
    asked_at: Timestamp,
}

impl TaskQuestion {
    fn of(open: &OpenQuestion) -> Self {
        let OpenQuestion { question, asked_at, .. } = open.clone();
        Self { accepts: question.accepted(), question_id: question.id, text: question.text, asked_at }
    }
}

/// A worker or branch that a branch does not merge cleanly with, and the conflicting files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collision {
    #[serde(flatten)]
    pub with: With,
    pub paths: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum With {
    WorkerId(String),
    Branch(String),
}

impl Collision {
    pub fn is_with_integration_branch(&self) -> bool {
        matches!(self.with, With::Branch(_))
    }
}

impl With {
    pub fn name(&self) -> &str {
        match self {
            With::WorkerId(name) | With::Branch(name) => name,
        }
    }
}

/// The part of the conflict check that was skipped for a branch, usually because there are too many branches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unchecked {
    OtherWorkers,
    Anything,
    /// Its integration branch is not the one that was checked.
    OtherTarget,
}

/// The data in the file that only servers determine, for display.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct SavedState {
    pub repository: Option<PathBuf>,
    pub integration_branch: Option<String>,
    tasks: Vec<SavedTask>,
    completed_tasks: Vec<SavedTask>,
    blocked_tasks: Vec<SavedTask>,
}

#[derive(Debug, Deserialize)]
pub struct SavedTask {
    worker_id: WorkerId,
    pub status: String,
    #[serde(default)]
    pub reason: Option<String>,
    #[serde(default)]
    pub conflicts_with: Vec<Collision>,
    #[serde(default)]
    pub conflicts_unchecked: Option<Unchecked>,
}

impl SavedTask {
    /// Returns whether it was written while the worker had this status.
    pub fn is_of(&self, status: WorkerStatus) -> bool {
        // A question opens and closes without a change of the record.
        self.status == status.as_str() || self.status == status.asking(true).as_str()
    }
}

impl SavedState {
    /// Reads the state file. Empty if it cannot be read. Anything but a regular file, such as a pipe, is not opened.
    pub fn read(path: &Path) -> Self {
        let read = is_there(path).then(|| files::read_json(path).ok().flatten());
        read.flatten().unwrap_or_default()
    }

    pub fn by_worker(&self) -> HashMap<&WorkerId, &SavedTask> {
        let tasks = self.tasks.iter().chain(&self.completed_tasks).chain(&self.blocked_tasks);
        tasks.map(|task| (&task.worker_id, task)).collect()
    }
}

/// Content of the file that the registry does not hold.
#[derive(Debug, Clone, Copy, Default)]
pub struct RepositoryInfo<'a> {
    pub repository: Option<&'a Path>,
    /// The setting, or else the branch that is checked out where the server was started. Each task has its own.
    pub integration_branch: Option<&'a str>,
}

/// Returns the file's content for a registry. `waits_for` returns why a queued worker does not start. `collides`
/// returns the conflicts of a worker's branch, and the part of the check that was skipped. `asks` returns the open
/// questions of a running worker.
pub fn project<'a>(
    registry: &'a Registry,
    about: RepositoryInfo<'a>,
    now: Timestamp,
    waits_for: impl Fn(&Worker) -> Option<String>,
    collides: impl Fn(&Worker) -> (Vec<Collision>, Option<Unchecked>),
    asks: impl Fn(&Worker) -> Vec<OpenQuestion>,
) -> StateFile<'a> {
    let mut file = StateFile {
        version: FORMAT,
        seq: registry.seq,
        as_of: now,
        integration_branch: about.integration_branch,
        repository: about.repository,
        repaired: registry.repaired.as_deref(),
        tasks: Vec::new(),
        completed_tasks: Vec::new(),
        blocked_tasks: Vec::new(),
    };
    for worker in registry.workers() {
        let block = graph::block(registry, worker)
            .filter(|_| worker.status == WorkerStatus::Queued || delivery::is_final(worker));
        let list = match (&block, worker.status) {
            (Some(_), _) => &mut file.blocked_tasks,
            (None, WorkerStatus::Settled(Ending::Completed)) => &mut file.completed_tasks,
            (None, _) => &mut file.tasks,
        };
        let mut task = task(worker, block.map(|block| block.line(Hint::words)));
        if worker.shown_status(false) == WorkerStatus::Queued && task.reason.is_none() {
            task.reason = waits_for(worker).map(|what| format!("waits for {what}"));
        }
        (task.conflicts_with, task.conflicts_unchecked) = collides(worker);
        task.questions = asks(worker).iter().map(TaskQuestion::of).collect();
        if !task.questions.is_empty() {
            task.status = worker.status.asking(true).as_str();
        }
        list.push(task);
    }
    file
}

fn task(worker: &Worker, block: Option<String>) -> Task<'_> {
    let mission = &worker.mission;
    let last = worker.last().filter(|_| worker.status.is_settled());
    let failure = last.and_then(|brief| brief.failure.as_ref()).map(|failure| failure.message.clone());
    Task {
        id: mission.task_id.as_str(),
        description: &mission.title,
        status: if block.is_some() { "blocked" } else { worker.shown_status(false).as_str() },
        worker_id: worker.id.as_str(),
        boss_id: worker.boss.as_str(),
        backend: worker.next.backend.as_str(),
        model: worker.next.model.as_deref(),
        worktree: matches!(mission.place, Place::Worktree { .. }).then(|| mission.place.path()),
        working_directory: matches!(mission.place, Place::Directory { .. }).then(|| mission.place.path()),
        branch: worker.branch().filter(|_| mission.place.branch().is_some()),
        integration_branch: worker.integration_branch.as_deref(),
        depends_on: mission.depends_on.iter().map(|task| task.as_str()).collect(),
        attempts: worker.attempt,
        created_at: worker.created_at,
        started_at: worker.started_at,
        settled_at: last.map(|brief| brief.settled_at),
        verification: last.map(|brief| brief.verification.as_str()),
        commit: last.and_then(|brief| brief.changes.head.as_deref()),
        reason: block.or(failure),
        integrated_into: worker.integrated.as_ref().map(|it| it.into.as_str()),
        salvage_ref: worker.salvage_ref.as_deref(),
        conflicts_with: Vec::new(),
        conflicts_unchecked: None,
        questions: Vec::new(),
        race: worker
            .race
            .as_ref()
            .map(|race| TaskRace { race_id: race.id.as_str(), winner: race.winner.as_ref().map(WorkerId::as_str) }),
    }
}

pub fn write(path: &Path, content: &StateFile<'_>) -> Result<(), FileError> {
    files::replace_json(path, content, false)
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u64,
}

/// Checks the file before it is overwritten for the first time. A damaged file, or anything but a file, is set aside,
/// and its new path is returned. A symbolic link is not followed, since its target may be the user's, and a pipe is not
/// read.
pub fn make_way(path: &Path, now: Timestamp) -> Result<Option<PathBuf>, StateFileError> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(FileError::read(path, source).into()),
    };
    if !found.is_file() {
        return set_aside(path, now).map(Some);
    }
    let bytes = fs::read(path).map_err(|source| FileError::read(path, source))?;
    match serde_json::from_slice::<VersionOnly>(&bytes) {
        Ok(VersionOnly { version }) if version > u64::from(FORMAT) => {
            Err(StateFileError::Newer { path: path.to_owned(), found: version })
        }
        Ok(_) => Ok(None),
        Err(_) => set_aside(path, now).map(Some),
    }
}

/// Returns whether the file exists and is a regular file.
pub fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
}

/// Renames the file to a free name.
fn set_aside(path: &Path, now: Timestamp) -> Result<PathBuf, StateFileError> {
    let name = |n: u32| path.with_extension(format!("json.damaged-{}-{n}", now.as_second()));
    let aside = (0..).map(name).find(|aside| fs::symlink_metadata(aside).is_err()).unwrap_or_else(|| name(0));
    fs::rename(path, &aside).map_err(|source| FileError::write(&aside, source))?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_file_is_set_aside_and_newer_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("orchestrator-state.json");
        assert!(make_way(&path, Timestamp::UNIX_EPOCH).unwrap().is_none());
        write(
            &path,
            &project(
                &Registry::default(),
                RepositoryInfo::default(),
                Timestamp::UNIX_EPOCH,
                |_| None,
                |_| (vec![], None),
                |_| vec![],
            ),
        )
        .unwrap();
        assert!(make_way(&path, Timestamp::UNIX_EPOCH).unwrap().is_none());

        fs::write(&path, "{\"version\": 1, \"tas").unwrap();
        let aside = make_way(&path, Timestamp::UNIX_EPOCH).unwrap().unwrap();
        assert_eq!(fs::read_to_string(aside).unwrap(), "{\"version\": 1, \"tas");
        assert!(!path.exists());

        fs::write(&path, format!("{{\"version\": {}}}", FORMAT + 1)).unwrap();
        assert!(matches!(make_way(&path, Timestamp::UNIX_EPOCH), Err(StateFileError::Newer { .. })));
    }
}
