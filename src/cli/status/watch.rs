//! `status --watch`: a live screen. [`state`] applies keys and events, and [`draw`] renders the result; both are pure.
//! [`eyes`] watches the files in a thread of its own. This module connects them with the terminal, its keys, signals
//! and the user's actions. Only those actions change anything.

mod draw;
mod eyes;
mod log;
mod state;
#[cfg(test)]
mod tests;
mod timeline;

use std::io::{self, IsTerminal, Write, stdin, stdout};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crossterm::clipboard::CopyToClipboard;
use crossterm::event::{DisableBracketedPaste, EnableBracketedPaste, Event as Input, KeyEventKind};
use crossterm::execute;
use ratatui::DefaultTerminal;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use self::eyes::{Eyes, Poke, Wish};
use self::state::{App, Ask, Event};
use crate::attempt::worker_dir::Delivery;
use crate::cli::here::Here;
use crate::cli::out::{self, End};
use crate::cli::places::Places;
use crate::cli::{terminal, visit};
use crate::mission::id::WorkerId;

/// Who leaves while a worker is being ended waits so long for it.
const FINISH: Duration = Duration::from_secs(20);
/// As the exit status of any program of Rust that panics.
const PANICKED: u8 = 101;

pub(super) fn run(places: &Places) -> Result<ExitCode, End> {
    if !stdout().is_terminal() || !stdin().is_terminal() {
        let mend = "`orchestrator-boss status` prints one screen, and `status --json` all of it for programs";
        return Err(End::Usage(format!("--watch needs a terminal: {mend}")));
    }
    let here = Here::find(places).map_err(End::Failed)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|error| End::Failed(format!("could not start: {error}")))?;
    let (news, inbox) = channel();
    let (pokes, poked) = channel();
    hear_signals(&runtime, &news).map_err(|error| End::Failed(format!("could not listen to signals: {error}")))?;

    let mut screen =
        take_terminal(&news).map_err(|error| End::Failed(format!("could not draw on the terminal: {error}")))?;
    read_keys(news.clone());
    open_eyes(&here, &news, &pokes, poked);
    let mut watch = Watch {
        app: App { home: super::home(), colours: terminal::wants_colours(), ..App::default() },
        hands: Hands { runtime, places: places.clone(), news, busy: Vec::new() },
        pokes,
        wish: Wish::default(),
    };
    let ended = watch.live(&mut screen, &inbox);
    give_terminal_back();
    watch.hands.finish();
    match ended {
        Ok(0) => Ok(ExitCode::SUCCESS),
        Ok(code) => Ok(ExitCode::from(code)),
        Err(error) => Err(End::Failed(format!("could not draw on the terminal: {error}"))),
    }
}

/// Given back when anything panics, on whatever thread: then all ends, and nothing is drawn over what that said.
fn take_terminal(news: &Sender<Event>) -> io::Result<DefaultTerminal> {
    let screen = ratatui::try_init()?;
    // Pasted text must not be taken for keys: it may hold a `c` and a `y`. A terminal without this mode behaves as
    // before.
    let _ = execute!(stdout(), EnableBracketedPaste);
    let (news, restore) = (news.clone(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        let _ = execute!(stdout(), DisableBracketedPaste);
        restore(panic);
        let _ = news.send(Event::End(PANICKED));
    }));
    Ok(screen)
}

/// It may be gone, and nothing more can be said then.
fn give_terminal_back() {
    let _ = execute!(stdout(), DisableBracketedPaste);
    let _ = ratatui::try_restore();
}

struct Watch {
    app: App,
    hands: Hands,
    pokes: Sender<Poke>,
    wish: Wish,
}

impl Watch {
    /// Draws, waits for something to happen, and draws again; until it is left, with an exit status.
    fn live(&mut self, screen: &mut DefaultTerminal, inbox: &Receiver<Event>) -> io::Result<u8> {
        loop {
            let mut most = 0;
            screen.draw(|frame| most = draw::draw(&self.app, frame.area(), frame.buffer_mut()))?;
            self.app.scroll = self.app.scroll.min(most);
            // All senders are gone only when the threads behind them have failed.
            let Ok(first) = inbox.recv() else { return Ok(out::FAILED) };
            for event in std::iter::once(first).chain(inbox.try_iter()) {
                if let Event::End(code) = event {
                    return Ok(code);
                }
                match self.app.handle(event) {
                    Some(Ask::Leave) => return Ok(0),
                    Some(Ask::Cancel(worker)) => self.hands.cancel(worker),
                    Some(Ask::Send(worker, text)) => self.hands.send(worker, text),
                    Some(Ask::Copy(path)) => {
                        execute!(stdout(), CopyToClipboard::to_clipboard_from(path.to_string_lossy().as_bytes()))?
                    }
                    None => {}
                }
            }
            let wish = Wish { worker: self.app.selected.clone(), choice: self.app.choice, pane: self.app.pane };
            if wish != self.wish {
                self.wish = wish.clone();
                // Its thread ends only with this one, or tells of it.
                let _ = self.pokes.send(Poke::Wish(wish));
            }
        }
    }
}

