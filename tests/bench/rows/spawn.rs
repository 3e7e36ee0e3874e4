//! From the request to the first instruction of the CLI.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use orchestrator_boss::process::{DetachedLaunch, Program, start_detached};
use serde_json::json;
use tokio::io::AsyncBufReadExt;

use crate::agent::{Agent, program};
use crate::clock;
use crate::server::Server;
use crate::table::{Line, Sides};
use crate::world::{World, created, mission, mission_in, rest, until_settled};

/// Files in the repository, in all rows with worktrees.
pub const FILES: usize = 600;

pub fn in_a_folder() -> Vec<Line> {
    let world = World::with_repository(FILES);
    let mut server = world.server(8);
    let mut unconfined_server = world.server_with(8, "confine = \"off\"");
    let folder = world.place("given");
    let (mut sides, mut confinement) = (Sides::default(), Sides::default());
    for number in 0..41 {
        let ours = to_first_instruction(&world, &mut server, &format!("a{number}"), &folder);
        let unconfined = to_first_instruction(&world, &mut unconfined_server, &format!("b{number}"), &folder);
        rest();
        let began = clock::now();
        let mut child = world.bell.start_bare(&folder);
        let agent = world.bell.answer();
        let floor = clock::between(began, agent.began);
        agent.exit();
        child.wait().expect("the program exits");
        // The first run of each side loads programs from the disk.
        if number > 0 {
            sides.ours.push(ours);
            sides.floor.push(floor);
            confinement.ours.push(ours);
            confinement.floor.push(unconfined);
        }
    }
    let what = "`create_worker_mission` in a given folder → first instruction of the CLI";
    let confined = "the same, confined by the kernel";
    vec![
        sides.plus(what, "fork and exec of the same program", 15.0, 40.0),
        confinement.plus(confined, "the same with `confine = \"off\"`", 1.0, 10.0),
    ]
}

/// Returns the time from the request for a mission to the first instruction of its CLI.
fn to_first_instruction(world: &World, server: &mut Server, title: &str, folder: &Path) -> f64 {
    rest();
    let began = clock::now();
    let answer = server.call("create_worker_mission", mission_in(title, folder));
    let agent = world.bell.answer();
    let time = clock::between(began, agent.began);
    agent.exit();
    until_settled(server, &[created(&answer)]);
    time
}

pub fn in_a_worktree() -> Vec<Line> {
    let sides = in_worktrees(21, None);
    let what = format!("the same with its own worktree ({FILES} files)");
    vec![sides.times(&what, "`git worktree add`, then fork and exec", 1.25)]
}

/// Measures workers in worktrees of their own, with this setup command. The floor runs it with `sh -c`.
pub fn in_worktrees(rounds: usize, setup_command: Option<&str>) -> Sides {
    let world = World::with_repository(FILES);
    let mut server = world.server(8);
    let mut sides = Sides::default();
    for number in 0..rounds {
        rest();
        let mut mission = mission(&number.to_string());
        if let Some(command) = setup_command {
            mission["setup_command"] = command.into();
        }
        let began = clock::now();
        let answer = server.call("create_worker_mission", mission);
        let agent = world.bell.answer();
        let ours = clock::between(began, agent.began);
        agent.exit();
        until_settled(&mut server, &[created(&answer)]);
        rest();
        let (branch, place) = (format!("floor-{number}"), world.path("work").join(number.to_string()));
        let began = clock::now();
        world.git(&["worktree", "add", "-q", "-b", &branch, &place.to_string_lossy(), "main"]);
        if let Some(command) = setup_command {
            let mut shell = world.sealed("/bin/sh");
            let status = shell.args(["-c", command]).current_dir(&place).status().expect("a shell");
            assert!(status.success(), "{command} ended with {status}");
        }
        let mut child = world.bell.start_bare(&place);
        let agent = world.bell.answer();
        let floor = clock::between(began, agent.began);
        agent.exit();
        child.wait().expect("the program exits");
        // The first run of each side loads programs from the disk.
        if number > 0 {
            sides.ours.push(ours);
            sides.floor.push(floor);
        }
    }
    sides
}

