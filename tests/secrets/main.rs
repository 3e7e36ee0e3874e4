//! What nobody else may see, and what a repository may not do: keys stay where the user put them, our files are ours
//! alone, and nothing that lies in a repository configures us or is run by us.

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
