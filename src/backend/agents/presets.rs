//! The facts about each agent. An agent with [`Evidence::Tried`] has carried out whole missions with a scripted model,
//! in the version that is named; its facts were observed there unless a comment says otherwise. The facts about the
//! others come from their documentation, and none of them was observed.
//!
//! No I/O and no protocol here.

use crate::backend::acp::{LiveMessages, UsageMeaning};
use crate::backend::catalog::{CLAUDE_CODE, CODEX, GEMINI, OPENCODE};
use crate::backend::state;
use crate::backend::{Enforcement, StateFolder};
use crate::mission::spec::Permissions;

/// The facts about one agent.
pub struct Preset {
    /// The name of the backend.
    pub name: &'static str,
    pub program: &'static str,
    pub args: &'static [&'static str],
    pub env: &'static [(&'static str, &'static str)],
    pub evidence: Evidence,
    /// The backend that drives the same program in another way.
    pub form_of: Option<&'static str>,
    /// The backend to which its models belong; `None` if it accepts those of several services.
    pub family: Option<&'static str>,
    pub model: ChosenBy,
    pub effort: ChosenBy,
    pub efforts: &'static [&'static str],
    pub modes: Modes,
    /// The option of a session that, with the value `on`, allows everything.
    pub allow_all: Option<&'static str>,
    /// The enforcement of `read_only`. `None`: it is refused, since a denied action ends the turn, or nothing is
    /// known.
    pub read_only: Option<Enforcement>,
    pub read_only_env: &'static [(&'static str, &'static str)],
    /// Variables without which it refuses `full` as root.
    pub full_as_root_env: &'static [(&'static str, &'static str)],
    pub usage: UsageMeaning,
    /// True if a good turn always ends with a usage, and a failed one never does.
    pub usage_shows_success: bool,
    /// True if its own notices, each in one piece, come unmarked among the model's words.
    pub mixes_notices: bool,
    pub messages: LiveMessages,
    pub own_server_off: OwnServerOff,
    /// True if its sandbox must be opened for the directories that a commit writes to. In ours it cannot start.
    pub needs_git_directories: bool,
    pub state: &'static [StateFolder],
    /// True if its commands do not see the user's git configuration.
    pub hides_identity: bool,
    pub login_methods: &'static [&'static str],
    /// The option by which its terminal program continues a session.
    pub attach_option: Option<&'static str>,
    pub install: &'static str,
    pub login: &'static str,
    pub key_variables: &'static [&'static str],
    /// Files that show a login: the variable that names their folder, the default folder in the home, the file.
    pub login_files: &'static [(Option<&'static str>, &'static str, &'static str)],
}

/// The source of the facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// Missions in this version.
    Tried(&'static str),
    Documentation,
}

/// The way in which a model or an effort is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChosenBy {
    /// It cannot be chosen for a mission.
    Nothing,
    /// An argument with this name and the value.
    Argument(&'static str),
    /// A variable. Whether the agent accepted the model is checked when the session is open.
    Variable(&'static str),
    /// A setting of the session. Not for agents that save it in the user's settings.
    Session,
}

/// The modes for each kind of permissions, in order of preference. A mode in which a model approves each action is
/// never used: if that model cannot be reached, the work is blocked.
pub struct Modes {
    pub read_only: &'static [&'static str],
    pub edit: &'static [&'static str],
    pub full: &'static [&'static str],
}

impl Modes {
    const NONE: Self = Self { read_only: &[], edit: &[], full: &[] };

    pub fn of(&self, permissions: Permissions) -> &'static [&'static str] {
        match permissions {
            Permissions::ReadOnly => self.read_only,
            Permissions::Edit => self.edit,
            Permissions::Full => self.full,
        }
    }
}

