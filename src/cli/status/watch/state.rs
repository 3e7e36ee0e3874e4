//! The state of the live screen, and its changes by keys and events. Pure: actions are returned, not run.

use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::super::dashboard::{Dashboard, DashboardWorker};
use super::log::PaneLine;
use crate::cli::error::CliError;
use crate::cli::hint;
use crate::cli::terminal::Tone;
use crate::mission::delivery;
use crate::mission::id::WorkerId;
use crate::orchestrator::OrchestratorError;

/// Maximum number of log lines that are kept.
const MAX_LOG: usize = 2_000;

pub(in crate::cli::status) enum ScreenEvent {
    Key(KeyEvent),
    Pasted(String),
    /// The terminal's size changed.
    Resized,
    /// New data; `None` if no worker was ever created here.
    Seen(Result<Option<Box<Dashboard>>, OrchestratorError>),
    /// New log lines; `fresh`: of another attempt than before.
    Logged {
        worker: WorkerId,
        fresh: bool,
        lines: Vec<PaneLine>,
    },
    Diffed {
        worker: WorkerId,
        text: Result<String, CliError>,
    },
    Done {
        what: String,
        answer: Result<String, CliError>,
    },
    /// The screen must end with this exit status.
    End(u8),
}

#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli::status) enum Action {
    Quit,
    Cancel(WorkerId),
    Send(WorkerId, String),
    Copy(PathBuf),
    /// Notify the user with this text.
    Announce(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::cli::status) enum Pane {
    #[default]
    Log,
    Diff,
    Detail,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::cli::status) enum Mode {
    #[default]
    Browse,
    Help,
    Cancel(WorkerId),
    Message(WorkerId, String),
}

#[derive(Default)]
pub(in crate::cli::status) struct App {
    pub dashboard: Option<Dashboard>,
    /// The reason why nothing, or nothing new, is shown.
    pub error: Option<String>,
    pub is_loaded: bool,
    pub selected: Option<WorkerId>,
    /// True if the user chose the selected worker. Otherwise a running one is selected, and another one when it ends.
    pub is_chosen: bool,
    /// The place of the selected worker in the table when it was selected. The table is shown around that place, even
    /// if the worker moves to another one.
    pub anchor: usize,
    /// Number of changes of the selection. Each one discards what was shown and requests it anew, even for the same
    /// worker.
    pub choice: u64,
    pub pane: Pane,
    /// True if the pane fills the screen.
    pub zoomed: bool,
    /// Number of lines scrolled away from the end of a log, or from the beginning of the other panes.
    pub scroll: usize,
    pub log: VecDeque<PaneLine>,
    pub diff: Option<Result<Vec<String>, CliError>>,
    pub mode: Mode,
    /// The result of the user's last action.
    pub message: Option<(Tone, String)>,
    /// The actions in progress.
    pub doing: Vec<String>,
    pub home: Option<PathBuf>,
    pub colours: bool,
    /// True if the terminal notifies the user of finished workers.
    pub notifies: bool,
}

impl App {
    pub fn handle(&mut self, event: ScreenEvent) -> Option<Action> {
        match event {
            ScreenEvent::Key(key) => return self.press(key),
            ScreenEvent::Pasted(text) => self.paste(&text),
            ScreenEvent::Resized | ScreenEvent::End(_) => {}
            ScreenEvent::Seen(seen) => return self.see(seen),
            ScreenEvent::Logged { worker, fresh, lines } if Some(&worker) == self.selected.as_ref() => {
                self.take_log(fresh, lines)
            }
            ScreenEvent::Diffed { worker, text } if Some(&worker) == self.selected.as_ref() => {
                self.diff = Some(text.map(|text| text.lines().map(crate::cli::text::clean_code).collect()));
            }
            ScreenEvent::Logged { .. } | ScreenEvent::Diffed { .. } => {}
            ScreenEvent::Done { what, answer } => {
                if let Some(at) = self.doing.iter().position(|it| *it == what) {
                    self.doing.remove(at);
                }
                self.message = Some(match answer {
                    Ok(text) => (Tone::Good, crate::cli::text::clean(&text)),
                    Err(error) => (Tone::Bad, crate::cli::text::clean(&error.to_string())),
                });
            }
        }
        None
    }

