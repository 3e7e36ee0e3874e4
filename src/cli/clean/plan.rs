//! Decides which worktrees can be removed, and why the others are kept. Only reads.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::attempt::verification;
use crate::cli::disk;
use crate::cli::error::CliError;
use crate::cli::hint;
use crate::cli::workspace::Workspace;
use crate::git::{self, Repository};
use crate::mission::delivery;
use crate::mission::hint::Hinted;
use crate::mission::registry::Worker;
use crate::mission::spec::Place;
use crate::orchestrator::{Around, Observer, StayReason, WorkerView, all_folders, own_repository, why_it_stays};

/// A worktree that is removed or kept.
#[derive(Debug, Serialize)]
pub(super) struct WorktreeItem {
    /// The worker that it belongs to; `None` if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<String>,
    pub path: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Size on disk.
    pub bytes: u64,
    /// The reason why it is removed or kept.
    pub why: String,
}

pub(super) struct CleanPlan {
    pub goes: Vec<WorktreeItem>,
    pub stays: Vec<WorktreeItem>,
}

impl CleanPlan {
    pub fn of(workspace: &Workspace) -> Result<Self, CliError> {
        let failed = |error: &dyn Hinted| CliError::Failed(hint::of(error));
        let mut observer = workspace.observer()?;
        let overview = observer.read()?;
        let mut plan = Self { goes: Vec::new(), stays: Vec::new() };
        let Some(root) = &workspace.repository else { return Ok(plan) };
        let found = own_repository(root, observer.state_root()).map_err(|error| failed(&error))?;
        let Some(repository) = found else { return Ok(plan) };
        let known = git::list(&repository).map_err(|error| failed(&error))?;
        let known: HashSet<PathBuf> = known.into_iter().map(|it| it.path).collect();
        let archived = observer.archived(|worker| is_there(worker, &known));
        let views: Vec<&WorkerView> = archived.iter().chain(overview.workers()).collect();
        for view in views.iter().filter(|view| has_worktree(&view.worker, &known)) {
            let into = view.meant_for.clone().or_else(|| overview.integration_branch.clone());
            plan.add(&observer, &repository, &view.worker, into);
        }
        let around = Around {
            repository: &repository,
            state_root: observer.state_root(),
            template: workspace.settings.worktrees_dir.as_deref(),
        };
        all_folders(around).iter().for_each(|folder| plan.add_unknown(folder, &views));
        Ok(plan)
    }

    fn add(&mut self, observer: &Observer, repository: &Repository, worker: &Worker, into: Option<String>) {
        let path = worker.mission.place.path();
        let stays = if delivery::is_final(worker) {
            why_it_stays(repository, &observer.folder(&worker.id), worker, into.clone())
        } else {
            Some(StayReason::Unsettled { status: worker.status })
        };
        let goes = || match (&worker.integrated, into) {
            _ if !path.exists() => "its folder is already gone".to_owned(),
            (Some(integrated), _) => format!("integrated into {}", integrated.into),
            _ if worker.last().is_none_or(|last| last.changes.commits == 0) => "it has no commits".to_owned(),
            (None, Some(into)) => format!("merged into {into}"),
            (None, None) => "it has no changes".to_owned(),
        };
        let item = WorktreeItem {
            worker_id: Some(worker.id.to_string()),
            path: path.to_owned(),
            branch: worker.mission.place.branch().map(str::to_owned),
            bytes: size_on_disk(path),
            why: String::new(),
        };
        match stays {
            Some(why) => self.stays.push(WorktreeItem { why: hint::of(&why), ..item }),
            None => self.goes.push(WorktreeItem { why: goes(), ..item }),
        }
    }

    /// Adds the folders among our worktrees that belong to no worker. They are kept, since their value is unknown.
    fn add_unknown(&mut self, folder: &Path, views: &[&WorkerView]) {
        let known: HashSet<&Path> = views.iter().map(|view| view.worker.mission.place.path()).collect();
        let Ok(entries) = fs::read_dir(folder) else { return };
        // A worktree for a verification run is removed by the process that made it.
        let is_unknown = |path: &PathBuf| !known.contains(path.as_path()) && !verification::is_tree(path);
        for path in entries.flatten().map(|entry| entry.path()).filter(is_unknown) {
            let why = "it belongs to no worker: check it, and remove it with `git worktree remove`".to_owned();
            self.stays.push(WorktreeItem { worker_id: None, branch: None, bytes: size_on_disk(&path), path, why });
        }
    }
}

/// Returns whether the worker has a worktree that exists, or that git still lists.
fn has_worktree(worker: &Worker, known: &HashSet<PathBuf>) -> bool {
    let ours = matches!(worker.mission.place, Place::Worktree { .. }) && !worker.worktree_removed;
    ours && is_there(worker, known)
}

fn is_there(worker: &Worker, known: &HashSet<PathBuf>) -> bool {
    let path = worker.mission.place.path();
    path.exists() || known.contains(path)
}

fn size_on_disk(path: &Path) -> u64 {
    disk::measure([path], Duration::MAX).bytes
}
