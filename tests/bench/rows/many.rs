//! A thousand tasks: created at once, saved, and found after a restart; and many worktrees at once.

use std::fs;
use std::path::Path;

use orchestrator_boss::files::replace_json;
use orchestrator_boss::mission::id::ServerId;
use orchestrator_boss::store::journal::Journal;
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::clock;
use crate::server::Server;
use crate::stats::{Samples, number};
use crate::table::{Line, Sides};
use crate::world::{World, mission, mission_in, rest};

pub fn worktrees_at_once() -> Vec<Line> {
    const EACH: usize = 80;
    let world = World::with_repository(600);
    world.git(&["clone", "-q", "--bare", ".", "../origin.git"]);
    world.git(&["remote", "add", "origin", "../origin.git"]);
    world.git(&["fetch", "-q", "origin"]);
    let mut servers = [world.server(8), world.server(8)];
    let began = clock::now();
    // All requests are sent before the first answer is read.
    let asked: Vec<Vec<u64>> = (0..)
        .zip(&mut servers)
        .map(|(number, server)| {
            let ask = |at| json!({"branch": format!("s{number}/{at}"), "base": "origin/main"});
            (0..EACH).map(|at| server.begin("create_worktree", ask(at))).collect()
        })
        .collect();
    let (mut failures, mut last) = (0, began);
    for (server, asked) in servers.iter_mut().zip(asked) {
        for (at, answer) in server.answers(&asked) {
            last = last.max(at);
            let made = &answer["result"]["structuredContent"]["path"];
            let is_whole = |path: &str| world.git_in(Path::new(path), &["status", "--porcelain"]).is_empty();
            let whole = made.as_str().is_some_and(is_whole);
            if !whole {
                eprintln!("{answer}");
                failures += 1;
            }
        }
    }
    let listed = world.git(&["worktree", "list", "--porcelain"]).matches("worktree ").count();
    assert_eq!(listed, 1 + 2 * EACH - failures);
    let what = format!("{} worktrees asked for at once from two servers, base `origin/main`", 2 * EACH);
    let ours = format!("{} ms", number(clock::between(began, last)));
    vec![Line::alone(&what, ours, format!("{failures} failures"), "0 failures", failures == 0)]
}

pub fn batch_answered() -> Vec<Line> {
    let mut sides = Sides::default();
    for round in 0..12 {
        let world = World::with_repository(1);
        let mut server = world.server(0);
        server.call("create_worker_mission", mission("first"));
        rest();
        let ours = server.time("batch_create_workers", batch(0, 1_000));
        rest();
        server.leave();
        let journal = Journal::open(&world.repo().join(".orchestrator/journal"), ServerId::from("floor"));
        let journal = journal.expect("it is whole");
        assert_eq!(journal.registry().workers().count(), 1_001);
        let began = clock::now();
        replace_json(&world.path("floor.json"), journal.registry(), true).expect("it is saved");
        if round > 0 {
            sides.ours.push(ours);
            sides.floor.push(clock::between(began, clock::now()));
        }
    }
    vec![sides.times("batch of 1,000 answered", "one save of the same state as JSON, durable", 3.0)]
}

pub fn save() -> Vec<Line> {
    let worlds = [World::with_repository(1), World::with_repository(1)];
    let mut servers = worlds.each_ref().map(|world| world.server(0));
    for (server, batches) in servers.iter_mut().zip([vec![10], vec![1_000; 5]]) {
        for size in batches {
            settle(server, size);
        }
        // Acknowledged workers move into the history when the next one settles.
        settle(server, 1);
    }
    let mut sides = Sides::default();
    let [few, many] = &mut servers;
    for number in 0..65 {
        rest();
        let floor = few.time("create_worker_mission", mission(&number.to_string()));
        let ours = many.time("create_worker_mission", mission(&number.to_string()));
        if number >= 5 {
            sides.ours.push(ours);
            sides.floor.push(floor);
        }
    }
    let what = "`create_worker_mission` answered and saved, 5,000 tasks ever run";
    vec![sides.times(what, "the same with 10 tasks ever run", 1.5)]
}

pub fn restart() -> Vec<Line> {
    const SETTLED: usize = 100;
    let world = World::plain();
    let mut server = world.server(SETTLED);
    let places: Vec<Value> =
        (0..SETTLED).map(|number| mission_in(&number.to_string(), &world.place(&number.to_string()))).collect();
    server.call("batch_create_workers", json!({"workers": places}));
    let agents: Vec<Agent> = places.iter().map(|_| world.bell.answer()).collect();
    server.call("batch_create_workers", json!({"workers": queued(&world, 900)}));
    rest();
    server.kill();
    for agent in agents {
        agent.exit();
    }
    let state = world.repo().join(".orchestrator");
    while outcomes(&state) < SETTLED {
        rest();
    }
    let kept = world.path("kept");
    copy(&world, &state, &kept);
    let mut samples = Samples::default();
    for round in 0..11 {
        fs::remove_dir_all(&state).expect("it is removed");
        copy(&world, &kept, &state);
        rest();
        let began = clock::now();
        let mut server = world.server(0);
        let call = server.begin("list_worker_missions", json!({"limit": 1}));
        let (at, answer) = server.end(call);
        assert_eq!(answer["counts"], json!({"completed": SETTLED, "queued": 900}), "{answer:#}");
        server.leave();
        if round > 0 {
            samples.push(clock::between(began, at));
        }
    }
    let what = "restart with 1,000 tasks, 100 of them settled meanwhile → first answer, all true";
    vec![Line::at_most(what, &samples, 150.0)]
}

/// Settles this many workers, and acknowledges their notifications.
fn settle(server: &mut Server, size: usize) {
    server.call("batch_create_workers", batch(0, size));
    server.call("cancel_all_workers", json!({}));
    while server.call("wait_for_any_worker", json!({"timeout_seconds": 1}))["status"] == "settled" {}
}

fn queued(world: &World, number: usize) -> Vec<Value> {
    (0..number).map(|number| mission_in(&format!("queued {number}"), &world.place(&format!("q{number}")))).collect()
}

fn outcomes(state: &Path) -> usize {
    let workers = fs::read_dir(state.join("workers")).expect("there are some").flatten();
    workers.filter(|worker| worker.path().join("attempts/1/outcome.json").exists()).count()
}

fn copy(world: &World, from: &Path, to: &Path) {
    assert!(world.sealed("cp").arg("-a").args([from, to]).status().expect("cp runs").success());
}

fn batch(from: usize, size: usize) -> Value {
    json!({"workers": (from..from + size).map(|number| mission(&number.to_string())).collect::<Vec<_>>()})
}

/// Creates a thousand workers, half of them settled and half queued.
pub fn with_a_thousand(server: &mut Server) {
    server.call("batch_create_workers", batch(0, 500));
    server.call("cancel_all_workers", json!({}));
    server.call("batch_create_workers", batch(500, 500));
}
