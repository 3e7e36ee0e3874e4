//! Prints the bytes of one file. On a terminal, control sequences are removed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use crate::cli::error::CliError;
use crate::cli::sanitize::Sanitizer;
use crate::cli::terminal;

const CHUNK: usize = 64 * 1024;

pub(super) struct RawOutput {
    path: PathBuf,
    file: Option<File>,
    out: Box<dyn Write>,
}

impl RawOutput {
    pub fn new(path: PathBuf) -> Self {
        let out: Box<dyn Write> = if terminal::is_terminal() {
            Box::new(Sanitizer::new(io::stdout(), false))
        } else {
            Box::new(io::stdout())
        };
        Self { path, file: None, out }
    }

    /// Returns whether the file existed at the last read.
    pub fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// Prints everything that was added since the last call.
    pub async fn show(&mut self) -> Result<(), CliError> {
        if self.file.is_none() {
            self.file = self.open()?;
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = file.read(&mut chunk).map_err(|error| cannot_read(&self.path, &error))?;
            if count == 0 {
                return self.out.flush().map_err(CliError::from);
            }
            self.out.write_all(&chunk[..count]).map_err(CliError::from)?;
            tokio::task::yield_now().await;
        }
    }

    fn open(&self) -> Result<Option<File>, CliError> {
        match File::open(&self.path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(cannot_read(&self.path, &error)),
        }
    }
}

fn cannot_read(path: &std::path::Path, error: &io::Error) -> CliError {
    CliError::Failed(format!("cannot read {}: {error}", path.display()))
}
