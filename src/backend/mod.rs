//! The adapters: what each CLI wants on its command line, and what its output lines mean.
//!
//! Pure. A backend turns a [`Turn`] into a [`LaunchPlan`] and lines of output into [`AgentEvent`]s; it never spawns,
//! reads a file or looks at a clock. So each CLI is one short file with recorded streams as its tests. A new CLI is
//! one file, one folder of recordings and one line in [`Backends::with_custom`].

mod catalog;
mod claude_code;
mod codex;
mod custom;
mod environment;
mod failure;
mod gemini;
mod lines;
mod objects;
mod opencode;
mod probe;
mod registry;
mod words;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::mission::hint::{Hint, Hinted};
use crate::mission::outcome::{Exit, Failure, Usage};
use crate::mission::spec::{Mission, Permissions};

pub use catalog::{efforts_of, example_model, owner_of};
pub use claude_code::ClaudeCode;
pub use codex::Codex;
pub use custom::{CustomBackend, CustomError, CustomOutput};
pub use environment::is_the_bosses;
pub use gemini::Gemini;
pub use objects::{LongLine, Short};
pub use opencode::OpenCode;
pub use probe::{read_version, untested};
pub use registry::{Backends, UnknownBackend};

/// One CLI.
pub trait Backend: Send + Sync {
    /// The name that missions use, such as `codex`.
    fn name(&self) -> &str;

    /// The program to look for on the PATH.
    fn program(&self) -> &str;

    /// Checks a mission before anything is made for it. Refuses a model of another backend, and a permission or a
    /// budget that this CLI cannot enforce. Returns how far the CLI enforces the worker's permissions.
    fn check(&self, mission: &Mission) -> Result<Enforcement, Refusal>;

    /// Returns how far the CLI enforces these permissions.
    fn enforcement(&self, permissions: Permissions) -> Enforcement;

    /// Returns whether the CLI reports its usage while it works, so that a budget can be enforced. Other CLIs report it
    /// at the end of a turn.
    fn tells_usage_in_time(&self) -> bool {
        false
    }

    /// Returns files, relative to a folder of the project, that the CLI edits by itself when it reads them.
    fn edits_by_itself(&self) -> &'static [&'static str] {
        &[]
    }

    /// Returns the text of such a file without that edit; `None` if the CLI made no such edit.
    fn without_own_edit(&self, _before: &str, _now: &str) -> Option<String> {
        None
    }

    /// Returns how to start one turn.
    fn plan(&self, turn: &Turn<'_>) -> LaunchPlan;

    /// Returns a decoder for the output of one process of this CLI.
    fn decoder(&self, turn: &Turn<'_>) -> Box<dyn Decoder>;

    /// Encodes a message for the running turn as bytes for stdin, with the newline. `None`: the CLI reads no messages
    /// while it runs.
    fn live_message(&self, _id: Uuid, _text: &str) -> Option<String> {
        None
    }

    /// Returns whether a running turn can receive messages.
    fn hears_messages(&self) -> bool {
        self.live_message(Uuid::nil(), "").is_some()
    }

    /// Returns whether the CLI hides the user's git configuration from its tools, so that it needs an identity for
    /// commits.
    fn hides_identity(&self) -> bool {
        false
    }

    /// Returns how to find out whether the CLI is installed and logged in.
    fn probe(&self) -> Probe;
}

/// Everything that a plan may depend on.
#[derive(Debug, Clone)]
pub struct Turn<'a> {
    pub mission: &'a Mission,
    /// The text for this turn, frame included.
    pub prompt: &'a str,
    /// The directory in which the CLI runs; absolute, symlinks resolved.
    pub dir: &'a Path,
    pub session: Session<'a>,
    /// The id of the turn's first message, for CLIs that give receipts. Every turn has one.
    pub message_id: Uuid,
    /// The directories that a commit writes to, when `dir` is in a repository.
    pub git: Option<GitDirs<'a>>,
    /// Name and e-mail for commits, for backends with [`Backend::hides_identity`].
    pub identity: Option<(&'a str, &'a str)>,
    /// A folder of this attempt's own, for files that the plan wants written.
    pub scratch: &'a Path,
    /// Names under which the user registered this server with this CLI. They keep a worker from starting it again.
    pub own_registrations: &'a [String],
    /// True if this process runs as root.
    pub root: bool,
}

