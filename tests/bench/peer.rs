//! Comparison with CAO, an orchestrator that starts CLIs in tmux (the Python package `cli-agent-orchestrator`):
//! `cargo bench --bench peer -- --cao FOLDER [ROW…]`.
//!
//! Both sides run the same CLI in the same folders, alternately in one run. Each side uses its fastest documented way.
//! Linux only: memory is read from /proc.

// Some helpers are used only by the other benchmark.
#[expect(dead_code)]
mod agent;
mod cao;
mod clock;
mod machine;
#[expect(dead_code)]
mod server;
#[expect(dead_code)]
mod stats;
#[expect(dead_code)]
mod world;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use crate::agent::{Agent, program};
use crate::cao::Cao;
use crate::server::Server;
use crate::stats::{Samples, number};
use crate::world::{World, created, mission_in, rest, until_settled};

const HOW_TO_INSTALL: &str = "Say where the peer's programs are. To install them (Python 3.10 or newer, and tmux):
    python3 -m venv FOLDER && FOLDER/bin/pip install cli-agent-orchestrator==2.5.4
    cargo bench --bench peer -- --cao FOLDER/bin";

/// Number of workers that are started at once.
const BATCH: usize = 16;
/// Shortest turn. CAO checks twice a second that a mission has arrived, and reports no end before.
const SHORT_TURN: Duration = Duration::from_millis(1_200);
/// Time limit for detecting the end of a CLI that has died.
const PATIENCE: Duration = Duration::from_secs(15);
/// Pause before measuring. Threads for blocking work end after 10 s without work.
const SETTLE_DOWN: Duration = Duration::from_secs(12);

