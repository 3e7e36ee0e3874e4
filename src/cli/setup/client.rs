//! What the four clients have in common: where they are told of a server, and what setup is asked for.

use std::path::PathBuf;

use clap::ValueEnum;

use super::registration::{Environment, Registration, Scope};
use super::{claude, codex, gemini, opencode};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Client {
    #[value(alias = "claudecode", alias = "claude-code")]
    Claude,
    Codex,
    #[value(alias = "gemini-cli")]
    Gemini,
    #[value(name = "opencode")]
    OpenCode,
}

impl Client {
    pub fn registration(self, environment: &Environment, scope: Scope) -> Registration {
        match self {
            Client::Claude => claude::registration(environment, scope),
            Client::Codex => codex::registration(environment, scope),
            Client::Gemini => gemini::registration(environment, scope),
            Client::OpenCode => opencode::registration(environment, scope),
        }
    }

    /// Where it reads skills: Claude Code in a place of its own, the others in the one that they share.
    pub fn skills(self, environment: &Environment, scope: Scope) -> PathBuf {
        match (self, scope) {
            (Client::Claude, Scope::User) => environment.folder_in("CLAUDE_CONFIG_DIR", ".claude").join("skills"),
            (Client::Claude, Scope::Project) => environment.project.join(".claude/skills"),
            (_, Scope::User) => environment.home.join(".agents/skills"),
            (_, Scope::Project) => environment.project.join(".agents/skills"),
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Client::Claude => "Claude Code",
            Client::Codex => "Codex",
            Client::Gemini => "Gemini CLI",
            Client::OpenCode => "OpenCode",
        }
    }

    /// As the backends call it.
    pub fn backend(self) -> &'static str {
        match self {
            Client::Claude => "claudecode",
            Client::Codex => "codex",
            Client::Gemini => "gemini",
            Client::OpenCode => "opencode",
        }
    }
}
