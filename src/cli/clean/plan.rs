//! Decides which worktrees can be removed, and why the others stay. Only reads.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::attempt::verification;
use crate::cli::here::Here;
use crate::cli::hint;
use crate::cli::out::End;
use crate::cli::visit;
use crate::git::{self, Repository};
use crate::mission::delivery;
use crate::mission::hint::Hinted;
use crate::mission::registry::Worker;
use crate::mission::spec::Place;
use crate::orchestrator::{Around, Observer, WorkerView, all_folders, keep_git_to_what_is_remembered, why_it_stays};

/// One worktree.
#[derive(Debug, Serialize)]
pub(super) struct Item {
    /// The worker that it belongs to; `None` if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<String>,
    pub path: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Size on disk.
    pub bytes: u64,
    /// The reason why it is removed or stays.
    pub why: String,
}

pub(super) struct Plan {
    pub goes: Vec<Item>,
    pub stays: Vec<Item>,
}

impl Plan {
    pub fn of(here: &Here) -> Result<Self, End> {
        let failed = |error: &dyn Hinted| End::Failed(hint::of(error));
        let mut observer = visit::observer(here)?;
        let overview = observer.look().map_err(visit::refused)?;
        let mut plan = Self { goes: Vec::new(), stays: Vec::new() };
        let Some(root) = &here.repository else { return Ok(plan) };
        let Some(repository) = Repository::discover(root).map_err(|error| failed(&error))? else { return Ok(plan) };
        keep_git_to_what_is_remembered(observer.state_root(), &repository).map_err(visit::refused)?;
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
            template: here.settings.worktrees_dir.as_deref(),
        };
        all_folders(around).iter().for_each(|folder| plan.add_strangers(folder, &views));
        Ok(plan)
    }

    fn add(&mut self, observer: &Observer, repository: &Repository, worker: &Worker, into: Option<String>) {
        let path = worker.mission.place.path();
        let stays = match delivery::is_final(worker) {
            false => Some(format!("its worker is {}", worker.status)),
            true => why_it_stays(repository, &observer.folder(&worker.id), worker, into.clone()),
        };
        let goes = || match (&worker.integrated, into) {
            _ if !path.exists() => "its folder is gone already".to_owned(),
            (Some(integrated), _) => format!("integrated into {}", integrated.into),
            _ if worker.last().is_none_or(|last| last.changes.commits == 0) => "it committed nothing".to_owned(),
            (None, Some(into)) => format!("all of it is in {into}"),
            (None, None) => "nothing of its own is in it".to_owned(),
        };
        let item = Item {
            worker_id: Some(worker.id.to_string()),
            path: path.to_owned(),
            branch: worker.mission.place.branch().map(str::to_owned),
            bytes: size_on_disk(path),
            why: String::new(),
        };
        match stays {
            Some(why) => self.stays.push(Item { why, ..item }),
            None => self.goes.push(Item { why: goes(), ..item }),
        }
    }

    /// Adds the folders among our worktrees that belong to no worker. They stay, since their value is unknown.
    fn add_strangers(&mut self, folder: &Path, views: &[&WorkerView]) {
        let known: HashSet<&Path> = views.iter().map(|view| view.worker.mission.place.path()).collect();
        let Ok(entries) = fs::read_dir(folder) else { return };
        // A worktree for a verification run is removed by the process that made it.
        let is_of_nobody = |path: &PathBuf| !known.contains(path.as_path()) && !verification::is_tree(path);
        for path in entries.flatten().map(|entry| entry.path()).filter(is_of_nobody) {
            let why = "no worker's: look at it, and remove it with `git worktree remove`".to_owned();
            self.stays.push(Item { worker_id: None, branch: None, bytes: size_on_disk(&path), path, why });
        }
    }
}

/// It was made, and is there, or git still believes so.
fn has_worktree(worker: &Worker, known: &HashSet<PathBuf>) -> bool {
    let ours = matches!(worker.mission.place, Place::Worktree { .. }) && !worker.worktree_removed;
    ours && is_there(worker, known)
}

fn is_there(worker: &Worker, known: &HashSet<PathBuf>) -> bool {
    let path = worker.mission.place.path();
    path.exists() || known.contains(path)
}

/// What its files take up; files that have several names count once.
fn size_on_disk(path: &Path) -> u64 {
    let mut seen = HashSet::new();
    let mut bytes = 0;
    let mut left = vec![path.to_owned()];
    while let Some(path) = left.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.nlink() > 1 && !metadata.is_dir() && !seen.insert((metadata.dev(), metadata.ino())) {
            continue;
        }
        bytes += metadata.blocks() * 512;
        if metadata.is_dir() {
            left.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
    bytes
}
