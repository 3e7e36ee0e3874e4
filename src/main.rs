//! The entry point. Everything else is in the library, so that tests can reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    orchestrator_boss::cli::run()
}