impl Turn<'_> {
    /// Returns the whole worktree if the CLI runs in a subfolder of it: its tools may write there too.
    pub fn around(&self) -> Option<&Path> {
        self.mission.place.subfolder().map(|_| self.mission.place.path()).filter(|top| *top != self.dir)
    }
}

#[derive(Debug, Clone, Copy)]
pub struct GitDirs<'a> {
    /// The Git directory of the repository, shared by all its worktrees.
    pub common: &'a Path,
    /// The Git directory of this worktree; the same as `common` in the main worktree.
    pub own: &'a Path,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Session<'a> {
    /// A new one; CLIs that let us choose the id take this one.
    New(Uuid),
    Resume(&'a str),
}

/// A process to start. The environment is what the supervisor has, less `env_remove`, plus `env_set`.
#[derive(Debug, Clone, PartialEq)]
pub struct LaunchPlan {
    pub program: String,
    pub args: Vec<String>,
    pub env_set: BTreeMap<String, String>,
    /// Exact names, or prefixes that end in `*`.
    pub env_remove: Vec<String>,
    pub stdin: Stdin,
    /// Files to write before the start: path (inside `scratch`) and content.
    pub files: Vec<(std::path::PathBuf, String)>,
    /// How to make the process end, from gentle to certain. SIGKILL and the sweep follow by themselves.
    pub stop: Vec<StopStep>,
}

impl LaunchPlan {
    /// Whether a variable of the supervisor's own environment is kept from the process. `env_set` wins over this.
    pub fn removes(&self, variable: &str) -> bool {
        self.env_remove.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => variable.starts_with(prefix),
            None => variable == pattern,
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stdin {
    /// Written, then closed.
    Once(String),
    /// Written and held open for [`Backend::live_message`]; closed when the worker is done.
    Held(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopStep {
    pub signal: StopSignal,
    pub grace: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StopSignal {
    Interrupt,
    Terminate,
}

/// Who keeps a worker to its permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enforcement {
    /// The kernel: the CLI runs its commands in a sandbox.
    Sandbox,
    /// The CLI refuses by its own rules.
    Cli,
    /// Nobody: the prompt asks for it.
    None,
}

/// A mission that this backend cannot take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("cannot use the model {model:?} with {backend:?}: it belongs to the backend {belongs_to:?}")]
    ForeignModel { model: String, belongs_to: String, backend: String, example: String },
    #[error("cannot use the model {model:?} with {backend:?}: {accepted}")]
    Model { backend: String, model: String, accepted: String },
    #[error("cannot use the effort {effort:?} with {backend:?}: it accepts {accepted}")]
    Effort { backend: String, effort: String, accepted: String },
    #[error("cannot limit a worker of {backend:?} to the permissions {}", permissions_word(*permissions))]
    Permissions { backend: String, permissions: Permissions, fix: String },
    #[error("cannot limit the cost of {backend:?}: it does not report what a run costs")]
    Cost { backend: String },
}

impl Hinted for Refusal {
    fn hints(&self) -> Vec<Hint> {
        match self {
            Self::ForeignModel { belongs_to, backend, example, .. } => vec![
                Hint::to(format!("name the backend {belongs_to:?}")),
                Hint::to(format!("name a model of {backend:?}, such as {example:?}")),
                Hint::to("leave out model_override"),
            ],
            Self::Permissions { fix, .. } => vec![Hint::to(fix)],
            Self::Cost { .. } => {
                vec![Hint::to("use max_tokens or timeout_minutes"), Hint::to("choose another backend")]
            }
            Self::Effort { .. } => {
                vec![Hint::to("use one that it accepts"), Hint::to("leave out model_effort")]
            }
            Self::Model { .. } => vec![Hint::to("name another model"), Hint::to("leave out model_override")],
        }
    }
}

/// As missions write it.
fn permissions_word(permissions: Permissions) -> &'static str {
    match permissions {
        Permissions::ReadOnly => "read_only",
        Permissions::Edit => "edit",
        Permissions::Full => "full",
    }
}

/// Reads one process's stdout.
pub trait Decoder: Send {
    /// One line, without its newline. A line that makes no sense is a `Warning` or nothing, never an error.
    fn line(&mut self, line: &str) -> Vec<AgentEvent>;

    /// The process is gone. `stderr_tail` is the end of its stderr, a few kB at most: for the words of a failure,
    /// never for deciding whether there was one.
    fn end(&mut self, exit: Exit, stderr_tail: &str) -> TurnReport;
}

/// What a turn came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TurnReport {
    /// `Ok` only by the CLI's structured end.
    pub end: Result<(), Failure>,
    pub session_id: Option<String>,
    pub final_message: String,
    /// As this CLI counts: see `usage_is_cumulative`.
    pub usage: Usage,
    /// The numbers go on from turn to turn of one session (Codex, Claude Code, whose cost and tokens both do), so keep
    /// the larger of what was known and what is reported: a turn that failed or was killed may report less, or nothing.
    /// Otherwise the supervisor adds the turns up. The same holds for `AgentEvent::Usage`, which within one process
    /// always replaces the one before.
    pub usage_is_cumulative: bool,
    pub denials: u32,
}

/// What happened, in words that are the same for every CLI. One line of `events.jsonl` each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum AgentEvent {
    Session {
        id: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
    },
    Said {
        text: String,
    },
    Thought {
        text: String,
    },
    /// `what` is one line: the command, the path, the pattern.
    ToolStarted {
        id: String,
        tool: String,
        what: String,
    },
    /// `ok` is what the CLI says; `None` where it does not tell a failed command from a good one.
    ToolEnded {
        id: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ok: Option<bool>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_code: Option<i32>,
        /// The end of its output, a few kB at most.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        output: String,
    },
    Edited {
        paths: Vec<String>,
    },
    /// The CLI refused itself something for want of permission.
    Denied {
        what: String,
    },
    /// The CLI tries again by itself. `fatal`: its retries are pointless (a refused key), stop it now.
    Retrying {
        failure: Failure,
        fatal: bool,
    },
    /// A live message that reached the model.
    Received {
        message_id: Uuid,
        /// The message's text. The CLI itself reports only the id.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
    },
    Usage {
        usage: Usage,
    },
    Warning {
        text: String,
    },
    /// The end of a turn without background tasks: the process, if alive, only waits for more input. `Busy` may follow
    /// soon (a background task that has just ended wakes the agent), so wait a few seconds.
    Idle,
    /// Another turn that began by itself in the same process (a background task ended, a queued message was read).
    Busy,
}

/// How to ask a CLI about itself. The answers are read here; asking is done elsewhere.
#[derive(Debug, Clone)]
pub struct Probe {
    pub version_args: Vec<String>,
    /// The CLI's own status command, where it has one that needs no network.
    pub auth_args: Option<Vec<String>>,
    /// Environment variables of which one is enough to be logged in; only their presence is looked at.
    pub key_variables: Vec<String>,
    /// Files whose existence shows a login, relative to the home folder or to the folder that the given variable names.
    pub login_files: Vec<LoginFile>,
    /// The command that fixes a missing installation, and the one that fixes a missing login.
    pub install_command: String,
    pub login_command: String,
    /// Reads stdout and exit code of `auth_args`; `None` when they do not tell.
    pub read_auth: fn(&str, i32) -> Option<bool>,
    pub own_service: Option<OwnService>,
    /// The versions that this adapter was tested with.
    pub tested_version: String,
}

/// A CLI may be configured to talk to a service with a login of its own, of which its status command knows nothing.
#[derive(Debug, Clone)]
pub struct OwnService {
    pub config: LoginFile,
    /// Reads the configuration's content.
    pub is_used: fn(&str) -> bool,
}

#[derive(Debug, Clone)]
pub struct LoginFile {
    /// A variable that moves the folder, with the folder below the home that it stands for.
    pub variable: Option<String>,
    pub default_folder: String,
    pub file: String,
}
