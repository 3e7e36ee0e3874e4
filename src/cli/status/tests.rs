//! Tests of the status screens with any number of workers, at every width.

use jiff::{SignedDuration, Timestamp};

use super::dashboard::{Dashboard, DashboardWorker, Group};
use super::detail;
use super::row::WorkerRow;
use super::screen::{self, ScreenLine};
use crate::attempt::status::{LiveStatus, OpenQuestion, Phase};
use crate::cli::text;
use crate::mission::budget::Spent;
use crate::mission::entry::{AttemptSummary, Entry, FailureSummary};
use crate::mission::lifecycle::Ending;
use crate::mission::outcome::{Changes, Exit, FailureKind, Usage, Verification};
use crate::mission::question::{Choice, ChoiceKind, Question};
use crate::mission::registry::Registry;
use crate::mission::testing;
use crate::orchestrator::{Collision, With, WorkerView};
use crate::process::Identity;

/// The time of all tests.
pub fn now() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

pub fn ago(seconds: i64) -> Timestamp {
    now() - SignedDuration::from_secs(seconds)
}

pub fn view(registry: &Registry, number: u64) -> WorkerView {
    WorkerView::of(registry.by_number(number).unwrap().clone(), None)
}

pub fn live(activity: &str) -> LiveStatus {
    LiveStatus {
        phase: Phase::Running,
        host: None,
        supervisor: Identity::own().unwrap(),
        cli: None,
        turn: 1,
        activity: activity.to_owned(),
        last_event_at: now(),
        began: std::time::Duration::ZERO,
        last_event: std::time::Duration::ZERO,
        written: std::time::Duration::ZERO,
        seen: std::time::Duration::ZERO,
        settled: false,
        usage: Usage { input_tokens: 12_000, output_tokens: 345, cost_usd: Some(0.42), ..Usage::default() },
        session_id: None,
        stalled: None,
        confinement: None,
        answered: true,
        receipts: Vec::new(),
        questions: Vec::new(),
        closed_questions: Vec::new(),
    }
}

pub fn settled(status: Ending, brief: impl FnOnce(&mut AttemptSummary)) -> AttemptSummary {
    let changes = Changes { commits: 2, files_changed: 3, insertions: 40, deletions: 7, ..Changes::default() };
    let mut made = AttemptSummary {
        seconds: 250,
        elapsed_seconds: Some(253),
        settled_at: ago(90),
        changes,
        ..testing::brief(1, status)
    };
    brief(&mut made);
    made
}

pub fn mixed() -> Vec<WorkerView> {
    let mut registry = Registry::default();
    let titles = [
        "Fix the parser",
        "日本語のタイトル、とても長いのでどこかで切らなければならない",
        "Wait",
        "Done",
        "Bad \u{1b}[2J\nnews",
        "👩‍👩‍👧 family",
    ];
    let ids: Vec<_> = testing::create(&mut registry, &titles.map(testing::draft)).into_iter().flatten().collect();
    for (at, id) in ids.iter().enumerate().filter(|(at, _)| *at != 2) {
        let id = || id.clone();
        testing::apply(&mut registry, "s", Entry::Starting { worker: id(), attempt: 1 });
        testing::apply(
            &mut registry,
            "s",
            Entry::Running { worker: id(), attempt: 1, base_commit: None, base_branch: None, repository: None },
        );
        let brief = match at {
            3 => settled(Ending::Completed, |brief| {
                brief.verification = Verification::Passed { commit: None, seconds: 3.0 }
            }),
            4 => settled(Ending::Failed, |brief| {
                let log_tail = "running\n\u{1b}[31m3 tests failed\n".to_owned();
                brief.verification = Verification::Failed { commit: None, exit: Exit::Code(1), log_tail, seconds: 3.0 };
                brief.failure = Some(FailureSummary { kind: FailureKind::Verification, message: "failed".to_owned() });
            }),
            _ => continue,
        };
        testing::apply(&mut registry, "s", Entry::Settled { worker: id(), brief: Box::new(brief) });
    }
    let mut views: Vec<WorkerView> = (1..=6).map(|number| view(&registry, number)).collect();
    for at in [0, 1, 5] {
        views[at].live = Some(live("shell: cargo test --all"));
        views[at].elapsed_seconds = Some(4_000);
        views[at].idle_seconds = Some(12);
    }
    views[5].live.as_mut().unwrap().stalled = Some("no event, no output and no CPU time for 15 minutes".to_owned());
    views[2].waits_for = Some("a free slot: 6 of 6 workers run".to_owned());
    let with = |with: &str| Collision { with: With::WorkerId(with.to_owned()), paths: vec!["src/lex.rs".to_owned()] };
    views[0].collisions = vec![with("w-2"), with("main")];
    views
}

