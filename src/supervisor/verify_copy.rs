//! The verification of a worker that only reads. Its directory cannot be written, so the command runs in a scratch
//! copy: a worktree of its own with the same files, uncommitted and ignored ones included, which is removed afterwards.
//! If this process is killed, any server removes the worktree. A folder that is in no repository is copied to the
//! worker's temporary folder.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use uuid::Uuid;

use super::attempt::LiveAttempt;
use super::blocking::blocking;
use super::likely_cause::beside;
use super::verification_run;
use crate::attempt::assignment::SetupTask;
use crate::attempt::sockets;
use crate::attempt::verification::VerificationAssignment;
use crate::attempt::verification_dir::VerificationDir;
use crate::files::{self, lease};
use crate::git::{self, Repository};
use crate::mission::hint::{Hint, Hinted, with_hints};
use crate::mission::id::ServerId;
use crate::mission::outcome::Verification;
use crate::mission::spec::Permissions;
use crate::process;

/// A copy of a folder that is in no repository. It is removed when this is dropped.
pub(super) struct FolderCopy {
    pub path: PathBuf,
    of: PathBuf,
}

/// The reason why there is no copy, so that the command cannot run.
#[derive(Debug, Error)]
pub(super) enum FolderCopyError {
    #[error("cannot copy {folder} for the verification of a worker that only reads: {reason}")]
    LeftOut { folder: PathBuf, reason: String },
    #[error("cannot copy {folder} for the verification of a worker that only reads")]
    Copy { folder: PathBuf, source: io::Error },
}

impl Hinted for FolderCopyError {
    fn hints(&self) -> Vec<Hint> {
        vec![Hint::to("use `permissions: edit`"), Hint::to("leave out the verify_command")]
    }
}

impl FolderCopy {
    /// Adds to the output of a failed command that it ran in a copy, where paths above it lead elsewhere.
    pub fn note(&self, verification: &mut Verification) {
        if let Verification::Failed { log_tail, .. } = verification {
            let of = self.of.display();
            log_tail
                .push_str(&format!("\n(orchestrator-boss: it ran in a copy of {of}, since the mission only reads)"));
        }
    }
}

impl Drop for FolderCopy {
    fn drop(&mut self) {
        sockets::remove_temporary(&self.path);
    }
}

impl LiveAttempt {
    /// Returns the repository, if the verification must run in a scratch copy of its worktree.
    pub(super) fn verifies_in_copy(&self) -> Option<Repository> {
        self.assignment.repository.clone().filter(|_| self.only_reads())
    }

    fn only_reads(&self) -> bool {
        self.assignment.mission.permissions == Permissions::ReadOnly && self.rules.cli.is_some()
    }

    /// Copies the directory of the worker if it only reads and is in no repository.
    pub(super) async fn copy_folder(&self) -> Result<Option<FolderCopy>, FolderCopyError> {
        if !self.only_reads() || self.assignment.repository.is_some() {
            return Ok(None);
        }
        let folder = self.assignment.start_directory();
        let temporary = self.sockets.temporary().ok_or_else(|| FolderCopyError::Copy {
            folder: folder.clone(),
            source: io::Error::new(io::ErrorKind::NotFound, "the worker has no temporary folder"),
        })?;
        let copy = FolderCopy { path: temporary.join(format!("copy-{}", Uuid::new_v4().simple())), of: folder.clone() };
        let (to, state) = (copy.path.clone(), self.dir.state_dir().root().to_owned());
        let limit = self.assignment.settings.seed_limit();
        let from = folder.clone();
        match blocking(move || git::copy_folder(&from, &to, &state, limit)).await {
            Ok(None) => Ok(Some(copy)),
            Ok(Some(reason)) => Err(FolderCopyError::LeftOut { folder, reason }),
            Err(source) => Err(FolderCopyError::Copy { folder, source }),
        }
    }

