//! The variables that a job takes over from its server: where logins and settings are, the way to the network, and what
//! the user's settings name. Keys only if the settings say so, since a file contains them until the job begins.

use std::collections::{BTreeMap, BTreeSet};
use std::env;

use super::context::Context;
use super::error::OrchestratorError;
use super::probe;
use crate::attempt::launch::PassedEnvironment;
use crate::attempt::secrets::Secrets;
use crate::config::{LauncherSettings, Settings};
use crate::mission::id::BackendName;
use crate::mission::registry::Worker;

/// Variables of the server that every job gets, if they are set.
const PASSED: [&str; 12] = [
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_STATE_HOME",
    "XDG_CACHE_HOME",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
];

/// Returns what the job of a worker gets.
pub(super) fn passed(
    context: &Context,
    worker: &Worker,
    launcher: &LauncherSettings,
) -> Result<PassedEnvironment, OrchestratorError> {
    let backend = context.backends.get(worker.next.backend.as_str())?;
    let folders = backend.state_folders().into_iter().filter_map(|folder| folder.variable);
    // Not those of the mission: a fallback needs other ones.
    let probe = backend.probe();
    let own_key = probe::own_key_variable(&probe);
    let keys = probe.key_variables.into_iter().chain(own_key).filter(|_| launcher.pass_keys);
    let secrets = if launcher.pass_keys { secrets(&context.settings) } else { Secrets::default() };
    Ok(of_server(folders.map(str::to_owned).chain(keys), launcher, secrets))
}

/// Returns what a verification of an integration gets: no keys.
pub(super) fn passed_to_verification(launcher: &LauncherSettings) -> PassedEnvironment {
    of_server(std::iter::empty(), launcher, Secrets::default())
}

fn of_server(more: impl Iterator<Item = String>, launcher: &LauncherSettings, secrets: Secrets) -> PassedEnvironment {
    let names = PASSED.map(str::to_owned).into_iter().chain(launcher.pass_env.iter().cloned()).chain(more);
    let names: BTreeSet<String> = names.collect();
    let variables: BTreeMap<String, String> =
        names.into_iter().filter_map(|name| Some((name.clone(), env::var(&name).ok()?))).collect();
    PassedEnvironment { variables, path: env::var("PATH").unwrap_or_default(), secrets }
}

/// Returns the secrets of backends. That of the `notify_command` is left out, since only servers notify the user about
/// jobs.
fn secrets(settings: &Settings) -> Secrets {
    Secrets::of(&Settings { notify_command: None, ..settings.clone() })
}

impl Context {
    /// Checks that the launcher of a mission exists, and that its jobs get the keys that this backend needs.
    pub(super) fn check_launcher(
        &self,
        launcher: &str,
        backend: &BackendName,
        keys: &[String],
    ) -> Result<(), OrchestratorError> {
        match self.settings.launcher(launcher)? {
            Some(settings) => refuse_missing_keys(self, backend, keys, (launcher, settings)),
            None => Ok(()),
        }
    }
}

/// Refuses a backend whose key would not reach the node. A login in a file does, since nodes share the home folder. A
/// service of the user's own needs its key all the same.
fn refuse_missing_keys(
    context: &Context,
    name: &BackendName,
    keys: &[String],
    launcher: (&str, &LauncherSettings),
) -> Result<(), OrchestratorError> {
    let (launcher, settings) = launcher;
    let probe = context.backends.get(name.as_str())?.probe();
    let own_key = probe::own_key_variable(&probe).filter(|name| env::var_os(name).is_some());
    let login = own_key.is_none().then(|| probe.login_command.clone());
    let of_settings = context.settings.custom.iter().filter(|backend| backend.name == name.as_str());
    let of_settings = of_settings.flat_map(|backend| backend.env.keys().cloned());
    let keys = own_key.map_or_else(|| keys.to_vec(), |key| vec![key]);
    let is_missing = |key: &String| !settings.pass_env.contains(key);
    let keys: Vec<String> = keys.into_iter().chain(of_settings).filter(is_missing).collect();
    if settings.pass_keys || keys.is_empty() || (login.is_some() && probe::has_login_file(&probe)) {
        return Ok(());
    }
    let (backend, launcher, keys) = (name.to_string(), launcher.to_owned(), keys.join(", "));
    Err(OrchestratorError::KeyNotPassed { backend, launcher, keys, login })
}
