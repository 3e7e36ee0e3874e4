//! The user's settings: from the user's own file and from the environment. Nothing is read from the repository that
//! workers change, since that would let a repository run commands.

mod confine;
mod defaults;
mod error;
pub mod fields;
mod launchers;
#[cfg(test)]
mod messages;
mod position;
mod profiles;
mod repositories;
mod schema;
mod spelling;
mod variables;

use std::collections::{BTreeMap, HashSet};
use std::env;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use etcetera::BaseStrategy;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::confine::{Confine, ConfineGit};
use self::defaults::{PRUNE, SHARED_DAEMONS};
pub use self::error::{ConfigError, InvalidSettings, LauncherError, ProfileError, UnknownLauncher, UnknownProfile};
pub use self::launchers::{LOCAL, LauncherKind, LauncherSettings};
pub use self::position::Position;
pub use self::profiles::Profile;
pub use self::schema::{SCHEMA_FILE, SCHEMA_LINE, is_our_schema, schema_text};
pub use self::variables::overriding_variable;
use self::variables::{amount, check_variables, number};
use crate::backend::{Backends, CustomBackend};
use crate::mission::hint::Hint;
use crate::mission::question::QuestionPolicy;
use crate::mission::user_event::NotifyEvent;

/// All settings, each with its default. `deny_unknown_fields`: a misspelt setting is reported, not ignored.
///
/// The doc comments of the fields are the text of `src/docs/settings.md`, which a test regenerates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Maximum number of workers that run at the same time, over all backends. Further workers wait in a queue.
    /// Default: one for each GiB of memory, from 2 to 16.
    pub max_workers: Option<usize>,
    /// Maximum depth of nested workers. With 1, a worker starts no workers. With 2, a CLI that a worker starts by
    /// itself may use this server to start workers, which start none. The CLI of a worker always runs without this
    /// server.
    pub max_depth: u32,
    /// Duration of a wait unless the boss requests another one. Default: as long as the client allows.
    pub wait_seconds: Option<u64>,
    /// Whether a wait goes on in the background where the client supports it, so that the boss ends its turn and is
    /// woken. With `off`, every wait blocks.
    pub wake: Wake,
    /// Folder for the state. Default: `.orchestrator` in the main worktree of the repository.
    pub state_dir: Option<PathBuf>,
    /// Branch from which work starts and into which it is merged. Each worker keeps the branch that it started from.
    /// Default: for each boss, the branch that is checked out where the boss was started, when it creates its first
    /// worker.
    #[schemars(length(min = 1))]
    pub integration_branch: Option<String>,
    /// Prefix of the worker's id in branches that the server names.
    pub branch_prefix: String,
    /// Whether missions may request `permissions: full`.
    pub allow_full_permissions: bool,
    /// Whether the kernel keeps workers, setups and verifications from writing outside of their worktree. Missions with
    /// `permissions: full` are never confined. It keeps an agent that errs in its worktree, and does not contain one that
    /// tries to escape: reading, the network and sockets with a path stay open. Tried on Linux 6.18, not on macOS.
    pub confine: Confine,
    /// The part of the repository's `.git` that a confined worker can write.
    pub confine_git: ConfineGit,
    /// Further folders that confined workers can write, such as the cache of a build tool, or the state of a backend of
    /// your own that is not in a folder of its name: full paths, or paths that begin with `~/`.
    pub confine_writable: Vec<PathBuf>,
    /// Files and folders that confined workers cannot read, such as `~/.ssh`: full paths, or paths that begin with `~/`.
    /// On Linux, the folders above them can then not be listed, and files and folders that are created in those folders
    /// while a worker runs cannot be read: after `git config --global`, git in the worker fails.
    pub confine_unreadable: Vec<PathBuf>,
    /// Folder for worktrees. `{repository}` stands for the name of the repository's folder, `{id}` for a short id of
    /// the state directory. Default: `../{repository}.worktrees`, beside the repository.
    pub worktrees_dir: Option<String>,
    /// Further folders in which a boss may place worktrees. The repository and its parent are always allowed.
    pub worktree_roots: Vec<PathBuf>,
    /// Text around each prompt. Placeholders: `{prompt}`, which needs a line of its own, `{directory}`, `{subfolder}`,
    /// `{branch}` and `{verify_command}`. Default: a built-in text.
    pub prompt_frame: Option<String>,
    /// Whether the server commits a worker's uncommitted changes, in a worktree that was created for it. With `false`,
    /// a `verify_command` that passes while there are uncommitted changes verifies no commit, so the mission is not
    /// completed.
    pub commit_leftovers: bool,
    /// Message of that commit. Placeholders: `{title}` and `{worker_id}`.
    pub commit_message: String,
    /// Author of that commit; set it together with `commit_email`. Missions in a repository need a git identity in any
    /// case. Default: your git identity.
    pub commit_name: Option<String>,
    /// E-mail address of that author; set it together with `commit_name`. Default: your git identity.
    pub commit_email: Option<String>,
    /// Daemons that you share with workers: they keep running when a worker ends. Each is a name from the default list,
    /// or the name of a program or of a Java main class. Daemons for builds, such as `sccache` and `gradle`, end with a
    /// confined worker that started them, since they could not build anything else.
    pub shared_daemons: Vec<String>,
    /// Shell command that prepares a new worktree before the CLI of its worker starts, such as `npm ci`. It runs once
    /// for each worktree, in the folder in which the worker runs. It gets no variables with keys. A mission may name
    /// another one. If it fails, the CLI is not started.
    pub setup_command: Option<String>,
    /// Time limit of one run of a `setup_command`. It does not count against the time limit of the mission.
    #[schemars(range(min = 0))]
    pub setup_timeout_minutes: f64,
    /// Ignored files and folders of the main worktree that new worktrees get a copy of, by their paths in it, such as a
    /// cache. Virtual environments and folders with links that lead outside are left out. The outcome notes them, and
    /// missing paths that the settings of the repository name.
    pub seed: Vec<String>,
    /// Maximum size of such a folder where the file system cannot clone files, so that they are copied.
    pub seed_limit_mib: u64,
    /// Folders in the worktrees of finished workers that `clean --builds` deletes, since tools create them again: names
    /// of folders, and paths from the root of a worktree such as `web/generated`. A folder counts only if git
    /// ignores everything in it. Folders with a valid `CACHEDIR.TAG` count too.
    pub prune: Vec<String>,
    /// Minimum free space of the file system of the worktrees. Below it, the server deletes such folders by itself, those
    /// of the workers that finished first, until that much is free. 0: only `clean --builds` deletes them.
    pub prune_below_mib: u64,
    /// Time limit of one run of a `verify_command`.
    pub verify_timeout_minutes: u32,
    /// Time without events, output or CPU time of any of its processes after which a worker counts as stalled and its
    /// boss is notified, once. 0: never.
    #[schemars(range(min = 0))]
    pub stall_minutes: f64,
    /// Reaction to a stalled worker.
    pub on_stall: OnStall,
    /// Reaction to a CLI that asks before an action, such as an edit. `get_backend_status` names the backends that ask.
    pub questions: QuestionPolicy,
    /// Time after which a question is denied. Until then its worker waits, and keeps its place among the running
    /// workers. 0: never.
    #[schemars(range(min = 0))]
    pub question_minutes: f64,
    /// Limits for all workers of one boss together.
    pub boss: BossSettings,
    /// Number of days after which the logs of a finished worker are removed: its events and the raw output of its CLI.
    /// Its outcome stays. Workers whose work is neither merged nor cleaned up keep their logs. Answers of background
    /// waits are removed after the same time. 0: never.
    pub log_days: u32,
    /// Maximum size of the raw output of one attempt. An attempt that prints more is ended.
    pub max_output_mib: u64,
    /// Free memory that the machine or the container must have before a worker starts. Below it, queued workers wait,
    /// with the reason in their status, and start later by themselves. 0: no limit.
    pub min_free_memory_mib: u64,
    /// The same for free space in the file systems of the state directory and of the worktree.
    pub min_free_disk_mib: u64,
    /// The same for processes and threads that the system still allows you to start.
    pub min_free_processes: u64,
    /// Command that runs with `sh -c` when a worker finishes, fails or needs you, and when all are done, also while no
    /// server runs. Its stdin is one JSON object: `event`, `worker_id`, `title`, `status`, `reason`, `repository` and
    /// `time` of the last event, and `events` with all events of one second. It is ended after 10 seconds, with its
    /// processes. `doctor` shows its last failure.
    pub notify_command: Option<String>,
    /// Events that run the `notify_command`. `needs_answer` is a worker that asks, stalls, is blocked or reports that it is
    /// blocked. A cancelled worker causes no event.
    pub notify: Vec<NotifyEvent>,
    /// Whether `wait` and `status --watch` ring the bell and notify your desktop, through the terminal (OSC 9, or 777),
    /// when a worker finishes.
    pub notify_terminal: bool,
    /// Launcher of missions without `run_on`: `local`, which is this machine, or the name of a launcher.
    pub default_launcher: String,
    /// Launcher that runs the verifications of integrations: `local`, or the name of a launcher.
    pub verify_on: String,
    /// Settings of one repository, by its path or by the URL of one of its remotes.
    pub repositories: BTreeMap<String, RepositorySettings>,
    /// Settings of one backend.
    pub backends: BTreeMap<String, BackendSettings>,
    /// Launchers: jobs of one size on a cluster.
    #[schemars(extend("propertyNames" = {"pattern": "^[A-Za-z0-9_-]{1,60}$"}))]
    pub launchers: BTreeMap<String, LauncherSettings>,
    /// Named sets of mission fields.
    #[schemars(extend("propertyNames" = {"pattern": "^[A-Za-z0-9_-]{1,60}$"}))]
    pub profiles: BTreeMap<String, Profile>,
    /// Backends of your own.
    pub custom: Vec<CustomBackend>,
    /// The file that the settings were read from. `None`: there was no file.
    #[serde(skip)]
    pub file: Option<PathBuf>,
}

