use std::sync::Arc;

use serde_json::json;

use super::{WorkerReport, WorkerSummary};
use crate::mcp::size;
use crate::mcp::wire::testing::{longest, settled, view};
use crate::mission::entry::FailureSummary;
use crate::mission::id::WorkerId;
use crate::mission::lifecycle::{Ending, WorkerStatus};
use crate::mission::outcome::{FailureKind, NotOnBranch};
use crate::mission::registry;
use crate::mission::spec::Place;
use crate::orchestrator::{Collision, Unchecked, With};

#[test]
fn conflicts_are_named_with_the_next_step() {
    let mut view = settled(3, Ending::Completed);
    let with = |with| Collision { with, paths: vec!["a.rs".into(), "b.rs".into()] };
    view.collisions = (4..11).map(|number| with(With::WorkerId(format!("w-{number}")))).collect();
    let summary = serde_json::to_value(WorkerSummary::new(&view)).unwrap();
    let named = summary["conflicts_with"].as_array().unwrap();
    assert_eq!(named[0], json!({"worker_id": "w-4", "paths": ["a.rs", "b.rs"]}));
    assert_eq!(named.len() as u64 + summary["more_conflicts"].as_u64().unwrap_or(0), 7);
    let whole = serde_json::to_value(WorkerReport::new(&view, 4_000)).unwrap();
    assert_eq!(whole["conflicts_with"].as_array().unwrap().len(), 7);
    assert_eq!(WorkerReport::new(&view, 4_000).next_step(), "integrate_worker w-3");
    view.unchecked = Some(Unchecked::OtherWorkers);
    assert!(WorkerReport::new(&view, 4_000).next_step().contains("not checked"));
    view.collisions = vec![with(With::Branch("main".into()))];
    let next_step = WorkerReport::new(&view, 4_000).next_step().to_owned();
    assert!(next_step.contains("main in a.rs, b.rs") && next_step.contains("send_message_to_worker"), "{next_step}");
}

#[test]
fn names_and_paths_of_conflicts_are_never_cut() {
    let mut view = settled(3, Ending::Completed);
    let long = WorkerId::new(12, "rename total to sum in every single file").to_string();
    let paths: Vec<String> = (0..40).map(|number| format!("src/a/rather/long/path/to/file_{number}.rs")).collect();
    view.collisions = vec![
        Collision { with: With::Branch("b".repeat(600)), paths: paths.clone() },
        Collision { with: With::WorkerId(long.clone()), paths: paths.clone() },
    ];
    let summary = serde_json::to_value(WorkerSummary::new(&view)).unwrap();
    let conflict = &summary["conflicts_with"][0];
    assert_eq!((&conflict["worker_id"], &summary["more_conflicts"]), (&json!(long), &json!(1)));
    let named = conflict["paths"].as_array().unwrap();
    assert!(!named.is_empty() && named.iter().all(|path| paths.iter().any(|whole| path == whole)), "{summary:#}");
    assert_eq!(named.len() as u64 + conflict["more_paths"].as_u64().unwrap(), 40);
}

#[test]
fn settled_worker_serializes_as_in_the_contract() {
    let worker = WorkerReport::new(&settled(3, Ending::Completed), 4_000);
    let expected = json!({
        "worker_id": "w-3-fix-parser",
        "title": "Fix parser",
        "status": "completed",
        "backend": "codex",
        "branch": "orchestrator/w-3-fix-parser",
        "elapsed_seconds": 42,
        "worktree": "/r/w-3-fix-parser",
        "attempt": 1,
        "session_id": "s-1",
        "tokens": 1050,
        "outcome": {
            "run": {"result": "completed", "reason": "turn_complete", "exit_code": 0},
            "verification": {"result": "not_requested"},
            "changes": {
                "commits": 2, "files_changed": 1, "insertions": 10, "deletions": 3,
                "head_commit": "c".repeat(40), "files": ["src/parser.rs"]
            }
        },
        "final_message": "Fixed it.",
        "next_step": "integrate_worker w-3"
    });
    assert_eq!(serde_json::to_value(worker).unwrap(), expected);
}

