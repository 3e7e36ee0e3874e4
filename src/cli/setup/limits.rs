//! The limits that setup can write into the user's own settings. They are not removed with the registration.

use super::change::SettingsChange;
use super::document::Format;
use super::{SetupError, file};
use crate::cli::places::Places;
use crate::config::{self, Settings};

#[derive(Debug, Default, clap::Args)]
pub struct Limits {
    /// Maximum number of workers at the same time, for your settings file
    #[arg(long, value_name = "N", conflicts_with_all = ["remove", "host"], allow_negative_numbers = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    max_workers: Option<u32>,
    /// Maximum cost of all workers of one boss in US dollars, for your settings file
    #[arg(long, value_name = "USD", conflicts_with_all = ["remove", "host"], allow_hyphen_values = true, value_parser = amount)]
    max_cost_usd: Option<f64>,
}

impl Limits {
    /// Returns the change of the settings file, which is `--config` or else the default one. `None` without limits.
    pub fn change(&self, places: &Places) -> Result<Option<SettingsChange>, SetupError> {
        let workers = self.max_workers.map(|number| (&["max_workers"][..], number.into()));
        let cost = self.max_cost_usd.map(|amount| (&["boss", "max_cost_usd"][..], amount.into()));
        let limits: Vec<(&[&str], serde_json::Value)> = workers.into_iter().chain(cost).collect();
        if limits.is_empty() {
            return Ok(None);
        }
        let path = places.config.clone().or_else(config::default_path).ok_or(SetupError::NoHome)?;
        let before = file::read(&path)?;
        let set = |text: String, (keys, value): &(&[&str], _)| Format::Toml.set(&text, keys, value);
        let after = limits.iter().try_fold(before.clone().unwrap_or_default(), set);
        let after = after.map_err(|damage| SetupError::Damaged { path: path.clone(), damage })?;
        if let Err(source) = Settings::parse(&after) {
            return Err(SetupError::Settings(config::ConfigError::Invalid { path, source }));
        }
        Ok(Some(SettingsChange { path, before, after: Some(after), ..SettingsChange::default() }))
    }
}

fn amount(text: &str) -> Result<f64, &'static str> {
    let amount = text.parse().ok().filter(|amount: &f64| amount.is_finite() && *amount > 0.0);
    amount.ok_or("give an amount of US dollars above 0")
}
