//! Tests of the live screen at every size, and of its keys.

mod actions;

use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

use super::super::tests::{dashboard, many, mixed, settled};
use super::draw::draw;
use super::log::PaneLine;
use super::search::Search;
use super::state::{Action, App, Doing, Label, Mode, Pane, ScreenEvent};
use super::{PANICKED, take_terminal};
use crate::cli::error::CliError;
use crate::cli::terminal::Tone;
use crate::mission::id::WorkerId;
use crate::mission::lifecycle::{Ending, WorkerStatus};
use crate::orchestrator::{OrchestratorError, WorkerView};

fn app(views: Vec<WorkerView>) -> App {
    let mut app = App { colours: true, ..App::default() };
    app.handle(ScreenEvent::Seen(Ok(Some(Box::new(dashboard(views))))));
    app
}

/// Returns the lines of the screen.
fn drawn(app: &App, columns: u16, rows: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    let mut most = 0;
    terminal.draw(|frame| most = draw(app, frame.area(), frame.buffer_mut())).unwrap();
    assert!(most < 1_000, "{most} lines to scroll");
    let text = terminal.backend().to_string();
    // The text after a line names the cells that wide characters cover.
    let cells = |line: &str| line.trim_start_matches('"').split('"').next().unwrap_or_default().trim_end().to_owned();
    text.lines().map(cells).collect()
}

fn press(app: &mut App, code: KeyCode) -> Option<Action> {
    app.handle(ScreenEvent::Key(KeyEvent::new(code, KeyModifiers::NONE)))
}

fn type_text(app: &mut App, text: &str) {
    text.chars().for_each(|character| assert_eq!(press(app, KeyCode::Char(character)), None));
}

fn logged(app: &mut App, count: usize) {
    let line = |number| PaneLine { time: "12:00:00".to_owned(), text: format!("line {number}"), tone: None };
    let worker = app.selected.clone().unwrap();
    app.handle(ScreenEvent::Logged { worker, fresh: true, lines: (0..count).map(line).collect() });
}

#[test]
fn reason_of_waiting_worker_fits_80_columns() {
    let mut views = mixed();
    let worker = std::sync::Arc::make_mut(&mut views[3].worker);
    worker.settled[0].says_blocked = true;
    worker.settled[0].final_message = "BLOCKED: which key is for the payments?".to_owned();
    let app = app(views);
    for (columns, says) in
        [(80, "blocked: which key is for the payments?"), (60, "blocked: which key"), (40, "blocked: wh")]
    {
        let lines = drawn(&app, columns, 30);
        let row = lines.iter().find(|line| line.contains("w-4 ")).unwrap();
        assert!(row.contains("Done") && row.contains(says), "{columns}: {row}");
        let stalled = lines.iter().find(|line| line.contains("w-6 ")).unwrap();
        assert!(stalled.contains("no event"), "{columns}: {stalled}");
    }
    let head = drawn(&app, 40, 30).remove(0);
    assert!(head.starts_with("1 ◆ · 2 ● · 1 !") && head.ends_with("$3.50"), "{head}");
}

#[test]
fn every_size_is_drawn() {
    let broken = || {
        let mut app = App::default();
        app.handle(ScreenEvent::Seen(Err(OrchestratorError::ShuttingDown)));
        app
    };
    for make in [
        || App::default(),
        || app(Vec::new()),
        || app(mixed().split_off(5)),
        || app(mixed()),
        || app(many(200)),
        broken,
    ] {
        for (columns, rows) in [(1, 1), (3, 2), (20, 5), (40, 10), (80, 24), (200, 60), (300, 3)] {
            for pane in Pane::ALL {
                let (id, long) = (|| WorkerId::new(1, "Fix the parser"), "日本語 and more".repeat(9));
                for mode in [
                    Mode::Browse,
                    Mode::Help,
                    Mode::Cancel(id()),
                    Mode::Merge(id()),
                    Mode::Message(id(), long.clone()),
                    Mode::Retry(id(), long.clone()),
                    Mode::Search(Search { text: long.clone(), before: (None, false) }),
                    Mode::Suspended(Label::Attach(id())),
                ] {
                    let mut app = make();
                    if app.selected.is_some() {
                        logged(&mut app, 50);
                    }
                    app.message = matches!(mode, Mode::Help).then(|| (Tone::Bad, long.clone()));
                    app.doing = vec![Doing { what: Label::Merge(id()), step: long.clone() }];
                    (app.pane, app.mode, app.scroll) = (pane, mode, 7);
                    app.diff = Some(Ok(vec!["+added".to_owned(), "-removed".to_owned()]));
                    drawn(&app, columns, rows);
                    app.zoomed = true;
                    drawn(&app, columns, rows);
                }
            }
        }
    }
}