/// Returns the workers of [`mixed`], of which w-1 asks this question.
pub fn questioned(choices: &[(&str, &str, ChoiceKind)]) -> Vec<WorkerView> {
    let choice = |(id, name, kind): &(&str, &str, ChoiceKind)| Choice {
        id: (*id).to_owned(),
        name: (*name).to_owned(),
        kind: *kind,
    };
    let text = "permission for Write: /etc/x (outside its worktree)";
    let question = Question::new("q1.1.1".to_owned(), text, "Write: /etc/x", choices.iter().map(choice));
    let mut views = mixed();
    let mut live = live("asks: permission");
    live.questions = vec![OpenQuestion { question, asked_at: ago(60), denied_at: None }];
    views[0] = WorkerView::of(views[0].worker.clone(), Some(live));
    views
}

/// The choices of a permission, and those of another question.
pub const PERMISSION: &[(&str, &str, ChoiceKind)] =
    &[("yes", "allow it once", ChoiceKind::AllowOnce), ("no", "deny it", ChoiceKind::RejectOnce)];
pub const COLOURS: &[(&str, &str, ChoiceKind)] = &[("1", "Red", ChoiceKind::Other), ("2", "Blue", ChoiceKind::Other)];

pub fn dashboard(views: Vec<WorkerView>) -> Dashboard {
    let shown = |view: WorkerView| DashboardWorker {
        row: WorkerRow::of(&view, true, now()),
        view,
        is_led: true,
        messages: Vec::new(),
        builds: String::new(),
    };
    let (settled, open): (Vec<_>, Vec<_>) = views.into_iter().map(shown).partition(|it| it.is_over());
    let group = Group {
        id: "claude:6f1c2f3a-1111".into(),
        boss: "claude:6f1c2f3a".to_owned(),
        directory: Some("/home/ada/src/parser".into()),
        is_here: true,
        spent: Spent { cost_usd: 3.5, tokens: 310_000, seconds: 1 },
        workers: open.into_iter().chain(settled).collect(),
    };
    Dashboard {
        as_of: now(),
        repository: Some("/home/ada/src/parser".into()),
        integration_branch: Some("main".to_owned()),
        groups: vec![group],
        in_history: 0,
        repaired: None,
        builds: None,
    }
}

/// Returns a number of equal workers.
pub fn many(count: usize) -> Vec<WorkerView> {
    let mut registry = Registry::default();
    let titles: Vec<_> = (0..count).map(|number| testing::draft(&format!("Task number {number}"))).collect();
    testing::create(&mut registry, &titles);
    (1..=count as u64).map(|number| view(&registry, number)).collect()
}

fn plain(lines: &[ScreenLine]) -> Vec<String> {
    lines.iter().map(|line| line.iter().map(|(_, text)| text.as_str()).collect()).collect()
}

#[test]
fn eighty_columns_show_the_essentials() {
    let home = std::path::Path::new("/home/ada");
    let lines = plain(&screen::lines(&dashboard(mixed()), 80, false, Some(home)));
    let expected = "\
2 running · 1 stalled · 1 queued · 1 completed · 1 failed · $3.50, 310k tokens
~/src/parser · integration branch main

boss claude:6f1c2f3a · ~/src/parser · here · $3.50, 310k tokens
";
    assert_eq!(lines[..4].join("\n") + "\n", expected);
    assert_eq!(lines.len(), 11);
    for (line, says) in [
        (5, &["● running", "w-1", "Fix the parser", "1h 6m", "$0.42", "conflicts w-2"][..]),
        (6, &["● running", "w-2", "日本語のタイトル、", "…"]),
        (7, &["○ queued", "w-3", "waiting for a free"]),
        (8, &["! stalled", "w-6", "no event, no"]),
        (9, &["✓ completed", "w-4", "4m 13s", "to merge: 2 commits"]),
        (10, &["✗ failed", "w-5", "Bad ␛[2J news", "check: exit"]),
    ] {
        for word in says {
            assert!(lines[line].contains(word), "{word:?} is missing in {:?}", lines[line]);
        }
    }
}

