//! Every tool with hostile and random input, through the real server: an answer that says what is wrong, or a right
//! one; never a panic, a hang, an answer too long, a program started by a text, a file where none may be.
//!
//! `ORCHESTRATOR_INPUT_CASES=20000` makes the random part longer; by default it takes some seconds.

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
