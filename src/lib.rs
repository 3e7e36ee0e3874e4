//! orchestrator-boss: one coding agent leads many.
#![deny(clippy::print_stdout)]

pub mod backend;
pub mod cli;
pub mod config;
pub mod git;
pub mod launcher;
pub mod mission;
pub mod orchestrator;
pub mod process;
pub mod store;
pub mod supervisor;