#[test]
fn forty_columns_wrap_the_counts() {
    let home = std::path::Path::new("/home/ada");
    let lines = plain(&screen::lines(&dashboard(mixed()), 40, false, Some(home)));
    let expected = [
        "2 running · 1 stalled · 1 queued",
        "1 completed · 1 failed",
        "$3.50, 310k tokens",
        "~/src/parser · integration branch main",
    ];
    assert_eq!(lines[..4], expected);
}

#[test]
fn two_hundred_columns_show_everything() {
    let lines = plain(&screen::lines(&dashboard(mixed()), 200, false, None)).join("\n");
    for says in [
        "ID",
        "TITLE",
        "BACKEND",
        "TIME",
        "IDLE",
        "COST",
        "CHECK",
        "BRANCH",
        "CONFLICTS",
        "NOW",
        "w-2, main",
        "passed",
        "waiting for a free slot: 6 of 6 workers run",
        "shell: cargo test --all",
        "check: exit status 1: ␛[31m3 tests failed",
        "o/w-1-fix-the-parser",
    ] {
        assert!(lines.contains(says), "{says:?} is missing in\n{lines}");
    }
}

#[test]
fn no_line_exceeds_or_controls_the_terminal() {
    let is_copied = |line: &str| line.starts_with("directory ") || line.starts_with("branch ") || line.contains('/');
    for views in [Vec::new(), mixed().split_off(5), mixed(), many(200)] {
        let dashboard = dashboard(views);
        for width in (20..260).step_by(3) {
            let mut lines = screen::lines(&dashboard, width, true, None);
            if let Some(shown) = dashboard.workers().next() {
                lines.extend(detail::lines(shown, width, None));
            }
            for line in plain(&lines) {
                let is_copied = line.starts_with(|c: char| c.is_ascii_lowercase() || c == ' ') && is_copied(&line);
                assert!(
                    text::width(&line) <= width || is_copied,
                    "{} columns in {width}: {line:?}",
                    text::width(&line)
                );
                assert!(!line.contains(char::is_control), "{line:?}");
            }
        }
    }
}

#[test]
fn old_settled_workers_are_only_counted() {
    let mut registry = Registry::default();
    let titles: Vec<_> = (0..30).map(|number| testing::draft(&format!("Task {number}"))).collect();
    let ids: Vec<_> = testing::create(&mut registry, &titles).into_iter().flatten().collect();
    ids.iter().for_each(|id| testing::settle(&mut registry, id, Ending::Completed));
    let mut dashboard = dashboard((1..=30).map(|number| view(&registry, number)).collect());
    dashboard.in_history = 7;
    let lines = plain(&screen::lines(&dashboard, 80, false, None)).join("\n");
    assert_eq!(lines.matches("✓ completed").count(), 20);
    assert!(lines.contains("30 completed") && lines.contains("10 more finished earlier"), "{lines}");
    assert!(lines.contains("7 in the history"), "{lines}");
    assert_eq!(plain(&screen::lines(&dashboard, 80, true, None)).join("\n").matches("✓ completed").count(), 30);
}

#[test]
fn open_worker_without_server_is_marked() {
    let queued = mixed().remove(2);
    let running = mixed().remove(0);
    for (view, says) in
        [(queued, "no server: start its boss again"), (running, "its server has ended; it keeps running")]
    {
        assert_eq!(WorkerRow::of(&view, false, now()).notes[0], says);
        assert!(WorkerRow::of(&view, true, now()).notes.iter().all(|note| note != says));
    }
}

#[test]
fn detail_shows_the_verification_output() {
    let mut views = mixed();
    let last = &mut std::sync::Arc::make_mut(&mut views[4].worker).settled[0];
    last.daemons_left = vec!["bazel".to_owned()];
    (last.denials, last.denied) = (3, vec!["Bash: rm -rf /".to_owned()]);
    let dashboard = dashboard(views);
    let failed = dashboard.workers().find(|it| it.row.short == "w-5").unwrap();
    let text = plain(&detail::lines(failed, 80, None)).join("\n");
    for says in [
        "✗ failed",
        "w-5-bad-2j-news",
        "exit status 1",
        "␛[31m3 tests failed",
        "2 commits, 3 files +40 -7",
        "do it",
        "spared     bazel",
        "denied     Bash: rm -rf /",
        "3 in all",
    ] {
        assert!(text.contains(says), "{says:?} is missing in\n{text}");
    }
}

