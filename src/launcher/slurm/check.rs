//! Checks a cluster before any worker runs there: its commands, its partition, and a probe that runs on a node as a job of
//! one minute.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use futures_util::future::join_all;
use uuid::Uuid;

use super::cancel::cancel_by_name;
use super::command::Engine;
use super::names::JobNames;
use super::observe::{ObservedJob, observe, state_of};
use super::partition;
use super::quote;
use super::submit::{BatchJob, ENGINE_LOG, JobError};
use crate::config::LauncherSettings;
use crate::mission::life::{EngineState, JobId};

/// The commands that are used.
const COMMANDS: [&str; 6] = ["sbatch", "squeue", "scancel", "sinfo", "scontrol", "srun"];
/// Time limit of the probe.
const MINUTES: u64 = 1;
/// States of nodes on which a job can start, now or when another one has ended.
const USABLE: [&str; 4] = ["idle", "mixed", "allocated", "completing"];

/// The check of one launcher.
#[derive(Debug)]
pub struct ClusterCheck {
    engine: Engine,
    launcher: String,
    settings: LauncherSettings,
    /// The name of the probe's job.
    name: String,
}

/// The partition that a launcher uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    pub name: String,
    /// `up`, or why no job starts there.
    pub availability: String,
    pub nodes: u64,
    pub usable_nodes: u64,
}

impl ClusterCheck {
    pub fn new(launcher: &str, settings: &LauncherSettings) -> Self {
        Self {
            engine: Engine::new(&settings.command),
            launcher: launcher.to_owned(),
            settings: settings.clone(),
            name: format!("ob-doctor-{}", Uuid::new_v4().simple()),
        }
    }

    /// Asks each command for the version of Slurm. An error is the reason why a command does not answer.
    pub async fn versions(&self) -> Vec<(&'static str, Result<String, String>)> {
        let ask = async |command: &'static str| {
            let answer = self.engine.ask(command, &["--version".into()]).await;
            (command, answer.output().map(|version| version.trim().to_owned()))
        };
        join_all(COMMANDS.into_iter().map(ask)).await
    }

    /// Returns the partition. `None` if the cluster does not know it, or has no default one.
    pub async fn partition(&self) -> Result<Option<Partition>, String> {
        let named = self.settings.partition();
        let option = named.map(|partition| format!("--partition={partition}"));
        let fixed = ["--noheader".to_owned(), "--format=%P|%a|%D|%T".to_owned()];
        let arguments: Vec<OsString> = fixed.into_iter().chain(option).map(OsString::from).collect();
        let printed = self.engine.ask("sinfo", &arguments).await.output()?;
        Ok(partition_of(&printed, named.is_none()))
    }

    /// Returns whether the cluster tracks the processes of a job by cgroup.
    pub async fn tracks_by_cgroup(&self) -> Result<bool, String> {
        partition::tracks_by_cgroup(&self.engine).await
    }

    /// Returns whether a job of this launcher in this partition gets all memory of its node.
    pub async fn takes_all_memory(&self, partition: &str) -> Result<bool, String> {
        let asks =
            self.settings.memory.is_some() || self.settings.args.iter().any(|option| option.starts_with("--mem"));
        Ok(!asks && partition::gives_all_memory(&self.engine, partition).await?)
    }

    /// Submits the probe: this program, which gets the folder and the settings file.
    pub async fn submit_probe(
        &self,
        folder: &Path,
        program: &Path,
        settings_file: Option<&Path>,
    ) -> Result<JobId, JobError> {
        let quoted = |path: &Path| quote::for_bash(path.as_os_str().as_bytes());
        let config = settings_file.map(|file| [b" --config ", quoted(file).as_slice()].concat());
        let parts = [quoted(program), config.unwrap_or_default(), b" probe ".to_vec(), quoted(folder)];
        let job = BatchJob {
            name: self.name.clone(),
            folder,
            settings: &self.settings,
            minutes: MINUTES,
            notice: None,
            command: parts.concat(),
        };
        job.submit(&self.engine, &self.launcher).await
    }

    /// Returns the state of the probe's job, and its node. `None`: the cluster does not know it.
    pub async fn probe_state(&self) -> Result<Option<(EngineState, Option<String>)>, String> {
        state_of(&self.engine, &self.name).await
    }

    /// Returns the end of what the probe's job printed.
    pub fn printed(folder: &Path) -> String {
        std::fs::read_to_string(folder.join(ENGINE_LOG)).unwrap_or_default()
    }

    /// Cancels the probe's job. Succeeds if there is none.
    pub async fn cancel_probe(&self) -> Result<(), String> {
        cancel_by_name(&self.engine, &self.name).await
    }
}

/// Returns the jobs of a state directory that wait or run.
pub async fn jobs_left(settings: &LauncherSettings, state_directory: Uuid) -> Result<Vec<ObservedJob>, String> {
    let mut jobs = observe(&Engine::new(&settings.command), &JobNames::of(state_directory)).await?;
    jobs.retain(|job| matches!(job.state, EngineState::Waits { .. } | EngineState::Runs));
    Ok(jobs)
}

fn partition_of(printed: &str, is_default: bool) -> Option<Partition> {
    let mut found: Option<Partition> = None;
    for line in printed.lines() {
        let fields: Vec<&str> = line.trim().split('|').collect();
        let [name, availability, nodes, state] = fields.as_slice() else { continue };
        if is_default && !name.ends_with('*') {
            continue;
        }
        let nodes: u64 = nodes.parse().unwrap_or(0);
        let usable = if USABLE.iter().any(|usable| state == usable) { nodes } else { 0 };
        let partition = found.get_or_insert_with(|| Partition {
            name: name.trim_end_matches('*').to_owned(),
            availability: (*availability).to_owned(),
            nodes: 0,
            usable_nodes: 0,
        });
        partition.nodes += nodes;
        partition.usable_nodes += usable;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_counts_its_usable_nodes() {
        let printed = "agents*|up|2|idle\nagents*|up|1|down*\nagents*|up|4|mixed\nshort|up|7|idle\n";
        let found = partition_of(printed, true).unwrap();
        assert_eq!((found.name.as_str(), found.nodes, found.usable_nodes), ("agents", 7, 6));
        assert_eq!(partition_of("short|down|7|idle\n", false).unwrap().availability, "down");
        for nothing in ["", "Welcome\n", "short|up|7|idle\n"] {
            assert_eq!(partition_of(nothing, true), None, "{nothing}");
        }
    }
}
