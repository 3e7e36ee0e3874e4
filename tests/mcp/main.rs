//! The server as its clients meet it: the real program, raw JSON lines in and out.

mod client;
mod hazards;
mod session;
mod surface;
