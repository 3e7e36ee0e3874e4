//! The limits of a confined worker. A scripted agent tries every attack that the documentation lists, confined
//! and unconfined: what is listed as closed fails, and what is listed as open succeeds. Without confinement all of them
//! succeed, since an attack that cannot succeed proves nothing.
//!
//! Where the kernel cannot confine, the tests print that they are skipped; with `CI` set, they fail instead.

#![cfg(target_os = "linux")]

mod answers;
mod attacks;
mod clones;
mod copies;
mod ends;
mod git_operations;
mod language_servers;
#[path = "../support/mod.rs"]
mod support;
mod tools;
mod user;
mod world;
