//! The pure core: what is asked for, what may happen to it, what it came to.
//!
//! No I/O, no clock, no randomness in this room: time and ids come in as arguments, so that every rule here can be
//! tested by a table or a property. The rooms above act on what it decides.

pub mod admission;
pub mod archive;
pub mod budget;
pub mod causes;
pub mod create;
pub mod delivery;
pub mod entry;
pub mod graph;
pub mod hint;
pub mod hold;
pub mod id;
pub mod lifecycle;
pub mod message;
pub mod name;
pub mod outcome;
pub mod race;
pub mod registry;
pub mod retry;
pub mod reunion;
pub mod spec;
#[cfg(test)]
pub(crate) mod testing;
