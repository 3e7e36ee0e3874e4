//! What the supervisor tells while it works: the status file, the event log, and whoever listens on the socket.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use crate::attempt::status::{Delivered, LiveStatus, Phase, Receipt};
use crate::attempt::worker_dir::{AttemptDir, LineWriter};
use crate::backend::AgentEvent;
use crate::files;
use crate::mission::outcome::Usage;
use crate::process::{self, Identity};

/// Interval at which data is written that others act on, such as the session and the usage. A busy CLI prints hundreds
/// of lines a second.
const WRITE_EVERY: Duration = Duration::from_millis(200);
/// Interval at which data is written that is only displayed. Writing and sending a status costs more than logging
/// dozens of events.
const SHOW_EVERY: Duration = Duration::from_secs(1);
/// Longest activity line, in bytes.
const ACTIVITY: usize = 120;

pub struct Board {
    dir: AttemptDir,
    status: LiveStatus,
    events: LineWriter,
    listeners: watch::Sender<LiveStatus>,
    /// When what has changed is to be written, if anything has.
    due: Option<Instant>,
    last_write: Option<Instant>,
}

#[derive(serde::Serialize)]
struct Logged<'a> {
    at: Timestamp,
    #[serde(flatten)]
    event: &'a AgentEvent,
}

impl Board {
    pub fn new(dir: &AttemptDir, supervisor: Identity) -> Result<Self, files::FileError> {
        let status = LiveStatus {
            phase: Phase::Starting,
            supervisor,
            cli: None,
            turn: 0,
            activity: "starting".to_owned(),
            last_event_at: Timestamp::now(),
            began: process::monotonic(),
            last_event: process::monotonic(),
            usage: Usage::default(),
            session_id: None,
            stalled: None,
            answered: false,
            receipts: Vec::new(),
        };
        let events = LineWriter::open(&dir.events())?;
        let (listeners, _) = watch::channel(status.clone());
        Ok(Self { dir: dir.clone(), status, events, listeners, due: None, last_write: None })
    }

    pub fn listen(&self) -> watch::Receiver<LiveStatus> {
        self.listeners.subscribe()
    }

    /// Sets the phase. Clients may be waiting for the change, so it is written at once.
    pub fn set_phase(&mut self, phase: Phase, activity: &str) {
        self.status.phase = phase;
        self.set_activity("", activity);
        self.write();
    }

    pub fn begin_turn(&mut self, cli: Identity) {
        self.status.turn += 1;
        self.status.cli = Some(cli);
        self.set_phase(Phase::Running, "thinking");
    }

    /// Returns the seconds since the attempt began, rounded up, so that no screen has shown more before.
    pub fn elapsed_seconds(&self) -> u64 {
        let elapsed = process::monotonic().saturating_sub(self.status.began);
        u64::try_from(elapsed.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX)
    }

    pub fn set_usage(&mut self, usage: Usage) {
        self.status.usage = usage;
        self.touch(WRITE_EVERY);
    }

    pub fn set_stalled(&mut self, evidence: Option<String>) {
        if self.status.stalled != evidence {
            self.status.stalled = evidence;
            self.write();
        }
    }

    pub fn note_receipt(&mut self, message_id: Uuid, how: Delivered) {
        self.status.receipts.push(Receipt { message_id, how, at: Timestamp::now() });
        self.write();
    }

    /// Logs an event and takes from it what the status shows.
    pub fn note(&mut self, event: &AgentEvent) {
        let at = Timestamp::now();
        if let Err(error) = self.events.write(&Logged { at, event }) {
            tracing::warn!(%error, "could not log an event; the raw output has it");
        }
        self.status.last_event_at = at;
        self.status.last_event = process::monotonic();
        self.status.stalled = None;
        use AgentEvent::{Said, Thought, ToolStarted};
        let answers = matches!(event, Said { .. } | Thought { .. } | ToolStarted { .. });
        let first = answers && !self.status.answered;
        self.status.answered |= answers;
        match event {
            AgentEvent::Session { id, .. } => {
                self.status.session_id = Some(id.clone());
                self.touch(WRITE_EVERY);
            }
            AgentEvent::Said { text } => self.set_activity("said: ", first_line(text)),
            AgentEvent::Thought { .. } => self.set_activity("", "thinking"),
            AgentEvent::ToolStarted { tool, what, .. } => self.set_activity(&format!("{tool}: "), first_line(what)),
            AgentEvent::Edited { paths } => self.set_activity("edited ", &paths.join(", ")),
            AgentEvent::Retrying { failure, .. } => self.set_activity("retrying: ", first_line(&failure.message)),
            _ => {}
        }
        // Others of its backend may wait for just that.
        if first { self.write() } else { self.touch(SHOW_EVERY) }
    }

    fn set_activity(&mut self, does: &str, what: &str) {
        let activity = &mut self.status.activity;
        activity.clear();
        for text in [does, what] {
            let room = ACTIVITY.saturating_sub(activity.len());
            activity.push_str(&text[..text.floor_char_boundary(room)]);
        }
    }

    /// Has it written, `every` so long at most.
    fn touch(&mut self, every: Duration) {
        let earliest = self.last_write.map_or_else(Instant::now, |last| last + every);
        self.due = Some(self.due.map_or(earliest, |due| due.min(earliest)));
    }

    /// Sleeps until something is to be written; for ever when nothing has changed.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    pub fn write(&mut self) {
        self.due = None;
        self.last_write = Some(Instant::now());
        self.listeners.send_replace(self.status.clone());
        if let Err(error) = files::replace_json(&self.dir.status(), &self.status, false) {
            tracing::warn!(%error, "could not write the status");
        }
    }
}

fn first_line(text: &str) -> &str {
    text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_only_shown_is_written_less_often_than_what_others_act_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut board = Board::new(&AttemptDir::at(folder.path().to_owned()), Identity::own().unwrap()).unwrap();
        let say = |text: &str| AgentEvent::Said { text: text.to_owned() };
        board.note(&say("its first word"));
        assert_eq!(board.due(), None, "others of its backend may wait for that: it is written at once");
        let written = board.last_write.unwrap();
        board.note(&say("more"));
        assert_eq!(board.due(), Some(written + SHOW_EVERY));
        board.set_usage(Usage { input_tokens: 1, ..Usage::default() });
        assert_eq!(board.due(), Some(written + WRITE_EVERY));
        board.note(&say("still more"));
        assert_eq!(board.due(), Some(written + WRITE_EVERY), "it is not put off");
    }
}
