//! The kernel's answer about the confinement of a worker. Pure: only `process/confine` asks the kernel.

use serde::{Deserialize, Serialize};

/// The result of confining a worker. It is made from the kernel's answer, never from what was requested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confinement {
    /// The kernel refuses writing outside of what was granted.
    Kernel(Confined),
    /// The worker runs without it.
    Off { why: String },
}

/// Actions that stay possible in any confinement.
const OPEN: &str = "the network, sockets with a path";

/// A confinement that the kernel enforces on all processes of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confined {
    pub by: Enforcer,
    /// The version of the kernel's interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abi: Option<u32>,
    pub git: GitGrant,
    /// True if the worker cannot signal processes outside of it.
    pub signals: bool,
    #[serde(default)]
    pub reads: Reads,
    #[serde(default)]
    pub cli_state: CliState,
}

/// The part of the CLI's state folders that a worker can write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CliState {
    #[default]
    Whole,
    /// Nothing: no folder with state of the CLI is known or exists.
    None,
}

/// The files that a worker can read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reads {
    /// All that the user can read.
    #[default]
    All,
    /// Not what the setting `confine_unreadable` names.
    Limited,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enforcer {
    Landlock,
    /// The sandbox of macOS.
    SandboxExec,
}

/// The part of the repository's Git directory that a worker can write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GitGrant {
    /// All of it, as all worktrees share it.
    Shared,
    /// None of it: it works in a clone, whose commits are fetched.
    Clone,
    /// Nothing: the worker only reads, or works outside a repository.
    None,
}

impl Confinement {
    /// Returns the confinement if the kernel enforces it.
    pub fn confined(&self) -> Option<&Confined> {
        match self {
            Self::Kernel(confined) => Some(confined),
            Self::Off { .. } => None,
        }
    }

    /// Describes it for people, in one line.
    pub fn line(&self) -> String {
        match self {
            Self::Kernel(Confined { by, abi, git, signals, reads, .. }) => {
                let version = abi.map(|abi| format!(" {abi}")).unwrap_or_default();
                let signals = if *signals { "" } else { ", signals" };
                format!(
                    "writes only to its worktree and allowed folders (by {}{version}, git {}); open: {}, {OPEN}{signals}",
                    by.as_str(),
                    git.as_str(),
                    reads.open(),
                )
            }
            Self::Off { why } => format!("no: {why}"),
        }
    }
}

impl Enforcer {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Landlock => "landlock",
            Self::SandboxExec => "sandbox-exec",
        }
    }
}

impl CliState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::None => "none",
        }
    }
}

impl Reads {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Limited => "limited",
        }
    }

    /// Names the reading that stays possible.
    pub fn open(self) -> &'static str {
        match self {
            Self::All => "reading",
            Self::Limited => "reading of all but confine_unreadable",
        }
    }
}

impl GitGrant {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Clone => "clone",
            Self::None => "none",
        }
    }
}