/// Limits for all workers of a boss together. A missing limit does not apply.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BossSettings {
    /// Maximum total cost, as far as the CLIs report it.
    #[schemars(range(min = 0))]
    pub max_cost_usd: Option<f64>,
    /// Maximum number of tokens, read and written together.
    pub max_tokens: Option<u64>,
    /// Maximum total run time of the workers.
    pub timeout_minutes: Option<u64>,
}

/// The way in which a boss is notified of the end of a wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Wake {
    /// It is woken if its client can do that. Otherwise the wait blocks.
    #[default]
    Auto,
    /// The wait blocks.
    Off,
}

/// The reaction to a stalled worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnStall {
    /// Notify its boss.
    #[default]
    Tell,
    /// Notify its boss, interrupt the worker and continue in its session, once.
    Resume,
    /// As with `resume`, and end the worker if it stalls again.
    End,
}

/// Settings of one repository, which win over the general ones.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RepositorySettings {
    /// Shell command that prepares a new worktree of this repository. An empty text: none. Default: the general
    /// setting.
    pub setup_command: Option<String>,
    /// Time limit of one run of it. Default: the general setting.
    #[schemars(range(min = 0))]
    pub setup_timeout_minutes: Option<f64>,
    /// Ignored files and folders that new worktrees get a copy of. Default: the general setting.
    pub seed: Option<Vec<String>>,
}

