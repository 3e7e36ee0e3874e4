//! Writes down what runs below the supervisor, for whoever has to end it should the supervisor be killed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::files;
use crate::process::{self, Tree};

/// What is born and escapes within this is not known to a successor, who then says that its proof is `best_effort`.
const EVERY: Duration = Duration::from_secs(2);

/// Until it is aborted; first before anything is started.
pub fn keep(file: PathBuf) -> JoinHandle<()> {
    let mut known = write_down(&file, &Tree::default());
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(EVERY).await;
            known = write_down(&file, &known);
        }
    })
}

fn write_down(file: &Path, known: &Tree) -> Tree {
    let now = process::tree();
    if now != *known
        && let Err(error) = files::replace_json(file, &now, false)
    {
        tracing::warn!(%error, "could not write down which processes run");
    }
    now
}
