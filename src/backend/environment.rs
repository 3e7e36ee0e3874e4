//! The variables that no worker may inherit: those by which an agent CLI marks its own children, those of this program,
//! and those by which a git hook or command points at another repository. Variables of the user that log in or
//! configure a CLI stay (CLAUDE_CODE_OAUTH_TOKEN, CLAUDE_CODE_USE_BEDROCK, CLAUDE_CONFIG_DIR, CODEX_HOME,
//! OPENCODE_CONFIG, keys, proxies), so there is no pattern `CLAUDE_CODE_*`.

use std::collections::BTreeMap;
use std::path::Path;

use super::Turn;

/// Variables that CLIs set for their children. With the boss's messaging token a worker could act as the boss.
const BOSS_VARIABLES: &[&str] = &[
    "AI_AGENT",
    "CLAUDECODE",
    "CLAUDE_CODE_CHILD_NOTES_DIR",
    "CLAUDE_CODE_ENTRYPOINT",
    "CLAUDE_CODE_LAUNCHED_BY_SESSION_IDS",
    "CLAUDE_CODE_MESSAGING_SOCKET",
    "CLAUDE_CODE_MESSAGING_TOKEN",
    "CLAUDE_CODE_SESSION_ID",
    "CLAUDE_CODE_SSE_PORT",
    "CLAUDE_PID",
    "CLAUDE_PLUGIN_*",
    "CLAUDE_PROJECT_DIR",
    "CODEX_CI",
    "CODEX_SANDBOX",
    "CODEX_SANDBOX_NETWORK_DISABLED",
    "CODEX_SESSION_ID",
    "CODEX_THREAD_ID",
    "CODEX_VERSION",
    "GEMINI_CLI",
    "KILO",
    "KILO_PID",
    "OPENCODE",
    "OPENCODE_PID",
    "ORCHESTRATOR_*",
    "QWEN_CODE",
    "QWEN_CODE_SESSION_ID",
];

/// The list of `git rev-parse --local-env-vars`, without GIT_CONFIG_COUNT, by which some machines configure git.
const OTHER_REPOSITORY_VARIABLES: &[&str] = &[
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_CONFIG_PARAMETERS",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_QUARANTINE_PATH",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
];

/// Returns whether the boss's CLI set this variable for its own children.
pub fn is_boss_variable(variable: &str) -> bool {
    BOSS_VARIABLES.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(prefix) => variable.starts_with(prefix),
        None => variable == *pattern,
    })
}

/// Returns the variables to remove for any CLI, and those of this one.
pub fn removed(more: &[&str]) -> Vec<String> {
    [BOSS_VARIABLES, OTHER_REPOSITORY_VARIABLES, more].concat().into_iter().map(str::to_owned).collect()
}

/// Returns the variables to set for any CLI, and those of this one. PWD is set because changing a child's directory
/// does not change it, and OpenCode prefers it to its real directory.
pub fn set<const N: usize>(dir: &Path, more: [(&str, &str); N]) -> BTreeMap<String, String> {
    let mut variables: BTreeMap<String, String> =
        more.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    variables.insert("PWD".into(), dir.to_string_lossy().into_owned());
    variables
}

/// Returns the identity for commits, for CLIs whose commands do not see the user's git configuration.
pub fn identity(turn: &Turn<'_>) -> Vec<(String, String)> {
    let Some((name, email)) = turn.identity else { return Vec::new() };
    [
        ("GIT_AUTHOR_NAME", name),
        ("GIT_AUTHOR_EMAIL", email),
        ("GIT_COMMITTER_NAME", name),
        ("GIT_COMMITTER_EMAIL", email),
    ]
    .map(|(variable, value)| (variable.to_owned(), value.to_owned()))
    .to_vec()
}
