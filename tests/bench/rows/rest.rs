//! Resources at rest, and those of following output.

use std::fs;
use std::process::{Child, Command};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::agent::{self, Agent};
use crate::clock;
use crate::rows::many::with_a_thousand;
use crate::stats::{Samples, number};
use crate::table::Line;
use crate::world::{World, mission_in};

/// Pause before measuring. Threads for blocking work end after 10 s without work.
const SETTLE_DOWN: Duration = Duration::from_secs(12);
const MINUTE: Duration = Duration::from_secs(60);

pub fn server() -> Vec<Line> {
    let (few, many) = (World::with_repository(1), World::with_repository(1));
    let mut empty = few.server(16);
    empty.call("list_worker_missions", json!({}));
    let mut full = many.server(0);
    with_a_thousand(&mut full);
    std::thread::sleep(SETTLE_DOWN);
    let memory = |tasks: &str, pid: u32, most: f64| {
        let holds = Holds::of(pid);
        let what = format!("server at rest, {tasks} tasks: memory (RSS, the program's own pages included)");
        let ours = format!("{} MB, of which {} MB anonymous", number(holds.resident), number(holds.anonymous));
        Line::alone(&what, ours, "–".to_owned(), &format!("{most} MB"), holds.resident <= most)
    };
    let lines = [memory("0", empty.pid(), 12.0), memory("1,000", full.pid(), 24.0)];
    drop((empty, full));
    let quiet = Quiet::new(16);
    let began = cpu(quiet.server.pid());
    std::thread::sleep(MINUTE);
    let took = cpu(quiet.server.pid()) - began;
    let what = "server with 16 quiet workers: CPU in 60 s";
    lines.into_iter().chain([Line::seconds(what, took, 0.2)]).collect()
}

pub fn supervisor() -> Vec<Line> {
    let quiet = Quiet::new(16);
    let pids = quiet.supervisors();
    let began: Vec<f64> = pids.iter().map(|pid| cpu(*pid)).collect();
    std::thread::sleep(MINUTE);
    let took: Samples = pids.iter().zip(began).map(|(pid, began)| cpu(*pid) - began).collect();
    let holds: Vec<Holds> = pids.iter().map(|pid| Holds::of(*pid)).collect();
    let of = |value: fn(&Holds) -> f64| holds.iter().map(value).collect::<Samples>();
    let (share, resident) = (of(|it| it.share), of(|it| it.resident));
    let ours = format!("{} MB, RSS {} MB", number(share.largest()), number(resident.largest()));
    let what = "supervisor at rest, the largest of 16: memory (PSS: pages that several share are divided among them)";
    let memory = Line::alone(what, ours, "–".to_owned(), "5 MB", share.largest() <= 5.0);
    vec![memory, Line::seconds("supervisor at rest, the busiest of 16: CPU in 60 s", took.largest(), 0.05)]
}

pub fn follow() -> Vec<Line> {
    let floor = share_of_bare_followers();
    let mut quiet = Quiet::new(FOLLOWED);
    quiet.agents.iter_mut().for_each(talk);
    let pids: Vec<u32> = quiet.supervisors().into_iter().chain([quiet.server.pid()]).collect();
    let from = Timestamp::now();
    let share = share(&pids);
    let delays = quiet.delays(from);
    let what = "following 64 workers that print 1 MB/s in all, in lines of 512 bytes: CPU of the server and of all supervisors";
    let of_a_core = |share| format!("{} % of a core", number(share));
    let times = format!("{:.2} ×", share / floor);
    let cpu = Line::alone(what, of_a_core(share), times, "2.5 ×", share <= 2.5 * floor);
    let cpu = cpu.beside(format!("64 programs that only copy what was printed: {}", of_a_core(floor)));
    vec![cpu, Line::at_most("the same: from the print of a line to its event in the log", &delays, 250.0)]
}

const FOLLOWED: usize = 64;

/// Makes an agent print its share of 1 MB/s, in lines of 512 bytes.
fn talk(agent: &mut Agent) {
    const LINE: usize = 512;
    agent.talk(Duration::from_secs_f64((FOLLOWED * LINE) as f64 / 1e6), LINE);
}

