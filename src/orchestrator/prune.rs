//! Deletes the builds in the worktrees of settled workers, on request or automatically when the disk is nearly full.
//!
//! The repository lock excludes attempts and removals. Each start of an attempt takes it after the journal has the
//! start and before the record of the setup is read. Under the lock, the state is read again. Then the record of the
//! setup is removed, so that the next attempt sets the worktree up again, and each build is moved aside as a whole. The
//! builds are deleted without the lock. If this process dies, the next pruning deletes the rest. Two processes prune one
//! worktree one after the other, so that each build is counted once.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::runtime::Handle;

use super::actor_handle::ActorHandle;
use super::blocking::blocking;
use super::builds::{
    BuildsStay, KeptFolder, Pruning, WorktreeBuilds, builds_of, finished_at, has_worktree, may_be_pruned,
    wait_until_unoccupied,
};
use super::error::OrchestratorError;
use super::mailbox::Ask;
use super::worktrees::repository_of;
use crate::attempt::state_dir::{self, StateDir};
use crate::attempt::worker_dir::WorkerDir;
use crate::crash_point::{self, Point};
use crate::files::FileError;
use crate::git::{Aside, Repository};
use crate::mission::hint::with_hints;
use crate::mission::id::WorkerId;
use crate::mission::registry::Worker;
use crate::mission::words;
use crate::process;

/// Time between two checks of the free space. It doubles, up to a limit, while too little is free and nothing can be
/// pruned.
const EVERY: Duration = Duration::from_secs(5);
const EVERY_AT_MOST: Duration = Duration::from_secs(60);
/// Time for which a worktree is not scanned again, unless its worker has run since. Only other programs can fill it.
const SCANNED_FOR: Duration = Duration::from_secs(60 * 60);
/// The same for a worktree that could not be pruned, for example because a process works in it.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// The worktree of one worker that is to be pruned.
struct Target {
    actor: ActorHandle,
    runtime: Handle,
    repository: Repository,
    folder: WorkerDir,
    worker: Arc<Worker>,
}

/// Deletes the builds of a worker. Returns those that were deleted, and those that stay.
pub(super) async fn prune(actor: &ActorHandle, name: &str) -> Result<WorktreeBuilds, BuildsStay> {
    let named = name.to_owned();
    let worker = actor.ask(|reply| Ask::Lookup { name: Some(named), reply }).await??.worker;
    let worker = worker.ok_or_else(|| OrchestratorError::NoWorkers { name: name.to_owned() })?;
    let all = actor.ask(|reply| Ask::Lookup { name: None, reply }).await??.all;
    may_be_pruned(&worker, all.iter().map(AsRef::as_ref))?;
    let folder = StateDir::open(&actor.context.state_root).map_err(OrchestratorError::from)?.worker(&worker.id);
    let (actor, runtime) = (actor.clone(), Handle::current());
    blocking(move || {
        let repository = repository_of(&actor.context, &worker)?;
        Ok(Target { actor, runtime, repository, folder, worker }.prune())
    })
    .await?
}

impl Target {
    fn path(&self) -> &Path {
        self.worker.mission.place.path()
    }

    fn prune(&self) -> Result<WorktreeBuilds, BuildsStay> {
        // On a full disk the lock may be impossible to create. Without it, two processes may count one build.
        let unlocked = |error: &FileError| tracing::warn!(%error, "cannot lock the pruning of a worktree");
        let _turn = self.folder.lock_pruning().inspect_err(unlocked).ok();
        wait_until_unoccupied(self.path())?;
        let listed = &self.actor.context.settings.prune;
        let mut builds = builds_of(&self.repository, &self.folder, &self.worker, listed, None)?;
        if builds.is_empty() {
            return Ok(builds);
        }
        if !builds.folders.is_empty() {
            self.move_aside(&mut builds)?;
            crash_point::at(Point::BuildsAside);
        }
        if !builds.folders.is_empty() {
            let pruning = Pruning { at: Timestamp::now(), folders: builds.folders.clone() };
            if let Err(error) = self.folder.record_pruning(&pruning) {
                tracing::warn!(%error, "cannot record which builds were deleted");
            }
        }
        Aside::delete(self.path()).map_err(OrchestratorError::from)?;
        crash_point::at(Point::BuildsDeleted);
        Ok(builds)
    }

