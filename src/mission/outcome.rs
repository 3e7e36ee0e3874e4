//! The outcome of an attempt on three axes: the run, the verification, the changes. It holds facts only: exit status 0
//! alone is no success, and an end that was not observed is `lost`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::confined::Confinement;
use super::id::{BackendName, WorkerId};
use super::lifecycle::Ending;
use super::message::Cancelled;

/// The record that settles an attempt. It is written once and never changed: by the supervisor, or by the server that
/// finds a lost attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub worker_id: WorkerId,
    pub attempt: u32,
    pub backend: BackendName,
    pub status: Ending,
    pub run: Run,
    pub verification: Verification,
    /// The likely cause of a failed verification, if the work does not seem to be at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub likely_cause: Option<LikelyCause>,
    pub changes: Changes,
    pub cleanup: Cleanup,
    pub settled_at: Timestamp,
}

impl Outcome {
    /// Removes the texts that are not needed for the outcome itself, so that the record is as small as possible.
    pub fn cut_texts(&mut self) {
        const KEPT: usize = 500;
        self.run.final_message = tail(&self.run.final_message, KEPT).to_owned();
        if let Some(setup) = &mut self.run.setup {
            setup.log_tail.clear();
        }
        self.verification = std::mem::take(&mut self.verification).cut(KEPT);
        self.changes.files.clear();
        self.run.denied.clear();
    }
}

/// The run, according to the CLI's structured result and the kernel.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Run {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// The setup that ran before its CLI. `None` if there was none to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup: Option<WorktreeSetup>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// The agent's final message, complete.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub final_message: String,
    /// Its last line began with `BLOCKED:`, which is only a hint.
    pub says_blocked: bool,
    /// Number of actions that the CLI refused for lack of permission.
    pub denials: u32,
    /// The first of these actions, each once: the tool, and its command, path or pattern.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denied: Vec<String>,
    pub usage: Usage,
    /// True if `usage` includes earlier attempts in the same session.
    pub usage_is_cumulative: bool,
    /// Messages that came too late. The next attempt receives them first.
    #[serde(rename = "unheard", default, skip_serializing_if = "Vec::is_empty")]
    pub undelivered: Vec<String>,
    pub turns: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// Duration from its beginning to the end of its last turn, by a monotonic clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
    /// Duration from its beginning to its record, including verification: see
    /// [`super::summary::AttemptSummary::elapsed`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elapsed_seconds: Option<u64>,
    /// It could not start because of the repository, its place in it or the cluster, not because of the backend.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub place_failed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<Cancelled>,
    /// The confinement by the kernel. `None` if its CLI never started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confinement: Option<Confinement>,
}

impl Run {
    /// Records the name of a refused action. The count of all comes with the end of the turn.
    pub fn record_denied(&mut self, what: &str) {
        const NAMES: usize = 10;
        const NAME: usize = 200;
        let name = &what[..what.floor_char_boundary(NAME)];
        let is_new = !name.is_empty() && self.denied.iter().all(|known| known != name);
        if is_new && self.denied.len() < NAMES {
            self.denied.push(name.to_owned());
        }
    }
}

/// A run of `setup_command`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorktreeSetup {
    pub command: String,
    pub passed: bool,
    pub seconds: f64,
    pub ended_at: Timestamp,
    /// The end of its output.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub log_tail: String,
    /// Number of tracked files that it changed. They are not work of the worker.
    #[serde(default)]
    pub changed_files: u32,
}

