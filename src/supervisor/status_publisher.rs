//! Publishes the status of a running attempt in the status file and on the socket, and writes the event log.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use crate::attempt::status::{ClosedQuestion, Delivered, LiveStatus, OpenQuestion, Phase, Receipt};
use crate::attempt::worker_dir::{AttemptDir, LineWriter};
use crate::backend::AgentEvent;
use crate::files;
use crate::mission::confined::Confinement;
use crate::mission::outcome::Usage;
use crate::process::{self, Host, Identity};

/// Interval at which data is written that others act on, such as the session and the usage. A busy CLI prints hundreds
/// of lines a second.
const WRITE_INTERVAL: Duration = Duration::from_millis(200);
/// Interval at which data is written that is only displayed. Writing and sending a status costs more than logging
/// dozens of events.
const DISPLAY_INTERVAL: Duration = Duration::from_secs(1);
/// Longest activity line, in bytes.
const ACTIVITY_LIMIT: usize = 120;

pub struct StatusPublisher {
    dir: AttemptDir,
    status: LiveStatus,
    events: LineWriter,
    subscribers: watch::Sender<LiveStatus>,
    /// Time of the next write, if anything has changed.
    due: Option<Instant>,
    last_write: Option<Instant>,
}

#[derive(serde::Serialize)]
struct EventLine<'a> {
    at: Timestamp,
    #[serde(flatten)]
    event: &'a AgentEvent,
}

impl StatusPublisher {
    pub fn new(dir: &AttemptDir, supervisor: Identity) -> Result<Self, files::FileError> {
        let status = LiveStatus {
            phase: Phase::Starting,
            host: Some(Host::own().clone()),
            supervisor,
            cli: None,
            turn: 0,
            activity: "starting".to_owned(),
            last_event_at: Timestamp::now(),
            began: process::monotonic(),
            last_event: process::monotonic(),
            written: process::monotonic(),
            seen: Duration::ZERO,
            settled: false,
            usage: Usage::default(),
            session_id: None,
            stalled: None,
            confinement: None,
            answered: false,
            receipts: Vec::new(),
            questions: Vec::new(),
            closed_questions: Vec::new(),
        };
        let events = LineWriter::open(&dir.events())?;
        let (subscribers, _) = watch::channel(status.clone());
        Ok(Self { dir: dir.clone(), status, events, subscribers, due: None, last_write: None })
    }

    pub fn subscribe(&self) -> watch::Receiver<LiveStatus> {
        self.subscribers.subscribe()
    }

    /// Sets the phase. Clients may be waiting for the change, so it is written at once.
    pub fn set_phase(&mut self, phase: Phase, activity: &str) {
        self.status.phase = phase;
        self.set_activity("", activity);
        self.publish();
    }

    /// Sets the confinement. It is written with the next change.
    pub fn set_confinement(&mut self, confinement: Confinement) {
        self.status.confinement = Some(confinement);
    }

    pub fn begin_turn(&mut self, cli: Identity) {
        self.status.turn += 1;
        self.status.cli = Some(cli);
        self.set_phase(Phase::Running, "thinking");
    }

    /// Reports to servers on other hosts that the outcome record exists. Nothing is written later.
    pub fn set_settled(&mut self) {
        self.status.settled = true;
        self.publish();
    }

    /// Returns the seconds since the attempt began, rounded up, so that no earlier display exceeds it.
    pub fn elapsed_seconds(&self) -> u64 {
        u64::try_from(self.status.ran().as_millis().div_ceil(1_000)).unwrap_or(u64::MAX)
    }

    pub fn set_usage(&mut self, usage: Usage) {
        self.status.usage = usage;
        self.schedule(WRITE_INTERVAL);
    }

    pub fn set_stalled(&mut self, evidence: Option<String>) {
        if self.status.stalled != evidence {
            self.status.stalled = evidence;
            self.publish();
        }
    }

    /// Sets the questions. Bosses and users may be waiting for the change, so it is written at once.
    pub fn set_questions(&mut self, open: Vec<OpenQuestion>, closed: Vec<ClosedQuestion>) {
        (self.status.questions, self.status.closed_questions) = (open, closed);
        self.publish();
    }

    pub fn record_receipt(&mut self, message_id: Uuid, how: Delivered) {
        self.status.receipts.push(Receipt { message_id, how, at: Timestamp::now() });
        self.publish();
    }

    /// Logs an event and updates the status from it.
    pub fn record(&mut self, event: &AgentEvent) {
        let at = Timestamp::now();
        if let Err(error) = self.events.write(&EventLine { at, event }) {
            tracing::warn!(%error, "cannot log an event; the raw output has it");
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
                self.schedule(WRITE_INTERVAL);
            }
            AgentEvent::Said { text } => self.set_activity("said: ", first_line(text)),
            AgentEvent::Thought { .. } => self.set_activity("", "thinking"),
            AgentEvent::ToolStarted { tool, what, .. } => self.set_activity(&format!("{tool}: "), first_line(what)),
            AgentEvent::Edited { paths } => self.set_activity("edited ", &paths.join(", ")),
            AgentEvent::Asked { question } => self.set_activity("asks: ", first_line(&question.text)),
            AgentEvent::Answered { .. } => self.set_activity("", "the question was answered"),
            AgentEvent::Withdrawn { .. } => self.set_activity("", "the question was withdrawn"),
            AgentEvent::Retrying { failure, .. } => self.set_activity("retrying: ", first_line(&failure.message)),
            _ => {}
        }
        // Other workers of the backend may wait for its first answer.
        if first { self.publish() } else { self.schedule(DISPLAY_INTERVAL) }
    }

    fn set_activity(&mut self, verb: &str, object: &str) {
        let activity = &mut self.status.activity;
        activity.clear();
        for text in [verb, object] {
            let room = ACTIVITY_LIMIT.saturating_sub(activity.len());
            activity.push_str(&text[..text.floor_char_boundary(room)]);
        }
    }

    /// Schedules a write, `interval` after the last one at the earliest.
    fn schedule(&mut self, interval: Duration) {
        let earliest = self.last_write.map_or_else(Instant::now, |last| last + interval);
        self.due = Some(self.due.map_or(earliest, |due| due.min(earliest)));
    }

    /// Returns the time of the next write. `None` if nothing has changed.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    pub fn publish(&mut self) {
        self.due = None;
        self.last_write = Some(Instant::now());
        self.status.written = process::monotonic();
        self.subscribers.send_replace(self.status.clone());
        if let Err(error) = self.status.write(&self.dir) {
            tracing::warn!(%error, "cannot write the status");
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
    fn display_data_is_written_less_often_than_usage() {
        let folder = tempfile::tempdir().unwrap();
        let mut status =
            StatusPublisher::new(&AttemptDir::at(folder.path().to_owned()), Identity::own().unwrap()).unwrap();
        let said = |text: &str| AgentEvent::Said { text: text.to_owned() };
        status.record(&said("its first word"));
        assert_eq!(status.due(), None, "the first answer is written at once");
        let written = status.last_write.unwrap();
        status.record(&said("more"));
        assert_eq!(status.due(), Some(written + DISPLAY_INTERVAL));
        status.set_usage(Usage { input_tokens: 1, ..Usage::default() });
        assert_eq!(status.due(), Some(written + WRITE_INTERVAL));
        status.record(&said("still more"));
        assert_eq!(status.due(), Some(written + WRITE_INTERVAL), "it is not delayed");
    }
}