pub fn a_batch() -> Vec<Line> {
    const BATCH: usize = 16;
    let world = World::with_repository(FILES);
    let mut server = world.server(BATCH);
    let mut sides = Sides::default();
    let last = |agents: &[Agent]| agents.iter().map(|agent| agent.began).max().expect("there are some");
    for round in 0..6 {
        rest();
        let missions: Vec<_> = (0..BATCH).map(|number| mission(&format!("{round}-{number}"))).collect();
        let began = clock::now();
        let answer = server.call("batch_create_workers", json!({"workers": missions}));
        let agents: Vec<Agent> = (0..BATCH).map(|_| world.bell.answer()).collect();
        let ours = clock::between(began, last(&agents));
        for agent in agents {
            agent.exit();
        }
        let results = answer["results"].as_array().expect("a list");
        let ids: Vec<String> = results.iter().map(|it| it["worker_id"].as_str().expect("an id").to_owned()).collect();
        until_settled(&mut server, &ids);
        rest();
        let script = "for i in $(seq $1); do git worktree add -q -b floor-$2-$i ../work/$2-$i main; \
                      (cd ../work/$2-$i; exec \"$0\" agent \"$3\" </dev/null >/dev/null) & done; wait";
        let mut shell = world.sealed("sh");
        shell.args(["-c", script]).arg(program()).args([BATCH.to_string(), round.to_string()]).arg(world.bell.path());
        let began = clock::now();
        let mut shell = shell.stderr(Stdio::null()).spawn().expect("a shell");
        let agents: Vec<Agent> = (0..BATCH).map(|_| world.bell.answer()).collect();
        let floor = clock::between(began, last(&agents));
        for agent in agents {
            agent.exit();
        }
        shell.wait().expect("the program exits");
        if round > 0 {
            sides.ours.push(ours);
            sides.floor.push(floor);
        }
    }
    let what = format!("batch of {BATCH} with worktrees ({FILES} files) → first instruction of the last one");
    vec![sides.times(&what, "a shell that does the same one after another", 0.8)]
}

pub fn beside_ballast() -> Vec<Line> {
    let mut without = Spawner::start(0);
    let mut with = Spawner::start(1024);
    let mut sides = Sides::default();
    for number in 0..101 {
        let (floor, ours) = (without.spawn(), with.spawn());
        if number > 0 {
            sides.floor.push(floor);
            sides.ours.push(ours);
        }
    }
    let what = "start of a supervisor's process by a process with 1 GiB of memory → first instruction";
    vec![sides.times(what, "the same by one without", 2.0)]
}

/// A process that starts others as the server does, with this much memory in use.
struct Spawner {
    process: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

impl Spawner {
    fn start(mebibytes: usize) -> Self {
        let mut command = Command::new(program());
        command.args(["spawner", &mebibytes.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("the program starts");
        let output = BufReader::new(process.stdout.take().expect("a piped stream")).lines();
        let mut spawner = Self { input: process.stdin.take(), output, process };
        spawner.line();
        spawner
    }

    fn spawn(&mut self) -> f64 {
        self.input.as_mut().expect("a piped stream").write_all(b"go\n").expect("it reads");
        self.line().parse().expect("a number")
    }

    fn line(&mut self) -> String {
        self.output.next().expect("it answers").expect("text")
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.process.wait();
    }
}

/// Runs the spawner with the program's own code. It exits at the end of its input.
pub fn spawn_on_demand(mebibytes: usize) {
    let ballast = vec![1_u8; mebibytes << 20];
    let folder = tempfile::tempdir().expect("a temporary folder");
    let launch = DetachedLaunch {
        program: Program::at(program()),
        args: vec!["stamp".into()],
        cwd: folder.path().to_owned(),
        env_set: BTreeMap::new(),
        env_remove: Vec::new(),
        log: folder.path().join("log"),
        keep_stdin: false,
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    println!("ready");
    for _ in std::io::stdin().lines() {
        let took = runtime.block_on(async {
            let began = clock::now();
            let started = start_detached(&launch).expect("the program starts");
            let mut said = String::new();
            tokio::io::BufReader::new(started.ready).read_line(&mut said).await.expect("it says when");
            started.exited.await.expect("it is waited for").expect("the program exits");
            clock::between(began, said.trim().parse().expect("a number"))
        });
        println!("{took}");
    }
    drop(ballast);
}
