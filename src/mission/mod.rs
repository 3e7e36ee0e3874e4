//! The pure core: missions, workers, the journal's entries and their fold, and the decisions on them.
//!
//! This room does no I/O and reads no clock. Time and ids come in as arguments, so that every rule can be tested by a
//! table or a property. The rooms above carry out its decisions.

pub mod admission;
pub mod archive;
pub mod background_wait;
pub mod backoff;
pub mod budget;
pub mod causes;
pub mod confined;
pub mod context;
pub mod create;
pub mod delivery;
pub mod entry;
mod fold;
pub mod graph;
pub mod hint;
pub mod id;
pub mod life;
pub mod lifecycle;
pub mod message;
#[cfg(test)]
mod messages;
pub mod name;
mod notification;
pub mod outcome;
pub mod question;
pub mod race;
pub mod registry;
pub mod retry;
pub mod sanitize;
pub mod spec;
pub mod summary;
#[cfg(test)]
pub(crate) mod testing;
pub mod user_event;
pub mod wake;
pub mod words;
pub mod worker;
