//! Checks what earlier runs left: workers without a server, worktrees, salvage refs, verification runs, and their size.
//! Only reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::CheckContext;
use super::check::Finding;
use crate::attempt::launch;
use crate::attempt::state_dir::StateDir;
use crate::attempt::verification;
use crate::attempt::verification_dir::VerificationDir;
use crate::cli::hint;
use crate::cli::shell::{behind, quoted, word};
use crate::cli::terminal::bytes;
use crate::config::LauncherSettings;
use crate::files::{disk, lease};
use crate::git::Git;
use crate::mission::lifecycle::{Ending, WorkerStatus};
use crate::mission::registry::Worker;
use crate::mission::spec::Place;
use crate::mission::words;
use crate::orchestrator::{
    Around, ObservedJob, Observer, Overview, WorkerView, all_folders, has_worktree, jobs_left, own_repository,
    survey_builds,
};

/// Maximum number of items that are named; the others are counted.
const NAMED: usize = 5;
/// Time limit for measuring a size. The size found by then is reported as a minimum.
const COUNTING: Duration = Duration::from_secs(5);

/// Checks what earlier runs left. Takes as long as a scan of all worktrees.
pub fn check_all(context: &CheckContext) -> Vec<Finding> {
    const NAME: &str = "workers";
    let mut checks = Vec::new();
    let observer = Observer::open(&context.state_root, context.settings.integration_branch.as_deref());
    match observer.and_then(|found| found.map(|mut it| Ok((it.read()?, it))).transpose()) {
        Err(error) => checks.push(Finding::bad(NAME, hint::of(&error)).stops_all()),
        Ok(None) => checks.push(Finding::ok(NAME, "no missions here yet")),
        Ok(Some((overview, observer))) => {
            checks.extend(workers(&overview, &observer));
            checks.extend(worktrees(&overview, &observer, &folders(context)));
            checks.extend(builds(context, &overview, &observer));
            checks.extend(jobs(context, &observer));
        }
    }
    checks.extend(verifications(&context.state_root));
    if let Ok(Some(repository)) = &context.repository {
        checks.extend(salvage(repository.root()));
    }
    if context.state_root.exists() {
        let size = size_of([context.state_root.as_path()]);
        checks.push(Finding::ok("size", format!("{size} in {}", context.state_root.display())));
    }
    checks
}

/// Returns the folders in which our worktrees may lie.
fn folders(context: &CheckContext) -> Vec<PathBuf> {
    let Ok(Some(repository)) = &context.repository else { return Vec::new() };
    let template = context.settings.worktrees_dir.as_deref();
    all_folders(Around { repository, state_root: &context.state_root, template })
}

fn workers(overview: &Overview, observer: &Observer) -> Vec<Finding> {
    const NAME: &str = "workers";
    let all: Vec<&WorkerView> = overview.workers().collect();
    let open = all.iter().filter(|view| !view.worker.status.is_settled()).count();
    let mut checks = Vec::new();
    if let Some(repaired) = &overview.repaired {
        checks.push(Finding::warn("journal", repaired.clone()));
    }
    let ids = |views: &[&WorkerView]| -> Vec<String> { views.iter().map(|view| short(view)).collect() };
    let alone: Vec<&WorkerView> =
        all.iter().copied().filter(|view| !view.worker.status.is_settled() && !overview.is_led(&view.worker)).collect();
    let (waiting, started): (Vec<_>, Vec<_>) =
        alone.into_iter().partition(|view| view.worker.status == WorkerStatus::Queued);
    let runs = |view: &&&WorkerView| launch::may_live(&observer.folder(&view.worker.id).attempt(view.worker.attempt));
    let running: Vec<&WorkerView> = started.iter().filter(runs).copied().collect();
    let dead: Vec<&WorkerView> = started.iter().filter(|view| !runs(view)).copied().collect();
    let lost: Vec<&WorkerView> =
        all.iter().copied().filter(|view| view.worker.status == WorkerStatus::Settled(Ending::Lost)).collect();
    let warn = |views: &[&WorkerView], what: &str, verb: &str| {
        let check = Finding::warn(NAME, format!("{}: {what}", words::first(&ids(views), NAMED)));
        ids(views).iter().take(NAMED).fold(check, |check, id| check.fix(format!("orchestrator-boss {verb} {id}")))
    };
    if !running.is_empty() {
        checks.push(warn(
            &running,
            "running under a supervisor without a server; the next server takes over, or",
            "cancel",
        ));
    }
    if !waiting.is_empty() {
        checks.push(warn(&waiting, "queued without a server; start your agent here, or", "cancel"));
    }
    if !dead.is_empty() {
        checks.push(warn(&dead, "ended with the supervisor; the next server records the outcome, or", "cancel"));
    }
    if !lost.is_empty() {
        checks.push(warn(&lost, "ended without an outcome", "retry"));
    }
    if checks.is_empty() {
        let here = overview.bosses.iter().filter(|boss| boss.is_here).count();
        let history =
            if overview.in_history > 0 { format!(", {} in the history", overview.in_history) } else { String::new() };
        checks.push(Finding::ok(NAME, format!("{}, {open} open, {here} of their bosses here{history}", all.len())));
    }
    checks
}

