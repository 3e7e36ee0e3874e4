//! The adapters of the CLIs: their command lines, and the meaning of their output.
//!
//! Backends are pure. A backend turns a [`Turn`] into a [`LaunchPlan`] and lines of output into [`AgentEvent`]s; it
//! never spawns, reads a file or reads a clock. The header of `src/lib.rs` lists
//! the steps for a new CLI.

mod acp;
mod agents;
mod catalog;
mod claude_code;
mod codex;
mod custom;
mod environment;
mod failure;
mod gemini;
mod lines;
#[cfg(test)]
mod messages;
mod objects;
mod opencode;
mod probe;
mod registry;
mod state;
mod words;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::mission::hint::{Hint, Hinted};
use crate::mission::outcome::{Exit, Failure, Usage};
use crate::mission::question::{Decider, Decision, Question, QuestionRules, Verdict};
use crate::mission::spec::{Mission, Permissions};

pub use acp::UsageMeaning;
pub use agents::{AcpAgent, AgentFacts, Evidence};
pub use catalog::{efforts_of, example_model, owner_of};
pub use claude_code::ClaudeCode;
pub use codex::{Codex, is_below_daemon, queue_arguments};
pub use custom::{CustomBackend, CustomError, CustomOutput};
pub use environment::is_boss_variable;
pub use gemini::Gemini;
pub use objects::{LongLine, ShortenedLine};
pub use opencode::OpenCode;
pub use probe::{read_version, untested};
pub use registry::{Backends, UnknownBackend};

/// The adapter of one CLI.
pub trait Backend: Send + Sync {
    /// Returns the name that missions use, such as `codex`.
    fn name(&self) -> &str;

    /// Returns the program to search on the PATH.
    fn program(&self) -> &str;

    /// Checks a mission before anything is made for it. Refuses a model of another backend, and a permission or a
    /// budget that this CLI cannot enforce. Returns how far the CLI enforces the worker's permissions.
    fn check(&self, mission: &Mission) -> Result<Enforcement, Refusal>;

    /// Returns how far the CLI enforces these permissions.
    fn enforcement(&self, permissions: Permissions) -> Enforcement;

    /// Returns whether the CLI reports its usage while it works, so that a budget can be enforced. Other CLIs report it
    /// at the end of a turn.
    fn reports_usage_in_time(&self) -> bool {
        false
    }

    /// Returns files, relative to a folder of the project, that the CLI edits by itself when it reads them.
    fn self_edited_files(&self) -> &'static [&'static str] {
        &[]
    }

    /// Returns the text of such a file without that edit; `None` if the CLI made no such edit.
    fn without_self_edit(&self, _before: &str, _now: &str) -> Option<String> {
        None
    }

    /// Returns the folders in which the CLI keeps its sessions, logins and logs. A confined CLI can write them.
    fn state_folders(&self) -> Vec<StateFolder> {
        Vec::new()
    }

    /// Returns how to start one turn.
    fn plan(&self, turn: &Turn<'_>) -> LaunchPlan;

    /// Returns a decoder for the output of one process of this CLI.
    fn decoder(&self, turn: &Turn<'_>) -> Box<dyn Decoder>;

    /// Returns whether a running turn can receive messages, by [`Decoder::message`].
    fn accepts_live_messages(&self) -> bool {
        false
    }

    /// Returns whether the CLI asks before some of its actions, so that [`Decoder::answer`] can answer.
    fn asks(&self) -> bool {
        false
    }

    /// Returns whether the CLI passes the reason of a denial to the model.
    fn takes_reasons(&self) -> bool {
        false
    }

    /// Returns how to continue a session in the terminal, for a person. `None`: the CLI has no way.
    fn attach(&self, session_id: &str, dir: &Path) -> Option<AttachPlan>;

    /// Returns whether the CLI hides the user's git configuration from its tools, so that it needs an identity for
    /// commits.
    fn hides_identity(&self) -> bool {
        false
    }

    /// Returns how to find out whether the CLI is installed and logged in.
    fn probe(&self) -> Probe;

    /// Returns the backend of which this is another form, with the same program and login.
    fn form_of(&self) -> Option<&'static str> {
        None
    }

    /// Returns whether lists name the CLI only if it is installed.
    fn is_optional(&self) -> bool {
        false
    }
}

