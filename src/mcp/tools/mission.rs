//! A mission in the arguments of a call: its fields, their checks, and its conversion to a draft.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::{Profile, fields};
use crate::mcp::arguments::{self, ArgumentError, KEY, LINE, NAME, PROMPT, TITLE, optional};
use crate::mission::create::{AppliedProfile, Draft, DraftPlace};
use crate::mission::id::{BackendName, TaskId};
use crate::mission::spec::{self, Permissions, RunOn};
use crate::orchestrator::Orchestrator;

const MAX_DEPENDENCIES: u64 = 100;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MissionArguments {
    /// At most 200 bytes; part of the worker's id.
    title: String,
    /// All that the worker knows, at most 1 MiB: goal, context, files, constraints, how to check, what to report. It
    /// does not see this conversation.
    prompt: String,
    /// codex, claudecode, gemini, opencode, an ACP agent (copilot, qwen, …) or one from the settings. Required unless
    /// the profile has one.
    backend: Option<String>,
    /// The user's defaults for these fields, by a name from get_backend_status.
    profile: Option<String>,
    /// Default: from the settings or the CLI.
    model_override: Option<String>,
    /// low, medium, high, or another level of the backend.
    model_effort: Option<String>,
    /// An existing directory to work in. Default: a new worktree on a new branch.
    working_directory: Option<String>,
    /// The new worktree.
    worktree: Option<WorktreeArguments>,
    /// Shell command that prepares a new worktree, such as npm ci. Default: from the settings.
    setup_command: Option<String>,
    /// Shell command that checks the work, such as cargo test. The mission is completed only if it exits with 0.
    verify_command: Option<String>,
    /// Your own id, at most 100 bytes, for depends_on. Default: the worker's id.
    task_id: Option<String>,
    /// Task or worker ids that must be completed first; it starts on top of their branches.
    #[serde(default)]
    depends_on: Vec<String>,
    /// Task or worker ids whose final messages come before the prompt, once they have settled.
    #[serde(default)]
    context_from: Vec<String>,
    /// 1 to 10080, default 120, without time in the queue.
    timeout_minutes: Option<u64>,
    /// Only for backends that report cost.
    max_cost_usd: Option<f64>,
    /// Input and output together.
    max_tokens: Option<u64>,
    /// Tried in order when this one fails; at most 10.
    fallback_backends: Option<Vec<String>>,
    /// 1 to 20; default: 1 + number of fallback_backends.
    max_attempts: Option<u64>,
    /// At most 100 bytes. A second call with it starts no second worker.
    request_id: Option<String>,
    /// edit (default: change the worktree, run commands, commit, use the network), read_only, or full (no sandbox; the
    /// settings must allow it).
    #[schemars(with = "Option<String>", extend("enum" = ["read_only", "edit", "full"]))]
    permissions: Option<Permissions>,
    /// A launcher from get_backend_status, or local.
    run_on: Option<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WorktreeArguments {
    /// New or existing; default: named after the worker.
    branch: Option<String>,
    /// Branch, tag or commit to start from; default: the integration branch.
    base: Option<String>,
    /// Its directory; default: beside the repository.
    path: Option<String>,
    /// Subfolder for the worker and verify_command; default: the server's.
    directory: Option<String>,
}

impl MissionArguments {
    pub(super) fn draft(self, orchestrator: &Orchestrator) -> Result<Draft, ArgumentError> {
        arguments::range("the number of depends_on", self.depends_on.len() as u64, 0, MAX_DEPENDENCIES)?;
        arguments::range("the number of context_from", self.context_from.len() as u64, 0, MAX_DEPENDENCIES)?;
        let own = Profile {
            backend: self.backend,
            model_override: self.model_override,
            model_effort: self.model_effort,
            permissions: self.permissions,
            setup_command: self.setup_command,
            verify_command: self.verify_command,
            timeout_minutes: self.timeout_minutes,
            max_cost_usd: self.max_cost_usd,
            max_tokens: self.max_tokens,
            fallback_backends: self.fallback_backends,
            max_attempts: self.max_attempts,
        };
        let (fields, profile) = resolve(own.checked(orchestrator.backends())?, self.profile, orchestrator)?;
        let backend = fields.backend.ok_or_else(|| no_backend(orchestrator))?;
        let fallbacks = fields.fallback_backends.unwrap_or_default();
        let attempts = fields.max_attempts.unwrap_or(1 + fallbacks.len() as u64);
        let timeout = fields.timeout_minutes.map_or(spec::DEFAULT_TIMEOUT_MINUTES, small);
        Ok(Draft {
            title: arguments::line("title", self.title, TITLE)?,
            prompt: arguments::text("prompt", self.prompt, PROMPT)?,
            backend: BackendName::from(backend),
            model: fields.model_override,
            effort: fields.model_effort,
            place: place(self.working_directory, self.worktree)?,
            setup_command: fields.setup_command,
            verify_command: fields.verify_command,
            task_id: optional(self.task_id, |key| arguments::line("task_id", key, KEY))?.map(TaskId::from),
            depends_on: lines("depends_on", self.depends_on, NAME)?,
            context_from: lines("context_from", self.context_from, NAME)?,
            timeout_minutes: timeout,
            max_cost_usd: fields.max_cost_usd,
            max_tokens: fields.max_tokens,
            fallback_backends: fallbacks.into_iter().map(BackendName::from).collect(),
            max_attempts: small(attempts),
            request_id: optional(self.request_id, |key| arguments::line("request_id", key, KEY))?,
            permissions: fields.permissions.unwrap_or_default(),
            run_on: run_on(self.run_on, orchestrator)?,
            profile,
            // Filled in when the mission is checked.
            needs: Vec::new(),
        })
    }
}

/// Returns the launcher of a mission. `None`: the host of the server.
fn run_on(named: Option<String>, orchestrator: &Orchestrator) -> Result<Option<String>, ArgumentError> {
    let named = optional(named, |name| arguments::name("run_on", name))?;
    let name = named.unwrap_or_else(|| orchestrator.settings().default_launcher.clone());
    Ok(RunOn::named(name).launcher())
}

/// Completes the fields of a call with those of the profile that it names.
fn resolve(
    own: Profile,
    name: Option<String>,
    orchestrator: &Orchestrator,
) -> Result<(Profile, Option<AppliedProfile>), ArgumentError> {
    let Some(name) = optional(name, |name| arguments::name("profile", name))? else { return Ok((own, None)) };
    let profile = orchestrator.settings().profile(&name).map_err(ArgumentError::Profile)?;
    let (merged, fields) = own.completed_by(profile);
    Ok((merged, Some(AppliedProfile { name, fields })))
}

/// Returns the error of a mission without a backend, neither its own nor one from a profile.
fn no_backend(orchestrator: &Orchestrator) -> ArgumentError {
    let backends = orchestrator.backends().names().collect::<Vec<_>>().join(", ");
    let profiles = orchestrator.settings().profiles.iter();
    let with_one: Vec<&str> =
        profiles.filter(|(_, profile)| profile.backend.is_some()).map(|(name, _)| name.as_str()).collect();
    let profiles = match with_one.as_slice() {
        [] => String::new(),
        names => format!(", or a profile that has one: {}", names.join(", ")),
    };
    ArgumentError::NoBackend { backends, profiles }
}

pub(super) fn backend(orchestrator: &Orchestrator, name: String) -> Result<BackendName, ArgumentError> {
    Ok(BackendName::from(fields::backend(orchestrator.backends(), name)?))
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

/// Converts a number whose range was checked.
fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