impl WorktreeSetup {
    /// Returns its result and duration, such as `passed (3.2 s)`.
    pub fn result(&self) -> String {
        format!("{} ({:.1} s)", if self.passed { "passed" } else { "failed" }, self.seconds)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

/// Tokens and cost of an attempt, as the CLI reported them.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Usage {
    pub input_tokens: u64,
    /// The part of `input_tokens` that was read from a cache.
    pub cached_tokens: u64,
    pub output_tokens: u64,
    /// The cost, if the CLI reports it (Claude Code, OpenCode). It is never estimated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
}

impl Usage {
    /// Returns the number of all tokens, in and out.
    pub fn tokens(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}

/// The reason why a run failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    pub kind: FailureKind,
    pub message: String,
    /// The time at which the service accepts work again, as it stated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resets_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Not logged in, a refused key, or an unpaid bill. A retry is useless.
    Auth,
    /// Too many requests at the moment.
    RateLimit,
    /// The plan's allowance is used up until it resets.
    UsageLimit,
    ModelNotFound,
    BadRequest,
    /// The service failed or is overloaded.
    Server,
    /// The connection broke.
    Network,
    ContextFull,
    /// The CLI's own limit on turns or steps.
    TurnLimit,
    /// `max_cost_usd` or `max_tokens` was reached.
    Budget,
    /// It lacked a permission.
    Permission,
    /// It ended without the structured result of this CLI.
    NoResult,
    /// The program, the worktree or the supervisor could not be started.
    CouldNotStart,
    /// `setup_command` failed or took too long, so the CLI was not started.
    SetupFailed,
    /// It wrote more than the limit on raw output.
    OutputLimit,
    /// It stalled twice, and the settings end such workers.
    Stalled,
    /// The run ended well, but the verification did not pass.
    Verification,
    /// The end of the supervisor was not observed either.
    Lost,
    /// The node of a cluster that ran it failed, or was cut off for good.
    HostLost,
    Other,
}

impl FailureKind {
    /// Returns whether it is no evidence of the backend's ability to do the task.
    pub fn is_circumstance(self) -> bool {
        matches!(
            self,
            FailureKind::Auth
                | FailureKind::RateLimit
                | FailureKind::UsageLimit
                | FailureKind::CouldNotStart
                | FailureKind::SetupFailed
                | FailureKind::HostLost
        )
    }

    pub fn as_str(self) -> &'static str {
        match self {
            FailureKind::Auth => "auth",
            FailureKind::RateLimit => "rate_limit",
            FailureKind::UsageLimit => "usage_limit",
            FailureKind::ModelNotFound => "model_not_found",
            FailureKind::BadRequest => "bad_request",
            FailureKind::Server => "server",
            FailureKind::Network => "network",
            FailureKind::ContextFull => "context_full",
            FailureKind::TurnLimit => "turn_limit",
            FailureKind::Budget => "budget",
            FailureKind::Permission => "permission",
            FailureKind::NoResult => "no_result",
            FailureKind::CouldNotStart => "could_not_start",
            FailureKind::SetupFailed => "setup_failed",
            FailureKind::OutputLimit => "output_limit",
            FailureKind::Stalled => "stalled",
            FailureKind::Verification => "verification",
            FailureKind::Lost => "lost",
            FailureKind::HostLost => "host_lost",
            FailureKind::Other => "other",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Verification {
    #[default]
    NotRequested,
    /// Requested, but the run failed, so there was nothing to verify.
    Skipped,
    /// `commit` is `None` in a directory of the user.
    Passed {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        commit: Option<String>,
        seconds: f64,
    },
    Failed {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        commit: Option<String>,
        exit: Exit,
        /// The end of its output.
        log_tail: String,
        seconds: f64,
    },
    TimedOut {
        seconds: f64,
        log_tail: String,
    },
    /// The command was not found, had no disk space, or was killed. This is no evidence against the work.
    CouldNotRun {
        why: String,
    },
    /// A pass during which the tree was changed.
    Inconclusive {
        why: String,
    },
}

/// The likely cause of a failed verification other than the work: the worktree lacks something, or the commit that the
/// work began at fails too. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LikelyCause {
    /// Files and folders that the main checkout has and the worktree lacks, those that the output points to first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<Missing>,
    /// The commit, without the work, on which the command fails in a fresh worktree too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fails_without: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Relative to the worktree.
    pub path: String,
    pub kind: MissingKind,
    /// The output of the verification points to it. Otherwise it is only possible that it matters.
    pub named: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingKind {
    /// A folder or file that a package manager installs.
    Dependencies,
    /// A submodule without its files.
    Submodule,
    /// A file of Git LFS of which only the pointer is present.
    LargeFile,
    /// A file of git-crypt of which only the encrypted content is present.
    Encrypted,
    /// A file with settings of this machine, such as `.env`.
    LocalFile,
    /// Any other ignored or untracked file, such as generated code.
    Untracked,
}

impl MissingKind {
    fn words(self) -> &'static str {
        match self {
            MissingKind::Dependencies => "installed dependencies",
            MissingKind::Submodule => "a submodule's files",
            MissingKind::LargeFile => "a Git LFS file of which only the pointer exists",
            MissingKind::Encrypted => "a git-crypt file that is still encrypted",
            MissingKind::LocalFile => "a local file that git ignores",
            MissingKind::Untracked => "not in git",
        }
    }

    /// Returns the fix, for the worker or the user.
    fn fix(self) -> &'static str {
        match self {
            MissingKind::Dependencies => "install the dependencies there",
            MissingKind::Submodule => {
                "run `git submodule update --init` there (or clone it there, if .gitmodules does not name it)"
            }
            MissingKind::LargeFile => "run `git lfs pull` there",
            MissingKind::Encrypted => "unlock git-crypt there",
            MissingKind::LocalFile => "put it there (`.worktreeinclude` brings such files into new worktrees)",
            MissingKind::Untracked => "create it there",
        }
    }
}

impl LikelyCause {
    /// Describes the commit that fails too and the first missing files, those without evidence as such.
    pub fn words(&self) -> String {
        let (named, possible): (Vec<&Missing>, Vec<&Missing>) = self.lacks.iter().partition(|lack| lack.named);
        let lacks =
            (!named.is_empty()).then(|| format!("the worktree lacks what the main checkout has: {}", first_of(&named)));
        let fails = self.fails_without.as_ref().map(|commit| {
            let commit = commit.get(..10).unwrap_or(commit);
            format!("the command also fails in a fresh worktree of {commit}, without this work")
        });
        let beside = match (named.is_empty(), possible.is_empty()) {
            (_, true) => None,
            (true, false) => Some(format!(
                "the worktree lacks {}, but the output does not name it, so this is only a possible cause",
                first_of(&possible)
            )),
            (false, false) => Some(format!("it also lacks {}, which the output does not name", first_of(&possible))),
        };
        lacks.into_iter().chain(fails).chain(beside).collect::<Vec<_>>().join("; ")
    }

