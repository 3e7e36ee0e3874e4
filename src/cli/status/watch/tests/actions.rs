//! Tests of the keys that act on a worker, of the search, and of the lines at the bottom.

use std::sync::Arc;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::super::super::tests::{COLOURS, PERMISSION, many, mixed, questioned, settled};
use super::super::answer::Answer;
use super::super::search::Search;
use super::super::state::{Action, App, Label, Mode, ScreenEvent};
use super::{app, drawn, press, see, type_text};
use crate::cli::error::CliError;
use crate::mission::id::WorkerId;
use crate::mission::lifecycle::{Ending, WorkerStatus};
use crate::mission::question::Decision;
use crate::orchestrator::WorkerView;

/// Returns workers of which w-4 has a session and reports that it is blocked.
fn asking() -> Vec<WorkerView> {
    let mut views = mixed();
    let worker = Arc::make_mut(&mut views[3].worker);
    worker.settled[0].session_id = Some("ses-1".to_owned());
    worker.settled[0].says_blocked = true;
    worker.settled[0].final_message = "I tried.\nBLOCKED: no key for the payment provider".to_owned();
    views
}

fn select(app: &mut App, short: &str) -> WorkerId {
    press(app, KeyCode::Home);
    while app.current().unwrap().row.short != short {
        press(app, KeyCode::Down);
    }
    app.selected.clone().unwrap()
}