    /// Moves the builds aside, unless an attempt has begun since they were found. Those that cannot be moved stay.
    fn move_aside(&self, builds: &mut WorktreeBuilds) -> Result<(), BuildsStay> {
        let pattern = format!("{}/", state_dir::NAME);
        self.repository.exclude(&pattern).map_err(OrchestratorError::from)?;
        let _lock = self.repository.lock().map_err(OrchestratorError::from)?;
        self.check_again()?;
        let aside = Aside::make(self.path()).map_err(OrchestratorError::from)?;
        self.folder.forget_setup().map_err(OrchestratorError::from)?;
        crash_point::at(Point::SetupForgotten);
        let mut moved = Vec::new();
        for folder in std::mem::take(&mut builds.folders) {
            match aside.take(&folder.path) {
                Ok(true) => moved.push(folder),
                // Another program deleted it since it was found.
                Ok(false) => {}
                Err(error) => builds.kept.push(KeptFolder { path: folder.path, why: with_hints(&error) }),
            }
        }
        builds.folders = moved;
        Ok(())
    }

    /// Checks with the newest state that no attempt has begun. The caller holds the repository lock. The actor does not
    /// take that lock after its first answer, so this cannot deadlock.
    fn check_again(&self) -> Result<(), BuildsStay> {
        let all = self.runtime.block_on(self.actor.ask(|reply| Ask::Lookup { name: None, reply }))??.all;
        let now = all.iter().find(|worker| worker.id == self.worker.id);
        let worker = now.filter(|now| now.attempt == self.worker.attempt && has_worktree(now));
        let worker = worker.ok_or(BuildsStay::StartsAgain)?;
        may_be_pruned(worker, all.iter().map(AsRef::as_ref))?;
        wait_until_unoccupied(self.path())
    }
}

/// Prunes periodically while the file system of the worktrees has less free space than `prune_below_mib`. Ends with the
/// server.
pub(super) async fn keep_pruning(actor: ActorHandle) {
    let floor_mib = actor.context.settings.prune_below_mib;
    if floor_mib == 0 {
        return;
    }
    let (mut scanned, mut pause) = (Scanned::default(), EVERY);
    while let Some(is_done) = prune_if_full(&actor, floor_mib, &mut scanned).await {
        pause = if is_done { EVERY } else { (pause * 2).min(EVERY_AT_MOST) };
        tokio::time::sleep(pause).await;
    }
}

/// The scanned worktrees, each with the attempt of its worker at that time, and the time of the next scan.
#[derive(Default)]
struct Scanned(HashMap<WorkerId, (u32, Instant)>);

impl Scanned {
    fn is_due(&self, worker: &Worker, now: Instant) -> bool {
        self.0.get(&worker.id).is_none_or(|(attempt, next)| *attempt != worker.attempt || now >= *next)
    }

    fn note(&mut self, worker: &Worker, next: Instant) {
        self.0.insert(worker.id.clone(), (worker.attempt, next));
    }
}

