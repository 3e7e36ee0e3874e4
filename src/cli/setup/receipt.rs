//! What setup made besides the entry itself, so that `--remove` can undo it: without this nobody could tell an empty file
//! or object of the user's from one of ours. It is only ever believed in favour of what the user has: where it says
//! nothing, nothing but the entry goes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use serde::{Deserialize, Serialize};

use crate::files::{self, FileError};

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Receipt {
    version: u32,
    /// By path, as the client names it.
    files: BTreeMap<PathBuf, Made>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Made {
    /// The file was not there.
    pub file: bool,
    /// The folders that were made for it, the outermost first.
    pub folders: Vec<PathBuf>,
    /// It was there, and this blank text was all that was in it.
    pub blank: Option<String>,
    /// The objects and lists that were made in it, the outermost first.
    pub containers: Vec<Vec<String>>,
    /// The rule in it was.
    pub rule: bool,
    /// All of it, when it is ours alone: a skill.
    pub text: Option<String>,
}

impl Receipt {
    /// One that cannot be read says nothing.
    pub fn load() -> Self {
        let path = path();
        path.and_then(|path| files::read_json(&path).ok()?).unwrap_or_default()
    }

    pub fn of(&self, path: &Path) -> Made {
        self.files.get(path).cloned().unwrap_or_default()
    }

    pub fn set(&mut self, path: &Path, made: Made) {
        match made == Made::default() {
            true => self.files.remove(path),
            false => self.files.insert(path.to_owned(), made),
        };
    }

    pub fn save(&mut self) -> Result<(), FileError> {
        self.version = 1;
        let Some(path) = path() else { return Ok(()) };
        if self.files.is_empty() {
            let _ = std::fs::remove_file(&path);
            return Ok(());
        }
        path.parent().map_or(Ok(()), files::make_private_dir)?;
        files::replace_json(&path, self, true)
    }
}

/// `~/.local/state/orchestrator-boss/setup.json`, or below `XDG_STATE_HOME`; on macOS too.
fn path() -> Option<PathBuf> {
    let state = etcetera::base_strategy::Xdg::new().ok()?.state_dir()?;
    Some(state.join("orchestrator-boss").join("setup.json"))
}