#[test]
fn default_size_has_table_bars_log_and_keys() {
    let mut app = app(mixed());
    logged(&mut app, 100);
    let lines = drawn(&app, 80, 24);
    assert!(lines[0].starts_with("2 running · 1 stalled · 1 queued · 1 completed · 1 failed"), "{lines:#?}");
    assert!(lines[1].contains("STATE") && lines[1].contains("TIME") && lines[1].ends_with("now"), "{lines:#?}");
    assert!(lines[2].starts_with("boss claude:6f1c2f3a"), "{lines:#?}");
    assert!(lines[3].starts_with("› ● running   w-1 Fix the parser"), "{lines:#?}");
    assert!(lines[4].contains("日本語のタイトル、"), "{lines:#?}");
    assert!(lines[9].contains("[Log] Diff  Detail") && lines[9].contains("w-1 Fix the parser"), "{lines:#?}");
    assert_eq!(lines[22], "12:00:00  line 99");
    assert!(lines[23].contains("? help"), "{lines:#?}");
    assert!(lines.iter().any(|line| line.ends_with('✓')) && lines.iter().any(|line| line.contains('█')), "{lines:#?}");
}

#[test]
fn tiny_screen_has_table_or_pane() {
    let mut app = app(many(200));
    logged(&mut app, 30);
    press(&mut app, KeyCode::End);
    let lines = drawn(&app, 20, 5);
    assert!(lines[3].starts_with("› ○ w-200"), "{lines:#?}");
    logged(&mut app, 30);
    press(&mut app, KeyCode::Char('z'));
    assert_eq!(drawn(&app, 20, 5)[3], "line 29");
}

#[test]
fn selection_stays_with_its_worker() {
    let mut app = app(many(200));
    for _ in 0..100 {
        press(&mut app, KeyCode::Char('j'));
    }
    assert_eq!(app.current().unwrap().row.short, "w-101");
    assert!(drawn(&app, 80, 24).iter().any(|line| line.starts_with("› ○ queued    w-101")));
    app.handle(ScreenEvent::Seen(Ok(Some(Box::new(dashboard(many(200).split_off(50)))))));
    assert_eq!(app.current().unwrap().row.short, "w-101");
    app.handle(ScreenEvent::Seen(Ok(Some(Box::new(dashboard(many(20)))))));
    assert_eq!(app.current().unwrap().row.short, "w-20");
    app.handle(ScreenEvent::Seen(Ok(None)));
    assert!(app.current().is_none());
    assert!(drawn(&app, 80, 24).join("\n").contains("No workers here yet"));
    app.handle(ScreenEvent::Seen(Ok(Some(Box::new(dashboard(many(3)))))));
    assert_eq!(app.current().unwrap().row.short, "w-1");
}

