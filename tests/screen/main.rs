//! The screens in a real terminal (tmux), with the real program, servers and supervisors, and the fake CLI. Unit tests
//! check the content of the screens; these tests check that a terminal shows them and is restored.

mod actions;
mod completion;
mod programs;
mod status;
mod terminal;
mod watch;
mod world;

#[path = "../support/mod.rs"]
mod support;