/// Returns the jobs on clusters whose attempt has ended, for each command that reaches a cluster.
fn jobs(context: &CheckContext, observer: &Observer) -> Vec<Finding> {
    const NAME: &str = "jobs";
    let launchers = &context.settings.launchers;
    let Some(id) = StateDir::at(&context.state_root).existing_id().filter(|_| !launchers.is_empty()) else {
        return Vec::new();
    };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Vec::new() };
    let is_over = |job: &ObservedJob| {
        let view = observer.find(job.worker.as_str());
        view.map_or(true, |view| view.worker.attempt > job.attempt || view.worker.status.is_settled())
    };
    let mut by_command: BTreeMap<_, (&LauncherSettings, Vec<&str>)> = BTreeMap::new();
    for (name, launcher) in launchers {
        by_command.entry(&launcher.command).or_insert_with(|| (launcher, Vec::new())).1.push(name);
    }
    let left = by_command.values().filter_map(|(launcher, names)| match runtime.block_on(jobs_left(launcher, id)) {
        Ok(jobs) => {
            let left: Vec<_> = jobs.iter().filter(|job| is_over(job)).collect();
            let words: Vec<String> = left.iter().map(|job| format!("{} of {}", job.job, job.worker)).collect();
            let ids: Vec<String> = left.iter().map(|job| job.job.to_string()).collect();
            let cluster = names.join(", ");
            let message =
                format!("on the cluster of {cluster}, their attempts have ended: {}", words::first(&words, NAMED));
            let cancel = behind(&launcher.command, &format!("scancel {}", ids.join(" ")));
            (!left.is_empty()).then(|| Finding::warn(NAME, message).fix(cancel))
        }
        Err(why) => Some(Finding::warn(NAME, format!("the cluster of {} does not answer: {why}", names.join(", ")))),
    });
    left.collect()
}

/// Returns the short name: `w-3` for `w-3-fix-parser`.
fn short(view: &WorkerView) -> String {
    match view.worker.number() {
        Some(number) => format!("w-{number}"),
        None => view.worker.id.to_string(),
    }
}

fn worktrees(overview: &Overview, observer: &Observer, folders: &[PathBuf]) -> Option<Finding> {
    let mut known: BTreeSet<PathBuf> = BTreeSet::new();
    let (mut merged, mut open, mut with_work, mut unknown) = (0, 0, 0, 0);
    let archived = observer.archived(|worker| worktree_of(worker).is_some());
    for view in overview.workers().chain(&archived) {
        let Some(path) = worktree_of(&view.worker) else { continue };
        if !known.insert(path.to_owned()) {
            continue;
        }
        match (view.worker.status.is_settled(), &view.worker.integrated) {
            (false, _) => open += 1,
            (true, _) if view.merge_is_unknown => unknown += 1,
            (true, Some(_)) => merged += 1,
            (true, None) => with_work += 1,
        }
    }
    let found = folders.iter().flat_map(fs::read_dir).flatten().flatten().map(|it| it.path());
    let is_stray = |path: &PathBuf| path.is_dir() && !known.contains(path) && !verification::is_tree(path);
    let strays: Vec<PathBuf> = found.filter(is_stray).collect();
    let all = known.len() + strays.len();
    if all == 0 {
        return None;
    }
    let size = size_of(known.iter().chain(&strays).map(PathBuf::as_path));
    let parts = [
        (open, "of open workers"),
        (merged, "merged"),
        (with_work, "not merged"),
        (unknown, "with unknown merge status"),
        (strays.len(), "of unknown origin"),
    ];
    let parts: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    let check = Finding::ok("worktrees", format!("{} ({size})", parts.join(", ")));
    Some(match (merged, with_work + unknown + strays.len()) {
        (0, 0) => check,
        // `clean --dry-run` lists the reasons.
        (0, _) => check.fix("orchestrator-boss clean --dry-run"),
        _ => check.fix("orchestrator-boss clean"),
    })
}

/// Measures what tools create again in the worktrees of settled workers.
fn builds(context: &CheckContext, overview: &Overview, observer: &Observer) -> Option<Finding> {
    let root = context.repository.as_ref().ok().and_then(Option::as_ref)?.root();
    let repository = own_repository(root, observer.state_root()).ok().flatten()?;
    let archived = observer.archived(has_worktree);
    let workers: Vec<&Worker> = archived.iter().chain(overview.workers()).map(|view| &*view.worker).collect();
    let listed = &context.settings.prune;
    let survey = survey_builds(&repository, &workers, |id| observer.folder(id), listed, COUNTING);
    let (least, size) = (if survey.is_whole { "" } else { "at least " }, bytes(survey.bytes));
    let worktrees = words::count(survey.worktrees, "worktree");
    let message = format!("{least}{size} in {worktrees} of finished workers, which tools create again");
    (survey.bytes > 0).then(|| Finding::ok("builds", message).fix("orchestrator-boss clean --builds"))
}

