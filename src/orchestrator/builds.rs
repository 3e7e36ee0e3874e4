//! The builds in the worktrees of settled workers: folders such as `node_modules`, which tools create again. Only
//! reads; [`super::prune`] deletes them.
//!
//! Only worktrees that this program created for a worker count. The record of a worktree lists the files that were
//! copied into it, so they are never taken for a build.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use thiserror::Error;

use super::error::OrchestratorError;
use crate::attempt::worker_dir::WorkerDir;
use crate::files::disk;
use crate::git::{self, Aside, BuildRules, Repository};
use crate::mission::delivery;
use crate::mission::hint::{Hint, Hinted};
use crate::mission::id::WorkerId;
use crate::mission::lifecycle::WorkerStatus;
use crate::mission::registry::Worker;
use crate::mission::spec::Place;
use crate::process::{self, Occupant};

/// Maximum time to wait for a git call that only reads.
const GIT_ENDS_WITHIN: Duration = Duration::from_secs(2);

/// The builds in one worktree. After a pruning, those that were deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorktreeBuilds {
    pub folders: Vec<BuildFolder>,
    /// Folders that look like builds but stay.
    pub kept: Vec<KeptFolder>,
    /// Disk space of the builds that an interrupted pruning moved aside and did not delete. `None` without any.
    pub aside: Option<u64>,
    /// False if the time limit ended the search early.
    pub is_whole: bool,
}

/// A folder that can be deleted, by its path from the root of the worktree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildFolder {
    #[serde(serialize_with = "as_text")]
    pub path: PathBuf,
    /// Disk space that its removal frees.
    pub bytes: u64,
}

/// A folder that stays, by its path from the root of the worktree, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptFolder {
    pub path: PathBuf,
    pub why: String,
}

/// The record of the last pruning of a worktree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruning {
    pub at: Timestamp,
    pub folders: Vec<BuildFolder>,
}

/// The builds in all worktrees of settled workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct BuildsSurvey {
    /// Disk space that their removal frees. A minimum if `is_whole` is false.
    pub bytes: u64,
    /// Number of worktrees with builds.
    pub worktrees: usize,
    /// False if the time limit ended the survey early.
    pub is_whole: bool,
}

/// The reason why the builds of a worktree must not be deleted now.
#[derive(Debug, Error)]
pub enum BuildsStay {
    #[error("its worker is {status}")]
    Unsettled { status: WorkerStatus },
    #[error("its worker is about to start again")]
    StartsAgain,
    #[error("{worker} works in it")]
    UsedByWorker { worker: WorkerId },
    #[error("{} (process {}) works in it", .0.program, .0.pid)]
    Occupied(Occupant),
    #[error("no record shows what was copied into it")]
    CopiesUnknown,
    #[error(transparent)]
    Failed(#[from] OrchestratorError),
}

impl Hinted for BuildsStay {
    fn hints(&self) -> Vec<Hint> {
        match self {
            Self::Failed(error) => error.hints(),
            _ => Vec::new(),
        }
    }
}

impl WorktreeBuilds {
    /// Returns the disk space that the removal of all of it frees, in bytes.
    pub fn bytes(&self) -> u64 {
        self.folders.iter().map(|folder| folder.bytes).chain(self.aside).fold(0, u64::saturating_add)
    }

    /// Returns whether there is nothing to delete.
    pub fn is_empty(&self) -> bool {
        self.folders.is_empty() && self.aside.is_none()
    }
}

/// Serializes a path as text: it need not be UTF-8, and JSON must be.
fn as_text<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// Returns whether a worktree was created for the worker and not recorded as removed.
pub fn has_worktree(worker: &Worker) -> bool {
    matches!(worker.mission.place, Place::Worktree { .. }) && !worker.worktree_removed
}

/// Returns the time at which the worker last settled, which orders worktrees by their last use.
pub fn finished_at(worker: &Worker) -> Timestamp {
    worker.last().map_or(worker.created_at, |last| last.settled_at)
}

/// Checks that neither the worker nor another one of `all` works in its worktree, or is about to.
pub fn may_be_pruned<'a>(worker: &Worker, all: impl IntoIterator<Item = &'a Worker>) -> Result<(), BuildsStay> {
    if !worker.status.is_settled() {
        return Err(BuildsStay::Unsettled { status: worker.status });
    }
    if !delivery::is_final(worker) {
        return Err(BuildsStay::StartsAgain);
    }
    let path = worker.mission.place.path();
    let works_there = |it: &&Worker| !it.status.is_settled() && it.mission.place.path().starts_with(path);
    match all.into_iter().find(works_there) {
        Some(other) => Err(BuildsStay::UsedByWorker { worker: other.id.clone() }),
        None => Ok(()),
    }
}

