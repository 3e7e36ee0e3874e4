//! Records the parts that setup created besides the entry, so that `--remove` can tell an empty file or object of the
//! user's from one of ours. Without a record, `--remove` only removes the entry.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use serde::{Deserialize, Serialize};

use crate::files::{self, FileError};

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Manifest {
    version: u32,
    /// The created parts by path, as the client names it.
    files: BTreeMap<PathBuf, CreatedParts>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CreatedParts {
    /// True if the file did not exist.
    pub file: bool,
    /// The folders that were created for the file, the outermost first.
    pub folders: Vec<PathBuf>,
    /// The blank text of a file that had no other content.
    pub blank: Option<String>,
    /// The objects and lists that were created in the file, the outermost first.
    pub containers: Vec<Vec<String>>,
    /// The rules that were added to the file.
    pub rules: Vec<String>,
    /// True if version 0.2.0 or older added the rule for all tools.
    #[serde(rename = "rule", skip_serializing_if = "std::ops::Not::not")]
    pub older_rule: bool,
    /// The whole text, if the file is ours: a skill.
    pub text: Option<String>,
}

impl Manifest {
    /// Loads the record. An unreadable one counts as empty.
    pub fn load() -> Self {
        let path = path();
        path.and_then(|path| files::read_json(&path).ok()?).unwrap_or_default()
    }

    pub fn of(&self, path: &Path) -> CreatedParts {
        self.files.get(path).cloned().unwrap_or_default()
    }

    pub fn set(&mut self, path: &Path, created: CreatedParts) {
        if created == CreatedParts::default() {
            self.files.remove(path);
        } else {
            self.files.insert(path.to_owned(), created);
        }
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

/// Returns `~/.local/state/orchestrator-boss/setup.json`, or a path below `XDG_STATE_HOME`; on macOS too.
fn path() -> Option<PathBuf> {
    let state = etcetera::base_strategy::Xdg::new().ok()?.state_dir()?;
    Some(state.join("orchestrator-boss").join("setup.json"))
}
