//! Workers as jobs of a Slurm cluster on this machine (`tests/slurm/fixture.sh`), with the server on its login host. Without
//! root, Linux or Slurm these rows are left out.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::rest::cpu;
use crate::agent::{Agent, program};
use crate::clock;
use crate::cluster::Cluster;
use crate::server::Server;
use crate::stats::Samples;
use crate::table::{Line, Sides};
use crate::world::{World, created, mission_in, rest, until_settled};

const MINUTE: Duration = Duration::from_secs(60);
/// Time after the start of workers until nothing more happens.
const SETTLING: Duration = Duration::from_secs(12);
/// The longest wait for a condition.
const CEILING: Duration = Duration::from_secs(120);
/// Intervals at which a server reads the files of few workers, and of more.
const POLL: Duration = Duration::from_millis(250);
const POLL_OF_MORE: Duration = Duration::from_secs(1);
/// Number of workers that run at once in the rows with many workers, and of those that wait.
const RUNNING: usize = 50;
const MANY: usize = 200;

/// A cluster, a folder that its hosts share, and a server on the login host.
struct Remote {
    server: Server,
    world: World,
    cluster: Cluster,
}

impl Remote {
    /// Starts a cluster with this number of processors on its only node. `None` if none can run here.
    fn start(cpus: usize) -> Option<Self> {
        let (cpus, memory) = (cpus.to_string(), (cpus * 10).to_string());
        let cluster = Cluster::start(&[("NODES", "1"), ("CPUS", &cpus), ("MEM", &memory), ("MEMLIMIT", "0")])?;
        let world = World::within(&cluster.shared());
        wrap_commands(&world);
        let launcher = "[launchers.cluster]\nkind = \"slurm\"\ncpus = 1\nmemory = \"10M\"\nmax_jobs = 1000\n";
        let settings = world.settings(8, "", launcher);
        let mut login = cluster.on_login().into_iter();
        let mut command = world.sealed(login.next().expect("a program"));
        command.args(login).args(["sh", "-c", "cd \"$0\" && exec \"$@\""]).arg(world.repo());
        command.arg(env!("CARGO_BIN_EXE_orchestrator-boss")).arg("--config").arg(settings);
        let log = fs::File::options().create(true).append(true).open(world.path("server.log"));
        command.env("PATH", counted_path(&world)).env("SLURM_CONF", cluster.configuration());
        command.stderr(log.expect("a log"));
        Some(Self { server: Server::start(command), world, cluster })
    }

    /// Returns a mission in a job.
    fn mission(&self, title: &str) -> Value {
        let mut mission = mission_in(title, &self.world.place(title));
        mission["run_on"] = json!("cluster");
        mission
    }

    fn create(&mut self, title: &str) -> String {
        let mission = self.mission(title);
        created(&self.server.call("create_worker_mission", mission))
    }

    /// Creates this many workers in jobs and returns the time until all jobs are submitted, in milliseconds.
    fn submit(&mut self, number: usize) -> f64 {
        let before = self.submitted();
        let missions: Vec<Value> = (0..number).map(|at| self.mission(&format!("{before}-{at}"))).collect();
        let began = clock::now();
        self.server.call("batch_create_workers", json!({"workers": missions}));
        until("all jobs are submitted", || self.submitted() == before + number);
        clock::between(began, clock::now())
    }

    /// Returns the number of submissions that have succeeded.
    fn submitted(&self) -> usize {
        self.calls().iter().filter(|call| *call == "sbatch").count()
    }

