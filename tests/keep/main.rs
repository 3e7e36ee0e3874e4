//! No work is lost: everything that a worker or a user created remains after any tool calls, in any order, with any
//! arguments. The orchestrator runs in this process, with the real git.

mod ledger;
mod orders;
mod restore;
#[path = "../support/mod.rs"]
mod support;
mod users_own;
// Some helpers of the worker tests are unused here.
#[allow(dead_code)]
#[path = "../workers/world.rs"]
mod world;