#[test]
fn cancel_needs_confirmation() {
    let mut app = app(mixed());
    press(&mut app, KeyCode::Char('c'));
    assert!(drawn(&app, 80, 24)[23].contains("Cancel w-1-fix-the-parser and all its processes? y/n"));
    assert_eq!(press(&mut app, KeyCode::Char('n')), None);
    assert_eq!((&app.mode, app.doing.len()), (&Mode::Browse, 0));
    press(&mut app, KeyCode::Char('c'));
    assert_eq!(press(&mut app, KeyCode::Char('y')), Some(Action::Cancel(WorkerId::new(1, "Fix the parser"))));
    assert!(drawn(&app, 80, 24)[23].contains("cancelling w-1-fix-the-parser …"));
    let what = Some(app.doing[0].what.clone());
    app.handle(ScreenEvent::Done { what, answer: Err(CliError::Failed("no \u{1b}[2J".to_owned())) });
    assert!(drawn(&app, 80, 24)[23].starts_with("no ␛[2J"));
    // An ended worker cannot be cancelled.
    press(&mut app, KeyCode::End);
    press(&mut app, KeyCode::Char('c'));
    assert_eq!(app.mode, Mode::Browse);
}

#[test]
fn message_can_be_edited_and_discarded() {
    let mut app = app(mixed());
    press(&mut app, KeyCode::Char('m'));
    type_text(&mut app, "quick, cx");
    press(&mut app, KeyCode::Backspace);
    type_text(&mut app, "ancel?");
    assert!(drawn(&app, 80, 24)[23].contains("to w-1") && drawn(&app, 80, 24)[23].contains("quick, cancel?▏"));
    let id = WorkerId::new(1, "Fix the parser");
    assert_eq!(press(&mut app, KeyCode::Enter), Some(Action::Send(id, "quick, cancel?".to_owned())));
    press(&mut app, KeyCode::Char('m'));
    type_text(&mut app, "q");
    assert_eq!(press(&mut app, KeyCode::Esc), None);
    assert_eq!(app.mode, Mode::Browse);
    press(&mut app, KeyCode::Char('m'));
    assert_eq!(press(&mut app, KeyCode::Enter), None, "nothing was typed");
}

#[test]
fn pasted_text_is_never_taken_as_keys() {
    let mut app = app(mixed());
    assert_eq!(app.handle(ScreenEvent::Pasted("cy".to_owned())), None);
    assert_eq!((&app.mode, app.doing.len()), (&Mode::Browse, 0));
    press(&mut app, KeyCode::Char('m'));
    app.handle(ScreenEvent::Pasted("look\nat\u{1b}[2J it".to_owned()));
    assert!(drawn(&app, 80, 24)[23].contains("look at [2J it"), "{:#?}", drawn(&app, 80, 24));
    app.handle(ScreenEvent::Pasted("日本語".repeat(100_000) + " its end"));
    assert!(drawn(&app, 80, 24)[23].ends_with("日本語 its end▏"), "{:#?}", drawn(&app, 80, 24));
}

#[test]
fn reselected_worker_is_loaded_again() {
    let mut app = app(mixed());
    logged(&mut app, 3);
    let (worker, choice) = (app.selected.clone(), app.choice);
    press(&mut app, KeyCode::Down);
    press(&mut app, KeyCode::Up);
    assert_eq!(app.selected, worker);
    assert!(app.log.is_empty() && app.choice != choice);
}

#[test]
fn log_follows_its_end_unless_scrolled() {
    let mut app = app(mixed());
    logged(&mut app, 100);
    press(&mut app, KeyCode::PageUp);
    assert_eq!(drawn(&app, 80, 24)[22], "12:00:00  line 89");
    let more = vec![PaneLine { time: String::new(), text: "news".to_owned(), tone: None }];
    app.handle(ScreenEvent::Logged { worker: app.selected.clone().unwrap(), fresh: false, lines: more });
    assert_eq!(drawn(&app, 80, 24)[22], "12:00:00  line 89");
    press(&mut app, KeyCode::PageDown);
    press(&mut app, KeyCode::PageDown);
    assert_eq!(drawn(&app, 80, 24)[22].trim(), "news");
    // Lines of another worker are ignored.
    let lines = vec![PaneLine { time: String::new(), text: "of another".to_owned(), tone: None }];
    app.handle(ScreenEvent::Logged { worker: WorkerId::new(2, ""), fresh: false, lines });
    assert_eq!(drawn(&app, 80, 24)[22].trim(), "news");
}

