//! The commands for people and scripts: the real program, beside real servers and without any, on workers that a fake CLI
//! plays. Every test has a repository and a home of its own.

mod cancel;
mod clean;
mod diff;
mod faults;
mod integrate;
mod logs;
mod retry;
#[path = "../support/mod.rs"]
mod support;
mod terminal;
mod told;
mod wait;
mod world;
