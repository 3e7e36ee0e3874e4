//! The settings of the confinement by the kernel. Whether a path exists is checked where it is used, since a disk that
//! is not mounted must not make the other settings unreadable.

use std::path::{Component, Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Settings;
use super::defaults::BUILD_DAEMONS;
use super::error::InvalidSettings;

/// The confinement of workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Confine {
    /// Confined where the kernel can; `get_worker_status` says whether it is.
    #[default]
    Auto,
    /// No worker starts where the kernel cannot.
    Require,
    /// Never confined.
    Off,
}

/// The writable part of the repository's `.git`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConfineGit {
    /// All of it. Changed hooks and configuration stop an integration.
    #[default]
    Shared,
    /// None of it: the worker works in a clone that borrows its objects. Where that is not possible (submodules,
    /// git-lfs, git-annex, partial clones, another file system), `shared` is used.
    Clone,
}

impl Settings {
    /// Returns the daemons that keep running when a worker ends that started them.
    pub fn daemons_left(&self, is_confined: bool) -> Vec<String> {
        let stays = |name: &&String| !is_confined || !BUILD_DAEMONS.contains(&name.as_str());
        self.shared_daemons.iter().filter(stays).cloned().collect()
    }

    /// Returns the paths of `confine_writable` in full.
    pub fn confine_writable(&self) -> Vec<PathBuf> {
        self.confine_writable.iter().map(|path| full(path)).collect()
    }

    /// Returns the real paths of `confine_unreadable` that exist.
    pub fn confine_unreadable(&self) -> Vec<PathBuf> {
        self.confine_unreadable.iter().filter_map(|path| full(path).canonicalize().ok()).collect()
    }

    /// Returns a path of the confinement that does not exist, and its setting.
    pub fn missing_confined(&self) -> Option<(&'static str, PathBuf)> {
        let writable = self.confine_writable.iter().map(|path| ("confine_writable", full(path)));
        let unreadable = self.confine_unreadable.iter().map(|path| ("confine_unreadable", full(path)));
        writable.chain(unreadable).find(|(_, path)| !path.exists())
    }
}

fn full(named: &Path) -> PathBuf {
    match (named.strip_prefix("~"), etcetera::home_dir()) {
        (Ok(rest), Ok(home)) => home.join(rest),
        _ => named.to_owned(),
    }
}

/// Checks a path of `confine_writable` or `confine_unreadable`.
pub(super) fn check(setting: &'static str, path: &Path) -> Result<(), InvalidSettings> {
    let text = path.to_string_lossy();
    let why = if !path.is_absolute() && !text.starts_with("~/") {
        "is not a full path"
    } else if path.components().any(|part| part == Component::ParentDir) {
        "contains `..`"
    } else if text.contains(['*', '?', '[', '{']) {
        "contains a pattern"
    } else if path == Path::new("/") || text.trim_end_matches('/') == "~" {
        "holds everything"
    } else {
        return Ok(());
    };
    Err(InvalidSettings::ConfinePath { setting, path: path.to_owned(), why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_build_daemons_end_with_a_confined_worker() {
        let settings = Settings::default();
        let (left, all) = (settings.daemons_left(true), settings.daemons_left(false));
        assert_eq!(all, settings.shared_daemons);
        let ended: Vec<&String> = all.iter().filter(|name| !left.contains(name)).collect();
        assert_eq!(
            (ended[0].as_str(), ended[ended.len() - 1].as_str(), left[0].as_str()),
            ("sccache", "lspmux", "watchman")
        );
    }

    #[test]
    fn only_full_paths_of_folders_are_accepted() {
        let refused =
            ["cache", "../cache", "/a/../b", "/a/*", "~/a?", "/a/[b]", "/", "~", "~/", "", "$HOME/a", "~other/a"];
        for path in refused {
            assert!(check("confine_writable", Path::new(path)).is_err(), "{path}");
        }
        for path in ["/a", "~/a b", "/a/b/", "~/.cache/x"] {
            assert!(check("confine_writable", Path::new(path)).is_ok(), "{path}");
        }
    }
}
