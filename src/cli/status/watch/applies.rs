//! The keys of the live screen that act on the selected worker: their names, and the reasons why they do not apply now.
//! Pure: the commands behind the keys check again, with git and the files.

use super::super::dashboard::DashboardWorker;
use super::answer::open_question;
use crate::cli::attach;
use crate::cli::question;
use crate::cli::text;
use crate::mission::delivery;
use crate::mission::lifecycle::{Ending, WorkerStatus};
use crate::mission::spec::Place;

/// An action on the selected worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WorkerKey {
    /// The positive answer to its question.
    Answer,
    Deny,
    Message,
    Merge,
    Retry,
    Cancel,
    Open,
    Attach,
}

impl WorkerKey {
    /// All keys, the most important ones first.
    pub const ALL: [WorkerKey; 8] = [
        WorkerKey::Answer,
        WorkerKey::Deny,
        WorkerKey::Message,
        WorkerKey::Merge,
        WorkerKey::Retry,
        WorkerKey::Cancel,
        WorkerKey::Open,
        WorkerKey::Attach,
    ];

    /// Returns the action of a key. `a` answers a worker that asks, and attaches to one that has finished.
    pub fn of(key: char, shown: Option<&DashboardWorker>) -> Option<Self> {
        let asks = shown.is_some_and(|shown| open_question(shown).is_some());
        Self::ALL.into_iter().find(|it| it.key() == key && (*it != WorkerKey::Answer || asks))
    }

    pub fn key(self) -> char {
        match self {
            WorkerKey::Answer => 'a',
            WorkerKey::Deny => 'd',
            WorkerKey::Message => 'm',
            WorkerKey::Merge => 'i',
            WorkerKey::Retry => 'r',
            WorkerKey::Cancel => 'c',
            WorkerKey::Open => 'o',
            WorkerKey::Attach => 'a',
        }
    }

    /// Returns its name for this worker. A message to a worker that reports that it is blocked is called the answer.
    pub fn name(self, shown: &DashboardWorker) -> &'static str {
        match self {
            WorkerKey::Answer if open_question(shown).is_some_and(question::is_permission) => "allow",
            WorkerKey::Answer => "answer",
            WorkerKey::Deny => "deny",
            WorkerKey::Message if shown.view.worker.needs_you() => "answer",
            WorkerKey::Message => "message",
            WorkerKey::Merge => "merge",
            WorkerKey::Retry => "retry",
            WorkerKey::Cancel => "cancel",
            WorkerKey::Open => "open",
            WorkerKey::Attach => "attach",
        }
    }

    /// Returns the reason why it does not apply to this worker now. `None` if it does, as far as the records show.
    pub fn obstacle(self, shown: &DashboardWorker) -> Option<String> {
        let worker = &*shown.view.worker;
        let (id, state) = (&shown.row.short, shown.row.state.word.replace('_', " "));
        let is_settled = worker.status.is_settled();
        match self {
            WorkerKey::Answer | WorkerKey::Deny if open_question(shown).is_none() => {
                Some(format!("{id} asks nothing ({state}); m sends it a message"))
            }
            WorkerKey::Answer | WorkerKey::Deny | WorkerKey::Message => None,
            WorkerKey::Merge if !is_settled => Some(format!("cannot merge {id}: it has not finished ({state})")),
            WorkerKey::Merge if worker.status != WorkerStatus::Settled(Ending::Completed) => Some(format!(
                "cannot merge {id}: its status is {state}, and only completed work can be merged; r retries it"
            )),
            WorkerKey::Merge => match &worker.integrated {
                Some(merged) => Some(format!("{id} is already merged into {}", text::clean(&merged.into))),
                None if worker.branch().is_none() => Some(format!("cannot merge {id}: it has no branch")),
                None => None,
            },
            WorkerKey::Retry if is_settled => None,
            WorkerKey::Retry => {
                Some(format!("cannot retry {id}: it has not finished ({state}); m sends it a message, c cancels it"))
            }
            WorkerKey::Cancel => is_settled.then(|| format!("nothing to cancel: {id} has finished ({state})")),
            WorkerKey::Open => no_worktree(shown).map(|why| format!("cannot open {id}: {why}")),
            WorkerKey::Attach => {
                let why = if !delivery::is_final(worker) {
                    Some(format!("it has not finished ({state}); m sends it a message"))
                } else {
                    let no_session = || "it has no session; o opens its worktree".to_owned();
                    no_worktree(shown).or_else(|| attach::session(worker).is_none().then(no_session))
                };
                why.map(|why| format!("cannot attach to {id}: {why}"))
            }
        }
    }
}

fn no_worktree(shown: &DashboardWorker) -> Option<String> {
    let worker = &*shown.view.worker;
    let is_made = matches!(worker.mission.place, Place::Worktree { .. });
    if worker.worktree_removed {
        Some("its worktree was removed".to_owned())
    } else if is_made && worker.attempt == 0 {
        Some("it has not started, so it has no worktree yet".to_owned())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{dashboard, mixed};
    use super::*;
    use crate::mission::registry::Worker;

    /// Returns the obstacles of all actions for a worker of [`mixed`] after a change.
    fn obstacles(at: usize, change: impl FnOnce(&mut Worker)) -> Vec<(char, String)> {
        let mut view = mixed().swap_remove(at);
        change(std::sync::Arc::make_mut(&mut view.worker));
        let dashboard = dashboard(vec![view]);
        let shown = dashboard.workers().next().unwrap();
        WorkerKey::ALL.into_iter().filter_map(|it| Some((it.key(), it.obstacle(shown)?))).collect()
    }

    #[test]
    fn each_state_allows_what_fits_it() {
        let (running, queued, completed, failed) = (0, 2, 3, 4);
        let with_session = |worker: &mut Worker| worker.settled[0].session_id = Some("ses-1".to_owned());
        for (at, change, refused) in [
            (running, (|_| {}) as fn(&mut Worker), "adira"),
            (queued, |_| {}, "adiroa"),
            (completed, with_session, "adc"),
            (completed, |_| {}, "adca"),
            (completed, |worker| worker.worktree_removed = true, "adcoa"),
            (failed, with_session, "adic"),
        ] {
            let found: String = obstacles(at, change).iter().map(|(key, _)| *key).collect();
            assert_eq!(found, refused, "{:?}", obstacles(at, change));
        }
    }

    #[test]
    fn obstacle_names_worker_state_and_alternative() {
        let said = |at: usize, key: char| {
            let found = obstacles(at, |_| {});
            // The last one, since `a` has two meanings.
            found.into_iter().rfind(|(it, _)| *it == key).map(|(_, why)| why).unwrap_or_default()
        };
        assert_eq!(said(0, 'i'), "cannot merge w-1: it has not finished (running)");
        assert_eq!(said(0, 'r'), "cannot retry w-1: it has not finished (running); m sends it a message, c cancels it");
        assert_eq!(said(0, 'a'), "cannot attach to w-1: it has not finished (running); m sends it a message");
        assert_eq!(said(2, 'o'), "cannot open w-3: it has not started, so it has no worktree yet");
        assert_eq!(said(3, 'c'), "nothing to cancel: w-4 has finished (completed)");
        assert_eq!(said(3, 'a'), "cannot attach to w-4: it has no session; o opens its worktree");
        assert_eq!(
            said(4, 'i'),
            "cannot merge w-5: its status is failed, and only completed work can be merged; r retries it"
        );
    }
}
