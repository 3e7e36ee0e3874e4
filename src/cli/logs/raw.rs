//! The bytes of one file, as they are; on a terminal without what would move it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use crate::cli::harmless::Harmless;
use crate::cli::out::{self, End};
use crate::cli::terminal;

const CHUNK: usize = 64 * 1024;

pub(super) struct Raw {
    path: PathBuf,
    file: Option<File>,
    out: Box<dyn Write>,
}

impl Raw {
    pub fn new(path: PathBuf) -> Self {
        let out: Box<dyn Write> = match terminal::is_terminal() {
            true => Box::new(Harmless::new(io::stdout(), false)),
            false => Box::new(io::stdout()),
        };
        Self { path, file: None, out }
    }

    /// Whether there was anything to read from yet.
    pub fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// All that is there and was not shown yet.
    pub async fn show(&mut self) -> Result<(), End> {
        if self.file.is_none() {
            self.file = self.open()?;
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = file.read(&mut chunk).map_err(|error| cannot_read(&self.path, &error))?;
            if count == 0 {
                return self.out.flush().map_err(out::closed);
            }
            self.out.write_all(&chunk[..count]).map_err(out::closed)?;
            tokio::task::yield_now().await;
        }
    }

    fn open(&self) -> Result<Option<File>, End> {
        match File::open(&self.path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(cannot_read(&self.path, &error)),
        }
    }
}

fn cannot_read(path: &std::path::Path, error: &io::Error) -> End {
    End::Failed(format!("could not read {}: {error}", path.display()))
}
