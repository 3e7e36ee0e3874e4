//! The commands for people and scripts: the real program, with and without real servers, on workers of the fake CLI.
//! Each test has its own repository and home.

mod answer;
mod attach;
mod builds;
mod cancel;
mod clean;
mod config;
mod diff;
mod facts;
mod faults;
mod integrate;
mod logs;
mod message;
mod names;
mod notify;
mod open;
mod retry;
#[path = "../support/mod.rs"]
mod support;
mod terminal;
mod wait;
mod world;
