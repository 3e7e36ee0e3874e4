//! Errors of creating, finding and locking worktrees.

use std::io;
use std::path::PathBuf;

use crate::git::command::CommandError;
use crate::git::in_place::PlaceError;
use crate::git::include::IncludeError;
use crate::git::repository::RepositoryError;
use crate::mission::hint::{Hint, Hinted};

#[derive(Debug, thiserror::Error)]
pub enum WorktreeError {
    #[error(transparent)]
    Git(#[from] CommandError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error(transparent)]
    Include(#[from] IncludeError),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("cannot use {branch:?} as a branch name: git does not allow it")]
    InvalidBranch { branch: String },
    #[error("cannot create branch {branch}: git stores branches as paths, and it conflicts with branch {existing}")]
    BranchInTheWay { branch: String, existing: String },
    #[error("cannot use branch {branch}: it is already checked out in {}", path.display())]
    BranchInUse { branch: String, path: PathBuf },
    #[error("cannot start branch {branch} at {base}: it already exists, at {commit}")]
    BranchExists { branch: String, commit: String, base: String },
    #[error("cannot create branch {branch} at {base}: the remote {remote} has a branch of that name, at {commit}")]
    RemoteHasBranch { branch: String, remote: String, commit: String, base: String },
    #[error("cannot use {branch:?} as a branch name: it is the full name of {what}")]
    NotABranch { branch: String, what: &'static str, instead: Vec<Hint> },
    #[error("cannot use {path:?} as the path of a worktree: {why}")]
    InvalidPath { path: PathBuf, why: &'static str },
    #[error(
        "cannot create a worktree at {}: it is neither inside {} nor beside it",
        path.display(),
        root.display()
    )]
    PathOutside { path: PathBuf, root: PathBuf },
    #[error("cannot create a worktree at {}: it lies inside the worktree {}", path.display(), worktree.display())]
    PathInWorktree { path: PathBuf, worktree: PathBuf },
    #[error("cannot create a worktree at {}: the path is not free", path.display())]
    PathTaken { path: PathBuf },
    #[error("cannot create a worktree at {}: git still records one there whose folder is gone", path.display())]
    PathRegistered { path: PathBuf },
    #[error("cannot remove the verification worktree {}", path.display())]
    RemoveVerificationTree { path: PathBuf, source: io::Error },
    #[error("cannot create the folder {} for worktrees", path.display())]
    MakeFolder { path: PathBuf, source: io::Error },
    #[error("cannot write {}", path.display())]
    Remember { path: PathBuf, source: io::Error },
    #[error("cannot read {}", path.display())]
    ReadPath { path: PathBuf, source: io::Error },
    #[error("cannot find a worktree at {}: it is not among the worktrees here ({})", path.display(), known.join(", "))]
    NotAWorktree { path: PathBuf, known: Vec<String> },
    #[error("cannot undo the failed creation of the worktree {} ({cause})", path.display())]
    Undo { path: PathBuf, cause: Box<WorktreeError>, source: Box<WorktreeError> },
}

impl Hinted for WorktreeError {
    fn hints(&self) -> Vec<Hint> {
        let another_name = || Hint::to("choose another name");
        let another_path = || Hint::to("choose another path");
        let no_base = || Hint::to("leave out `base` to continue it");
        match self {
            Self::Git(error) => error.hints(),
            Self::Repository(error) => error.hints(),
            Self::Include(error) => error.hints(),
            Self::Place(error) => error.hints(),
            Self::InvalidBranch { .. } => vec![Hint::to("use letters, digits, `-`, `_`, `.` and `/`")],
            Self::BranchInTheWay { .. } => vec![another_name()],
            Self::BranchInUse { path, .. } => vec![another_name(), Hint::RemoveWorktree(path.display().to_string())],
            Self::BranchExists { .. } | Self::RemoteHasBranch { .. } => vec![no_base(), another_name()],
            Self::NotABranch { instead, .. } => instead.clone(),
            Self::PathOutside { .. } => vec![another_path(), Hint::Set("worktree_roots")],
            Self::PathTaken { .. } => vec![another_path()],
            Self::PathRegistered { path } => vec![Hint::RemoveWorktree(path.display().to_string())],
            Self::MakeFolder { .. } => vec![Hint::Set("worktrees_dir")],
            Self::Undo { cause, source, .. } => [cause.hints(), source.hints()].concat(),
            Self::InvalidPath { .. }
            | Self::PathInWorktree { .. }
            | Self::RemoveVerificationTree { .. }
            | Self::Remember { .. }
            | Self::ReadPath { .. }
            | Self::NotAWorktree { .. } => Vec::new(),
        }
    }
}
