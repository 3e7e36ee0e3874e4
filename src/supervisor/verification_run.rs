//! A verification run of an integration. It creates a worktree at the commit, sets it up, runs the command, sweeps the
//! processes, and removes the worktree. It ends with the server that wants the result, and no process or worktree
//! outlives it. If it is killed, any server finds its folder and removes the rest.

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::blocking::blocking;
use super::cleanup::SWEEP_GRACE;
use super::isolation::SocketFolder;
use super::refused_writes::RefusedWrites;
use super::setup::SetupError;
use super::shell::{self, ShellCommand};
use super::startup::{SupervisorError, report_ready, run_process, separate_from_server, take_lease};
use super::verify::{passed_if_unchanged, verify};
use super::write_rules::rules_of_verification;
use super::{job, missing, process_record};
use crate::attempt::assignment::folder_within;
use crate::attempt::sockets;
use crate::attempt::verification::{VerificationAssignment, VerificationResult};
use crate::attempt::verification_dir::VerificationDir;
use crate::crash_point::{self, Point};
use crate::files;
use crate::git;
use crate::mission::hint::with_hints;
use crate::mission::outcome::{Missing, Verification};
use crate::process::confine::WriteRules;
use crate::process::{self, Identity, ProcessScope, WorkerPlaces};

/// Runs the process of a verification run, which may be the task of a cluster's job.
pub fn run(root: &Path, is_job: bool) -> ExitCode {
    run_process(supervise(VerificationDir::at(root.to_owned()), is_job))
}

async fn supervise(dir: VerificationDir, is_job: bool) -> Result<(), SupervisorError> {
    let assignment: Option<VerificationAssignment> = files::read_json(&dir.assignment())?;
    let mut run = assignment.ok_or_else(|| SupervisorError::NoAssignment(dir.root().display().to_string()))?;
    // Locks may not hold between two hosts, and pids of a node mean nothing to a server.
    let _lease = if is_job {
        job::take_over_environment(dir.root())?;
        job::forget_environment(dir.root());
        process::become_subreaper()?;
        run.sockets = sockets::user_folder().ok().map(|folder| sockets::new_folder_in(&folder));
        None
    } else {
        separate_from_server()?;
        Some(take_lease(&dir.lock()).await?)
    };
    let supervisor = Identity::own()?;
    let cancelled = cancelled();
    let process_record = (!is_job).then(|| process_record::keep(dir.processes()));
    report_ready();
    crash_point::at(Point::VerificationBegun);
    let result = verify_commit(&run, &dir, supervisor, &cancelled).await;
    let result = match result {
        Some(verification) => Some(VerificationResult { lacks: lacks(&run, &dir, &verification).await, verification }),
        None => None,
    };
    crash_point::at(Point::VerificationVerified);
    process_record.inspect(JoinHandle::abort);
    let (made, place) = (run.clone(), dir.clone());
    let removed = blocking(move || made.remove_tree(&place)).await;
    crash_point::at(Point::VerificationTreeRemoved);
    match (result, removed) {
        (Some(result), _) => files::replace_json(&dir.result(), &result, false)?,
        // No server waits for the result.
        (None, Ok(())) => dir.remove()?,
        (None, Err(error)) => tracing::warn!(error = %with_hints(&error), "cannot remove a verification worktree"),
    }
    Ok(())
}

/// Verifies the commit for this process, and cancels the run once `stopped` completes. `None` if it was cancelled.
pub(super) async fn verify_commit_until(
    run: &VerificationAssignment,
    dir: &VerificationDir,
    supervisor: Identity,
    stopped: impl Future<Output = ()>,
) -> Option<Verification> {
    let cancelled = CancellationToken::new();
    let verification = verify_commit(run, dir, supervisor, &cancelled);
    tokio::pin!(verification);
    tokio::select! {
        found = &mut verification => return found,
        () = stopped => {}
    }
    // Not dropped: it sweeps its processes first.
    cancelled.cancel();
    verification.await
}

/// Verifies the commit. `None` if the run was cancelled.
async fn verify_commit(
    run: &VerificationAssignment,
    dir: &VerificationDir,
    supervisor: Identity,
    cancelled: &CancellationToken,
) -> Option<Verification> {
    let tree = run.tree(dir);
    let (repository, worktree, commit) = (run.repository.clone(), tree.clone(), run.commit.clone());
    if let Err(error) = blocking(move || git::verification_tree::make(&repository, &worktree, &commit)).await {
        let why = format!("cannot create a worktree for the verification: {}", with_hints(&error));
        return Some(Verification::CouldNotRun { why });
    }
    crash_point::at(Point::VerificationTreeMade);
    let since = SystemTime::now();
    let inner = run.directory.as_ref().and_then(|inner| folder_within(&tree, inner));
    let (start, log) = (inner.unwrap_or_else(|| tree.clone()), dir.log());
    let mut sockets = run.sockets.clone().map(SocketFolder::make).unwrap_or_default();
    let rules = match rules_of_verification(run, dir, &mut sockets) {
        Ok(rules) => rules,
        Err(error) => return Some(Verification::CouldNotRun { why: with_hints(&error) }),
    };
    let command = ShellCommand {
        command: &run.command,
        directory: &start,
        tag: &run.tag,
        log: &log,
        settings: &run.settings,
        variables: &run.variables,
        sockets: &sockets,
        confine: rules.as_ref(),
    };
    let not_set_up = set_up(run, &tree, dir.state(), &command, cancelled).await;
    let before = state(run, &tree).await;
    let result = match not_set_up {
        Some(why) => Some(Verification::CouldNotRun { why }),
        None => verify(&command, Some(run.commit.clone()), cancelled.cancelled()).await,
    };
    let allowlist = run.settings.daemons_left(rules.is_some());
    let places = sockets.paths().map(Path::to_owned).chain([tree.clone()]).collect();
    let private = WorkerPlaces { places, since: Some(since) };
    let scope =
        ProcessScope { tag: run.tag.clone(), roots: vec![supervisor], allowlist, private, ..ProcessScope::default() };
    process::sweep(&scope, SWEEP_GRACE).await;
    match result {
        Some(passed @ Verification::Passed { .. }) => {
            Some(passed_if_unchanged(passed, before, state(run, &tree).await))
        }
        result => result.map(|result| with_refused_writes(result, rules.as_ref(), &tree, run)),
    }
}

