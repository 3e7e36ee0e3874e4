//! The fast path: whoever connects hears every change of status, and can say that there is something in the inbox.
//! Nothing depends on it but speed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, watch};

use crate::attempt::status::{FromSupervisor, LiveStatus};

/// An accept that failed fails again at once, until somebody closes a file.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// Bound until dropped.
pub struct Socket {
    path: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl Socket {
    /// `knocked` is notified whenever a server says that it has posted something.
    pub fn bind(path: &Path, status: watch::Receiver<LiveStatus>, knocked: Arc<Notify>) -> std::io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        let task = tokio::spawn(accept(listener, status, knocked));
        Ok(Self { path: path.to_owned(), task })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn accept(listener: UnixListener, status: watch::Receiver<LiveStatus>, knocked: Arc<Notify>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve(stream, status.clone(), Arc::clone(&knocked)))),
            // Too many open files, mostly: whoever knocks waits in the socket's queue until there is room.
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// One connection. A listener that reads slowly gets the newest status, not every one.
async fn serve(stream: UnixStream, mut status: watch::Receiver<LiveStatus>, knocked: Arc<Notify>) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    status.mark_changed();
    loop {
        tokio::select! {
            // What was said counts even if whoever said it has gone already, and cannot be written to.
            biased;
            line = lines.next_line() => match line {
                // Whatever it says, it can only mean: look.
                Ok(Some(_)) => knocked.notify_one(),
                _ => return,
            },
            changed = status.changed() => {
                if changed.is_err() {
                    return;
                }
                let message = FromSupervisor::Status { status: Box::new(status.borrow_and_update().clone()) };
                let Ok(mut line) = serde_json::to_vec(&message) else { return };
                line.push(b'\n');
                if write.write_all(&line).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::attempt::worker_dir::AttemptDir;
    use crate::process::Identity;
    use crate::supervisor::board::Board;

    #[tokio::test]
    async fn a_knock_counts_although_whoever_knocked_has_gone() {
        let folder = tempfile::tempdir().unwrap();
        let board = Board::new(&AttemptDir::at(folder.path().to_owned()), Identity::own().unwrap()).unwrap();
        let knocked = Arc::new(Notify::new());
        let path = folder.path().join("s");
        let _socket = Socket::bind(&path, board.listen(), Arc::clone(&knocked)).unwrap();
        for knock in 0..50 {
            let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
            stream.write_all(b"{\"ask\":\"look\"}\n").unwrap();
            drop(stream);
            let heard = tokio::time::timeout(Duration::from_secs(60), knocked.notified()).await;
            assert!(heard.is_ok(), "knock {knock} was not heard");
        }
    }
}