type Row = (&'static str, fn(&mut Both));
const ROWS: [Row; 5] =
    [("start", start), ("batch", batch), ("handoff", hand_off), ("death", death), ("memory", memory)];

fn main() -> ExitCode {
    let began = clock::now();
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["agent", socket] => cao::run_cli(began, Path::new(socket)),
        // The server checks the version of the backend `bench`.
        ["--version"] => println!("bench 1"),
        ["--cao", bin, ref chosen @ ..] if cfg!(target_os = "linux") && Path::new(bin).join("cao-server").exists() => {
            measure(&fs::canonicalize(bin).expect("an existing path"), chosen);
        }
        _ => {
            eprintln!("{HOW_TO_INSTALL}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn measure(bin: &Path, chosen: &[&str]) {
    println!("{}", machine::describe());
    println!("{}, {}\n", machine::said(bin.join("cao"), &["--version"]), machine::said("tmux", &["-V"]));
    println!("| what | CAO | ours |\n|---|---|---|");
    for (_, row) in ROWS.iter().filter(|(name, _)| chosen.is_empty() || chosen.contains(name)) {
        row(&mut Both::start(bin));
    }
    println!("\nmedian (5th to 95th percentile)");
}

/// Both sides, with one bell and the same working directories.
struct Both {
    server: Server,
    cao: Cao,
    world: World,
}

impl Both {
    fn start(bin: &Path) -> Self {
        let world = World::plain();
        let cao = Cao::start(bin, &world.path("cao"), &world.bell);
        Self { server: world.server(BATCH), cao, world }
    }

    fn places(&self) -> Vec<PathBuf> {
        (0..BATCH).map(|place| self.world.place(&place.to_string())).collect()
    }

    fn begun(&self, number: usize) -> Vec<Agent> {
        (0..number).map(|_| self.world.bell.answer()).collect()
    }

    /// Returns the time from a worker's end to the answer of a wait for it, and its status.
    fn wait(&mut self, worker: &str, end: impl FnOnce() -> u64) -> (f64, String) {
        let wait = self.server.begin("wait_for_any_worker", json!({"worker_ids": [worker], "timeout_seconds": 50}));
        rest();
        let ended = end();
        let (at, answer) = self.server.end(wait);
        (clock::between(ended, at), answer["settled"][0]["status"].as_str().expect("a settled worker").to_owned())
    }

    /// Prints a line for each of these, measured in turns.
    fn compare<const N: usize>(
        &mut self,
        rounds: u64,
        what: [&str; N],
        ours: impl Fn(&mut Self, u64) -> [f64; N],
        theirs: impl Fn(&Self, u64) -> [f64; N],
    ) {
        let mut took = Vec::new();
        for round in 0..rounds {
            rest();
            let ours = ours(self, round);
            rest();
            took.push((ours, theirs(self, round)));
        }
        // The first run of each side loads programs from the disk.
        let took = &took[1..];
        for (number, what) in what.into_iter().enumerate() {
            let ours: Samples = took.iter().map(|(ours, _)| ours[number]).collect();
            let theirs: Samples = took.iter().map(|(_, theirs)| theirs[number]).collect();
            print(what, &theirs.show(), &ours.show());
        }
    }
}

fn start(both: &mut Both) {
    let what = [
        "request in a given folder → first instruction of the CLI",
        "the same → the CLI has read its mission",
        "the CLI ends its turn → known (CAO: its status, asked for every 10 ms; ours: a blocked `wait_for_any_worker`)",
    ];
    both.compare(9, what, turn, |both, _| {
        let began = clock::now();
        let terminal = both.cao.assign(&both.world.place("given"));
        let mut agent = both.world.bell.answer();
        let (first, read) = (clock::between(began, agent.began), clock::between(began, agent.stamp()));
        std::thread::sleep(SHORT_TURN);
        let ended = agent.exit();
        assert_eq!(both.cao.until(&terminal, "completed", PATIENCE), "completed");
        let known = clock::between(ended, clock::now());
        both.cao.delete(&terminal);
        [first, read, known]
    });
}

/// Runs one worker of this program from the request to its end.
fn turn(both: &mut Both, round: u64) -> [f64; 3] {
    let mission = mission_in(&round.to_string(), &both.world.place("given"));
    let began = clock::now();
    let worker = created(&both.server.call("create_worker_mission", mission));
    let mut agent = both.world.bell.answer();
    let (first, read) = (clock::between(began, agent.began), clock::between(began, agent.stamp()));
    let (known, status) = both.wait(&worker, || agent.exit());
    assert_eq!(status, "completed");
    [first, read, known]
}

fn hand_off(both: &mut Both) {
    let what = ["the CLI ends its turn → a blocked call returns (CAO: `handoff`, which also removes the terminal)"];
    let ours = |both: &mut Both, round| [turn(both, round)[2]];
    both.compare(9, what, ours, |both, round| {
        let (place, cao) = (both.world.place("given"), &both.cao);
        std::thread::scope(|scope| {
            let call = scope.spawn(move || {
                cao.hand_off(&place);
                clock::now()
            });
            let mut agent = both.world.bell.answer();
            agent.stamp();
            // CAO polls once a second, so the ends are spread over a second.
            std::thread::sleep(SHORT_TURN + Duration::from_millis(110 * round));
            let ended = agent.exit();
            [clock::between(ended, call.join().expect("it returns"))]
        })
    });
}

fn batch(both: &mut Both) {
    let what = [
        "16 requested at once (CAO: one call after another) → first instruction of the last CLI",
        "the same → the last CLI has read its mission",
    ];
    let ours = |both: &mut Both, _| {
        let missions = missions(both);
        let began = clock::now();
        let answer = both.server.call("batch_create_workers", json!({"workers": missions}));
        let took = last(both, began);
        let results = answer["results"].as_array().expect("a list");
        let ids: Vec<String> = results.iter().map(|it| it["worker_id"].as_str().expect("an id").to_owned()).collect();
        until_settled(&mut both.server, &ids);
        took
    };
    both.compare(4, what, ours, |both, _| {
        let places = both.places();
        let began = clock::now();
        let terminals: Vec<String> = places.iter().map(|place| both.cao.assign(place)).collect();
        let took = last(both, began);
        terminals.iter().for_each(|terminal| both.cao.delete(terminal));
        took
    });
}

fn missions(both: &Both) -> Vec<Value> {
    both.places().iter().enumerate().map(|(number, place)| mission_in(&number.to_string(), place)).collect()
}

/// Returns the time to the last first instruction and to the last read mission, and ends all agents.
fn last(both: &Both, began: u64) -> [f64; 2] {
    let mut agents = both.begun(BATCH);
    let first = agents.iter().map(|agent| agent.began).max().expect("there are some");
    let read = agents.iter_mut().map(Agent::stamp).max().expect("there are some");
    std::thread::sleep(SHORT_TURN);
    agents.into_iter().for_each(|agent| _ = agent.exit());
    [clock::between(began, first), clock::between(began, read)]
}

fn death(both: &mut Both) {
    let die = |mut agent: Agent| {
        agent.stamp();
        std::thread::sleep(SHORT_TURN);
        drop(agent);
        clock::now()
    };
    let mission = mission_in("dies", &both.world.place("given"));
    let worker = created(&both.server.call("create_worker_mission", mission));
    let agent = both.world.bell.answer();
    let (ours, status) = both.wait(&worker, || die(agent));
    let terminal = both.cao.assign(&both.world.place("given"));
    let ended = die(both.world.bell.answer());
    let theirs = both.cao.until(&terminal, "error", PATIENCE);
    let theirs = format!("`{theirs}` after {} ms", number(clock::between(ended, clock::now())));
    let what = "the CLI dies in the middle of its turn, once → known as `failed` or `error` (looked for it 15 s)";
    print(what, &theirs, &format!("`{status}` after {} ms", number(ours)));
}

fn memory(both: &mut Both) {
    let held = |both: &Both| {
        std::thread::sleep(SETTLE_DOWN);
        [both.world.path("cao"), both.world.path("")].map(|home| held_at(&home))
    };
    let show = |what, [theirs, mcp, ours]: [f64; 3]| {
        let theirs = format!("{} MB + {} MB for `cao-mcp-server`", number(theirs), number(mcp));
        print(what, &theirs, &format!("{} MB", number(ours)));
    };
    let [theirs, ours] = held(both);
    let boss = Server::start(both.cao.mcp_server());
    let [theirs_with_boss, _] = held(both);
    show("memory (PSS) at rest, no workers, CLIs not counted", [theirs, theirs_with_boss - theirs, ours]);
    let missions = missions(both);
    both.server.call("batch_create_workers", json!({"workers": missions}));
    both.places().iter().for_each(|place| _ = both.cao.assign(place));
    let agents = both.begun(2 * BATCH);
    let [theirs_full, ours_full] = held(both);
    let others: Vec<Server> = (0..BATCH).map(|_| Server::start(both.cao.mcp_server())).collect();
    let [theirs_with_all, _] = held(both);
    let more = [theirs_full - theirs_with_boss, theirs_with_all - theirs_full, ours_full - ours];
    show("the same for each of 16 workers", more.map(|more| more / BATCH as f64));
    drop((agents, boss, others));
}

/// Returns the memory, in MB, of all processes except CLIs with this home. Shared pages are divided among processes.
fn held_at(home: &Path) -> f64 {
    let home = format!("HOME={}", home.display());
    let is_one = |process: &PathBuf| {
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        let is_cli = fs::read_link(process.join("exe")).is_ok_and(|it| it == program());
        !is_cli && environment.split(|byte| *byte == 0).any(|it| it == home.as_bytes())
    };
    let held = |process: PathBuf| {
        let text = fs::read_to_string(process.join("smaps_rollup")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.trim().trim_end_matches(" kB").parse::<f64>().ok()
    };
    let processes = fs::read_dir("/proc").expect("this is Linux").flatten().map(|it| it.path());
    processes.filter(is_one).filter_map(held).sum::<f64>() * 1024.0 / 1e6
}

fn print(what: &str, theirs: &str, ours: &str) {
    println!("| {what} | {theirs} | {ours} |");
}
