//! From the last instruction of the CLI to the answer of a wait, with the outcome on the disk.

use std::path::Path;

use serde_json::json;

use crate::agent::Agent;
use crate::clock;
use crate::server::Server;
use crate::table::{Line, Sides};
use crate::world::{World, created, file, mission, mission_in, rest, text};

pub fn in_a_folder() -> Vec<Line> {
    [1, 200].map(beside).into()
}

fn beside(alive: usize) -> Line {
    let world = World::plain();
    let mut server = world.server(alive + 1);
    let others: Vec<_> =
        (1..alive).map(|other| mission_in(&other.to_string(), &world.place(&other.to_string()))).collect();
    if !others.is_empty() {
        server.call("batch_create_workers", json!({"workers": others}));
    }
    let others: Vec<Agent> = others.iter().map(|_| world.bell.answer()).collect();
    let (folder, mut sides) = (world.place("given"), Sides::default());
    for number in 0..41 {
        let answer = server.call("create_worker_mission", mission_in(&format!("n{number}"), &folder));
        let ours = end_of_worker(&world, &mut server, &created(&answer), world.bell.answer());
        rest();
        let floor = end_of_bare(&world, &folder, |_| ());
        if number > 0 {
            sides.ours.push(ours);
            sides.floor.push(floor);
        }
    }
    drop(others);
    let what = format!("CLI exits → a blocked wait answers, outcome on disk, no repository, {alive} alive");
    sides.plus(&what, "`waitpid`, one write, fdatasync, rename", 10.0, 30.0)
}

pub fn in_a_worktree() -> Vec<Line> {
    let world = World::with_repository(600);
    let mut server = world.server(8);
    let mut sides = Sides::default();
    for number in 0..26 {
        let answer = server.call("create_worker_mission", mission(&number.to_string()));
        let agent = world.bell.answer();
        change(&agent.directory);
        let ours = end_of_worker(&world, &mut server, &created(&answer), agent);
        rest();
        let (branch, place) = (format!("floor-{number}"), world.path("work").join(number.to_string()));
        world.git(&["worktree", "add", "-q", "-b", &branch, &place.to_string_lossy(), "main"]);
        change(&place);
        let floor = end_of_bare(&world, &place, |world| {
            world.git_in(&place, &["status", "--porcelain"]);
            world.git_in(&place, &["add", "-A"]);
            world.git_in(&place, &["commit", "-q", "-m", "left"]);
        });
        if number > 0 {
            sides.ours.push(ours);
            sides.floor.push(floor);
        }
    }
    let what = "the same in a worktree with changes (600 files, 5 changed, 2 new): commit, facts";
    vec![sides.times(what, "the same, `git status`, `git add -A`, `git commit`", 1.5)]
}

/// Creates uncommitted changes of an agent.
fn change(worktree: &Path) {
    for number in 0..7 {
        let path = if number < 5 { file(number * 50) } else { format!("new-{number}.txt") };
        std::fs::write(worktree.join(path), text(number + 10_000, 40)).expect("a file");
    }
}

fn end_of_worker(world: &World, server: &mut Server, worker: &str, agent: Agent) -> f64 {
    let wait = server.begin("wait_for_worker", json!({"worker_id": worker, "timeout_seconds": 50}));
    rest();
    let ended = agent.exit();
    let (at, answer) = server.end(wait);
    assert_eq!(answer["settled"][0]["status"], "completed", "{answer:#}");
    let outcome = world.repo().join(".orchestrator/workers").join(worker).join("attempts/1/outcome.json");
    assert!(outcome.exists(), "the outcome is on the disk before it is reported");
    clock::between(ended, at)
}

fn end_of_bare(world: &World, folder: &Path, work: impl FnOnce(&World)) -> f64 {
    let mut child = world.bell.start_bare(folder);
    let agent = world.bell.answer();
    rest();
    let ended = agent.exit();
    child.wait().expect("the program exits");
    work(world);
    record(&world.path("outcome.json"));
    clock::between(ended, clock::now())
}

/// Writes a file of the size of an outcome atomically.
fn record(path: &Path) {
    use std::io::Write;
    let beside = path.with_extension("new");
    let mut file = std::fs::File::create(&beside).expect("a file");
    file.write_all(&[b'x'; 1_200]).expect("a written file");
    file.sync_data().expect("it is on the disk");
    std::fs::rename(beside, path).expect("it has its name");
}
