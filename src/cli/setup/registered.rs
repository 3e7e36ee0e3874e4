//! In which clients this server is registered, as their settings say. Only reads them.

use std::env;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::Value;

use super::client::Client;
use super::file;
use super::registration::{Environment, Registration, Scope};
use crate::cli::shell::quoted;

/// An entry of this server in a client's settings, or settings that cannot be read.
pub struct Registered {
    pub client: &'static str,
    /// Of a project and not of the user: somebody else may have written it.
    pub is_projects: bool,
    pub path: PathBuf,
    /// The program that the client starts, as it is written there; or what is wrong with the file.
    pub program: Result<String, String>,
    /// What to type to have it written anew.
    pub setup: String,
}

/// The clients that are installed here, whether this server is registered there or not, with the command that does it.
pub fn installed() -> Vec<(&'static str, String)> {
    let backends = crate::backend::Backends::with_custom(Vec::new());
    let is_here = |client: &Client| {
        let backend = backends.get(client.backend());
        backend.is_ok_and(|backend| which::which(backend.program()).is_ok())
    };
    Client::value_variants()
        .iter()
        .filter(|client| is_here(client))
        .map(|it| (it.title(), setup(*it, Scope::User)))
        .collect()
}

pub fn all(project: &Path) -> Vec<Registered> {
    let Ok(home) = etcetera::home_dir() else { return Vec::new() };
    // What an entry would say of them is not asked for here.
    let (command, arguments) = (String::new(), Vec::new());
    let environment = Environment { home, project: project.to_owned(), command, arguments, allow_tools: false };
    let places = Client::value_variants().iter().flat_map(|client| [(*client, Scope::User), (*client, Scope::Project)]);
    places.filter_map(|(client, scope)| of(client, scope, client.registration(&environment, scope))).collect()
}

fn of(client: Client, scope: Scope, registration: Registration) -> Option<Registered> {
    let Registration { path, format, keys, .. } = registration;
    let entry = match file::read(&path) {
        Ok(None) => return None,
        Ok(Some(text)) => format.get(&text, &keys).map_err(|damage| damage.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let program = match entry {
        Ok(None) => return None,
        Ok(Some(entry)) => program(&entry).ok_or_else(|| "its entry names no program".to_owned()),
        Err(damage) => Err(damage),
    };
    let is_projects = scope == Scope::Project;
    Some(Registered { client: client.title(), is_projects, path, program, setup: setup(client, scope) })
}

/// OpenCode has the program and its arguments in one list.
fn program(entry: &Value) -> Option<String> {
    let command = entry.get("command")?;
    command.as_str().or_else(|| command.get(0)?.as_str()).map(str::to_owned)
}

fn setup(client: Client, scope: Scope) -> String {
    let name = client.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let scope = if scope == Scope::Project { " --scope project" } else { "" };
    let this = env::current_exe().ok();
    let on_path = which::which("orchestrator-boss").ok();
    let program = match (this, on_path) {
        (Some(this), Some(found)) if found.canonicalize().ok() == this.canonicalize().ok() => {
            "orchestrator-boss".into()
        }
        (Some(this), _) => quoted(&this),
        (None, _) => "orchestrator-boss".into(),
    };
    format!("{program} setup {name}{scope}")
}
