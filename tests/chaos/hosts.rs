//! The cluster of a round: a controller, a login host on which the servers run, and nodes. Each part can fail and come
//! back.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use orchestrator_boss::process::Identity;
use serde_json::Value;

use crate::support::cluster::Cluster;
use crate::support::wait::CEILING;

pub const NODES: usize = 2;
/// Pause between two questions to the controller.
const PAUSE: Duration = Duration::from_millis(100);

pub struct Hosts {
    cluster: Cluster,
}

/// Which parts of a cluster are dead.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    pub controller_dead: bool,
    /// The controller was dead. Afterwards it may give the number of a job that it has forgotten to another one, whose start
    /// then fails.
    pub numbers_reused: bool,
    pub nodes: [Node; NODES],
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Node {
    #[default]
    Well,
    /// Its daemon is dead, and its jobs run on.
    CutOff,
    Off,
}

impl Parts {
    pub fn are_well(&self) -> bool {
        !self.controller_dead && !self.numbers_reused && self.nodes == [Node::Well; NODES]
    }
}

impl Hosts {
    /// Starts a cluster that notices a dead node in a few seconds. With each other seed it forgets ended jobs soon.
    pub fn start(seed: u64) -> Self {
        let remembers = if seed.is_multiple_of(2) { "300" } else { "2" };
        let nodes = NODES.to_string();
        let settings = [("NODES", nodes.as_str()), ("CPUS", "2"), ("SLURMDTIMEOUT", "5"), ("MINJOBAGE", remembers)];
        Self { cluster: Cluster::start(&settings).expect("a cluster can run here") }
    }

    pub fn shared(&self) -> PathBuf {
        self.cluster.shared()
    }

    /// Returns a command of a program on the login host. What this process starts and kills is its parent.
    pub fn command_on_login(&self, directory: &Path, program: &str) -> Command {
        let prefix = self.cluster.on_login();
        let mut command = Command::new(&prefix[0]);
        command
            .args(&prefix[1..])
            .args(["setpriv", "--pdeathsig", "KILL"])
            .args(["sh", "-c", "cd \"$0\" && exec \"$@\""])
            .arg(directory)
            .arg(program)
            .env("SLURM_CONF", self.cluster.configuration())
            .current_dir("/");
        command
    }

    /// Returns the name of a node.
    pub fn name(&self, node: usize) -> String {
        let settings = fs::read_to_string(self.cluster.folder().join("settings")).expect("the settings of the fixture");
        let prefix = settings.lines().find_map(|line| line.strip_prefix("NAME=")).expect("a name");
        format!("{}{}", prefix.trim_matches('"'), node + 1)
    }

    /// Kills the controller, or starts it again.
    pub fn toggle_controller(&self, parts: &mut Parts) {
        self.cluster.run(if parts.controller_dead { "ctl-start" } else { "ctl-kill" }, &[]);
        parts.controller_dead = !parts.controller_dead;
        parts.numbers_reused = true;
    }

    /// Switches a node off, or on again.
    pub fn toggle_power(&self, parts: &mut Parts, node: usize) {
        match parts.nodes[node] {
            Node::Well | Node::CutOff => self.change(parts, node, "node-poweroff", Node::Off),
            Node::Off => self.bring_back(parts, node),
        }
    }

    /// Kills the daemon of a node, or starts it again.
    pub fn toggle_daemon(&self, parts: &mut Parts, node: usize) {
        match parts.nodes[node] {
            Node::Well => self.change(parts, node, "slurmd-kill", Node::CutOff),
            Node::CutOff | Node::Off => self.bring_back(parts, node),
        }
    }

    pub fn bring_back(&self, parts: &mut Parts, node: usize) {
        if parts.nodes[node] == Node::Off {
            self.change(parts, node, "node-start", Node::CutOff);
        }
        self.change(parts, node, "slurmd-start", Node::Well);
    }

    fn change(&self, parts: &mut Parts, node: usize, verb: &str, state: Node) {
        self.cluster.run(verb, &[&(node + 1).to_string()]);
        parts.nodes[node] = state;
    }