    /// Returns a short form, for a line with more content.
    pub fn short(&self) -> String {
        let named: Vec<&Missing> = self.lacks.iter().filter(|lack| lack.named).collect();
        match named.as_slice() {
            [] => "base fails too".to_owned(),
            [only] => format!("lacks {}", only.path),
            [first, more @ ..] => format!("lacks {} and {} more", first.path, more.len()),
        }
    }

    /// Returns the fix for what the output points to. `None` if it points to nothing that is missing.
    pub fn fix(&self) -> Option<String> {
        let first = self.lacks.iter().find(|lack| lack.named)?;
        Some(format!("{} ({})", first.kind.fix(), first.path))
    }
}

/// Lists the first missing files.
fn first_of(lacks: &[&Missing]) -> String {
    const LISTED: usize = 4;
    let listed = lacks.iter().take(LISTED).map(|it| format!("{} ({})", it.path, it.kind.words()));
    let more = lacks.len().saturating_sub(LISTED);
    listed.chain((more > 0).then(|| format!("{more} more"))).collect::<Vec<_>>().join(", ")
}

impl Verification {
    /// Returns the name in the tool contract. A skipped or inconclusive verification counts as `could_not_run`;
    /// [`Verification::note`] gives the reason.
    pub fn as_str(&self) -> &'static str {
        match self {
            Verification::NotRequested => "not_requested",
            Verification::Passed { .. } => "passed",
            Verification::Failed { .. } => "failed",
            Verification::TimedOut { .. } => "timed_out",
            Verification::Skipped | Verification::CouldNotRun { .. } | Verification::Inconclusive { .. } => {
                "could_not_run"
            }
        }
    }

    /// Explains a verification that did not pass.
    pub fn note(&self) -> Option<String> {
        match self {
            Verification::NotRequested | Verification::Passed { .. } => None,
            Verification::Skipped => Some("the run did not end well, so there was nothing to verify".to_owned()),
            Verification::Failed { exit: Exit::Code(code), log_tail, .. } => {
                Some(format!("exit status {code}\n{log_tail}"))
            }
            Verification::Failed { exit: Exit::Signal(signal), log_tail, .. } => {
                Some(format!("ended by signal {signal}\n{log_tail}"))
            }
            Verification::TimedOut { seconds, log_tail } => Some(format!("stopped after {seconds:.0} s\n{log_tail}")),
            Verification::CouldNotRun { why } | Verification::Inconclusive { why } => Some(why.clone()),
        }
    }

    /// Returns its duration in seconds, or 0 if none was recorded.
    pub fn seconds(&self) -> f64 {
        match self {
            Verification::Passed { seconds, .. }
            | Verification::Failed { seconds, .. }
            | Verification::TimedOut { seconds, .. } => *seconds,
            _ => 0.0,
        }
    }

