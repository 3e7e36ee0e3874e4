//! Secrets in the user's settings (`env` of a custom backend, `notify_command`). No file may hold them, since a worker
//! can read the files of all attempts. The server passes those of a backend to the supervisor in an environment
//! variable, which no worker inherits.

use std::collections::BTreeMap;
use std::ffi::OsString;

use serde::{Deserialize, Serialize};

use crate::config::Settings;

/// The environment variable through which a supervisor receives the secrets.
pub const VARIABLE: &str = "ORCHESTRATOR_BACKEND_ENV";

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Secrets {
    /// Environment variables by the name of the backend.
    backends: BTreeMap<String, BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    notify_command: Option<String>,
}

impl Secrets {
    pub fn of(settings: &Settings) -> Self {
        let with_any = settings.custom.iter().filter(|backend| !backend.env.is_empty());
        let backends = with_any.map(|backend| (backend.name.clone(), backend.env.clone())).collect();
        Self { backends, notify_command: settings.notify_command.clone() }
    }

    /// Returns the settings without secrets, for a file.
    pub fn without(settings: &Settings) -> Settings {
        let mut settings = settings.clone();
        settings.custom.iter_mut().for_each(|backend| backend.env.clear());
        // The URL of a remote may contain a password, and supervisors do not need these settings.
        settings.repositories.clear();
        // The command may contain a key.
        settings.notify_command = None;
        settings
    }

    /// Returns the variable for the environment of a supervisor.
    pub fn variable(&self) -> BTreeMap<String, OsString> {
        let json = serde_json::to_string(self).expect("maps of strings are JSON");
        BTreeMap::from([(VARIABLE.to_owned(), json.into())])
    }

    /// Reads the variable that the server set.
    pub fn inherited() -> Self {
        let json = std::env::var(VARIABLE).unwrap_or_default();
        serde_json::from_str(&json).unwrap_or_default()
    }

    pub fn restore(mut self, settings: &mut Settings) {
        for backend in &mut settings.custom {
            if let Some(env) = self.backends.remove(&backend.name) {
                backend.env = env;
            }
        }
        settings.notify_command = self.notify_command;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_return_through_the_environment() {
        let settings: Settings = toml::from_str(
            "notify_command = 'send --key secret'\n[[custom]]\nname = 'a'\nprogram = 'x'\nenv = { KEY = 'secret' }\n[[custom]]\nname = 'b'\nprogram = 'y'\n",
        )
        .unwrap();
        let mut received = Secrets::without(&settings);
        assert!(!serde_json::to_string(&received).unwrap().contains("secret"));
        let variable = Secrets::of(&settings).variable()[VARIABLE].clone();
        serde_json::from_str::<Secrets>(variable.to_str().unwrap()).unwrap().restore(&mut received);
        assert_eq!(received, settings);
    }
}
