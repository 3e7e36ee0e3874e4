//! What the workers need from the user's environment. Claude Code and OpenCode hand all of it on to their servers; Codex
//! hands on nothing that it is not told to, Gemini CLI nothing that looks like a secret.

use std::env;

/// What the workers' CLIs log in with. The user may set one later, so it is named even while it is not set.
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

/// Where they and this server look for their settings, whom they ask, and how they get there.
const PLACES: &[&str] = &[
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

/// For Codex 0.169.0, which leaves out what is not set: all keys, and of the rest what is set.
pub fn keys_and_set_places() -> Vec<String> {
    KEYS.iter().chain(PLACES.iter().filter(|name| is_set(name))).map(|name| (*name).to_owned()).collect()
}

/// For Gemini CLI 0.61.0, which would hand on as empty what is not set, and holds back by itself only names like these.
pub fn set_secrets() -> Vec<&'static str> {
    KEYS.iter().chain(&["SSH_AUTH_SOCK"]).copied().filter(|name| is_set(name)).collect()
}

fn is_set(name: &str) -> bool {
    env::var_os(name).is_some_and(|value| !value.is_empty())
}
