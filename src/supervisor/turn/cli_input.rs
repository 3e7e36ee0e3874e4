//! The stdin of a running CLI: the prompt, messages to a CLI that reads them while it works, and answers to its
//! requests. One task writes all of it in order, since a CLI that does not read must not block the event loop.

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::process::ChildStdin;
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::backend::PromptInput;

/// Maximum number of lines that wait for the CLI to read them. An agent that asks without reading the answers reaches
/// it.
const WAITING_LINES: usize = 1024;

/// The stdin of a CLI; closed once this is dropped and the waiting lines are written.
pub(super) struct CliInput {
    /// `None` once it is closed.
    lines: Option<mpsc::Sender<String>>,
}

impl CliInput {
    pub fn new(stdin: Option<ChildStdin>, prompt: &PromptInput) -> Self {
        let Some(stdin) = stdin else { return Self { lines: None } };
        let (sender, lines) = mpsc::channel(WAITING_LINES);
        let (text, lines_follow) = match prompt {
            PromptInput::Once(text) => (text, false),
            PromptInput::KeepOpen(text) => (text, true),
        };
        tokio::spawn(write_lines(stdin, text.clone(), lines));
        Self { lines: lines_follow.then_some(sender) }
    }

    /// Leaves a line to the writing task. Returns false if too many lines wait.
    pub fn enqueue(&mut self, line: String) -> bool {
        let Some(lines) = &self.lines else { return true };
        // A CLI that has ended gets no answer. Its exit is handled by the event loop.
        !matches!(lines.try_send(line), Err(TrySendError::Full(_)))
    }

    pub fn is_open(&self) -> bool {
        self.lines.as_ref().is_some_and(|lines| !lines.is_closed())
    }

    /// Closes stdin behind the waiting lines. An idle CLI exits, and a busy one exits after its turn.
    pub fn close(&mut self) {
        self.lines = None;
    }
}

/// Writes the prompt and then the lines, and closes stdin. A CLI that ends without reading closes the pipe; its exit is
/// handled by the event loop.
async fn write_lines(mut stdin: impl AsyncWrite + Unpin, prompt: String, mut lines: mpsc::Receiver<String>) {
    let mut next = Some(prompt);
    while let Some(line) = next {
        if write(&mut stdin, &line).await.is_err() {
            return;
        }
        next = lines.recv().await;
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
    async fn lines_follow_the_prompt_in_order() {
        let (ours, mut theirs) = tokio::io::duplex(4);
        let (sender, lines) = mpsc::channel(8);
        let writer = tokio::spawn(write_lines(ours, "prompt\n".to_owned(), lines));
        for line in ["one\n", "two\n"] {
            sender.send(line.to_owned()).await.unwrap();
        }
        drop(sender);
        let mut read = String::new();
        theirs.read_to_string(&mut read).await.unwrap();
        writer.await.unwrap();
        assert_eq!(read, "prompt\none\ntwo\n");
    }

    #[tokio::test]
    async fn unread_lines_are_bounded() {
        let (sender, _lines) = mpsc::channel(WAITING_LINES);
        let mut input = CliInput { lines: Some(sender) };
        let taken = (0..2 * WAITING_LINES).take_while(|_| input.enqueue("x\n".to_owned())).count();
        assert_eq!(taken, WAITING_LINES);
    }
}
