//! Finds the Claude Code plugin (2.1.330). Claude Code's settings enable it, and `plugins/installed_plugins.json` in
//! Claude Code's folder lists it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

const PLUGIN: &str = "orchestrator-boss";

/// Returns the name of the plugin by which Claude Code starts this server, if there is one.
pub fn enabled(project: &Path) -> Option<String> {
    let plugin = Plugin::find(project)?;
    (plugin.is_enabled && plugin.is_installed).then_some(plugin.name)
}

fn folder() -> Option<PathBuf> {
    let named = env::var_os("CLAUDE_CONFIG_DIR").filter(|folder| !folder.is_empty());
    named.map(PathBuf::from).or_else(|| Some(etcetera::home_dir().ok()?.join(".claude")))
}

pub struct Plugin {
    /// The name with its marketplace, as Claude Code's commands take it.
    pub name: String,
    pub is_enabled: bool,
    pub is_installed: bool,
}

impl Plugin {
    /// Returns the plugin as Claude Code has it in this project.
    pub fn find(project: &Path) -> Option<Self> {
        let folder = folder()?;
        let installed = read(&folder.join("plugins/installed_plugins.json"));
        let installed = installed.and_then(|it| ours(it.get("plugins")?).map(|(name, _)| name));
        // A later file overrides an earlier one.
        let files = [
            folder.join("settings.json"),
            project.join(".claude/settings.json"),
            project.join(".claude/settings.local.json"),
        ];
        let mut said = files.iter().filter_map(|file| ours(read(file)?.get("enabledPlugins")?));
        let (name, enabled) =
            said.next_back().map_or((None, false), |(name, value)| (Some(name), value == Value::Bool(true)));
        let is_installed = installed.is_some();
        Some(Self { name: name.or(installed)?, is_enabled: enabled, is_installed })
    }
}

fn read(path: &Path) -> Option<Value> {
    serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
}

/// Returns the entry of the plugin, from a marketplace of any name.
fn ours(entries: &Value) -> Option<(String, Value)> {
    let is_ours = |name: &str| name.split('@').next() == Some(PLUGIN);
    entries.as_object()?.iter().find(|(name, _)| is_ours(name)).map(|(name, value)| (name.clone(), value.clone()))
}
