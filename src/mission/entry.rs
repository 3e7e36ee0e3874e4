//! What the journal says happened: one entry a change, and the registry is their fold.
//!
//! This is an on-disk form that several servers of different builds may share: fields are added with a default, never
//! renamed or given a new meaning; a change that an older reader would misread raises [`FORMAT`].

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::id::{BackendName, BossId, ServerId, WorkerId};
use super::lifecycle::Ending;
use super::message::{Cancelled, Message, not_heard};
use super::outcome::{Changes, Exit, FailureKind, LikelyCause, Outcome, Usage, Verification, tail};
use super::race::Race;
use super::registry::Worker;
use super::spec::Mission;

/// Format version of the journal and of the state file. A newer version is refused.
pub const FORMAT: u32 = 2;

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub seq: u64,
    pub at: Timestamp,
    /// Who wrote it.
    pub server: ServerId,
    pub entry: Entry,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "did", rename_all = "snake_case")]
pub enum Entry {
    /// A server began to work on this state directory.
    ServerJoined {
        boss: BossId,
        directory: PathBuf,
    },
    /// It went in order, or was found dead.
    ServersGone {
        servers: Vec<ServerId>,
    },
    /// A takeover: a boss without a session inherits the workers of such bosses in the same directory that are gone.
    BossSucceeded {
        from: Vec<BossId>,
        to: BossId,
    },
    /// The integration branch of all workers, as earlier builds recorded it. Now each worker records its own.
    IntegrationBranch {
        branch: String,
    },
    /// A whole batch in one line, so that it is recorded completely or not at all.
    Created {
        workers: Vec<NewWorker>,
    },
    /// The admission of a worker: a server dequeued it, and has the sole right to start this attempt.
    Starting {
        worker: WorkerId,
        attempt: u32,
    },
    /// An attempt that provably never began. The worker returns to the queue.
    Unstarted {
        worker: WorkerId,
        attempt: u32,
    },
    Running {
        worker: WorkerId,
        attempt: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        base_commit: Option<String>,
        /// The integration branch, if it contained the base then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        base_branch: Option<String>,
        /// The repository that the worker works in, if it is not the one of this state directory.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        repository: Option<PathBuf>,
    },
    Verifying {
        worker: WorkerId,
        attempt: u32,
    },
    Settled {
        worker: WorkerId,
        brief: Box<Brief>,
    },
    /// A further attempt was asked for.
    Requeued {
        worker: WorkerId,
        next: Box<NextAttempt>,
        /// The server that is to start it; whoever wrote this, where none is named.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lead: Option<ServerId>,
    },
    /// Something was added to what a queued worker will be told.
    Amended {
        worker: WorkerId,
        next: Box<NextAttempt>,
    },
    /// A queued worker goes to another backend than it was to, which takes no work now.
    Diverted {
        worker: WorkerId,
        next: Box<NextAttempt>,
        why: String,
    },
    /// A backend that was held was seen to answer, or to be logged in again.
    Answered {
        backend: BackendName,
    },
    CancelRequested {
        worker: WorkerId,
        by: BossId,
        reason: String,
    },
    /// Settlements and blocks that a wait is about to answer with. The line's `seq` identifies this delivery.
    #[serde(alias = "offered")]
    Notified {
        boss: BossId,
        settled: Vec<(WorkerId, u32)>,
        blocked: Vec<WorkerId>,
    },
    /// The acknowledgement of deliveries by a later request of the boss. It includes their content, which another
    /// server may have sent again meanwhile.
    #[serde(alias = "delivered")]
    Acknowledged {
        #[serde(alias = "offers")]
        deliveries: Vec<u64>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        settled: Vec<(WorkerId, u32)>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        blocked: Vec<WorkerId>,
    },
    /// The answer of a delivery was never sent.
    Withdrawn {
        #[serde(alias = "offer")]
        delivery: u64,
    },
    /// This server looks after these workers from now on.
    LeaseTaken {
        workers: Vec<WorkerId>,
    },
    Integrated {
        worker: WorkerId,
        into: String,
        commit: String,
        /// Where the worker's branch stood then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<String>,
        /// Whether commits of it were left out, since the user had removed them from the target.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        partial: bool,
    },
    WorktreeRemoved {
        worker: WorkerId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        salvage_ref: Option<String>,
    },
    /// These have moved into the history, where they were written before this.
    Archived {
        workers: Vec<WorkerId>,
    },
    /// Put back as they are here, whole: from the history, where something of them is to be changed, or from what a
    /// server knew of them when the journal was lost.
    Recalled {
        workers: Vec<Arc<Worker>>,
    },
}

