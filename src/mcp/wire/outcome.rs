//! The outcome of an attempt: run, verification and changes.

use schemars::JsonSchema;
use serde::Serialize;

use super::{ObjectPlaceholder, OutcomePlaceholder, is_zero};
use crate::mcp::size;
use crate::mission::entry;
use crate::mission::lifecycle::Ending;
use crate::mission::outcome::{Changes, Exit, FailureKind, LikelyCause, NotOnBranch, Outcome, Usage, Verification};

const LIKELY_CAUSE: usize = 400;

/// Maximum size in bytes of the final message: roughly its first 400 and its last 1,200 characters.
pub(super) const FINAL_MESSAGE: usize = 1_700;

/// Maximum sizes in bytes: of the work that is not on the branch, of one note, and of all notes.
pub(super) const NOT_ON_BRANCH: usize = 2_400;
pub(super) const NOTE: usize = 500;
pub(super) const NOTES: usize = 1_200;
/// Maximum size in bytes of the names of refused actions.
pub(super) const DENIED: usize = 800;

/// Three separate results, from facts and never from prose.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(in crate::mcp) struct OutcomeReport {
    pub(super) run: RunReport,
    pub(super) verification: VerificationReport,
    pub(super) changes: ChangesReport,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(in crate::mcp) struct RunReport {
    /// completed, failed, cancelled, timed_out, interrupted or lost.
    result: &'static str,
    /// turn_complete, verification_failed, auth_error, rate_limited, usage_limit, model_error, crashed, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(in crate::mcp) struct VerificationReport {
    /// passed, failed, timed_out, could_not_run or not_requested.
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    /// Absent if it is the head_commit of the changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) commit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) output_tail: Option<String>,
    /// Set if the failure seems to have another cause than the work.
    #[serde(skip_serializing_if = "Option::is_none")]
    likely_cause: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(in crate::mcp) struct ChangesReport {
    commits: u32,
    files_changed: u32,
    insertions: u32,
    deletions: u32,
    /// At the end of the turn; in a worktree they were then committed to its branch.
    #[serde(skip_serializing_if = "is_zero")]
    uncommitted: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) head_commit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) base_commit: Option<String>,
    /// Files outside its directory that its CLI reports as edited.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    outside_worktree: Vec<String>,
    /// Changes in the main checkout during the run; their author is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    main_checkout_changed: Option<String>,
    /// Number of actions that its CLI refused for lack of permission.
    #[serde(skip_serializing_if = "is_zero")]
    permission_denials: u32,
    /// The first of them, each once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) denied: Vec<String>,
    /// [{what, where, how_to_include}]: work that was not on its branch when it settled, and so is not integrated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<ObjectPlaceholder>")]
    pub(super) not_on_branch: Vec<NotOnBranchReport>,
    /// The first changed files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) files: Vec<String>,
    /// Facts that could not be gathered, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(in crate::mcp) struct NotOnBranchReport {
    what: String,
    #[serde(rename = "where", skip_serializing_if = "String::is_empty")]
    place: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    how_to_include: String,
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(in crate::mcp) struct AttemptReport {
    attempt: u32,
    backend: String,
    #[schemars(with = "OutcomePlaceholder")]
    outcome: OutcomeReport,
    settled_at: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    final_message: String,
}

impl OutcomeReport {
    /// Builds a report without the texts, which the worker adds if they fit.
    pub(super) fn of_brief(brief: &entry::AttemptSummary) -> Self {
        let reason = match (&brief.failure, brief.status) {
            (Some(failure), _) => Some(reason(failure.kind)),
            (None, Ending::Completed) => Some("turn_complete"),
            (None, _) => None,
        };
        let (exit_code, signal) = exit(brief.exit);
        Self {
            run: RunReport { result: brief.status.as_str(), reason, message: None, exit_code, signal },
            verification: VerificationReport::new(&brief.verification).because(brief.likely_cause.as_ref()),
            changes: ChangesReport::new(&brief.changes, brief.denials),
        }
    }

    fn of_outcome(outcome: &Outcome, text: usize) -> Self {
        let failure = outcome.run.failure.as_ref();
        let (exit_code, signal) = exit(outcome.run.exit);
        let note = outcome.verification.note();
        Self {
            run: RunReport {
                result: outcome.status.as_str(),
                reason: failure.map(|failure| reason(failure.kind)),
                message: entry::reasons(
                    failure.map(|failure| failure.message.as_str()),
                    &outcome.run.cancelled,
                    &outcome.run.undelivered,
                )
                .map(|reasons| size::ends(&reasons, text)),
                exit_code,
                signal,
            },
            verification: VerificationReport {
                output_tail: note.map(|note| size::ends(&note, text)),
                ..VerificationReport::new(&outcome.verification).because(outcome.likely_cause.as_ref())
            },
            changes: ChangesReport {
                not_on_branch: not_on_branch(&outcome.changes, NOT_ON_BRANCH),
                notes: notes(&outcome.changes, NOTES),
                denied: denied(&outcome.run.denied, DENIED),
                ..ChangesReport::new(&outcome.changes, outcome.run.denials)
            },
        }
    }
}

