//! Copies the output of a program from a pipe to a file, for programs that print to nothing but a pipe. Programs that
//! can print to the file do so: their output survives this process.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::ChildStdout;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::mission::hint::{Hint, Hinted};

const CHUNK: usize = 64 * 1024;

/// A running copy. It ends with the last process that holds the pipe. Dropping it closes the pipe.
#[derive(Debug)]
pub struct OutputCopy {
    /// `None` once its end was observed.
    task: Option<JoinHandle<Result<(), OutputCopyError>>>,
}

/// The reason why the output could not be written completely. The pipe is closed then, as if the program had met the
/// error itself.
#[derive(Debug, thiserror::Error)]
pub enum OutputCopyError {
    #[error("cannot write {path}: no space left on the device")]
    NoSpace { path: PathBuf },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read the output for {path}")]
    Read { path: PathBuf, source: io::Error },
}

impl Hinted for OutputCopyError {
    fn hints(&self) -> Vec<Hint> {
        match self {
            Self::NoSpace { .. } => vec![Hint::to("free some space and try again")],
            Self::Write { .. } | Self::Read { .. } => Vec::new(),
        }
    }
}

impl OutputCopy {
    /// Starts the copy to the end of this file. Must be called on a tokio runtime.
    pub(super) fn start(from: ChildStdout, to: File, path: PathBuf) -> Self {
        Self { task: Some(tokio::spawn(copy(from, to, path))) }
    }

    /// Waits until all is copied. To be called after the program ended. Gives up after `most`, since a daemon that the
    /// program started may keep the pipe open. Later calls return `Ok`.
    pub async fn finish(&mut self, most: Duration) -> Result<(), OutputCopyError> {
        let Some(mut task) = self.task.take() else { return Ok(()) };
        match timeout(most, &mut task).await {
            Ok(Ok(copied)) => copied,
            // It was aborted, with the runtime.
            Ok(Err(_)) => Ok(()),
            Err(_) => {
                task.abort();
                Ok(())
            }
        }
    }
}

impl Drop for OutputCopy {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn copy(mut from: ChildStdout, mut to: File, path: PathBuf) -> Result<(), OutputCopyError> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = match from.read(&mut chunk).await {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(source) => return Err(OutputCopyError::Read { path, source }),
        };
        // Appending to a file of this machine does not block for long, as in the log of events.
        if let Err(source) = to.write_all(&chunk[..count]) {
            return Err(match source.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => OutputCopyError::NoSpace { path },
                _ => OutputCopyError::Write { path, source },
            });
        }
    }
}
