use jiff::Timestamp;
use std::sync::Arc;

use super::*;
use crate::mission::entry::{BriefFailure, NextAttempt, Start};
use crate::mission::id::{BackendName, BossId, ServerId, TaskId, WorkerId};
use crate::mission::registry::{self, Report};
use crate::mission::spec::{Mission, Permissions};
use crate::orchestrator::{RaceView, RacerView};
use serde_json::json;

pub(in crate::mcp) fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

/// A worker as a list or a wait meets it.
pub(in crate::mcp) fn view(number: u64, status: WorkerStatus) -> WorkerView {
    let id = WorkerId::new(number, "Fix parser");
    let mission = Mission {
        title: "Fix parser".into(),
        prompt: "Fix it.".into(),
        backend: BackendName::from("codex"),
        model: None,
        effort: None,
        place: Place::Worktree {
            path: format!("/r/{id}").into(),
            branch: format!("orchestrator/{id}"),
            base: None,
            directory: None,
        },
        verify_command: None,
        task_id: TaskId::from(id.to_string()),
        depends_on: Vec::new(),
        timeout_minutes: 120,
        max_cost_usd: None,
        max_tokens: None,
        fallback_backends: Vec::new(),
        max_attempts: 1,
        request_id: None,
        permissions: Permissions::Edit,
    };
    let next = NextAttempt {
        backend: mission.backend.clone(),
        model: None,
        effort: None,
        start: Start::Mission,
        written: Vec::new(),
    };
    let worker = registry::Worker {
        id,
        boss: BossId::from("claude:1"),
        mission,
        status,
        lease: ServerId::from("s"),
        attempt: 1,
        next,
        needs: Vec::new(),
        race: None,
        integration_branch: None,
        settled: Vec::new(),
        report: Report::Due,
        block_report: Report::Due,
        created_at: now(),
        queued_at: now(),
        queued_seq: 0,
        admitted_seq: 0,
        started_at: Some("2026-11-22T11:59:00Z".parse().unwrap()),
        base_commit: None,
        base_branch: None,
        cancel: None,
        cancelled_by: None,
        integrated: None,
        integrated_before: Vec::new(),
        repository: None,
        worktree_removed: false,
        salvage_ref: None,
        diverted: None,
    };
    WorkerView {
        meant_for: None,
        merge_is_unknown: false,
        worker: Arc::new(worker),
        live: None,
        elapsed_seconds: Some(60),
        idle_seconds: None,
        block: None,
        waits_for: None,
        collisions: Vec::new(),
        unchecked: None,
        redelivered: false,
        enforced: None,
        budget: None,
        race: None,
    }
}

pub(in crate::mcp) fn settled(number: u64, ending: Ending) -> WorkerView {
    let mut view = view(number, WorkerStatus::Settled(ending));
    Arc::make_mut(&mut view.worker).settled.push(entry::Brief {
        attempt: 1,
        backend: BackendName::from("codex"),
        model: None,
        status: ending,
        failure: None,
        exit: Some(Exit::Code(0)),
        verification: Verification::NotAsked,
        likely_cause: None,
        changes: Changes {
            commits: 2,
            files_changed: 1,
            insertions: 10,
            deletions: 3,
            head: Some("c".repeat(40)),
            files: vec!["src/parser.rs".into()],
            ..Changes::default()
        },
        final_message: "Fixed it.".into(),
        says_blocked: false,
        unheard: Vec::new(),
        denials: 0,
        usage: Usage { input_tokens: 1_000, cached_tokens: 0, output_tokens: 50, cost_usd: None },
        session_id: Some("s-1".into()),
        usage_goes_on: false,
        resets_at: None,
        started_at: None,
        seconds: 42,
        elapsed_seconds: None,
        cancelled: None,
        survivors: 0,
        place_failed: false,
        spared: Vec::new(),
        settled_at: now(),
    });
    view
}

