//! Generated states of a repository: layouts, unfinished git operations, and uncommitted files of the user. In each one
//! a worker goes through its whole life (create, work, settle, integrate, remove) with the real program, git and the
//! fake CLI.
//!
//! `oracle.rs` holds the checks. At the end, the worker's work is on the integration branch, on its own branch, named
//! in `not_on_branch`, or in a salvage ref. The integration branch has nothing else; the user's files are unchanged.
//!
//! `STATES_CASES` sets the number of cases, `STATES_FIRST_SEED` the first seed; `STATES_SEED` replays one case. The
//! test shrinks and prints a failing case, and keeps its folder.

mod case;
mod life;
mod oracle;
#[path = "../support/mod.rs"]
mod support;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use case::Case;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use world::World;

/// Number of cases in an ordinary test run; the nightly run has ten times as many.
const CASES: u64 = 50;
const PARALLEL: u64 = 4;
/// Number of failures after which the run stops, since more of them add little.
const ENOUGH_FAILED: usize = 3;
/// Maximum number of shrink steps; each runs a case, which takes about a second.
const MOST_SHRINKS: u32 = 25;

#[test]
fn generated_states_lose_and_leak_no_work() {
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

/// Runs the case of a seed, and shrinks it if it fails.
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