/// Returns the worktree that was made for a worker, if it is still there.
fn worktree_of(worker: &Worker) -> Option<&Path> {
    match &worker.mission.place {
        Place::Worktree { path, .. } if !worker.worktree_removed && path.exists() => Some(path),
        _ => None,
    }
}

fn verifications(state_root: &Path) -> Option<Finding> {
    let folders = fs::read_dir(state_root.join("integrations")).into_iter().flatten().flatten().map(|it| it.path());
    let (running, left): (Vec<PathBuf>, Vec<PathBuf>) = folders
        .filter(|path| path.is_dir())
        .partition(|path| lease::is_held(&VerificationDir::at(path.clone()).lock()));
    if !left.is_empty() {
        let size = size_of(left.iter().map(PathBuf::as_path));
        let message = format!(
            "{} of interrupted integrations, {size}: nothing was merged, and the next server removes them",
            left.len()
        );
        return Some(Finding::warn("verifications", message));
    }
    (!running.is_empty()).then(|| Finding::ok("verifications", format!("{} running", running.len())))
}

fn salvage(root: &Path) -> Option<Finding> {
    let list = Git::without_trust(root)
        .args(["for-each-ref", "--format=%(refname)", "refs/orchestrator/salvage"])
        .text()
        .ok()?;
    let refs: Vec<&str> = list.lines().filter(|line| !line.is_empty()).collect();
    let newest = refs.last()?;
    // Workers can create refs, whose names may hold shell commands.
    let (root, newest) = (quoted(root), word(newest));
    let message = format!(
        "{} kept under refs/orchestrator/salvage: show them, and delete those that are no longer needed",
        refs.len()
    );
    Some(
        Finding::ok("salvaged work", message)
            .fix(format!("git -C {root} show {newest}"))
            .fix(format!("git -C {root} update-ref -d {newest}")),
    )
}

/// Measures folders, as far as there is time, and formats their size.
fn size_of<'a>(folders: impl IntoIterator<Item = &'a Path>) -> String {
    let size = disk::measure(folders, COUNTING);
    format!("{}{}", if size.is_whole { "" } else { "at least " }, bytes(size.bytes))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::attempt::state_dir::StateDir;
    use crate::mission::create::{Defaults, Registered, register};
    use crate::mission::entry::{Entry, NewWorker};
    use crate::mission::id::{BossId, ServerId, WorkerId};
    use crate::mission::testing::draft;
    use crate::store::history::{History, HistoryRecord};
    use crate::store::journal::Journal;

    #[test]
    fn worktree_of_archived_worker_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(&folder.path().join("journal"), ServerId::from("s")).unwrap();
        let made = journal.transact(jiff::Timestamp::UNIX_EPOCH, |registry| {
            let defaults = Defaults { worktrees: Path::new("/w"), branch_prefix: "o/", integration_branch: None };
            let made = register(registry, &BossId::from("b"), &[draft("one")], defaults);
            let Ok(Registered::New(new)) = &made[0] else { panic!("{made:?}") };
            (vec![Entry::Created { workers: vec![NewWorker::clone(new)] }], ())
        });
        made.unwrap();
        let mut worker = Arc::clone(journal.registry().workers().next().unwrap());
        let moved = Arc::make_mut(&mut worker);
        (moved.id, moved.status) = (WorkerId::new(7, "moved"), WorkerStatus::Settled(Ending::Completed));
        let path = folder.path().join("worktrees/w-7-moved");
        moved.mission.place =
            Place::Worktree { path: path.clone(), branch: "o/w-7-moved".to_owned(), base: None, directory: None };
        fs::create_dir_all(&path).unwrap();
        History::open(StateDir::at(folder.path()).history()).unwrap().append(&[HistoryRecord::Worker(worker)]).unwrap();
        let mut observer = Observer::open(folder.path(), None).unwrap().unwrap();
        let overview = observer.read().unwrap();
        let found = worktrees(&overview, &observer, &[folder.path().join("worktrees")]).unwrap();
        assert!(found.message.starts_with("1 not merged ("), "{}", found.message);

        let mut overview = overview;
        let view = &mut overview.bosses[0].workers[0];
        let unknown = Arc::make_mut(&mut view.worker);
        unknown.status = WorkerStatus::Settled(Ending::Completed);
        let place = folder.path().join("worktrees/unknown");
        fs::create_dir(&place).unwrap();
        unknown.mission.place = Place::Worktree { path: place, branch: "o".to_owned(), base: None, directory: None };
        view.merge_is_unknown = true;
        let found = worktrees(&overview, &observer, &[]).unwrap();
        assert!(found.message.starts_with("1 not merged, 1 with unknown merge status"), "{}", found.message);
    }
}
