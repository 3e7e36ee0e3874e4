//! A cluster, a repository on the folder that its hosts share, and a boss whose server runs on the login host.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::json_lines::Boss;
use crate::support::sandbox::{PROGRAM, Sandbox, create, mission, status, with};
use crate::support::wait::until_some;

/// Settings of the launcher in the tests. Without `memory`, a job takes all memory of its node.
const LAUNCHER: &str =
    "[launchers.cluster]\nkind = \"slurm\"\ncpus = 1\nmemory = \"500M\"\npoll_seconds = 5\nlost_after_seconds = 60\n";

pub struct World {
    pub sandbox: Sandbox,
    pub cluster: Cluster,
}

impl World {
    /// Starts a cluster with these settings of the fixture. `None` if none can run here.
    pub fn start(fixture: &[(&str, &str)]) -> Option<Self> {
        Self::with_settings(fixture, LAUNCHER)
    }

    pub fn with_settings(fixture: &[(&str, &str)], launcher: &str) -> Option<Self> {
        let cluster = Cluster::start(fixture)?;
        // A lagging cluster has its files there, and no folder of them is mounted on this host.
        let backing = cluster.folder().join("backing");
        let sandbox = Sandbox::within(&if backing.exists() { backing } else { cluster.shared() });
        let world = Self { sandbox, cluster };
        world.sandbox.write_settings(&format!("max_workers = 2\n{launcher}"), &["fake"]);
        Some(world)
    }

    /// Returns a path as all hosts of the cluster see it.
    pub fn on_hosts(&self, path: PathBuf) -> PathBuf {
        match path.strip_prefix(self.cluster.folder().join("backing")) {
            Ok(inner) => self.cluster.shared().join(inner),
            Err(_) => path,
        }
    }

    /// Starts a server on the login host.
    pub fn boss(&self) -> Boss {
        self.sandbox.boss_of(self.command(&[]))
    }

    /// Runs a command of this program on the login host, which must succeed. Returns what it printed.
    #[track_caller]
    pub fn print(&self, arguments: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.command(arguments).output().expect("the program runs");
        assert!(status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8_lossy(&stdout).into_owned()
    }

    /// Returns a command of this program on the login host.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let home = self.on_hosts(self.sandbox.root());
        let repo = self.on_hosts(self.sandbox.repo());
        let prefix = self.cluster.on_login();
        let mut command = self.sandbox.bare_command(&prefix[0]);
        command.args(&prefix[1..]).args(["sh", "-c", "cd \"$0\" && exec \"$@\""]).arg(&repo).arg(PROGRAM);
        command.arg("--config").arg(home.join("config.toml")).args(arguments);
        command.env("HOME", &home).env("SLURM_CONF", self.cluster.configuration());
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").current_dir("/");
        command
    }

    /// Creates a worker that runs on the cluster.
    pub fn create(&self, boss: &mut Boss, title: &str, script: &str) -> String {
        create(boss, on_cluster(title, script))
    }

    /// Waits until the boss sees this status of a worker, and returns the worker.
    pub fn until(&self, boss: &mut Boss, worker: &str, wanted: &str) -> Value {
        until_some(&format!("{worker} is {wanted}"), || {
            let seen = status(boss, worker);
            let is_over = ["completed", "failed", "cancelled", "lost", "interrupted", "timed_out"];
            let now = seen["status"].as_str().unwrap_or_default().to_owned();
            assert!(now == wanted || !is_over.contains(&now.as_str()), "{worker} is {now}, not {wanted}: {seen:#}");
            (now == wanted).then_some(seen)
        })
    }

    /// Returns the processes of an attempt on all nodes.
    pub fn processes(&self, worker: &str) -> usize {
        let tag = format!("ORCHESTRATOR_WORKER_TAG={worker}.");
        let is_tagged = |pid: &String| {
            fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| {
                environment.split(|byte| *byte == 0).any(|entry| entry.starts_with(tag.as_bytes()))
            })
        };
        let entries = fs::read_dir("/proc").expect("the process table");
        let pids = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        pids.filter(|name| name.parse::<u32>().is_ok()).filter(is_tagged).count()
    }

    /// Returns the jobs that the cluster has, waiting or running.
    pub fn jobs(&self) -> usize {
        let mut command = Command::new("squeue");
        command.args(["--noheader", "--format=%i"]).env("SLURM_CONF", self.cluster.configuration());
        String::from_utf8_lossy(&command.output().expect("squeue runs").stdout).lines().count()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.sandbox.check_log();
    }
}

pub fn on_cluster(title: &str, script: &str) -> Value {
    with(mission(title, script), "run_on", json!("cluster"))
}