/// Returns the CPU use of following processes, in % of a core.
fn share(pids: &[u32]) -> f64 {
    const WINDOW: Duration = Duration::from_secs(20);
    std::thread::sleep(Duration::from_secs(2));
    let total = || pids.iter().map(|pid| cpu(*pid)).sum::<f64>();
    let began = total();
    std::thread::sleep(WINDOW);
    (total() - began) / WINDOW.as_secs_f64() * 100.0
}

/// Returns the CPU use of minimal followers of the same agents.
fn share_of_bare_followers() -> f64 {
    let world = World::plain();
    let (mut agents, mut programs, mut followers) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..FOLLOWED {
        let place = world.place(&number.to_string());
        let (printed, log) = (place.join("printed"), place.join("log"));
        programs.push(world.bell.start_into(&place, &printed));
        agents.push(world.bell.answer());
        let follower = Command::new(agent::program()).arg("follow").args([printed, log]).spawn();
        followers.push(follower.expect("the program starts"));
    }
    // Time until each follower waits.
    std::thread::sleep(Duration::from_secs(1));
    agents.iter_mut().for_each(talk);
    let share = share(&followers.iter().map(Child::id).collect::<Vec<_>>());
    for mut program in followers.into_iter().chain(programs) {
        let _ = program.kill();
        let _ = program.wait();
    }
    share
}

/// A server with idle workers.
struct Quiet {
    server: crate::server::Server,
    agents: Vec<Agent>,
    world: World,
}

impl Quiet {
    fn new(number: usize) -> Self {
        let world = World::plain();
        let mut server = world.server(number);
        let missions: Vec<Value> = (0..number)
            .map(|number| {
                let mut mission = mission_in(&number.to_string(), &world.place(&number.to_string()));
                mission["backend"] = json!("lines");
                mission
            })
            .collect();
        server.call("batch_create_workers", json!({"workers": missions}));
        let agents = missions.iter().map(|_| world.bell.answer()).collect();
        std::thread::sleep(SETTLE_DOWN);
        Self { server, agents, world }
    }

    fn attempts(&self) -> impl Iterator<Item = std::path::PathBuf> {
        let folders = fs::read_dir(self.world.repo().join(".orchestrator/workers")).expect("there are some").flatten();
        folders.map(|folder| folder.path().join("attempts/1"))
    }

    fn supervisors(&self) -> Vec<u32> {
        let status = |attempt: std::path::PathBuf| fs::read(attempt.join("status.json")).expect("an existing path");
        let pid = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).ok()?["supervisor"]["pid"].as_u64();
        self.attempts().map(|it| pid(status(it)).expect("a pid") as u32).collect()
    }

    /// Returns, in milliseconds, the time from each line printed since then to its recorded event.
    fn delays(&self, from: Timestamp) -> Samples {
        let logs = self.attempts().map(|attempt| fs::read_to_string(attempt.join("events.jsonl")).expect("a log"));
        let delay = |line: &str| {
            let event: Value = serde_json::from_str(line).ok()?;
            let at: Timestamp = event["at"].as_str()?.parse().ok()?;
            let printed: u64 = event["text"].as_str()?.split(' ').nth(1)?.parse().ok()?;
            (at >= from).then(|| clock::between(printed, at.as_nanosecond() as u64))
        };
        let delays: Samples = logs.flat_map(|log| log.lines().filter_map(delay).collect::<Vec<_>>()).collect();
        delays
    }
}

/// The memory of a process, in MB.
struct Holds {
    resident: f64,
    /// Resident pages; shared ones are divided among processes.
    share: f64,
    anonymous: f64,
}

impl Holds {
    fn of(pid: u32) -> Self {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("a live process");
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a known field");
            let kib: f64 = line.split_whitespace().next().and_then(|it| it.parse().ok()).expect("a number");
            kib * 1024.0 / 1e6
        };
        Self { resident: field("Rss:"), share: field("Pss:"), anonymous: field("Anonymous:") }
    }
}

/// Returns the CPU seconds of a process's threads, from the scheduler. The times in `stat` have steps of 10 ms, so that
/// many small processes would seem to use nothing.
pub(super) fn cpu(pid: u32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("a live process").flatten();
    let used = |thread: fs::DirEntry| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    threads.filter_map(used).sum::<u64>() as f64 / 1e9
}
