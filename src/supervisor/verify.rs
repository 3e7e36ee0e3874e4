//! Running `verify_command` where the work is, and saying what its end proves.
//!
//! The command runs code that a worker wrote, so its environment holds no keys. That it could not run is another thing
//! than that it failed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::assignment::Assignment;
use super::inbox::Inbox;
use super::turn::{end_of, to_exit};
use crate::mission::outcome::{Exit, Verification};
use crate::process::{self, Launch, Signal, TAG_VARIABLE};
use crate::store::worker_dir::AttemptDir;

/// What a shell says when it cannot find, or cannot run, the command.
const NOT_RUN: [i32; 2] = [126, 127];
/// Parts of names of variables that hold secrets.
const SECRET: [&str; 7] = ["KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "COOKIE"];

/// `None`: a cancellation came in, or the system asks us to end, and the command was stopped.
pub async fn verify(
    assignment: &Assignment,
    dir: &AttemptDir,
    command: &str,
    commit: Option<String>,
    inbox: &mut Inbox,
) -> Option<Verification> {
    let began = Instant::now();
    let log = dir.verify_log();
    let log_from = std::fs::metadata(&log).map_or(0, |metadata| metadata.len());
    let mut started = match process::spawn(&launch(assignment, &log, command)) {
        Ok(started) => started,
        Err(error) => return Some(Verification::CouldNotRun { why: error.to_string() }),
    };
    let limit = Duration::from_secs(60) * assignment.settings.verify_timeout_minutes;
    let bell = inbox.bell();
    let exit = loop {
        tokio::select! {
            exit = started.child.wait() => break exit.ok().map(to_exit),
            () = tokio::time::sleep_until(began + limit) => break None,
            () = Inbox::knock(&bell) => {
                for message in inbox.look() {
                    inbox.keep(message);
                }
                if inbox.is_over() {
                    stop(&mut started).await;
                    return None;
                }
            }
        }
    };
    let seconds = began.elapsed().as_secs_f64();
    let log_tail = end_of(&log, log_from);
    Some(match exit {
        Some(Exit::Code(0)) => Verification::Passed { commit, seconds },
        Some(Exit::Code(code)) if NOT_RUN.contains(&code) => Verification::CouldNotRun { why: log_tail },
        Some(Exit::Signal(signal)) => {
            Verification::CouldNotRun { why: format!("it was ended by signal {signal}\n{log_tail}") }
        }
        Some(exit) => Verification::Failed { commit, exit, log_tail, seconds },
        None => {
            stop(&mut started).await;
            Verification::TimedOut { seconds, log_tail }
        }
    })
}

/// The shell; what it has started is swept afterwards.
async fn stop(started: &mut process::Started) {
    process::send(&started.identity, Signal::Kill);
    let _ = tokio::time::timeout(Duration::from_secs(5), started.child.wait()).await;
}

fn launch(assignment: &Assignment, log: &Path, command: &str) -> Launch {
    let tag = (TAG_VARIABLE.to_owned(), assignment.tag.clone().into());
    Launch {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), command.into()],
        cwd: assignment.directory.clone(),
        env_set: BTreeMap::from([tag]),
        env_remove: std::env::vars_os()
            .filter_map(|(name, _)| name.into_string().ok())
            .filter(|name| is_secret(name) || crate::backend::is_the_bosses(name))
            .collect(),
        stdin: process::Stdin::Null,
        stdout: log.to_owned(),
        stderr: log.to_owned(),
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    SECRET.iter().any(|part| name.contains(part))
}
