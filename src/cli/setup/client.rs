//! The clients that setup can register this server with.

use std::path::PathBuf;

use clap::ValueEnum;

use super::registration::{Environment, Registration, SetupScope};
use super::{claude, codex, gemini, opencode};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ClientKind {
    #[value(alias = "claudecode", alias = "claude-code")]
    Claude,
    Codex,
    #[value(alias = "gemini-cli")]
    Gemini,
    #[value(name = "opencode")]
    OpenCode,
}

impl ClientKind {
    pub fn registration(self, environment: &Environment, scope: SetupScope) -> Registration {
        match self {
            ClientKind::Claude => claude::registration(environment, scope),
            ClientKind::Codex => codex::registration(environment, scope),
            ClientKind::Gemini => gemini::registration(environment, scope),
            ClientKind::OpenCode => opencode::registration(environment, scope),
        }
    }

    /// Returns the folder of skills: Claude Code has its own, the others share one.
    pub fn skills(self, environment: &Environment, scope: SetupScope) -> PathBuf {
        match (self, scope) {
            (ClientKind::Claude, SetupScope::User) => {
                environment.folder_in("CLAUDE_CONFIG_DIR", ".claude").join("skills")
            }
            (ClientKind::Claude, SetupScope::Project) => environment.project.join(".claude/skills"),
            (_, SetupScope::User) => environment.home.join(".agents/skills"),
            (_, SetupScope::Project) => environment.project.join(".agents/skills"),
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            ClientKind::Claude => "Claude Code",
            ClientKind::Codex => "Codex",
            ClientKind::Gemini => "Gemini CLI",
            ClientKind::OpenCode => "OpenCode",
        }
    }

    /// Returns the name of the client's program.
    pub fn program(self) -> &'static str {
        match self {
            ClientKind::Claude => "claude",
            ClientKind::Codex => "codex",
            ClientKind::Gemini => "gemini",
            ClientKind::OpenCode => "opencode",
        }
    }

    /// Returns the name of the client's backend.
    pub fn backend(self) -> &'static str {
        match self {
            ClientKind::Claude => "claudecode",
            ClientKind::Codex => "codex",
            ClientKind::Gemini => "gemini",
            ClientKind::OpenCode => "opencode",
        }
    }
}
