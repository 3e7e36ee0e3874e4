//! A small scenario, run once for each step at which the program can be made to die (table in `src/crash_point.rs`).
//! After the crash a new server continues, unanswered requests are repeated, and the checks of the chaos test apply at
//! the end. A step that the scenario does not reach is a failure, so the table and the scenario stay in step.
//!
//! `CRASH_AT=<name>:<n>` runs a single step.
#![cfg(debug_assertions)]

// Some helpers of the chaos test are unused here.
#[allow(dead_code)]
#[path = "../chaos/check.rs"]
mod check;
#[allow(dead_code)]
#[path = "../chaos/hosts.rs"]
mod hosts;
#[allow(dead_code)]
#[path = "../chaos/kind.rs"]
mod kind;
#[allow(dead_code)]
#[path = "../chaos/model.rs"]
mod model;
mod scenario;
#[allow(dead_code)]
#[path = "../chaos/server.rs"]
mod server;
#[path = "../support/mod.rs"]
mod support;
#[path = "../chaos/watch.rs"]
mod watch;
#[allow(dead_code)]
#[path = "../chaos/world.rs"]
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use scenario::Scenario;
use watch::Watch;
use world::World;

const PARALLEL: usize = 8;
/// Files that only jobs of a cluster have.
const OF_JOBS: [&str; 3] = ["(launch.json)", "(environment.json)", "(id.json)"];
/// Steps that are reached often, where the current action matters, with the occurrences to test.
const OFTEN: [(&str, &[u32]); 6] = [
    ("JournalLine", &[2, 5, 9, 14]),
    ("JournalSynced", &[2, 6, 11, 17]),
    ("Decided", &[2, 3, 7, 12, 18]),
    ("EndNoted", &[2, 4]),
    ("AnswerWritten", &[2, 3, 5, 8]),
    ("Named(inbox)", &[2]),
];

#[test]
fn next_server_continues_after_every_crash_point() {
    let armed = match std::env::var("CRASH_AT") {
        Ok(one) => vec![one],
        // Only some kernels confine, and no worker has a clone: `tests/confined/clones.rs` goes through these steps. Those of
        // jobs are in `tests/cluster/crashes.rs`.
        Err(_) => orchestrator_boss::crash_point::names()
            .into_iter()
            .filter(|name| !name.starts_with("Clone") && !name.contains("cli-settings"))
            .filter(|name| !name.starts_with("Job") && !OF_JOBS.iter().any(|file| name.contains(file)))
            .flat_map(|name| times(&name))
            .collect(),
    };
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                while let Some(armed) = armed.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(why) = crash_at(armed) {
                        eprintln!("\n{why}\n");
                        failed.lock().expect("an unpoisoned lock").push(why);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("an unpoisoned lock");
    assert!(failed.is_empty(), "{} of {} failed:\n{}", failed.len(), armed.len(), failed.join("\n"));
}

fn times(name: &str) -> Vec<String> {
    let times = OFTEN.iter().find(|(often, _)| *often == name).map_or(&[1][..], |(_, times)| times);
    times.iter().map(|time| format!("{name}:{time}")).collect()
}

fn crash_at(armed: &str) -> Result<(), String> {
    let world = World::new();
    let done = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(armed.to_owned());
        thread.spawn_scoped(scope, || play(&world, armed)).expect("a thread").join()
    });
    let why = match done {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(why)) => why,
        Err(panic) => match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
            (Some(why), _) => why.clone(),
            (None, why) => why.copied().unwrap_or("it panicked").to_owned(),
        },
    };
    Err(format!("{armed}: {why}\nrun it again with CRASH_AT='{armed}'; its world is {}", world.keep().display()))
}

fn play(world: &World, armed: &str) -> Result<(), String> {
    let watch = Watch::begin(world.state_dir());
    let mut scenario = Scenario::new(world, armed);
    scenario.run();
    world.check_nothing_left();
    scenario.check_crash()?;
    check::all(world, &scenario.model);
    watch.end()
}
