//! Finds the plugin. Claude Code's settings enable it, and `plugins/installed_plugins.json` in Claude Code's folder
//! lists it. Codex lists it in its `config.toml`.

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

/// Returns the name of the plugin by which Codex starts this server, if there is one.
pub fn enabled_in_codex() -> Option<String> {
    let config = fs::read_to_string(folder("CODEX_HOME", ".codex")?.join("config.toml")).ok()?;
    let config: Value = toml::from_str(&config).ok()?;
    let (name, plugin) = ours(config.get("plugins")?)?;
    (plugin.get("enabled") != Some(&Value::Bool(false))).then_some(name)
}

/// Returns the folder of a client: the one that the variable names, or else a folder in the user's home.
fn folder(variable: &str, in_home: &str) -> Option<PathBuf> {
    let named = env::var_os(variable).filter(|folder| !folder.is_empty());
    named.map(PathBuf::from).or_else(|| Some(etcetera::home_dir().ok()?.join(in_home)))
}

pub struct Plugin {
    /// The name with its marketplace, as Claude Code's commands take it.
    pub name: String,
    pub is_enabled: bool,
    pub is_installed: bool,
    /// Its version, if it is installed. It starts only a program of this version.
    pub version: Option<String>,
    /// True if it can start the npm package: it comes from a release that has published it.
    pub is_published: bool,
}

impl Plugin {
    /// Returns the plugin as Claude Code has it in this project.
    pub fn find(project: &Path) -> Option<Self> {
        let folder = folder("CLAUDE_CONFIG_DIR", ".claude")?;
        let installed = read(&folder.join("plugins/installed_plugins.json"));
        let (installed, entry) = installed.and_then(|it| ours(it.get("plugins")?)).unzip();
        // A later file overrides an earlier one.
        let files = [
            folder.join("settings.json"),
            project.join(".claude/settings.json"),
            project.join(".claude/settings.local.json"),
        ];
        let mut said = files.iter().filter_map(|file| ours(read(file)?.get("enabledPlugins")?));
        let (name, enabled) =
            said.next_back().map_or((None, false), |(name, value)| (Some(name), value == Value::Bool(true)));
        let field = |field: &str| Some(entry.as_ref()?.get(0)?.get(field)?.as_str()?.to_owned());
        let place = field("installPath").map(PathBuf::from);
        Some(Self {
            is_installed: installed.is_some(),
            name: name.or(installed)?,
            is_enabled: enabled,
            version: field("version"),
            is_published: place.is_some_and(|place| place.join(".claude-plugin/published").exists()),
        })
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
