//! Reads the keys of the terminal on a thread of its own. It can be paused, so that another program gets what is typed.

use std::io;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossterm::event::{Event as Input, KeyEventKind};

use super::state::ScreenEvent;

/// Time after which the thread checks whether it is paused. Nothing else interrupts its wait for a key.
const CHECK: Duration = Duration::from_millis(100);
/// The exit status after the terminal has gone, as after SIGHUP.
const GONE: u8 = 129;

/// The handle of the thread. The thread ends with the process or with the terminal.
pub(super) struct KeyReader(Arc<Gate>);

#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    is_closed: bool,
    /// True while the thread reads nothing: it is paused, or has ended.
    is_idle: bool,
}

impl KeyReader {
    pub fn start(events: Sender<ScreenEvent>) -> Self {
        let gate = Arc::new(Gate::default());
        let shared = Arc::clone(&gate);
        std::thread::spawn(move || {
            forward(&shared, &events);
            drop(shared.change(|state| state.is_idle = true));
        });
        Self(gate)
    }

    /// Pauses the thread. Once this returns, it reads nothing more.
    pub fn pause(&self) {
        let mut state = self.0.change(|state| state.is_closed = true);
        while !state.is_idle {
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets the thread read again. Keys that were typed before are discarded, since they were meant for another program.
    pub fn resume(&self) {
        drop(self.0.change(|state| state.is_closed = false));
    }
}

impl Gate {
    fn change(&self, change: impl FnOnce(&mut GateState)) -> MutexGuard<'_, GateState> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        self.changed.notify_all();
        state
    }

    /// Waits while the gate is closed. Returns whether it was.
    fn pass(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let was_closed = state.is_closed;
        while state.is_closed {
            state.is_idle = true;
            self.changed.notify_all();
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.is_idle = false;
        was_closed
    }
}

/// Forwards keys until the terminal or the screen has gone.
fn forward(gate: &Gate, events: &Sender<ScreenEvent>) {
    loop {
        let read = if gate.pass() { discard() } else { next() };
        let event = match read {
            Ok(Some(event)) => event,
            Ok(None) => continue,
            Err(_) => ScreenEvent::End(GONE),
        };
        let is_end = matches!(event, ScreenEvent::End(_));
        if events.send(event).is_err() || is_end {
            return;
        }
    }
}

fn next() -> io::Result<Option<ScreenEvent>> {
    if !crossterm::event::poll(CHECK)? {
        return Ok(None);
    }
    Ok(match crossterm::event::read()? {
        Input::Key(key) if key.kind != KeyEventKind::Release => Some(ScreenEvent::Key(key)),
        Input::Paste(text) => Some(ScreenEvent::Pasted(text)),
        Input::Resize(..) => Some(ScreenEvent::Resized),
        _ => None,
    })
}

/// Discards all that can be read at once.
fn discard() -> io::Result<Option<ScreenEvent>> {
    while crossterm::event::poll(Duration::ZERO)? {
        crossterm::event::read()?;
    }
    Ok(Some(ScreenEvent::Resized))
}