    /// Returns the names of the scheduler's commands that the server has run to their end.
    fn calls(&self) -> Vec<String> {
        let log = fs::read_to_string(self.world.place("bin").join("log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    /// Starts a cluster on which further jobs wait.
    fn full() -> Option<Self> {
        let remote = Self::start(2)?;
        remote.fill();
        Some(remote)
    }

    /// Fills the node with a job of another program.
    fn fill(&self) {
        self.sbatch(&["--exclusive"], "exec sleep 1000");
        until("the node is full", || !self.jobs("RUNNING").is_empty());
    }

    /// Submits a script, as the server does.
    fn sbatch(&self, arguments: &[&str], script: &str) {
        let mut command = self.slurm("sbatch");
        command.args(["--parsable", "--export=ALL", "--no-requeue", "--mem=10M", "--output=/dev/null"]);
        let mut sbatch =
            command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts");
        let mut input = sbatch.stdin.take().expect("a piped stream");
        writeln!(input, "#!/bin/bash\n{script}").expect("it reads");
        drop(input);
        assert!(sbatch.wait().expect("a child").success());
    }

    /// Returns the jobs in one of these states.
    fn jobs(&self, states: &str) -> Vec<String> {
        let output = self.slurm("squeue").args(["--noheader", "--format=%i", "--states", states]).output();
        let output = output.expect("squeue runs");
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }

    fn slurm(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", counted_path(&self.world)).env("HOME", self.world.path("")).current_dir("/");
        command.env("SLURM_CONF", self.cluster.configuration());
        command
    }

    fn until_idle(&self) {
        self.until_left(0);
    }

    /// Waits until only this many jobs are left.
    fn until_left(&self, number: usize) {
        until("the jobs are over", || self.jobs("PENDING,CONFIGURING,RUNNING,COMPLETING").len() <= number);
    }

    /// Creates this many workers, waits until the first of them run, and returns those.
    fn quiet_workers(&mut self, number: usize, running: usize) -> Vec<Agent> {
        if number > 0 {
            self.submit(number);
        }
        (0..running).map(|_| self.world.bell.answer()).collect()
    }

    /// Returns the milliseconds of a cancellation that must succeed.
    fn cancel(&mut self, worker: &str) -> f64 {
        let began = clock::now();
        let call = self.server.begin("cancel_worker", json!({"worker_id": worker}));
        let (at, answer) = self.server.end(call);
        assert_eq!(answer["status"], "cancelled", "{answer:#}");
        clock::between(began, at)
    }
}

pub fn start() -> Vec<Line> {
    let Some(mut remote) = Remote::start(2) else { return Vec::new() };
    let (mut sides, place) = (Sides::default(), remote.world.place("given"));
    for number in 0..16 {
        let began = clock::now();
        let worker = remote.create(&number.to_string());
        let agent = remote.world.bell.answer();
        let ours = clock::between(began, agent.began);
        agent.exit();
        until_settled(&mut remote.server, &[worker]);
        remote.until_idle();
        let began = clock::now();
        let script = format!("cd {place:?} && exec {:?} agent {:?}", program(), remote.world.bell.path());
        remote.sbatch(&[], &script);
        let agent = remote.world.bell.answer();
        let floor = clock::between(began, agent.began);
        agent.exit();
        remote.until_idle();
        if number > 0 {
            sides.ours.push(ours);
            sides.floor.push(floor);
        }
    }
    let what = "`create_worker_mission` on an idle node of a cluster → first instruction of the CLI";
    vec![sides.plus_median(what, "`sbatch` of a script that executes the CLI", 150.0)]
}

pub fn settle() -> Vec<Line> {
    [(1, POLL), (RUNNING, POLL_OF_MORE)]
        .into_iter()
        .filter_map(|(alive, poll)| settle_beside(alive - 1, poll))
        .collect()
}

/// Measures the end of one worker while this many others are quiet.
fn settle_beside(others: usize, poll: Duration) -> Option<Line> {
    let mut remote = Remote::start(others + 2)?;
    let quiet = remote.quiet_workers(others, others);
    let mut sides = Sides::default();
    for number in 0..21 {
        // The end comes at any moment between two polls.
        let phase = poll.mul_f64(f64::from(number * 7 % 20) / 20.0);
        let worker = remote.create(&number.to_string());
        let agent = remote.world.bell.answer();
        let wait = remote.server.begin("wait_for_worker", json!({"worker_id": worker, "timeout_seconds": 50}));
        rest();
        std::thread::sleep(phase);
        let ended = agent.exit();
        let (at, answer) = remote.server.end(wait);
        assert_eq!(answer["settled"][0]["status"], "completed", "{answer:#}");
        let floor = notice(&remote.world.path("record"), phase, poll);
        if number > 0 {
            sides.ours.push(clock::between(ended, at));
            sides.floor.push(floor);
        }
        remote.until_left(others);
    }
    drop(quiet);
    let what = format!("CLI ends on a node → a blocked wait answers, {} alive", others + 1);
    let floor = format!("a file is written → a loop that reads it every {} ms", poll.as_millis());
    Some(sides.plus_median(&what, &floor, 150.0))
}

/// Returns the milliseconds from a write to a file until a loop that reads the file notices it.
fn notice(path: &std::path::Path, phase: Duration, poll: Duration) -> f64 {
    fs::write(path, "before").expect("a file");
    let reader = std::thread::spawn({
        let path = path.to_owned();
        move || {
            while fs::read(&path).expect("a file") != b"after" {
                std::thread::sleep(poll);
            }
            clock::now()
        }
    });
    std::thread::sleep(poll + phase);
    let written = clock::now();
    fs::write(path, "after").expect("a file");
    clock::between(written, reader.join().expect("the loop ends"))
}

pub fn cancel() -> Vec<Line> {
    let Some(mut remote) = Remote::start(2) else { return Vec::new() };
    let mut sides = Sides::default();
    for number in 0..11 {
        let worker = remote.create(&format!("r{number}"));
        let _agent = remote.world.bell.answer();
        rest();
        let ours = remote.cancel(&worker);
        let mission = mission_in(&format!("l{number}"), &remote.world.place("given"));
        let worker = created(&remote.server.call("create_worker_mission", mission));
        let _agent = remote.world.bell.answer();
        rest();
        let floor = remote.cancel(&worker);
        if number > 0 {
            sides.ours.push(ours);
            sides.floor.push(floor);
        }
    }
    remote.until_idle();
    let running =
        sides.plus_median("cancel of a worker that runs on a node → answered", "the same worker, local", 1_200.0);
    remote.fill();
    let dead: Vec<String> = (0..15).map(|number| remote.create_waiting(&format!("d{number}"))).collect();
    let alive: Vec<String> = (0..15).map(|number| remote.create_waiting(&format!("a{number}"))).collect();
    let alive: Samples = alive.iter().map(|worker| remote.cancel(worker)).collect();
    remote.cluster.run("ctl-kill", &[]);
    let dead: Samples = dead.iter().map(|worker| remote.cancel(worker)).collect();
    let waiting = "cancel of a worker whose job waits → answered";
    vec![
        Line::at_most(&format!("{waiting}, controller alive"), &alive, 50.0),
        Line::at_most(&format!("{waiting}, controller dead"), &dead, 50.0),
        running,
    ]
}

impl Remote {
    /// Creates a worker whose job waits in the queue of the cluster.
    fn create_waiting(&mut self, title: &str) -> String {
        let worker = self.create(title);
        until("its job waits", || {
            let seen = self.server.call("get_worker_status", json!({"worker_id": worker}));
            seen["worker"]["waits_for"].as_str().is_some_and(|why| why.contains("(job "))
        });
        worker
    }
}

pub fn submit() -> Vec<Line> {
    let mut sides = Sides::default();
    for _ in 0..3 {
        // A new cluster each time, since a submission takes longer the more jobs wait.
        let Some(remote) = Remote::full() else { return Vec::new() };
        let began = clock::now();
        (0..MANY).for_each(|_| remote.sbatch(&[], "exec true"));
        sides.floor.push(clock::between(began, clock::now()));
        let Some(mut remote) = Remote::full() else { return Vec::new() };
        sides.ours.push(remote.submit(MANY));
    }
    vec![sides.times("200 missions for a cluster → all submitted", "`sbatch`, 200 times, one after another", 1.5)]
}

pub fn calls() -> Vec<Line> {
    let Some(mut remote) = Remote::full() else { return Vec::new() };
    let mut queued = 0;
    let lines = [1, 50, MANY].map(|number| {
        remote.submit(number - queued);
        queued = number;
        // The poll that follows the submissions is not counted.
        std::thread::sleep(Duration::from_secs(2));
        let before = remote.calls().len();
        std::thread::sleep(MINUTE);
        let calls = remote.calls().split_off(before);
        let kinds: BTreeSet<String> = calls.iter().cloned().collect();
        let kinds: Vec<String> = kinds.into_iter().collect();
        let what = format!("commands of the scheduler in 60 s, {number} jobs queued ({})", kinds.join(", "));
        Line::alone(&what, calls.len().to_string(), "–".to_owned(), "4", calls.len() <= 4)
    });
    lines.into()
}

pub fn at_rest() -> Vec<Line> {
    [supervisors_at_rest(), server_at_rest()].into_iter().flatten().collect()
}

fn supervisors_at_rest() -> Option<Line> {
    const WORKERS: usize = 8;
    let mut remote = Remote::start(WORKERS)?;
    let quiet = remote.quiet_workers(WORKERS, WORKERS);
    std::thread::sleep(SETTLING);
    let supervisors = supervisors(&remote.world.repo());
    assert_eq!(supervisors.len(), WORKERS);
    let began: Vec<f64> = supervisors.iter().map(|pid| cpu(*pid)).collect();
    std::thread::sleep(MINUTE);
    let took: Samples = supervisors.iter().zip(began).map(|(pid, began)| cpu(*pid) - began).collect();
    drop(quiet);
    Some(Line::seconds("supervisor in a job at rest, the busiest of 8: CPU in 60 s", took.largest(), 0.1))
}

fn server_at_rest() -> Option<Line> {
    let mut remote = Remote::start(RUNNING)?;
    let quiet = remote.quiet_workers(RUNNING + MANY, RUNNING);
    std::thread::sleep(SETTLING);
    let server = server_of(&remote.world.repo());
    let began = cpu(server);
    std::thread::sleep(MINUTE);
    let took = cpu(server) - began;
    drop(quiet);
    Some(Line::seconds("server with 200 workers queued and 50 quiet on a node: CPU in 60 s", took, 0.6))
}

/// Returns the pids, on this host, of the supervisors of a repository.
fn supervisors(repo: &std::path::Path) -> Vec<u32> {
    let folder = repo.display().to_string();
    programs(|words| words.iter().any(|word| word == "supervise") && words.iter().any(|word| word.starts_with(&folder)))
}

/// Returns the pid, on this host, of the server of a repository.
fn server_of(repo: &std::path::Path) -> u32 {
    let settings = repo.parent().expect("a parent").display().to_string();
    let is_server = |words: &[String]| {
        words.len() == 3 && words[1] == "--config" && words[2].starts_with(&settings) && words[0].ends_with("boss")
    };
    programs(is_server)[0]
}

fn programs(is_it: impl Fn(&[String]) -> bool) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("the process table").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let words = |pid: u32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).into_owned();
        command.split_terminator('\0').map(str::to_owned).collect::<Vec<_>>()
    };
    pids.filter(|pid| is_it(&words(*pid))).collect()
}

