//! A verification run of an integration. It creates a worktree at the commit, runs the command, sweeps the processes,
//! and removes the worktree. It ends with the server that wants the result, and no process or worktree outlives it. If
//! it is killed, any server finds its folder and removes what is left.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::apart::Sockets;
use super::assignment::folder_within;
use super::finish::{SWEEP_GRACE, of_unchanged};
use super::run::{SupervisorError, say_ready, take_lease};
use super::{likely_cause, tree, verify};
use crate::config::Settings;
use crate::crash_point::{self, Point};
use crate::git::{self, Configuration, Repository};
use crate::mission::hint::with_hints;
use crate::mission::outcome::{Missing, Verification};
use crate::process::{self, Identity, Private, Scope};
use crate::store::file;
use crate::store::trial_dir::TrialDir;

/// Everything that the supervisor of a verification run needs. Written by the process that starts it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// The tag in the environment of all its processes. It is never used again.
    pub tag: String,
    pub repository: Repository,
    /// The configuration of the repository before any worker.
    pub configuration: Configuration,
    pub commit: String,
    pub command: String,
    /// The path of the worktree. The default is in the folder of the verification run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<PathBuf>,
    /// The subfolder of the worktree in which the command runs, if it exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    /// The folder for the sockets of its processes. The default is that of the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sockets: Option<PathBuf>,
    pub settings: Settings,
}

/// The result of a verification run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    #[serde(flatten)]
    pub verification: Verification,
    /// Files and folders that the main checkout has and its worktree lacks, if it did not pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<Missing>,
}

/// Prefix of the names of worktrees in which integrations are verified.
const VERIFIED_IN: &str = "verify-";

/// Returns a name for a new worktree in which an integration is verified.
pub fn tree_name() -> String {
    format!("{VERIFIED_IN}{}", Uuid::new_v4().simple())
}

/// Returns whether a folder is named like a worktree in which an integration is verified.
pub fn is_tree(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(VERIFIED_IN));
    name.is_some_and(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

impl Trial {
    pub fn tree(&self, dir: &TrialDir) -> PathBuf {
        // A worker can write that file, and must not make this process remove other folders.
        self.tree.clone().filter(|tree| is_tree(tree)).unwrap_or_else(|| dir.tree())
    }

    /// Removes the worktree, and the folder that contained it if that is now empty.
    pub fn remove_tree(&self, dir: &TrialDir) -> Result<(), git::WorktreeError> {
        git::trial::remove(&self.repository, &self.tree(dir))?;
        match self.tree.as_deref().and_then(Path::parent) {
            Some(folder) => git::remove_empty_folder(&self.repository, folder),
            None => Ok(()),
        }
    }
}

/// Runs the process of a verification run.
pub fn run(root: &Path) -> ExitCode {
    process::show_program_name();
    let ran = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(SupervisorError::Runtime)
        .and_then(|runtime| runtime.block_on(supervise(TrialDir::at(root.to_owned()))));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "an integration could not be verified");
            ExitCode::FAILURE
        }
    }
}

async fn supervise(dir: TrialDir) -> Result<(), SupervisorError> {
    process::become_session_leader()?;
    process::become_subreaper()?;
    let assignment: Option<Trial> = file::read_json(&dir.assignment())?;
    let trial = assignment.ok_or_else(|| SupervisorError::NoAssignment(dir.root().display().to_string()))?;
    let _lease = take_lease(&dir.lock()).await?;
    let me = Identity::own()?;
    git::configuration::keep_to_known();
    git::configuration::keep_to(&trial.repository, trial.configuration.clone());
    let unwanted = until_unwanted();
    let processes = tree::keep(dir.processes());
    say_ready();
    crash_point::at(Point::TrialBegun);
    let result = prove(&trial, &dir, me, &unwanted).await;
    let result = match result {
        Some(verification) => Some(Proof { lacks: lacks(&trial, &dir, &verification).await, verification }),
        None => None,
    };
    crash_point::at(Point::TrialVerified);
    processes.abort();
    let (made, place) = (trial.clone(), dir.clone());
    let removed = blocking(move || made.remove_tree(&place)).await;
    crash_point::at(Point::TrialTreeRemoved);
    match (result, removed) {
        (Some(result), _) => file::replace_json(&dir.result(), &result, false)?,
        // No server waits for the result.
        (None, Ok(())) => dir.remove()?,
        (None, Err(error)) => tracing::warn!(error = %with_hints(&error), "a verification worktree stays"),
    }
    Ok(())
}

/// Verifies the commit. `None` if the result is no longer wanted.
pub(super) async fn prove(
    trial: &Trial,
    dir: &TrialDir,
    me: Identity,
    unwanted: &CancellationToken,
) -> Option<Verification> {
    let tree = trial.tree(dir);
    let (repository, worktree, commit) = (trial.repository.clone(), tree.clone(), trial.commit.clone());
    if let Err(error) = blocking(move || git::trial::make(&repository, &worktree, &commit)).await {
        let why = format!("there is no worktree to verify it in: {}", with_hints(&error));
        return Some(Verification::CouldNotRun { why });
    }
    crash_point::at(Point::TrialTreeMade);
    let (before, since) = (state(tree.clone()).await, SystemTime::now());
    let inner = trial.directory.as_ref().and_then(|inner| folder_within(&tree, inner));
    let (start, log) = (inner.unwrap_or_else(|| tree.clone()), dir.log());
    let sockets = trial.sockets.clone().map(Sockets::make).unwrap_or_default();
    let check = verify::Check {
        command: &trial.command,
        directory: &start,
        tag: &trial.tag,
        log: &log,
        settings: &trial.settings,
        sockets: &sockets,
        commit: Some(trial.commit.clone()),
    };
    let result = verify::verify(check, unwanted.cancelled()).await;
    let spare = trial.settings.shared_daemons.clone();
    let places = [Some(tree.clone()), sockets.path().map(Path::to_owned)].into_iter().flatten().collect();
    let private = Private { places, since: Some(since) };
    let scope = Scope { tag: trial.tag.clone(), roots: vec![me], spare, private, ..Scope::default() };
    process::sweep(&scope, SWEEP_GRACE).await;
    match result {
        Some(passed @ Verification::Passed { .. }) => Some(of_unchanged(passed, before, state(tree).await)),
        result => result,
    }
}

async fn lacks(trial: &Trial, dir: &TrialDir, verification: &Verification) -> Vec<Missing> {
    let (repository, worktree, verification) = (trial.repository.clone(), trial.tree(dir), verification.clone());
    blocking(move || likely_cause::missing(&repository, &worktree, &verification)).await
}

async fn state(worktree: PathBuf) -> Result<String, git::CommandError> {
    blocking(move || git::tracked_state(&worktree)).await
}

/// Returns a token that is cancelled when the system asks this process to end, or when stdin ends, as it does with the
/// server.
fn until_unwanted() -> CancellationToken {
    let unwanted = CancellationToken::new();
    let ended = unwanted.clone();
    // Not by the runtime: at its end it would wait for a read that does not return.
    std::thread::spawn(move || {
        let mut byte = [0];
        while matches!(std::io::stdin().read(&mut byte), Ok(1)) {}
        ended.cancel();
    });
    for kind in [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt()] {
        let asked = unwanted.clone();
        match signal(kind) {
            Ok(mut signal) => drop(tokio::spawn(async move {
                signal.recv().await;
                asked.cancel();
            })),
            Err(error) => tracing::warn!(%error, "a signal cannot be heeded"),
        }
    }
    unwanted
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
