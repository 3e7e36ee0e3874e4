//! The repository's own settings, hooks and attributes. A worker can write all of them, and git would run what they
//! name. The state before the first worker is therefore recorded ([`Configuration`]). A difference stops integration
//! ([`Configuration::changes`]). Until then, this program's own calls of git run nothing that was not there before
//! ([`keep_to`]).
//!
//! The user's and the system's settings are not the repository's: they are always used unchanged. The record holds
//! names and hashes, since a setting may be a secret. Only the commands of filters and merge drivers are kept verbatim,
//! because without them file contents would be wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use std::{fs, io};

use git2::{ObjectType, Oid};
use serde::{Deserialize, Serialize};

use super::command::{CommandError, Git};
use super::reflog_only::{linked_git_dirs, worktree_of};
use super::repository::{Repository, short_id};
use super::worktree::MADE_FILE;

/// What a repository tells git, at one moment.
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

/// Before the names of those settings.
const OF_WORKTREES: &str = "worktrees/";

impl Configuration {
    pub fn of(repo: &Repository) -> Result<Configuration, CommandError> {
        if let Some(same) = still_known(repo) {
            return Ok(same);
        }
        let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let whole = own_file(&repo.common_dir);
        let own = own_settings(repo.root())?.into_iter().filter(|(name, _)| counts(name));
        let own = own.chain(settings_of_others_worktrees(repo)?);
        own.for_each(|(name, value)| values.entry(name).or_default().push(value));
        Ok(Configuration {
            drivers: values
                .iter()
                .filter(|(name, _)| name.starts_with("filter.") || name.starts_with("merge."))
                .filter_map(|(name, values)| Some((name.clone(), values.last()?.clone())))
                .collect(),
            // Not one that was changed while git was asked.
            whole: whole.filter(|whole| {
                let includes = values.keys().any(|name| name.starts_with("include.") || name.starts_with("includeif."));
                !includes && own_file(&repo.common_dir).as_ref() == Some(whole)
            }),
            settings: values.into_iter().map(|(name, values)| (name, hash(values.join("\0").as_bytes()))).collect(),
            files: files(&repo.common_dir),
        })
    }

    /// Told without git; `false` where only git knows.
    fn is_surely_unchanged(&self, folders: &Folders) -> bool {
        let of_worktrees = [&folders.common, &folders.own].into_iter().any(|it| it.join("config.worktree").exists());
        self.whole.is_some() && self.whole == own_file(&folders.common) && !of_worktrees
    }

    /// What is different in `now`, by name and never by value: `filter.x.clean (added)`, `hooks/pre-commit (changed)`.
    pub fn changes(&self, now: &Configuration) -> Vec<String> {
        // One that was remembered by another build may have counted other names.
        let settings =
            differences(&self.settings, &now.settings).filter(|change| change.split(' ').next().is_none_or(counts));
        settings.chain(differences(&self.files, &now.files)).collect()
    }

