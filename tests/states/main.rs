//! States of a repository, generated: whatever git is in the middle of, wherever the boss stands, whatever the user has
//! beside it, a worker's whole life is run over it (create, work, settle, integrate, remove) with the real program, git
//! and the fake CLI.
//!
//! One oracle, in `oracle.rs`: what the worker wrote is at the end on the integration branch, on its branch, named in
//! `not_on_branch`, or in a salvage ref; nothing else is on the integration branch; what the user had is as it was.
//!
//! `STATES_CASES` sets how many cases are run, `STATES_FIRST_SEED` where they begin, `STATES_SEED` replays one. A failing
//! case is made smaller, printed, and its folder stays.

mod case;
#[path = "../support/json_lines.rs"]
mod json_lines;
mod life;
mod oracle;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use case::Case;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use world::World;

/// In the ordinary test run; the nightly one runs ten times as many.
const CASES: u64 = 50;
const PARALLEL: u64 = 4;
/// After so many failures the rest would say nothing new.
const ENOUGH_FAILED: usize = 3;
/// A case takes about a second.
const MOST_SHRINKS: u32 = 25;

#[test]
fn no_state_of_a_repository_loses_work_or_merges_what_is_not_the_workers() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let (first, cases) = match number("STATES_SEED") {
        Some(seed) => (seed, 1),
        None => (number("STATES_FIRST_SEED").unwrap_or(1), number("STATES_CASES").unwrap_or(CASES)),
    };
    let next = AtomicU64::new(first);
    let failed = Mutex::new(Vec::new());
    let failures = || failed.lock().unwrap_or_else(PoisonError::into_inner);
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                while failures().len() < ENOUGH_FAILED {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + cases {
                        return;
                    }
                    if let Err(why) = run_seed(seed) {
                        eprintln!("\nseed {seed}: {why}\nreplay it with STATES_SEED={seed}\n");
                        failures().push(format!("seed {seed}: {why}"));
                    }
                }
            });
        }
    });
    let failed = failures();
    assert!(failed.is_empty(), "{} of {cases} cases failed:\n{}", failed.len(), failed.join("\n"));
}

/// One case, made smaller where it fails.
fn run_seed(seed: u64) -> Result<(), String> {
    let config = Config { cases: 1, failure_persistence: None, max_shrink_iters: MOST_SHRINKS, ..Config::default() };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    runner.run(&case::any_case(), check).map_err(|error| error.to_string())
}

fn check(case: Case) -> Result<(), TestCaseError> {
    let world = World::new(&case);
    let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| life::live(&world, &case)));
    let why = match played {
        Ok(()) => return Ok(()),
        Err(panic) => match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
            (Some(why), _) => why.clone(),
            (None, why) => why.copied().unwrap_or("it panicked").to_owned(),
        },
    };
    Err(TestCaseError::fail(format!("{why}\nits folder is {}", world.keep().display())))
}