impl VerificationReport {
    /// Builds a report with the end of the output, if it did not pass.
    pub(in crate::mcp) fn with_tail(verification: &Verification, most: usize) -> Self {
        let output_tail = verification.note().map(|note| size::ends(&note, most));
        Self { output_tail, ..Self::new(verification) }
    }

    pub(in crate::mcp) fn because(mut self, cause: Option<&LikelyCause>) -> Self {
        self.likely_cause = cause.map(|cause| size::line(&cause.words(), LIKELY_CAUSE));
        self
    }

    /// Builds a report without the output.
    fn new(verification: &Verification) -> Self {
        let exit_code = match verification {
            Verification::Passed { .. } => Some(0),
            Verification::Failed { exit: Exit::Code(code), .. } => Some(*code),
            _ => None,
        };
        let commit = verification.commit().map(|commit| size::line(commit, 64));
        Self { result: verification.as_str(), exit_code, commit, output_tail: None, likely_cause: None }
    }
}

impl ChangesReport {
    fn new(changes: &Changes, denials: u32) -> Self {
        Self {
            commits: changes.commits,
            files_changed: changes.files_changed,
            insertions: changes.insertions,
            deletions: changes.deletions,
            uncommitted: changes.uncommitted + changes.committed_by_us,
            head_commit: changes.head.as_deref().map(|commit| size::line(commit, 64)),
            base_commit: changes.base_commit.as_deref().map(|commit| size::line(commit, 64)),
            outside_worktree: changes.outside_worktree.iter().take(3).map(|path| size::line(path, 120)).collect(),
            main_checkout_changed: main_checkout(&changes.main_checkout_changes),
            permission_denials: denials,
            denied: Vec::new(),
            not_on_branch: Vec::new(),
            files: Vec::new(),
            notes: Vec::new(),
        }
    }
}

impl NotOnBranchReport {
    pub(in crate::mcp) fn new(part: &NotOnBranch) -> Self {
        Self {
            what: one_line(&part.what, 400),
            place: one_line(&part.place, 260),
            how_to_include: one_line(&part.how_to_include, 600),
        }
    }

    /// Returns a placeholder for parts that did not fit.
    pub(in crate::mcp) fn more(count: usize) -> Self {
        let what = format!("and {count} more");
        Self { what, place: String::new(), how_to_include: String::new() }
    }
}

impl AttemptReport {
    pub(in crate::mcp) fn new(outcome: &Outcome) -> Self {
        Self {
            attempt: outcome.attempt,
            backend: outcome.backend.to_string(),
            outcome: OutcomeReport::of_outcome(outcome, 800),
            settled_at: outcome.settled_at.to_string(),
            final_message: size::ends(&outcome.run.final_message, FINAL_MESSAGE),
        }
    }
}

/// Returns the parts that fit, and a placeholder for the others.
pub(super) fn not_on_branch(changes: &Changes, room: usize) -> Vec<NotOnBranchReport> {
    size::fit_or_count(changes.not_on_branch.iter().map(NotOnBranchReport::new), room, NotOnBranchReport::more)
}

pub(super) fn notes(changes: &Changes, room: usize) -> Vec<String> {
    if room == 0 {
        return Vec::new();
    }
    size::fit_or_count(changes.notes.iter().map(|note| one_line(note, NOTE)), room, |more| format!("and {more} more"))
}

/// Returns the names of refused actions that fit.
pub(super) fn denied(names: &[String], room: usize) -> Vec<String> {
    size::fit(names.iter().map(|name| size::line(name, 200)), room).0
}

/// Returns the size of a list; 0 if empty, as it is left out then.
pub(super) fn size_of_list<T: Serialize>(list: &[T]) -> usize {
    if list.is_empty() { 0 } else { size::of(&list) }
}

/// Shortens a text to one line. It keeps the end, which holds the cause.
fn one_line(text: &str, most: usize) -> String {
    size::line(&size::ends(&size::line(text, usize::MAX), most), most)
}

pub(super) fn tokens(usage: &Usage) -> Option<u64> {
    Some(usage.tokens()).filter(|tokens| *tokens > 0)
}

/// Returns the reason in the words of the contract.
fn reason(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Auth => "auth_error",
        FailureKind::RateLimit => "rate_limited",
        FailureKind::Server => "model_error",
        FailureKind::Network => "network_error",
        FailureKind::NoResult => "crashed",
        FailureKind::Verification => "verification_failed",
        kind => kind.as_str(),
    }
}

fn main_checkout(changes: &[String]) -> Option<String> {
    (!changes.is_empty()).then(|| size::line(&changes.join("; "), 160))
}

fn exit(exit: Option<Exit>) -> (Option<i32>, Option<i32>) {
    match exit {
        Some(Exit::Code(code)) => (Some(code), None),
        Some(Exit::Signal(signal)) => (None, Some(signal)),
        None => (None, None),
    }
}
