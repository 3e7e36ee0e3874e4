//! Many workers at once and a machine that is too small for them, with the real program. Each one settles with the
//! right outcome, queued ones have a wait reason, and the server needs no more resources for a thousand than for one.
//!
//! Linux only: the resources of a process are read from /proc.
#![cfg(target_os = "linux")]

mod floors;
mod many;
mod server;
#[path = "../support/mod.rs"]
mod support;