#[test]
fn missing_work_is_reported_in_full() {
    let mut view = settled(3, Ending::Completed);
    let part = |what: &str| NotOnBranch {
        what: what.into(),
        place: "/r/w-3-fix-parser".into(),
        how_to_include: format!("{}: index.lock is there", "commit it in /r/w-3-fix-parser ".repeat(12)),
        files: None,
    };
    Arc::make_mut(&mut view.worker).settled[0].changes.not_on_branch = vec![part("2 files"), part("a stash")];
    let worker = serde_json::to_value(WorkerReport::new(&view, 4_000)).unwrap();
    let parts = worker["outcome"]["changes"]["not_on_branch"].as_array().unwrap();
    assert_eq!(
        (parts.len(), &parts[0]["what"], &parts[0]["where"]),
        (2, &json!("2 files"), &json!("/r/w-3-fix-parser"))
    );
    assert!(parts[0]["how_to_include"].as_str().unwrap().ends_with("index.lock is there"), "{parts:#?}");
    let next = worker["next_step"].as_str().unwrap();
    assert!(next.starts_with("not all of its work is on its branch"), "{next}");
    let integrated = registry::Integrated { into: "main".into(), commit: "c".repeat(40), source: None, partial: false };
    Arc::make_mut(&mut view.worker).integrated = Some(integrated);
    let next = WorkerReport::new(&view, 4_000).next_step;
    assert!(!next.contains("remove_worktree") && next.contains("not_on_branch"), "{next}");
}

#[test]
fn work_in_a_directory_is_removed_by_path() {
    let mut view = settled(3, Ending::Completed);
    let worker = Arc::make_mut(&mut view.worker);
    worker.mission.place = Place::Directory { path: "/r.worktrees/task".into() };
    worker.settled[0].changes.branch = Some("task".into());
    worker.integration_branch = Some("main".into());
    let report = WorkerReport::new(&view, 4_000);
    assert_eq!(report.next_step, "integrate_worker w-3");
    assert_eq!(report.base.unwrap().branch.as_deref(), Some("main"));
    let worker = Arc::make_mut(&mut view.worker);
    worker.repository = Some("/second".into());
    worker.integrated =
        Some(registry::Integrated { into: "trunk".into(), commit: "c".repeat(40), source: None, partial: false });
    let report = WorkerReport::new(&view, 4_000);
    assert!(report.next_step.contains("remove_worktree with that path"), "{}", report.next_step);
    assert!(report.base.is_none_or(|base| base.branch.is_none()));
}

#[test]
fn note_keeps_its_cause() {
    let mut view = settled(3, Ending::Completed);
    let note = format!("could not be committed: {}: the reason", "/a/long/path".repeat(30));
    Arc::make_mut(&mut view.worker).settled[0].changes.notes = vec![note];
    let worker = serde_json::to_value(WorkerReport::new(&view, 4_000)).unwrap();
    let note = worker["outcome"]["changes"]["notes"][0].as_str().unwrap();
    assert!(note.starts_with("could not be committed") && note.ends_with(": the reason"), "{note}");
}

#[test]
fn failed_worktree_does_not_blame_the_backend() {
    for (place_failed, start) in [(true, "fix the cause that its message names"), (false, "get_backend_status")] {
        let mut view = settled(3, Ending::Failed);
        let last = &mut Arc::make_mut(&mut view.worker).settled[0];
        last.failure = Some(FailureSummary { kind: FailureKind::CouldNotStart, message: "no".to_owned() });
        last.place_failed = place_failed;
        let next = WorkerReport::new(&view, 4_000).next_step;
        assert!(next.starts_with(start), "{next}");
    }
}

#[test]
fn failed_job_blames_the_launcher() {
    let mut view = settled(3, Ending::Failed);
    let worker = Arc::make_mut(&mut view.worker);
    worker.next.run_on = Some("cluster".to_owned());
    worker.settled[0].failure = Some(FailureSummary { kind: FailureKind::CouldNotStart, message: "no".to_owned() });
    worker.settled[0].place_failed = true;
    let next = WorkerReport::new(&view, 4_000).next_step;
    assert!(next.starts_with("have the cause") && next.ends_with("or with another run_on"), "{next}");
}

