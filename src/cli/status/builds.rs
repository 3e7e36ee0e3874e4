//! The builds of settled workers for `status`: their size, and which were deleted. The time for measuring is limited,
//! so that the command stays fast.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cli::terminal::bytes;
use crate::cli::workspace::Workspace;
use crate::mission::registry::Worker;
use crate::mission::words;
use crate::orchestrator::{
    BuildFolder, BuildsSurvey, Observer, Overview, Pruning, builds_of, finished_at, may_be_pruned, own_repository,
    survey_builds,
};
use crate::process;

/// Maximum time for measuring.
const LIMIT: Duration = Duration::from_millis(200);
/// Minimum size in bytes for a line on the screen. A nearly full disk always gets one.
const WORTH: u64 = 1 << 30;
/// Maximum number of folders that a line names.
const NAMED: usize = 5;

/// The builds of one worker.
#[derive(Debug, Default, Serialize)]
pub(super) struct WorkerBuilds {
    /// The folders that `clean --builds` would delete.
    pub folders: Vec<BuildFolder>,
    /// The last pruning, unless the worker has run since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pruned: Option<Pruning>,
}

impl WorkerBuilds {
    pub fn of(workspace: &Workspace, observer: &Observer, overview: &Overview, worker: &Worker) -> Self {
        let folder = observer.folder(&worker.id);
        let pruned: Option<Pruning> = folder.pruning().ok().flatten();
        let pruned = pruned.filter(|pruned| worker.status.is_settled() && pruned.at >= finished_at(worker));
        let others = overview.workers().map(|view| &*view.worker);
        let found = may_be_pruned(worker, others).ok().and_then(|()| {
            let repository = own_repository(workspace.repository.as_deref()?, observer.state_root()).ok().flatten()?;
            let listed = &workspace.settings.prune;
            builds_of(&repository, &folder, worker, listed, Some(Instant::now() + LIMIT)).ok()
        });
        Self { folders: found.map(|found| found.folders).unwrap_or_default(), pruned }
    }

    pub fn is_empty(&self) -> bool {
        self.folders.is_empty() && self.pruned.is_none()
    }

    /// Returns one line for each fact.
    pub fn text(&self) -> String {
        let pruned = self.pruned.as_ref().map(|pruned| format!("pruned: {}", named(&pruned.folders)));
        let found = (!self.folders.is_empty()).then(|| named(&self.folders));
        found.into_iter().chain(pruned).collect::<Vec<_>>().join("\n")
    }
}

fn named(folders: &[BuildFolder]) -> String {
    let names: Vec<String> = folders.iter().map(|it| format!("{} ({})", it.path.display(), bytes(it.bytes))).collect();
    words::first(&names, NAMED)
}

/// Measures the builds of all workers on the screen. `None` if there are none.
pub(super) fn survey(workspace: &Workspace, observer: &Observer, overview: &Overview) -> Option<BuildsSurvey> {
    let repository = own_repository(workspace.repository.as_deref()?, observer.state_root()).ok().flatten()?;
    let workers: Vec<&Worker> = overview.workers().map(|view| &*view.worker).collect();
    let survey = survey_builds(&repository, &workers, |id| observer.folder(id), &workspace.settings.prune, LIMIT);
    (survey.bytes > 0).then_some(survey)
}

/// Returns whether the size is worth a line: it is large, or the disk is nearly full.
pub(super) fn is_worth_a_line(survey: &BuildsSurvey, workspace: &Workspace) -> bool {
    let settings = &workspace.settings;
    let floor = settings.prune_below_mib.max(settings.min_free_disk_mib.saturating_mul(2));
    let is_low = || process::free_disk_bytes(&workspace.state_root).is_some_and(|free| free >> 20 < floor);
    survey.bytes >= WORTH || is_low()
}

/// Formats the line below the workers. It fits into 80 columns, so that its command is not cut.
pub(super) fn line(survey: &BuildsSurvey) -> String {
    let least = if survey.is_whole { "" } else { "over " };
    let worktrees = words::count(survey.worktrees, "worktree");
    format!("{least}{} of builds in {worktrees}: orchestrator-boss clean --builds", bytes(survey.bytes))
}
