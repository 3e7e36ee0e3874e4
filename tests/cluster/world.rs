//! A cluster, a repository in the folder that its hosts share, and a boss whose server runs on the login host.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use orchestrator_boss::process::Identity;
use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::json_lines::Boss;
use crate::support::sandbox::{PROGRAM, Sandbox, create, mission, status, with};
use crate::support::wait::{until, until_some};

/// Settings of the launcher in the tests. Without `memory`, a job takes all memory of its node.
pub const LAUNCHER: &str =
    "[launchers.cluster]\nkind = \"slurm\"\ncpus = 1\nmemory = \"500M\"\npoll_seconds = 5\nlost_after_seconds = 60\n";

pub struct World {
    pub sandbox: Sandbox,
    pub cluster: Arc<Cluster>,
}

impl World {
    /// Starts a cluster with these settings of the fixture. `None` if none can run here.
    pub fn start(fixture: &[(&str, &str)]) -> Option<Self> {
        Self::with_settings(fixture, LAUNCHER)
    }

    pub fn with_settings(fixture: &[(&str, &str)], launcher: &str) -> Option<Self> {
        Some(Self::beside(&Arc::new(Cluster::start(fixture)?), launcher))
    }

    /// Creates a repository and settings on a cluster that others may use too.
    pub fn beside(cluster: &Arc<Cluster>, settings: &str) -> Self {
        // A lagging file system keeps its files there, and is not mounted on this host.
        let backing = cluster.folder().join("backing");
        let sandbox = Sandbox::within(&if backing.exists() { backing } else { cluster.shared() });
        let world = Self { sandbox, cluster: Arc::clone(cluster) };
        world.sandbox.write_settings(&format!("max_workers = 2\n{settings}"), &["fake"]);
        world
    }

    /// Adds lines about the fake CLI to the settings, before any process reads them.
    pub fn configure_backend(&self, lines: &str) {
        let settings = fs::read_to_string(self.sandbox.settings_file()).expect("settings");
        fs::write(self.sandbox.settings_file(), format!("{settings}{lines}\n")).expect("a settings file");
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
        self.boss_with(&[])
    }

    /// Starts a server on the login host with these variables.
    pub fn boss_with(&self, variables: &[(&str, &str)]) -> Boss {
        self.sandbox.boss_of(self.command_with(variables, &[]))
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
        self.command_with(&[], arguments)
    }

    fn command_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Command {
        let home = self.on_hosts(self.sandbox.root());
        let repo = self.on_hosts(self.sandbox.repo());
        let prefix = self.cluster.on_login();
        let mut command = self.sandbox.bare_command(&prefix[0]);
        // The test starts and kills only the parent of the server, so the server must end with it.
        command
            .args(&prefix[1..])
            .args(["setpriv", "--pdeathsig", "KILL"])
            .args(["sh", "-c", "cd \"$0\" && exec \"$@\""])
            .arg(&repo);
        // The fixture needs its own values of these two variables. Others, such as keys, must not be among the
        // arguments of a process.
        let (late, early): (Vec<_>, Vec<_>) =
            variables.iter().copied().partition(|(name, _)| ["PATH", "SLURM_CONF"].contains(name));
        command.arg("env").args(late.iter().map(|(name, value)| format!("{name}={value}"))).arg(PROGRAM);
        command.arg("--config").arg(home.join("config.toml")).args(arguments);
        command.env("HOME", &home).env("SLURM_CONF", self.cluster.configuration());
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").envs(early).current_dir("/");
        command
    }

