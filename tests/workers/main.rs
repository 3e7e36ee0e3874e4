//! Workers from start to end: the orchestrator runs in this process, with real supervisors and the fake CLI.
//! `tests/mcp` tests the protocol.

mod admission;
mod agent;
mod beside;
mod context;
#[cfg(target_os = "linux")]
mod daemons;
mod end;
mod fault;
mod history;
mod integrate;
mod lead;
mod likely_cause;
mod loud;
mod messages;
mod not_on_branch;
mod observe;
mod output;
#[cfg(target_os = "linux")]
mod own;
mod own_work;
mod places;
mod projects;
mod prune;
mod questions;
mod race;
mod radar;
mod repair;
mod restart;
mod retry;
mod setup;
mod share;
mod stalls;
mod starts;
#[path = "../support/mod.rs"]
mod support;
mod world;
