//! orchestrator-boss: one coding agent leads many. The map of the house.
//!
//! Two kinds of process share this crate. The **server** speaks MCP to the boss agent and keeps the registry; for each
//! live worker it starts a **supervisor**, which owns the worker's CLI for a whole attempt and lives on when the server
//! dies. They meet in the files of `.orchestrator/`, with a socket as the fast path.
//!
//! Rooms, from the top; each may use those below it, siblings leave each other alone (`tests/architecture.rs` checks):
//!
//! - [`cli`]: what people type. [`mcp`]: what bosses call; the only room that names the protocol library.
//! - [`orchestrator`]: the server's one stateful room, an actor that decides, saves, then answers.
//! - [`launcher`]: how a supervisor is started and reached.
//! - [`supervisor`]: the other process: turns, messages, limits, verification, facts, outcome.
//! - [`config`]: the user's settings.
//! - [`backend`], [`process`], [`git`], [`store`]: CLIs (pure), processes, git, files; they do not know each other.
//! - [`mission`]: the pure core: what is asked for, what may happen to it, what it came to.
//!
//! [`crash_point`] is for tests alone: steps at which a special build dies.
//!
//! New here? Read `mission/lifecycle.rs`, `orchestrator/actor.rs`, `backend/codex.rs`, `supervisor/finish.rs`, in that
//! order.
#![deny(clippy::print_stdout)]

pub mod attempt;
pub mod backend;
pub mod cli;
pub mod config;
pub mod crash_point;
pub mod files;
pub mod git;
pub mod launcher;
pub mod mcp;
pub mod mission;
pub mod orchestrator;
pub mod process;
pub mod store;
pub mod supervisor;
