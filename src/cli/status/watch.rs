//! `status --watch`: a live screen. [`state`] applies keys and events, and [`draw`] renders the result; both are pure.
//! [`watcher`] watches the files on its own thread. This module connects them with the terminal, its keys, signals
//! and the user's actions. Only those actions change anything.

mod draw;
mod log;
mod state;
#[cfg(test)]
mod tests;
mod timeline;
mod watcher;

use std::io::{self, IsTerminal, Write, stdin, stdout};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crossterm::clipboard::CopyToClipboard;
use crossterm::event::{DisableBracketedPaste, EnableBracketedPaste, Event as Input, KeyEventKind};
use crossterm::execute;
use crossterm::style::Print;
use ratatui::DefaultTerminal;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use self::state::{Action, App, ScreenEvent};
use self::watcher::{Focus, StateWatcher, WatcherMessage};
use crate::attempt::worker_dir::Delivery;
use crate::cli::error::{self, CliError};
use crate::cli::message;
use crate::cli::output;
use crate::cli::places::Places;
use crate::cli::workspace::Workspace;
use crate::cli::{one_shot, terminal};
use crate::mission::id::WorkerId;

/// Time limit for running actions when the user quits.
const FINISH: Duration = Duration::from_secs(20);
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
    forward_keys(events.clone());
    start_watcher(&workspace, &events, &messages, inbox);
    let mut watch = Watch {
        app: App {
            home: super::home(),
            colours: terminal::wants_colours(),
            notifies: workspace.settings.notify_terminal,
            ..App::default()
        },
        actions: ActionRunner { runtime, places: places.clone(), events, busy: Vec::new() },
        messages,
        focus: Focus::default(),
    };
    let ended = watch.live(&mut screen, &screen_events);
    restore_terminal();
    watch.actions.finish();
    match ended {
        Ok(0) => Ok(ExitCode::SUCCESS),
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

struct Watch {
    app: App,
    actions: ActionRunner,
    messages: Sender<WatcherMessage>,
    focus: Focus,
}

impl Watch {
    /// Draws the screen after each event until the user quits. Returns the exit status.
    fn live(&mut self, screen: &mut DefaultTerminal, inbox: &Receiver<ScreenEvent>) -> io::Result<u8> {
        loop {
            let mut most = 0;
            screen.draw(|frame| most = draw::draw(&self.app, frame.area(), frame.buffer_mut()))?;
            self.app.scroll = self.app.scroll.min(most);
            // All senders are gone only when the threads behind them have failed.
            let Ok(first) = inbox.recv() else { return Ok(error::FAILED) };
            for event in std::iter::once(first).chain(inbox.try_iter()) {
                if let ScreenEvent::End(code) = event {
                    return Ok(code);
                }
                match self.app.handle(event) {
                    Some(Action::Quit) => return Ok(0),
                    Some(Action::Cancel(worker)) => self.actions.cancel(worker),
                    Some(Action::Send(worker, text)) => self.actions.send(worker, text),
                    Some(Action::Copy(path)) => {
                        execute!(stdout(), CopyToClipboard::to_clipboard_from(path.to_string_lossy().as_bytes()))?
                    }
                    Some(Action::Announce(text)) => execute!(stdout(), Print(terminal::announcement(&text)))?,
                    None => {}
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
}

/// Runs the user's actions as one-shot clients, as the commands do.
struct ActionRunner {
    runtime: Runtime,
    places: Places,
    events: Sender<ScreenEvent>,
    busy: Vec<JoinHandle<()>>,
}

impl ActionRunner {
    fn cancel(&mut self, worker: WorkerId) {
        let what = state::cancel_label(&worker);
        let places = self.places.clone();
        self.act(what, async move {
            let client = one_shot::open_for(&places, &[worker.to_string()]).await?;
            let answer = client.cancel(worker.as_str(), "cancelled in status --watch").await;
            client.close().await;
            let answer = answer?;
            Ok(match (answer.already_settled, answer.survivors) {
                (true, _) => format!("{worker} already finished ({})", answer.status),
                (false, 0) => format!("{worker} is {}, no process is left", answer.status),
                (false, left) => {
                    format!("{worker} is {}, but {left} of its processes are still running", answer.status)
                }
            })
        });
    }

    fn send(&mut self, worker: WorkerId, text: String) {
        let what = state::send_label(&worker);
        let places = self.places.clone();
        self.act(what, async move {
            let (worker, answer) = message::send(&places, worker.as_str(), text, Delivery::WhenReady).await?;
            Ok(message::line(&worker, answer.delivered))
        });
    }

    fn act(&mut self, what: String, work: impl Future<Output = Result<String, CliError>> + Send + 'static) {
        let events = self.events.clone();
        self.busy.retain(|it| !it.is_finished());
        self.busy.push(self.runtime.spawn(async move {
            let _ = events.send(ScreenEvent::Done { what, answer: work.await });
        }));
    }

    /// Waits for the running actions.
    fn finish(self) {
        let busy: Vec<_> = self.busy.into_iter().filter(|it| !it.is_finished()).collect();
        if !busy.is_empty() {
            let print = |text: &str| drop(writeln!(io::stderr(), "{text}"));
            print("finishing the running actions …");
            let all = tokio::time::timeout(FINISH, futures_util::future::join_all(busy));
            let all = self.runtime.block_on(async { output::unless_interrupted(async { all.await.is_ok() }).await });
            if !matches!(all, Ok(true)) {
                print("they continue without this screen");
            }
        }
        self.runtime.shutdown_background();
    }
}

/// Forwards termination signals as events, so that the terminal is restored.
fn forward_signals(runtime: &Runtime, events: &Sender<ScreenEvent>) -> io::Result<()> {
    let _inside = runtime.enter();
    for (kind, code) in [(SignalKind::terminate(), 143), (SignalKind::hangup(), 129), (SignalKind::interrupt(), 130)] {
        let (mut signal, events) = (signal(kind)?, events.clone());
        runtime.spawn(async move {
            signal.recv().await;
            let _ = events.send(ScreenEvent::End(code));
        });
    }
    Ok(())
}

/// Forwards keys on a thread that ends with the process, since nothing interrupts its read.
fn forward_keys(events: Sender<ScreenEvent>) {
    std::thread::spawn(move || {
        loop {
            let event = match crossterm::event::read() {
                Ok(Input::Key(key)) if key.kind != KeyEventKind::Release => ScreenEvent::Key(key),
                Ok(Input::Paste(text)) => ScreenEvent::Pasted(text),
                Ok(Input::Resize(..)) => ScreenEvent::Resized,
                Ok(_) => continue,
                // The terminal is gone.
                Err(_) => ScreenEvent::End(129),
            };
            let is_end = matches!(event, ScreenEvent::End(_));
            if events.send(event).is_err() || is_end {
                return;
            }
        }
    });
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
