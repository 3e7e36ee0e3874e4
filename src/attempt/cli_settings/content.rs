//! The settings in the state folders of a CLI, by content. Settings files are read part by part, since CLIs rewrite
//! them: only the parts by which they run programs, or allow an agent to, count as such.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::git;

/// Settings files, which are read part by part.
const FILES: [&str; 19] = [
    "cli-config.json",
    "settings/mcp.json",
    "settings.json",
    "settings.local.json",
    "config.toml",
    "config.json",
    "config.jsonc",
    "hooks.json",
    ".mcp.json",
    "mcp.json",
    "mcp-config.json",
    "opencode.json",
    "opencode.jsonc",
    "kilo.json",
    "kilo.jsonc",
    ".claude.json",
    "plugins/installed_plugins.json",
    "plugins/known_marketplaces.json",
    "extensions/extension-enablement.json",
];
/// Settings files that count as a whole.
const WHOLE_PARTS: [&str; 7] = [
    "hooks.json",
    ".mcp.json",
    "mcp.json",
    "mcp-config.json",
    "installed_plugins.json",
    "known_marketplaces.json",
    "extension-enablement.json",
];
/// Other files.
const OTHER_FILES: [&str; 5] = [".env", "CLAUDE.md", "AGENTS.md", "GEMINI.md", "QWEN.md"];
/// Folders in which each file counts. The largest are last: see [`MOST_FILES`].
const FOLDERS: [&str; 17] = [
    "hooks",
    "scripts",
    "rules",
    "policies",
    "commands",
    "command",
    "agents",
    "agent",
    "prompts",
    "output-styles",
    "tools",
    "tool",
    "skills",
    "skill",
    "extensions",
    "plugin",
    "plugins/cache",
];
/// Names of settings, in lower case without separators, by which a CLI runs programs or lets an agent do so.
const RUNS: [&str; 44] = [
    "hooks",
    "disableallhooks",
    "mcpservers",
    "mcp",
    "notify",
    "command",
    "env",
    "shellenvironmentpolicy",
    "permissions",
    "permission",
    "allowed",
    "allowedtools",
    "coretools",
    "autoaccept",
    "defaultapprovalmode",
    "approvalpolicy",
    "skipdangerousmodepermissionprompt",
    "sandbox",
    "sandboxmode",
    "sandboxworkspacewrite",
    "statusline",
    "subagentstatusline",
    "filesuggestion",
    "apikeyhelper",
    "awsauthrefresh",
    "awscredentialexport",
    "gcpauthrefresh",
    "otelheadershelper",
    "modelproviders",
    "enabledplugins",
    "extraknownmarketplaces",
    "plugins",
    "plugin",
    "pluginconfigs",
    "marketplaces",
    "enableallprojectmcpservers",
    "enabledmcpjsonservers",
    "extensions",
    "discoverycommand",
    "callcommand",
    "formatter",
    "lsp",
    "zshpath",
    "tools",
];
/// Names of settings that a CLI updates by itself.
const VOLATILE: [&str; 7] =
    ["lastupdated", "lastfetched", "lastrevision", "installedat", "updatedat", "version", "gitcommitsha"];
/// Suffixes of files that a plugin may write beside its programs.
const DATA: [&str; 8] = [".log", ".db", ".sqlite", ".sqlite-wal", ".sqlite-shm", ".pyc", ".tmp", ".orphaned_at"];

/// Maximum number of files, since reading them delays the start. Beyond it, files in the last folders are left out.
const MOST_FILES: usize = 2_000;
/// Maximum size of a file whose content is read. A larger one counts by its size and the time of its change.
const MOST_BYTES: u64 = 1 << 18;

/// A setting: a part of a settings file, or a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Setting {
    pub hash: String,
    pub weight: Weight,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Weight {
    /// It can run programs.
    Runs,
    /// A program that runs only if a setting names it. A new one therefore changes nothing.
    IfNamed,
    /// Instructions for a model.
    Text,
}

/// Returns the settings in these folders, by path and, in a settings file, the name of the part.
pub(super) fn settings_in(folders: &[PathBuf]) -> BTreeMap<String, Setting> {
    let mut found = BTreeMap::new();
    for folder in folders {
        for name in FILES {
            read_parts(&folder.join(name), &mut found);
        }
        for name in OTHER_FILES {
            let weight = if name == ".env" { Weight::Runs } else { Weight::Text };
            add_file(&folder.join(name), weight, &mut found);
        }
        let mut files = Vec::new();
        FOLDERS.iter().for_each(|name| add_files_in(&folder.join(name), &mut files));
        for path in files {
            if let Some(weight) = weight_of(path.strip_prefix(folder).unwrap_or(&path)) {
                add_file(&path, weight, &mut found);
            }
        }
    }
    found
}

