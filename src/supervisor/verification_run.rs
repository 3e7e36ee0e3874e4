//! A verification run of an integration. It creates a worktree at the commit, runs the command, sweeps the processes,
//! and removes the worktree. It ends with the server that wants the result, and no process or worktree outlives it. If
//! it is killed, any server finds its folder and removes what is left.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::apart::Sockets;
use super::finish::{SWEEP_GRACE, of_unchanged};
use super::run::{SupervisorError, say_ready, take_lease};
use super::{likely_cause, tree, verify};
use crate::attempt::assignment::folder_within;
use crate::attempt::verification::{VerificationAssignment, VerificationResult};
use crate::attempt::verification_dir::VerificationDir;
use crate::crash_point::{self, Point};
use crate::files;
use crate::git;
use crate::mission::hint::with_hints;
use crate::mission::outcome::{Missing, Verification};
use crate::process::{self, Identity, Private, Scope};

/// Runs the process of a verification run.
pub fn run(root: &Path) -> ExitCode {
    process::show_program_name();
    let ran = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(SupervisorError::Runtime)
        .and_then(|runtime| runtime.block_on(supervise(VerificationDir::at(root.to_owned()))));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "an integration could not be verified");
            ExitCode::FAILURE
        }
    }
}

async fn supervise(dir: VerificationDir) -> Result<(), SupervisorError> {
    process::become_session_leader()?;
    process::become_subreaper()?;
    let assignment: Option<VerificationAssignment> = files::read_json(&dir.assignment())?;
    let run = assignment.ok_or_else(|| SupervisorError::NoAssignment(dir.root().display().to_string()))?;
    let _lease = take_lease(&dir.lock()).await?;
    let me = Identity::own()?;
    git::configuration::keep_to_known();
    git::configuration::keep_to(&run.repository, run.configuration.clone());
    let unwanted = until_unwanted();
    let processes = tree::keep(dir.processes());
    say_ready();
    crash_point::at(Point::VerificationBegun);
    let result = verify_commit(&run, &dir, me, &unwanted).await;
    let result = match result {
        Some(verification) => Some(VerificationResult { lacks: lacks(&run, &dir, &verification).await, verification }),
        None => None,
    };
    crash_point::at(Point::VerificationVerified);
    processes.abort();
    let (made, place) = (run.clone(), dir.clone());
    let removed = blocking(move || made.remove_tree(&place)).await;
    crash_point::at(Point::VerificationTreeRemoved);
    match (result, removed) {
        (Some(result), _) => files::replace_json(&dir.result(), &result, false)?,
        // No server waits for the result.
        (None, Ok(())) => dir.remove()?,
        (None, Err(error)) => tracing::warn!(error = %with_hints(&error), "a verification worktree stays"),
    }
    Ok(())
}

/// Verifies the commit. `None` if the result is no longer wanted.
pub(super) async fn verify_commit(
    run: &VerificationAssignment,
    dir: &VerificationDir,
    me: Identity,
    unwanted: &CancellationToken,
) -> Option<Verification> {
    let tree = run.tree(dir);
    let (repository, worktree, commit) = (run.repository.clone(), tree.clone(), run.commit.clone());
    if let Err(error) = blocking(move || git::verification_tree::make(&repository, &worktree, &commit)).await {
        let why = format!("there is no worktree to verify it in: {}", with_hints(&error));
        return Some(Verification::CouldNotRun { why });
    }
    crash_point::at(Point::VerificationTreeMade);
    let (before, since) = (state(tree.clone()).await, SystemTime::now());
    let inner = run.directory.as_ref().and_then(|inner| folder_within(&tree, inner));
    let (start, log) = (inner.unwrap_or_else(|| tree.clone()), dir.log());
    let sockets = run.sockets.clone().map(Sockets::make).unwrap_or_default();
    let check = verify::Check {
        command: &run.command,
        directory: &start,
        tag: &run.tag,
        log: &log,
        settings: &run.settings,
        sockets: &sockets,
        commit: Some(run.commit.clone()),
    };
    let result = verify::verify(check, unwanted.cancelled()).await;
    let spare = run.settings.shared_daemons.clone();
    let places = [Some(tree.clone()), sockets.path().map(Path::to_owned)].into_iter().flatten().collect();
    let private = Private { places, since: Some(since) };
    let scope = Scope { tag: run.tag.clone(), roots: vec![me], spare, private, ..Scope::default() };
    process::sweep(&scope, SWEEP_GRACE).await;
    match result {
        Some(passed @ Verification::Passed { .. }) => Some(of_unchanged(passed, before, state(tree).await)),
        result => result,
    }
}

async fn lacks(run: &VerificationAssignment, dir: &VerificationDir, verification: &Verification) -> Vec<Missing> {
    let (repository, worktree, verification) = (run.repository.clone(), run.tree(dir), verification.clone());
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
