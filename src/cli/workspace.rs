//! The settings, the repository and the state directory of a command. Creates nothing.

use std::env;
use std::path::PathBuf;

use super::error::CliError;
use super::hint;
use super::places::Places;
use crate::config::{ConfigError, Settings};
use crate::git::{Repository, Trust};
use crate::orchestrator::{Observer, state_root};

pub(super) struct Workspace {
    /// The settings, with the state directory of the command line if it names one.
    pub(super) settings: Settings,
    pub(super) directory: PathBuf,
    /// The root of the repository's main worktree.
    pub(super) repository: Option<PathBuf>,
    pub(super) state_root: PathBuf,
}

impl Workspace {
    pub(super) fn find(places: &Places) -> Result<Self, CliError> {
        let settings = Settings::load(places.config.as_deref()).map_err(|error| unusable(&error))?;
        let directory = env::current_dir()
            .map_err(|error| CliError::Failed(format!("cannot read the current directory: {error}")))?;
        let directory = directory.canonicalize().unwrap_or(directory);
        let repository =
            Repository::discover(&directory, &Trust::nothing()).map_err(|error| CliError::Failed(hint::of(&error)))?;
        let state_dir = places.state_dir.clone().or(settings.state_dir.clone());
        let state_root = state_root(state_dir.as_deref(), repository.as_ref(), &directory);
        let repository = repository.map(|repository| repository.root().to_owned());
        Ok(Self { settings: Settings { state_dir, ..settings }, directory, repository, state_root })
    }

    /// Opens the state for reading; `None` if no worker was ever created here.
    pub(super) fn try_observer(&self) -> Result<Option<Observer>, CliError> {
        Observer::open(&self.state_root, self.settings.integration_branch.as_deref()).map_err(CliError::from)
    }

    /// Opens the state for reading. Fails if no worker was ever created here.
    pub(super) fn observer(&self) -> Result<Observer, CliError> {
        self.try_observer()?.ok_or_else(|| self.no_workers())
    }

    /// Returns the error for a place without workers. It names the state directory, since that may be the wrong one.
    pub(super) fn no_workers(&self) -> CliError {
        CliError::Usage(format!(
            "no missions in {} ({} has none; --state-dir names another state directory)",
            self.directory.display(),
            self.state_root.display()
        ))
    }
}

/// Returns the error for unusable settings. A mistake in the file must not keep the user from running workers.
fn unusable(error: &ConfigError) -> CliError {
    let text = hint::of(error);
    CliError::Failed(match error {
        ConfigError::Read { .. } | ConfigError::Invalid { .. } => {
            format!("{text}; `--config /dev/null` runs this command without the file")
        }
        ConfigError::Variable { .. } | ConfigError::NotANumber { .. } | ConfigError::NotAnAmount { .. } => text,
    })
}
