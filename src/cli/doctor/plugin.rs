//! Checks the Claude Code plugin (2.1.330). Claude Code's settings enable it, and `plugins/installed_plugins.json` in
//! Claude Code's folder lists it. Its launcher, `.claude-plugin/launch.sh`, searches the same places for the program.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::check::Check;

const NAME: &str = "plugin";
const PLUGIN: &str = "orchestrator-boss";
const PROGRAM: &str = "orchestrator-boss";

/// Returns the name of the plugin by which Claude Code starts this server, if there is one.
pub fn enabled(project: &Path) -> Option<String> {
    let plugin = Plugin::find(&folder()?, project)?;
    (plugin.is_enabled && plugin.is_installed).then_some(plugin.name)
}

/// Checks the plugin; returns `None` if Claude Code has none. `setup`: Claude Code also has an entry made by `setup`.
pub fn look(project: &Path, setup: bool) -> Option<Check> {
    let plugin = Plugin::find(&folder()?, project)?;
    Some(plugin.check(&etcetera::home_dir().ok()?, setup))
}

fn folder() -> Option<PathBuf> {
    let named = env::var_os("CLAUDE_CONFIG_DIR").filter(|folder| !folder.is_empty());
    named.map(PathBuf::from).or_else(|| Some(etcetera::home_dir().ok()?.join(".claude")))
}

struct Plugin {
    /// The name with its marketplace, as Claude Code's commands take it.
    name: String,
    is_enabled: bool,
    is_installed: bool,
}

impl Plugin {
    fn find(folder: &Path, project: &Path) -> Option<Self> {
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

    fn check(&self, home: &Path, setup: bool) -> Check {
        let name = &self.name;
        if !self.is_enabled {
            return Check::note(NAME, format!("Claude Code has {name}, switched off"));
        }
        if !self.is_installed {
            return Check::warn(NAME, format!("Claude Code's settings name {name}, which is not installed"))
                .fix(format!("claude plugin install {name}"));
        }
        if setup {
            let says = "Claude Code starts this server twice, by the plugin and by setup's entry: its agent has each tool twice";
            return Check::warn(NAME, says)
                .fix("orchestrator-boss setup claude --remove")
                .fix(format!("claude plugin disable {name}"));
        }
        match program(home) {
            Some(path) => Check::ok(NAME, format!("Claude Code starts {} by {name}", path.display())),
            None => {
                Check::bad(NAME, format!("Claude Code has {name}, which does not find {PROGRAM}: it is on no PATH"))
                    .fix(link())
            }
        }
    }
}

/// Finds the program as the launcher does.
fn program(home: &Path) -> Option<PathBuf> {
    let cargo = env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    let folders = [cargo.join("bin"), home.join(".local/bin"), "/opt/homebrew/bin".into(), "/usr/local/bin".into()];
    which::which(PROGRAM).ok().or_else(|| folders.iter().find_map(|folder| which::which(folder.join(PROGRAM)).ok()))
}

fn link() -> String {
    let this = env::current_exe().map_or_else(|_| PROGRAM.to_owned(), |this| super::quoted(&this));
    format!("mkdir -p ~/.local/bin && ln -s {this} ~/.local/bin/{PROGRAM}")
}

fn read(path: &Path) -> Option<Value> {
    serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
}

/// Returns the entry of the plugin, from a marketplace of any name.
fn ours(entries: &Value) -> Option<(String, Value)> {
    let is_ours = |name: &str| name.split('@').next() == Some(PLUGIN);
    entries.as_object()?.iter().find(|(name, _)| is_ours(name)).map(|(name, value)| (name.clone(), value.clone()))
}
