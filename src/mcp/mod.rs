//! The protocol layer: the interface for MCP clients. No other room uses the protocol library.
//!
//! A call arrives as a line ([`transport`]) and goes through one entry point ([`server`]) to its tool (`tools/`). The
//! tool checks its arguments ([`arguments`]), asks the orchestrator, and answers with wire types ([`wire`]), whose
//! sizes stay within the limits of clients ([`size`]). There are also [`resources`] and [`prompts`]. This room
//! decides and stores nothing: state that must outlast a connection belongs to the orchestrator.

mod arguments;
mod client;
mod coercion;
mod conversation;
mod error;
mod forms;
mod hint;
mod in_flight;
mod instructions;
mod prompts;
mod resources;
mod schema;
mod server;
mod size;
mod starter;
mod surface;
mod tasks;
mod tools;
mod transcript;
mod transport;
mod watch;
mod wire;

pub use server::{ServeError, serve};
pub use starter::StartError;
pub use surface::{reading_tools, surface, tool_table};
pub use wire::worker_json;