#[test]
fn question_stands_out() {
    let dashboard = dashboard(questioned(COLOURS));
    let shown = dashboard.workers().next().unwrap();
    assert!(shown.waits_for_user());
    assert_eq!((shown.row.state.sign, shown.row.state.word), ("◆", "needs_answer"));
    assert_eq!(shown.row.notes, ["needs an answer: permission for Write: /etc/x (outside its worktree)"]);
    let detail = plain(&detail::lines(shown, 120, None));
    let says = |words: &str| detail.iter().any(|line| line.contains(words));
    assert!(says("q1.1.1: permission for Write: /etc/x (outside its worktree)"), "{detail:#?}");
    assert!(says("choices    deny, 1 (Red), 2 (Blue)"), "{detail:#?}");
    assert_eq!(plain(&screen::lines(&dashboard, 80, false, None))[0].split(" · ").next(), Some("1 needs answer"));
}

#[test]
fn blocked_worker_needs_attention_and_comes_first() {
    let mut views = mixed();
    let worker = std::sync::Arc::make_mut(&mut views[3].worker);
    worker.settled[0].says_blocked = true;
    worker.settled[0].final_message = "I tried.\nBLOCKED: no key for the payment provider".to_owned();
    let lines = plain(&screen::lines(&dashboard(views.clone()), 120, false, None));
    assert!(lines[0].starts_with("1 needs you · 2 running"), "{lines:#?}");
    let row = lines.iter().find(|line| line.contains("w-4")).unwrap();
    assert!(row.starts_with("◆ needs you") && row.contains("blocked: no key for the"), "{row}");
    assert!(!lines.iter().any(|line| line.contains('✓')), "{lines:#?}");
    assert!(lines.last().unwrap().ends_with("answer w-4: orchestrator-boss message w-4 TEXT"), "{lines:#?}");
}

fn boss_of(boss: &str, workers: Vec<WorkerView>) -> crate::orchestrator::BossOverview {
    crate::orchestrator::BossOverview {
        boss: boss.into(),
        directory: None,
        is_here: true,
        workers,
        spent: Spent::default(),
    }
}

#[test]
fn waiting_workers_come_first_then_running_ones() {
    let mut views = mixed();
    let worker = std::sync::Arc::make_mut(&mut views[3].worker);
    worker.settled[0].says_blocked = true;
    std::sync::Arc::make_mut(&mut views[4].worker).settled[0].settled_at = ago(500);
    let mut blocked = many(7).pop().unwrap();
    blocked.block = Some(crate::mission::hint::Advice::new("its dependency failed", Vec::new()));
    views.push(blocked);
    let group = Group::of(&boss_of("claude:1", views), now(), |_| true);
    let shown: Vec<(&str, &str)> = group.workers.iter().map(|it| (it.row.short.as_str(), it.row.state.word)).collect();
    let expected = [
        ("w-4", "needs you"),
        ("w-6", "stalled"),
        ("w-7", "blocked"),
        ("w-1", "running"),
        ("w-2", "running"),
        ("w-3", "queued"),
        ("w-5", "failed"),
    ];
    assert_eq!(shown, expected);
    let marks: Vec<&str> = group.workers[..3].iter().map(|it| it.row.state.sign).collect();
    assert_eq!(marks, ["◆", "!", "■"]);
    assert!(!group.workers[0].is_over());
}

#[test]
fn running_workers_are_never_left_out() {
    let mut registry = Registry::default();
    let titles: Vec<_> = (0..90).map(|number| testing::draft(&format!("Task {number}"))).collect();
    let ids: Vec<_> = testing::create(&mut registry, &titles).into_iter().flatten().collect();
    ids[..60].iter().for_each(|id| testing::settle(&mut registry, id, Ending::Failed));
    for id in &ids[60..] {
        testing::apply(&mut registry, "s", Entry::Starting { worker: id.clone(), attempt: 1 });
    }
    let dashboard = dashboard((1..=90).map(|number| view(&registry, number)).collect());
    let lines = plain(&screen::lines(&dashboard, 80, false, None)).join("\n");
    assert_eq!((lines.matches("◌ starting").count(), lines.matches("✗ failed").count()), (30, 20), "{lines}");
    assert!(lines.contains("40 more finished earlier: see status --all"), "{lines}");
}