    /// Settings that keep a call of git from running what is set now and was not before.
    fn overrides(&self, now: Vec<(String, String)>) -> Vec<(String, String)> {
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
fn counts(name: &str) -> bool {
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

/// The settings of the repository and of this worktree, included files followed; the user's and the system's left out.
/// Names as git writes them: all but the middle part in lower case.
fn own_settings(dir: &Path) -> Result<Vec<(String, String)>, CommandError> {
    let listed = Git::read(dir).args(["config", "--includes", "--list", "--show-scope", "-z"]).run()?;
    let listed = String::from_utf8_lossy(&listed);
    let mut records = listed.split('\0');
    let mut own = Vec::new();
    while let (Some(scope), Some(setting)) = (records.next(), records.next()) {
        if matches!(scope, "local" | "worktree") {
            let (name, value) = setting.split_once('\n').unwrap_or((setting, ""));
            own.push((name.to_owned(), value.to_owned()));
        }
    }
    Ok(own)
}

/// Returns the worktree-specific settings of linked worktrees that this program did not create, except those of a
/// sparse checkout. A worker can write these settings too.
fn settings_of_others_worktrees(repo: &Repository) -> Result<Vec<(String, String)>, CommandError> {
    const SPARSE: [&str; 3] = ["core.sparsecheckout", "core.sparsecheckoutcone", "index.sparse"];
    let mut found = Vec::new();
    for folder in others_worktrees(repo) {
        let file = folder.join("config.worktree");
        let listed = repo.read().args(["config", "--includes", "--list", "-z", "--file"]).arg(file).run()?;
        let listed = String::from_utf8_lossy(&listed);
        let settings = listed.split_terminator('\0').map(|it| it.split_once('\n').unwrap_or((it, "")));
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // These two settings may come from `put_in_place`, which makes git work on the worktree itself.
        let own = worktree_of(&folder).unwrap_or_default();
        let is_ours = |(setting, value): &(&str, &str)| match *setting {
            "core.worktree" => Path::new(value) == own,
            "core.bare" => *value == "false",
            _ => false,
        };
        let others = settings.filter(|it| !SPARSE.contains(&it.0) && !is_ours(it));
        found.extend(others.map(|(setting, value)| (format!("{OF_WORKTREES}{name}: {setting}"), value.to_owned())));
    }
    Ok(found)
}

/// Git's folders of the worktrees that are not ours and have settings of their own.
fn others_worktrees(repo: &Repository) -> impl Iterator<Item = PathBuf> {
    linked_git_dirs(repo).filter(|folder| !folder.join(MADE_FILE).exists() && folder.join("config.worktree").is_file())
}

fn own_file(common_dir: &Path) -> Option<String> {
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

/// Of what a link leads to, where there is one. What cannot be read is still there.
fn hash_of_file(path: &Path) -> Option<String> {
    path.symlink_metadata().ok()?;
    Some(fs::read(path).map_or_else(|_| "unreadable".to_owned(), |bytes| hash(&bytes)))
}

fn hash(bytes: &[u8]) -> String {
    Oid::hash_object(ObjectType::Blob, bytes)
        .expect("hashing bytes in memory needs nothing that can be missing")
        .to_string()
}

/// For a setting by which a call of ours could run a program or reach another one: what to set in its place.
fn harmless(name: &str) -> Option<(String, String)> {
    let (section, rest) = name.split_once('.')?;
    let key = rest.rsplit('.').next()?;
    let instead = |value: &str| Some((name.to_owned(), value.to_owned()));
    match (section, key) {
        ("filter", "clean" | "smudge" | "process") => instead(""),
        ("filter", "required") => instead("false"),
        // An empty driver would count as a merge that went well.
        ("merge", "driver") => instead("false"),
        // Those of an object that is fetched because a partial clone lacks it.
        ("core", "sshcommand") | ("remote", "uploadpack") => instead("false"),
        ("core", "askpass") => instead(""),
        ("core", "gitproxy") | ("remote", "vcs") => instead("none"),
        ("protocol", "allow") => instead("never"),
        // An empty one forgets all before it.
        ("credential", "helper") => Some(("credential.helper".to_owned(), String::new())),
        ("gpg", "program") => instead("false"),
        ("hook", "command") => Some((format!("{}enabled", name.strip_suffix("command")?), "false".to_owned())),
        _ => None,
    }
}

#[derive(Default)]
struct Kept {
    known: BTreeMap<PathBuf, Configuration>,
    /// Folders with records of other repositories.
    records: BTreeSet<PathBuf>,
    /// Of a repository that is not known, nothing is run.
    only_known: bool,
}

/// What is kept, where its settings are surely still the same, with the files as they are now.
fn still_known(repo: &Repository) -> Option<Configuration> {
    let folders = folders(repo.root())?;
    let kept = KEPT.read().unwrap_or_else(PoisonError::into_inner);
    let known = kept.as_ref()?.known.get(&folders.common)?;
    let of_worktrees = |name: &String| name.starts_with(OF_WORKTREES);
    let none_of_worktrees = !known.settings.keys().any(of_worktrees) && others_worktrees(repo).next().is_none();
    let same = none_of_worktrees && known.is_surely_unchanged(&folders);
    same.then(|| Configuration { files: files(&repo.common_dir), ..known.clone() })
}

impl Kept {
    /// Returns the configuration from before the first worker, by the folder that all worktrees share.
    fn before(&self, common_dir: &Path) -> Option<Configuration> {
        let recorded = || self.records.iter().find_map(|folder| recorded(&folder.join(record_name(common_dir))));
        self.known.get(common_dir).cloned().or_else(recorded)
    }
}

/// Reads a record. From one that cannot be read, nothing counts as configured before.
fn recorded(path: &Path) -> Option<Configuration> {
    match fs::read(path) {
        Ok(bytes) => Some(serde_json::from_slice(&bytes).unwrap_or_default()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(_) => Some(Configuration::default()),
    }
}

/// Returns the name of the file with the record of a repository.
pub fn record_name(common_dir: &Path) -> String {
    format!("git-configuration-{}.json", short_id(common_dir))
}

static KEPT: RwLock<Option<Kept>> = RwLock::new(None);

/// From now on, no call of git in this process runs what this repository has configured since `before`.
pub fn keep_to(repo: &Repository, before: Configuration) {
    let mut kept = KEPT.write().unwrap_or_else(PoisonError::into_inner);
    let common_dir = repo.common_dir.canonicalize().unwrap_or_else(|_| repo.common_dir.clone());
    kept.get_or_insert_default().known.insert(common_dir, before);
}

/// The same for each repository that has a record in this folder, now or later.
pub fn keep_to_records_in(folder: &Path) {
    KEPT.write().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().records.insert(folder.to_owned());
}

/// And nothing that any other repository has configured: a worker can put one in the place of its own.
pub fn keep_to_known() {
    KEPT.write().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().only_known = true;
}

/// Calls that look at names alone. Any that looks at objects can make git fetch one that a partial clone lacks.
const OF_NAMES: [&str; 5] = ["--version", "config", "for-each-ref", "symbolic-ref", "var"];

/// What to set for one call in this directory, so that it keeps to what was there before.
pub(super) fn overrides(dir: &Path, command: &str) -> Vec<(String, String)> {
    if OF_NAMES.contains(&command) {
        return Vec::new();
    }
    let before = {
        let kept = KEPT.read().unwrap_or_else(PoisonError::into_inner);
        let Some(kept) = &*kept else { return Vec::new() };
        let folders = folders(dir);
        let known = folders.as_ref().and_then(|folders| Some((folders, kept.before(&folders.common)?)));
        match known {
            Some((folders, before)) if before.is_surely_unchanged(folders) => return Vec::new(),
            Some((_, before)) => before,
            None if kept.only_known => Configuration::default(),
            None => return Vec::new(),
        }
    };
    // A configuration that cannot be read stops the call itself too.
    own_settings(dir).map(|now| before.overrides(now)).unwrap_or_default()
}

/// Where git keeps what belongs to one worktree.
struct Folders {
    /// Its own.
    own: PathBuf,
    /// The one that all worktrees of the repository share.
    common: PathBuf,
}

/// Read as git finds them. A start of git would cost more.
fn folders(dir: &Path) -> Option<Folders> {
    let (own, common) = dir.ancestors().find_map(|folder| {
        let entry = folder.join(".git");
        if entry.is_dir() {
            return Some((entry.clone(), entry));
        }
        if let Ok(text) = fs::read_to_string(&entry) {
            let own = folder.join(text.strip_prefix("gitdir:")?.trim());
            let common = fs::read_to_string(own.join("commondir"));
            let common = common.map_or_else(|_| own.clone(), |common| own.join(common.trim()));
            return Some((own, common));
        }
        let is_one = folder.join("HEAD").is_file() && folder.join("objects").is_dir() && folder.join("refs").is_dir();
        is_one.then(|| (folder.to_owned(), folder.to_owned()))
    })?;
    Some(Folders { own: own.canonicalize().ok()?, common: common.canonicalize().ok()? })
}

#[cfg(test)]
mod tests;
