//! The repository's own settings, hooks and attributes, as data. A worker can write all of them, and git would run what
//! they name. The state before the first worker is therefore recorded ([`Configuration`]). A difference stops
//! integration ([`Configuration::changes`]). Until then, the calls of this program run nothing that is new (see
//! [`super::trust`]).
//!
//! The user's and the system's settings are not the repository's: they are always used unchanged. The record holds
//! names and hashes, since a setting may be a secret. Only the commands of filters and merge drivers are kept verbatim,
//! because without them file contents would be wrong. This file never starts git.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use git2::{ObjectType, Oid};
use serde::{Deserialize, Serialize};

use super::layout::Folders;

/// The configuration of a repository at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Each setting, and a hash of its values in order.
    settings: BTreeMap<String, String>,
    /// Hooks and `info/attributes`, relative to the folder that all worktrees share, and a hash of each.
    files: BTreeMap<String, String>,
    /// Filters and merge drivers in full.
    drivers: BTreeMap<String, String>,
    /// Hash of the repository's own configuration file, if it includes no other file. While the hash is the same, the
    /// settings are unchanged and git need not be run. `None`: git must always be run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    whole: Option<String>,
}

/// Prefix of the names of settings that a single worktree has.
pub(super) const OF_WORKTREES: &str = "worktrees/";

impl Configuration {
    /// Builds the record from the settings and from the files in the folder that all worktrees share. `own_file` is the
    /// hash of the repository's configuration file before the settings were read.
    pub(super) fn new(
        settings: impl Iterator<Item = (String, String)>,
        own_file: Option<String>,
        common_dir: &Path,
    ) -> Configuration {
        let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
        settings.for_each(|(name, value)| values.entry(name).or_default().push(value));
        Configuration {
            drivers: values
                .iter()
                .filter(|(name, _)| name.starts_with("filter.") || name.starts_with("merge."))
                .filter_map(|(name, values)| Some((name.clone(), values.last()?.clone())))
                .collect(),
            // Not a file that was changed while git read it.
            whole: own_file.filter(|whole| {
                let includes = values.keys().any(|name| name.starts_with("include.") || name.starts_with("includeif."));
                !includes && hash_of_own_file(common_dir).as_ref() == Some(whole)
            }),
            settings: values.into_iter().map(|(name, values)| (name, hash(values.join("\0").as_bytes()))).collect(),
            files: files(common_dir),
        }
    }

    /// Returns this record with the hooks and attributes of now.
    pub(super) fn with_files_of(self, common_dir: &Path) -> Configuration {
        Configuration { files: files(common_dir), ..self }
    }

    /// Returns whether a worktree that this program did not make had settings of its own.
    pub(super) fn has_settings_of_worktrees(&self) -> bool {
        self.settings.keys().any(|name| name.starts_with(OF_WORKTREES))
    }

    /// Returns whether the settings are unchanged, as far as that is known without git.
    pub(super) fn is_surely_unchanged(&self, folders: &Folders) -> bool {
        let of_worktrees = [&folders.common, &folders.own].into_iter().any(|it| it.join("config.worktree").exists());
        self.whole.is_some() && self.whole == hash_of_own_file(&folders.common) && !of_worktrees
    }

    /// Returns the differences in `now`, by name and never by value: `filter.x.clean (added)`, `hooks/pre-commit
    /// (changed)`.
    pub fn changes(&self, now: &Configuration) -> Vec<String> {
        // A record by another build may contain other names.
        let settings =
            differences(&self.settings, &now.settings).filter(|change| change.split(' ').next().is_none_or(counts));
        settings.chain(differences(&self.files, &now.files)).collect()
    }

    /// Returns settings that keep a call of git from running what is set now and was not set before.
    pub(super) fn overrides(&self, now: Vec<(String, String)>) -> Vec<(String, String)> {
        let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
        now.into_iter().for_each(|(name, value)| values.entry(name).or_default().push(value));
        let is_new =
            |name: &str, values: &[String]| self.settings.get(name) != Some(&hash(values.join("\0").as_bytes()));
        let new = values.iter().filter(|(name, values)| is_new(name, values));
        new.filter_map(|(name, _)| match self.drivers.get(name) {
            Some(before) => Some((name.clone(), before.clone())),
            None => harmless(name),
        })
        .collect()
    }
}

