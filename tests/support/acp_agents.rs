//! The real agents of the Agent Client Protocol, in a home whose settings name only the scripted model.
//!
//! Those that each change must pass are pinned in `tests/real`, the others in `tests/real/agents`, where
//! `install.sh` installs them.

use std::env;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::real_cli::{Cli, ScratchHome, skipped as cli_skipped};

/// An agent that was tried, see `src/backend/agents/presets.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agent {
    Gemini,
    OpenCode,
    Qwen,
    Copilot,
    Claude,
    Codex,
    Vibe,
    Kilo,
}

impl Agent {
    /// Returns the name of its backend.
    pub fn backend(self) -> &'static str {
        match self {
            Agent::Gemini => "gemini-acp",
            Agent::OpenCode => "opencode-acp",
            Agent::Qwen => "qwen",
            Agent::Copilot => "copilot",
            Agent::Claude => "claude-agent-acp",
            Agent::Codex => "codex-acp",
            Agent::Vibe => "vibe",
            Agent::Kilo => "kilo",
        }
    }

    /// Returns the model of a mission, or `None` if the agent's own settings name one.
    pub fn model(self) -> Option<&'static str> {
        match self {
            Agent::Gemini => Some("gemini-2.5-pro"),
            Agent::OpenCode => Some("scripted/scripted"),
            _ => None,
        }
    }

    /// Returns a model that does not exist, although its backend accepts the name.
    pub fn unknown_model(self) -> &'static str {
        match self {
            Agent::Gemini => "gemini-0-none",
            Agent::Claude => "claude-none",
            Agent::Codex => "gpt-0-none",
            Agent::OpenCode | Agent::Kilo => "scripted/none",
            _ => "none",
        }
    }

    /// Returns whether a running turn receives messages. For the other agents the next turn begins with them.
    pub fn takes_live_messages(self) -> bool {
        !matches!(self, Agent::Gemini | Agent::Copilot | Agent::Vibe)
    }

    /// Returns whether it reports the tokens of all calls.
    pub fn counts_tokens(self) -> bool {
        !matches!(self, Agent::OpenCode | Agent::Kilo)
    }

    fn path(self) -> PathBuf {
        match self {
            Agent::Gemini => Cli::Gemini.path(),
            Agent::OpenCode => Cli::OpenCode.path(),
            Agent::Qwen => folder("node_modules/.bin/qwen"),
            Agent::Copilot => folder("node_modules/.bin/copilot"),
            Agent::Claude => folder("agents/node_modules/.bin/claude-agent-acp"),
            Agent::Codex => folder("agents/node_modules/.bin/codex-acp"),
            Agent::Vibe => folder("agents/vibe/bin/vibe-acp"),
            Agent::Kilo => folder("agents/node_modules/@kilocode/cli-linux-x64/bin/kilo"),
        }
    }

    /// Returns whether the agent is missing, and prints that the test is skipped. It panics instead if the test must
    /// run: with `CI=true`, and for the agents in `tests/real/agents` with `ORCHESTRATOR_ALL_AGENTS=1`.
    pub fn skipped(self) -> bool {
        let path = self.path();
        if path.exists() {
            return cli_skipped();
        }
        let is_optional = path.starts_with(folder("agents"));
        let (variable, value) = if is_optional { ("ORCHESTRATOR_ALL_AGENTS", "1") } else { ("CI", "true") };
        let how = if is_optional { "run tests/real/agents/install.sh" } else { "run `npm ci` in tests/real" };
        let why = format!("{} is not installed: {how}", self.backend());
        assert!(env::var(variable).as_deref() != Ok(value), "{why}");
        println!("SKIPPED: {why}");
        true
    }
}

/// Makes all agents use the scripted model at this URL with a dummy key.
pub fn point_agents_at(home: &mut ScratchHome, model_url: &str) {
    // The pinned CLIs and node come first, since some of the agents bring CLIs of their own.
    let path = env::split_paths(&home.env()["PATH"]).collect::<Vec<_>>();
    let own = [Agent::Claude, Agent::Kilo, Agent::Vibe].map(|agent| agent.path().with_file_name(""));
    let folders = path.iter().take(1).chain(&own).chain(path.iter().skip(1));
    let path = env::join_paths(folders).expect("no folder has a colon");
    home.set("PATH", path.to_str().expect("readable folders"));
    home.set("GEMINI_CLI_NO_RELAUNCH", "1");
    home.set("GEMINI_CLI_TRUST_WORKSPACE", "true");
    point_qwen_at(home, model_url);
    point_vibe_at(home, model_url);
    point_kilo_at(home, model_url);
    home.set("COPILOT_PROVIDER_BASE_URL", format!("{model_url}/v1"));
    home.set("COPILOT_PROVIDER_API_KEY", "dummy");
    home.set("COPILOT_MODEL", "scripted");
    home.set("COPILOT_OFFLINE", "true");
}

fn point_qwen_at(home: &mut ScratchHome, model_url: &str) {
    let settings = json!({
        "security": {"auth": {"selectedType": "openai"}},
        "privacy": {"usageStatisticsEnabled": false},
        "general": {"enableAutoUpdate": false},
    });
    home.write(".qwen/settings.json", &settings.to_string());
    home.set("OPENAI_BASE_URL", format!("{model_url}/v1"));
    home.set("OPENAI_API_KEY", "dummy");
    home.set("OPENAI_MODEL", "scripted");
}

/// Configures Mistral Vibe, which uses its own service for an unknown model if there is a key.
fn point_vibe_at(home: &mut ScratchHome, model_url: &str) {
    home.set("MISTRAL_API_KEY", "dummy");
    let config = format!(
        r#"active_model = "scripted"
enable_telemetry = false
enable_update_checks = false
enable_auto_update = false
enable_connectors = false

[[providers]]
name = "scripted"
api_base = "{model_url}/v1"
api_key_env_var = "SCRIPTED_API_KEY"
api_style = "openai"
backend = "generic"

[[models]]
name = "scripted"
provider = "scripted"
alias = "scripted"
"#
    );
    home.write(".vibe/config.toml", &config);
}

/// Configures Kilo, whose settings have the format of OpenCode.
fn point_kilo_at(home: &mut ScratchHome, model_url: &str) {
    let config = json!({"model": "scripted/scripted", "provider": {"scripted": {
        "npm": "@ai-sdk/openai-compatible",
        "options": {"baseURL": format!("{model_url}/v1"), "apiKey": "dummy"},
        "models": {"scripted": {
            "name": "scripted", "tool_call": true, "limit": {"context": 100_000, "output": 8_000},
        }},
    }}});
    home.write(".config/kilo/kilo.json", &config.to_string());
    home.set("KILO_DISABLE_MODELS_FETCH", "1");
    home.set("KILO_DISABLE_AUTOUPDATE", "1");
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real").join(name)
}