    pub fn commit(&self) -> Option<&str> {
        match self {
            Verification::Passed { commit, .. } | Verification::Failed { commit, .. } => commit.as_deref(),
            _ => None,
        }
    }

    /// Returns it with at most the last `most` bytes of its log.
    pub fn cut(self, most: usize) -> Self {
        let end = |text: String| tail(&text, most).to_owned();
        match self {
            Verification::Failed { commit, exit, log_tail, seconds } => {
                Verification::Failed { commit, exit, log_tail: end(log_tail), seconds }
            }
            Verification::TimedOut { seconds, log_tail } => Verification::TimedOut { seconds, log_tail: end(log_tail) },
            Verification::CouldNotRun { why } => Verification::CouldNotRun { why: end(why) },
            other => other,
        }
    }
}

/// The changes of a worker since its base.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Changes {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_commit: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
    pub commits: u32,
    pub files_changed: u32,
    pub insertions: u32,
    pub deletions: u32,
    /// The first changed files, by path. `files_changed` counts all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// Number of uncommitted files.
    pub uncommitted: u32,
    /// Number of files that the worker left uncommitted and that orchestrator-boss committed.
    pub committed_by_us: u32,
    /// Files outside the worktree that the worker's CLI reports as edited.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outside_worktree: Vec<String>,
    /// Changes in the main checkout while the worker ran, in words. Their author is unknown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub main_checkout_changes: Vec<String>,
    /// Facts that could not be determined, with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Parts of its work that its branch did not hold when it settled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_on_branch: Vec<NotOnBranch>,
}

/// A part of a worker's work that its branch does not hold, so that no integration includes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotOnBranch {
    pub what: String,
    /// A path, a ref or a commit.
    #[serde(rename = "where")]
    pub place: String,
    pub how_to_include: String,
    /// Set if the part is about files that an integration checks again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<PartFiles>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartFiles {
    Uncommitted,
    /// Files and folders that git ignores; `None` if there were too many.
    Ignored(Option<Vec<String>>),
}

impl PartFiles {
    /// Returns the paths if these are ignored files, the inner `None` if there were too many to record.
    pub fn ignored(&self) -> Option<Option<&[String]>> {
        match self {
            PartFiles::Ignored(paths) => Some(paths.as_deref()),
            PartFiles::Uncommitted => None,
        }
    }
}

/// The cleanup of the worker's processes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Cleanup {
    pub survivors: u32,
    pub containment: Containment,
    /// Processes that outlived the CLI and that the supervisor or server ended.
    pub ended: u32,
    /// Allowlisted daemons that were left running.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub daemons_left: Vec<String>,
}

/// The certainty that no process of the worker is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Containment {
    /// Every process that could be the worker's was checked, and the process that ended them adopts every orphan.
    Full,
    /// The system hid something, or orphans without the tag could have escaped before the scan.
    #[default]
    BestEffort,
}

/// Returns the last `most` bytes of a text, or slightly fewer so that no character is cut.
pub fn tail(text: &str, most: usize) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(most))..]
}

/// Returns the reason in an agent's `BLOCKED:` line, which must be its last line.
pub fn blocked_by(final_message: &str) -> Option<&str> {
    let line = final_message.trim_end().lines().next_back()?.trim_start();
    line.strip_prefix("BLOCKED:").map(str::trim)
}

/// Returns whether the agent reports that it is blocked. Only the last line counts, so that prose about blocking does
/// not match.
pub fn says_blocked(final_message: &str) -> bool {
    blocked_by(final_message).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_line_counts() {
        assert!(says_blocked("I tried.\nBLOCKED: no network\n\n"));
        assert!(!says_blocked("BLOCKED: at first, then it worked\nDone."));
        assert!(!says_blocked(""));
    }

    #[test]
    fn names_of_denied_actions_are_few_and_short() {
        let mut run = Run::default();
        ["", "Bash: ls", "Bash: ls", &"é".repeat(300)].into_iter().for_each(|what| run.record_denied(what));
        assert_eq!(run.denied, ["Bash: ls".to_owned(), "é".repeat(100)]);
        (0..20).for_each(|number| run.record_denied(&format!("Write: {number}")));
        assert_eq!(run.denied.len(), 10);
    }
}