impl Entry {
    /// Says how far the news came, or how far an attempt is, and changes nothing that another task could wait for.
    pub(super) fn is_only_news(&self) -> bool {
        matches!(
            self,
            Entry::Notified { .. }
                | Entry::Acknowledged { .. }
                | Entry::Withdrawn { .. }
                | Entry::Answered { .. }
                | Entry::Running { .. }
                | Entry::Verifying { .. }
        )
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewWorker {
    pub id: WorkerId,
    pub boss: BossId,
    pub mission: Mission,
    /// Names of environment variables (keys of its backend) that the server which created it has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// The race that the worker takes part in: others do the same task, and the first to complete it wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub race: Option<Race>,
    /// The branch that its work starts from and is merged into: its boss's integration branch at creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integration_branch: Option<String>,
}

/// The settings of the attempt that waits in the queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NextAttempt {
    pub backend: BackendName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effort: Option<String>,
    pub start: Start,
    /// Messages that were written for this attempt. `start` contains their texts too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub written: Vec<Message>,
}

/// The input of an attempt's first turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum Start {
    /// The mission's own prompt, in a new session.
    Mission,
    /// Another text in a new session; what the former attempt left in the worktree is there.
    Prompt { text: String },
    /// A text for the session of the former attempt.
    Resume { session_id: String, text: String },
}

/// An outcome as far as lists and waits need it; the whole record lies in the worker's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Brief {
    pub attempt: u32,
    pub backend: BackendName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    pub status: Ending,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<BriefFailure>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// The verification, with only the end of its log.
    pub verification: Verification,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub likely_cause: Option<LikelyCause>,
    pub changes: Changes,
    /// The beginning and the end of the agent's final message.
    pub final_message: String,
    #[serde(default)]
    pub says_blocked: bool,
    /// Messages that the attempt never received.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unheard: Vec<String>,
    #[serde(default)]
    pub denials: u32,
    #[serde(default)]
    pub usage: Usage,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// True if `usage` includes that of earlier attempts in the same session.
    #[serde(default)]
    pub usage_goes_on: bool,
    /// Time at which the service accepts work again, as it reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resets_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    pub seconds: u64,
    /// Duration including verification: see [`Brief::elapsed`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elapsed_seconds: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<Cancelled>,
    pub survivors: u32,
    /// It could not start because of the repository or its place in it, not because of the backend.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub place_failed: bool,
    /// Shared daemons that were left alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spared: Vec<String>,
    pub settled_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BriefFailure {
    pub kind: FailureKind,
    pub message: String,
}

/// How much of a failure's message and of a verification's log a brief holds, in bytes.
const BRIEF_TEXT: usize = 700;

impl Brief {
    /// Names the shared daemons that were left alone, once each.
    pub fn left_running(&self) -> Option<String> {
        let names: BTreeSet<&str> = self.spared.iter().map(String::as_str).collect();
        (!names.is_empty()).then(|| names.into_iter().collect::<Vec<_>>().join(", "))
    }

    /// What lists and waits show of an outcome.
    pub fn of(outcome: &Outcome, model: Option<String>) -> Self {
        let run = &outcome.run;
        let mut changes = outcome.changes.clone();
        changes.files.truncate(10);
        Self {
            attempt: outcome.attempt,
            backend: outcome.backend.clone(),
            model,
            status: outcome.status,
            failure: run.failure.as_ref().map(|failure| BriefFailure {
                kind: failure.kind,
                message: head(&failure.message, BRIEF_TEXT).to_owned(),
            }),
            exit: run.exit,
            verification: outcome.verification.clone().cut(BRIEF_TEXT),
            likely_cause: outcome.likely_cause.clone(),
            changes,
            final_message: ends(&run.final_message),
            says_blocked: run.says_blocked,
            unheard: run.unheard.clone(),
            denials: run.denials,
            usage: run.usage,
            session_id: run.session_id.clone(),
            usage_goes_on: run.usage_goes_on,
            resets_at: run.failure.as_ref().and_then(|failure| failure.resets_at),
            started_at: run.started_at,
            seconds: run.seconds.unwrap_or_default(),
            elapsed_seconds: run.elapsed_seconds,
            cancelled: run.cancelled.clone(),
            survivors: outcome.cleanup.survivors,
            place_failed: run.place_failed,
            spared: outcome.cleanup.spared.clone(),
            settled_at: outcome.settled_at,
        }
    }

    /// Returns the seconds from the beginning of the attempt to its end, including verification. Earlier builds
    /// recorded only the time until the end of the last turn, so the verification is added.
    pub fn elapsed(&self) -> u64 {
        self.elapsed_seconds.unwrap_or_else(|| self.seconds + self.verification.seconds().max(0.0) as u64)
    }

    /// Returns the reasons for its status and the messages that were not delivered.
    pub fn reasons(&self) -> Option<String> {
        reasons(self.failure.as_ref().map(|failure| failure.message.as_str()), &self.cancelled, &self.unheard)
    }
}

/// Joins the reasons for an attempt's status in one line: see [`Brief::reasons`].
pub fn reasons(failure: Option<&str>, cancelled: &Option<Cancelled>, unheard: &[String]) -> Option<String> {
    let cancelled = cancelled.as_ref().map(Cancelled::sentence);
    let parts = [failure.map(str::to_owned), cancelled, not_heard(unheard)];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Returns the first 400 and the last 1,200 bytes, which usually hold the plan and the result.
fn ends(text: &str) -> String {
    const HEAD: usize = 400;
    const TAIL: usize = 1_200;
    match text.len() <= HEAD + TAIL {
        true => text.to_owned(),
        false => format!("{}\n[…]\n{}", head(text, HEAD), tail(text, TAIL)),
    }
}

fn head(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}
