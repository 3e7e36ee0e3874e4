//! `clean --builds`: deletes the folders in the worktrees of settled workers that tools create again. The plan only
//! reads. The orchestrator deletes: it checks again, and runs no setup.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use super::{CleanArgs, confirmed, print_rows};
use crate::cli::error::{self, CliError};
use crate::cli::hint;
use crate::cli::one_shot::{self, OneShotClient};
use crate::cli::output;
use crate::cli::places::Places;
use crate::cli::sanitize;
use crate::cli::terminal::bytes;
use crate::cli::workspace::Workspace;
use crate::mission::hint::Hinted;
use crate::mission::registry::Worker;
use crate::mission::words::{self, count};
use crate::orchestrator::{
    BuildFolder, KeptFolder, WorktreeBuilds, builds_of, finished_at, has_worktree, may_be_pruned, own_repository,
    wait_until_unoccupied,
};

/// Maximum number of folders of one worktree that a line names.
const NAMED: usize = 4;

/// The result of a run, or with `--dry-run` its expected result.
#[derive(Debug, Default, Serialize)]
struct BuildsReport {
    dry_run: bool,
    pruned: Vec<PrunedItem>,
    kept: Vec<KeptItem>,
    /// The disk space that was freed, or that a run would free.
    bytes_freed: u64,
}

/// A worktree whose builds are deleted.
#[derive(Debug, Serialize)]
struct PrunedItem {
    worker_id: String,
    path: PathBuf,
    folders: Vec<BuildFolder>,
    bytes: u64,
}

/// A worktree, or a folder in it, that is kept unchanged.
#[derive(Debug, Serialize)]
struct KeptItem {
    worker_id: String,
    path: PathBuf,
    /// The folder, from the root of the worktree.
    #[serde(skip_serializing_if = "Option::is_none")]
    folder: Option<String>,
    why: String,
}

impl BuildsReport {
    fn add(&mut self, worker_id: &str, path: &Path, builds: WorktreeBuilds) {
        self.add_kept(worker_id, path, &builds.kept);
        if !builds.is_empty() {
            let (worker_id, path, bytes) = (worker_id.to_owned(), path.to_owned(), builds.bytes());
            self.bytes_freed += bytes;
            self.pruned.push(PrunedItem { worker_id, path, folders: builds.folders, bytes });
        }
    }

    fn add_kept(&mut self, worker_id: &str, path: &Path, kept: &[KeptFolder]) {
        let item = |folder: &KeptFolder| KeptItem {
            worker_id: worker_id.to_owned(),
            path: path.to_owned(),
            folder: Some(folder.path.display().to_string()),
            why: folder.why.clone(),
        };
        self.kept.extend(kept.iter().map(item));
    }

    fn keep(&mut self, worker_id: &str, path: &Path, why: String) {
        self.kept.push(KeptItem { worker_id: worker_id.to_owned(), path: path.to_owned(), folder: None, why });
    }
}

pub(super) async fn clean(args: &CleanArgs, places: &Places) -> Result<ExitCode, CliError> {
    let workspace = Workspace::find(places)?;
    let before = args.older_than;
    let finding =
        tokio::task::spawn_blocking(move || plan(&workspace, |it| before.is_none_or(|at| finished_at(it) < at)));
    let finding = output::with_progress(|| "measuring what tools create again".to_owned(), finding);
    let plan = output::unless_interrupted(finding).await?.map_err(|error| CliError::Failed(error.to_string()))??;
    if !args.json {
        list(&plan)?;
    }
    if args.dry_run || plan.pruned.is_empty() {
        if args.json {
            output::json(&BuildsReport { dry_run: args.dry_run, ..plan })?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let question = format!("Delete these folders of {}?", count(plan.pruned.len(), "worktree"));
    if !confirmed(args, &question).await? {
        return Ok(ExitCode::from(error::FAILED));
    }
    let mut done = BuildsReport { kept: plan.kept, ..BuildsReport::default() };
    let (mut client, mut is_complete) = (None, true);
    let deleting = async {
        let client = client.insert(one_shot::open(places).await?);
        for item in plan.pruned {
            is_complete &= prune(client, item, &mut done, args.json).await;
        }
        Ok::<(), CliError>(())
    };
    let ended = output::unless_interrupted(deleting).await;
    if let Some(client) = client {
        client.close().await;
    }
    if args.json {
        let _ = output::json(&done);
    } else {
        let pruned = count(done.pruned.len(), "worktree");
        let _ = output::line(&format!("builds of {pruned} deleted, {} freed", bytes(done.bytes_freed)));
    }
    ended??;
    Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::from(error::FAILED) })
}

