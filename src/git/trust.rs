//! Which of a repository's settings a call of git may use. A worker can change all of them, so a call gets only what
//! was configured before the first worker.
//!
//! Trust is a value: a [`Repository`](super::Repository) and a [`Checkout`] carry it, and [`Git`](super::Git) reads and
//! writes only with it. There is no default, and nothing is remembered for the whole process.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::configuration::Configuration;
use super::layout::{Folders, folders, folders_of, short_id};

/// File with the record of the repository that a state folder belongs to. It keeps its name if the repository moves.
const OWN_RECORD: &str = "git-configuration.json";

/// The settings that calls of git may use, per repository.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "TrustRule", into = "TrustRule")]
pub struct Trust(Arc<TrustRule>);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TrustRule {
    Everything,
    Nothing,
    Recorded {
        folder: PathBuf,
        /// Shared folder of the repository whose record is [`OWN_RECORD`].
        own: Option<PathBuf>,
    },
    Before {
        common_dir: PathBuf,
        configuration: Configuration,
    },
}

impl From<TrustRule> for Trust {
    fn from(rule: TrustRule) -> Trust {
        let real = |path: PathBuf| path.canonicalize().unwrap_or(path);
        Trust(Arc::new(match rule {
            TrustRule::Recorded { folder, own } => TrustRule::Recorded { folder, own: own.map(real) },
            TrustRule::Before { common_dir, configuration } => {
                TrustRule::Before { common_dir: real(common_dir), configuration }
            }
            rule @ (TrustRule::Everything | TrustRule::Nothing) => rule,
        }))
    }
}

impl From<Trust> for TrustRule {
    fn from(trust: Trust) -> TrustRule {
        Arc::unwrap_or_clone(trust.0)
    }
}

impl Trust {
    /// Trusts all settings of all repositories. Only for checks that the user runs, and where no worker has been.
    pub fn everything() -> Trust {
        TrustRule::Everything.into()
    }

    /// Trusts no setting of any repository.
    pub fn nothing() -> Trust {
        TrustRule::Nothing.into()
    }

    /// Trusts what the records in a state folder contain. A repository without a record has had no worker yet, and all
    /// of its settings are trusted. `own` is the shared folder of the repository that the state folder belongs to.
    pub fn recorded(folder: &Path, own: Option<&Path>) -> Trust {
        TrustRule::Recorded { folder: folder.to_owned(), own: own.map(Path::to_owned) }.into()
    }

    /// Trusts what one repository had configured before. Nothing of any other repository is trusted: a worker can put
    /// one in the place of its own.
    pub fn only(common_dir: &Path, before: Configuration) -> Trust {
        TrustRule::Before { common_dir: common_dir.to_owned(), configuration: before }.into()
    }

    /// Returns the path of a repository's record, `None` if this trust does not depend on records.
    pub fn record(&self, common_dir: &Path) -> Option<PathBuf> {
        let TrustRule::Recorded { folder, own } = &*self.0 else { return None };
        let common_dir = common_dir.canonicalize().unwrap_or_else(|_| common_dir.to_owned());
        let name = if own.as_ref() == Some(&common_dir) {
            OWN_RECORD.to_owned()
        } else {
            format!("git-configuration-{}.json", short_id(&common_dir))
        };
        Some(folder.join(name))
    }

    /// Returns the trusted configuration of the repository with this shared folder. `None` if all of it is trusted.
    pub(super) fn before(&self, common_dir: &Path) -> Option<Configuration> {
        match &*self.0 {
            TrustRule::Everything => None,
            TrustRule::Nothing => Some(Configuration::default()),
            TrustRule::Recorded { .. } => read_record(&self.record(common_dir)?),
            TrustRule::Before { common_dir: known, configuration } if known == common_dir => {
                Some(configuration.clone())
            }
            TrustRule::Before { .. } => Some(Configuration::default()),
        }
    }

    fn restriction(&self, folders: Option<Folders>) -> Option<Configuration> {
        if matches!(*self.0, TrustRule::Everything) {
            return None;
        }
        match folders {
            Some(folders) => self.before(&folders.common).filter(|before| !before.is_surely_unchanged(&folders)),
            None if matches!(*self.0, TrustRule::Recorded { .. }) => None,
            None => Some(Configuration::default()),
        }
    }
}

/// Reads a record. If it is damaged, nothing of the repository is trusted.
fn read_record(path: &Path) -> Option<Configuration> {
    match fs::read(path) {
        Ok(bytes) => Some(serde_json::from_slice(&bytes).unwrap_or_default()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(_) => Some(Configuration::default()),
    }
}

/// A folder in which git runs, and the trust of its calls there: a worktree, a repository inside one, or a subfolder.
#[derive(Debug, Clone)]
pub struct Checkout {
    path: PathBuf,
    trust: Trust,
    /// Git's folder for the worktree, if its own `.git` must not be followed.
    git_dir: Option<PathBuf>,
}

impl Checkout {
    pub fn new(path: impl Into<PathBuf>, trust: &Trust) -> Checkout {
        Checkout { path: path.into(), trust: trust.clone(), git_dir: None }
    }

    /// Makes git use this folder for the worktree and ignore the worktree's `.git`.
    pub(super) fn with_git_dir(self, git_dir: Option<PathBuf>) -> Checkout {
        Checkout { git_dir, ..self }
    }

    pub(super) fn named_git_dir(&self) -> Option<&Path> {
        self.git_dir.as_deref()
    }

    /// Returns the folder in which a library finds the repository.
    pub(super) fn place(&self) -> &Path {
        self.git_dir.as_deref().unwrap_or(&self.path)
    }

    /// Returns the two folders in which git keeps the data of the worktree.
    pub(super) fn folders(&self) -> Option<Folders> {
        match &self.git_dir {
            Some(own) => folders_of(own),
            None => folders(&self.path),
        }
    }

    /// Returns the configuration that a call must be restricted to. `None` if it may use what is set now.
    pub(super) fn restriction(&self) -> Option<Configuration> {
        self.trust.restriction(self.folders())
    }

    /// Returns another folder with the same trust. A relative path is below this one.
    pub fn at(&self, path: impl AsRef<Path>) -> Checkout {
        Checkout::new(self.path.join(path), &self.trust)
    }

    pub fn trust(&self) -> &Trust {
        &self.trust
    }
}

impl Deref for Checkout {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl AsRef<Path> for Checkout {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}