/// The setup of new worktrees of one repository.
#[derive(Debug, Clone, PartialEq)]
pub struct SetupSettings {
    pub command: Option<String>,
    pub timeout_minutes: f64,
    /// Ignored paths to copy.
    pub seed: Vec<String>,
    /// True if the settings of this repository name them. The general settings name paths that only some repositories
    /// have, so a missing one is not noted.
    pub seed_is_own: bool,
}

/// Settings of one backend.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BackendSettings {
    /// The program: a path, or a name to look for on the PATH. Default: the usual name of the CLI.
    pub program: Option<String>,
    /// Maximum number of workers of this backend that run at the same time.
    pub max_workers: Option<usize>,
    /// Model of missions that name none. Default: the default of the CLI.
    pub model: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_workers: None,
            max_depth: 1,
            wait_seconds: None,
            wake: Wake::Auto,
            state_dir: None,
            integration_branch: None,
            branch_prefix: "orchestrator/".to_owned(),
            allow_full_permissions: false,
            confine: Confine::default(),
            confine_git: ConfineGit::Shared,
            confine_writable: Vec::new(),
            confine_unreadable: Vec::new(),
            worktrees_dir: None,
            worktree_roots: Vec::new(),
            prompt_frame: None,
            commit_leftovers: true,
            commit_message: "{title}\n\nLeft uncommitted by {worker_id} and committed for it.".to_owned(),
            commit_name: None,
            commit_email: None,
            shared_daemons: SHARED_DAEMONS.map(str::to_owned).to_vec(),
            setup_command: None,
            setup_timeout_minutes: 10.0,
            seed: Vec::new(),
            seed_limit_mib: 2_048,
            prune: PRUNE.map(str::to_owned).to_vec(),
            prune_below_mib: 0,
            verify_timeout_minutes: 30,
            stall_minutes: 15.0,
            on_stall: OnStall::Tell,
            questions: QuestionPolicy::AllowInWorktree,
            question_minutes: 10.0,
            boss: BossSettings::default(),
            log_days: 30,
            max_output_mib: 512,
            min_free_memory_mib: 512,
            min_free_disk_mib: 512,
            min_free_processes: 128,
            default_launcher: LOCAL.to_owned(),
            verify_on: LOCAL.to_owned(),
            repositories: BTreeMap::new(),
            notify_command: None,
            notify: vec![NotifyEvent::Finished, NotifyEvent::Failed, NotifyEvent::NeedsAnswer, NotifyEvent::AllDone],
            notify_terminal: true,
            backends: BTreeMap::new(),
            launchers: BTreeMap::new(),
            profiles: BTreeMap::new(),
            custom: Vec::new(),
            file: None,
        }
    }
}

