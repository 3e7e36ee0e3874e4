//! A cluster, an engine for its commands, and attempts whose supervisor is a script.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use orchestrator_boss::config::{LauncherSettings, Settings};
use orchestrator_boss::launcher::slurm::{
    Engine, JobNames, JobRequest, ObservedJob, Submission, job_of, observe, submit,
};
use orchestrator_boss::mission::id::WorkerId;
use orchestrator_boss::mission::life::{EngineState, JobId};
use uuid::Uuid;

use crate::support::cluster::Cluster;
use crate::support::wait;

/// The supervisor of the jobs. It records how it was started. With a file `hold` it waits for the file `go`.
const SUPERVISOR: &str = r#"#!/bin/bash
folder=$3
echo 'the log'
printf '<%s>' "$@" > "$folder/arguments"
pwd > "$folder/pwd"
hostname > "$folder/host"
env > "$folder/env"
touch "$folder/ran"
while [ -e "$folder/hold" ] && ! [ -e "$folder/go" ]; do sleep 0.1; done
"#;

pub struct World {
    pub cluster: Cluster,
    pub engine: Engine,
    pub names: JobNames,
    variables: Vec<(OsString, OsString)>,
}

/// An attempt with its folder in the shared folder.
pub struct Attempt {
    pub worker: WorkerId,
    pub folder: PathBuf,
}

/// Returns the path of the supervisor. The file's own name has no space: with `proctrack/linuxproc`, Slurm 22.05 does not
/// find such a process and cannot end it.
fn program_in(cluster: &Cluster) -> PathBuf {
    cluster.shared().join("it's here").join("supervisor")
}

pub fn runs(job: &ObservedJob) -> bool {
    job.state == EngineState::Runs
}

pub fn waits(job: &ObservedJob) -> bool {
    matches!(job.state, EngineState::Waits { .. })
}

pub fn is_over(job: &ObservedJob) -> bool {
    matches!(job.state, EngineState::Ended(_))
}

impl World {
    /// Starts a cluster with these settings of the fixture. `None` if it cannot run here.
    pub fn start(settings: &[(&str, &str)]) -> Option<Self> {
        Cluster::start(settings).map(|cluster| Self::in_environment(cluster, &[]))
    }

    /// Uses the cluster from an environment with these variables too.
    pub fn in_environment(cluster: Cluster, variables: &[(&str, &str)]) -> Self {
        let program = program_in(&cluster);
        fs::create_dir(program.parent().expect("a folder")).expect("a new folder");
        fs::write(&program, SUPERVISOR).expect("a script");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("its mode");
        let own =
            [("PATH", std::env::var_os("PATH").unwrap_or_default()), ("SLURM_CONF", cluster.configuration().into())];
        let own = own.map(|(name, value)| (OsString::from(name), value));
        let further = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let variables: Vec<(OsString, OsString)> = own.into_iter().chain(further).collect();
        let engine = Engine::in_environment(&[], variables.clone());
        Self { cluster, engine, names: JobNames::of(Uuid::new_v4()), variables }
    }

    pub fn variables(&self) -> Vec<(OsString, OsString)> {
        self.variables.clone()
    }

    /// Returns the settings of a launcher.
    pub fn settings(&self, text: &str) -> LauncherSettings {
        let settings = Settings::parse(&format!("[launchers.cluster]\nkind = 'slurm'\n{text}"));
        settings.expect("valid settings").launchers["cluster"].clone()
    }

    /// Makes the folder of an attempt, with these files.
    pub fn attempt(&self, folder: &str, files: &[&str]) -> Attempt {
        let number = fs::read_dir(self.cluster.shared()).expect("the shared folder").count() as u64;
        let folder = self.cluster.shared().join(folder);
        fs::create_dir(&folder).expect("a new folder");
        for file in files {
            fs::write(folder.join(file), "").expect("a file");
        }
        Attempt { worker: WorkerId::new(number, "A test"), folder }
    }

