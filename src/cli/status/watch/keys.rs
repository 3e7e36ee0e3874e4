//! Reads the keys of the terminal on a thread of its own. It can be paused, so that another program gets the input.

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
    /// True while the thread is paused.
    is_idle: bool,
    has_ended: bool,
}

impl KeyReader {
    pub fn start(events: Sender<ScreenEvent>) -> Self {
        let gate = Arc::new(Gate::default());
        let shared = Arc::clone(&gate);
        std::thread::spawn(move || {
            forward(&shared, &events);
            drop(shared.change(|state| state.has_ended = true));
        });
        Self(gate)
    }

    /// Pauses the thread. Once this returns, it reads nothing more.
    pub fn pause(&self) {
        let state = self.0.change(|state| state.is_closed = true);
        self.0.wait_while(state, |state| !state.is_idle);
    }

    /// Lets the thread read again. Once this returns, it has discarded the keys that were typed before, since they were
    /// meant for another program.
    pub fn resume(&self) {
        let state = self.0.change(|state| state.is_closed = false);
        self.0.wait_while(state, |state| state.is_idle);
    }
}

impl Gate {
    fn change(&self, change: impl FnOnce(&mut GateState)) -> MutexGuard<'_, GateState> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        self.changed.notify_all();
        state
    }

    /// Waits for the thread, unless it has ended.
    fn wait_while(&self, state: MutexGuard<'_, GateState>, is_so: impl Fn(&GateState) -> bool) {
        let waiting = self.changed.wait_while(state, |state| !state.has_ended && is_so(state));
        drop(waiting.unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits while the gate is closed. Returns whether it was.
    fn pass(&self) -> bool {
        if !self.change(|_| {}).is_closed {
            return false;
        }
        let state = self.change(|state| state.is_idle = true);
        self.wait_while(state, |state| state.is_closed);
        true
    }
}

/// Forwards keys until the terminal or the screen has gone.
fn forward(gate: &Gate, events: &Sender<ScreenEvent>) {
    loop {
        let read = if gate.pass() {
            let discarded = discard();
            drop(gate.change(|state| state.is_idle = false));
            discarded
        } else {
            next()
        };
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

/// Discards all pending input.
fn discard() -> io::Result<Option<ScreenEvent>> {
    while crossterm::event::poll(Duration::ZERO)? {
        crossterm::event::read()?;
    }
    Ok(Some(ScreenEvent::Resized))
}
