//! The server as its clients see it: the real program over raw JSON lines.

mod background;
mod client;
mod conversations;
mod depth;
mod hazards;
mod integrate;
mod logins;
mod places;
mod profiles;
mod prompts;
mod questions;
mod receipts;
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
mod wakes;
