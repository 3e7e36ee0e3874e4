//! Speed as ratios to lower bounds ("floors"): `cargo bench --bench floors [-- ROW…]`.
//!
//! Each row measures the program and a floor alternately in one run, since figures of different runs or machines cannot
//! be compared. The floors are programs and system calls that do the same without this program. Missed targets are
//! marked; the exit status shows only whether everything could be measured. Linux only: memory and CPU are read from
//! /proc.

mod agent;
mod clock;
#[allow(dead_code)]
#[path = "../support/cluster.rs"]
mod cluster;
#[cfg(target_os = "linux")]
mod follower;
mod machine;
mod rows;
mod server;
mod stats;
mod table;
mod world;

use std::env;
use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let began = clock::now();
    let mut arguments = env::args_os().skip(1);
    match arguments.next().and_then(|first| first.into_string().ok()).as_deref() {
        Some("agent") => agent::run(began, arguments),
        #[cfg(target_os = "linux")]
        Some("follow") => follower::run(arguments),
        Some("stamp") => println!("{began}"),
        Some("spawner") => rows::spawn_on_demand(number(arguments)),
        Some("serve-answer") => rows::serve_answer(Path::new(&arguments.next().expect("a file"))),
        // The server checks the version of the backend `bench`.
        Some("--version") => println!("bench 1"),
        _ => return measure(&env::args().skip(1).filter(|word| !word.starts_with('-')).collect::<Vec<_>>()),
    }
    ExitCode::SUCCESS
}

fn number(mut arguments: impl Iterator<Item = OsString>) -> usize {
    let word = arguments.next().and_then(|word| word.into_string().ok());
    word.and_then(|word| word.parse().ok()).expect("a number")
}

/// Measures the rows with these numbers or with these words in their names, or all rows if none is named.
fn measure(chosen: &[String]) -> ExitCode {
    if !cfg!(target_os = "linux") {
        println!("memory and CPU are read from /proc, so this is measured on Linux only");
        return ExitCode::FAILURE;
    }
    println!("{}\n", machine::describe());
    table::print_head();
    let (began, mut missed, mut failed) = (Instant::now(), 0, Vec::new());
    for (number, row) in (1..).zip(rows::ALL) {
        let is_chosen =
            |word: &String| word.parse().map_or_else(|_| row.name.contains(word.as_str()), |it: usize| it == number);
        if !chosen.is_empty() && !chosen.iter().any(is_chosen) {
            continue;
        }
        match catch_unwind(AssertUnwindSafe(row.measure)) {
            Ok(lines) => {
                lines.iter().for_each(|line| line.print(number));
                missed += lines.iter().filter(|line| !line.is_reached()).count();
            }
            Err(_) => failed.push(number),
        }
    }
    world::remove_all();
    println!("\n{:.0} s; {missed} missed; median (5th to 95th percentile)", began.elapsed().as_secs_f64());
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("could not be measured: {failed:?}");
    ExitCode::FAILURE
}