/// The input of a plan.
#[derive(Debug, Clone)]
pub struct Turn<'a> {
    pub mission: &'a Mission,
    /// The text for this turn, frame included.
    pub prompt: &'a str,
    /// The text for this turn in case that the session cannot be resumed: the mission and what is new.
    pub prompt_anew: &'a str,
    /// The directory in which the CLI runs; absolute, symlinks resolved.
    pub dir: &'a Path,
    pub session: Session<'a>,
    /// The id of the turn's first message, for CLIs that give receipts. Every turn has one.
    pub message_id: Uuid,
    /// The directories that a commit writes to, when `dir` is in a repository.
    pub git: Option<GitDirs<'a>>,
    /// Name and e-mail for commits, for backends with [`Backend::hides_identity`].
    pub identity: Option<(&'a str, &'a str)>,
    /// A folder of this attempt, for the files of the plan.
    pub scratch: &'a Path,
    /// Names under which the user registered this server with this CLI. They keep a worker from starting it again.
    pub own_registrations: &'a [String],
    /// True if this process runs as root.
    pub root: bool,
    pub questions: QuestionRules<'a>,
    /// True if the kernel confines the CLI. A sandbox of its own cannot start then.
    pub confined: bool,
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
    /// A new session; CLIs whose session id can be chosen get this one.
    New(Uuid),
    Resume(&'a str),
}

/// A process to start. Its environment is the supervisor's without `env_remove`, plus `env_set`.
#[derive(Debug, Clone, PartialEq)]
pub struct LaunchPlan {
    pub program: String,
    pub args: Vec<String>,
    pub env_set: BTreeMap<String, String>,
    /// Exact names, or prefixes that end in `*`.
    pub env_remove: Vec<String>,
    pub stdin: PromptInput,
    /// True for a CLI that prints to nothing but a pipe.
    pub needs_output_pipe: bool,
    /// Files to write before the start: path (inside `scratch`) and content.
    pub files: Vec<(std::path::PathBuf, String)>,
    /// The steps of stopping the process. SIGKILL and the sweep follow by themselves.
    pub stop: Vec<StopStep>,
}

impl LaunchPlan {
    /// Returns whether a variable is removed from the inherited environment. `env_set` takes precedence.
    pub fn removes(&self, variable: &str) -> bool {
        self.env_remove.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => variable.starts_with(prefix),
            None => variable == pattern,
        })
    }
}

/// The command line of a CLI in a person's terminal.
#[derive(Debug, Clone, PartialEq)]
pub struct AttachPlan {
    pub args: Vec<String>,
    pub env_set: BTreeMap<String, String>,
}

impl AttachPlan {
    fn new<const N: usize>(dir: &Path, args: [&str; N]) -> Self {
        Self { args: args.map(str::to_owned).to_vec(), env_set: environment::set(dir, []) }
    }
}

/// The way in which a CLI gets its prompt on stdin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PromptInput {
    /// Written, then closed.
    Once(String),
    /// Written and kept open for [`Decoder::replies`]; closed when the worker is done.
    KeepOpen(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopStep {
    pub action: StopAction,
    pub grace: Duration,
}

impl StopStep {
    fn signal(signal: StopSignal, seconds: u64) -> Self {
        Self { action: StopAction::Signal(signal), grace: Duration::from_secs(seconds) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopAction {
    /// The request of its protocol, by [`Decoder::cancel`]. Skipped while no turn runs.
    CancelTurn,
    /// The end of its stdin. Skipped if that is closed already.
    CloseStdin,
    Signal(StopSignal),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StopSignal {
    Interrupt,
    Terminate,
}

/// The enforcement of a worker's permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enforcement {
    /// The kernel, for all processes of the worker.
    Kernel,
    /// The kernel, for the commands that the CLI runs in a sandbox of its own.
    Sandbox,
    /// The CLI refuses by its own rules.
    Cli,
    /// Only the prompt asks for it.
    None,
}

/// The reason why a backend cannot accept a mission.
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
    #[error("cannot limit the tokens of {backend:?}: it does not report them reliably")]
    Tokens { backend: String },
}

impl Refusal {
    /// Returns the names of the mission's fields whose combination the backend refuses.
    pub fn fields(&self) -> [&'static str; 2] {
        let field = match self {
            Self::ForeignModel { .. } | Self::Model { .. } => "model_override",
            Self::Effort { .. } => "model_effort",
            Self::Permissions { .. } => "permissions",
            Self::Cost { .. } => "max_cost_usd",
            Self::Tokens { .. } => "max_tokens",
        };
        [field, "backend"]
    }
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
            Self::Tokens { .. } => vec![Hint::to("use timeout_minutes"), Hint::to("choose another backend")],
            Self::Effort { .. } => {
                vec![Hint::to("use one that it accepts"), Hint::to("leave out model_effort")]
            }
            Self::Model { .. } => vec![Hint::to("name another model"), Hint::to("leave out model_override")],
        }
    }
}

fn permissions_word(permissions: Permissions) -> &'static str {
    match permissions {
        Permissions::ReadOnly => "read_only",
        Permissions::Edit => "edit",
        Permissions::Full => "full",
    }
}