/// Everything as long as it can get, in characters that take the most room.
pub(in crate::mcp) fn longest(number: u64) -> WorkerView {
    let mut view = settled(number, Ending::Failed);
    let long = |bytes: usize| "\u{1}\"é\n".repeat(bytes / 4);
    Arc::make_mut(&mut view.worker).mission.title = long(800);
    Arc::make_mut(&mut view.worker).mission.task_id = TaskId::from(long(400));
    Arc::make_mut(&mut view.worker).mission.place =
        Place::Worktree { path: long(4_000).into(), branch: long(800), base: None, directory: None };
    let integrated = registry::Integrated { into: long(800), commit: "c".repeat(64), source: None, partial: false };
    Arc::make_mut(&mut view.worker).integrated = Some(integrated);
    view.redelivered = true;
    let racer = |number| RacerView {
        worker_id: WorkerId::new(number, &"long title ".repeat(20)),
        backend: BackendName::from(long(200)),
        status: WorkerStatus::Settled(Ending::Interrupted),
        spent: Some(Usage { input_tokens: u64::MAX / 2, cost_usd: Some(1.0 / 3.0), ..Usage::default() }),
    };
    let winner = Some(WorkerId::new(u64::MAX, &"long title ".repeat(20)));
    view.race = Some(RaceView { id: "race-18446744073709551615".into(), winner, racers: (0..50).map(racer).collect() });
    let last = &mut Arc::make_mut(&mut view.worker).settled[0];
    last.failure = Some(BriefFailure { kind: FailureKind::ModelNotFound, message: long(9_000) });
    last.backend = BackendName::from(long(200));
    last.model = Some(long(400));
    last.session_id = Some(long(400));
    last.verification = Verification::CouldNotRun { why: long(9_000) };
    last.final_message = long(90_000);
    last.changes.files = (0..500).map(|_| long(400)).collect();
    last.changes.notes = (0..50).map(|_| long(400)).collect();
    last.spared = (0..50).map(|number| format!("{number} {}", long(400))).collect();
    let part = NotOnBranch { what: long(4_000), place: long(4_000), how_to_include: long(4_000), files: None };
    last.changes.not_on_branch = vec![part; 50];
    last.changes.base_commit = Some("c".repeat(64));
    last.changes.head = Some("c".repeat(64));
    let collision = Collision { with: long(400), is_integration_branch: true, paths: vec![long(4_000); 9] };
    view.collisions = vec![collision; 40];
    view
}

#[test]
fn a_worker_that_collides_says_with_whom_and_what_to_do() {
    let mut view = settled(3, Ending::Completed);
    let with = |name: &str, is_integration_branch| Collision {
        with: name.into(),
        is_integration_branch,
        paths: vec!["a.rs".into(), "b.rs".into()],
    };
    view.collisions = (4..11).map(|number| with(&format!("w-{number}"), false)).collect();
    let brief = serde_json::to_value(Brief::new(&view)).unwrap();
    let named = brief["conflicts_with"].as_array().unwrap();
    assert_eq!(named[0], json!({"worker_id": "w-4", "paths": ["a.rs", "b.rs"]}));
    assert_eq!(named.len() as u64 + brief["more_conflicts"].as_u64().unwrap_or(0), 7);
    let whole = serde_json::to_value(Worker::new(&view, 4_000)).unwrap();
    assert_eq!(whole["conflicts_with"].as_array().unwrap().len(), 7);
    assert_eq!(Worker::new(&view, 4_000).next_step(), "integrate_worker w-3-fix-parser");
    view.unchecked = Some(Unchecked::OtherWorkers);
    assert!(Worker::new(&view, 4_000).next_step().contains("was not checked"));
    view.collisions = vec![with("main", true)];
    let next_step = Worker::new(&view, 4_000).next_step().to_owned();
    assert!(next_step.contains("main in a.rs, b.rs") && next_step.contains("send_message_to_worker"), "{next_step}");
}

#[test]
fn no_name_and_no_path_of_a_conflict_is_cut() {
    let mut view = settled(3, Ending::Completed);
    let long = WorkerId::new(12, "rename total to sum in every single file").to_string();
    let paths: Vec<String> = (0..40).map(|number| format!("src/a/rather/long/path/to/file_{number}.rs")).collect();
    view.collisions = vec![
        Collision { with: "b".repeat(600), is_integration_branch: true, paths: paths.clone() },
        Collision { with: long.clone(), is_integration_branch: false, paths: paths.clone() },
    ];
    let brief = serde_json::to_value(Brief::new(&view)).unwrap();
    let conflict = &brief["conflicts_with"][0];
    assert_eq!((&conflict["worker_id"], &brief["more_conflicts"]), (&json!(long), &json!(1)));
    let named = conflict["paths"].as_array().unwrap();
    assert!(!named.is_empty() && named.iter().all(|path| paths.iter().any(|whole| path == whole)), "{brief:#}");
    assert_eq!(named.len() as u64 + conflict["more_paths"].as_u64().unwrap(), 40);
}

#[test]
fn a_settled_worker_reads_as_the_contract_says() {
    let worker = Worker::new(&settled(3, Ending::Completed), 4_000);
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
        "next_step": "integrate_worker w-3-fix-parser"
    });
    assert_eq!(serde_json::to_value(worker).unwrap(), expected);
}

#[test]
fn work_that_is_not_on_the_branch_is_said_whole_and_held_against_a_merge() {
    let mut view = settled(3, Ending::Completed);
    let part = |what: &str| NotOnBranch {
        what: what.into(),
        place: "/r/w-3-fix-parser".into(),
        how_to_include: format!("{}: index.lock is there", "commit it in /r/w-3-fix-parser ".repeat(12)),
        files: None,
    };
    Arc::make_mut(&mut view.worker).settled[0].changes.not_on_branch = vec![part("2 files"), part("a stash")];
    let worker = serde_json::to_value(Worker::new(&view, 4_000)).unwrap();
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
    let next = Worker::new(&view, 4_000).next_step;
    assert!(!next.contains("remove_worktree") && next.contains("not_on_branch"), "{next}");
}

