//! Chaos: a seeded driver plays three bosses with four servers on one state directory. They start batches of fake
//! workers, wait, send messages, cancel, retry, integrate and remove, while servers, supervisors and CLIs are killed or
//! stopped at random points. With a cluster, its controller and nodes die too. `watch.rs` checks from outside during a
//! round, `check.rs` after it.
//!
//! Rounds run in parallel, each in its own world. `CHAOS_ROUNDS` sets their number, `CHAOS_PARALLEL` how many run at
//! once, `CHAOS_FIRST_SEED` the first seed; `CHAOS_SEED` replays one. Those of rounds with a cluster begin with
//! `CHAOS_CLUSTER`. A failing round prints its seed and keeps its folder. The seed determines the actions but not the
//! timing, so a replay may differ.

mod check;
mod dice;
mod hosts;
mod kind;
mod model;
mod moves;
mod round;
mod server;
#[path = "../support/mod.rs"]
mod support;
mod watch;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use round::Round;
use support::cluster::Cluster;
use watch::Watch;
use world::World;

/// Number of failures after which the run stops, since more of them add little.
const ENOUGH_FAILED: usize = 3;

/// One kind of rounds. The numbers are those of an ordinary test run; releases use more.
struct Rounds {
    /// The first part of the variables.
    prefix: &'static str,
    number: u64,
    parallel: u64,
    world: fn(u64) -> World,
}

const LOCAL: Rounds = Rounds { prefix: "CHAOS", number: 100, parallel: 8, world: |_| World::new() };
/// Most of their time they wait for the cluster.
const ON_CLUSTER: Rounds = Rounds { prefix: "CHAOS_CLUSTER", number: 20, parallel: 10, world: World::on_cluster };

#[test]
fn killed_processes_lose_and_leave_nothing() {
    if !ON_CLUSTER.is_replay() {
        LOCAL.play_all();
    }
}

#[test]
fn killed_cluster_loses_and_leaves_nothing() {
    if !LOCAL.is_replay() && Cluster::is_possible(&[]) {
        ON_CLUSTER.play_all();
    }
}

impl Rounds {
    fn variable(&self, name: &str) -> Option<u64> {
        std::env::var(format!("{}_{name}", self.prefix)).ok()?.parse().ok()
    }

    /// Returns whether the caller repeats one of these rounds, and no others.
    fn is_replay(&self) -> bool {
        self.variable("SEED").is_some()
    }

    fn play_all(&self) {
        if let Some(seed) = self.variable("SEED") {
            return assert_eq!(self.round(seed), Ok(()));
        }
        let rounds = self.variable("ROUNDS").unwrap_or(self.number);
        let first = self.variable("FIRST_SEED").unwrap_or(1);
        let began = std::time::Instant::now();
        let next = AtomicU64::new(first);
        let failed = Mutex::new(Vec::new());
        let failures = || failed.lock().unwrap_or_else(PoisonError::into_inner);
        std::thread::scope(|scope| {
            for _ in 0..self.variable("PARALLEL").unwrap_or(self.parallel) {
                scope.spawn(|| {
                    while failures().len() < ENOUGH_FAILED {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= first + rounds {
                            return;
                        }
                        if let Err(why) = self.round(seed) {
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
    fn round(&self, seed: u64) -> Result<(), String> {
        let world = (self.world)(seed);
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
        let (replay, folder) = (format!("{}_SEED={seed}", self.prefix), world.keep());
        Err(format!("round {seed}: {why}\nreplay it with {replay}; its world is {}", folder.display()))
    }
}

fn play(world: &World, seed: u64) -> Result<(), String> {
    let watch = Watch::begin(world.state_dir());
    let mut round = Round::new(world, seed);
    round.run();
    world.check_nothing_left();
    if let Some(hosts) = &world.cluster {
        hosts.heal(&mut round.parts);
        world.check_nothing_left();
    }
    check::all(world, &round.model);
    watch.end()
}
