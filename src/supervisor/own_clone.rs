//! The clone of a confined worker (`confine_git = "clone"`). It is in the worktree exactly while processes of the worker
//! may run: the setup, each turn, the verification. In between, everything that they made is fetched, and git works on
//! the worktree as on any other.

use crate::attempt::assignment::Assignment;
use crate::config::ConfineGit;
use crate::git::{self, Repository};
use crate::mission::hint::with_hints;
use crate::mission::spec::Place;

/// The clone of an attempt's worker.
#[derive(Debug, Default)]
pub(super) struct OwnClone {
    is_used: bool,
    /// The reason why the worker shares the repository's `.git` although the settings ask for a clone.
    refused: Option<String>,
    /// The reason why not everything could be fetched from it.
    error: Option<String>,
}

impl OwnClone {
    /// Decides whether the worker of an attempt that is confined has a clone.
    pub fn of(assignment: &Assignment) -> Self {
        let Some(repository) = asked(assignment) else { return Self::default() };
        match git::clone_refusal(repository, &assignment.directory) {
            Ok(None) => Self { is_used: true, ..Self::default() },
            Ok(Some(why)) => Self { refused: Some(why), ..Self::default() },
            Err(error) => Self { refused: Some(with_hints(&error)), ..Self::default() },
        }
    }

    pub fn is_used(&self) -> bool {
        self.is_used
    }

    /// Returns why not everything could be fetched from it.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Records the result of fetching.
    pub fn set_error(&mut self, error: Option<String>) {
        self.error = error;
    }

    /// Returns the repository of an attempt whose worker has a clone.
    pub fn repository(&self, assignment: &Assignment) -> Option<Repository> {
        asked(assignment).filter(|_| self.is_used).cloned()
    }

    pub fn notes(&self) -> Vec<String> {
        let refused = self.refused.as_ref().map(|why| format!("it had no clone, and could write all of .git: {why}"));
        refused.into_iter().chain(self.error.clone()).collect()
    }
}

/// Returns the repository of an attempt whose worker is to have a clone, if there can be one.
fn asked(assignment: &Assignment) -> Option<&Repository> {
    let is_made = assignment.ours && matches!(assignment.mission.place, Place::Worktree { .. });
    let is_asked = is_made && assignment.settings.confine_git == ConfineGit::Clone;
    assignment.repository.as_ref().filter(|_| is_asked)
}
