//! `status --watch`: a live screen. [`state`] applies keys and events, and [`draw`] renders the result; both are pure.
//! [`watcher`] watches the files on its own thread, and [`keys`] reads the keys on another. [`actions`] runs the user's
//! actions, and [`programs`] those that need the terminal. Only these two change anything. This module connects them
//! with the terminal and with signals.

mod actions;
mod answer;
mod applies;
mod draw;
mod edit;
mod footer;
mod keys;
mod log;
mod programs;
mod search;
mod state;
#[cfg(test)]
mod tests;
mod timeline;
mod watcher;

use std::io::{self, IsTerminal, stdin, stdout};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crossterm::clipboard::CopyToClipboard;
use crossterm::event::{DisableBracketedPaste, EnableBracketedPaste};
use crossterm::execute;
use crossterm::style::Print;
use crossterm::terminal::{EnterAlternateScreen, enable_raw_mode};
use ratatui::DefaultTerminal;
use ratatui::layout::Rect;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use self::actions::ActionRunner;
use self::keys::KeyReader;
use self::programs::{ForegroundProgram, Program};
use self::state::{Action, App, ScreenEvent};
use self::watcher::{Focus, StateWatcher, WatcherMessage};
use crate::cli::error::{self, CliError};
use crate::cli::places::Places;
use crate::cli::terminal;
use crate::cli::workspace::Workspace;

/// Time limit for a program that has the terminal to end when the screen must end.
const FOREGROUND_END: Duration = Duration::from_secs(5);
/// The exit status of a Rust program that panics.
const PANICKED: u8 = 101;

pub(super) fn run(places: &Places) -> Result<ExitCode, CliError> {
    if !stdout().is_terminal() || !stdin().is_terminal() {
        let hint = "`orchestrator-boss status` prints one screen, and `status --json` prints all data for programs";
        return Err(CliError::Usage(format!("--watch needs a terminal: {hint}")));
    }
    let workspace = Workspace::find(places)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|error| CliError::Failed(format!("cannot start the runtime: {error}")))?;
    let (events, screen_events) = channel();
    let (messages, inbox) = channel();
    forward_signals(&runtime, &events)
        .map_err(|error| CliError::Failed(format!("cannot listen for signals: {error}")))?;

    let mut screen =
        take_terminal(&events).map_err(|error| CliError::Failed(format!("cannot draw on the terminal: {error}")))?;
    let keys = KeyReader::start(events.clone());
    start_watcher(&workspace, &events, &messages, inbox);
    let mut watch = Watch {
        app: App {
            home: super::home(),
            colours: terminal::wants_colours(),
            notifies: workspace.settings.notify_terminal,
            ..App::default()
        },
        actions: ActionRunner::new(runtime, places.clone(), events.clone()),
        messages,
        events,
        focus: Focus::default(),
        keys,
        foreground: None,
        late_announcements: Vec::new(),
    };
    let ended = watch.live(&mut screen, &screen_events);
    match watch.foreground.take() {
        Some(foreground) => wait_for_return(&foreground, &screen_events),
        None => restore_terminal(),
    }
    let at_once = !matches!(ended, Ok(0));
    let interrupted = watch.actions.finish(at_once, &screen_events);
    match ended {
        Ok(0) => Ok(ExitCode::from(interrupted.unwrap_or(0))),
        Ok(code) => Ok(ExitCode::from(code)),
        Err(error) => Err(CliError::Failed(format!("cannot draw on the terminal: {error}"))),
    }
}

/// Takes over the terminal. A panic on any thread restores it and ends the screen, so that its message stays visible.
fn take_terminal(events: &Sender<ScreenEvent>) -> io::Result<DefaultTerminal> {
    let screen = ratatui::try_init()?;
    // Pasted text must not be taken for keys: it may hold a `c` and a `y`. A terminal without this mode behaves as
    // before.
    let _ = execute!(stdout(), EnableBracketedPaste);
    let (events, restore) = (events.clone(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        let _ = execute!(stdout(), DisableBracketedPaste);
        restore(panic);
        let _ = events.send(ScreenEvent::End(PANICKED));
    }));
    Ok(screen)
}

/// Restores the terminal. Errors are ignored, since the terminal may be gone.
fn restore_terminal() {
    let _ = execute!(stdout(), DisableBracketedPaste);
    let _ = ratatui::try_restore();
}

/// Ends a program that has the terminal, and waits until it has returned the terminal.
fn wait_for_return(foreground: &ForegroundProgram, inbox: &Receiver<ScreenEvent>) {
    foreground.end();
    while let Ok(event) = inbox.recv_timeout(FOREGROUND_END) {
        if matches!(event, ScreenEvent::Returned(_)) {
            break;
        }
    }
}

struct Watch {
    app: App,
    actions: ActionRunner,
    messages: Sender<WatcherMessage>,
    events: Sender<ScreenEvent>,
    focus: Focus,
    keys: KeyReader,
    /// The program that has the terminal. Nothing is drawn meanwhile.
    foreground: Option<ForegroundProgram>,
    /// Notifications that are delayed while another program has the terminal.
    late_announcements: Vec<String>,
}

