//! `config show`: every setting in force, with the place that it comes from.

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::attempt::secrets::Secrets;
use crate::cli::error::CliError;
use crate::cli::hint;
use crate::cli::output;
use crate::cli::places::Places;
use crate::cli::sanitize;
use crate::config::{self, Settings};
use crate::orchestrator;

/// Maximum number of characters that are shown of a value.
const MOST_SHOWN: usize = 60;

#[derive(Debug, Serialize)]
struct ShowDocument {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    file_exists: bool,
    settings: Vec<SettingRow>,
}

/// A setting in force.
#[derive(Debug, Serialize)]
struct SettingRow {
    name: String,
    value: Value,
    source: Source,
    /// The variable or the option that sets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    set_by: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Source {
    Default,
    File,
    Environment,
    Option,
}

pub(super) fn show(json: bool, places: &Places) -> Result<ExitCode, CliError> {
    let settings = Settings::load(places.config.as_deref()).map_err(|error| CliError::Failed(hint::of(&error)))?;
    let in_file = text_of(&settings).parse::<toml::Table>().unwrap_or_default();
    let document = ShowDocument {
        file: settings.file.clone().or_else(config::default_path),
        file_exists: settings.file.is_some(),
        settings: rows(&settings, &in_file, places),
    };
    if json {
        output::json(&document)?
    } else {
        output::line(&sanitize::text(&document.text()))?
    }
    Ok(ExitCode::SUCCESS)
}

fn text_of(settings: &Settings) -> String {
    settings.file.as_ref().and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default()
}

fn rows(settings: &Settings, in_file: &toml::Table, places: &Places) -> Vec<SettingRow> {
    let mut shown = Settings { max_workers: Some(orchestrator::worker_limit(settings)), ..Secrets::without(settings) };
    if places.state_dir.is_some() {
        shown.state_dir.clone_from(&places.state_dir);
    }
    let mut values = Vec::new();
    if let Ok(Value::Object(fields)) = serde_json::to_value(&shown) {
        flatten("", fields, &mut values);
    }
    values.into_iter().map(|(name, value)| row(name, value, in_file, places)).collect()
}

/// Lists the settings of sections by their full names.
fn flatten(prefix: &str, fields: Map<String, Value>, values: &mut Vec<(String, Value)>) {
    for (name, value) in fields {
        let name = format!("{prefix}{name}");
        match value {
            Value::Object(fields) => flatten(&format!("{name}."), fields, values),
            value => values.push((name, value)),
        }
    }
}

fn row(name: String, value: Value, in_file: &toml::Table, places: &Places) -> SettingRow {
    let variable = config::overriding_variable(&name);
    let (source, set_by) = match variable {
        _ if name == "state_dir" && places.state_dir.is_some() => (Source::Option, Some("--state-dir")),
        Some(variable) => (Source::Environment, Some(variable)),
        None if is_in(in_file, &name) => (Source::File, None),
        None => (Source::Default, None),
    };
    SettingRow { name, value, source, set_by }
}

/// Returns whether the file has the setting, such as `boss.max_tokens`.
fn is_in(table: &toml::Table, name: &str) -> bool {
    match name.split_once('.') {
        Some((section, rest)) => {
            table.get(section).and_then(toml::Value::as_table).is_some_and(|table| is_in(table, rest))
        }
        None => table.contains_key(name),
    }
}

impl ShowDocument {
    fn text(&self) -> String {
        let widest = self.settings.iter().map(|row| row.name.len()).max().unwrap_or_default();
        let file = match &self.file {
            Some(file) if self.file_exists => format!("file: {}", file.display()),
            Some(file) => {
                format!("file: {} (does not exist; `orchestrator-boss config init` creates it)", file.display())
            }
            None => "file: none".to_owned(),
        };
        let rows = self.settings.iter().map(|row| {
            let source = match (row.source, row.set_by) {
                (_, Some(by)) => by,
                (Source::File, None) => "file",
                (_, None) => "default",
            };
            format!("{:widest$}  {}  ({source})", row.name, shown(&row.value))
        });
        [file, String::new()].into_iter().chain(rows).collect::<Vec<_>>().join("\n")
    }
}

fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => return "not set".to_owned(),
        Value::Array(items) if items.iter().all(Value::is_string) && items.len() > 4 => {
            return format!("{} names", items.len());
        }
        value => value.to_string(),
    };
    if text.chars().count() <= MOST_SHOWN {
        return text;
    }
    format!("{} …", text.chars().take(MOST_SHOWN).collect::<String>())
}
