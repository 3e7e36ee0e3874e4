//! The backends for agents that speak the Agent Client Protocol. One adapter serves them all: `agents/presets.rs` has
//! the facts about each agent, and `acp.rs` the protocol.

mod presets;
mod probe;

use std::path::Path;

use serde_json::{Map, Value, json};

use self::presets::{ChosenBy, OwnServerOff, PRESETS, Preset};
use super::acp::{self, SessionSetting, SettingKind, Traits, UsageMeaning};
use super::catalog::{check_effort_in, check_model_of_family};
use super::{
    AttachPlan, Backend, Decoder, Enforcement, LaunchPlan, Probe, PromptInput, Refusal, StateFolder, StopSignal, Turn,
    environment,
};
use crate::mission::spec::{Mission, Permissions};

pub use presets::Evidence;

/// The facts about an agent that matter to its users.
pub struct AgentFacts {
    pub name: &'static str,
    pub command: String,
    pub evidence: Evidence,
    /// The enforcement of `read_only`; `None` if it is refused.
    pub read_only: Option<Enforcement>,
    pub usage: UsageMeaning,
    pub accepts_live_messages: bool,
    pub has_models: bool,
    pub efforts: &'static [&'static str],
    pub install: String,
}

/// An agent with a preset.
pub struct AcpAgent {
    preset: &'static Preset,
}

impl AcpAgent {
    /// Returns all agents with a preset.
    pub fn all() -> impl Iterator<Item = Self> {
        PRESETS.iter().map(|preset| Self { preset })
    }

    /// Returns the facts for people who choose an agent.
    pub fn facts(&self) -> AgentFacts {
        let preset = self.preset;
        AgentFacts {
            name: preset.name,
            command: [&[preset.program], preset.args].concat().join(" "),
            evidence: preset.evidence,
            read_only: preset.read_only,
            usage: preset.usage,
            accepts_live_messages: self.accepts_live_messages(),
            has_models: preset.model != ChosenBy::Nothing,
            efforts: preset.efforts,
            install: self.probe().install_command,
        }
    }

