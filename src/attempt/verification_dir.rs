//! `integrations/<server>.<id>/`: one folder per verification of an integration, with its worktree. It exists while the
//! verification runs. Its name contains the server, so that the folders of a dead server can be removed.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::Serialize;
use uuid::Uuid;

use super::state_dir::StateDir;
use crate::files::{self, FileError};
use crate::mission::id::ServerId;

/// Maximum number of logs of failed verifications.
const KEPT_LOGS: usize = 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerificationDir {
    root: PathBuf,
}

impl VerificationDir {
    pub fn new(state: &StateDir, server: &ServerId) -> Self {
        Self::at(state.verifications().join(format!("{server}.{}", Uuid::new_v4().simple())))
    }

    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// Returns the folders of all servers.
    pub fn all(state: &StateDir) -> Vec<Self> {
        let entries = std::fs::read_dir(state.verifications()).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|it| Self::at(it.path()))
            .collect()
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the root of the state directory.
    pub fn state(&self) -> &Path {
        self.root.ancestors().nth(2).unwrap_or(&self.root)
    }

    pub fn server(&self) -> Option<ServerId> {
        let name = self.root.file_name()?.to_str()?;
        name.split_once('.').map(|(server, _)| ServerId::from(server.to_owned()))
    }

    pub fn assignment(&self) -> PathBuf {
        self.root.join("verification.json")
    }

    /// Returns the script of the job that runs it on a node of a cluster.
    pub fn job_script(&self) -> PathBuf {
        self.root.join("job.sh")
    }

    /// Returns the record of that job.
    pub fn job(&self) -> PathBuf {
        self.root.join("job.json")
    }

    /// Opens the log of its supervisor for appending.
    pub fn open_supervisor_log(&self) -> Result<File, FileError> {
        let path = self.supervisor_log();
        files::private().create(true).append(true).open(&path).map_err(|source| FileError::write(&path, source))
    }

    /// Locked by its supervisor for as long as that lives.
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// See [`super::worker_dir::AttemptDir::processes`].
    pub fn processes(&self) -> PathBuf {
        self.root.join("processes.json")
    }

    pub fn log(&self) -> PathBuf {
        self.root.join("verify.log")
    }

    pub fn supervisor_log(&self) -> PathBuf {
        self.root.join("supervisor.log")
    }

    /// The result, which is written last.
    pub fn result(&self) -> PathBuf {
        self.root.join("result.json")
    }

    pub fn tree(&self) -> PathBuf {
        self.root.join("tree")
    }

    pub fn create(&self, assignment: &impl Serialize) -> Result<(), FileError> {
        let (folders, state) = (self.root.parent().unwrap_or(&self.root), self.root.ancestors().nth(2));
        files::refuse_no_folder(folders)?;
        files::make_private_dir_within(state.unwrap_or(folders), &self.root)?;
        files::replace_json(&self.assignment(), assignment, false)
    }

    /// Keeps the log of the command, and only the newest logs of others. `None` if the log is empty.
    pub fn keep_log(&self, state: &StateDir, commit: &str) -> Result<Option<PathBuf>, FileError> {
        let log = self.log();
        if std::fs::metadata(&log).map_or(0, |log| log.len()) == 0 {
            return Ok(None);
        }
        let kept = state.kept_logs();
        files::refuse_no_folder(&kept)?;
        files::make_private_dir_within(state.root(), &kept)?;
        remove_old_logs(&kept);
        let short = commit.get(..12).unwrap_or(commit);
        let path = kept.join(format!("{short}-{}.log", &Uuid::new_v4().simple().to_string()[..8]));
        std::fs::rename(&log, &path).map_err(|source| FileError::write(&path, source))?;
        Ok(Some(path))
    }

    /// Removes the folder, and that of all verifications if it is empty then.
    pub fn remove(&self) -> Result<(), FileError> {
        match std::fs::remove_dir_all(&self.root) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(FileError::write(&self.root, error));
            }
            _ => {}
        }
        let _ = self.root.parent().map(std::fs::remove_dir);
        Ok(())
    }
}

/// Removes the oldest logs, so that there is room for one more.
fn remove_old_logs(folder: &Path) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut logs: Vec<_> = entries.filter_map(|it| Some((it.metadata().ok()?.modified().ok()?, it.path()))).collect();
    logs.sort();
    for (_, old) in logs.iter().rev().skip(KEPT_LOGS - 1) {
        let _ = std::fs::remove_file(old);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_logs_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(&folder.path().join("state")).unwrap();
        let mut kept = Vec::new();
        for n in 0..KEPT_LOGS + 3 {
            let dir = VerificationDir::new(&state, &ServerId::from("s"));
            dir.create(&()).unwrap();
            assert_eq!(dir.keep_log(&state, "0123456789abcdef").unwrap(), None);
            std::fs::write(dir.log(), format!("{n}")).unwrap();
            let path = dir.keep_log(&state, "0123456789abcdef").unwrap().expect("its log is not empty");
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(n as u64)).unwrap();
            kept.push(path);
            dir.remove().unwrap();
        }
        let there: Vec<bool> = kept.iter().map(|path| path.exists()).collect();
        assert_eq!(there, [vec![false; 3], vec![true; KEPT_LOGS]].concat());
    }
}
