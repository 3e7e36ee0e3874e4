//! Workers for the tests of answers: running, settled, and with every text as long as it can be.

use std::sync::Arc;

use jiff::Timestamp;

use crate::mission::delivery::Notification;
use crate::mission::entry::{self, FailureSummary, NextAttempt, Start};
use crate::mission::id::{BackendName, BossId, ServerId, TaskId, WorkerId};
use crate::mission::lifecycle::{Ending, WorkerStatus};
use crate::mission::outcome::{Changes, Exit, FailureKind, NotOnBranch, Usage, Verification};
use crate::mission::registry;
use crate::mission::spec::{Mission, Permissions, Place};
use crate::orchestrator::{Collision, RaceView, RacerView, WorkerView};

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
        notification: Notification::Pending,
        block_notification: Notification::Pending,
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
        failed_over: None,
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
    Arc::make_mut(&mut view.worker).settled.push(entry::AttemptSummary {
        attempt: 1,
        backend: BackendName::from("codex"),
        model: None,
        status: ending,
        failure: None,
        exit: Some(Exit::Code(0)),
        verification: Verification::NotRequested,
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
        usage_is_cumulative: false,
        resets_at: None,
        started_at: None,
        seconds: 42,
        elapsed_seconds: None,
        cancelled: None,
        survivors: 0,
        place_failed: false,
        daemons_left: Vec::new(),
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
    last.failure = Some(FailureSummary { kind: FailureKind::ModelNotFound, message: long(9_000) });
    last.backend = BackendName::from(long(200));
    last.model = Some(long(400));
    last.session_id = Some(long(400));
    last.verification = Verification::CouldNotRun { why: long(9_000) };
    last.final_message = long(90_000);
    last.changes.files = (0..500).map(|_| long(400)).collect();
    last.changes.notes = (0..50).map(|_| long(400)).collect();
    last.daemons_left = (0..50).map(|number| format!("{number} {}", long(400))).collect();
    let part = NotOnBranch { what: long(4_000), place: long(4_000), how_to_include: long(4_000), files: None };
    last.changes.not_on_branch = vec![part; 50];
    last.changes.base_commit = Some("c".repeat(64));
    last.changes.head = Some("c".repeat(64));
    let collision = Collision { with: long(400), is_integration_branch: true, paths: vec![long(4_000); 9] };
    view.collisions = vec![collision; 40];
    view
}