    /// Brings all parts back, and checks that the cluster gets rid of all jobs and that its nodes can be used.
    pub fn heal(&self, parts: &mut Parts) {
        if parts.controller_dead {
            self.toggle_controller(parts);
        }
        for node in 0..NODES {
            self.bring_back(parts, node);
        }
        let began = Instant::now();
        let mut left = self.jobs_and_bad_nodes();
        while !left.is_empty() {
            assert!(began.elapsed() < CEILING, "the cluster keeps jobs, or nodes that it does not use:\n{left}");
            std::thread::sleep(PAUSE);
            self.resume_drained();
            left = self.jobs_and_bad_nodes();
        }
    }

    /// Returns a line for each job in the queue and each node that is not idle, or why that is not known.
    fn jobs_and_bad_nodes(&self) -> String {
        let jobs = self.slurm("squeue", &["--noheader", "--format=%i %j %T %r %N"]);
        let nodes = self.slurm("sinfo", &["--noheader", "--Node", "--partition=agents", "--format=%N %t"]);
        if nodes.is_empty() {
            return "the controller does not answer".to_owned();
        }
        let is_bad = |node: &&str| !node.ends_with(" idle");
        jobs + &nodes.lines().filter(is_bad).collect::<Vec<_>>().join("\n")
    }

    /// Lets the controller use nodes again that it has drained: one that comes back with an older state can give the number
    /// of a job to another one, whose start then fails.
    pub fn resume_drained(&self) {
        let drained = self.slurm("sinfo", &["--noheader", "--Node", "--states=drained", "--format=%N"]);
        for node in drained.lines() {
            self.slurm("scontrol", &["update", &format!("NodeName={node}"), "State=RESUME"]);
        }
    }

    /// Returns what a command of Slurm prints.
    fn slurm(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(program);
        command.args(arguments).env("SLURM_CONF", self.cluster.configuration());
        String::from_utf8_lossy(&command.output().expect("it runs").stdout).into_owned()
    }

    /// Copies all files of the cluster, and the world in them, before it is stopped. Returns their folder.
    pub fn keep_files(&self) -> PathBuf {
        let kept = tempfile::Builder::new().prefix("chaos-cluster-").tempdir().expect("a temporary folder").keep();
        // Sockets and files of running daemons may be left out.
        let _ = Command::new("cp").arg("-a").arg(self.cluster.folder()).arg(&kept).output();
        kept
    }
}

/// Returns a process by its number on this machine. It names itself by that on its own host, which another process of this
/// machine may have too.
pub fn seen_here(process: &Identity, root: &Path) -> Option<Identity> {
    let pids = pids_with(root).into_iter().filter(|pid| has_number(*pid, process.pid));
    pids.filter_map(Identity::of).find(|found| found.started == process.started)
}

/// Returns the processes of this machine, on any of its hosts, that have a path in a variable.
pub fn pids_with(root: &Path) -> Vec<u32> {
    let root = root.display().to_string();
    let has_it = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        String::from_utf8_lossy(&environment).contains(&root)
    };
    pids().into_iter().filter(has_it).collect()
}

/// Returns whether a supervisor of this attempt runs on any host of this machine. It may be one of a second start, which ends
/// at the claim.
pub fn has_supervisor(attempt: &Path) -> bool {
    !supervisors_of(attempt).is_empty()
}

/// Returns whether the supervisor runs that has claimed this attempt and written its status.
pub fn is_owner_alive(attempt: &Path) -> bool {
    let status = fs::read(attempt.join("status.json")).unwrap_or_default();
    let status: Value = serde_json::from_slice(&status).unwrap_or_default();
    let Ok(owner) = serde_json::from_value::<Identity>(status["supervisor"].clone()) else { return false };
    let is_it =
        |pid: u32| has_number(pid, owner.pid) && Identity::of(pid).is_some_and(|it| it.started == owner.started);
    supervisors_of(attempt).into_iter().any(is_it)
}

fn supervisors_of(attempt: &Path) -> Vec<u32> {
    let attempt = attempt.display().to_string();
    let is_it = |pid: &u32| {
        let arguments = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        arguments.split('\0').skip(1).take(3).eq(["supervise", "--job", &attempt])
    };
    pids().into_iter().filter(is_it).collect()
}

/// Returns whether a process has this number on its own host.
fn has_number(pid: u32, own: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    numbers.split_whitespace().skip(1).last() == Some(&own.to_string())
}

fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
