//! Every tool with hostile and random input, through the real server. The answer is correct or names the error. There
//! is never a panic, a hang, an overlong answer, a program that a text starts, or a file outside the repository.
//!
//! `ORCHESTRATOR_INPUT_CASES=20000` runs more random cases; the default takes some seconds.

mod check;
#[path = "../mcp/client.rs"]
#[allow(dead_code)]
mod client;
mod hostile;
mod lines;
mod random;
mod shell;
#[path = "../support/mod.rs"]
mod support;
mod table;
#[path = "../workers/world.rs"]
#[allow(dead_code)]
mod world;