#[test]
fn title_has_room_before_idle_time_and_cost() {
    let mut views = mixed();
    std::sync::Arc::make_mut(&mut views[0].worker).mission.title = "Replace the old date functions".to_owned();
    for (width, has_idle, title) in [
        (120, true, "Replace the old date functions"),
        (80, false, "Replace the old d"),
        (60, false, "Replace the old d"),
        (40, false, "Replace the"),
    ] {
        let lines = plain(&screen::lines(&dashboard(views.clone()), width, false, None));
        let row = lines.iter().find(|line| line.contains("w-1 ")).unwrap();
        assert!(row.contains(title), "{title:?} in {width}: {lines:#?}");
        assert_eq!(lines.iter().any(|line| line.contains("IDLE")), has_idle, "{width}: {lines:#?}");
    }
}

#[test]
fn uncounted_changes_are_not_no_changes() {
    let said = |changes: Changes| super::row::changes(&changes);
    let note = "not in a git repository: changes are not counted".to_owned();
    assert_eq!(said(Changes { notes: vec![note.clone()], ..Changes::default() }), note);
    assert_eq!(said(Changes { uncommitted: 1, ..Changes::default() }), "1 file not committed");
    assert_eq!(said(Changes::default()), "no changes");
}

#[test]
fn settled_worker_is_not_idle_and_sums_attempts() {
    let mut views = mixed();
    let worker = std::sync::Arc::make_mut(&mut views[3].worker);
    let again = AttemptSummary { attempt: 2, elapsed_seconds: Some(20), ..worker.settled[0].clone() };
    worker.settled.push(again);
    let row = WorkerRow::of(&views[3], true, now());
    // 253 s in the first attempt, with its verification, and 20 s in the second.
    assert_eq!((row.time.as_str(), row.idle.as_str(), row.ended.as_str()), ("4m 33s", "", "1m 30s"));
    let row = WorkerRow::of(&views[0], true, now());
    assert_eq!((row.time.as_str(), row.idle.as_str(), row.ended.as_str()), ("1h 6m", "12s", ""));
}

#[test]
fn detail_wraps_all_but_paths() {
    let mut views = mixed();
    let long = "/home/ada/src/a folder with spaces/and-a-name-that-is-much-longer-than-a-line/w-4-done";
    let worker = std::sync::Arc::make_mut(&mut views[3].worker);
    worker.mission.place = crate::mission::spec::Place::Directory { path: long.into() };
    worker.mission.prompt = "word ".repeat(40);
    let dashboard = dashboard(views);
    let shown = dashboard.workers().find(|it| it.row.short == "w-4").unwrap();
    let lines = plain(&detail::lines(shown, 50, None));
    assert!(lines.iter().any(|line| *line == format!("directory  {long}")), "{lines:#?}");
    let prompt = lines.iter().position(|line| line.starts_with("prompt")).unwrap();
    assert!(lines[prompt..].iter().all(|line| text::width(line) <= 50), "{lines:#?}");
    assert!(lines[prompt + 1].starts_with("           word"), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.starts_with("attempt")), "{lines:#?}");
}

#[test]
fn messages_show_author_and_delivery() {
    use crate::mission::message::{Author, Cancelled};
    use crate::orchestrator::{DeliveryState, MessageView};
    let mut dashboard = dashboard(mixed());
    let shown = &mut dashboard.groups[0].workers[0];
    let at = |text: &str, by, state| MessageView {
        attempt: 1,
        id: uuid::Uuid::nil(),
        at: now(),
        by: Some(by),
        text: text.to_owned(),
        state,
        delivered: None,
    };
    shown.messages =
        vec![at("use b", Author::Boss, DeliveryState::At(now())), at("and c", Author::User, DeliveryState::Waiting)];
    let lines = plain(&detail::lines(shown, 100, None)).join("\n");
    assert!(lines.contains("boss, delivered: use b") && lines.contains("user, waiting: and c"), "{lines}");

    let by_user = Cancelled { by: Some(Author::User), reason: "the plan has changed".to_owned() };
    let mut views = mixed();
    let worker = std::sync::Arc::make_mut(&mut views[4].worker);
    worker.settled[0].cancelled = Some(by_user);
    worker.settled[0].undelivered = vec!["look at b".to_owned()];
    let row = WorkerRow::of(&views[4], true, now()).note(false);
    assert!(row.contains("by the user: the plan has changed · 1 message was not delivered: \"look at b\""), "{row}");
}
