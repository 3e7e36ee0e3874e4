//! No work is lost: whatever a worker or a user made is still there after any of our tools, in any order, with any
//! argument. The orchestrator runs in this process; git is the real one.

mod ledger;
mod orders;
mod restore;
#[path = "../support/mod.rs"]
mod support;
mod users_own;
// The harness of the other tests with workers; not all of it is needed here.
#[allow(dead_code)]
#[path = "../workers/world.rs"]
mod world;