    /// Verifies the files as they are, in a scratch copy.
    pub(super) async fn verify_in_copy(&mut self, repository: Repository, command: &str) -> Verification {
        let could_not_run = |why: String| Verification::CouldNotRun {
            why: format!("cannot copy the worktree for the verification: {why}"),
        };
        let directory = self.assignment.start_directory();
        let root = git::working_tree(&directory).unwrap_or_else(|| self.assignment.directory.clone());
        let checkout = repository.at(&root);
        let found =
            blocking(move || Ok::<_, git::SalvageError>((git::snapshot(&checkout)?, git::head(&checkout)?))).await;
        let (commit, head) = match found {
            Ok(found) => found,
            Err(error) => return could_not_run(with_hints(&error)),
        };
        let state = self.dir.state_dir();
        // The folder is named after the worker: no server has this name, so any server removes the folder if this
        // process is killed.
        let dir = VerificationDir::new(&state, &ServerId::from(self.assignment.worker_id.as_str()));
        let depth = process::depth_of(&self.assignment.tag);
        let run = VerificationAssignment {
            tag: process::tag_at_depth(format!("copy.{}", Uuid::new_v4().simple()), depth),
            // Not beside a directory of the user.
            tree: beside(&repository, &root).filter(|_| self.assignment.ours),
            repository,
            directory: directory.strip_prefix(&root).ok().map(Path::to_owned),
            commit: commit.clone(),
            command: command.to_owned(),
            setup: self.repeated_setup(),
            seed: Vec::new(),
            ignored_of: Some(root),
            sockets: self.assignment.socket.parent().map(sockets::new_folder_in),
            settings: self.assignment.settings.clone(),
            variables: self.assignment.variables(),
        };
        if let Err(error) = dir.create(&run) {
            return could_not_run(with_hints(&error));
        }
        let Ok(Some(_lease)) = lease::take(&dir.lock()) else {
            return could_not_run("its folder is in use".to_owned());
        };
        let stopped = self.inbox.until_stopped();
        let verification = verification_run::verify_commit_until(&run, &dir, self.supervisor, stopped).await;
        self.keep_verify_log(&dir);
        let place = dir.clone();
        let removed = blocking(move || run.remove_tree(&place)).await;
        if let Err(error) =
            removed.map_err(|error| with_hints(&error)).and_then(|()| dir.remove().map_err(|it| with_hints(&it)))
        {
            // Its folder stays, so a server tries again.
            tracing::warn!(error, "cannot remove the scratch copy of a worktree");
        }
        let is_committed = head.as_ref() == Some(&commit);
        match verification {
            None => Verification::Skipped,
            // No branch has the commit of uncommitted files.
            Some(Verification::Passed { seconds, .. }) if !is_committed => {
                Verification::Passed { commit: None, seconds }
            }
            Some(Verification::Failed { exit, log_tail, seconds, .. }) if !is_committed => {
                Verification::Failed { commit: None, exit, log_tail, seconds }
            }
            Some(verification) => verification,
        }
    }

    /// Returns the setup of the worktree, for a copy that lacks some ignored files.
    fn repeated_setup(&self) -> Option<SetupTask> {
        let recorded = self.dir.worker().setup().ok().flatten()?;
        let timeout_minutes = self.assignment.settings.setup_timeout_minutes;
        Some(SetupTask { command: recorded.command, timeout_minutes })
    }

    /// Appends the output to the attempt's own log, and records the writes that were refused.
    fn keep_verify_log(&mut self, dir: &VerificationDir) {
        let log = self.dir.verify_log();
        let copied = File::open(dir.log())
            .and_then(|mut from| io::copy(&mut from, &mut files::private().create(true).append(true).open(&log)?));
        let copied = match copied {
            Ok(bytes) => bytes,
            // It did not start.
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => {
                tracing::warn!(%error, "cannot keep the log of a verification");
                0
            }
        };
        let from = fs::metadata(&log).map_or(0, |log| log.len()).saturating_sub(copied);
        let output = super::exit::end_of(&log, from);
        self.refused_writes.record(&output, self.rules.verification.as_ref());
    }
}
