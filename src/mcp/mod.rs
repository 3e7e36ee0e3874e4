//! The protocol layer: the part of the orchestrator that an MCP client sees. No other module uses the protocol library.
//!
//! A call arrives as a line ([`transport`]) and goes through a single entry point ([`server`]) to its tool (`tools/`).
//! The tool checks its arguments ([`arguments`]), asks the orchestrator, and answers with wire types ([`wire`]). Their
//! sizes stay within the limits of clients ([`size`]). Besides tools there are [`resources`] and [`prompts`]. This
//! module decides nothing and stores nothing: state that must outlast a connection belongs to the orchestrator.

mod arguments;
mod client;
mod conversation;
mod error;
mod hint;
mod in_flight;
mod instructions;
mod lead;
mod prompts;
mod resources;
mod schema;
mod server;
mod size;
mod surface;
mod tolerant;
mod tools;
mod transcript;
mod transport;
mod watch;
mod wire;

pub use server::{ServeError, serve};
pub use surface::{surface, tool_table};
pub use wire::worker_json;
