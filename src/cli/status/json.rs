//! `status --json`: prints all data, under the names that the tools use.
//!
//! The fields are `as_of`, `state_dir`, `repository?`, `integration_branch?`, `counts` (by status), `in_history`,
//! `repaired?`, `builds?` (of settled workers: `bytes`, `worktrees`, `is_whole`), `spent`, and `bosses`, each with `boss`, `directory?`, `is_here`, `spent` and `workers`. A worker has
//! the fields of the tools' answers (`worker_id`, `status`, `title`, `backend`, `elapsed_seconds`, `outcome`, …), and
//! `led`: true if a server manages it or it no longer needs one. `spent` is `cost_usd`, `tokens` and `seconds`, as far
//! as the CLIs report them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::builds::WorkerBuilds;
use super::dashboard::{Dashboard, DashboardWorker};
use crate::cli::workspace::Workspace;
use crate::mcp;
use crate::mission::lifecycle::WorkerStatus;
use crate::orchestrator::{Overview, WorkerView};

pub(super) fn dashboard(dashboard: &Dashboard, overview: &Overview, workspace: &Workspace) -> String {
    let bosses = dashboard.groups.iter().map(|group| {
        let mut object = Map::new();
        object.insert("boss".to_owned(), json!(group.id));
        put(&mut object, "directory", &group.directory);
        object.insert("is_here".to_owned(), json!(group.is_here));
        object.insert("spent".to_owned(), json!(group.spent));
        object.insert("workers".to_owned(), group.workers.iter().map(of_worker).collect());
        Value::Object(object)
    });
    let mut object = Map::new();
    object.insert("as_of".to_owned(), json!(overview.as_of));
    object.insert("state_dir".to_owned(), json!(workspace.state_root));
    put(&mut object, "repository", &overview.repository);
    put(&mut object, "integration_branch", &overview.integration_branch);
    object.insert("counts".to_owned(), json!(counts(overview.workers())));
    object.insert("spent".to_owned(), json!(dashboard.spent()));
    object.insert("in_history".to_owned(), json!(overview.in_history));
    put(&mut object, "repaired", &overview.repaired);
    put(&mut object, "builds", &dashboard.builds);
    object.insert("bosses".to_owned(), bosses.collect());
    format!("{:#}", Value::Object(object))
}

/// Counts the workers by status, as `list_worker_missions` does: only queued ones count as blocked.
fn counts<'a>(views: impl Iterator<Item = &'a WorkerView>) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for view in views {
        let status = match view.worker.status {
            WorkerStatus::Queued if view.block.is_some() => "blocked",
            status => status.as_str(),
        };
        *counts.entry(status).or_default() += 1;
    }
    counts
}

/// Renders the same fields if no worker was ever created.
pub(super) fn nothing(workspace: &Workspace) -> String {
    let mut object = Map::new();
    object.insert("as_of".to_owned(), json!(jiff::Timestamp::now()));
    object.insert("state_dir".to_owned(), json!(workspace.state_root));
    put(&mut object, "repository", &workspace.repository);
    object.insert("counts".to_owned(), json!({}));
    object.insert("spent".to_owned(), json!(crate::mission::budget::Spent::default()));
    object.insert("in_history".to_owned(), json!(0));
    object.insert("bosses".to_owned(), json!([]));
    format!("{:#}", Value::Object(object))
}

pub(super) fn worker(shown: &DashboardWorker, builds: &WorkerBuilds) -> String {
    let mut worker = of_worker(shown);
    if let Value::Object(worker) = &mut worker
        && !builds.is_empty()
    {
        worker.insert("builds".to_owned(), json!(builds));
    }
    format!("{worker:#}")
}

fn of_worker(shown: &DashboardWorker) -> Value {
    let mut worker = mcp::worker_json(&shown.view);
    if let Value::Object(worker) = &mut worker {
        worker.insert("title".to_owned(), json!(shown.view.worker.mission.title));
        worker.insert("led".to_owned(), json!(shown.is_led));
        worker.insert("spent".to_owned(), json!(shown.view.spent()));
    }
    worker
}

fn put<T: serde::Serialize>(object: &mut Map<String, Value>, name: &str, value: &Option<T>) {
    if let Some(value) = value {
        object.insert(name.to_owned(), json!(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::status::tests::mixed;

    #[test]
    fn only_queued_workers_count_as_blocked() {
        let mut views = mixed();
        for at in [2, 4] {
            views[at].block = Some(crate::mission::hint::Advice::new("why", Vec::new()));
        }
        let expected = BTreeMap::from([("blocked", 1), ("completed", 1), ("failed", 1), ("running", 3)]);
        assert_eq!(counts(views.iter()), expected);
    }
}