/// A decoder of the stdout of one process.
pub trait Decoder: Send {
    /// Decodes one line, without its newline. An unreadable line is a `Warning` or no event, never an error.
    fn line(&mut self, line: &str) -> Vec<AgentEvent>;

    /// Takes the lines that the CLI must receive now on its stdin, in this order, each with its newline. To be called
    /// after each other call.
    fn replies(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// Takes a message for the running turn. Returns false, and does nothing, if the turn cannot receive it now. The
    /// agent's receipt is an event. A message without one by the end of the process has not reached the agent.
    fn message(&mut self, _id: Uuid, _text: &str) -> bool {
        false
    }

    /// Returns whether the turn goes on only for the answer to a message. It must come within a minute.
    fn awaits_message_only(&self) -> bool {
        false
    }

    /// Ends a turn that goes on only for the answer to a message. The message begins the next turn.
    fn give_up_message(&mut self) -> Vec<AgentEvent> {
        Vec::new()
    }

    /// Begins a further turn in the same process, with the text of these messages (there may be none) after those that
    /// the last turn did not take. Returns false, and does nothing, if
    /// the CLI has no way, or its turn has not ended or ended badly. The agent's receipt of the messages is an event.
    fn prompt(&mut self, _messages: &[Uuid], _text: &str) -> bool {
        false
    }

    /// Answers an open question ([`AgentEvent::Asked`]) of the running turn. Returns the events of the answer; `None` if
    /// the question is not open.
    fn answer(&mut self, _question: &str, _verdict: &Verdict) -> Option<Vec<AgentEvent>> {
        None
    }

    /// Cancels the turn by the CLI's protocol, with its open questions. Returns false if the protocol has no way, or if
    /// no turn runs.
    fn cancel(&mut self) -> bool {
        false
    }

    /// Returns whether the CLI has not begun its first turn. Until then it must print something every minute.
    fn is_starting(&self) -> bool {
        false
    }

    /// Reports the turn after the process ended. `stderr_tail` is the end of its stderr, a few kB at most. It may
    /// classify and describe a failure, but never decides whether there was one.
    fn end(&mut self, exit: Exit, stderr_tail: &str) -> TurnReport;
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TurnReport {
    /// `Ok` only by the CLI's structured end.
    pub end: Result<(), Failure>,
    pub session_id: Option<String>,
    pub final_message: String,
    /// The usage as this CLI counts it: see `usage_is_cumulative`.
    pub usage: Usage,
    /// True if the numbers continue from turn to turn of one session (Codex, Claude Code). The supervisor then keeps
    /// the larger number, since a turn that failed or was killed may report less. Otherwise it adds the turns up. The
    /// same holds for `AgentEvent::Usage`, which within one process always replaces the previous one.
    pub usage_is_cumulative: bool,
    pub denials: u32,
}

/// An event of an agent, the same for every CLI. Each is one line of `events.jsonl`.
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
    /// The start of a tool call. `what` is one line: the command, the path, the pattern.
    ToolStarted {
        id: String,
        tool: String,
        what: String,
    },
    /// The end of a tool call. `ok` is the CLI's report; `None` if it does not distinguish failed commands.
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
    /// An action that the CLI refused because it was not permitted.
    Denied {
        what: String,
    },
    /// A question that waits for a decision.
    Asked {
        question: Question,
    },
    /// The decision on a question. A denial is followed by `Denied`; one without a question was made by the policy.
    Answered {
        question: String,
        decision: Decision,
        by: Decider,
    },
    /// A question that ended undecided: its CLI withdrew it, or its turn ended.
    Withdrawn {
        question: String,
    },
    /// A retry by the CLI itself. `fatal`: its retries cannot succeed (a refused key), so it is stopped now.
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
    /// The supervisor has set up the worktree, before the CLI.
    SetUp {
        command: String,
        seconds: f64,
    },
    /// The end of a turn without background tasks: the process, if alive, only waits for more input. `Busy` may follow
    /// soon (a background task that has just ended wakes the agent), so wait a few seconds.
    Idle,
    /// A further turn that began by itself in the same process (a background task ended, a queued message was read).
    Busy,
}

/// The commands by which a CLI reports its version and login. The answers are parsed here; the commands run elsewhere.
#[derive(Debug, Clone)]
pub struct Probe {
    pub version_args: Vec<String>,
    /// The CLI's own status command, if it has one that needs no network.
    pub auth_args: Option<Vec<String>>,
    /// Environment variables of which one is enough to be logged in. Only their presence is checked.
    pub key_variables: Vec<String>,
    /// Files that a login leaves.
    pub login_files: Vec<LoginFile>,
    /// The command that fixes a missing installation, and the one that fixes a missing login.
    pub install_command: String,
    pub login_command: String,
    /// Parses stdout and exit code of `auth_args`. `None` if they do not show whether it is logged in.
    pub read_auth: fn(&str, i32) -> Option<bool>,
    pub own_service: Option<OwnService>,
    /// The service of its models, unless it is configured for another one. `None` if that is not known.
    pub service: Option<ModelService>,
    /// The version that this adapter was tested with; empty if there is none.
    pub tested_version: String,
    /// True if the adapter was written from the CLI's documentation and never tried.
    pub is_from_documentation: bool,
}

/// The addresses at which a CLI finds its models, as its program names them (Claude Code 2.1.332, Codex 0.171.0, Gemini
/// CLI 0.61.0).
#[derive(Debug, Clone, Copy)]
pub struct ModelService {
    /// The variable that names another address; empty if there is none.
    pub variable: &'static str,
    /// It depends on the login which of them is used.
    pub addresses: &'static [&'static str],
}

