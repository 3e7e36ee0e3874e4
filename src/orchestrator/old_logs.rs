//! Removes old files, so that the state directory does not grow without limit: the logs of workers whose work is merged
//! or cleaned up, and the answers of background waits. Outcome records and statuses stay.

use std::fs;
use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};

use super::actor_handle::ActorHandle;
use super::blocking::blocking;
use super::error::OrchestratorError;
use super::mailbox::Ask;
use crate::attempt::state_dir::StateDir;
use crate::attempt::worker_dir::WorkerDir;
use crate::mission::delivery;
use crate::mission::registry::Worker;
use crate::store::wait_answers;

/// Time between two runs. The first one waits, too: a server that has just started has other work.
const FIRST_RUN: Duration = Duration::from_secs(60);
const EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// Removes old logs and answers again and again. Ends with the server.
pub(super) async fn keep_removing(actor: ActorHandle) {
    let age = age(actor.context.settings.log_days);
    tokio::time::sleep(FIRST_RUN).await;
    while remove(&actor, age).await.is_some() {
        tokio::time::sleep(EVERY).await;
    }
}

/// Returns the age at which logs are removed. `None`: never.
fn age(days: u32) -> Option<SignedDuration> {
    (days > 0).then(|| SignedDuration::from_hours(24 * i64::from(days)))
}

/// Removes all old logs and answers. `None`: the server is shutting down. Without an age, only the number of answers is
/// limited.
async fn remove(actor: &ActorHandle, age: Option<SignedDuration>) -> Option<()> {
    let before = age.map_or(Ok(Timestamp::UNIX_EPOCH), |age| Timestamp::now().checked_sub(age)).ok()?;
    let context = &actor.context;
    if !context.has_state() || context.foreign_owner().is_some() {
        return Some(());
    }
    let state = StateDir::open(&context.state_root).ok()?;
    let waits = state.clone();
    let remove_answers = move || {
        wait_answers::remove_old(&waits, before);
        Ok(())
    };
    blocking(remove_answers).await.ok()?;
    if age.is_none() {
        return Some(());
    }
    let found = blocking(move || Ok(with_old_logs(&state, before))).await.ok()?;
    for folder in found {
        let name = folder.root().file_name()?.to_string_lossy().into_owned();
        let lookup = actor.ask(|reply| Ask::Lookup { name: Some(name), reply }).await.ok()?;
        let worker = lookup.ok().and_then(|lookup| lookup.worker);
        if worker.is_some_and(|worker| is_done_with(&worker, before)) {
            blocking(move || remove_of(&folder)).await.ok()?;
        }
    }
    Some(())
}

/// Returns the folders of workers with a log that nothing has been written to since then.
fn with_old_logs(state: &StateDir, before: Timestamp) -> Vec<WorkerDir> {
    let is_old = |folder: &WorkerDir| {
        let logs = folder.attempts().into_iter().flat_map(|number| folder.attempt(number).logs());
        let changed = logs.filter_map(|log| fs::metadata(log).ok()?.modified().ok());
        changed.max().is_some_and(|newest| newest < SystemTime::from(before))
    };
    let folders = fs::read_dir(state.workers()).into_iter().flatten().flatten();
    folders.map(|entry| WorkerDir::new(entry.path())).filter(is_old).collect()
}

/// Returns whether a worker settled before then, and its work is merged or cleaned up.
fn is_done_with(worker: &Worker, before: Timestamp) -> bool {
    let settled = worker.last().is_some_and(|last| last.settled_at < before);
    settled && delivery::is_final(worker) && (worker.integrated.is_some() || worker.worktree_removed)
}

fn remove_of(folder: &WorkerDir) -> Result<(), OrchestratorError> {
    // A retry may just have begun the next attempt, which has no outcome.
    let is_settled = |number: &u32| folder.attempt(*number).outcome_path().exists();
    for number in folder.attempts().into_iter().filter(is_settled) {
        if let Err(error) = folder.attempt(number).remove_logs() {
            tracing::warn!(%error, "cannot remove an old log");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mission::entry::Entry;
    use crate::mission::lifecycle::Ending;
    use crate::mission::registry::Registry;
    use crate::mission::testing::{apply, create, draft, settle};

    #[test]
    fn only_old_logs_are_removed_and_records_stay() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        for name in ["w-1-a", "w-2-b"] {
            let attempt = WorkerDir::new(state.workers().join(name)).attempt(1);
            attempt.make().unwrap();
            for file in attempt.logs().into_iter().chain([attempt.outcome_path(), attempt.status()]) {
                fs::write(file, "x").unwrap();
            }
        }
        let names = |before: Timestamp| -> Vec<String> {
            let found = with_old_logs(&state, before);
            let mut names: Vec<String> =
                found.iter().map(|it| it.root().file_name().unwrap().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        };
        let later = Timestamp::now() + SignedDuration::from_hours(1);
        assert_eq!(names(Timestamp::now() - SignedDuration::from_hours(1)), [""; 0]);
        assert_eq!(names(later), ["w-1-a", "w-2-b"]);
        let first = WorkerDir::new(state.workers().join("w-1-a"));
        remove_of(&first).unwrap();
        let attempt = first.attempt(1);
        assert!(attempt.logs().iter().all(|log| !log.exists()) && attempt.logs_are_removed());
        assert!(attempt.outcome_path().exists() && attempt.status().exists());
        let next = first.attempt(2);
        next.make().unwrap();
        fs::write(next.stdout(), "x").unwrap();
        remove_of(&first).unwrap();
        assert!(next.stdout().exists(), "it has not settled");
        fs::remove_file(next.stdout()).unwrap();
        assert_eq!(names(later), ["w-2-b"], "they are removed once");
    }

    #[test]
    fn logs_of_open_or_unmerged_workers_stay() {
        let mut registry = Registry::default();
        let id = create(&mut registry, &[draft("a")]).remove(0).unwrap();
        let is_done = |registry: &Registry, before: Timestamp| is_done_with(registry.get(&id).unwrap(), before);
        assert!(!is_done(&registry, Timestamp::MAX), "it is queued");
        settle(&mut registry, &id, Ending::Completed);
        assert!(!is_done(&registry, Timestamp::MAX), "its worktree is there, and nothing is merged");
        apply(&mut registry, "s", Entry::WorktreeRemoved { worker: id.clone(), salvage_ref: None });
        assert!(is_done(&registry, Timestamp::MAX));
        assert!(!is_done(&registry, Timestamp::MIN), "it settled later");
    }

    #[test]
    fn zero_days_keep_all_logs() {
        assert_eq!(age(0), None);
        assert_eq!(age(30), Some(SignedDuration::from_hours(720)));
    }
}
