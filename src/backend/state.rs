//! The folders in which CLIs keep their state. A confined CLI can write them as a whole: with less, some lose a renewed
//! login, and others do not start. `~/.claude.json` is not among them: Claude Code works without writing it, and if only
//! that file could be written, it would be written without its lock.

use super::StateFolder;

pub const CLAUDE_CODE: &[StateFolder] = &[
    StateFolder::named("CLAUDE_CONFIG_DIR", ".claude"),
    // It keeps its login there, and a renewed one would be lost.
    #[cfg(target_os = "macos")]
    StateFolder { variable: None, below: "", default: "Library/Keychains" },
];
pub const CODEX: &[StateFolder] = &[StateFolder::named("CODEX_HOME", ".codex")];
pub const GEMINI: &[StateFolder] = &[StateFolder::below("GEMINI_CLI_HOME", ".gemini", ".gemini")];
pub const OPENCODE: &[StateFolder] = &[
    StateFolder::below("XDG_DATA_HOME", "opencode", ".local/share/opencode"),
    StateFolder::below("XDG_STATE_HOME", "opencode", ".local/state/opencode"),
    StateFolder::below("XDG_CACHE_HOME", "opencode", ".cache/opencode"),
];
pub const QWEN: &[StateFolder] = &[StateFolder::named("QWEN_HOME", ".qwen")];
pub const COPILOT: &[StateFolder] = &[
    StateFolder::named("COPILOT_HOME", ".copilot"),
    StateFolder::below("XDG_STATE_HOME", ".copilot", ".copilot"),
    StateFolder::below("XDG_CACHE_HOME", "copilot", ".cache/copilot"),
];
pub const VIBE: &[StateFolder] = &[StateFolder::named("VIBE_HOME", ".vibe")];
pub const KILO: &[StateFolder] = &[
    StateFolder::below("XDG_DATA_HOME", "kilo", ".local/share/kilo"),
    StateFolder::below("XDG_STATE_HOME", "kilo", ".local/state/kilo"),
    StateFolder::below("XDG_CACHE_HOME", "kilo", ".cache/kilo"),
    StateFolder::below("XDG_CONFIG_HOME", "kilo", ".config/kilo"),
];

/// Returns the folders of a known CLI by the name of its program, for a backend of the user's own.
pub fn of_program(program: &str) -> &'static [StateFolder] {
    match program.rsplit('/').next().unwrap_or_default() {
        "claude" | "claude-agent-acp" => CLAUDE_CODE,
        "codex" | "codex-acp" => CODEX,
        "gemini" => GEMINI,
        "opencode" => OPENCODE,
        "qwen" => QWEN,
        "copilot" => COPILOT,
        "vibe" | "vibe-acp" => VIBE,
        "kilo" => KILO,
        _ => &[],
    }
}
