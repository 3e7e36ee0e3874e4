//! The supervisor of one attempt: it claims the attempt, sets up the worktree, runs one turn after another, and writes
//! the outcome. See `setup` for the setup, `turn` for one turn, and `finish` for the steps at the end of an attempt,
//! whose order makes the record correct.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::SignalKind;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::attempt::{LiveAttempt, TurnEnd};
use super::blocking::blocking;
use super::confinement_decision::Deciding;
use super::finish::Finished;
use super::isolation::SocketFolder;
use super::job;
use super::presence;
use super::process_record;
use super::socket::Socket;
use super::startup::{SupervisorError, report_ready, run_process, separate_from_server, take_lease};
use crate::attempt::assignment::Assignment;
use crate::attempt::secrets::Secrets;
use crate::attempt::sockets;
use crate::attempt::status::LiveStatus;
use crate::attempt::worker_dir::AttemptDir;
use crate::backend::Backends;
use crate::crash_point::{self, Point};
use crate::files;
use crate::mission::outcome::Outcome;
use crate::mission::question::Question;
use crate::process;

/// Time for which writing an outcome is retried.
const SETTLE_CEILING: Duration = Duration::from_secs(3_600);

/// A reason to notify the user while no server runs.
#[derive(Debug, Clone)]
pub enum Alert {
    /// The first stall, with its evidence.
    Stalled(String),
    Asked(Question),
}

/// Runs the process of an attempt's supervisor. `on_alert` is called with the attempt's folder.
pub fn run(root: &Path, on_alert: fn(&Path, &Alert)) -> ExitCode {
    run_process(supervise(root, Mode::Detached(on_alert)))
}

/// Runs the process of an attempt's supervisor as the batch process of a cluster's job.
pub fn run_job(root: &Path) -> ExitCode {
    run_process(async {
        match supervise(root, Mode::Job).await {
            // The cluster has started the job again, or the worker was cancelled before it began.
            Err(SupervisorError::Claimed) => {
                tracing::warn!("nothing to do: the attempt has run, runs in another job, or was cancelled");
                Ok(())
            }
            ended => ended,
        }
    })
}

/// The way in which the process of a supervisor was started.
#[derive(Clone, Copy)]
enum Mode {
    /// By a server on this host, which it outlives. The function notifies the user.
    Detached(fn(&Path, &Alert)),
    /// By a cluster, on one of its nodes.
    Job,
}

/// Runs the attempt in this folder until its outcome. Reports that it is ready when it has claimed the attempt.
async fn supervise(root: &Path, mode: Mode) -> Result<(), SupervisorError> {
    let dir = AttemptDir::at(root.to_owned());
    let mut assignment: Assignment = files::read_json(&dir.assignment())?
        .ok_or_else(|| SupervisorError::NoAssignment(root.display().to_string()))?;
    let _lease = match mode {
        Mode::Detached(_) => {
            separate_from_server()?;
            Some(take_lease(&dir.lock()).await?)
        }
        Mode::Job => {
            // Locks may not hold between two hosts. The claim alone decides.
            job::take_over_environment(dir.root())?;
            process::become_subreaper()?;
            job::place_sockets(&mut assignment)?;
            None
        }
    };
    Secrets::inherited().restore(&mut assignment.settings);
    let backends = Backends::with_custom(assignment.settings.custom.clone());
    let mut attempt = LiveAttempt::new(assignment, dir, &backends)?;
    attempt.begin_confinement();
    attempt.dir.reserve_outcome()?;
    // After everything that can fail: an attempt without a claim never began, and the server reports why.
    if !attempt.dir.take_claim()? {
        return Err(SupervisorError::Claimed);
    }
    attempt.deciding.as_mut().map(Deciding::set_claimed);
    attempt.sockets = SocketFolder::make(sockets::folder_beside(&attempt.assignment.socket));
    crash_point::at(Point::Claimed);
    job::forget_environment(attempt.dir.root());
    attempt.status.publish();
    for kind in [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt()] {
        if let Err(error) = attempt.inbox.stop_on_signal(kind) {
            tracing::warn!(%error, "cannot handle a signal: it would end the supervisor without an outcome");
        }
    }
    let (background, socket) = match mode {
        Mode::Detached(on_alert) => be_followed_here(&attempt, on_alert),
        Mode::Job => (be_followed_by_files(&attempt), None),
    };
    let presence = match mode {
        Mode::Detached(_) => presence::keep(&attempt),
        Mode::Job => None,
    };
    let outcome = run_turns(&mut attempt).await;
    let outcome = outcome.filter(|_| !attempt.is_revoked()).ok_or(SupervisorError::Revoked)?;
    let dir = settle(&attempt, outcome).await?;
    // The heartbeat goes on until here: a full disk may have delayed the record for a long time, and the attempt must
    // not count as lost meanwhile.
    background.iter().for_each(JoinHandle::abort);
    if matches!(mode, Mode::Job) {
        dir.free_reserve();
        attempt.status.set_settled();
    }
    crash_point::at(Point::Settled);
    if let Some(presence) = presence {
        presence.abort();
        let _ = presence.await;
    }
    // A closed connection tells the server of the end. What can take long comes after it.
    let temporary = attempt.sockets.take_temporary();
    drop((attempt, socket));
    tokio::task::yield_now().await;
    drop(temporary);
    dir.free_reserve();
    Ok(())
}

