//! Workers from beginning to end: the orchestrator in this process, real supervisors, the fake CLI. The protocol is
//! tested beside it.

mod end;
mod fault;
mod lead;
mod loud;
#[cfg(target_os = "linux")]
mod own;
mod places;
mod restart;
mod world;