/// Prunes worktrees until enough space is free, least recently used first. Returns false if too little is free and
/// nothing was pruned. `None` if the server is shutting down.
async fn prune_if_full(actor: &ActorHandle, floor_mib: u64, scanned: &mut Scanned) -> Option<bool> {
    let context = Arc::clone(&actor.context);
    if !context.has_state() || !is_below(&context.worktrees(), floor_mib).await? {
        return Some(true);
    }
    let mut has_pruned = false;
    let all = actor.ask(|reply| Ask::Lookup { name: None, reply }).await.ok()?.ok()?.all;
    let may_be = |worker: &&Arc<Worker>| has_worktree(worker) && worker.mission.place.path().exists();
    let mut workers: Vec<&Arc<Worker>> = all.iter().filter(may_be).collect();
    workers.sort_by_key(|worker| finished_at(worker));
    for worker in workers {
        if !scanned.is_due(worker, Instant::now())
            || may_be_pruned(worker, all.iter().map(AsRef::as_ref)).is_err()
            || !is_below(worker.mission.place.path(), floor_mib).await?
        {
            continue;
        }
        let pruned = prune(actor, worker.id.as_str()).await;
        scanned.note(worker, Instant::now() + if pruned.is_ok() { SCANNED_FOR } else { KEPT_FOR });
        match pruned {
            Ok(builds) if builds.is_empty() => {}
            Ok(builds) => {
                has_pruned = true;
                let names: Vec<String> = builds.folders.iter().map(|it| it.path.display().to_string()).collect();
                let (names, mib) = (words::first(&names, 5), builds.bytes() >> 20);
                tracing::info!(worker = %worker.id, mib, "pruned builds, since less than prune_below_mib is free: {names}");
            }
            Err(BuildsStay::Failed(OrchestratorError::ShuttingDown)) => return None,
            Err(why) => tracing::info!(worker = %worker.id, "builds stay: {why}"),
        }
    }
    Some(has_pruned)
}

/// Returns whether the file system of a folder has less free space than `floor_mib`. Hangs if the file system hangs.
/// `None` if the check could not run, as when the server shuts down.
async fn is_below(folder: &Path, floor_mib: u64) -> Option<bool> {
    let folder = folder.to_owned();
    let free = blocking(move || Ok(process::free_disk_bytes(&folder))).await.ok()?;
    Some(free.is_some_and(|free| free >> 20 < floor_mib))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mission::lifecycle::Ending;
    use crate::mission::registry::Registry;
    use crate::mission::testing::{create, draft, settle};

    #[test]
    fn worktree_is_scanned_again_after_an_attempt_or_an_hour() {
        let mut registry = Registry::default();
        let id = create(&mut registry, &[draft("a")]).remove(0).unwrap();
        settle(&mut registry, &id, Ending::Completed);
        let worker = registry.get(&id).unwrap();
        let (mut scanned, now) = (Scanned::default(), Instant::now());
        assert!(scanned.is_due(worker, now));
        scanned.note(worker, now + SCANNED_FOR);
        assert!(!scanned.is_due(worker, now + KEPT_FOR));
        assert!(scanned.is_due(worker, now + SCANNED_FOR));
        let again = Worker { attempt: worker.attempt + 1, ..Worker::clone(worker) };
        assert!(scanned.is_due(&again, now));
    }

    #[test]
    fn open_worker_keeps_its_builds() {
        let mut registry = Registry::default();
        let id = create(&mut registry, &[draft("a")]).remove(0).unwrap();
        let other = create(&mut registry, &[draft("b")]).remove(0).unwrap();
        let check = |registry: &Registry| {
            may_be_pruned(registry.get(&id).unwrap(), registry.workers().map(AsRef::as_ref))
                .map_err(|it| it.to_string())
        };
        assert_eq!(check(&registry), Err("its worker is queued".to_owned()));
        settle(&mut registry, &id, Ending::Completed);
        assert_eq!(check(&registry), Ok(()));
        // The other one works in a folder of its worktree.
        let path = registry.get(&id).unwrap().mission.place.path().join("inner");
        let mut inside = Arc::clone(registry.get(&other).unwrap());
        Arc::make_mut(&mut inside).mission.place = crate::mission::spec::Place::Directory { path };
        registry.restore(inside);
        assert_eq!(check(&registry), Err(format!("{other} works in it")));
    }
}
