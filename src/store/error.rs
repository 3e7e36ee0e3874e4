//! Errors of the journal and the history.

use std::path::PathBuf;

use thiserror::Error;

use crate::files::FileError;
use crate::mission::entry::FORMAT;
use crate::mission::hint::{Hint, Hinted};

#[derive(Debug, Error)]
pub enum JournalError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot read {}: a newer version of orchestrator-boss wrote it (format {found}; this one knows {FORMAT})", path.display())]
    Newer { path: PathBuf, found: u32 },
    #[error("cannot use {}: an earlier version of orchestrator-boss wrote it (format {found}; this one knows {FORMAT})", path.display())]
    Former { path: PathBuf, found: u32 },
    #[error("cannot set aside {}: an earlier version of orchestrator-boss (format {found}) still uses it: {by}", path.display())]
    FormerInUse { path: PathBuf, found: u32, by: String },
    #[error("cannot read {}: it is damaged: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("cannot use {}: it was removed or replaced while this server ran; this change was not saved", path.display())]
    Removed { path: PathBuf },
}

impl Hinted for JournalError {
    fn hints(&self) -> Vec<Hint> {
        let elsewhere = || Hint::to("choose another --state-dir");
        match self {
            Self::File(error) => error.hints(),
            Self::Newer { .. } => vec![Hint::to("use that version"), elsewhere()],
            Self::Former { .. } => {
                vec![Hint::to("start your agent there, whose server sets it aside"), elsewhere()]
            }
            Self::FormerInUse { .. } => vec![Hint::to("end them"), elsewhere()],
            Self::Removed { .. } => {
                vec![Hint::to("restart the server, which rebuilds the journal from the workers' folders")]
            }
            Self::Damaged { .. } => Vec::new(),
        }
    }
}
