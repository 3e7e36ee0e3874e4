//! The environment variables that override settings. Their values are read here; which setting wins is decided in
//! `config`.

use std::env;

use super::error::ConfigError;
use super::spelling;

/// The variables that a user may set. Variables that only our own processes set for each other are not among them.
const VARIABLES: [&str; 7] = [
    "ORCHESTRATOR_MAX_WORKERS",
    "ORCHESTRATOR_WAIT_SECONDS",
    "ORCHESTRATOR_STATE_DIR",
    "ORCHESTRATOR_LOG",
    "ORCHESTRATOR_BOSS_MAX_COST_USD",
    "ORCHESTRATOR_BOSS_MAX_TOKENS",
    "ORCHESTRATOR_BOSS_TIMEOUT_MINUTES",
];

/// The settings that a variable overrides.
const OVERRIDDEN: [(&str, &str); 6] = [
    ("max_workers", "ORCHESTRATOR_MAX_WORKERS"),
    ("wait_seconds", "ORCHESTRATOR_WAIT_SECONDS"),
    ("state_dir", "ORCHESTRATOR_STATE_DIR"),
    ("boss.max_cost_usd", "ORCHESTRATOR_BOSS_MAX_COST_USD"),
    ("boss.max_tokens", "ORCHESTRATOR_BOSS_MAX_TOKENS"),
    ("boss.timeout_minutes", "ORCHESTRATOR_BOSS_TIMEOUT_MINUTES"),
];

/// Returns the variable that overrides this setting now, such as `boss.max_tokens`.
pub fn overriding_variable(setting: &str) -> Option<&'static str> {
    let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    OVERRIDDEN.into_iter().find(|(name, variable)| *name == setting && is_set(variable)).map(|(_, variable)| variable)
}

/// Refuses a variable whose name is nearly that of one of [`VARIABLES`]. Other programs may have variables with the same
/// prefix.
pub(super) fn check_variables(names: impl Iterator<Item = String>) -> Result<(), ConfigError> {
    let mut ours = names.filter(|name| name.starts_with("ORCHESTRATOR_") && !VARIABLES.contains(&name.as_str()));
    let misspelt = ours.find_map(|found| Some((spelling::nearest_variable(&found, VARIABLES)?, found)));
    match misspelt {
        Some((meant, found)) => Err(ConfigError::Variable { found, meant }),
        None => Ok(()),
    }
}

pub(super) fn number(variable: &'static str) -> Result<Option<u64>, ConfigError> {
    match env::var(variable) {
        Ok(value) if !value.is_empty() => {
            value.trim().parse().map(Some).map_err(|_| ConfigError::NotANumber { variable, value })
        }
        _ => Ok(None),
    }
}

pub(super) fn amount(variable: &'static str) -> Result<Option<f64>, ConfigError> {
    match env::var(variable) {
        Ok(value) if !value.is_empty() => {
            let amount = value.trim().parse().ok().filter(|amount: &f64| amount.is_finite() && *amount >= 0.0);
            amount.map(Some).ok_or(ConfigError::NotAnAmount { variable, value })
        }
        _ => Ok(None),
    }
}
