//! Next steps: which tool to call next about a worker.

use crate::mcp::size;
use crate::mission::entry;
use crate::mission::lifecycle::{Ending, WorkerStatus};
use crate::mission::outcome::{FailureKind, LikelyCause};
use crate::mission::race as races;
use crate::mission::spec::Place;
use crate::orchestrator::{Collision, Unchecked, WorkerView};

/// Returns the tool to call next for this worker.
pub(super) fn next_step(view: &WorkerView) -> String {
    let worker = &view.worker;
    let id = worker.id.short();
    let Some(last) = worker.last().filter(|_| worker.status.is_settled()) else { return before_settlement(view) };
    let incomplete = !last.changes.not_on_branch.is_empty();
    let integrable = worker.branch().is_some() && last.changes.commits > 0;
    let winner = races::lost_to(worker).filter(|_| worker.integrated.is_none() && races::has_lost(worker));
    if let Some(winner) = winner {
        return format!(
            "nothing: {winner} won the race; the work is kept: get_worker_status {id} with include [\"diff\"] shows it"
        );
    }
    if races::is_undecided(worker) && view.block.is_none() {
        return "wait_for_any_worker: the race is still undecided".to_owned();
    }
    match last.status {
        _ if incomplete && worker.integrated.is_some() => not_all_included(id),
        _ if worker.integrated.is_some() => match worker.mission.place {
            Place::Worktree { .. } => format!("done; remove_worktree {id} when you no longer need it"),
            Place::Directory { .. } => {
                "done; if create_worktree made its directory, remove_worktree with that path when you no longer need it"
                    .to_owned()
            }
        },
        _ if view.merge_is_unknown => {
            format!("git cannot determine whether it is merged: check its repository, then get_worker_status {id}")
        }
        _ if last.says_blocked => format!("read its final_message; answer it with send_message_to_worker {id}"),
        Ending::Completed if incomplete => not_all_on_branch(id, integrable),
        Ending::Completed if integrable => match view.collisions.iter().find(|it| it.is_with_integration_branch()) {
            Some(collision) => after_collision(id, collision),
            None => format!("integrate_worker {id}{}", unchecked(view.unchecked)),
        },
        Ending::Completed => "read its final_message; it has no commits to integrate".to_owned(),
        Ending::Cancelled => format!("nothing, or retry_worker {id} to start again; its work is kept"),
        Ending::TimedOut => format!("retry_worker {id} to continue, or a narrower mission with create_worker_mission"),
        Ending::Lost => format!("get_worker_status {id} with include [\"diff\"], then retry_worker {id}"),
        Ending::Interrupted => format!("retry_worker {id}"),
        Ending::Failed => after_failure(view, last),
    }
}

fn before_settlement(view: &WorkerView) -> String {
    let id = view.worker.id.short();
    let is_queued = view.worker.status == WorkerStatus::Queued;
    if is_queued && view.block.is_some() {
        format!("fix or retry what blocks it, or cancel_worker {id}")
    } else if is_queued && view.needs_change {
        format!(
            "have what waits_for names changed, or retry elsewhere: cancel_worker {id}, then retry_worker with run_on"
        )
    } else if is_queued && view.waits_for.is_some() {
        "wait_for_any_worker; it starts by itself".to_owned()
    } else if view.worker.status == WorkerStatus::NeedsAnswer {
        format!("send_message_to_worker {id} with answers and decision")
    } else if view.live.as_ref().is_some_and(|live| live.stalled.is_some()) {
        format!(
            "get_worker_status {id} with include [\"log\"]; then send_message_to_worker with delivery interrupt, or cancel_worker"
        )
    } else {
        "wait_for_any_worker returns when it settles".to_owned()
    }
}

fn unchecked(unchecked: Option<Unchecked>) -> &'static str {
    match unchecked {
        None => "",
        Some(Unchecked::OtherWorkers) => "; not checked for conflicts with other workers' branches (too many)",
        Some(Unchecked::Anything) => "; not checked for conflicts (too many branches): dry_run first",
        Some(Unchecked::OtherTarget) => {
            "; not checked for conflicts (other workers have another integration branch): dry_run first"
        }
    }
}

fn not_all_on_branch(id: &str, integrable: bool) -> String {
    let without =
        if integrable { format!("; integrate_worker {id} merges the rest without it") } else { String::new() };
    format!(
        "not all of its work is on its branch: see not_on_branch, then send_message_to_worker {id} to put it there{without}"
    )
}

fn not_all_included(id: &str) -> String {
    format!("merged without the work in not_on_branch: follow how_to_include, then integrate_worker {id}")
}

fn after_collision(id: &str, collision: &Collision) -> String {
    let branch = size::line(collision.with.name(), 40);
    let paths = size::line(&collision.paths.join(", "), 120);
    format!(
        "it conflicts with {branch} in {paths}: send_message_to_worker {id} to merge {branch} into its branch, then integrate_worker"
    )
}

fn after_failure(view: &WorkerView, last: &entry::AttemptSummary) -> String {
    let id = view.worker.id.short();
    let backend = size::line(last.backend.as_str(), 40);
    match last.failure.as_ref().map(|failure| failure.kind) {
        Some(FailureKind::CouldNotStart) if last.place_failed && view.launcher().is_some() => {
            format!("have the cause that its message names fixed; then retry_worker {id}, or with another run_on")
        }
        Some(FailureKind::CouldNotStart) if last.place_failed => {
            format!(
                "fix the cause that its message names, in the repository or the worktree's directory; then retry_worker {id}"
            )
        }
        Some(FailureKind::SetupFailed) => format!(
            "have the cause that its message names fixed; then retry_worker {id}, or create the mission again with another setup_command"
        ),
        Some(FailureKind::Auth | FailureKind::CouldNotStart) => {
            format!("get_backend_status {backend} shows the fix; or retry_worker {id} with another backend")
        }
        Some(FailureKind::RateLimit | FailureKind::UsageLimit) => {
            format!("retry_worker {id} with another backend, or without one to wait until {backend} is available")
        }
        Some(FailureKind::Verification) => match &last.likely_cause {
            Some(cause) => after_likely_cause(id, cause),
            None => format!("retry_worker {id} with feedback on what failed"),
        },
        _ => format!("retry_worker {id} with feedback or another backend, or a narrower mission"),
    }
}

/// Names a missing file that may be the cause.
pub(in crate::mcp) fn perhaps_missing(cause: &LikelyCause) -> String {
    let first = cause.lacks.first().map(|lack| size::line(&lack.path, 120));
    first.map_or_else(String::new, |path| format!(" (perhaps because {path} is missing; see likely_cause)"))
}

/// Returns the next step if the work seems correct, where feedback on the failure would mislead the worker.
fn after_likely_cause(id: &str, cause: &LikelyCause) -> String {
    match cause.fix() {
        Some(fix) => {
            let fix = size::line(&fix, 200);
            format!("retry_worker {id} with feedback to {fix} first; its work may already be correct")
        }
        None => format!(
            "if making it pass is the mission, retry_worker {id} with feedback; otherwise have the base fixed first, which \
             fails too{}, then retry_worker {id} with feedback to merge the fix",
            perhaps_missing(cause)
        ),
    }
}

/// Returns the next step for a boss without workers where other sessions have some, perhaps its own earlier ones.
pub(in crate::mcp) fn hint_at_others(others: usize) -> String {
    format!(
        "you have no workers, but other sessions have {others} here: list_worker_missions with scope all lists them, and \
         get_worker_status shows each; to get their notifications resume the session that started them; otherwise \
         batch_create_workers"
    )
}
