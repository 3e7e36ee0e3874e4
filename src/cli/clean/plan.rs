//! Decides which worktrees and branches can be removed, and why the others are kept. Only reads.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::attempt::verification;
use crate::cli::error::CliError;
use crate::cli::hint;
use crate::cli::workspace::Workspace;
use crate::files::disk;
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

/// A branch that is deleted or kept.
#[derive(Debug, Serialize)]
pub(super) struct BranchItem {
    /// The worker that it was made for; `None` if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<String>,
    pub branch: String,
    /// The reason why it is deleted or kept.
    pub why: String,
}

/// The user's choice of what to remove.
#[derive(Debug, Clone, Copy)]
pub(super) struct CleanScope {
    /// True if branches are deleted too.
    pub branches: bool,
    /// Only of workers that finished before this.
    pub before: Option<Timestamp>,
}

#[derive(Debug, Default)]
pub(super) struct CleanPlan {
    pub goes: Vec<WorktreeItem>,
    pub stays: Vec<WorktreeItem>,
    pub branches_go: Vec<BranchItem>,
    /// Without those whose worktree is kept.
    pub branches_stay: Vec<BranchItem>,
}

impl CleanPlan {
    pub fn of(workspace: &Workspace, scope: CleanScope) -> Result<Self, CliError> {
        let failed = |error: &dyn Hinted| CliError::Failed(hint::of(error));
        let mut observer = workspace.observer()?;
        let overview = observer.read()?;
        let mut plan = Self::default();
        let Some(root) = &workspace.repository else { return Ok(plan) };
        let found = own_repository(root, observer.state_root()).map_err(|error| failed(&error))?;
        let Some(repository) = found else { return Ok(plan) };
        let known = git::list(&repository).map_err(|error| failed(&error))?;
        let known: HashMap<PathBuf, Option<String>> = known.into_iter().map(|it| (it.path, it.branch)).collect();
        let branches = if scope.branches {
            git::names::local_branches(&repository).map_err(|error| failed(&error))?
        } else {
            BTreeSet::new()
        };
        let archived = observer.archived(|worker| is_there(worker, &known) || branch_of(worker, &branches).is_some());
        let views: Vec<&WorkerView> = archived.iter().chain(overview.workers()).collect();
        for view in &views {
            let found = Found {
                worker: &view.worker,
                into: view.meant_for.clone().or_else(|| overview.integration_branch.clone()),
                worktree: worktree(&view.worker, &known),
                branch: branch_of(&view.worker, &branches),
            };
            plan.add(&observer, &repository, scope, &found);
        }
        let around = Around {
            repository: &repository,
            state_root: observer.state_root(),
            template: workspace.settings.worktrees_dir.as_deref(),
        };
        all_folders(around).iter().for_each(|folder| plan.add_unknown(folder, &views));
        plan.add_unknown_branches(&branches, &workspace.settings.branch_prefix, &views);
        Ok(plan)
    }

    /// Returns whether there is nothing to remove.
    pub fn is_empty(&self) -> bool {
        self.goes.is_empty() && self.branches_go.is_empty()
    }