/// The way to keep an agent from starting this server again. A server below a worker refuses to manage workers, so a
/// registration that cannot be switched off only costs time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnServerOff {
    /// There is no known way.
    Unknown,
    /// An argument that switches off all servers.
    Argument(&'static str),
    /// An argument for each registration.
    ArgumentEach(&'static str),
    /// A variable that switches off all servers.
    Variable(&'static str, &'static str),
    /// A variable with configuration in the format of OpenCode.
    OpenCodeConfig(&'static str),
    /// A field of the request that opens the session.
    StrictMcp,
}

/// The facts about an agent of which only the command is known.
const UNKNOWN: Preset = Preset {
    name: "",
    program: "",
    args: &[],
    env: &[],
    evidence: Evidence::Documentation,
    form_of: None,
    family: None,
    model: ChosenBy::Nothing,
    effort: ChosenBy::Nothing,
    efforts: &[],
    modes: Modes::NONE,
    allow_all: None,
    read_only: None,
    read_only_env: &[],
    full_as_root_env: &[],
    usage: UsageMeaning::Unknown,
    usage_shows_success: false,
    mixes_notices: false,
    messages: LiveMessages::NextTurn,
    own_server_off: OwnServerOff::Unknown,
    needs_git_directories: false,
    state: &[],
    hides_identity: false,
    login_methods: &[],
    attach_option: None,
    install: "",
    login: "",
    key_variables: &[],
    login_files: &[],
};

/// All presets, in alphabetical order of their names.
pub static PRESETS: [Preset; 16] = [
    CLAUDE_AGENT_ACP,
    CODEX_ACP,
    COPILOT,
    CURSOR,
    DROID,
    GEMINI_ACP,
    GOOSE,
    GROK,
    JUNIE,
    KILO,
    KIMI,
    KIRO,
    OPENCODE_ACP,
    PI,
    QWEN,
    VIBE,
];

const QWEN: Preset = Preset {
    name: "qwen",
    program: "qwen",
    args: &["--acp"],
    evidence: Evidence::Tried("0.24.4"),
    // Over the protocol it saves the model in the user's settings.
    model: ChosenBy::Argument("--model"),
    modes: Modes { read_only: &[], edit: &["auto-edit", "default"], full: &["yolo", "default"] },
    usage: UsageMeaning::Calls,
    messages: LiveMessages::Drained,
    own_server_off: OwnServerOff::Argument("--allowed-mcp-server-names=none"),
    hides_identity: true,
    attach_option: Some("--resume"),
    install: "npm install -g @qwen-code/qwen-code",
    login: "qwen (and choose a login), or set OPENAI_API_KEY and OPENAI_BASE_URL",
    key_variables: &["OPENAI_API_KEY", "DASHSCOPE_API_KEY"],
    login_files: &[(None, ".qwen", "oauth_creds.json")],
    state: state::QWEN,
    ..UNKNOWN
};

/// It reports a failure as a good end of the turn; only the missing usage shows the failure.
const COPILOT: Preset = Preset {
    name: "copilot",
    program: "copilot",
    args: &["--acp", "--stdio"],
    // The second keeps it from starting a search server that its other processes share (from its documentation).
    env: &[("COPILOT_AUTO_UPDATE", "false"), ("USE_TGREP", "false")],
    evidence: Evidence::Tried("1.0.102"),
    model: ChosenBy::Argument("--model"),
    // From its documentation.
    effort: ChosenBy::Argument("--reasoning-effort"),
    efforts: &["none", "minimal", "low", "medium", "high", "xhigh", "max"],
    modes: Modes {
        read_only: &[],
        edit: &["https://agentclientprotocol.com/protocol/session-modes#agent"],
        full: &["https://agentclientprotocol.com/protocol/session-modes#agent"],
    },
    allow_all: Some("allow_all"),
    usage: UsageMeaning::Process,
    usage_shows_success: true,
    mixes_notices: true,
    own_server_off: OwnServerOff::ArgumentEach("--disable-mcp-server"),
    attach_option: Some("--resume"),
    install: "npm install -g @github/copilot",
    login: "copilot login, or set COPILOT_GITHUB_TOKEN",
    key_variables: &["COPILOT_GITHUB_TOKEN", "GH_TOKEN", "GITHUB_TOKEN", "COPILOT_PROVIDER_BASE_URL"],
    state: state::COPILOT,
    ..UNKNOWN
};

/// It refuses a second prompt while one runs. Over the protocol it saves model and thinking in the user's settings.
const VIBE: Preset = Preset {
    name: "vibe",
    program: "vibe-acp",
    evidence: Evidence::Tried("3.0.2"),
    model: ChosenBy::Variable("VIBE_ACTIVE_MODEL"),
    modes: Modes { read_only: &["ask"], edit: &["accept-edits", "ask"], full: &["auto-approve", "ask"] },
    read_only: Some(Enforcement::Cli),
    usage: UsageMeaning::Session,
    // An empty list in VIBE_MCP_SERVERS is joined with the user's.
    own_server_off: OwnServerOff::Variable("VIBE_ENABLE_MCP", "false"),
    install: "uv tool install mistral-vibe",
    login: "vibe --setup, or set MISTRAL_API_KEY",
    key_variables: &["MISTRAL_API_KEY"],
    login_files: &[(Some("VIBE_HOME"), ".vibe", ".env")],
    state: state::VIBE,
    ..UNKNOWN
};

const OPENCODE_ACP: Preset = Preset {
    name: "opencode-acp",
    program: "opencode",
    args: &["acp"],
    env: &[("OPENCODE_DISABLE_AUTOUPDATE", "1")],
    evidence: Evidence::Tried("1.18.33"),
    form_of: Some(OPENCODE),
    model: ChosenBy::Session,
    modes: Modes { read_only: &["build"], edit: &["build"], full: &["build"] },
    read_only: Some(Enforcement::Cli),
    read_only_env: &[("OPENCODE_PERMISSION", r#"{"edit":"deny","bash":"deny"}"#)],
    // Its usage is that of the last model call only.
    messages: LiveMessages::SecondPrompt,
    own_server_off: OwnServerOff::OpenCodeConfig("OPENCODE_CONFIG_CONTENT"),
    attach_option: Some("--session"),
    state: state::OPENCODE,
    ..UNKNOWN
};

/// A process finds a session of another one only from the next wall-clock minute on. Otherwise a new session begins.
const GEMINI_ACP: Preset = Preset {
    name: "gemini-acp",
    program: "gemini",
    args: &["--acp"],
    // Its launcher ignores SIGTERM and does not pass it on. It works only in trusted directories.
    env: &[("GEMINI_CLI_NO_RELAUNCH", "1"), ("GEMINI_CLI_TRUST_WORKSPACE", "true")],
    evidence: Evidence::Tried("0.61.0"),
    form_of: Some(GEMINI),
    family: Some(GEMINI),
    model: ChosenBy::Argument("--model"),
    modes: Modes { read_only: &["default"], edit: &["autoEdit", "default"], full: &["yolo", "default"] },
    read_only: Some(Enforcement::Cli),
    usage: UsageMeaning::Turn,
    own_server_off: OwnServerOff::Argument("--allowed-mcp-server-names=none"),
    hides_identity: true,
    attach_option: Some("--resume"),
    state: state::GEMINI,
    ..UNKNOWN
};

/// It reports a cost for the whole session and tokens for each turn, so only the tokens are counted.
const CLAUDE_AGENT_ACP: Preset = Preset {
    name: "claude-agent-acp",
    program: "claude-agent-acp",
    // By itself its CLI retries for minutes.
    env: &[("CLAUDE_CODE_MAX_RETRIES", "4"), ("DISABLE_AUTOUPDATER", "1")],
    evidence: Evidence::Tried("0.101.0"),
    family: Some(CLAUDE_CODE),
    model: ChosenBy::Session,
    effort: ChosenBy::Session,
    efforts: &["low", "medium", "high", "xhigh", "max"],
    modes: Modes {
        read_only: &["default"],
        edit: &["acceptEdits", "default"],
        full: &["bypassPermissions", "acceptEdits", "default"],
    },
    read_only: Some(Enforcement::Cli),
    full_as_root_env: &[("IS_SANDBOX", "1")],
    usage: UsageMeaning::Turn,
    messages: LiveMessages::Steering,
    own_server_off: OwnServerOff::StrictMcp,
    install: "npm install -g @agentclientprotocol/claude-agent-acp",
    state: state::CLAUDE_CODE,
    ..UNKNOWN
};

/// It reports a failure of its service as a good end of the turn, without a usage. After a cancellation its commands
/// run until the supervisor ends them.
const CODEX_ACP: Preset = Preset {
    name: "codex-acp",
    program: "codex-acp",
    evidence: Evidence::Tried("2.6.0"),
    family: Some(CODEX),
    model: ChosenBy::Session,
    effort: ChosenBy::Session,
    efforts: &["low", "medium", "high", "xhigh"],
    modes: Modes { read_only: &["read-only"], edit: &["workspace-write"], full: &["agent-full-access"] },
    read_only: Some(Enforcement::Sandbox),
    usage: UsageMeaning::Turn,
    usage_shows_success: true,
    messages: LiveMessages::Steering,
    needs_git_directories: true,
    install: "npm install -g @agentclientprotocol/codex-acp",
    state: state::CODEX,
    ..UNKNOWN
};

/// A relative of OpenCode, from which it is inferred that a second prompt joins the running turn.
const KILO: Preset = Preset {
    name: "kilo",
    program: "kilo",
    args: &["acp"],
    env: &[("KILO_DISABLE_AUTOUPDATE", "1")],
    evidence: Evidence::Tried("7.7.7"),
    model: ChosenBy::Session,
    modes: Modes { read_only: &[], edit: &["code"], full: &["code"] },
    messages: LiveMessages::SecondPrompt,
    own_server_off: OwnServerOff::OpenCodeConfig("KILO_CONFIG_CONTENT"),
    attach_option: Some("--session"),
    install: "npm install -g @kilocode/cli",
    login: "kilo auth login",
    key_variables: &["KILO_API_KEY"],
    login_files: &[(Some("XDG_DATA_HOME"), ".local/share", "kilo/auth.json")],
    state: state::KILO,
    ..UNKNOWN
};

const CURSOR: Preset = Preset {
    name: "cursor",
    program: "cursor-agent",
    args: &["acp"],
    install: "curl https://cursor.com/install -fsS | bash",
    login: "cursor-agent login, or set CURSOR_API_KEY",
    key_variables: &["CURSOR_API_KEY"],
    state: state::CURSOR,
    ..UNKNOWN
};

const DROID: Preset = Preset {
    name: "droid",
    program: "droid",
    args: &["exec", "--output-format", "acp"],
    env: &[("DROID_DISABLE_AUTO_UPDATE", "true"), ("FACTORY_DROID_AUTO_UPDATE_ENABLED", "false")],
    install: "npm install -g droid",
    login: "set FACTORY_API_KEY",
    key_variables: &["FACTORY_API_KEY"],
    state: state::DROID,
    ..UNKNOWN
};

const GOOSE: Preset = Preset {
    name: "goose",
    program: "goose",
    args: &["acp"],
    install: "see https://block.github.io/goose/docs/getting-started/installation",
    login: "goose configure",
    state: state::GOOSE,
    ..UNKNOWN
};

/// It must log in before each session.
const GROK: Preset = Preset {
    name: "grok",
    program: "grok",
    args: &["agent", "stdio"],
    login_methods: &["cached_token", "xai.api_key"],
    install: "npm install -g @xai-official/grok",
    login: "grok login, or set XAI_API_KEY",
    key_variables: &["XAI_API_KEY", "GROK_CODE_XAI_API_KEY"],
    state: state::GROK,
    ..UNKNOWN
};

const JUNIE: Preset = Preset {
    name: "junie",
    program: "junie",
    args: &["--acp=true"],
    install: "see https://junie.jetbrains.com",
    login: "junie (and log in), or set JUNIE_API_KEY",
    key_variables: &["JUNIE_API_KEY"],
    state: state::JUNIE,
    ..UNKNOWN
};

const KIMI: Preset = Preset {
    name: "kimi",
    program: "kimi",
    args: &["acp"],
    install: "see https://github.com/MoonshotAI/kimi-cli",
    login: "kimi login",
    state: state::KIMI,
    ..UNKNOWN
};

const KIRO: Preset = Preset {
    name: "kiro",
    program: "kiro-cli",
    args: &["acp"],
    install: "see https://kiro.dev/docs/cli",
    login: "kiro-cli login",
    state: state::KIRO,
    ..UNKNOWN
};

/// An adapter that starts the program `pi`.
const PI: Preset = Preset {
    name: "pi",
    program: "pi-acp",
    install: "npm install -g pi-acp",
    login: "install pi, run it, and log in",
    state: state::PI,
    ..UNKNOWN
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_settings_agree() {
        let names: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
        assert!(names.is_sorted(), "{names:?}");
        for preset in &PRESETS {
            let name = preset.name;
            assert_eq!(preset.efforts.is_empty(), preset.effort == ChosenBy::Nothing, "{name}");
            assert_eq!(preset.read_only.is_some(), !preset.modes.read_only.is_empty(), "{name}");
            let is_tried = matches!(preset.evidence, Evidence::Tried(_));
            assert!(is_tried || preset.modes.edit.is_empty(), "{name}: modes are known from runs only");
        }
    }
}
