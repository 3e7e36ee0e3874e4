//! The parts of a registration that all clients share: where it applies, and the entry in the client's settings.

use std::env;
use std::path::PathBuf;

use clap::ValueEnum;

use super::document::Format;
use super::entry::{Field, Wanted};

/// How long a call of a tool may last. Longer than the longest wait by default under any client that keeps count.
pub const CALL_SECONDS: u64 = 600;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scope {
    /// All your projects
    User,
    /// The project in the current directory, for all who work on it
    Project,
}

/// What a registration is made from.
pub struct Environment {
    pub home: PathBuf,
    /// The current directory, in which the client is started.
    pub project: PathBuf,
    /// The program that the client starts.
    pub command: String,
    pub arguments: Vec<String>,
    pub allow_tools: bool,
}

/// Where a client's entry for this server lies, and what it holds.
pub struct Registration {
    pub path: PathBuf,
    pub format: Format,
    pub keys: Vec<&'static str>,
    pub fields: Vec<Field>,
    /// A rule in a file of its own by which the client asks nothing before it calls our tools.
    pub rule: Option<Rule>,
    /// What else the user has to know.
    pub notes: Vec<String>,
}

/// A text in a list of texts.
pub struct Rule {
    pub path: PathBuf,
    pub format: Format,
    pub keys: Vec<&'static str>,
    pub text: &'static str,
}

impl Environment {
    /// The folder that this variable names, or this one in the home.
    pub fn folder_in(&self, variable: &str, folder: &str) -> PathBuf {
        let named = env::var_os(variable).filter(|value| !value.is_empty());
        named.map_or_else(|| self.home.join(folder), PathBuf::from)
    }

    /// As most clients want them. Arguments of the user's stay unless we have some.
    pub fn command_and_args(&self) -> Vec<Field> {
        let mut fields = vec![(vec!["command"], Wanted::Exactly(self.command.clone().into()))];
        if !self.arguments.is_empty() {
            fields.push((vec!["args"], Wanted::Exactly(self.arguments.clone().into())));
        }
        fields
    }
}
