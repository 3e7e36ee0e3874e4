//! A mission in the arguments of a call: its fields, their checks, and its conversion to a draft.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::mcp::arguments::{self, ArgumentError, KEY, LINE, NAME, PROMPT, TITLE, optional};
use crate::mission::create::{Draft, DraftPlace};
use crate::mission::id::{BackendName, TaskId};
use crate::mission::spec::{self, Permissions};
use crate::orchestrator::Orchestrator;

/// A week.
const LONGEST_TIMEOUT_MINUTES: u64 = 7 * 24 * 60;
const MAX_ATTEMPTS: u64 = 20;
const MAX_DEPENDENCIES: u64 = 100;
const MAX_FALLBACKS: u64 = 10;
const MAX_COST_USD: f64 = 100_000.0;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MissionArguments {
    /// A few words on one line, at most 200 bytes; part of the worker's id.
    title: String,
    /// All that the worker knows, at most 1 MiB: goal, context, files, constraints, how to check, what to report. It
    /// does not see this conversation.
    prompt: String,
    /// The agent CLI: codex, claudecode, gemini, opencode, or one from the user's settings.
    backend: String,
    /// A model of that backend; default: from the user's settings or the CLI.
    model_override: Option<String>,
    /// low, medium, high, or another level of that backend; default: the CLI's.
    model_effort: Option<String>,
    /// An existing directory to work in, instead of worktree. Without both, the worker gets a new worktree, on a new
    /// branch from the integration branch.
    working_directory: Option<String>,
    /// The worktree to create for this worker.
    worktree: Option<WorktreeArguments>,
    /// A shell command that prepares a new worktree before the worker starts, such as npm ci. Default: from the user's
    /// settings.
    setup_command: Option<String>,
    /// A shell command that checks the work, such as cargo test. It runs in the worktree after the worker's turn; the
    /// mission is completed only if it exits with 0.
    verify_command: Option<String>,
    /// Your own id for the task, at most 100 bytes, for depends_on and the state file. Default: the worker's id.
    task_id: Option<String>,
    /// Task or worker ids that must be completed first; this starts on top of their branches.
    #[serde(default)]
    depends_on: Vec<String>,
    /// 1 to 10080, default 120, without time in the queue.
    timeout_minutes: Option<u64>,
    /// More than 0; only for backends that report their cost.
    max_cost_usd: Option<f64>,
    /// At least 1; input and output together.
    max_tokens: Option<u64>,
    /// Backends to try in order when this one fails; at most 10.
    #[serde(default)]
    fallback_backends: Vec<String>,
    /// 1 to 20; default: 1 + number of fallback_backends.
    max_attempts: Option<u64>,
    /// Any text of at most 100 bytes. A second call with the same one starts no second worker.
    request_id: Option<String>,
    /// read_only, edit (default: change the worktree, run commands, commit, use the network) or full (no sandbox; needs
    /// the user's permission in the settings).
    #[schemars(with = "Option<String>", extend("enum" = ["read_only", "edit", "full"]))]
    permissions: Option<Permissions>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WorktreeArguments {
    /// A new or existing branch; default: named after the worker.
    branch: Option<String>,
    /// Branch, tag or commit to start from; default: the integration branch.
    base: Option<String>,
    /// Its directory, in or beside the repository; default: beside it.
    path: Option<String>,
    /// Subfolder for the worker and verify_command; default: the subfolder of this server.
    directory: Option<String>,
}

impl MissionArguments {
    pub(super) fn draft(self, orchestrator: &Orchestrator) -> Result<Draft, ArgumentError> {
        let backend = backend(orchestrator, self.backend)?;
        let fallbacks = self.fallback_backends.len() as u64;
        arguments::range("the number of fallback_backends", fallbacks, 0, MAX_FALLBACKS)?;
        arguments::range("the number of depends_on", self.depends_on.len() as u64, 0, MAX_DEPENDENCIES)?;
        let attempts = self.max_attempts.unwrap_or(1 + fallbacks);
        let timeout = self.timeout_minutes.unwrap_or(spec::DEFAULT_TIMEOUT_MINUTES.into());
        Ok(Draft {
            title: arguments::line("title", self.title, TITLE)?,
            prompt: arguments::text("prompt", self.prompt, PROMPT)?,
            backend,
            model: optional(self.model_override, |model| arguments::name("model_override", model))?,
            effort: optional(self.model_effort, |effort| arguments::name("model_effort", effort))?,
            place: place(self.working_directory, self.worktree)?,
            setup_command: optional(self.setup_command, |command| arguments::text("setup_command", command, LINE))?,
            verify_command: optional(self.verify_command, |command| arguments::text("verify_command", command, LINE))?,
            task_id: optional(self.task_id, |key| arguments::line("task_id", key, KEY))?.map(TaskId::from),
            depends_on: lines("depends_on", self.depends_on, NAME)?,
            timeout_minutes: small(arguments::range("timeout_minutes", timeout, 1, LONGEST_TIMEOUT_MINUTES)?),
            max_cost_usd: optional(self.max_cost_usd, cost)?,
            max_tokens: optional(self.max_tokens, |tokens| arguments::range("max_tokens", tokens, 1, u64::MAX))?,
            fallback_backends: backends(orchestrator, self.fallback_backends)?,
            max_attempts: small(arguments::range("max_attempts", attempts, 1, MAX_ATTEMPTS)?),
            request_id: optional(self.request_id, |key| arguments::line("request_id", key, KEY))?,
            permissions: self.permissions.unwrap_or_default(),
            // Filled in when the mission is checked.
            needs: Vec::new(),
        })
    }
}

pub(super) fn backend(orchestrator: &Orchestrator, name: String) -> Result<BackendName, ArgumentError> {
    let name = arguments::name("backend", name)?;
    orchestrator.backends().get(&name)?;
    Ok(BackendName::from(name))
}

fn backends(orchestrator: &Orchestrator, names: Vec<String>) -> Result<Vec<BackendName>, ArgumentError> {
    names.into_iter().map(|name| backend(orchestrator, name)).collect()
}

pub(super) fn lines(field: &'static str, texts: Vec<String>, max: usize) -> Result<Vec<String>, ArgumentError> {
    texts.into_iter().map(|text| arguments::line(field, text, max)).collect()
}

pub(super) fn path(field: &'static str, text: String) -> Result<PathBuf, ArgumentError> {
    arguments::line(field, text, LINE).map(PathBuf::from)
}

fn place(directory: Option<String>, worktree: Option<WorktreeArguments>) -> Result<DraftPlace, ArgumentError> {
    match (directory, worktree) {
        (Some(_), Some(_)) => Err(ArgumentError::Both { one: "working_directory", other: "worktree" }),
        (Some(directory), None) => path("working_directory", directory).map(DraftPlace::Directory),
        (None, worktree) => {
            let worktree = worktree.unwrap_or_default();
            Ok(DraftPlace::Worktree {
                branch: optional(worktree.branch, |branch| arguments::name("worktree.branch", branch))?,
                base: optional(worktree.base, |base| arguments::name("worktree.base", base))?,
                path: optional(worktree.path, |text| path("worktree.path", text))?,
                directory: optional(worktree.directory, |text| path("worktree.directory", text))?,
            })
        }
    }
}

fn cost(dollars: f64) -> Result<f64, ArgumentError> {
    if dollars > 0.0 && dollars <= MAX_COST_USD {
        Ok(dollars)
    } else {
        Err(ArgumentError::Cost { is: dollars, max: MAX_COST_USD })
    }
}

/// Converts a number whose range was checked.
fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
