//! The fast path: whoever connects hears every change of status, and can say that there is something in the inbox.
//! Nothing depends on it but speed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, watch};

use super::assignment::{FromSupervisor, LiveStatus};

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
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, status.clone(), Arc::clone(&knocked)));
    }
}

/// One connection. A listener that reads slowly gets the newest status, not every one.
async fn serve(stream: UnixStream, mut status: watch::Receiver<LiveStatus>, knocked: Arc<Notify>) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    status.mark_changed();
    loop {
        tokio::select! {
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