/// Adds to the output of a failed command what the confinement refused, and which setting allows it.
fn with_refused_writes(
    mut result: Verification,
    rules: Option<&WriteRules>,
    tree: &Path,
    run: &VerificationAssignment,
) -> Verification {
    if let Verification::Failed { log_tail, .. } = &mut result {
        let mut refused = RefusedWrites::default();
        refused.record(log_tail, rules);
        for note in refused.notes(tree, run.repository.main_worktree.as_deref()) {
            log_tail.push_str(&format!("\n(orchestrator-boss: {note})"));
        }
    }
    result
}

/// Copies ignored paths into the worktree and runs the setup. Returns the error message if the setup failed.
async fn set_up(
    run: &VerificationAssignment,
    tree: &Path,
    state: &Path,
    verify_command: &ShellCommand<'_>,
    cancelled: &CancellationToken,
) -> Option<String> {
    if !run.seed.is_empty() {
        let (repository, worktree, paths) = (run.repository.clone(), tree.to_owned(), run.seed.clone());
        let limit = run.settings.seed_limit();
        match blocking(move || git::seed(&repository, &worktree, &paths, limit)).await {
            Ok(seeded) if seeded.left_out.is_empty() => {}
            Ok(seeded) => {
                tracing::warn!(left_out = ?seeded.left_out, "cannot copy all seed paths into the worktree of a verification")
            }
            Err(error) => tracing::warn!(%error, "cannot copy folders into the worktree of a verification"),
        }
    }
    if let Some(from) = &run.ignored_of
        && copy_ignored(run, from, tree, state).await
    {
        return None;
    }
    let task = run.setup.as_ref()?;
    let command = ShellCommand { command: &task.command, ..*verify_command };
    let shell::ShellRun { end, log_tail, .. } = shell::run(&command, task.limit(), cancelled.cancelled()).await;
    SetupError::of(task, end).map(|error| error.message(tree, &log_tail))
}

/// Copies the ignored files of another worktree. Returns whether all of them were.
async fn copy_ignored(run: &VerificationAssignment, from: &Path, tree: &Path, state: &Path) -> bool {
    let (repository, from, tree, state) = (run.repository.clone(), from.to_owned(), tree.to_owned(), state.to_owned());
    let limit = run.settings.seed_limit();
    match blocking(move || git::copy_ignored(&repository, &from, &tree, &state, limit)).await {
        Ok(left_out) if left_out.is_empty() => return true,
        Ok(left_out) => tracing::warn!(?left_out, "cannot copy all ignored files for a verification"),
        Err(error) => tracing::warn!(%error, "cannot copy the ignored files for a verification"),
    }
    false
}

async fn lacks(run: &VerificationAssignment, dir: &VerificationDir, verification: &Verification) -> Vec<Missing> {
    let (repository, worktree, verification) = (run.repository.clone(), run.tree(dir), verification.clone());
    blocking(move || missing::missing(&repository, &worktree, &verification)).await
}

async fn state(run: &VerificationAssignment, worktree: &Path) -> Result<String, git::CommandError> {
    let worktree = run.repository.at(worktree);
    blocking(move || git::tracked_state(&worktree)).await
}

/// Returns a token that is cancelled when the system asks this process to end, or when stdin ends because the server
/// ended.
fn cancelled() -> CancellationToken {
    let cancelled = CancellationToken::new();
    let by_stdin = cancelled.clone();
    // A thread, since the runtime would wait at its end for a read that does not return.
    std::thread::spawn(move || {
        let mut byte = [0];
        while matches!(std::io::stdin().read(&mut byte), Ok(1)) {}
        by_stdin.cancel();
    });
    for kind in [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt()] {
        let by_signal = cancelled.clone();
        match signal(kind) {
            Ok(mut signal) => drop(tokio::spawn(async move {
                signal.recv().await;
                by_signal.cancel();
            })),
            Err(error) => tracing::warn!(%error, "cannot handle a signal"),
        }
    }
    cancelled
}
