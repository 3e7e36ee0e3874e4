//! Chaos: a seeded driver plays three bosses with four servers on one state directory. They start batches of fake
//! workers, wait, send messages, cancel, retry, integrate and remove, while servers, supervisors and CLIs are killed or
//! stopped at random points. `watch.rs` checks from outside during a round, `check.rs` after it.
//!
//! Rounds run in parallel, each in its own world. `CHAOS_ROUNDS` sets their number, `CHAOS_PARALLEL` how many run at
//! once, `CHAOS_FIRST_SEED` the first seed; `CHAOS_SEED` replays one. A failing round prints its seed and keeps its
//! folder. The seed determines the actions but not the timing, so a replay may differ.

mod check;
mod dice;
mod kind;
mod model;
mod round;
mod server;
#[path = "../support/mod.rs"]
mod support;
mod watch;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use round::Round;
use watch::Watch;
use world::World;

/// Number of rounds in an ordinary test run; releases use more.
const ROUNDS: u64 = 100;
const PARALLEL: u64 = 8;
/// Number of failures after which the run stops, since more of them add little.
const ENOUGH_FAILED: usize = 3;

#[test]
fn killed_processes_lose_and_leave_nothing() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    if let Some(seed) = number("CHAOS_SEED") {
        return assert_eq!(round(seed), Ok(()));
    }
    let rounds = number("CHAOS_ROUNDS").unwrap_or(ROUNDS);
    let first = number("CHAOS_FIRST_SEED").unwrap_or(1);
    let began = std::time::Instant::now();
    let next = AtomicU64::new(first);
    let failed = Mutex::new(Vec::new());
    let failures = || failed.lock().unwrap_or_else(PoisonError::into_inner);
    std::thread::scope(|scope| {
        for _ in 0..number("CHAOS_PARALLEL").unwrap_or(PARALLEL) {
            scope.spawn(|| {
                while failures().len() < ENOUGH_FAILED {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + rounds {
                        return;
                    }
                    if let Err(why) = round(seed) {
                        eprintln!("\n{why}\n");
                        failures().push(why);
                    }
                }
            });
        }
    });
    println!("{rounds} rounds in {:.0} s", began.elapsed().as_secs_f64());
    let failed = failures();
    assert!(failed.is_empty(), "{} rounds failed:\n{}", failed.len(), failed.join("\n"));
}

/// Runs a round in its own thread, whose name identifies its output.
fn round(seed: u64) -> Result<(), String> {
    let world = World::new();
    let done = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(format!("seed {seed}"));
        thread.spawn_scoped(scope, || play(&world, seed)).expect("a thread").join()
    });
    let why = match done {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(why)) => why,
        Err(panic) => match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
            (Some(why), _) => why.clone(),
            (None, why) => why.copied().unwrap_or("it panicked").to_owned(),
        },
    };
    Err(format!("round {seed}: {why}\nreplay it with CHAOS_SEED={seed}; its world is {}", world.keep().display()))
}

fn play(world: &World, seed: u64) -> Result<(), String> {
    let watch = Watch::begin(world.state_dir());
    let mut round = Round::new(world, seed);
    round.run();
    world.check_nothing_left();
    check::all(world, &round.model);
    watch.end()
}