#[test]
fn work_in_a_directory_is_integrated_and_then_removed_by_its_path() {
    let mut view = settled(3, Ending::Completed);
    let worker = Arc::make_mut(&mut view.worker);
    worker.mission.place = Place::Directory { path: "/r.worktrees/task".into() };
    worker.settled[0].changes.branch = Some("task".into());
    worker.integration_branch = Some("main".into());
    let report = Worker::new(&view, 4_000);
    assert_eq!(report.next_step, "integrate_worker w-3-fix-parser");
    assert_eq!(report.base.unwrap().branch.as_deref(), Some("main"));
    let worker = Arc::make_mut(&mut view.worker);
    worker.repository = Some("/second".into());
    worker.integrated =
        Some(registry::Integrated { into: "trunk".into(), commit: "c".repeat(40), source: None, partial: false });
    let report = Worker::new(&view, 4_000);
    assert!(report.next_step.contains("remove_worktree with that path"), "{}", report.next_step);
    assert!(report.base.is_none_or(|base| base.branch.is_none()));
}

#[test]
fn a_note_is_not_cut_before_its_reason() {
    let mut view = settled(3, Ending::Completed);
    let note = format!("could not be committed: {}: the reason", "/a/long/path".repeat(30));
    Arc::make_mut(&mut view.worker).settled[0].changes.notes = vec![note];
    let worker = serde_json::to_value(Worker::new(&view, 4_000)).unwrap();
    let note = worker["outcome"]["changes"]["notes"][0].as_str().unwrap();
    assert!(note.starts_with("could not be committed") && note.ends_with(": the reason"), "{note}");
}

#[test]
fn only_a_backend_that_could_not_start_is_blamed() {
    for (place_failed, says) in [(true, "fix what its message names"), (false, "get_backend_status")] {
        let mut view = settled(3, Ending::Failed);
        let last = &mut Arc::make_mut(&mut view.worker).settled[0];
        last.failure = Some(BriefFailure { kind: FailureKind::CouldNotStart, message: "no".to_owned() });
        last.place_failed = place_failed;
        let next = Worker::new(&view, 4_000).next_step;
        assert!(next.starts_with(says), "{next}");
    }
}

#[test]
fn shared_daemons_that_were_left_alone_are_named() {
    let mut view = settled(3, Ending::Completed);
    Arc::make_mut(&mut view.worker).settled[0].spared =
        vec!["sccache".to_owned(), "bazel".to_owned(), "bazel".to_owned()];
    let worker = serde_json::to_value(Worker::new(&view, 4_000)).unwrap();
    assert_eq!(worker["outcome"]["changes"]["notes"][0], "left running, as others may use it: bazel, sccache");
    let brief = serde_json::to_string(&Brief::new(&view)).unwrap();
    assert!(!brief.contains("bazel"), "{brief}");
}

#[test]
fn a_running_worker_shows_signs_of_life() {
    let running = view(1, WorkerStatus::Running);
    let brief = serde_json::to_value(Brief::new(&running)).unwrap();
    assert_eq!(brief["elapsed_seconds"], 60);
    assert!(brief.get("idle_seconds").is_none() && brief.get("stalled").is_none(), "{brief}");
}

#[test]
fn texts_give_way_before_facts_do() {
    for room in [0, 1_500, 3_000, 8_000] {
        let worker = Worker::new(&longest(7), room);
        assert!(size::of(&worker) <= room.max(2_080), "{} of {room}", size::of(&worker));
        assert_eq!(worker.outcome.unwrap().run.reason, Some("model_not_found"));
    }
}

#[test]
fn the_reason_of_a_failure_and_the_mend_come_with_it() {
    let cases = [
        (FailureKind::Auth, "auth_error", "get_backend_status codex"),
        (FailureKind::UsageLimit, "usage_limit", "with another backend"),
        (FailureKind::Verification, "verification_failed", "with feedback"),
        (FailureKind::NoResult, "crashed", "retry_worker w-3-fix-parser"),
    ];
    for (kind, reason, mend) in cases {
        let mut view = settled(3, Ending::Failed);
        Arc::make_mut(&mut view.worker).settled[0].failure = Some(BriefFailure { kind, message: "why".into() });
        let worker = Worker::new(&view, 4_000);
        assert!(worker.next_step.contains(mend), "{}", worker.next_step);
        let run = worker.outcome.unwrap().run;
        assert_eq!((run.reason, run.message.as_deref()), (Some(reason), Some("why")));
    }
}