fn differences<'a>(
    before: &'a BTreeMap<String, String>,
    now: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = String> + 'a {
    let gone = before.keys().filter(|name| !now.contains_key(*name)).map(|name| format!("{name} (removed)"));
    let others = now.iter().filter_map(|(name, value)| match before.get(name) {
        None => Some(format!("{name} (added)")),
        Some(old) if old != value => Some(format!("{name} (changed)")),
        Some(_) => None,
    });
    gone.chain(others)
}

/// Returns whether a setting counts as a change. Settings that everyday commands write and that make git run nothing do
/// not. These are upstreams of branches, and what `git submodule init`, `git sparse-checkout`, git-lfs and `gh` write.
/// The patterns of a sparse checkout are the worktree's own.
pub(super) fn counts(name: &str) -> bool {
    const NAMES: [&str; 3] =
        ["extensions.worktreeconfig", "core.repositoryformatversion", "lfs.repositoryformatversion"];
    let is_of = |section: &str, keys: &[&str]| name.starts_with(section) && keys.iter().any(|key| name.ends_with(key));
    let harmless = NAMES.contains(&name)
        || name.starts_with("branch.")
        || is_of("submodule.", &[".active", ".url"])
        || is_of("lfs.", &[".access", ".locksverify"])
        || is_of("remote.", &[".gh-resolved"]);
    !harmless
}

/// Parses `git config --list --show-scope -z`, without the user's and the system's settings. Git writes all but the
/// middle part of a name in lower case.
pub(super) fn parse_own(listed: &[u8]) -> Vec<(String, String)> {
    let listed = String::from_utf8_lossy(listed);
    let mut records = listed.split('\0');
    let mut own = Vec::new();
    while let (Some(scope), Some(setting)) = (records.next(), records.next()) {
        if matches!(scope, "local" | "worktree") {
            let (name, value) = setting.split_once('\n').unwrap_or((setting, ""));
            own.push((name.to_owned(), value.to_owned()));
        }
    }
    own
}

/// Hashes the repository's configuration file.
pub(super) fn hash_of_own_file(common_dir: &Path) -> Option<String> {
    Some(hash(&fs::read(common_dir.join("config")).ok()?))
}

fn files(common_dir: &Path) -> BTreeMap<String, String> {
    let hooks = fs::read_dir(common_dir.join("hooks")).into_iter().flatten().flatten();
    let hooks = hooks
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.ends_with(".sample"))
        .map(|name| format!("hooks/{name}"));
    hooks
        .chain(["info/attributes".to_owned()])
        .filter_map(|name| Some((hash_of_file(&common_dir.join(&name))?, name)))
        .map(|(hash, name)| (name, hash))
        .collect()
}

/// Returns the hash of a file, or of the target of a link. An unreadable file counts as present.
fn hash_of_file(path: &Path) -> Option<String> {
    path.symlink_metadata().ok()?;
    Some(fs::read(path).map_or_else(|_| "unreadable".to_owned(), |bytes| hash(&bytes)))
}

/// Returns the hash of a text or a file.
pub fn hash(bytes: &[u8]) -> String {
    Oid::hash_object(ObjectType::Blob, bytes)
        .expect("hashing bytes in memory needs nothing that can be missing")
        .to_string()
}

/// Returns the value that replaces a setting by which a call could run a program or reach another repository.
fn harmless(name: &str) -> Option<(String, String)> {
    let (section, rest) = name.split_once('.')?;
    let key = rest.rsplit('.').next()?;
    let instead = |value: &str| Some((name.to_owned(), value.to_owned()));
    match (section, key) {
        ("filter", "clean" | "smudge" | "process") => instead(""),
        ("filter", "required") => instead("false"),
        // An empty driver would count as a successful merge.
        ("merge", "driver") => instead("false"),
        // Settings for fetching an object that a partial clone lacks.
        ("core", "sshcommand") | ("remote", "uploadpack") => instead("false"),
        ("core", "askpass") => instead(""),
        ("core", "gitproxy") | ("remote", "vcs") => instead("none"),
        ("protocol", "allow") => instead("never"),
        // An empty value discards all values before it.
        ("credential", "helper") => Some(("credential.helper".to_owned(), String::new())),
        ("gpg", "program") => instead("false"),
        ("hook", "command") => Some((format!("{}enabled", name.strip_suffix("command")?), "false".to_owned())),
        _ => None,
    }
}