#[test]
fn panes_switch_and_diff_keeps_blanks() {
    let mut app = app(mixed());
    press(&mut app, KeyCode::Tab);
    let worker = app.selected.clone().unwrap();
    app.handle(ScreenEvent::Diffed { worker, text: Ok("@@ -1 +1 @@\n-\told\u{1b}[2J\n+    new".to_owned()) });
    let lines = drawn(&app, 80, 24);
    assert_eq!(lines[10..13], ["@@ -1 +1 @@", "-    old␛[2J", "+    new"]);
    press(&mut app, KeyCode::Enter);
    let lines = drawn(&app, 80, 24).join("\n");
    assert!(lines.contains("[Detail]") && lines.contains("worker     w-1-fix-the-parser"), "{lines}");
    press(&mut app, KeyCode::Right);
    assert_eq!(app.pane, Pane::Log);
    for key in [KeyCode::Char('q'), KeyCode::Char('y')] {
        assert!(press(&mut app, key).is_some());
    }
}

/// Runs once more, in a process of its own on a terminal of its own.
#[test]
fn panic_restores_the_terminal_and_ends() {
    const INSIDE: &str = "ORCHESTRATOR_PANICS_ON_A_TERMINAL";
    if std::env::var_os(INSIDE).is_some() {
        let (events, inbox) = channel();
        let mut screen = take_terminal(&events).unwrap();
        let drawn = screen.draw(|frame| {
            draw(&app(mixed()), frame.area(), frame.buffer_mut());
        });
        assert!(drawn.is_ok());
        assert!(std::thread::spawn(|| panic!("on purpose")).join().is_err());
        assert!(matches!(inbox.try_recv(), Ok(ScreenEvent::End(PANICKED))));
        return;
    }
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).and_then(|()| unlockpt(&master)).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let slave = || File::options().read(true).write(true).open(&name).unwrap();
    let terminal = slave();
    let before = tcgetattr(&terminal).unwrap().local_modes;
    assert!(before.contains(LocalModes::ECHO | LocalModes::ICANON));
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", std::thread::current().name().unwrap(), "--nocapture"]);
    again.env(INSIDE, "1").env("TERM", "xterm").stdin(slave()).stdout(slave()).stderr(Stdio::from(slave()));
    let mut again_runs = again.spawn().unwrap();
    drop(again);
    let mut reader = File::from(master);
    let reading = std::thread::spawn(move || {
        let (mut seen, mut bytes) = (Vec::new(), [0; 4096]);
        // The terminal's end is an error.
        while let Ok(count @ 1..) = reader.read(&mut bytes) {
            seen.extend_from_slice(&bytes[..count]);
        }
        String::from_utf8_lossy(&seen).into_owned()
    });
    assert!(again_runs.wait().unwrap().success());
    let after = tcgetattr(&terminal).unwrap().local_modes;
    drop(terminal);
    let seen = reading.join().unwrap();
    assert_eq!(before, after, "{seen:?}");
    let (drawn, said) = seen.split_once("on purpose").unwrap_or_else(|| panic!("{seen:?}"));
    for (taken, given) in [("\u{1b}[?1049h", "\u{1b}[?1049l"), ("\u{1b}[?2004h", "\u{1b}[?2004l")] {
        assert!(drawn.find(taken).unwrap() < drawn.find(given).unwrap(), "{given:?} in {seen:?}");
    }
    assert!(drawn.contains("\u{1b}[?25l") && said.contains("\u{1b}[?25h"), "the cursor is hidden: {seen:?}");
}

