//! The status of a running attempt, and the messages on its socket. Only the supervisor writes the status file; the
//! socket carries the same status sooner, and nothing depends on it.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::worker_dir::AttemptDir;
use crate::files::{self, FileError};
use crate::mission::confined::Confinement;
use crate::mission::outcome::Usage;
use crate::mission::question::{Decider, Decision, Question};
use crate::process::{self, Host, Identity};

/// The line that a supervisor prints when it has claimed the attempt and can be reached.
pub const READY: &str = "ready";

/// The current status of a worker. Its supervisor writes it and sends it to the clients of its socket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LiveStatus {
    pub phase: Phase,
    /// The host of the supervisor. `None` is this one: supervisors of earlier versions wrote none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Host>,
    pub supervisor: Identity,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cli: Option<Identity>,
    pub turn: u32,
    /// Its last activity, in one line.
    pub activity: String,
    pub last_event_at: Timestamp,
    /// When the attempt began, when it last showed anything, and when this was written, by [`process::monotonic`] of
    /// the supervisor's host. A reader compares them with [`LiveStatus::now`].
    pub began: Duration,
    pub last_event: Duration,
    #[serde(default)]
    pub written: Duration,
    /// When this process read it, by its own clock.
    #[serde(skip)]
    pub seen: Duration,
    /// The outcome record exists. A job says so in this file, since on a network file system the name of the record may
    /// be visible to other hosts later than the content of this file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub settled: bool,
    pub usage: Usage,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// The evidence of a stall: no output and no CPU time for long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stalled: Option<String>,
    /// The confinement by the kernel. `None` before the CLI runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confinement: Option<Confinement>,
    /// The model has answered in this attempt.
    pub answered: bool,
    pub receipts: Vec<Receipt>,
    /// The questions that wait for a decision.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub questions: Vec<OpenQuestion>,
    /// The last questions that were decided or withdrawn, the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub closed_questions: Vec<ClosedQuestion>,
}

impl LiveStatus {
    /// Reads the status of an attempt. `None` if there is none yet.
    pub fn read(attempt: &AttemptDir) -> Result<Option<Self>, FileError> {
        let status: Option<Option<Self>> = files::read_json(&attempt.status())?;
        Ok(status.flatten().map(|status| status.seen_at(process::monotonic())))
    }

    /// Returns the name of the host of an attempt's supervisor. `None` if none has begun, or its file cannot be read.
    pub fn host_name(attempt: &AttemptDir) -> Option<String> {
        Some(Self::read(attempt).ok()??.host?.name)
    }

    /// Replaces the status of an attempt. Only its supervisor does.
    pub fn write(&self, attempt: &AttemptDir) -> Result<(), FileError> {
        files::replace_json(&attempt.status(), self, false)
    }

    /// Creates the file without a status, before a job is submitted, so that its name is known to this host.
    pub fn prepare(attempt: &AttemptDir) -> Result<(), FileError> {
        files::replace_json(&attempt.status(), &None::<Self>, false)
    }

    /// Notes the time of reading, and converts the times of questions of another host to the clock of this one.
    fn seen_at(mut self, here: Duration) -> Self {
        if !self.is_of_this_host() {
            for question in &mut self.questions {
                let left = question.denied_at.map(|at| at.saturating_sub(self.written));
                question.denied_at = left.and_then(|left| here.checked_add(left));
            }
        }
        Self { seen: here, ..self }
    }

    /// Returns the present by the clock of the supervisor's host. Clocks of two hosts cannot be compared, so for another
    /// host it is the time of writing and the time since this process read it.
    pub fn now(&self) -> Duration {
        let here = process::monotonic();
        if self.is_of_this_host() { here } else { self.written.saturating_add(here.saturating_sub(self.seen)) }
    }

    /// Returns how long the attempt has run.
    pub fn ran(&self) -> Duration {
        self.now().saturating_sub(self.began)
    }