/// Creates wrappers of the scheduler's commands, which log each call.
fn wrap_commands(world: &World) {
    let folder = world.place("bin");
    for name in ["sbatch", "squeue", "scancel", "sinfo", "scontrol"] {
        let Some(real) = std::env::split_paths(&path()).map(|folder| folder.join(name)).find(|it| it.is_file()) else {
            continue;
        };
        let script = format!("#!/bin/sh\n{real:?} \"$@\" || exit\necho {name} >>{:?}\n", folder.join("log"));
        write_program(folder.join(name), &script);
    }
}

/// Returns a PATH with these wrappers first. The floors use it too, since logging takes time.
fn counted_path(world: &World) -> std::ffi::OsString {
    let path = path();
    let folders = std::iter::once(world.place("bin")).chain(std::env::split_paths(&path));
    std::env::join_paths(folders).expect("a PATH")
}

/// Writes a program through another process. If this one did, a child of another thread could inherit the open file,
/// and the system would refuse to execute the program.
fn write_program(path: PathBuf, script: &str) {
    let mut writer = Command::new("sh");
    writer.args(["-c", "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"", "sh", script]).arg(path);
    assert!(writer.status().expect("sh runs").success());
}

fn path() -> std::ffi::OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < CEILING, "not within {} s: {what}", CEILING.as_secs());
        std::thread::sleep(Duration::from_millis(10));
    }
}
