//! `integrations/<server>.<id>/`: one folder for each verification of an integration, with its worktree in it. It is there
//! for as long as that goes on, and names the server that wants to know: what is left of a dead one is taken away.

use std::path::{Path, PathBuf};

use serde::Serialize;
use uuid::Uuid;

use super::file::{self, FileError};
use super::state_dir::StateDir;
use crate::mission::id::ServerId;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrialDir {
    root: PathBuf,
}

impl TrialDir {
    pub fn new(state: &StateDir, server: &ServerId) -> Self {
        Self::at(state.trials().join(format!("{server}.{}", Uuid::new_v4().simple())))
    }

    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// All that are there, whoever's.
    pub fn all(state: &StateDir) -> Vec<Self> {
        let entries = std::fs::read_dir(state.trials()).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|it| Self::at(it.path()))
            .collect()
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// For whom it is.
    pub fn server(&self) -> Option<ServerId> {
        let name = self.root.file_name()?.to_str()?;
        name.split_once('.').map(|(server, _)| ServerId(server.to_owned()))
    }

    pub fn assignment(&self) -> PathBuf {
        self.root.join("trial.json")
    }

    /// Locked by its supervisor for as long as that lives.
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// See [`super::worker_dir::AttemptDir::processes`].
    pub fn processes(&self) -> PathBuf {
        self.root.join("processes.json")
    }

    pub fn log(&self) -> PathBuf {
        self.root.join("verify.log")
    }

    pub fn supervisor_log(&self) -> PathBuf {
        self.root.join("supervisor.log")
    }

    /// How it ended; written last.
    pub fn result(&self) -> PathBuf {
        self.root.join("proof.json")
    }

    /// The worktree.
    pub fn tree(&self) -> PathBuf {
        self.root.join("tree")
    }

    /// Makes the folder, with the assignment in it.
    pub fn create(&self, assignment: &impl Serialize) -> Result<(), FileError> {
        let (trials, state) = (self.root.parent().unwrap_or(&self.root), self.root.ancestors().nth(2));
        file::refuse_no_folder(trials)?;
        file::make_private_dir_within(state.unwrap_or(trials), &self.root)?;
        file::replace_json(&self.assignment(), assignment, false)
    }

    /// Takes away what is left of it, and the folder of all of them if it was the last one. Gone already is fine.
    pub fn remove(&self) -> Result<(), FileError> {
        match std::fs::remove_dir_all(&self.root) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(FileError::write(&self.root, error));
            }
            _ => {}
        }
        // Only an empty one can be removed so.
        let _ = self.root.parent().map(std::fs::remove_dir);
        Ok(())
    }
}
