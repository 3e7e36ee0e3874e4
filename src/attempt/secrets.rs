//! What the user's settings give to CLIs of their own (`env` of a custom backend), often keys: on its way from the server
//! to the supervisor it lies in no file, since a worker may read the files of all attempts. It goes by the environment,
//! which no worker inherits (`ORCHESTRATOR_*`).

use std::collections::BTreeMap;
use std::ffi::OsString;

use serde::{Deserialize, Serialize};

use crate::config::Settings;

const VARIABLE: &str = "ORCHESTRATOR_BACKEND_ENV";

/// By the name of the backend.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Secrets(BTreeMap<String, BTreeMap<String, String>>);

impl Secrets {
    pub fn of(settings: &Settings) -> Self {
        let with_any = settings.custom.iter().filter(|backend| !backend.env.is_empty());
        Self(with_any.map(|backend| (backend.name.clone(), backend.env.clone())).collect())
    }

    /// The settings as they may lie in a file.
    pub fn without(settings: &Settings) -> Settings {
        let mut settings = settings.clone();
        settings.custom.iter_mut().for_each(|backend| backend.env.clear());
        settings
    }

    /// For the environment of a supervisor.
    pub fn variable(&self) -> BTreeMap<String, OsString> {
        let json = serde_json::to_string(self).expect("maps of strings are JSON");
        BTreeMap::from([(VARIABLE.to_owned(), json.into())])
    }

    /// From the server that started this supervisor.
    pub fn inherited() -> Self {
        let json = std::env::var(VARIABLE).unwrap_or_default();
        serde_json::from_str(&json).unwrap_or_default()
    }

    pub fn give(mut self, settings: &mut Settings) {
        for backend in &mut settings.custom {
            if let Some(env) = self.0.remove(&backend.name) {
                backend.env = env;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_out_of_the_settings_comes_back_from_the_environment() {
        let settings: Settings = toml::from_str(
            "[[custom]]\nname = 'a'\nprogram = 'x'\nenv = { KEY = 'secret' }\n[[custom]]\nname = 'b'\nprogram = 'y'\n",
        )
        .unwrap();
        let mut told = Secrets::without(&settings);
        assert!(!serde_json::to_string(&told).unwrap().contains("secret"));
        let variable = Secrets::of(&settings).variable()[VARIABLE].clone();
        serde_json::from_str::<Secrets>(variable.to_str().unwrap()).unwrap().give(&mut told);
        assert_eq!(told, settings);
    }
}