/// Checks that no process has its working directory in the worktree. Waits briefly for a git call to end, since a
/// server may be reading the worktree. Blocks.
pub fn wait_until_unoccupied(worktree: &Path) -> Result<(), BuildsStay> {
    let began = Instant::now();
    loop {
        match process::occupant(worktree) {
            Some(occupant) if occupant.program == "git" && began.elapsed() < GIT_ENDS_WITHIN => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Some(occupant) => return Err(BuildsStay::Occupied(occupant)),
            None => return Ok(()),
        }
    }
}

/// Finds and measures the builds in the worktree that was created for a worker, within the time limit. `listed` is the
/// setting `prune`. Empty if the worktree is gone or was replaced by another one. Blocks.
pub fn builds_of(
    repository: &Repository,
    folder: &WorkerDir,
    worker: &Worker,
    listed: &[String],
    until: Option<Instant>,
) -> Result<WorktreeBuilds, BuildsStay> {
    let nothing = WorktreeBuilds { is_whole: true, ..WorktreeBuilds::default() };
    let Some(made) = made_for(repository, folder, worker)? else { return Ok(nothing) };
    let copied = made.copied().ok_or(BuildsStay::CopiesUnknown)?;
    let rules = BuildRules { listed, copied: &copied, until };
    let found = git::find_builds(&repository.at(&made.path), rules).map_err(OrchestratorError::from)?;
    let mut builds = WorktreeBuilds { is_whole: !found.is_partial, ..nothing };
    let kept = found.kept.into_iter().map(|kept| KeptFolder { why: kept.why.to_string(), path: kept.path });
    builds.kept = kept.collect();
    for path in found.folders {
        let bytes = builds.measure([&*made.path.join(&path)], until);
        builds.folders.push(BuildFolder { path, bytes });
    }
    let aside = Aside::content(&made.path);
    let bytes = builds.measure(aside.iter().map(PathBuf::as_path), until);
    builds.aside = (!aside.is_empty()).then_some(bytes);
    Ok(builds)
}

impl WorktreeBuilds {
    fn measure<'a>(&mut self, paths: impl IntoIterator<Item = &'a Path>, until: Option<Instant>) -> u64 {
        let limit = until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()));
        let size = disk::measure(paths, limit);
        self.is_whole &= size.is_whole;
        size.freed
    }
}

/// Returns the record of the worktree that was created for a worker, if that worktree still exists.
fn made_for(
    repository: &Repository,
    folder: &WorkerDir,
    worker: &Worker,
) -> Result<Option<git::Worktree>, OrchestratorError> {
    let path = worker.mission.place.path();
    if !has_worktree(worker) || path.join(".git").symlink_metadata().is_err() {
        return Ok(None);
    }
    let made: Option<git::Worktree> = folder.worktree()?;
    let is_there =
        |made: &git::Worktree| git::made_by_us(repository, path).is_some_and(|record| record.branch == made.branch);
    Ok(made.filter(|made| made.path == path && is_there(made)))
}

/// Adds up the builds in the worktrees of those workers that have settled, within a time limit. `folder` returns the
/// folder of a worker. Blocks.
pub fn survey_builds(
    repository: &Repository,
    workers: &[&Worker],
    folder: impl Fn(&WorkerId) -> WorkerDir,
    listed: &[String],
    limit: Duration,
) -> BuildsSurvey {
    let until = Instant::now() + limit;
    let mut survey = BuildsSurvey { is_whole: true, ..BuildsSurvey::default() };
    let is_there = |worker: &Worker| has_worktree(worker) && worker.mission.place.path().exists();
    for worker in workers {
        if Instant::now() >= until {
            survey.is_whole = false;
            break;
        }
        if !is_there(worker) || may_be_pruned(worker, workers.iter().copied()).is_err() {
            continue;
        }
        // `clean --builds` reports the worktrees that cannot be examined.
        let Ok(builds) = builds_of(repository, &folder(&worker.id), worker, listed, Some(until)) else { continue };
        survey.is_whole &= builds.is_whole;
        survey.bytes += builds.bytes();
        survey.worktrees += usize::from(!builds.is_empty());
    }
    survey
}
