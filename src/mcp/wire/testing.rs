//! Workers for the tests of answers: running, settled, and with every text as long as it can be.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::attempt::status::OpenQuestion;
use crate::mission::create::Draft;
use crate::mission::delivery::Notification;
use crate::mission::entry::{AttemptSummary, FailureSummary};
use crate::mission::id::{BackendName, BossId, TaskId, WorkerId};
use crate::mission::life::JobId;
use crate::mission::lifecycle::{Ending, WorkerStatus};
use crate::mission::outcome::{Changes, Exit, FailureKind, NotOnBranch, Usage, Verification};
use crate::mission::question::{Choice, ChoiceKind, Question};
use crate::mission::registry::{Integrated, Registry, Worker};
use crate::mission::spec::{Mission, Place};
use crate::mission::testing;
use crate::mission::worker::Job;
use crate::orchestrator::{Collision, QuestionView, RaceView, RacerView, With, WorkerView};

pub(in crate::mcp) fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

/// A worker as a list or a wait meets it.
pub(in crate::mcp) fn view(number: u64, status: WorkerStatus) -> WorkerView {
    let id = WorkerId::new(number, "Fix parser");
    let mut registry = Registry::default();
    testing::create(&mut registry, &[Draft { prompt: "Fix it.".into(), ..testing::draft("Fix parser") }]);
    let made = registry.by_number(1).unwrap();
    let (path, branch) = (format!("/r/{id}").into(), format!("orchestrator/{id}"));
    let worker = Worker {
        mission: Mission {
            place: Place::Worktree { path, branch, base: None, directory: None },
            task_id: TaskId::from(id.to_string()),
            ..made.mission.clone()
        },
        id,
        boss: BossId::from("claude:1"),
        status,
        attempt: 1,
        notification: Notification::Pending,
        block_notification: Notification::Pending,
        created_at: now(),
        queued_at: now(),
        started_at: Some("2026-11-22T11:59:00Z".parse().unwrap()),
        ..Worker::clone(made)
    };
    WorkerView { elapsed_seconds: Some(60), ..WorkerView::of(Arc::new(worker), None) }
}

pub(in crate::mcp) fn settled(number: u64, ending: Ending) -> WorkerView {
    let mut view = view(number, WorkerStatus::Settled(ending));
    Arc::make_mut(&mut view.worker).settled.push(AttemptSummary {
        exit: Some(Exit::Code(0)),
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
        usage: Usage { input_tokens: 1_000, cached_tokens: 0, output_tokens: 50, cost_usd: None },
        session_id: Some("s-1".into()),
        seconds: 42,
        settled_at: now(),
        ..testing::brief(1, ending)
    });
    view
}

/// A question with texts of the greatest length.
pub(in crate::mcp) fn longest_question(number: u64) -> QuestionView {
    let choice =
        |at: usize| Choice { id: format!("{at}{}", "\"".repeat(59)), name: "\"".repeat(500), kind: ChoiceKind::Other };
    let text = "\u{1}\"é\n".repeat(2_000);
    let question = Question::new(format!("q{number}.1.1"), &text, &text, (0..50).map(choice));
    let open = OpenQuestion { question, asked_at: now(), denied_at: Some(Duration::MAX) };
    QuestionView { worker_id: WorkerId::new(number, &"long title ".repeat(20)), open }
}

/// Everything as long as it can get, in characters that take the most room.
pub(in crate::mcp) fn longest(number: u64) -> WorkerView {
    let mut view = settled(number, Ending::Failed);
    let long = |bytes: usize| "\u{1}\"é\n".repeat(bytes / 4);
    Arc::make_mut(&mut view.worker).mission.title = long(800);
    Arc::make_mut(&mut view.worker).mission.profile = Some(long(400));
    Arc::make_mut(&mut view.worker).mission.task_id = TaskId::from(long(400));
    Arc::make_mut(&mut view.worker).mission.place =
        Place::Worktree { path: long(4_000).into(), branch: long(800), base: None, directory: None };
    let integrated = Integrated { into: long(800), commit: "c".repeat(64), source: None, partial: false };
    Arc::make_mut(&mut view.worker).integrated = Some(integrated);
    view.redelivered = true;
    let job = Job { launcher: long(400), id: JobId(u64::MAX), retry_lost: true };
    Arc::make_mut(&mut view.worker).job = Some(job);
    view.node = Some(long(400));
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
    (last.denials, last.denied) = (10, vec![long(200); 10]);
    last.daemons_left = (0..50).map(|number| format!("{number} {}", long(400))).collect();
    let part = NotOnBranch { what: long(4_000), place: long(4_000), how_to_include: long(4_000), files: None };
    last.changes.not_on_branch = vec![part; 50];
    last.changes.base_commit = Some("c".repeat(64));
    last.changes.head = Some("c".repeat(64));
    let collision = Collision { with: With::Branch(long(400)), paths: vec![long(4_000); 9] };
    view.collisions = vec![collision; 40];
    view
}
