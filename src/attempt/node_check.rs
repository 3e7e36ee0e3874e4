//! `launchers/<name>.json`: what the last check of a cluster's nodes found missing there. It is shown for a day, since
//! nodes change.

use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::files::{self, FileError};

/// Time for which a result is shown.
const HOLDS: SignedDuration = SignedDuration::from_hours(24);

/// The problems that a check found, such as "claudecode: not found on the nodes".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCheck {
    pub at: Timestamp,
    pub problems: Vec<String>,
}

impl NodeCheck {
    /// Keeps the result for a launcher, in the place of an earlier one.
    pub fn write(&self, state_root: &Path, launcher: &str) -> Result<(), FileError> {
        let path = path(state_root, launcher);
        files::make_private_dir(path.parent().unwrap_or(state_root))?;
        files::replace_json(&path, self, false)
    }

    /// Returns the problems of a launcher's nodes, as far as they are known.
    pub fn problems(state_root: &Path, launcher: &str, now: Timestamp) -> Vec<String> {
        let kept: Option<Self> = files::read_json(&path(state_root, launcher)).ok().flatten();
        let holds = |kept: &Self| now.duration_since(kept.at).abs() < HOLDS;
        kept.filter(holds).map(|kept| kept.problems).unwrap_or_default()
    }
}

fn path(state_root: &Path, launcher: &str) -> PathBuf {
    state_root.join("launchers").join(format!("{launcher}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_holds_for_a_day() {
        let folder = tempfile::tempdir().unwrap();
        let at: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let problems = |launcher: &str, hours| {
            NodeCheck::problems(folder.path(), launcher, at + SignedDuration::from_hours(hours))
        };
        assert_eq!(problems("cluster", 0), [""; 0]);
        let found = NodeCheck { at, problems: vec!["claudecode: not found on the nodes".to_owned()] };
        found.write(folder.path(), "cluster").unwrap();
        assert_eq!(problems("cluster", 23), found.problems);
        assert_eq!((problems("cluster", 25), problems("gpu", 0)), (Vec::new(), Vec::new()));
    }
}
