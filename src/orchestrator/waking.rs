//! Wakes bosses that have ended their turn: runs the command of the client that passes a pointer to their thread. Only
//! Codex has such a command. `mission/wake.rs` decides when it runs. The actor records each run, and never waits for one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::mpsc;

use super::context::Context;
use super::mailbox::Ask;
use crate::backend;
use crate::config::{Settings, Wake};
use crate::mission::causes::with_causes;
use crate::mission::id::ThreadId;
use crate::process;

/// The client's program, as a user would start it.
const PROGRAM: &str = "codex";
/// Time limit of one run, which usually takes less than a second.
const RUN_LIMIT: Duration = Duration::from_secs(10);
/// Maximum number of ancestors among which the daemon is searched for.
const ANCESTORS: usize = 8;

/// The reason why this server can wake no thread of its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NotWoken {
    #[error("the setting wake is off")]
    Off,
    #[error("Codex runs without its app-server daemon")]
    NoDaemon,
    #[error("codex is not on the PATH")]
    NoProgram,
}

/// Checks whether a pointer from this server would be delivered. Without the daemon, the command succeeds too, but the
/// message does not reach the open terminal.
pub(super) fn check(settings: &Settings) -> Result<(), NotWoken> {
    if settings.wake == Wake::Off {
        return Err(NotWoken::Off);
    }
    if !backend::is_below_daemon(&process::ancestors(ANCESTORS)) {
        return Err(NotWoken::NoDaemon);
    }
    which::which(PROGRAM).map(drop).map_err(|_| NotWoken::NoProgram)
}

/// Runs the command once, and reports its result to the actor.
pub(super) async fn send(
    context: Arc<Context>,
    mailbox: mpsc::UnboundedSender<Ask>,
    thread: ThreadId,
    pointer: String,
) {
    let program = which::which(PROGRAM).unwrap_or_else(|_| PathBuf::from(PROGRAM));
    let failure = run(&program, &context.directory, &thread, &pointer).await;
    if let Some(why) = &failure {
        tracing::warn!(%thread, why, "cannot wake a boss");
    }
    // A server that shuts down has no mailbox any more. The next one repeats the run.
    let _ = mailbox.send(Ask::Woke { thread, failure });
}

async fn run(program: &Path, directory: &Path, thread: &ThreadId, pointer: &str) -> Option<String> {
    let arguments = backend::queue_arguments(thread.as_str(), pointer);
    let ran = process::run_program(program, &arguments, directory, RUN_LIMIT).await;
    ran.err().map(|why| format!("{PROGRAM} queue: {}", with_causes(&why)))
}