    /// Returns for how long the worker has shown nothing.
    pub fn idle(&self) -> Duration {
        self.now().saturating_sub(self.last_event)
    }

    /// Returns whether this process can signal the pids in this status.
    pub fn is_of_this_host(&self) -> bool {
        self.host.as_ref().is_none_or(Host::is_own)
    }

    /// Returns whether the worker waits for the answer to a question.
    pub fn needs_answer(&self) -> bool {
        !self.questions.is_empty()
    }
}

/// A question that waits for a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenQuestion {
    #[serde(flatten)]
    pub question: Question,
    pub asked_at: Timestamp,
    /// Time at which it is denied, by [`process::monotonic`]. `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied_at: Option<Duration>,
}

/// A question that is not open any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedQuestion {
    pub question: String,
    /// `None` if it ended undecided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided: Option<Decided>,
}

/// The decision that closed a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    pub decision: Decision,
    pub by: Decider,
    /// The entry of the inbox with the decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<Uuid>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Starting,
    /// `setup_command` runs.
    SettingUp,
    Running,
    Verifying,
}

/// The delivery of a message to the CLI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub message_id: Uuid,
    pub how: Delivered,
    pub at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivered {
    /// Written to the running CLI.
    Sent,
    /// The CLI reports that the model has it.
    Received,
    /// It began a new turn.
    Turn,
}

/// A request from a server to a supervisor, as one JSON line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ToSupervisor {
    /// The inbox has a new entry.
    CheckInbox,
}

/// A report from the supervisor to every connected server, as one JSON line. The end of the stream means that the
/// supervisor ended: the outcome record exists, or it was lost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FromSupervisor {
    Status { status: Box<LiveStatus> },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mission::question::Question;

    fn status(host: Option<Host>) -> LiveStatus {
        let (id, text, action) = ("q".to_owned(), "Run it?".to_owned(), "Bash: ls".to_owned());
        let question = Question { id, text, action, choices: Vec::new() };
        let denied_at = Some(Duration::from_secs(1_000_060));
        LiveStatus {
            phase: Phase::Running,
            host,
            supervisor: Identity::own().unwrap(),
            cli: None,
            turn: 1,
            activity: String::new(),
            last_event_at: Timestamp::UNIX_EPOCH,
            began: Duration::from_secs(1_000_000 - 500),
            last_event: Duration::from_secs(1_000_000 - 20),
            written: Duration::from_secs(1_000_000),
            seen: Duration::ZERO,
            settled: false,
            usage: Usage::default(),
            session_id: None,
            stalled: None,
            confinement: None,
            answered: false,
            receipts: Vec::new(),
            questions: vec![OpenQuestion { question, asked_at: Timestamp::UNIX_EPOCH, denied_at }],
            closed_questions: Vec::new(),
        }
    }

    #[test]
    fn times_of_another_host_become_ages() {
        let elsewhere = Host { name: "n1".to_owned(), boot: "another".to_owned() };
        let here = process::monotonic().saturating_sub(Duration::from_secs(5));
        let read = status(Some(elsewhere)).seen_at(here);
        // The status was read five seconds ago, and nothing else counts: not the time of day, and not the other host's
        // uptime.
        assert!((505..510).contains(&read.ran().as_secs()), "{:?}", read.ran());
        assert!((25..30).contains(&read.idle().as_secs()), "{:?}", read.idle());
        assert_eq!(read.questions[0].denied_at, here.checked_add(Duration::from_secs(60)));
        assert!(!read.is_of_this_host());
    }

    #[test]
    fn times_of_this_host_stay() {
        for host in [None, Some(Host::own().clone())] {
            let began = process::monotonic().saturating_sub(Duration::from_secs(7));
            let read = LiveStatus { began, ..status(host) }.seen_at(Duration::ZERO);
            assert!((7..12).contains(&read.ran().as_secs()), "{:?}", read.ran());
            assert_eq!(read.questions[0].denied_at, Some(Duration::from_secs(1_000_060)));
        }
    }
}