    pub fn name(&self, attempt: &Attempt) -> String {
        self.names.name(&attempt.worker, 1)
    }

    pub async fn submit(&self, attempt: &Attempt, settings: &LauncherSettings, may_exist: bool) -> Submission {
        self.submit_through(&self.engine, attempt, settings, may_exist).await
    }

    pub async fn submit_through(
        &self,
        engine: &Engine,
        attempt: &Attempt,
        settings: &LauncherSettings,
        may_exist: bool,
    ) -> Submission {
        let request = JobRequest {
            names: &self.names,
            worker: &attempt.worker,
            attempt: 1,
            folder: &attempt.folder,
            program: &program_in(&self.cluster),
            launcher: "cluster",
            settings,
            minutes: 20,
        };
        submit(engine, &request, may_exist).await
    }

    /// Submits a job that must be accepted.
    pub async fn accepted(&self, attempt: &Attempt, settings: &LauncherSettings) -> JobId {
        match self.submit(attempt, settings, false).await {
            Submission::Accepted(job) => job,
            other => panic!("{other:?}"),
        }
    }

    /// Returns the job of an attempt, as the cluster reports it now.
    pub async fn seen(&self, attempt: &Attempt) -> Option<ObservedJob> {
        let jobs = observe(&self.engine, &self.names).await.ok()?;
        job_of(&jobs, &attempt.worker, 1).cloned()
    }

    /// Waits until the job of an attempt is as wanted, and returns it.
    pub async fn until(&self, attempt: &Attempt, what: &str, is_wanted: impl Fn(&ObservedJob) -> bool) -> ObservedJob {
        let mut last = None;
        let in_time = wait::in_time(async || {
            last = self.seen(attempt).await;
            last.as_ref().is_some_and(&is_wanted)
        });
        let in_time = in_time.await;
        last.clone().filter(|_| in_time).unwrap_or_else(|| panic!("not in time: the job {what}: {last:?}"))
    }

    pub fn scontrol(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("scontrol");
        command.args(arguments).env("SLURM_CONF", self.cluster.configuration());
        String::from_utf8_lossy(&command.output().expect("scontrol runs").stdout).into_owned()
    }

    /// Returns the commands of Slurm that run for this cluster.
    pub fn commands(&self) -> Vec<String> {
        let names = ["sbatch", "squeue", "scancel", "sinfo"];
        let own = format!("SLURM_CONF={}", self.cluster.configuration().display());
        let processes = fs::read_dir("/proc").expect("Linux has /proc").flatten().map(|entry| entry.path());
        let read = |process: &Path, file: &str| fs::read(process.join(file)).unwrap_or_default();
        let is_ours =
            |process: &PathBuf| String::from_utf8_lossy(&read(process, "environ")).split('\0').any(|it| it == own);
        let comm =
            processes.filter(is_ours).map(|process| String::from_utf8_lossy(&read(&process, "comm")).trim().to_owned());
        comm.filter(|name| names.contains(&name.as_str())).collect()
    }

    /// Returns the files of the cluster with these bytes in them.
    pub fn files_with(&self, bytes: &[u8]) -> Vec<PathBuf> {
        let (mut found, mut folders) = (Vec::new(), vec![self.cluster.folder().to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a readable folder").flatten() {
                let kind = entry.file_type().expect("a kind of file");
                if kind.is_dir() {
                    folders.push(entry.path());
                } else if kind.is_file() {
                    let content = fs::read(entry.path()).unwrap_or_default();
                    found.extend(content.windows(bytes.len()).any(|it| it == bytes).then(|| entry.path()));
                }
            }
        }
        found
    }
}

impl Attempt {
    /// Lets the supervisor end.
    pub fn release(&self) {
        fs::write(self.folder.join("go"), "").expect("a file");
    }

    pub fn has(&self, name: &str) -> bool {
        self.folder.join(name).exists()
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(name)).unwrap_or_default()
    }
}
