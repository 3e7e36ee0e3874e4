//! Next steps: which tool to call next about a worker.

use crate::mcp::size;
use crate::mission::entry;
use crate::mission::lifecycle::{Ending, WorkerStatus};
use crate::mission::outcome::{FailureKind, LikelyCause};
use crate::mission::race as races;
use crate::mission::spec::Place;
use crate::orchestrator::{Collision, Unchecked, WorkerView};

/// Which tool to call next about this worker.
pub(super) fn next_step(view: &WorkerView) -> String {
    let worker = &view.worker;
    let id = &worker.id;
    let stalled = view.live.as_ref().is_some_and(|live| live.stalled.is_some());
    let Some(last) = worker.last().filter(|_| worker.status.is_settled()) else {
        return match worker.status {
            WorkerStatus::Queued if view.block.is_some() => {
                format!("mend or retry what blocks it, or cancel_worker {id}")
            }
            WorkerStatus::Queued if view.waits_for.is_some() => {
                "wait_for_any_worker; it starts by itself when it has what it waits for".to_owned()
            }
            _ if stalled => format!(
                "get_worker_status {id} with include [\"log\"]; then send_message_to_worker with delivery interrupt, or cancel_worker"
            ),
            _ => "wait_for_any_worker tells you when it settles".to_owned(),
        };
    };
    let incomplete = !last.changes.not_on_branch.is_empty();
    let integrable = worker.branch().is_some() && last.changes.commits > 0;
    let winner = races::lost_to(worker).filter(|_| worker.integrated.is_none() && races::has_lost(worker));
    if let Some(winner) = winner {
        return format!(
            "nothing: {winner} won the race; its work is kept: get_worker_status {id} with include [\"diff\"] shows it"
        );
    }
    if races::is_undecided(worker) && view.block.is_none() {
        return "wait_for_any_worker: others still race for this task".to_owned();
    }
    match last.status {
        _ if incomplete && worker.integrated.is_some() => not_all_included(id.as_str()),
        _ if worker.integrated.is_some() => match worker.mission.place {
            Place::Worktree { .. } => format!("done; remove_worktree {id} when you need it no more"),
            Place::Directory { .. } => {
                "done; if create_worktree made its directory, remove_worktree with that path when you need it no more"
                    .to_owned()
            }
        },
        _ if view.merge_is_unknown => {
            format!("git could not be asked whether it is merged: look at its repository, then get_worker_status {id}")
        }
        _ if last.says_blocked => format!("read its final_message; answer it with send_message_to_worker {id}"),
        Ending::Completed if incomplete => not_all_on_branch(id.as_str(), integrable),
        Ending::Completed if integrable => match view.collisions.iter().find(|it| it.is_integration_branch) {
            Some(collision) => after_collision(id.as_str(), collision),
            None => format!("integrate_worker {id}{}", unchecked(view.unchecked)),
        },
        Ending::Completed => "read its final_message; it committed nothing that could be integrated".to_owned(),
        Ending::Cancelled => format!("nothing, or retry_worker {id} to begin again; its work is kept"),
        Ending::TimedOut => format!("retry_worker {id} to go on, or a narrower mission with create_worker_mission"),
        Ending::Lost => format!("get_worker_status {id} with include [\"diff\"], then retry_worker {id}"),
        Ending::Interrupted => format!("retry_worker {id}"),
        Ending::Failed => after_failure(id.as_str(), last),
    }
}

fn unchecked(unchecked: Option<Unchecked>) -> &'static str {
    match unchecked {
        None => "",
        Some(Unchecked::OtherWorkers) => {
            "; whether it conflicts with other workers' branches was not checked, as there are too many"
        }
        Some(Unchecked::Anything) => {
            "; whether it conflicts with anything was not checked, as there are too many branches: dry_run first"
        }
        Some(Unchecked::OtherTarget) => {
            "; whether it conflicts with anything was not checked, as other workers have another integration branch: dry_run first"
        }
    }
}

fn not_all_on_branch(id: &str, integrable: bool) -> String {
    let without =
        if integrable { format!("; integrate_worker {id} brings in the rest without it") } else { String::new() };
    format!(
        "not all of its work is on its branch: look at not_on_branch, then send_message_to_worker {id} to put it there{without}"
    )
}

fn not_all_included(id: &str) -> String {
    format!("merged without what not_on_branch names: see to that, then integrate_worker {id}")
}

fn after_collision(id: &str, collision: &Collision) -> String {
    let branch = size::line(&collision.with, 40);
    let paths = size::line(&collision.paths.join(", "), 120);
    format!(
        "it conflicts with {branch} in {paths}: send_message_to_worker {id} to merge {branch} into its branch, then integrate_worker"
    )
}

fn after_failure(id: &str, last: &entry::Brief) -> String {
    let backend = size::line(last.backend.as_str(), 40);
    match last.failure.as_ref().map(|failure| failure.kind) {
        Some(FailureKind::CouldNotStart) if last.place_failed => {
            format!("fix what its message names, in the repository or where its worktree lies; then retry_worker {id}")
        }
        Some(FailureKind::Auth | FailureKind::CouldNotStart) => {
            format!("get_backend_status {backend} says how to mend it; or retry_worker {id} with another backend")
        }
        Some(FailureKind::RateLimit | FailureKind::UsageLimit) => {
            format!("retry_worker {id} with another backend, or without one to wait until {backend} takes work again")
        }
        Some(FailureKind::Verification) => match &last.likely_cause {
            Some(cause) => after_likely_cause(id, cause),
            None => format!("retry_worker {id} with feedback on what failed"),
        },
        _ => format!("retry_worker {id} with feedback or another backend, or a narrower mission"),
    }
}

/// Names what the worktree lacks without evidence that it matters.
pub(in crate::mcp) fn perhaps_missing(cause: &LikelyCause) -> String {
    let first = cause.lacks.first().map(|lack| size::line(&lack.path, 120));
    first.map_or_else(String::new, |path| format!(" (perhaps for lack of {path}; see likely_cause)"))
}

/// Returns the next step when the work does not seem to be at fault. Feedback on the work would mislead the worker.
fn after_likely_cause(id: &str, cause: &LikelyCause) -> String {
    match cause.fix() {
        Some(fix) => {
            let fix = size::line(&fix, 200);
            format!("retry_worker {id} with feedback to {fix} before it goes on; its work may be right as it is")
        }
        None => format!(
            "if to make that pass is its mission, retry_worker {id} with feedback; otherwise have what it began at fixed \
             first, which fails without this work too{}, then retry_worker {id} with feedback to merge that",
            perhaps_missing(cause)
        ),
    }
}

/// For a boss that leads nobody where others do or did, which may have been itself in an earlier session.
pub(in crate::mcp) fn of_others(others: usize) -> String {
    format!(
        "you lead no workers, but there are {others} of other sessions here: list_worker_missions with scope all shows them, \
         and get_worker_status each; if you started them in an earlier session, go on with that one to be told of them; \
         otherwise batch_create_workers"
    )
}
