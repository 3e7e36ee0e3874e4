//! Chaos: a seeded driver plays three bosses with four servers on one state directory. They start batches of fake
//! workers, wait, write, cancel, retry, integrate and remove, while servers, supervisors and CLIs are killed or stand
//! still at random points. While it goes on and after each round it is looked at from outside: `watch.rs` and `check.rs`
//! say what must be true.
//!
//! Rounds run side by side, each in a world of its own. `CHAOS_ROUNDS` sets how many are run, `CHAOS_PARALLEL` how many at
//! once, `CHAOS_FIRST_SEED` where they begin; `CHAOS_SEED` replays one. A failing round prints its seed and leaves its
//! world's folder. The seed decides what is done; what it meets is up to the machine, so rounds are never quite alike.

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

/// In the ordinary test run; the long run is for releases.
const ROUNDS: u64 = 100;
const PARALLEL: u64 = 8;
/// After so many failed rounds the rest would say nothing new.
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

/// In a thread of its own, named so that what it says can be told from the others.
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