    /// Puts a script before a program of the same name on the PATH. Returns the PATH.
    pub fn wrap(&self, program: &str, script: &str) -> String {
        let folder = self.sandbox.path("bin");
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join(program);
        fs::write(&path, format!("#!/bin/bash\n{script}\n")).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
        format!("{}:{}", folder.display(), std::env::var("PATH").expect("a PATH"))
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
        // A worker of another test can have the same id.
        let root = self.on_hosts(self.sandbox.root()).display().to_string();
        let is_tagged = |pid: &String| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let environment = String::from_utf8_lossy(&environment);
            environment.contains(&root) && environment.split('\0').any(|entry| entry.starts_with(&tag))
        };
        let entries = fs::read_dir("/proc").expect("the process table");
        let pids = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        pids.filter(|name| name.parse::<u32>().is_ok()).filter(is_tagged).count()
    }

    /// Returns the jobs that the cluster has, waiting or running.
    pub fn jobs(&self) -> usize {
        self.slurm("squeue", &["--noheader", "--format=%i"]).lines().count()
    }

    /// Returns what a command of Slurm prints.
    pub fn slurm(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(program);
        command.args(arguments).env("SLURM_CONF", self.cluster.configuration());
        String::from_utf8_lossy(&command.output().expect("it runs").stdout).into_owned()
    }

    /// Returns the number of the job of a worker's first attempt. `None` until its server has noted it.
    pub fn job(&self, worker: &str) -> Option<String> {
        let launch = fs::read(self.sandbox.attempt(worker, 1).join("launch.json")).ok()?;
        let launch: Value = serde_json::from_slice(&launch).expect("JSON");
        Some(launch["job"].as_u64()?.to_string())
    }

    /// Returns the process of the supervisor of a worker's first attempt, with its pid on this machine.
    pub fn supervisor(&self, worker: &str) -> Identity {
        let attempt = self.on_hosts(self.sandbox.attempt(worker, 1)).display().to_string();
        let is_it = |pid: &u32| {
            let arguments = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            arguments.split('\0').skip(1).take(3).eq(["supervise", "--job", &attempt])
        };
        let entries = fs::read_dir("/proc").expect("the process table").flatten();
        let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.find(is_it).and_then(Identity::of).expect("its supervisor runs")
    }

    /// Returns the name of the node that runs a worker's first attempt.
    pub fn node(&self, worker: &str) -> String {
        let status = fs::read(self.sandbox.attempt(worker, 1).join("status.json")).expect("a status");
        text(&serde_json::from_slice::<Value>(&status).expect("JSON")["host"]["name"])
    }

    /// Waits until the boss was notified of this many more ends, each of which must be this one. Returns the workers.
    pub fn ends(&self, boss: &mut Boss, count: usize, wanted: &str) -> BTreeSet<String> {
        let mut ended = BTreeSet::new();
        until("all ends are reported", || {
            let answer = boss.succeed("wait_for_any_worker", json!({"timeout_seconds": 10}));
            for settled in answer["settled"].as_array().expect("settled") {
                assert_eq!(settled["status"], wanted, "{settled:#}");
                assert!(ended.insert(text(&settled["worker_id"])), "each end is reported once: {settled:#}");
            }
            ended.len() >= count
        });
        assert_eq!(ended.len(), count, "{ended:?}");
        ended
    }

    /// Returns the workers that `trace` has recorded in this file of the shared folder, one for each start of a CLI.
    pub fn starts(&self, file: &str) -> Vec<String> {
        let traced = fs::read_to_string(self.sandbox.shared(file)).unwrap_or_default();
        let mut starts: Vec<String> =
            traced.lines().map(|line| line.split('.').next().unwrap_or_default().to_owned()).collect();
        starts.sort();
        starts
    }

    /// Returns how often this command runs on a node. The pattern is one of `pgrep`.
    pub fn running_on(&self, node: &str, pattern: &str) -> usize {
        let count = format!("pgrep -f -- '{pattern}' | wc -l");
        self.cluster.run("node-exec", &[node, "sh", "-c", &count]).trim().parse().expect("a number")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- jobs\n{}", self.slurm("squeue", &["--states=all", "--format=%i %j %T %r %N"]));
            for name in ["launch.json", "status.json", "claim", "engine.log"] {
                for path in named(&self.sandbox.state_dir().join("workers"), name) {
                    eprintln!("--- {}\n{}", path.display(), fs::read_to_string(&path).unwrap_or_default());
                }
            }
        }
        self.sandbox.check_log();
    }
}

pub fn on_cluster(title: &str, script: &str) -> Value {
    with(mission(title, script), "run_on", json!("cluster"))
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Returns the files below a folder.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // A folder of a running worker may go meanwhile.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files_in(&entry.path())),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

/// Returns the files below a folder that have a name.
pub fn named(folder: &Path, name: &str) -> Vec<PathBuf> {
    files_in(folder).into_iter().filter(|path| path.ends_with(name)).collect()
}

/// Returns the files below a folder that contain a text.
pub fn holders(folder: &Path, secret: &str) -> Vec<PathBuf> {
    let contains = |bytes: Vec<u8>| bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
    files_in(folder).into_iter().filter(|path| fs::read(path).is_ok_and(contains)).collect()
}