/// Finds the builds in the worktrees, least recently used first. Those of unwanted workers are kept. Only reads.
fn plan(workspace: &Workspace, is_wanted: impl Fn(&Worker) -> bool) -> Result<BuildsReport, CliError> {
    let failed = |error: &dyn Hinted| CliError::Failed(hint::of(error));
    let mut observer = workspace.observer()?;
    let overview = observer.read()?;
    let mut report = BuildsReport::default();
    let Some(root) = &workspace.repository else { return Ok(report) };
    let found = own_repository(root, observer.state_root()).map_err(|error| failed(&error))?;
    let Some(repository) = found else { return Ok(report) };
    let archived = observer.archived(has_worktree);
    let mut workers: Vec<&Worker> = archived.iter().chain(overview.workers()).map(|view| &*view.worker).collect();
    let all = workers.clone();
    workers.retain(|worker| has_worktree(worker) && worker.mission.place.path().exists());
    workers.sort_by_key(|worker| finished_at(worker));
    for worker in workers {
        let (id, path) = (worker.id.as_str(), worker.mission.place.path());
        let listed = &workspace.settings.prune;
        let builds = may_be_pruned(worker, all.iter().copied())
            .and_then(|()| builds_of(&repository, &observer.folder(&worker.id), worker, listed, None));
        match builds {
            Ok(builds) if builds.is_empty() && builds.kept.is_empty() => {}
            Ok(_) if !is_wanted(worker) => {
                report.keep(id, path, "its worker finished too recently for --older-than".to_owned());
            }
            Ok(builds) => match wait_until_unoccupied(path) {
                Ok(()) => report.add(id, path, builds),
                Err(why) => report.keep(id, path, hint::of(&why)),
            },
            Err(why) => report.keep(id, path, hint::of(&why)),
        }
    }
    Ok(report)
}

/// Deletes the builds of one worktree, and adds the result to the report. Returns false if a planned folder was kept.
async fn prune(client: &OneShotClient, planned: PrunedItem, done: &mut BuildsReport, is_json: bool) -> bool {
    let PrunedItem { worker_id, path, folders, .. } = planned;
    let pruning = client.orchestrator().prune_builds(&worker_id);
    let pruned = output::with_progress(|| format!("deleting the builds of {worker_id}"), pruning).await;
    let tell = |text: String| {
        if !is_json {
            let _ = output::line(&sanitize::text(&text));
        }
    };
    // The new result replaces the plan: builds may have appeared or disappeared since then.
    done.kept.retain(|kept| kept.worker_id != worker_id);
    match pruned {
        Ok(builds) => {
            let stayed = |kept: &&KeptFolder| folders.iter().any(|folder| folder.path == kept.path);
            let mut stayed = builds.kept.iter().filter(stayed).peekable();
            let is_complete = stayed.peek().is_none();
            stayed.for_each(|kept| tell(format!("{worker_id} keeps {}: {}", kept.path.display(), kept.why)));
            done.add(&worker_id, &path, builds);
            is_complete
        }
        Err(why) => {
            let why = hint::of(&why);
            tell(format!("{worker_id} is kept: {why}"));
            done.keep(&worker_id, &path, why);
            false
        }
    }
}

fn list(plan: &BuildsReport) -> Result<(), CliError> {
    let pruned = |item: &PrunedItem| (item.worker_id.clone(), bytes(item.bytes), folders(&item.folders));
    let kept = |item: &KeptItem| {
        let folder = item.folder.as_ref().map(|folder| format!("{folder}: ")).unwrap_or_default();
        (item.worker_id.clone(), String::new(), format!("{folder}{}", item.why))
    };
    if plan.pruned.is_empty() {
        output::line("nothing to delete")?;
    }
    let title = format!("can be deleted ({}):", bytes(plan.bytes_freed));
    print_rows(&title, plan.pruned.iter().map(pruned).collect())?;
    print_rows("kept:", plan.kept.iter().map(kept).collect())
}

/// Formats folders with their sizes. An empty list means that only the remains of an interrupted run are deleted.
fn folders(folders: &[BuildFolder]) -> String {
    let named: Vec<String> = folders.iter().map(|it| format!("{} ({})", it.path.display(), bytes(it.bytes))).collect();
    if named.is_empty() { "left by an interrupted run".to_owned() } else { words::first(&named, NAMED) }
}