#[test]
fn job_that_never_starts_is_not_awaited() {
    let mut view = settled(3, Ending::Failed);
    let worker = Arc::make_mut(&mut view.worker);
    (worker.status, worker.next.run_on) = (WorkerStatus::Queued, Some("cluster".to_owned()));
    view.waits_for = Some("the cluster: PartitionConfig".to_owned());
    assert!(WorkerReport::new(&view, 4_000).next_step.contains("starts by itself"));
    view.needs_change = true;
    let next = WorkerReport::new(&view, 4_000).next_step;
    assert!(next.contains("have what waits_for names changed") && next.contains("run_on"), "{next}");
}

#[test]
fn failed_setup_asks_for_its_fix() {
    let mut view = settled(3, Ending::Failed);
    let last = &mut Arc::make_mut(&mut view.worker).settled[0];
    last.failure = Some(FailureSummary { kind: FailureKind::SetupFailed, message: "no".to_owned() });
    let report = WorkerReport::new(&view, 4_000);
    assert!(report.next_step.contains("another setup_command"), "{}", report.next_step);
    let report = serde_json::to_value(report).unwrap();
    assert_eq!(report["outcome"]["run"]["reason"], "setup_failed");
}

#[test]
fn processes_left_running_are_named() {
    let mut view = settled(3, Ending::Completed);
    Arc::make_mut(&mut view.worker).settled[0].daemons_left =
        vec!["sccache".to_owned(), "bazel".to_owned(), "bazel".to_owned()];
    let worker = serde_json::to_value(WorkerReport::new(&view, 4_000)).unwrap();
    assert_eq!(worker["outcome"]["changes"]["notes"][0], "left running, as other processes may use it: bazel, sccache");
    let summary = serde_json::to_string(&WorkerSummary::new(&view)).unwrap();
    assert!(!summary.contains("bazel"), "{summary}");
}

#[test]
fn denied_actions_are_named() {
    let mut view = settled(3, Ending::Completed);
    let last = &mut Arc::make_mut(&mut view.worker).settled[0];
    (last.denials, last.denied) = (3, vec!["Bash: rm -rf /".to_owned(), "Write: /etc/hosts".to_owned()]);
    let worker = serde_json::to_value(WorkerReport::new(&view, 4_000)).unwrap();
    let changes = &worker["outcome"]["changes"];
    assert_eq!(
        (&changes["permission_denials"], &changes["denied"]),
        (&json!(3), &json!(["Bash: rm -rf /", "Write: /etc/hosts"]))
    );
}

#[test]
fn running_worker_shows_its_activity() {
    let running = view(1, WorkerStatus::Running);
    let summary = serde_json::to_value(WorkerSummary::new(&running)).unwrap();
    assert_eq!(summary["elapsed_seconds"], 60);
    assert!(summary.get("idle_seconds").is_none() && summary.get("stalled").is_none(), "{summary}");
}

#[test]
fn texts_are_cut_before_facts() {
    for room in [0, 1_500, 3_000, 8_000] {
        let worker = WorkerReport::new(&longest(7), room);
        assert!(size::of(&worker) <= room.max(2_080), "{} of {room}", size::of(&worker));
        assert_eq!(worker.outcome.unwrap().run.reason, Some("model_not_found"));
    }
}

#[test]
fn failure_has_its_reason_and_next_step() {
    let cases = [
        (FailureKind::Auth, "auth_error", "get_backend_status codex"),
        (FailureKind::UsageLimit, "usage_limit", "with another backend"),
        (FailureKind::Verification, "verification_failed", "with feedback"),
        (FailureKind::NoResult, "crashed", "retry_worker w-3"),
    ];
    for (kind, reason, step) in cases {
        let mut view = settled(3, Ending::Failed);
        Arc::make_mut(&mut view.worker).settled[0].failure = Some(FailureSummary { kind, message: "why".into() });
        let worker = WorkerReport::new(&view, 4_000);
        assert!(worker.next_step.contains(step), "{}", worker.next_step);
        let run = worker.outcome.unwrap().run;
        assert_eq!((run.reason, run.message.as_deref()), (Some(reason), Some("why")));
    }
}
