//! Shows other hosts that a worker runs on this one: see [`crate::attempt::servers`].

use std::time::Duration;

use tokio::task::JoinHandle;

use super::attempt::LiveAttempt;
use crate::attempt::servers::Servers;

const INTERVAL: Duration = Duration::from_secs(2);

/// Announces the supervisor until the task is aborted. `None` where no other host can see it.
pub fn keep(attempt: &LiveAttempt) -> Option<JoinHandle<()>> {
    let servers = Servers::of(attempt.dir.state_dir().root());
    let announced = servers.announce_supervisor(&attempt.assignment.worker_id, attempt.assignment.attempt);
    let warn = |error: &_| tracing::warn!(%error, "cannot show other hosts that this worker runs");
    let (mut heartbeat, lease) = announced.inspect_err(warn).ok()??;
    Some(tokio::spawn(async move {
        let _lease = lease;
        loop {
            tokio::time::sleep(INTERVAL).await;
            // The result is not needed: a server that gives up this supervisor also revokes its claim.
            heartbeat.keep();
        }
    }))
}
