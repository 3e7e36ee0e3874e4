//! The stdin of a running CLI: the prompt, and messages to a CLI that reads them while it works.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::backend::PromptInput;

/// Maximum time for a write to a CLI. If it does not read, the message is delivered later.
const WRITE_CEILING: Duration = Duration::from_secs(5);

pub(super) enum CliInput {
    Closed,
    Open(ChildStdin),
    /// The prompt is being written. The receiver gets stdin afterwards.
    Writing(oneshot::Receiver<ChildStdin>),
}

impl CliInput {
    /// Writes the prompt in a task of its own, since a CLI that does not read must not block the event loop.
    pub fn new(stdin: Option<ChildStdin>, prompt: &PromptInput) -> Self {
        let Some(mut stdin) = stdin else { return Self::Closed };
        match prompt {
            PromptInput::Once(text) => {
                let text = text.clone();
                // A CLI that ends without reading closes the pipe. Its exit is handled by the event loop.
                tokio::spawn(async move {
                    let _ = stdin.write_all(text.as_bytes()).await;
                });
                Self::Closed
            }
            PromptInput::KeepOpen(text) => {
                let (text, (sender, receiver)) = (text.clone(), oneshot::channel());
                tokio::spawn(async move {
                    let _ = stdin.write_all(text.as_bytes()).await;
                    let _ = stdin.flush().await;
                    let _ = sender.send(stdin);
                });
                Self::Writing(receiver)
            }
        }
    }

    /// Writes a message. Returns false if the CLI does not accept it, or not any more.
    pub async fn write(&mut self, frame: &str) -> bool {
        if let Self::Writing(receiver) = self {
            // The CLI may not have read its prompt yet, and the event loop cannot wait for that.
            let Ok(stdin) = timeout(WRITE_CEILING, receiver).await else { return false };
            *self = stdin.map_or(Self::Closed, Self::Open);
        }
        let Self::Open(stdin) = self else { return false };
        let write = async { stdin.write_all(frame.as_bytes()).await.and(stdin.flush().await) };
        matches!(timeout(WRITE_CEILING, write).await, Ok(Ok(())))
    }

    pub fn is_open(&self) -> bool {
        !matches!(self, Self::Closed)
    }

    /// Closes stdin. An idle CLI exits, and a busy one exits after its turn.
    pub fn close(&mut self) {
        *self = Self::Closed;
    }
}
