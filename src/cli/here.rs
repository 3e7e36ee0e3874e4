//! Where a command looks: the settings, the repository around the current directory, and the state that belongs to it.
//! Makes nothing.

use std::env;
use std::path::PathBuf;

use super::places::Places;
use crate::cli::hint;
use crate::config::Settings;
use crate::git::Repository;
use crate::orchestrator::{Observer, state_root};

pub(super) struct Here {
    /// With the state directory of the command line, where one is named.
    pub(super) settings: Settings,
    pub(super) directory: PathBuf,
    /// The root of its main worktree.
    pub(super) repository: Option<PathBuf>,
    pub(super) state_root: PathBuf,
}

impl Here {
    pub(super) fn find(places: &Places) -> Result<Self, String> {
        let settings = Settings::load(places.config.as_deref()).map_err(|error| hint::of(&error))?;
        let directory = env::current_dir().map_err(|error| format!("the current directory cannot be read: {error}"))?;
        let directory = directory.canonicalize().unwrap_or(directory);
        let repository = Repository::discover(&directory).map_err(|error| hint::of(&error))?;
        let state_dir = places.state_dir.clone().or(settings.state_dir.clone());
        let state_root = state_root(state_dir.as_deref(), repository.as_ref(), &directory);
        let repository = repository.map(|repository| repository.root().to_owned());
        Ok(Self { settings: Settings { state_dir, ..settings }, directory, repository, state_root })
    }

    /// `None`: nothing was ever asked for here.
    pub(super) fn observe(&self) -> Result<Option<Observer>, String> {
        Observer::open(&self.state_root, self.settings.integration_branch.as_deref()).map_err(|error| hint::of(&error))
    }
}