/// A service with a login of its own, for which a CLI may be configured. Its status command does not report that login.
#[derive(Debug, Clone)]
pub struct OwnService {
    pub config: LoginFile,
    /// Returns whether the content of the configuration uses such a service.
    pub is_used: fn(&str) -> bool,
    /// Returns the environment variable that has the key of that service, from the content of the configuration.
    pub key_variable: fn(&str) -> Option<String>,
    /// Returns the address of that service, from the content of the configuration.
    pub address: fn(&str) -> Option<String>,
}

/// A folder in which a CLI keeps its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateFolder {
    /// The variable that names the folder, or a folder above it.
    pub variable: Option<&'static str>,
    /// The path below the folder that the variable names.
    pub below: Cow<'static, str>,
    /// The folder without the variable, relative to the home folder.
    pub default: Cow<'static, str>,
    /// True if it is created for a CLI that has not done so. Otherwise only an existing one counts.
    pub is_created: bool,
}

impl StateFolder {
    /// Returns a folder that a variable names, or else one in the home folder.
    pub const fn named(variable: &'static str, default: &'static str) -> Self {
        Self::below(variable, "", default)
    }

    /// Returns a folder below one that a variable names, or else one in the home folder.
    pub const fn below(variable: &'static str, below: &'static str, default: &'static str) -> Self {
        let (below, default) = (Cow::Borrowed(below), Cow::Borrowed(default));
        Self { variable: Some(variable), below, default, is_created: true }
    }

    /// Returns a folder in the home folder.
    pub const fn at(default: &'static str) -> Self {
        Self { variable: None, below: Cow::Borrowed(""), default: Cow::Borrowed(default), is_created: true }
    }

    /// Returns the same folder, but only if it exists.
    pub const fn if_exists(mut self) -> Self {
        self.is_created = false;
        self
    }
}

/// A file whose existence shows a login, unless there is a doubt.
#[derive(Debug, Clone)]
pub struct LoginFile {
    /// The variable that names the folder.
    pub variable: Option<String>,
    /// The folder without the variable, relative to the home folder.
    pub default_folder: String,
    pub file: String,
    /// The reason why the service may refuse this login; `None` if nothing is known against it.
    pub doubt: Option<&'static str>,
}
