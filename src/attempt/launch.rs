//! `launch.json`: which launcher of the settings starts an attempt, perhaps on another host. An attempt without this
//! file runs on the host of its server.
//!
//! Between two hosts, a lock, a file event or a clock proves nothing, and a new name in a folder may become visible
//! late. So this file exists before the job is submitted, and readers decide by it how to follow the attempt.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::secrets::Secrets;
use super::status::LiveStatus;
use super::worker_dir::AttemptDir;
use crate::crash_point::{self, Moment};
use crate::files::{self, FileError, lease};
use crate::mission::life::JobId;

/// The launcher of an attempt, and the job that runs its supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The name of the launcher in the settings.
    pub launcher: String,
    /// The job. `None` until the cluster is known to have accepted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
}

impl Launch {
    /// Reads it. `None` if the supervisor runs on the host of its server.
    pub fn read(attempt: &AttemptDir) -> Result<Option<Self>, FileError> {
        files::read_json(&path(attempt))
    }

    pub fn write(&self, attempt: &AttemptDir) -> Result<(), FileError> {
        files::replace_json(&path(attempt), self, true)
    }
}

/// Returns whether the supervisor of an attempt may live, as far as a process that does not watch it can tell. One on
/// this host holds a lock. One on another host, or that runs as a job, counts as alive until a server has recorded its
/// end.
pub fn may_live(attempt: &AttemptDir) -> bool {
    let is_job = !matches!(Launch::read(attempt), Ok(None));
    let status = LiveStatus::read(attempt).ok().flatten();
    let is_elsewhere = status.and_then(|status| status.host).is_some_and(|host| host.is_another());
    if is_job || is_elsewhere { !matches!(attempt.outcome(), Ok(Some(_))) } else { lease::is_held(&attempt.lock()) }
}

fn path(attempt: &AttemptDir) -> PathBuf {
    attempt.root().join("launch.json")
}

/// `environment.json`: variables that the supervisor of a job takes over from its server. It may hold keys, so it
/// exists only from the preparation of the job until the supervisor has claimed the attempt, or the attempt has ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PassedEnvironment {
    pub variables: BTreeMap<String, String>,
    /// Searched after the PATH of the node.
    pub path: String,
    pub secrets: Secrets,
}

impl PassedEnvironment {
    /// Writes the file into the folder of an attempt or of a verification run. It is written in place, without a
    /// temporary file, so that a server that is killed here leaves no copy of a key under another name.
    pub fn write(&self, folder: &Path) -> Result<(), FileError> {
        let path = Self::path(folder);
        let fail = |source| FileError::write(&path, source);
        let bytes = serde_json::to_vec(self).map_err(|error| fail(error.into()))?;
        let mut file = files::private().create(true).truncate(true).write(true).open(&path).map_err(fail)?;
        crash_point::at_file(&path, Moment::Named);
        file.write_all(&bytes).map_err(fail)?;
        crash_point::at_file(&path, Moment::Written);
        Ok(())
    }

    pub fn read(folder: &Path) -> Result<Option<Self>, FileError> {
        files::read_json(&Self::path(folder))
    }

    /// Removes the file. It is missing if there was nothing to pass, or if it was removed before.
    pub fn remove(folder: &Path) {
        let path = Self::path(folder);
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::error!(%error, path = %path.display(), "cannot remove the variables passed to a job");
        }
    }

    fn path(folder: &Path) -> PathBuf {
        folder.join("environment.json")
    }
}
