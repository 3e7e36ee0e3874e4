//! Records the processes below the supervisor, so that a server can end them if the supervisor is killed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::files;
use crate::process::{self, ProcessTree};

/// A process that starts and escapes within this time is not recorded. The server that cleans up then reports its
/// containment as `best_effort`.
const INTERVAL: Duration = Duration::from_secs(2);

/// Keeps the record until the task is aborted. The first record is written before anything is started.
pub fn keep(file: PathBuf) -> JoinHandle<()> {
    let mut recorded = record(&file, &ProcessTree::default());
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(INTERVAL).await;
            recorded = record(&file, &recorded);
        }
    })
}

fn record(file: &Path, recorded: &ProcessTree) -> ProcessTree {
    let now = process::tree();
    if now != *recorded
        && let Err(error) = files::replace_json(file, &now, false)
    {
        tracing::warn!(%error, "cannot record the running processes");
    }
    now
}
