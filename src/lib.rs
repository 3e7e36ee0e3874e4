//! orchestrator-boss: one coding agent leads many.
#![deny(clippy::print_stdout)]

pub mod backend;
pub mod mission;
pub mod store;
