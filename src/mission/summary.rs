//! The summary of an outcome that the registry keeps of each attempt. The whole record is in the worker's folder. Pure.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::confined::Confinement;
use super::id::BackendName;
use super::lifecycle::Ending;
use super::message::{Cancelled, describe_undelivered};
use super::outcome::{Changes, Exit, FailureKind, LikelyCause, Outcome, Usage, Verification, WorktreeSetup, tail};

/// The part of an outcome record that lists and waits need.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptSummary {
    pub attempt: u32,
    pub backend: BackendName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    pub status: Ending,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureSummary>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// The setup, without its log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup: Option<WorktreeSetup>,
    /// The verification, with only the end of its log.
    pub verification: Verification,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub likely_cause: Option<LikelyCause>,
    pub changes: Changes,
    /// The beginning and the end of the agent's final message.
    pub final_message: String,
    pub says_blocked: bool,
    /// Messages that the attempt never received.
    #[serde(rename = "unheard", default, skip_serializing_if = "Vec::is_empty")]
    pub undelivered: Vec<String>,
    pub denials: u32,
    /// The first actions that the CLI refused: see [`super::outcome::Run`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denied: Vec<String>,
    pub usage: Usage,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// True if `usage` includes that of earlier attempts in the same session.
    pub usage_is_cumulative: bool,
    /// Time at which the service accepts work again, as it reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resets_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    pub seconds: u64,
    /// Duration including verification: see [`AttemptSummary::elapsed`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elapsed_seconds: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<Cancelled>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confinement: Option<Confinement>,
    pub survivors: u32,
    /// It could not start because of the repository, its place in it or the cluster, not because of the backend.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub place_failed: bool,
    /// Allowlisted daemons that were left running.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub daemons_left: Vec<String>,
    pub settled_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailureSummary {
    pub kind: FailureKind,
    pub message: String,
}

/// Maximum size of a failure's message and of a verification's log, in bytes.
const BRIEF_TEXT: usize = 700;

impl AttemptSummary {
    /// Returns the names of the daemons that were left running, once each.
    pub fn left_running(&self) -> Option<String> {
        let names: BTreeSet<&str> = self.daemons_left.iter().map(String::as_str).collect();
        (!names.is_empty()).then(|| names.into_iter().collect::<Vec<_>>().join(", "))
    }

    /// Summarizes an outcome record.
    pub fn of(outcome: &Outcome, model: Option<String>) -> Self {
        let run = &outcome.run;
        let mut changes = outcome.changes.clone();
        changes.files.truncate(10);
        Self {
            attempt: outcome.attempt,
            backend: outcome.backend.clone(),
            model,
            status: outcome.status,
            failure: run.failure.as_ref().map(|failure| FailureSummary {
                kind: failure.kind,
                message: head(&failure.message, BRIEF_TEXT).to_owned(),
            }),
            exit: run.exit,
            setup: run.setup.clone().map(|setup| WorktreeSetup { log_tail: String::new(), ..setup }),
            verification: outcome.verification.clone().cut(BRIEF_TEXT),
            likely_cause: outcome.likely_cause.clone(),
            changes,
            final_message: ends(&run.final_message),
            says_blocked: run.says_blocked,
            undelivered: run.undelivered.clone(),
            denials: run.denials,
            denied: run.denied.clone(),
            usage: run.usage,
            session_id: run.session_id.clone(),
            usage_is_cumulative: run.usage_is_cumulative,
            resets_at: run.failure.as_ref().and_then(|failure| failure.resets_at),
            started_at: run.started_at,
            seconds: run.seconds.unwrap_or_default(),
            elapsed_seconds: run.elapsed_seconds,
            cancelled: run.cancelled.clone(),
            confinement: run.confinement.clone(),
            survivors: outcome.cleanup.survivors,
            place_failed: run.place_failed,
            daemons_left: outcome.cleanup.daemons_left.clone(),
            settled_at: outcome.settled_at,
        }
    }

    /// Returns the seconds from the beginning of the attempt to its end, including verification.
    pub fn elapsed(&self) -> u64 {
        self.elapsed_seconds.unwrap_or(self.seconds)
    }

    /// Returns the names of the refused actions, and their number if there were more.
    pub fn denied_lines(&self) -> Vec<String> {
        let more = self.denials as usize > self.denied.len();
        let count = more.then(|| format!("{} in all", self.denials));
        self.denied.iter().cloned().chain(count).collect()
    }

    /// Returns the reasons for its status and the messages that were not delivered.
    pub fn reasons(&self) -> Option<String> {
        reasons(self.failure.as_ref().map(|failure| failure.message.as_str()), &self.cancelled, &self.undelivered)
    }
}

/// Joins the reasons for an attempt's status in one line: see [`AttemptSummary::reasons`].
pub fn reasons(failure: Option<&str>, cancelled: &Option<Cancelled>, undelivered: &[String]) -> Option<String> {
    let cancelled = cancelled.as_ref().map(Cancelled::sentence);
    let parts = [failure.map(str::to_owned), cancelled, describe_undelivered(undelivered)];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Returns the first 400 and the last 1,200 bytes, which usually hold the plan and the result.
fn ends(text: &str) -> String {
    const HEAD: usize = 400;
    const TAIL: usize = 1_200;
    if text.len() <= HEAD + TAIL {
        return text.to_owned();
    }
    format!("{}\n[…]\n{}", head(text, HEAD), tail(text, TAIL))
}

fn head(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}