    /// Returns the settings of a session: the mode first, since setting it later may reset the others.
    fn settings(&self, turn: &Turn<'_>) -> Vec<SessionSetting> {
        let (preset, mission) = (self.preset, turn.mission);
        let setting = |kind, values: &[&str], is_required| SessionSetting {
            kind,
            values: values.iter().map(|value| (*value).to_owned()).collect(),
            is_required,
        };
        // An agent with a sandbox of its own runs without it in ours.
        let is_unboxed = turn.confined && preset.needs_git_directories;
        let permissions = if is_unboxed { Permissions::Full } else { mission.permissions };
        let modes = preset.modes.of(permissions);
        let is_read_only = mission.permissions == Permissions::ReadOnly;
        let mode = (!modes.is_empty()).then(|| setting(SettingKind::Mode, modes, is_read_only));
        let model = mission.model.as_deref().filter(|_| preset.model == ChosenBy::Session);
        let effort = mission.effort.as_deref().filter(|_| preset.effort == ChosenBy::Session);
        let all = (mission.permissions == Permissions::Full).then_some(preset.allow_all).flatten();
        [
            mode,
            model.map(|model| setting(SettingKind::Model, &[model], true)),
            effort.map(|effort| setting(SettingKind::Effort, &[effort], true)),
            all.map(|id| setting(SettingKind::Other(id), &["on"], false)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn args(&self, turn: &Turn<'_>) -> Vec<String> {
        let preset = self.preset;
        let mut args: Vec<String> = preset.args.iter().map(|arg| (*arg).to_owned()).collect();
        let chosen = [(preset.model, &turn.mission.model), (preset.effort, &turn.mission.effort)];
        for (by, value) in chosen {
            if let (ChosenBy::Argument(option), Some(value)) = (by, value) {
                args.push(format!("{option}={value}"));
            }
        }
        match preset.own_server_off {
            OwnServerOff::Argument(argument) => args.push(argument.to_owned()),
            OwnServerOff::ArgumentEach(option) => {
                args.extend(turn.own_registrations.iter().map(|name| format!("{option}={name}")));
            }
            _ => {}
        }
        args
    }

    fn variables(&self, turn: &Turn<'_>) -> Vec<(String, String)> {
        let preset = self.preset;
        let mut set: Vec<(String, String)> =
            preset.env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        if let (ChosenBy::Variable(name), Some(model)) = (preset.model, &turn.mission.model) {
            set.push((name.to_owned(), model.clone()));
        }
        match preset.own_server_off {
            OwnServerOff::Variable(name, value) => set.push((name.to_owned(), value.to_owned())),
            OwnServerOff::OpenCodeConfig(name) => {
                set.extend(without_servers(turn.own_registrations).map(|config| (name.to_owned(), config)));
            }
            _ => {}
        }
        if turn.mission.permissions == Permissions::ReadOnly {
            set.extend(preset.read_only_env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        }
        if turn.root && turn.mission.permissions == Permissions::Full {
            set.extend(preset.full_as_root_env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        }
        if preset.hides_identity {
            set.extend(environment::identity(turn));
        }
        set
    }

    fn traits(&self, turn: &Turn<'_>) -> Traits {
        let preset = self.preset;
        Traits {
            settings: self.settings(turn),
            mixes_notices: preset.mixes_notices,
            usage: preset.usage,
            messages: preset.messages,
            usage_shows_success: preset.usage_shows_success,
            expected_model: match preset.model {
                ChosenBy::Variable(_) => turn.mission.model.clone(),
                _ => None,
            },
            login_methods: preset.login_methods,
            session_meta: match preset.own_server_off {
                // A sandbox of its own cannot start in ours.
                OwnServerOff::StrictMcp if turn.confined => Some(json!({"claudeCode": {"options": {
                    "strictMcpConfig": true, "sandbox": {"enabled": false}
                }}})),
                OwnServerOff::StrictMcp => Some(json!({"claudeCode": {"options": {"strictMcpConfig": true}}})),
                _ => None,
            },
            writable: if preset.needs_git_directories { git_directories(turn) } else { Vec::new() },
        }
    }
}

impl Backend for AcpAgent {
    fn name(&self) -> &str {
        self.preset.name
    }

    fn program(&self) -> &str {
        self.preset.program
    }

    fn check(&self, mission: &Mission) -> Result<Enforcement, Refusal> {
        let preset = self.preset;
        check_model_of_family(preset.name, preset.family, mission.model.as_deref(), preset.model != ChosenBy::Nothing)?;
        check_effort_in(preset.name, preset.efforts, mission.effort.as_deref())?;
        if mission.permissions == Permissions::ReadOnly && preset.read_only.is_none() {
            return Err(Refusal::Permissions {
                backend: preset.name.into(),
                permissions: mission.permissions,
                fix: "use a backend that can: claudecode, codex, gemini or opencode".into(),
            });
        }
        if mission.max_cost_usd.is_some() {
            return Err(Refusal::Cost { backend: preset.name.into() });
        }
        if mission.max_tokens.is_some() && preset.usage == UsageMeaning::Unknown {
            return Err(Refusal::Tokens { backend: preset.name.into() });
        }
        Ok(self.enforcement(mission.permissions))
    }

    fn enforcement(&self, permissions: Permissions) -> Enforcement {
        match permissions {
            Permissions::ReadOnly => self.preset.read_only.unwrap_or(Enforcement::None),
            // The commands that it may run reach everywhere.
            Permissions::Edit | Permissions::Full => Enforcement::None,
        }
    }

    fn reports_usage_in_time(&self) -> bool {
        self.preset.usage.is_in_time()
    }

    fn asks(&self) -> bool {
        true
    }

    fn state_folders(&self) -> Vec<StateFolder> {
        self.preset.state.to_vec()
    }

    fn plan(&self, turn: &Turn<'_>) -> LaunchPlan {
        let mut env_set = environment::set(turn.dir, []);
        env_set.extend(self.variables(turn));
        LaunchPlan {
            program: self.program().into(),
            args: self.args(turn),
            env_set,
            env_remove: environment::removed(&[]),
            stdin: PromptInput::KeepOpen(acp::initialize()),
            // Agents on Python's library of the protocol refuse a file.
            needs_output_pipe: true,
            files: Vec::new(),
            stop: acp::stop_steps(StopSignal::Terminate),
        }
    }

    fn decoder(&self, turn: &Turn<'_>) -> Box<dyn Decoder> {
        Box::new(acp::AcpStream::new(self.preset.name.to_owned(), self.traits(turn), turn))
    }

    fn accepts_live_messages(&self) -> bool {
        self.preset.messages != acp::LiveMessages::NextTurn
    }

    fn attach(&self, session_id: &str, dir: &Path) -> Option<AttachPlan> {
        let option = self.preset.attach_option?;
        Some(AttachPlan::new(dir, [&format!("{option}={session_id}")]))
    }

    fn hides_identity(&self) -> bool {
        self.preset.hides_identity
    }

    fn probe(&self) -> Probe {
        probe::of(self.preset)
    }

    fn form_of(&self) -> Option<&'static str> {
        self.preset.form_of
    }

    fn is_optional(&self) -> bool {
        true
    }
}

/// Returns the folders that a commit writes to.
fn git_directories(turn: &Turn<'_>) -> Vec<String> {
    let folders = turn.git.map(|git| [git.common, git.own]).into_iter().flatten();
    folders.map(|folder| folder.to_string_lossy().into_owned()).collect()
}

/// Returns configuration in the format of OpenCode that disables these servers. `None` if there are none.
fn without_servers(names: &[String]) -> Option<String> {
    let servers: Map<String, Value> = names.iter().map(|name| (name.clone(), json!({"enabled": false}))).collect();
    (!servers.is_empty()).then(|| json!({"mcp": servers}).to_string())
}
