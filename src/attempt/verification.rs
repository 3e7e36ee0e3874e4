//! The assignment and the report of a verification run: a supervisor that verifies one commit in a worktree of its own,
//! for an integration or for the base of a worker.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::assignment::SetupTask;
use super::verification_dir::VerificationDir;
use crate::config::Settings;
use crate::git::{self, Repository};
use crate::mission::outcome::{Missing, Verification};

/// Everything that the supervisor of a verification run needs. Written by the process that starts it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerificationAssignment {
    /// The tag in the environment of all its processes. It is never used again.
    pub tag: String,
    /// The repository, with the configuration from before any worker.
    pub repository: Repository,
    pub commit: String,
    pub command: String,
    /// The setup that runs first in the new worktree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup: Option<SetupTask>,
    /// Ignored paths of the main checkout that are copied into the worktree before the setup.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seed: Vec<String>,
    /// The worktree whose ignored files are copied into the worktree of this run. The setup then runs only if some are
    /// left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignored_of: Option<PathBuf>,
    /// The path of the worktree. The default is in the folder of the verification run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<PathBuf>,
    /// The subfolder of the worktree in which the command runs, if it exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    /// The folder for the sockets of its processes. The default is that of the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sockets: Option<PathBuf>,
    pub settings: Settings,
    /// Further variables for the command.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerificationResult {
    #[serde(flatten)]
    pub verification: Verification,
    /// Files and folders that the main checkout has and its worktree lacks, if it did not pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<Missing>,
}

/// The job that runs a verification on a cluster, written before it is submitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmittedVerification {
    /// The name of the launcher in the settings.
    pub launcher: String,
    /// The name of the job.
    pub name: String,
}

/// Prefix of the names of worktrees in which integrations are verified.
const VERIFIED_IN: &str = "verify-";

/// Returns a name for a new worktree in which an integration is verified.
pub fn tree_name() -> String {
    format!("{VERIFIED_IN}{}", Uuid::new_v4().simple())
}

/// Returns whether a folder is named like a worktree in which an integration is verified.
pub fn is_tree(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(VERIFIED_IN));
    name.is_some_and(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

impl VerificationAssignment {
    pub fn tree(&self, dir: &VerificationDir) -> PathBuf {
        // A worker can write that file, and must not make this process remove other folders.
        self.tree.clone().filter(|tree| is_tree(tree)).unwrap_or_else(|| dir.tree())
    }

    /// Removes the worktree, and the folder that contained it if that is now empty.
    pub fn remove_tree(&self, dir: &VerificationDir) -> Result<(), git::WorktreeError> {
        git::verification_tree::remove(&self.repository, &self.tree(dir))?;
        match self.tree.as_deref().and_then(Path::parent) {
            Some(folder) => git::remove_empty_folder(&self.repository, folder),
            None => Ok(()),
        }
    }
}