    fn add(&mut self, observer: &Observer, repository: &Repository, scope: CleanScope, found: &Found<'_>) {
        let worker = found.worker;
        if found.worktree.is_none() && found.branch.is_none() {
            return;
        }
        let kept = found.why_kept(observer, repository, scope);
        let goes = kept.is_none();
        let why = kept.unwrap_or_else(|| found.why_removed());
        if found.worktree.is_some() {
            let path = worker.mission.place.path().to_owned();
            let list = if goes { &mut self.goes } else { &mut self.stays };
            list.push(WorktreeItem {
                worker_id: Some(worker.id.to_string()),
                branch: worker.mission.place.branch().map(str::to_owned),
                bytes: size_on_disk(&path),
                why: why.clone(),
                path,
            });
        }
        if let Some(branch) = found.branch.filter(|_| goes || found.worktree.is_none()) {
            let item = BranchItem { worker_id: Some(worker.id.to_string()), branch: branch.to_owned(), why };
            match found.why_branch_kept(branch) {
                Some(why) if goes => self.branches_stay.push(BranchItem { why, ..item }),
                _ if goes => self.branches_go.push(item),
                _ => self.branches_stay.push(item),
            }
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

    /// Adds the branches with our prefix that belong to no worker. They are kept, too.
    fn add_unknown_branches(&mut self, branches: &BTreeSet<String>, prefix: &str, views: &[&WorkerView]) {
        let known: HashSet<&str> = views.iter().filter_map(|view| view.worker.mission.place.branch()).collect();
        let is_unknown =
            |branch: &&String| !prefix.is_empty() && branch.starts_with(prefix) && !known.contains(branch.as_str());
        for branch in branches.iter().filter(is_unknown) {
            let why = format!("it belongs to no worker: check it, and delete it with `git branch -d {branch}`");
            self.branches_stay.push(BranchItem { worker_id: None, branch: branch.clone(), why });
        }
    }
}

/// A worktree that exists, or that git still lists.
struct FoundWorktree {
    /// The branch that is checked out there.
    branch: Option<String>,
}

/// The worktree and the branch of a worker, as far as they exist.
struct Found<'a> {
    worker: &'a Worker,
    /// The branch that its work is to be merged into.
    into: Option<String>,
    worktree: Option<FoundWorktree>,
    /// Its branch, if branches are deleted and it exists.
    branch: Option<&'a str>,
}

impl Found<'_> {
    fn why_kept(&self, observer: &Observer, repository: &Repository, scope: CleanScope) -> Option<String> {
        let worker = self.worker;
        if !delivery::is_final(worker) {
            return Some(hint::of(&StayReason::Unsettled { status: worker.status }));
        }
        let finished_at = worker.last().map_or(worker.created_at, |last| last.settled_at);
        if scope.before.is_some_and(|before| finished_at >= before) {
            return Some("its worker finished too recently for --older-than".to_owned());
        }
        if self.worktree.is_none() && worker.mission.place.path().exists() {
            return Some(format!("something else is at {}", worker.mission.place.path().display()));
        }
        let folder = observer.folder(&worker.id);
        why_it_stays(repository, &folder, worker, self.into.clone()).map(|why| hint::of(&why))
    }

    /// Returns why a branch is kept although all of its work is merged.
    fn why_branch_kept(&self, branch: &str) -> Option<String> {
        // A name that this program made up ends with the worker's id.
        if !branch.ends_with(self.worker.id.as_str()) {
            return Some(format!("its name was given by the boss: delete it with `git branch -d {branch}`"));
        }
        let checked_out = &self.worktree.as_ref()?.branch;
        let is_other = checked_out.as_deref() != Some(branch);
        is_other.then(|| "its worktree is on another branch: clean again after its removal".to_owned())
    }

    fn why_removed(&self) -> String {
        let worker = self.worker;
        match (&worker.integrated, &self.into) {
            _ if self.worktree.is_some() && !worker.mission.place.path().exists() => {
                "its folder is already gone".to_owned()
            }
            (Some(integrated), _) => format!("integrated into {}", integrated.into),
            _ if worker.last().is_none_or(|last| last.changes.commits == 0) => "it has no commits".to_owned(),
            (None, Some(into)) => format!("merged into {into}"),
            (None, None) => "it has no changes".to_owned(),
        }
    }
}

fn worktree(worker: &Worker, known: &HashMap<PathBuf, Option<String>>) -> Option<FoundWorktree> {
    let ours = matches!(worker.mission.place, Place::Worktree { .. }) && !worker.worktree_removed;
    let found = ours && is_there(worker, known);
    found.then(|| FoundWorktree { branch: known.get(worker.mission.place.path()).cloned().flatten() })
}

fn is_there(worker: &Worker, known: &HashMap<PathBuf, Option<String>>) -> bool {
    let path = worker.mission.place.path();
    path.exists() || known.contains_key(path)
}

/// Returns the branch on which the worker was to work, if it is among these.
fn branch_of<'a>(worker: &'a Worker, branches: &BTreeSet<String>) -> Option<&'a str> {
    worker.mission.place.branch().filter(|branch| branches.contains(*branch))
}

fn size_on_disk(path: &Path) -> u64 {
    disk::measure([path], Duration::MAX).bytes
}
