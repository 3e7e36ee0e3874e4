//! The supervisor process, one for each live worker. It owns the worker's CLI for a whole attempt and outlives the
//! server. It starts turns, delivers messages, enforces the limits, verifies, collects the facts and writes the
//! outcome, once.
//!
//! Its interface is the attempt's folder (see [`assignment`]); the socket only makes it faster. It never touches the
//! journal or other workers. Start reading in [`run`].

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