/// Returns the lines at the bottom of a screen of this width.
fn bottom(app: &App, columns: u16) -> String {
    drawn(app, columns, 24)
        .into_iter()
        .rev()
        .take(4)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn merge_and_retry_need_confirmation() {
    let mut app = app(mixed());
    let id = select(&mut app, "w-4");
    assert_eq!(press(&mut app, KeyCode::Char('i')), None);
    assert!(bottom(&app, 80).ends_with("Merge w-4 into its integration branch, without a check? y/n"));
    assert_eq!(press(&mut app, KeyCode::Enter), None, "only y confirms");
    assert!(app.doing.is_empty() && bottom(&app, 80).ends_with("not merged"));
    press(&mut app, KeyCode::Char('i'));
    assert_eq!(press(&mut app, KeyCode::Char('y')), Some(Action::Merge(id.clone())));
    assert!(bottom(&app, 80).ends_with("merging w-4-done …"));
    let what = Label::Merge(id.clone());
    app.handle(ScreenEvent::Step { what: what.clone(), step: "verifying (12 s)".to_owned() });
    assert!(bottom(&app, 80).ends_with("merging w-4-done: verifying (12 s) …"));

    // A second merge of the same worker, while the first one runs.
    press(&mut app, KeyCode::Char('i'));
    assert_eq!(press(&mut app, KeyCode::Char('y')), None);
    assert!(bottom(&app, 80).contains("verifying (12 s) …\nalready merging w-4-done"), "{}", bottom(&app, 80));
    let answer = Err(CliError::Failed("not merged into main: conflicts\nconflict: a.txt (contents)".to_owned()));
    app.handle(ScreenEvent::Done { what: Some(what), answer });
    assert!(bottom(&app, 80).ends_with("not merged into main: conflicts · conflict: a.txt (contents)"));
    assert!(app.doing.is_empty());

    press(&mut app, KeyCode::Char('r'));
    assert!(bottom(&app, 80).contains("retry w-4 (enter: start, esc: discard), with feedback:"));
    assert_eq!(press(&mut app, KeyCode::Esc), None);
    assert!(bottom(&app, 80).ends_with("not retried"));
    press(&mut app, KeyCode::Char('r'));
    type_text(&mut app, "also ");
    app.handle(ScreenEvent::Pasted("tests/api\n".to_owned()));
    assert_eq!(press(&mut app, KeyCode::Enter), Some(Action::Retry(id.clone(), Some("also tests/api ".to_owned()))));
    app.handle(ScreenEvent::Done { what: Some(Label::Retry(id.clone())), answer: Ok("w-4: running".to_owned()) });
    press(&mut app, KeyCode::Char('r'));
    assert_eq!(press(&mut app, KeyCode::Enter), Some(Action::Retry(id, None)));
}

#[test]
fn merge_question_names_target_and_check() {
    let mut views = mixed();
    views[3].meant_for = Some("release".to_owned());
    Arc::make_mut(&mut views[3].worker).mission.verify_command = Some("npm test".to_owned());
    let mut app = app(views);
    select(&mut app, "w-4");
    press(&mut app, KeyCode::Char('i'));
    assert!(bottom(&app, 80).ends_with("Merge w-4 into release if `npm test` passes on the result? y/n"));
    // The keys of the answer are visible on every screen.
    for columns in [8, 20, 40] {
        assert!(bottom(&app, columns).ends_with("y/n"), "{}", bottom(&app, columns));
    }
    // The worker is removed meanwhile: the command behind the key refuses it.
    see(&mut app, many(1));
    assert!(bottom(&app, 80).ends_with("y/n"));
}

#[test]
fn key_that_does_not_apply_gives_the_reason() {
    let mut app = app(mixed());
    select(&mut app, "w-1");
    for (key, reason) in [
        ('a', "cannot attach to w-1: it has not finished (running); m sends it a message"),
        ('i', "cannot merge w-1: it has not finished (running)"),
        ('r', "cannot retry w-1: it has not finished (running); m sends it a message, c cancels it"),
    ] {
        assert_eq!(press(&mut app, KeyCode::Char(key)), None);
        assert_eq!(app.mode, Mode::Browse, "{key}");
        assert!(bottom(&app, 100).ends_with(reason), "{}", bottom(&app, 100));
    }
    let mut empty = App::default();
    for key in ['a', 'c', 'i', 'm', 'o', 'r'] {
        assert_eq!(press(&mut empty, KeyCode::Char(key)), None);
        assert!(empty.message.as_ref().unwrap().1.contains("no worker is selected"));
    }
    // Keys with Alt may be the rest of an escape sequence.
    let alt = KeyEvent::new(KeyCode::Char('o'), KeyModifiers::ALT);
    assert_eq!((app.handle(ScreenEvent::Key(alt)), &app.mode), (None, &Mode::Browse));
}

#[test]
fn typing_for_another_program_is_no_key() {
    for (key, action) in [('o', Action::Open as fn(WorkerId) -> Action), ('a', Action::Attach)] {
        let mut app = app(asking());
        let id = select(&mut app, "w-4");
        assert_eq!(press(&mut app, KeyCode::Char(key)), Some(action(id.clone())));
        for typed in ['i', 'y', 'c', 'y', 'q'] {
            assert_eq!(press(&mut app, KeyCode::Char(typed)), None, "{typed}");
        }
        app.handle(ScreenEvent::Pasted("cy".to_owned()));
        assert!(app.doing.is_empty() && bottom(&app, 80).contains("w-4-done …"), "{}", bottom(&app, 80));
        let ctrl_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(app.handle(ScreenEvent::Key(ctrl_c)), Some(Action::Quit), "a slow start can be left");
        let answer = Err(CliError::Failed("cannot start the editor".to_owned()));
        app.handle(ScreenEvent::Returned(answer));
        assert_eq!(app.mode, Mode::Browse);
        assert!(bottom(&app, 80).ends_with("cannot start the editor"));
    }
}

#[test]
fn answer_to_a_blocked_worker_is_called_answer() {
    let mut app = app(asking());
    let id = select(&mut app, "w-4");
    assert!(bottom(&app, 100).contains("m answer") && !bottom(&app, 100).contains("m message"));
    press(&mut app, KeyCode::Char('m'));
    type_text(&mut app, "it is in .env");
    let lines = bottom(&app, 120);
    assert!(
        lines.contains("w-4 is blocked: no key for the payment provider\nanswer w-4 (enter: send and start"),
        "{lines}"
    );
    assert!(lines.ends_with("it is in .env▏"), "{lines}");
    for columns in [20, 40, 80] {
        let lines = bottom(&app, columns);
        assert!(lines.contains("answer") && lines.ends_with("▏"), "{lines}");
    }
    assert_eq!(press(&mut app, KeyCode::Enter), Some(Action::Send(id, "it is in .env".to_owned())));
    select(&mut app, "w-1");
    app.doing.clear();
    assert!(bottom(&app, 100).contains("m message"));
}

fn answer(worker: &WorkerId, decision: &str, reason: Option<&str>) -> Option<Action> {
    let (question, decision) = ("q1.1.1".to_owned(), Decision::from(decision.to_owned()));
    Some(Action::Answer(Answer { worker: worker.clone(), question, decision, reason: reason.map(str::to_owned) }))
}

#[test]
fn permission_is_allowed_or_denied_after_confirmation() {
    let mut app = app(questioned(PERMISSION));
    let id = select(&mut app, "w-1");
    assert!(bottom(&app, 100).contains("a allow  d deny  m message"), "{}", bottom(&app, 100));
    press(&mut app, KeyCode::Char('a'));
    let asked = "w-1 asks q1.1.1: permission for Write: /etc/x (outside its worktree)\nAllow it once? y/n";
    assert!(bottom(&app, 100).ends_with(asked), "{}", bottom(&app, 100));
    assert_eq!(press(&mut app, KeyCode::Enter), None, "only y confirms");
    assert!(bottom(&app, 100).ends_with("not answered"));
    press(&mut app, KeyCode::Char('a'));
    assert_eq!(press(&mut app, KeyCode::Char('y')), answer(&id, "allow", None));
    assert!(bottom(&app, 100).ends_with("answering w-1-fix-the-parser …"));

    press(&mut app, KeyCode::Char('d'));
    app.handle(ScreenEvent::Pasted("stay\ninside".to_owned()));
    assert!(bottom(&app, 120).ends_with("with a reason: stay inside▏"), "{}", bottom(&app, 120));
    assert_eq!(press(&mut app, KeyCode::Enter), answer(&id, "deny", Some("stay inside")));
    press(&mut app, KeyCode::Char('d'));
    assert_eq!(press(&mut app, KeyCode::Esc), None);
    press(&mut app, KeyCode::Char('d'));
    // The worker settles meanwhile: the command behind the key refuses the answer.
    see(&mut app, mixed());
    assert_eq!(press(&mut app, KeyCode::Enter), answer(&id, "deny", None));
    app.doing.clear();
    assert_eq!(press(&mut app, KeyCode::Char('d')), None);
    assert!(bottom(&app, 100).ends_with("w-1 asks nothing (running); m sends it a message"));
}

#[test]
fn cut_question_is_marked() {
    let mut views = questioned(PERMISSION);
    views[0].live.as_mut().unwrap().questions[0].question.text = "rm -rf x ".repeat(200);
    let mut app = app(views);
    select(&mut app, "w-1");
    press(&mut app, KeyCode::Char('a'));
    for columns in [20, 80] {
        assert!(bottom(&app, columns).ends_with("…\nAllow it once? y/n"), "{}", bottom(&app, columns));
    }
}

#[test]
fn form_is_answered_with_a_choice_or_in_words() {
    let mut app = app(questioned(COLOURS));
    let id = select(&mut app, "w-1");
    assert!(bottom(&app, 100).contains("a answer  d deny"), "{}", bottom(&app, 100));
    press(&mut app, KeyCode::Char('a'));
    assert!(bottom(&app, 120).contains("Choices: deny, 1 (Red), 2 (Blue)\nanswer w-1 with"), "{}", bottom(&app, 120));
    type_text(&mut app, "2");
    assert_eq!(press(&mut app, KeyCode::Enter), answer(&id, "2", None));
    press(&mut app, KeyCode::Char('a'));
    type_text(&mut app, "green ");
    assert_eq!(press(&mut app, KeyCode::Enter), answer(&id, "deny", Some("green")));
    press(&mut app, KeyCode::Char('a'));
    assert_eq!(press(&mut app, KeyCode::Enter), None, "nothing was typed");
    for columns in [20, 40, 80] {
        press(&mut app, KeyCode::Char('a'));
        assert!(bottom(&app, columns).ends_with('▏'), "{}", bottom(&app, columns));
        press(&mut app, KeyCode::Esc);
    }
}

#[test]
fn new_question_is_announced_once() {
    let mut app = app(mixed());
    app.notifies = true;
    let mut announced = |views| {
        let dashboard = super::super::super::tests::dashboard(views);
        app.handle(ScreenEvent::Seen(Ok(Some(Box::new(dashboard)))))
    };
    let text = "w-1-fix-the-parser needs_answer: Fix the parser".to_owned();
    assert_eq!(announced(questioned(PERMISSION)), Some(Action::Announce(text)));
    assert_eq!(announced(questioned(PERMISSION)), None);
    assert_eq!(announced(mixed()), None);
}

#[test]
fn only_keys_that_apply_and_fit_are_shown() {
    let mut app = app(asking());
    for (short, columns, expected) in [
        ("w-1", 100, "↑↓ select  tab pane  m message  c cancel  o open  / search  y path  ? help  q quit"),
        ("w-1", 60, "m message  c cancel  o open  / search  ? help  q quit"),
        (
            "w-4",
            110,
            "↑↓ select  tab pane  m answer  i merge  r retry  o open  a attach  / search  y path  ? help  q quit",
        ),
        ("w-4", 60, "m answer  i merge  r retry  o open  a attach  ? help  q quit"),
        ("w-4", 20, "? help  q quit"),
    ] {
        select(&mut app, short);
        assert_eq!(bottom(&app, columns).lines().last().unwrap(), expected, "{short} in {columns}");
    }
}

#[test]
fn search_jumps_and_returns() {
    let mut app = app(many(200));
    press(&mut app, KeyCode::Char('/'));
    type_text(&mut app, "TASK-NUMBER-19");
    assert_eq!(app.current().unwrap().row.short, "w-20", "its title is Task number 19");
    assert!(bottom(&app, 80).ends_with("/TASK-NUMBER-19▏  1 of 11"), "{}", bottom(&app, 80));
    press(&mut app, KeyCode::Backspace);
    type_text(&mut app, "99");
    assert!(bottom(&app, 80).ends_with("1 of 1"), "{}", bottom(&app, 80));
    type_text(&mut app, "9");
    assert!(bottom(&app, 80).ends_with("no worker matches"));
    // Esc returns to the selection before the search.
    press(&mut app, KeyCode::Esc);
    assert_eq!((app.current().unwrap().row.short.as_str(), app.is_chosen, &app.mode), ("w-1", false, &Mode::Browse));

    press(&mut app, KeyCode::Char('/'));
    app.handle(ScreenEvent::Pasted("number-1".to_owned()));
    press(&mut app, KeyCode::Enter);
    let mut select = |key: char| {
        press(&mut app, KeyCode::Char(key));
        app.current().unwrap().row.short.clone()
    };
    assert_eq!(
        [select('n'), select('n'), select('N'), select('N'), select('N')],
        ["w-11", "w-12", "w-11", "w-2", "w-200"]
    );
    assert!(bottom(&app, 80).ends_with("n next  N previous  esc end"), "{}", bottom(&app, 80));
    press(&mut app, KeyCode::Esc);
    assert_eq!((app.search.clone(), app.current().unwrap().row.short.as_str()), (None, "w-200"));
    press(&mut app, KeyCode::Char('n'));
    assert!(bottom(&app, 80).ends_with("nothing to search for: / begins a search"));
    // An empty search ends the last one.
    app.search = Some("x".to_owned());
    press(&mut app, KeyCode::Char('/'));
    assert_eq!(app.mode, Mode::Search(Search { text: String::new(), before: (app.selected.clone(), true) }));
    press(&mut app, KeyCode::Enter);
    assert_eq!(app.search, None);
}

#[test]
fn long_result_is_wrapped_and_leaves_the_table() {
    let mut app = app(mixed());
    let long = "not merged: ".to_owned() + &"a very long reason ".repeat(40);
    app.handle(ScreenEvent::Done { what: None, answer: Err(CliError::Failed(long)) });
    let lines = drawn(&app, 40, 24);
    assert!(lines[20].starts_with("not merged") && lines[23].ends_with('…'), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains("w-1")), "{lines:#?}");
    let lines = drawn(&app, 20, 5);
    assert!(lines[4].ends_with('…') && lines.iter().any(|line| line.contains("w-1")), "{lines:#?}");
}

#[test]
fn worker_that_finishes_during_a_question_keeps_it() {
    let mut app = app(mixed());
    let id = select(&mut app, "w-1");
    press(&mut app, KeyCode::Char('c'));
    let mut views = mixed();
    let worker = Arc::make_mut(&mut views[0].worker);
    worker.status = WorkerStatus::Settled(Ending::Completed);
    worker.settled = vec![settled(Ending::Completed, |_| {})];
    see(&mut app, views);
    // The command behind the key reports that it has finished.
    assert_eq!(press(&mut app, KeyCode::Char('y')), Some(Action::Cancel(id)));
}
