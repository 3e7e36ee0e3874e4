//! The bytes of one file, as they are; on a terminal without what would move it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use crate::cli::changes::Changes;
use crate::cli::out::{self, End};
use crate::cli::terminal;
use crate::store::lease;
use crate::store::worker_dir::AttemptDir;

const CHUNK: usize = 64 * 1024;

/// To its end; with `changes`, until the attempt has settled.
pub(super) async fn show(path: &Path, attempt: &AttemptDir, changes: Option<&Changes>) -> Result<(), End> {
    let mut file = None;
    let mut chunk = vec![0; CHUNK];
    loop {
        // Looked at before reading: what is written after it settled is not waited for.
        let is_over = attempt.outcome_path().exists() || (file.is_some() && !lease::is_held(&attempt.lock()));
        if file.is_none() {
            file = open(path)?;
        }
        if let Some(file) = &mut file {
            copy(file, &mut chunk).await?;
        }
        match changes {
            Some(changes) if !is_over => changes.next().await,
            _ => return Ok(()),
        }
    }
}

fn open(path: &Path) -> Result<Option<File>, End> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(End::Failed(format!("could not read {}: {error}", path.display()))),
    }
}

async fn copy(file: &mut File, chunk: &mut [u8]) -> Result<(), End> {
    loop {
        let count = file.read(chunk).map_err(|error| End::Failed(format!("could not read the log: {error}")))?;
        if count == 0 {
            return io::stdout().flush().map_err(out::closed);
        }
        let bytes = &chunk[..count];
        let written = match terminal::is_terminal() {
            true => io::stdout().write_all(out::harmless(&String::from_utf8_lossy(bytes)).as_bytes()),
            false => io::stdout().write_all(bytes),
        };
        written.map_err(out::closed)?;
        tokio::task::yield_now().await;
    }
}