/// Returns the weight of a file in a folder of settings. `None`: it does not count.
fn weight_of(below: &Path) -> Option<Weight> {
    let name = below.to_string_lossy();
    let is_text =
        name.ends_with(".md") && ["rules/", "prompts/", "output-styles/"].iter().any(|it| name.starts_with(it));
    if name.starts_with("skills/.system/") || name.ends_with("extension-enablement.json") {
        // Codex installs its own skills, and the other file is read part by part.
        None
    } else if is_text {
        Some(Weight::Text)
    } else if name.starts_with("plugins/") {
        (!DATA.iter().any(|end| name.ends_with(end))).then_some(Weight::IfNamed)
    } else {
        Some(Weight::Runs)
    }
}

fn add_files_in(folder: &Path, files: &mut Vec<PathBuf>) {
    if folder.is_symlink() {
        files.push(folder.to_owned());
    }
    let mut entries: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            add_files_in(&entry.path(), files);
        } else if files.len() < MOST_FILES {
            files.push(entry.path());
        }
    }
}

type Found = BTreeMap<String, Setting>;

fn add_file(path: &Path, weight: Weight, found: &mut Found) {
    let Ok(file) = path.symlink_metadata() else { return };
    // A link counts by its target and by the content there.
    let target = fs::read_link(path).map(|target| target.to_string_lossy().into_owned()).unwrap_or_default();
    let size = path.metadata().map_or(0, |file| file.len());
    let content = if size > MOST_BYTES {
        format!("{size} {:?}", file.modified().ok()).into_bytes()
    } else if path.is_file() {
        fs::read(path).unwrap_or_else(|_| b"unreadable".to_vec())
    } else {
        Vec::new()
    };
    let hash = git::hash(&[target.as_bytes(), b"\0", &content].concat());
    found.insert(path.display().to_string(), Setting { hash, weight });
}

/// Adds the parts of a settings file that can run programs. A file that cannot be parsed counts as a whole.
fn read_parts(path: &Path, found: &mut Found) {
    let Ok(text) = fs::read_to_string(path) else { return add_file(path, Weight::Runs, found) };
    let extension = path.extension().unwrap_or_default();
    let parsed = if text.trim().is_empty() {
        Some(Value::Null)
    } else if extension == "toml" {
        toml::from_str::<toml::Value>(&text).ok().and_then(|value| serde_json::to_value(value).ok())
    } else {
        jsonc_parser::parse_to_serde_value(&text, &Default::default()).ok()
    };
    let name = path.display().to_string();
    let Some(value) = parsed else { return add_file(path, Weight::Runs, found) };
    // Only its servers are settings. The rest is state that Claude Code writes all the time.
    let names: &[&str] = if path.ends_with(".claude.json") { &["mcpservers"] } else { &RUNS };
    if WHOLE_PARTS.iter().any(|whole| path.ends_with(whole)) {
        add_part(&name, "", &value, found);
    } else {
        add_parts(&name, &value, names, found);
    }
}

fn add_parts(name: &str, value: &Value, names: &[&str], found: &mut Found) {
    for (key, inner) in value.as_object().into_iter().flatten() {
        let name = format!("{name} {key}");
        let plain = plain(key);
        // In the settings of Gemini CLI, `tools` has groups of settings.
        let is_group = plain == "tools" && inner.is_object();
        if names.contains(&plain.as_str()) && !is_group {
            add_part(&name, &plain, inner, found);
        } else {
            add_parts(&name, inner, names, found);
        }
    }
}

/// Adds one part, unless it is empty, which is the same as its absence.
fn add_part(name: &str, key: &str, value: &Value, found: &mut Found) {
    let value = lasting(value);
    let is_empty = match &value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    };
    if !is_empty {
        let hash = git::hash(format!("{key} {value}").as_bytes());
        found.insert(name.to_owned(), Setting { hash, weight: Weight::Runs });
    }
}

/// Returns the value without what a CLI updates by itself, and in a fixed order.
fn lasting(value: &Value) -> Value {
    match value {
        Value::Object(values) => {
            let mut kept: Vec<_> = values.iter().filter(|(key, _)| !VOLATILE.contains(&plain(key).as_str())).collect();
            kept.sort_by_key(|(key, _)| key.as_str());
            let part = |key: &String, value: &Value| match (plain(key).as_str(), value) {
                // Its end is the version of a plugin.
                ("installpath", Value::String(path)) => {
                    Value::from(path.rsplit_once('/').map_or("", |(folder, _)| folder))
                }
                (_, value) => lasting(value),
            };
            Value::Object(kept.into_iter().map(|(key, value)| (key.clone(), part(key, value))).collect())
        }
        Value::Array(values) => Value::Array(values.iter().map(lasting).collect()),
        value => value.clone(),
    }
}

/// Returns a name in lower case without separators, and without the prefix that Gemini CLI has dropped.
fn plain(key: &str) -> String {
    let plain: String = key.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    match plain.strip_prefix("tool") {
        Some(rest @ ("discoverycommand" | "callcommand")) => rest.to_owned(),
        _ => plain,
    }
}
