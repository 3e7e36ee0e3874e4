//! Keys stay where the user put them, files of the program are private, and no file of a repository configures the
//! program or is run by it.

#[path = "../mcp/client.rs"]
#[allow(dead_code)]
mod client;
mod guard;
mod keys;
mod repository;
#[path = "../support/mod.rs"]
mod support;
#[path = "../workers/world.rs"]
#[allow(dead_code)]
mod world;
