//! The settings of a CLI that lie in its state folders. A confined worker can write them, and the CLI would run what they
//! name the next time. A fingerprint before and after shows changes; any process may have made them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Names in a state folder from which CLIs take programs, rules or instructions.
const SETTINGS: [&str; 20] = [
    "settings.json",
    "settings.local.json",
    "config.toml",
    "config.json",
    "hooks.json",
    ".env",
    ".mcp.json",
    "mcp.json",
    "CLAUDE.md",
    "AGENTS.md",
    "GEMINI.md",
    "QWEN.md",
    "agents",
    "commands",
    "extensions",
    "hooks",
    "plugins",
    "prompts",
    "rules",
    "skills",
];
/// Maximum number of files in a fingerprint, since it delays the start. Beyond it, deeper files are left out.
const MOST_FILES: usize = 500;
/// Maximum number of names in a sentence.
const NAMED: usize = 5;

/// The settings before a worker, each file with its size and its times.
#[derive(Debug)]
pub struct CliSettings {
    folders: Vec<PathBuf>,
    before: BTreeMap<PathBuf, (u64, i64, i64)>,
}

impl CliSettings {
    pub fn of(folders: Vec<PathBuf>) -> Self {
        Self { before: files(&folders), folders }
    }

    /// Returns a sentence about what changed since.
    pub fn changed(&self) -> Option<String> {
        let now = files(&self.folders);
        let names: BTreeSet<&PathBuf> = self.before.keys().chain(now.keys()).collect();
        let changed: Vec<&PathBuf> =
            names.into_iter().filter(|path| self.before.get(*path) != now.get(*path)).collect();
        let first = changed.iter().take(NAMED).map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        let more = changed.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        (!changed.is_empty()).then(|| format!("while it ran, settings of its CLI changed: {first}{more}"))
    }
}

fn files(folders: &[PathBuf]) -> BTreeMap<PathBuf, (u64, i64, i64)> {
    let mut found = BTreeMap::new();
    let mut left: VecDeque<PathBuf> =
        folders.iter().flat_map(|folder| SETTINGS.map(|name| folder.join(name))).collect();
    while let Some(path) = left.pop_front().filter(|_| found.len() < MOST_FILES) {
        let Ok(file) = path.symlink_metadata() else { continue };
        if file.is_dir() {
            left.extend(inner(&path));
        } else {
            found.insert(path, (file.size(), file.ctime(), file.ctime_nsec()));
        }
    }
    found
}

fn inner(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_settings_are_named_and_sessions_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("settings.json", "{}");
        write("skills/a/SKILL.md", "a");
        let settings = CliSettings::of(vec![folder.path().to_owned()]);
        write("sessions/1.jsonl", "{}");
        assert_eq!(settings.changed(), None);
        write("hooks/stop.sh", "evil");
        write("skills/a/SKILL.md", "changed");
        let changed = settings.changed().unwrap();
        let [hook, skill] = ["hooks/stop.sh", "skills/a/SKILL.md"].map(|name| folder.path().join(name));
        assert!(changed.ends_with(&format!("changed: {}, {}", hook.display(), skill.display())), "{changed}");
    }
}