/// Placeholders of `prompt_frame` that have no value in some missions. A line with such a placeholder is left out then.
const OPTIONAL: [&str; 3] = ["subfolder", "branch", "verify_command"];

/// Returns the path of the settings file unless `--config` names another: `~/.config/orchestrator-boss/config.toml`, or
/// in `XDG_CONFIG_HOME`. macOS uses the same path, as command-line users expect.
pub fn default_path() -> Option<PathBuf> {
    let base = etcetera::base_strategy::Xdg::new().ok()?;
    Some(base.config_dir().join("orchestrator-boss").join("config.toml"))
}

impl Settings {
    /// Loads the named file, which must exist, or the default one, which need not. Then applies the environment.
    pub fn load(named: Option<&Path>) -> Result<Self, ConfigError> {
        let mut settings = match named {
            Some(path) => Self::read(path)?,
            None => match default_path().map(|path| Self::read(&path)) {
                // Other read errors are reported: an unreadable file is not a missing one.
                Some(Err(ConfigError::Read { source, .. })) if source.kind() == io::ErrorKind::NotFound => {
                    Self::default()
                }
                Some(read) => read?,
                None => Self::default(),
            },
        };
        check_variables(env::vars_os().filter_map(|(name, _)| name.into_string().ok()))?;
        if let Some(workers) = number("ORCHESTRATOR_MAX_WORKERS")? {
            settings.max_workers = Some(workers as usize);
        }
        if let Some(seconds) = number("ORCHESTRATOR_WAIT_SECONDS")? {
            settings.wait_seconds = Some(seconds);
        }
        let boss = &mut settings.boss;
        boss.max_cost_usd = amount("ORCHESTRATOR_BOSS_MAX_COST_USD")?.or(boss.max_cost_usd);
        boss.max_tokens = number("ORCHESTRATOR_BOSS_MAX_TOKENS")?.or(boss.max_tokens);
        boss.timeout_minutes = number("ORCHESTRATOR_BOSS_TIMEOUT_MINUTES")?.or(boss.timeout_minutes);
        if let Some(folder) = env::var_os("ORCHESTRATOR_STATE_DIR").filter(|value| !value.is_empty()) {
            settings.state_dir = Some(folder.into());
        }
        Ok(settings)
    }

    fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let settings = Self::parse(&text).map_err(|source| ConfigError::Invalid { path: path.to_owned(), source })?;
        Ok(Self { file: path.canonicalize().ok(), ..settings })
    }

    /// Parses the text of a settings file.
    pub fn parse(text: &str) -> Result<Self, InvalidSettings> {
        let mut settings: Self =
            toml::from_str(text).map_err(|error| spelling::explained(error, text, &Self::names()))?;
        settings.integration_branch = settings.integration_branch.map(|name| {
            // The full name of a branch is accepted, as in the tools.
            name.strip_prefix("refs/heads/").unwrap_or(&name).to_owned()
        });
        settings.custom.iter().try_for_each(CustomBackend::check_settings)?;
        let mut names = HashSet::new();
        if let Some(twice) = settings.custom.iter().find(|custom| !names.insert(custom.name.as_str())) {
            return Err(InvalidSettings::CustomTwice { name: twice.name.clone() });
        }
        settings.check()?;
        settings.profiles = settings.checked_profiles()?;
        Ok(settings)
    }

    fn checked_profiles(&self) -> Result<BTreeMap<String, Profile>, InvalidSettings> {
        let backends = Backends::with_custom(self.custom.clone());
        let check = |(name, profile): (&String, &Profile)| match self.checked_profile(name, profile.clone(), &backends)
        {
            Ok(checked) => Ok((name.clone(), checked)),
            Err(source) => Err(InvalidSettings::Profile { name: name.clone(), source: Box::new(source) }),
        };
        self.profiles.iter().map(check).collect()
    }

    /// Returns the names at the top level, from serde's message about an unknown one.
    fn names() -> Vec<String> {
        let Err(error) = toml::from_str::<Self>("\"\" = 0") else { return Vec::new() };
        spelling::known(error.message())
    }

    fn check(&self) -> Result<(), InvalidSettings> {
        let backends = Backends::with_custom(self.custom.clone());
        if let Some(unknown) = self.backends.keys().find(|name| backends.get(name).is_err()) {
            let instead = match spelling::nearest(unknown, backends.names()) {
                Some(meant) => error::did_you_mean(&format!("[backends.{meant}]")),
                None => Hint::to(format!("use one of {}", backends.names().collect::<Vec<_>>().join(", "))),
            };
            return Err(InvalidSettings::UnknownBackend { name: unknown.clone(), instead });
        }
        if !self.stall_minutes.is_finite() || self.stall_minutes < 0.0 {
            return Err(InvalidSettings::StallMinutes(self.stall_minutes));
        }
        if !self.question_minutes.is_finite() || self.question_minutes < 0.0 {
            return Err(InvalidSettings::QuestionMinutes(self.question_minutes));
        }
        if let Some(name) = self.repositories.keys().find(|name| !repositories::is_name(name)) {
            return Err(InvalidSettings::Repository { name: name.clone() });
        }
        let of_repositories = self.repositories.values().filter_map(|it| it.setup_timeout_minutes);
        let mut limits = of_repositories.chain([self.setup_timeout_minutes]);
        if let Some(limit) = limits.find(|limit| !limit.is_finite() || *limit < 0.0) {
            return Err(InvalidSettings::SetupTimeout(limit));
        }
        let mut seeds = self.repositories.values().filter_map(|it| it.seed.as_ref()).chain([&self.seed]).flatten();
        if let Some(path) = seeds.find(|path| !may_be_seeded(path)) {
            return Err(InvalidSettings::Seed(path.clone()));
        }
        if let Some(path) = self.prune.iter().find(|path| !is_inside(path)) {
            return Err(InvalidSettings::Prune(path.clone()));
        }
        self.confine_writable.iter().try_for_each(|path| confine::check("confine_writable", path))?;
        self.confine_unreadable.iter().try_for_each(|path| confine::check("confine_unreadable", path))?;
        if self.integration_branch.as_deref() == Some("") {
            return Err(InvalidSettings::EmptyBranch);
        }
        if self.commit_name.is_some() != self.commit_email.is_some() {
            return Err(InvalidSettings::HalfIdentity);
        }
        self.check_templates()?;
        self.check_launchers()?;
        match self.boss.max_cost_usd.filter(|most| !most.is_finite() || *most < 0.0) {
            Some(most) => Err(InvalidSettings::MaxCost(most)),
            None => Ok(()),
        }
    }

    fn check_templates(&self) -> Result<(), InvalidSettings> {
        let frame = self.prompt_frame.as_deref();
        spelling::check_placeholders("worktrees_dir", self.worktrees_dir.as_deref(), &["repository", "id"])?;
        spelling::check_placeholders("commit_message", Some(&self.commit_message), &["title", "worker_id"])?;
        spelling::check_placeholders("prompt_frame", frame, &[&["prompt", "directory"], &OPTIONAL[..]].concat())?;
        let Some(frame) = frame else { return Ok(()) };
        let line = frame.lines().find(|line| line.contains("{prompt}")).ok_or(InvalidSettings::NoPrompt)?;
        match OPTIONAL.into_iter().find(|name| line.contains(&format!("{{{name}}}"))) {
            Some(name) => Err(InvalidSettings::PromptNotAlone { name }),
            None => Ok(()),
        }
    }

    /// Returns the time without activity after which a worker counts as stalled. `None`: never.
    pub fn stall_after(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.stall_minutes * 60.0).ok().filter(|after| !after.is_zero())
    }

    /// Returns the time after which a question is denied. `None`: never.
    pub fn question_limit(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.question_minutes * 60.0).ok().filter(|limit| !limit.is_zero())
    }

    /// Returns the setup of new worktrees of the repository with this root. `remotes` returns the URLs of its remotes,
    /// and is called only if the settings may name one.
    pub fn setup(&self, root: &Path, remotes: impl FnOnce() -> Vec<String>) -> SetupSettings {
        let own = repositories::find(&self.repositories, root, remotes).cloned().unwrap_or_default();
        let command = own.setup_command.or_else(|| self.setup_command.clone());
        SetupSettings {
            command: command.filter(|command| !command.trim().is_empty()),
            timeout_minutes: own.setup_timeout_minutes.unwrap_or(self.setup_timeout_minutes),
            seed_is_own: own.seed.is_some(),
            seed: own.seed.unwrap_or_else(|| self.seed.clone()),
        }
    }

    /// Returns the maximum number of bytes that one path to seed may have if its files cannot be cloned.
    pub fn seed_limit(&self) -> u64 {
        self.seed_limit_mib.saturating_mul(1 << 20)
    }

    pub fn backend(&self, name: &str) -> BackendSettings {
        self.backends.get(name).cloned().unwrap_or_default()
    }
}

/// Returns whether a path may be copied into new worktrees. Copied files of git would break a worktree.
fn may_be_seeded(path: &str) -> bool {
    is_inside(path) && Path::new(path).iter().all(|part| !part.eq_ignore_ascii_case(".git"))
}

/// Returns whether a path, relative to the root of a worktree, stays below that root.
fn is_inside(path: &str) -> bool {
    let mut parts = Path::new(path).components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests;