impl Watch {
    /// Draws the screen after each event until the user quits. Returns the exit status.
    fn live(&mut self, screen: &mut DefaultTerminal, inbox: &Receiver<ScreenEvent>) -> io::Result<u8> {
        loop {
            if self.foreground.is_none() {
                let mut most = 0;
                screen.draw(|frame| most = draw::draw(&self.app, frame.area(), frame.buffer_mut()))?;
                self.app.scroll = self.app.scroll.min(most);
            }
            // All senders are gone only when the threads behind them have failed.
            let Ok(first) = inbox.recv() else { return Ok(error::FAILED) };
            for event in std::iter::once(first).chain(inbox.try_iter()) {
                match event {
                    ScreenEvent::End(code) if !self.passes_on(code) => return Ok(code),
                    ScreenEvent::Ready(program) => self.start(*program, screen)?,
                    event => {
                        let has_returned = matches!(event, ScreenEvent::Returned(_));
                        let action = self.app.handle(event);
                        if has_returned {
                            self.resume_screen(screen)?;
                        }
                        match action {
                            Some(Action::Quit) => return Ok(0),
                            action => action.map_or(Ok(()), |action| self.act(action))?,
                        }
                    }
                }
            }
            let focus = Focus { worker: self.app.selected.clone(), choice: self.app.choice, pane: self.app.pane };
            if focus != self.focus {
                self.focus = focus.clone();
                // The watcher's thread ends only with this one, or after a panic, which sends an event.
                let _ = self.messages.send(WatcherMessage::Focus(focus));
            }
        }
    }

    /// Passes a SIGINT on to the program that has the terminal. Ctrl-C sends the signal to this process until that
    /// program is in the foreground.
    fn passes_on(&self, code: u8) -> bool {
        let program = self.foreground.as_ref().filter(|_| code == error::INTERRUPTED);
        program.inspect(|program| program.interrupt()).is_some()
    }

    fn act(&mut self, action: Action) -> io::Result<()> {
        match action {
            Action::Quit => {}
            Action::Cancel(worker) => self.actions.cancel(worker),
            Action::Send(worker, text) => self.actions.send(worker, text),
            Action::Answer(answer) => self.actions.answer(answer),
            Action::Retry(worker, feedback) => self.actions.retry(worker, feedback),
            Action::Merge(worker) => self.actions.merge(worker),
            Action::Open(worker) => self.actions.open(worker),
            Action::Attach(worker) => self.actions.attach(worker),
            Action::Copy(path) => {
                execute!(stdout(), CopyToClipboard::to_clipboard_from(path.to_string_lossy().as_bytes()))?
            }
            Action::Announce(text) if self.foreground.is_some() => self.late_announcements.push(text),
            Action::Announce(text) => execute!(stdout(), Print(terminal::announcement(&text)))?,
        }
        Ok(())
    }

    /// Starts a program that the user asked for. If it may use the terminal, the screen is left first.
    fn start(&mut self, program: Program, screen: &mut DefaultTerminal) -> io::Result<()> {
        let events = self.events.clone();
        // An error is ignored: the receiver is this thread, which ends only with the process.
        let send = move |event| drop(events.send(event));
        if !program.needs_terminal() {
            let later = send.clone();
            let failed = move |error| later(ScreenEvent::Done { what: None, answer: Err(error) });
            send(ScreenEvent::Returned(program.start_beside(failed)));
            return Ok(());
        }
        self.keys.pause();
        screen.show_cursor()?;
        restore_terminal();
        self.foreground = Some(program.take_terminal(move |result| send(ScreenEvent::Returned(result))));
        Ok(())
    }

    /// Takes the terminal again after another program, if one had it.
    fn resume_screen(&mut self, screen: &mut DefaultTerminal) -> io::Result<()> {
        if self.foreground.take().is_none() {
            return Ok(());
        }
        enable_raw_mode()?;
        execute!(stdout(), EnterAlternateScreen, EnableBracketedPaste)?;
        // Forces a full redraw. `clear` would read the position of the cursor from the terminal.
        let size = screen.size()?;
        screen.resize(Rect::new(0, 0, size.width, size.height))?;
        self.keys.resume();
        for text in std::mem::take(&mut self.late_announcements) {
            execute!(stdout(), Print(terminal::announcement(&text)))?;
        }
        Ok(())
    }
}

/// Forwards termination signals as events, so that the terminal is restored.
fn forward_signals(runtime: &Runtime, events: &Sender<ScreenEvent>) -> io::Result<()> {
    let _inside = runtime.enter();
    for (kind, code) in [(SignalKind::terminate(), 143), (SignalKind::hangup(), 129), (SignalKind::interrupt(), 130)] {
        let (mut signal, events) = (signal(kind)?, events.clone());
        runtime.spawn(async move {
            while signal.recv().await.is_some() {
                let _ = events.send(ScreenEvent::End(code));
            }
        });
    }
    Ok(())
}

fn start_watcher(
    workspace: &Workspace,
    events: &Sender<ScreenEvent>,
    messages: &Sender<WatcherMessage>,
    inbox: Receiver<WatcherMessage>,
) {
    let watcher = StateWatcher::new(workspace, events.clone(), messages.clone());
    std::thread::spawn(move || watcher.run(&inbox));
}
