//! The environment variables that workers need. Claude Code and OpenCode pass their whole environment to their servers;
//! Codex passes only named variables, and Gemini CLI none that look like secrets.

use std::env;

/// Keys of the workers' CLIs. They are named even if they are not set, since the user may set one later.
pub const KEYS: &[&str] = &[
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CODEX_API_KEY",
    "GEMINI_API_KEY",
    "GOOGLE_API_KEY",
    "GOOGLE_GENERATIVE_AI_API_KEY",
    "OPENAI_API_KEY",
    "OPENCODE_API_KEY",
    "OPENROUTER_API_KEY",
];

/// Variables for settings, services and proxies of the CLIs and of this server.
const OTHERS: &[&str] = &[
    "ALL_PROXY",
    "ANTHROPIC_BASE_URL",
    "AWS_PROFILE",
    "AWS_REGION",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_VERTEX",
    "CLAUDE_CONFIG_DIR",
    "CODEX_HOME",
    "GIT_CONFIG_GLOBAL",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_CLOUD_LOCATION",
    "GOOGLE_CLOUD_PROJECT",
    "GOOGLE_GEMINI_BASE_URL",
    "GOOGLE_GENAI_USE_GCA",
    "GOOGLE_GENAI_USE_VERTEXAI",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "OPENAI_BASE_URL",
    "OPENCODE_CONFIG",
    "OPENCODE_CONFIG_DIR",
    "ORCHESTRATOR_LOG",
    "ORCHESTRATOR_MAX_WORKERS",
    "ORCHESTRATOR_STATE_DIR",
    "ORCHESTRATOR_WAIT_SECONDS",
    "SSH_AUTH_SOCK",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_STATE_HOME",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// Returns the variables for Codex, which omits those that are not set: all keys, and the others that are set.
pub fn keys_and_set_variables() -> Vec<String> {
    KEYS.iter().chain(OTHERS.iter().filter(|name| is_set(name))).map(|name| (*name).to_owned()).collect()
}

/// Returns the variables for Gemini CLI: only those that are set, since it would pass others as empty.
pub fn set_secrets() -> Vec<&'static str> {
    KEYS.iter().chain(&["SSH_AUTH_SOCK"]).copied().filter(|name| is_set(name)).collect()
}

fn is_set(name: &str) -> bool {
    env::var_os(name).is_some_and(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the plugin's entry for Codex, which cannot know which variables are set.
    #[test]
    fn codex_plugin_names_all_variables() {
        let manifest: serde_json::Value =
            serde_json::from_str(include_str!("../../../.codex-plugin/plugin.json")).expect("a manifest");
        let named = &manifest["mcpServers"]["orchestrator-boss"]["env_vars"];
        let all: Vec<&str> = KEYS.iter().chain(OTHERS).copied().collect();
        assert_eq!(*named, serde_json::json!(all));
    }
}