    /// Shows new data. Returns a notification if workers have finished since the last data.
    fn see(&mut self, seen: Result<Option<Box<Dashboard>>, OrchestratorError>) -> Option<Action> {
        self.is_loaded = true;
        let open = self.open();
        match seen {
            Ok(dashboard) => {
                let before = self.position();
                self.dashboard = dashboard.map(|dashboard| *dashboard);
                self.error = None;
                if !self.is_chosen {
                    self.select_running();
                } else if self.position().is_none() {
                    // The selected worker is gone: select the one that has its place now.
                    let count = self.workers().count();
                    let at = before.unwrap_or(0).min(count.saturating_sub(1));
                    let id = self.workers().nth(at).map(|it| it.view.worker.id.clone());
                    self.select(id);
                    self.anchor = at;
                }
                self.anchor = self.anchor.min(self.workers().count().saturating_sub(1));
                self.announcement(&open)
            }
            Err(error) => {
                self.error = Some(crate::cli::text::clean(&hint::of(&error)));
                None
            }
        }
    }

    /// Returns the workers that have not finished yet.
    fn open(&self) -> HashSet<WorkerId> {
        let open = self.workers().filter(|it| !delivery::is_final(&it.view.worker));
        open.map(|it| it.view.worker.id.clone()).collect()
    }

    /// Names the workers that were open before and have finished now.
    fn announcement(&self, open: &HashSet<WorkerId>) -> Option<Action> {
        let workers = self.workers().map(|it| &it.view.worker);
        let ended = workers.filter(|worker| open.contains(&worker.id) && delivery::is_final(worker));
        let names: Vec<String> =
            ended.map(|worker| format!("{} {}: {}", worker.id, worker.status, worker.mission.title)).collect();
        (self.notifies && !names.is_empty()).then(|| Action::Announce(names.join(", ")))
    }

    fn take_log(&mut self, fresh: bool, lines: Vec<PaneLine>) {
        if fresh {
            self.log.clear();
        }
        // Scrolled lines keep their place.
        if self.scroll > 0 && self.pane == Pane::Log && !fresh {
            self.scroll += lines.len();
        }
        self.log.extend(lines);
        self.log.drain(..self.log.len().saturating_sub(MAX_LOG));
    }

    pub fn workers(&self) -> impl Iterator<Item = &DashboardWorker> {
        self.dashboard.iter().flat_map(Dashboard::workers)
    }

    fn position(&self) -> Option<usize> {
        let selected = self.selected.as_ref()?;
        self.workers().position(|it| it.view.worker.id == *selected)
    }

    pub fn current(&self) -> Option<&DashboardWorker> {
        let selected = self.selected.as_ref()?;
        self.workers().find(|it| it.view.worker.id == *selected)
    }

    fn select(&mut self, id: Option<WorkerId>) {
        if self.selected != id {
            self.selected = id;
            self.choice += 1;
            self.scroll = 0;
            self.log.clear();
            self.diff = None;
        }
    }

    /// Selects a running worker, unless the selected one still runs or none does.
    fn select_running(&mut self) {
        let is_live = |it: &&DashboardWorker| it.view.worker.status.is_live();
        let stays = self.current().is_some_and(|it| is_live(&it)) || !self.workers().any(|it| is_live(&it));
        if !stays || self.position().is_none() {
            let next = self.workers().find(is_live).or_else(|| self.workers().next());
            self.select(next.map(|it| it.view.worker.id.clone()));
        }
        self.anchor = self.position().unwrap_or(0);
    }

    fn step(&mut self, by: isize) {
        let count = self.workers().count();
        let at = self.position().unwrap_or(0).saturating_add_signed(by).min(count.saturating_sub(1));
        let id = self.workers().nth(at).map(|it| it.view.worker.id.clone());
        self.is_chosen = id.is_some();
        self.anchor = at;
        self.select(id);
    }

