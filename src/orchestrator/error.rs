//! What can go wrong for the one who asks, in words that say what to do next.

use std::path::PathBuf;

use thiserror::Error;

use crate::store::file::FileError;
use crate::store::journal::JournalError;
use crate::store::state_file::StateFileError;

#[derive(Debug, Error)]
pub enum OrchestratorError {
    #[error("no worker is called {name:?}: {instead}")]
    UnknownWorker { name: String, instead: String },
    #[error("{name:?} is {meanings}: name one of them by its whole id")]
    AmbiguousWorker { name: String, meanings: String },
    #[error("{name:?} is a worker of another boss: scope \"all\" shows those, and only its own boss may {what} it")]
    NotYours { name: String, what: &'static str },
    #[error("worker {worker} is still {status}: {mend}")]
    NotSettled { worker: String, status: &'static str, mend: &'static str },
    #[error("{0}")]
    Refused(String),
    #[error("the directory {} is not in a git repository: name one with repo_path, or start in one; a mission can use working_directory instead of a worktree", path.display())]
    NoRepository { path: PathBuf },
    #[error("{} is part of the repository (git tracks files in it), so whoever wrote the repository could start missions by it: it is not used; take it out with `git rm -r --cached`, after looking at what it holds, or choose another folder with --state-dir", path.display())]
    TrackedState { path: PathBuf },
    #[error("{} is gone: move it back and all goes on, or start this server where it is now (`git worktree repair` there mends git's links to its worktrees); workers that ran there are stopped, and nothing is made at the old place", path.display())]
    Moved { path: PathBuf },
    #[error("cannot work in {}: its path is not UTF-8; rename the folder, or start the server in another one", path.display())]
    NotText { path: PathBuf },
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    StateFile(#[from] StateFileError),
    #[error("the server is shutting down; everything is saved and the workers go on: start it again and ask once more")]
    ShuttingDown,
}
