//! Finds the registrations of this server in the clients' settings. Only reads them.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::Value;
use thiserror::Error;

use super::client::ClientKind;
use super::entry::NAME;
use super::registration::{Environment, Registration, SetupScope};
use super::syntax_error::SyntaxError;
use super::{SetupError, file, program};

/// An entry of this server in a client's settings, or settings that cannot be read.
pub struct FoundRegistration {
    pub client: &'static str,
    /// True for a project's settings, which another user may have written.
    pub is_projects: bool,
    pub path: PathBuf,
    /// The program that the client starts.
    pub program: Result<String, RegistrationError>,
    /// True if it starts the npm package.
    pub is_npm: bool,
    /// True if it starts the server on another host.
    pub is_remote: bool,
    /// The command that writes the entry again.
    pub setup: String,
}

/// The reason why the program of a registration is unknown.
#[derive(Debug, Error)]
pub enum RegistrationError {
    #[error(transparent)]
    File(#[from] SetupError),
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    #[error("its entry names no program")]
    NoProgram,
}

/// Returns the installed clients, each with the command to register this server.
pub fn installed() -> Vec<(&'static str, String)> {
    let backends = crate::backend::Backends::with_custom(Vec::new());
    let is_here = |client: &ClientKind| {
        let backend = backends.get(client.backend());
        backend.is_ok_and(|backend| which::which(backend.program()).is_ok())
    };
    ClientKind::value_variants()
        .iter()
        .filter(|client| is_here(client))
        .map(|it| (it.title(), setup(*it, SetupScope::User)))
        .collect()
}

pub fn all(project: &Path) -> Vec<FoundRegistration> {
    let Ok(home) = etcetera::home_dir() else { return Vec::new() };
    // Their values do not matter for reading.
    let (command, arguments) = (String::new(), Vec::new());
    let environment = Environment { home, project: project.to_owned(), command, arguments, allow_tools: false };
    let places = ClientKind::value_variants()
        .iter()
        .flat_map(|client| [(*client, SetupScope::User), (*client, SetupScope::Project)]);
    places.filter_map(|(client, scope)| of(client, scope, client.registration(&environment, scope))).collect()
}

fn of(client: ClientKind, scope: SetupScope, registration: Registration) -> Option<FoundRegistration> {
    let Registration { path, format, keys, .. } = registration;
    let entry = match file::read(&path) {
        Ok(None) => return None,
        Ok(Some(text)) => format.get(&text, &keys).map_err(RegistrationError::from),
        Err(error) => Err(error.into()),
    };
    let starts = |launcher: &str| matches!(&entry, Ok(Some(entry)) if starts_through(launcher, entry));
    let (is_npm, is_remote) = (starts("npx"), starts("ssh"));
    let program = match entry {
        Ok(None) => return None,
        Ok(Some(entry)) => named_program(&entry).ok_or(RegistrationError::NoProgram),
        Err(error) => Err(error),
    };
    let is_projects = scope == SetupScope::Project;
    let setup = setup(client, scope);
    Some(FoundRegistration { client: client.title(), is_projects, path, program, is_npm, is_remote, setup })
}

/// Returns the program of an entry. OpenCode has the program and its arguments in one list.
fn named_program(entry: &Value) -> Option<String> {
    let command = entry.get("command")?;
    command.as_str().or_else(|| command.get(0)?.as_str()).map(str::to_owned)
}

/// Returns whether an entry starts this server through another program.
fn starts_through(launcher: &str, entry: &Value) -> bool {
    let is_launcher = named_program(entry).is_some_and(|program| Path::new(&program).ends_with(launcher));
    is_launcher && entry.to_string().contains(NAME)
}

/// Returns the command that registers this server with a client.
pub(super) fn setup(client: ClientKind, scope: SetupScope) -> String {
    let name = client.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let scope = if scope == SetupScope::Project { " --scope project" } else { "" };
    format!("{} setup {name}{scope}", program::in_a_shell())
}
