//! The other process: one for each live worker. It owns the worker's CLI for a whole attempt and lives on when the server
//! dies: it starts turns, delivers messages, keeps the limits, verifies, gathers the facts and writes the outcome, once.
//!
//! Its interface is the attempt's folder ([`assignment`] says what is in it); the socket only makes it quick. It never
//! touches the journal and knows no other worker. Start reading in [`run`].

pub mod apart;
pub mod assignment;
mod board;
pub mod facts;
mod finish;
mod inbox;
mod leftovers;
mod likely_cause;
mod limits;
mod outside;
mod own_edits;
pub mod prompt;
mod run;
pub mod secrets;
mod socket;
mod tree;
pub mod trial;
mod turn;
mod verify;

pub use run::run;
pub use trial::run as run_trial;
