//! The state of the live screen, and its changes by keys and events. Pure: actions are returned, not run.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::path::PathBuf;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::super::dashboard::{Dashboard, DashboardWorker};
use super::answer::{Answer, AnswerDraft, AnswerStep};
use super::applies::WorkerKey;
use super::edit::edit;
use super::log::PaneLine;
use super::programs::Program;
use super::search::{self, Search};
use crate::cli::error::CliError;
use crate::cli::hint;
use crate::cli::terminal::Tone;
use crate::mission::delivery;
use crate::mission::id::WorkerId;
use crate::mission::lifecycle::WorkerStatus;
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
    /// The current step of an action.
    Step {
        what: Label,
        step: String,
    },
    /// The result of an action, or, without a label, the failure of a program beside the screen.
    Done {
        what: Option<Label>,
        answer: Result<String, CliError>,
    },
    /// A program that the user asked for can start. It ends with `Returned`.
    Ready(Box<Program>),
    /// A program that the user asked for was started beside the screen, has returned the terminal, or could not start.
    Returned(Result<String, CliError>),
    /// The screen must end with this exit status.
    End(u8),
}

#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli::status) enum Action {
    Quit,
    Cancel(WorkerId),
    Send(WorkerId, String),
    Answer(Answer),
    /// Retry it, with this feedback.
    Retry(WorkerId, Option<String>),
    Merge(WorkerId),
    Open(WorkerId),
    Attach(WorkerId),
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
    Merge(WorkerId),
    Message(WorkerId, String),
    Answer(AnswerDraft),
    /// The confirmation of a retry, with the feedback typed so far.
    Retry(WorkerId, String),
    Search(Search),
    /// Another program is about to start or has the terminal. Keys are meant for it.
    Suspended(Label),
}

/// The name of an action in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli::status) enum Label {
    Cancel(WorkerId),
    Message(WorkerId),
    Answer(WorkerId),
    Retry(WorkerId),
    Merge(WorkerId),
    Open(WorkerId),
    Attach(WorkerId),
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Label::Cancel(worker) => write!(f, "cancelling {worker}"),
            Label::Message(worker) => write!(f, "sending a message to {worker}"),
            Label::Answer(worker) => write!(f, "answering {worker}"),
            Label::Retry(worker) => write!(f, "retrying {worker}"),
            Label::Merge(worker) => write!(f, "merging {worker}"),
            Label::Open(worker) => write!(f, "opening {worker}"),
            Label::Attach(worker) => write!(f, "attaching to {worker}"),
        }
    }
}

