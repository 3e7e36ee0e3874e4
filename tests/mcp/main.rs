//! The server as its clients meet it: the real program, raw JSON lines in and out.

mod client;
mod conversations;
mod depth;
mod hazards;
mod integrate;
mod logins;
mod places;
mod prompts;
mod resources;
mod search;
mod session;
mod sizes;
#[path = "../support/mod.rs"]
mod support;
mod surface;
mod tolerance;
mod traffic;
mod upgrade;
