//! The command line, for people. It is a client like any other: what it shows comes from the tools and the state
//! directory, and nothing in here changes the registry.

pub mod demo;
pub mod demo_agent;