/// Returns `count` workers, with the named ones running or settled and all others queued.
fn crowd(running: &[u64], settled_ones: &[u64], count: usize) -> Vec<WorkerView> {
    let mut views = many(count);
    for view in &mut views {
        let number = view.worker.number().unwrap();
        let worker = std::sync::Arc::make_mut(&mut view.worker);
        if running.contains(&number) {
            worker.status = WorkerStatus::Running;
        } else if settled_ones.contains(&number) {
            worker.status = WorkerStatus::Settled(Ending::Completed);
            worker.settled = vec![settled(Ending::Completed, |_| {})];
        }
    }
    views
}

fn see(app: &mut App, views: Vec<WorkerView>) {
    app.handle(ScreenEvent::Seen(Ok(Some(Box::new(dashboard(views))))));
}

#[test]
fn selection_follows_running_workers_until_chosen() {
    let mut app = app(crowd(&[1, 2], &[], 60));
    assert_eq!(app.current().unwrap().row.short, "w-1");
    see(&mut app, crowd(&[2, 3], &[1], 60));
    assert_eq!(app.current().unwrap().row.short, "w-2");
    let lines = drawn(&app, 80, 24).join("\n");
    assert!(lines.contains("● running   w-2") && lines.contains("● running   w-3"), "{lines}");
    // If no worker runs any more, the selection stays.
    see(&mut app, crowd(&[], &[1, 2, 3], 60));
    assert_eq!(app.current().unwrap().row.short, "w-2");
}

#[test]
fn settling_of_chosen_worker_keeps_table() {
    let mut app = app(crowd(&[1, 2, 3], &[], 60));
    press(&mut app, KeyCode::Down);
    assert_eq!(app.current().unwrap().row.short, "w-2");
    see(&mut app, crowd(&[1, 3, 4], &[2], 60));
    assert_eq!(app.current().unwrap().row.short, "w-2", "its log is still read");
    let lines = drawn(&app, 80, 24).join("\n");
    for running in ["● running   w-1", "● running   w-3", "● running   w-4"] {
        assert!(lines.contains(running), "{running} in\n{lines}");
    }
    // The next key continues from the worker's new place.
    press(&mut app, KeyCode::Up);
    assert_eq!(app.current().unwrap().row.short, "w-60");
    assert!(drawn(&app, 80, 24).join("\n").contains("› ○ queued    w-60"));
}

#[test]
fn rows_above_and_below_are_counted() {
    let mut app = app(crowd(&[1, 40], &[], 60));
    let lines = drawn(&app, 80, 24);
    assert!(lines.iter().any(|line| line.trim_start().starts_with("↓ 52 more, 1 running")), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains('↑') && line.contains("more")), "{lines:#?}");
    press(&mut app, KeyCode::End);
    let lines = drawn(&app, 80, 24);
    assert!(lines.iter().any(|line| line.trim_start().starts_with("↑ 51 more, 2 running")), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.trim_start().starts_with("↓ ")), "{lines:#?}");
}

#[test]
fn only_newly_finished_workers_are_announced() {
    let see =
        |app: &mut App, views: Vec<WorkerView>| app.handle(ScreenEvent::Seen(Ok(Some(Box::new(dashboard(views))))));
    let finished = || {
        let mut views = mixed();
        let worker = std::sync::Arc::make_mut(&mut views[0].worker);
        worker.status = WorkerStatus::Settled(Ending::Completed);
        views
    };
    let id = mixed()[0].worker.id.clone();
    let mut app = App { notifies: true, ..App::default() };
    assert_eq!(see(&mut app, mixed()), None, "the first data");
    let Some(Action::Announce(text)) = see(&mut app, finished()) else { panic!("nothing is announced") };
    assert!(text.starts_with(&format!("{id} completed: ")) && !text.contains(", w-"), "{text}");
    assert_eq!(see(&mut app, finished()), None);
    let mut silent = App { notifies: false, ..App::default() };
    see(&mut silent, mixed());
    assert_eq!(see(&mut silent, finished()), None);
}