/// Begins what lets a server on this host follow the attempt, and clean up if this process dies. Notifies the user of
/// alerts while no server runs.
fn be_followed_here(
    attempt: &LiveAttempt,
    on_alert: fn(&Path, &Alert),
) -> (Vec<JoinHandle<()>>, Option<std::io::Result<Socket>>) {
    let socket = Socket::bind(&attempt.assignment.socket, attempt.status.subscribe(), attempt.inbox.notifier());
    if let Err(error) = &socket {
        tracing::warn!(%error, "cannot open the socket: servers poll the files");
    }
    let root = attempt.dir.root().to_owned();
    let alerts = tokio::spawn(report_alerts(attempt.status.subscribe(), root, on_alert));
    let process_record = process_record::keep(attempt.dir.processes());
    report_ready();
    crash_point::at(Point::SaidReady);
    (vec![alerts, process_record], Some(socket))
}

/// Begins what lets a server on another host follow the attempt. The cluster ends the processes of a supervisor that
/// dies, so they are not recorded. No alerts are reported, since a node cannot find out whether a server runs that
/// reports them.
fn be_followed_by_files(attempt: &LiveAttempt) -> Vec<JoinHandle<()>> {
    vec![job::keep_alive(attempt.dir.clone(), attempt.status.subscribe())]
}

/// Reports the first stall and each question, in threads of their own, so that the event loop goes on.
async fn report_alerts(mut status: watch::Receiver<LiveStatus>, root: PathBuf, on_alert: fn(&Path, &Alert)) {
    let (mut has_stalled, mut asked) = (false, Vec::new());
    loop {
        let mut alerts = Vec::new();
        {
            let status = status.borrow_and_update();
            let evidence = status.stalled.clone().filter(|_| !has_stalled);
            has_stalled |= evidence.is_some();
            alerts.extend(evidence.map(Alert::Stalled));
            let open = status.questions.iter().map(|open| &open.question);
            alerts.extend(open.filter(|question| !asked.contains(&question.id)).cloned().map(Alert::Asked));
            asked = status.questions.iter().map(|open| open.question.id.clone()).collect();
        }
        for alert in alerts {
            let root = root.clone();
            blocking(move || on_alert(&root, &alert)).await;
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}

/// Returns the outcome. `None` if a server has revoked the claim.
async fn run_turns(attempt: &mut LiveAttempt) -> Option<Outcome> {
    let mut next = match get_ready(attempt).await {
        Ok(()) => attempt.first_turn(),
        Err(end) => match attempt.finish(&end).await {
            Finished::Settled(outcome) => return Some(*outcome),
            Finished::NextTurn(input) => input,
            Finished::Revoked => return None,
        },
    };
    loop {
        let end = attempt.turn(next).await;
        attempt.record_turn(&end);
        if let Some(input) = attempt.next_turn(&end) {
            next = input;
            continue;
        }
        match attempt.finish(&end).await {
            Finished::Settled(outcome) => return Some(*outcome),
            Finished::Revoked => return None,
            // A message that arrives while the attempt ends is not lost: the attempt continues.
            Finished::NextTurn(input) => next = input,
        }
    }
}

/// Does what precedes the first turn. `Err`: the end of an attempt that has none.
async fn get_ready(attempt: &mut LiveAttempt) -> Result<(), Box<TurnEnd>> {
    attempt.check_node()?;
    attempt.confine().await?;
    attempt.set_up().await.map_err(Box::new)?;
    attempt.refuse_if_stopped()
}

/// Writes the outcome, and returns the folder that has it. If the disk is full beyond the reserved room, the texts are
/// cut and writing is retried.
async fn settle(attempt: &LiveAttempt, mut outcome: Outcome) -> Result<AttemptDir, SupervisorError> {
    let began = Instant::now();
    let moved = attempt.moved_to();
    let dir = moved.unwrap_or_else(|| attempt.dir.clone());
    while let Err(error) = dir.record_outcome(&outcome) {
        tracing::error!(%error, "cannot write the outcome");
        if began.elapsed() > SETTLE_CEILING || !dir.is_still_claimed() {
            return Err(error.into());
        }
        outcome.cut_texts();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(dir)
}
