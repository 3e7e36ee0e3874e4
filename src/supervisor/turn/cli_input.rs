//! The stdin of a running CLI: the prompt, messages to a CLI that reads them while it works, and answers to its
//! requests. One task writes all of it in order, since a CLI that does not read must not block the event loop.

use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::process::ChildStdin;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::backend::PromptInput;

/// Maximum time for a write to a CLI. If it does not read, the message is delivered later.
const WRITE_CEILING: Duration = Duration::from_secs(5);
/// Maximum number of lines that wait for the CLI to read them. An agent that asks without reading the answers reaches
/// it.
const WAITING_LINES: usize = 1024;

/// The stdin of a CLI; closed once this is dropped and the waiting lines are written.
pub(super) struct CliInput {
    /// `None` once it is closed.
    lines: Option<mpsc::Sender<InputLine>>,
}

struct InputLine {
    text: String,
    /// Notified once the line is written. If the receiver has gone before that, the line is not written.
    written: Option<oneshot::Sender<()>>,
}

impl CliInput {
    pub fn new(stdin: Option<ChildStdin>, prompt: &PromptInput) -> Self {
        let Some(stdin) = stdin else { return Self { lines: None } };
        match prompt {
            PromptInput::Once(text) => {
                let (_, none) = mpsc::channel(1);
                tokio::spawn(write_lines(stdin, text.clone(), none));
                Self { lines: None }
            }
            PromptInput::KeepOpen(text) => {
                let (sender, lines) = mpsc::channel(WAITING_LINES);
                tokio::spawn(write_lines(stdin, text.clone(), lines));
                Self { lines: Some(sender) }
            }
        }
    }

    /// Writes a message. Returns false if the CLI does not accept it in time, or not any more: then it is not written
    /// later.
    pub async fn write(&mut self, frame: &str) -> bool {
        let Some(lines) = &self.lines else { return false };
        let (sender, written) = oneshot::channel();
        let line = InputLine { text: frame.to_owned(), written: Some(sender) };
        lines.try_send(line).is_ok() && matches!(timeout(WRITE_CEILING, written).await, Ok(Ok(())))
    }

    /// Leaves a line to the writing task. Returns false if too many lines wait.
    pub fn enqueue(&mut self, line: String) -> bool {
        let Some(lines) = &self.lines else { return true };
        // A CLI that has ended gets no answer. Its exit is handled by the event loop.
        !matches!(lines.try_send(InputLine { text: line, written: None }), Err(mpsc::error::TrySendError::Full(_)))
    }

    pub fn is_open(&self) -> bool {
        self.lines.as_ref().is_some_and(|lines| !lines.is_closed())
    }

    /// Closes stdin behind the waiting lines. An idle CLI exits, and a busy one exits after its turn.
    pub fn close(&mut self) {
        self.lines = None;
    }
}

/// Writes the prompt and then the lines, and closes stdin.
async fn write_lines(mut stdin: impl AsyncWrite + Unpin, prompt: String, mut lines: mpsc::Receiver<InputLine>) {
    // A CLI that ends without reading closes the pipe. Its exit is handled by the event loop.
    if write(&mut stdin, &prompt).await.is_err() {
        return;
    }
    while let Some(line) = lines.recv().await {
        if line.written.as_ref().is_some_and(oneshot::Sender::is_closed) {
            continue;
        }
        if write(&mut stdin, &line.text).await.is_err() {
            return;
        }
        if let Some(written) = line.written {
            let _ = written.send(());
        }
    }
}

async fn write(stdin: &mut (impl AsyncWrite + Unpin), text: &str) -> std::io::Result<()> {
    stdin.write_all(text.as_bytes()).await?;
    stdin.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn line_given_up_is_not_written_later() {
        let (ours, mut theirs) = tokio::io::duplex(4);
        let (sender, lines) = mpsc::channel(8);
        let writer = tokio::spawn(write_lines(ours, "prompt\n".to_owned(), lines));
        let (written, waits) = oneshot::channel();
        drop(waits);
        let line = |text: &str, written| InputLine { text: text.to_owned(), written };
        assert!(sender.send(line("given up\n", Some(written))).await.is_ok());
        assert!(sender.send(line("answer\n", None)).await.is_ok());
        drop(sender);
        let mut read = String::new();
        theirs.read_to_string(&mut read).await.unwrap();
        writer.await.unwrap();
        assert_eq!(read, "prompt\nanswer\n");
    }

    #[tokio::test]
    async fn unread_lines_are_bounded() {
        let (sender, _lines) = mpsc::channel(WAITING_LINES);
        let mut input = CliInput { lines: Some(sender) };
        let taken = (0..2 * WAITING_LINES).take_while(|_| input.enqueue("x\n".to_owned())).count();
        assert_eq!(taken, WAITING_LINES);
    }
}