/// Does what was asked for, as the commands do it: as a visitor, who takes over nothing.
struct Hands {
    runtime: Runtime,
    places: Places,
    news: Sender<Event>,
    busy: Vec<JoinHandle<()>>,
}

impl Hands {
    fn cancel(&mut self, worker: WorkerId) {
        let what = state::doing_cancel(&worker);
        let places = self.places.clone();
        self.act(what, async move {
            let visit = visit::visit_for(&places, &[worker.to_string()]).await?;
            let answer = visit.cancel(worker.as_str(), "cancelled in status --watch").await;
            visit.leave().await;
            let answer = answer?;
            Ok(match (answer.already_settled, answer.survivors) {
                (true, _) => format!("{worker} had ended before ({})", answer.status),
                (false, 0) => format!("{worker} is {}, nothing of it is left running", answer.status),
                (false, left) => format!("{worker} is {}, but {left} of its processes are left", answer.status),
            })
        });
    }

    fn send(&mut self, worker: WorkerId, text: String) {
        let what = state::doing_send(&worker);
        let places = self.places.clone();
        self.act(what, async move {
            let visit = visit::visit_for(&places, &[worker.to_string()]).await?;
            let answer = visit.message(worker.as_str(), text, Delivery::WhenReady).await;
            visit.leave().await;
            use crate::orchestrator::MessageDelivery::{Live, NextAttempt, Queued};
            Ok(match answer?.delivered {
                Live => format!("{worker} hears it now"),
                Queued => format!("{worker} hears it when it can"),
                NextAttempt => format!("{worker} goes on with it: its next attempt"),
            })
        });
    }

    fn act(&mut self, what: String, work: impl Future<Output = Result<String, End>> + Send + 'static) {
        let news = self.news.clone();
        self.busy.retain(|it| !it.is_finished());
        self.busy.push(self.runtime.spawn(async move {
            let answer = work.await.map_err(|error| error.to_string());
            let _ = news.send(Event::Done { what, answer });
        }));
    }

    /// What was asked for is not left half done.
    fn finish(self) {
        let busy: Vec<_> = self.busy.into_iter().filter(|it| !it.is_finished()).collect();
        if !busy.is_empty() {
            let say = |text: &str| drop(writeln!(io::stderr(), "{text}"));
            say("finishing what was asked for …");
            let all = tokio::time::timeout(FINISH, futures_util::future::join_all(busy));
            let all = self.runtime.block_on(async { out::unless_interrupted(async { all.await.is_ok() }).await });
            if !matches!(all, Ok(true)) {
                say("it goes on without this screen");
            }
        }
        self.runtime.shutdown_background();
    }
}

/// The terminal is given back when somebody ends us.
fn hear_signals(runtime: &Runtime, news: &Sender<Event>) -> io::Result<()> {
    let _inside = runtime.enter();
    for (kind, code) in [(SignalKind::terminate(), 143), (SignalKind::hangup(), 129), (SignalKind::interrupt(), 130)] {
        let (mut signal, news) = (signal(kind)?, news.clone());
        runtime.spawn(async move {
            signal.recv().await;
            let _ = news.send(Event::End(code));
        });
    }
    Ok(())
}

/// A thread that ends with the process, since nothing wakes it from reading.
fn read_keys(news: Sender<Event>) {
    std::thread::spawn(move || {
        loop {
            let event = match crossterm::event::read() {
                Ok(Input::Key(key)) if key.kind != KeyEventKind::Release => Event::Key(key),
                Ok(Input::Paste(text)) => Event::Pasted(text),
                Ok(Input::Resize(..)) => Event::Resized,
                Ok(_) => continue,
                // The terminal is gone.
                Err(_) => Event::End(129),
            };
            let is_end = matches!(event, Event::End(_));
            if news.send(event).is_err() || is_end {
                return;
            }
        }
    });
}

fn open_eyes(here: &Here, news: &Sender<Event>, pokes: &Sender<Poke>, poked: Receiver<Poke>) {
    let eyes = Eyes::new(here, news.clone(), pokes.clone());
    std::thread::spawn(move || eyes.run(&poked));
}