    fn press(&mut self, key: KeyEvent) -> Option<Action> {
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Some(Action::Quit);
        }
        match std::mem::take(&mut self.mode) {
            Mode::Browse => self.browse(key),
            Mode::Help => None,
            Mode::Cancel(worker) => self.confirm(worker, key),
            Mode::Message(worker, line) => self.edit(worker, line, key),
        }
    }

    /// Adds pasted text to the open message. It is never taken as keys.
    fn paste(&mut self, text: &str) {
        if let Mode::Message(_, line) = &mut self.mode {
            line.extend(text.chars().map(|character| if character.is_control() { ' ' } else { character }));
        }
    }

    fn browse(&mut self, key: KeyEvent) -> Option<Action> {
        self.message = None;
        let open = self.current().filter(|it| !it.view.worker.status.is_settled());
        match key.code {
            KeyCode::Char('q') => return Some(Action::Quit),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::Home | KeyCode::Char('g') => self.step(isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.step(isize::MAX),
            KeyCode::PageUp => self.turn(10),
            KeyCode::PageDown => self.turn(-10),
            KeyCode::Tab | KeyCode::Enter | KeyCode::Right => self.show(self.pane.next()),
            KeyCode::BackTab | KeyCode::Left => self.show(self.pane.next().next()),
            KeyCode::Char('z') => self.zoomed = !self.zoomed,
            KeyCode::Esc => self.zoomed = false,
            KeyCode::Char('?' | 'h') => self.mode = Mode::Help,
            KeyCode::Char('c') => match open {
                Some(it) => self.mode = Mode::Cancel(it.view.worker.id.clone()),
                None => self.show_message(Tone::Waiting, "nothing to cancel: no open worker is selected"),
            },
            KeyCode::Char('m') => match &self.selected {
                Some(worker) => self.mode = Mode::Message(worker.clone(), String::new()),
                None => self.show_message(Tone::Waiting, "no worker is selected"),
            },
            KeyCode::Char('y') => return self.copy(),
            _ => {}
        }
        None
    }

    /// Copies the path of the worker's directory.
    fn copy(&mut self) -> Option<Action> {
        let path = self.current()?.view.worker.mission.place.path().to_owned();
        self.show_message(Tone::Good, &crate::cli::text::clean(&path.to_string_lossy()));
        Some(Action::Copy(path))
    }

    fn confirm(&mut self, worker: WorkerId, key: KeyEvent) -> Option<Action> {
        if !matches!(key.code, KeyCode::Char('y' | 'Y')) {
            self.show_message(Tone::Quiet, "not cancelled");
            return None;
        }
        self.doing.push(cancel_label(&worker));
        Some(Action::Cancel(worker))
    }

    fn edit(&mut self, worker: WorkerId, mut line: String, key: KeyEvent) -> Option<Action> {
        match key.code {
            KeyCode::Esc => return None,
            KeyCode::Enter if line.trim().is_empty() => return None,
            KeyCode::Enter => {
                self.doing.push(send_label(&worker));
                return Some(Action::Send(worker, line));
            }
            KeyCode::Backspace => drop(line.pop()),
            KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => line.clear(),
            KeyCode::Char(character) if !key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) => {
                line.push(character)
            }
            _ => {}
        }
        self.mode = Mode::Message(worker, line);
        None
    }

    fn show_message(&mut self, tone: Tone, text: &str) {
        self.message = Some((tone, text.to_owned()));
    }

    /// Shows a pane. Opening a pane counts as a choice of the worker.
    fn show(&mut self, pane: Pane) {
        self.is_chosen = self.selected.is_some();
        self.pane = pane;
        self.scroll = 0;
    }

    /// Scrolls. Up is away from the end of a log, and towards the beginning of the other panes.
    fn turn(&mut self, up: isize) {
        self.is_chosen = self.selected.is_some();
        let by = if self.pane == Pane::Log { up } else { -up };
        self.scroll = self.scroll.saturating_add_signed(by);
    }
}

impl Pane {
    pub const ALL: [Pane; 3] = [Pane::Log, Pane::Diff, Pane::Detail];

    pub fn name(self) -> &'static str {
        match self {
            Pane::Log => "Log",
            Pane::Diff => "Diff",
            Pane::Detail => "Detail",
        }
    }

    fn next(self) -> Self {
        match self {
            Pane::Log => Pane::Diff,
            Pane::Diff => Pane::Detail,
            Pane::Detail => Pane::Log,
        }
    }
}

pub(super) fn cancel_label(worker: &WorkerId) -> String {
    format!("cancelling {worker}")
}

pub(super) fn send_label(worker: &WorkerId) -> String {
    format!("sending a message to {worker}")
}
