//! The parts of a registration that all clients share: where it applies, and the entry in the client's settings.

use std::env;
use std::path::PathBuf;

use clap::ValueEnum;

use super::document::Format;
use super::entry::{Field, FieldRule};

/// Time limit for a tool call. It is longer than the longest default wait.
pub const CALL_SECONDS: u64 = 600;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SetupScope {
    /// All your projects
    User,
    /// The project in the current directory, for all its users
    Project,
}

/// The facts from which a registration is built.
pub struct Environment {
    pub home: PathBuf,
    /// The current directory, in which the client runs.
    pub project: PathBuf,
    /// The program that the client starts.
    pub command: String,
    pub arguments: Vec<String>,
    pub allow_tools: bool,
}

/// A client's entry for this server, and the place of the entry.
pub struct Registration {
    pub path: PathBuf,
    pub format: Format,
    pub keys: Vec<&'static str>,
    pub fields: Vec<Field>,
    /// The rules in another file that let the client call tools of this server without asking.
    pub rules: Option<Rules>,
    pub notes: Vec<String>,
}

/// A list of rules in a file of the client, and this server's entries in it.
pub struct Rules {
    pub path: PathBuf,
    pub format: Format,
    pub keys: Vec<&'static str>,
    /// The rules for the tools that only read, one for each.
    pub for_reading: Vec<String>,
    /// The rule for all tools.
    pub for_all: String,
}

impl Environment {
    /// Returns the folder that a variable names, or else a folder in the home.
    pub fn folder_in(&self, variable: &str, folder: &str) -> PathBuf {
        let named = env::var_os(variable).filter(|value| !value.is_empty());
        named.map_or_else(|| self.home.join(folder), PathBuf::from)
    }

    /// Returns the fields for command and arguments. The user's arguments stay unless setup has some.
    pub fn command_and_args(&self) -> Vec<Field> {
        let mut fields = vec![(vec!["command"], FieldRule::Exactly(self.command.clone().into()))];
        if !self.arguments.is_empty() {
            fields.push((vec!["args"], FieldRule::Exactly(self.arguments.clone().into())));
        }
        fields
    }
}
