//! The protocol at the edge: what an MCP client sees of the orchestrator. The only room that names the protocol library.
//!
//! A call comes in as a line ([`transport`]), goes through the one choke point ([`server`]) to its tool (`tools/`), which
//! checks its arguments ([`arguments`]), asks the orchestrator, and answers with wire types ([`wire`]) that keep to the
//! sizes that clients bear ([`size`]). Beside the tools, [`resources`] can be read and [`prompts`] be taken. Nothing is decided here and nothing is kept: what must outlast a connection is the
//! orchestrator's.

mod arguments;
mod client;
mod conversation;
mod error;
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
