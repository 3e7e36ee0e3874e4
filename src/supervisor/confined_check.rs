//! A program that runs once under the rules of a confined worker, to see whether it works there. For `doctor`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::time::timeout;
use uuid::Uuid;

use super::isolation::TEMPORARY_VARIABLE;
use super::refused_writes::RefusedWrites;
use super::write_rules::{CheckRules, ConfinementError};
use crate::backend::StateFolder;
use crate::config::Settings;
use crate::process::confine::WriteRules;
use crate::process::{self, Launch, ProcessScope, SpawnError, StdinSource, TAG_VARIABLE, WorkerPlaces};

/// Time that processes get to exit by themselves.
const GRACE: Duration = Duration::from_secs(1);

/// A program to check.
pub struct ConfinedCheck<'a> {
    pub settings: &'a Settings,
    pub program: PathBuf,
    pub args: Vec<OsString>,
    pub directory: PathBuf,
    /// Folders that it may write besides its state and the usual caches.
    pub work: Vec<PathBuf>,
    pub state: Vec<StateFolder>,
    /// An existing folder for its output and its temporary files.
    pub scratch: &'a Path,
    pub limit: Duration,
}

/// The result of a check.
#[derive(Debug, PartialEq, Eq)]
pub enum CheckResult {
    Works,
    /// It works only without the confinement: the end of its output, and sentences about the writes that were refused.
    Refused {
        output: String,
        notes: Vec<String>,
    },
    /// It does not work without the confinement either, or takes too long.
    Unknown,
}

#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error(transparent)]
    Rules(#[from] ConfinementError),
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error("cannot use a temporary folder: {0}")]
    Scratch(#[from] io::Error),
}

impl ConfinedCheck<'_> {
    pub async fn run(&self) -> Result<CheckResult, CheckError> {
        let temporary = self.scratch.join("tmp");
        fs::create_dir_all(&temporary)?;
        let work = self.work.iter().chain([&temporary]).map(PathBuf::as_path).collect::<Vec<_>>();
        let CheckRules { rules, is_complete } = CheckRules::of(self.settings, &work, &self.state)?;
        // A worker's start would create what is missing.
        if !is_complete {
            return Ok(CheckResult::Unknown);
        }
        let (confined, output) = self.succeeds(Some(rules.clone()), "confined").await?;
        if confined != Some(false) {
            return Ok(confined.map_or(CheckResult::Unknown, |_| CheckResult::Works));
        }
        if self.succeeds(None, "free").await?.0 != Some(true) {
            return Ok(CheckResult::Unknown);
        }
        let mut refused = RefusedWrites::default();
        refused.record(&output, Some(&rules));
        let notes = refused.notes(&self.directory, None).collect();
        Ok(CheckResult::Refused { output, notes })
    }

    /// Runs the program, ends all that it started, and returns its output. `None`: it took too long.
    async fn succeeds(&self, confine: Option<WriteRules>, name: &str) -> Result<(Option<bool>, String), SpawnError> {
        let log = self.scratch.join(name);
        let (tag, since) = (format!("check.{}", Uuid::new_v4().simple()), SystemTime::now());
        let allowlist = self.settings.daemons_left(confine.is_some());
        let mut started = process::spawn(&Launch {
            program: self.program.clone(),
            args: self.args.clone(),
            cwd: self.directory.clone(),
            env_set: BTreeMap::from([
                (TEMPORARY_VARIABLE.to_owned(), self.scratch.join("tmp").into()),
                (TAG_VARIABLE.to_owned(), tag.clone().into()),
            ]),
            env_remove: Vec::new(),
            stdin: StdinSource::Null,
            stdout: log.clone(),
            output_pipe: false,
            stderr: log.clone(),
            confine,
        })?;
        let ended = timeout(self.limit, started.child.wait()).await;
        let scope = ProcessScope {
            tag,
            roots: vec![started.identity],
            allowlist,
            private: WorkerPlaces { places: vec![self.scratch.to_owned()], since: Some(since) },
            own_children: vec![started.identity.pid],
            ..ProcessScope::default()
        };
        process::sweep(&scope, GRACE).await;
        if ended.is_err() {
            let _ = started.child.wait().await;
        }
        let succeeded = ended.ok().and_then(Result::ok).map(|status| status.success());
        Ok((succeeded, super::exit::end_of(&log, 0)))
    }
}
