//! The supervisor's socket: it sends every change of status to its clients, and a client can wake the supervisor after
//! posting to the inbox. Only speed depends on it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, watch};

use crate::attempt::status::{FromSupervisor, LiveStatus};

/// Pause after a failed accept, which would fail again at once until a file is closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A bound socket. Dropping it removes the socket.
pub struct Socket {
    path: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl Socket {
    /// Binds the socket. `notifier` is notified whenever a client sends a line.
    pub fn bind(path: &Path, status: watch::Receiver<LiveStatus>, notifier: Arc<Notify>) -> std::io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        let task = tokio::spawn(accept(listener, status, notifier));
        Ok(Self { path: path.to_owned(), task })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn accept(listener: UnixListener, status: watch::Receiver<LiveStatus>, notifier: Arc<Notify>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve(stream, status.clone(), Arc::clone(&notifier)))),
            // Usually too many open files. Clients wait in the queue of the socket.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection. A client that reads slowly gets the newest status, not every one.
async fn serve(stream: UnixStream, mut status: watch::Receiver<LiveStatus>, notifier: Arc<Notify>) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    status.mark_changed();
    loop {
        tokio::select! {
            // A line counts even if its client has disconnected and cannot be written to.
            biased;
            line = lines.next_line() => match line {
                // The content of the line does not matter.
                Ok(Some(_)) => notifier.notify_one(),
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
    use crate::supervisor::status_publisher::StatusPublisher;

    #[tokio::test]
    async fn wake_counts_after_client_disconnected() {
        let folder = tempfile::tempdir().unwrap();
        let status = StatusPublisher::new(&AttemptDir::at(folder.path().to_owned()), Identity::own().unwrap()).unwrap();
        let notifier = Arc::new(Notify::new());
        let path = folder.path().join("s");
        let _socket = Socket::bind(&path, status.subscribe(), Arc::clone(&notifier)).unwrap();
        for wake in 0..50 {
            let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
            stream.write_all(b"{\"request\":\"wake\"}\n").unwrap();
            drop(stream);
            let woken = tokio::time::timeout(Duration::from_secs(60), notifier.notified()).await;
            assert!(woken.is_ok(), "wake {wake} was lost");
        }
    }
}
