//! Many workers at once and a machine that is too small for them, with the real program: everybody settles with the right
//! outcome, what waits says why, and the server holds no more for a thousand than for one.
//!
//! Linux only: what a process holds is read from /proc.
#![cfg(target_os = "linux")]

mod floors;
mod many;
mod server;
#[path = "../support/mod.rs"]
mod support;