/// An action in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli::status) struct Doing {
    pub what: Label,
    /// Its current step, if that is known.
    pub step: String,
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
    pub doing: Vec<Doing>,
    /// The text of the search whose matches `n` and `N` select.
    pub search: Option<String>,
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
            ScreenEvent::Resized | ScreenEvent::End(_) | ScreenEvent::Ready(_) => {}
            ScreenEvent::Seen(seen) => return self.see(seen),
            ScreenEvent::Logged { worker, fresh, lines } if Some(&worker) == self.selected.as_ref() => {
                self.take_log(fresh, lines)
            }
            ScreenEvent::Diffed { worker, text } if Some(&worker) == self.selected.as_ref() => {
                self.diff = Some(text.map(|text| text.lines().map(crate::cli::text::clean_code).collect()));
            }
            ScreenEvent::Logged { .. } | ScreenEvent::Diffed { .. } => {}
            ScreenEvent::Step { what, step } => {
                if let Some(doing) = self.doing.iter_mut().find(|it| it.what == what) {
                    doing.step = crate::cli::text::clean(&step);
                }
            }
            ScreenEvent::Done { what, answer } => {
                if let Some(at) = self.doing.iter().position(|it| Some(&it.what) == what.as_ref()) {
                    self.doing.remove(at);
                }
                self.show_result(answer);
            }
            ScreenEvent::Returned(answer) => {
                self.mode = Mode::Browse;
                self.show_result(answer);
            }
        }
        None
    }

    fn show_result(&mut self, answer: Result<String, CliError>) {
        let (tone, text) = match answer {
            Ok(text) => (Tone::Good, text),
            Err(error) => (Tone::Bad, error.to_string()),
        };
        // Each line is one fact. All are joined into one text, which is wrapped to the screen.
        let text = text.lines().map(crate::cli::text::clean).collect::<Vec<_>>().join(" · ");
        self.message = (!text.is_empty()).then_some((tone, text));
    }

    /// Shows new data. Returns a notification if workers have finished since the last data.
    fn see(&mut self, seen: Result<Option<Box<Dashboard>>, OrchestratorError>) -> Option<Action> {
        self.is_loaded = true;
        let (open, asking) = (self.open(), self.asking());
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
                self.announcement(&open, &asking)
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

    /// Returns the workers that wait for the answer to a question.
    fn asking(&self) -> HashSet<WorkerId> {
        let asking = self.workers().filter(|it| it.view.worker.status == WorkerStatus::NeedsAnswer);
        asking.map(|it| it.view.worker.id.clone()).collect()
    }

    /// Names the workers that were open before and have finished now, and those that began to ask.
    fn announcement(&self, open: &HashSet<WorkerId>, asking: &HashSet<WorkerId>) -> Option<Action> {
        let name = |shown: &DashboardWorker| {
            let worker = &shown.view.worker;
            let has_ended = open.contains(&worker.id) && delivery::is_final(worker);
            let asks = worker.status == WorkerStatus::NeedsAnswer && !asking.contains(&worker.id);
            // A worker that already asks when the screen begins is shown, and not announced.
            let is_new = has_ended || (asks && open.contains(&worker.id));
            is_new.then(|| format!("{} {}: {}", worker.id, worker.status, worker.mission.title))
        };
        let names: Vec<String> = self.workers().filter_map(name).collect();
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
        self.choose(self.position().unwrap_or(0).saturating_add_signed(by).min(count.saturating_sub(1)));
    }

    /// Selects the worker at this place, as the user's choice.
    fn choose(&mut self, at: usize) {
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
            Mode::Cancel(worker) => self.confirm(key, Label::Cancel(worker.clone()), Action::Cancel(worker)),
            Mode::Merge(worker) => self.confirm(key, Label::Merge(worker.clone()), Action::Merge(worker)),
            Mode::Message(worker, line) => self.write(worker, line, key),
            Mode::Answer(draft) => self.answer(draft, key),
            Mode::Retry(worker, line) => self.retry(worker, line, key),
            Mode::Search(search) => {
                self.edit_search(search, key);
                None
            }
            suspended @ Mode::Suspended(_) => {
                self.mode = suspended;
                None
            }
        }
    }

    /// Adds pasted text to the line that is being typed. It is never taken as keys.
    fn paste(&mut self, text: &str) {
        let line = match &mut self.mode {
            Mode::Message(_, line) | Mode::Retry(_, line) => Some(line),
            Mode::Answer(draft) => draft.line(),
            Mode::Search(search) => Some(&mut search.text),
            Mode::Browse | Mode::Help | Mode::Cancel(_) | Mode::Merge(_) | Mode::Suspended(_) => None,
        };
        if let Some(line) = line {
            line.extend(text.chars().map(|character| if character.is_control() { ' ' } else { character }));
        }
        if let Mode::Search(search) = &self.mode {
            self.select_first(&search.clone());
        }
    }

    fn browse(&mut self, key: KeyEvent) -> Option<Action> {
        self.message = None;
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
            KeyCode::Esc if self.search.is_some() => self.search = None,
            KeyCode::Esc => self.zoomed = false,
            KeyCode::Char('?' | 'h') => self.mode = Mode::Help,
            KeyCode::Char('/') => {
                let before = (self.selected.clone(), self.is_chosen);
                self.mode = Mode::Search(Search { text: String::new(), before });
            }
            KeyCode::Char('n') => self.select_match(true),
            KeyCode::Char('N') => self.select_match(false),
            KeyCode::Char('y') => return self.copy(),
            // A key with Alt may be the rest of an escape sequence that arrived in parts.
            KeyCode::Char(character) if !key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) => {
                return WorkerKey::of(character, self.current()).and_then(|it| self.begin(it));
            }
            _ => {}
        }
        None
    }

    /// Begins an action on the selected worker, or shows the reason why it does not apply.
    fn begin(&mut self, key: WorkerKey) -> Option<Action> {
        let Some(shown) = self.current() else {
            self.show_message(Tone::Waiting, "no worker is selected");
            return None;
        };
        let worker = shown.view.worker.id.clone();
        if let Some(why) = key.obstacle(shown) {
            self.show_message(Tone::Waiting, &why);
            return None;
        }
        match key {
            WorkerKey::Message => self.mode = Mode::Message(worker, String::new()),
            WorkerKey::Answer | WorkerKey::Deny => {
                let draft = AnswerDraft::begin(shown, key == WorkerKey::Deny);
                self.mode = draft.map(Mode::Answer).unwrap_or_default();
            }
            WorkerKey::Retry => self.mode = Mode::Retry(worker, String::new()),
            WorkerKey::Cancel => self.mode = Mode::Cancel(worker),
            WorkerKey::Merge => self.mode = Mode::Merge(worker),
            WorkerKey::Open => {
                self.mode = Mode::Suspended(Label::Open(worker.clone()));
                return Some(Action::Open(worker));
            }
            WorkerKey::Attach => {
                self.mode = Mode::Suspended(Label::Attach(worker.clone()));
                return Some(Action::Attach(worker));
            }
        }
        None
    }

    /// Returns the places of the workers that match a text.
    pub fn found(&self, text: &str) -> Vec<usize> {
        let all = self.workers().enumerate();
        all.filter(|(_, shown)| search::matches(shown, text)).map(|(at, _)| at).collect()
    }

    /// Returns the place of the selected worker among those that match a text, from 1, and their number.
    pub fn place_among_found(&self, text: &str) -> (Option<usize>, usize) {
        let (found, selected) = (self.found(text), self.position());
        (found.iter().position(|at| Some(*at) == selected).map(|at| at + 1), found.len())
    }

    /// Applies a key to a search: edits its text and selects the first match, moves between matches, or ends it.
    fn edit_search(&mut self, mut search: Search, key: KeyEvent) {
        match key.code {
            KeyCode::Esc => {
                (self.search, self.is_chosen) = (None, search.before.1);
                return self.select_again(search.before.0);
            }
            KeyCode::Enter => {
                self.search = Some(search.text).filter(|text| !text.trim().is_empty());
                return;
            }
            KeyCode::Down => self.select_next(&search.text, true),
            KeyCode::Up => self.select_next(&search.text, false),
            _ if edit(&mut search.text, key) => self.select_first(&search),
            _ => {}
        }
        self.mode = Mode::Search(search);
    }

    /// Selects the first match, beginning at the worker that was selected before the search.
    fn select_first(&mut self, search: &Search) {
        self.select_again(search.before.0.clone());
        let at = self.position().unwrap_or(0);
        if let Some(first) = search::next(&self.found(&search.text), at, true, true) {
            self.choose(first);
        }
    }

    /// Selects a worker again, if it is still there.
    fn select_again(&mut self, worker: Option<WorkerId>) {
        let at = self.workers().position(|it| Some(&it.view.worker.id) == worker.as_ref());
        if let Some(at) = at {
            self.anchor = at;
            self.select(worker);
        }
    }

    fn select_match(&mut self, forward: bool) {
        match self.search.clone() {
            Some(text) => self.select_next(&text, forward),
            None => self.show_message(Tone::Waiting, "nothing to search for: / begins a search"),
        }
    }

    /// Selects the next or the previous worker that matches.
    fn select_next(&mut self, text: &str, forward: bool) {
        let at = self.position().unwrap_or(0);
        if let Some(next) = search::next(&self.found(text), at, forward, false) {
            self.choose(next);
        }
    }

    /// Copies the path of the worker's directory.
    fn copy(&mut self) -> Option<Action> {
        let path = self.current()?.view.worker.mission.place.path().to_owned();
        self.show_message(Tone::Good, &crate::cli::text::clean(&path.to_string_lossy()));
        Some(Action::Copy(path))
    }

    /// Starts an action if the key confirms it.
    fn confirm(&mut self, key: KeyEvent, label: Label, action: Action) -> Option<Action> {
        if matches!(key.code, KeyCode::Char('y' | 'Y')) {
            return self.start(label, action);
        }
        let what = if matches!(label, Label::Merge(_)) { "not merged" } else { "not cancelled" };
        self.show_message(Tone::Quiet, what);
        None
    }

    /// Starts an action, unless it is in progress.
    fn start(&mut self, what: Label, action: Action) -> Option<Action> {
        // Several messages or answers to one worker are separate actions.
        if !matches!(what, Label::Message(_) | Label::Answer(_)) && self.doing.iter().any(|it| it.what == what) {
            self.show_message(Tone::Waiting, &format!("already {what}"));
            return None;
        }
        self.doing.push(Doing { what, step: String::new() });
        Some(action)
    }

    fn write(&mut self, worker: WorkerId, mut line: String, key: KeyEvent) -> Option<Action> {
        match key.code {
            KeyCode::Esc => return None,
            KeyCode::Enter if line.trim().is_empty() => return None,
            KeyCode::Enter => return self.start(Label::Message(worker.clone()), Action::Send(worker, line)),
            _ => edit(&mut line, key),
        };
        self.mode = Mode::Message(worker, line);
        None
    }

    fn answer(&mut self, draft: AnswerDraft, key: KeyEvent) -> Option<Action> {
        match draft.press(key) {
            AnswerStep::Open(draft) => self.mode = Mode::Answer(draft),
            AnswerStep::Discard => self.show_message(Tone::Quiet, "not answered"),
            AnswerStep::Send(answer) => {
                return self.start(Label::Answer(answer.worker.clone()), Action::Answer(answer));
            }
        }
        None
    }

    fn retry(&mut self, worker: WorkerId, mut line: String, key: KeyEvent) -> Option<Action> {
        match key.code {
            KeyCode::Esc => {
                self.show_message(Tone::Quiet, "not retried");
                return None;
            }
            KeyCode::Enter => {
                let feedback = Some(line).filter(|line| !line.trim().is_empty());
                return self.start(Label::Retry(worker.clone()), Action::Retry(worker, feedback));
            }
            _ => edit(&mut line, key),
        };
        self.mode = Mode::Retry(worker, line);
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
