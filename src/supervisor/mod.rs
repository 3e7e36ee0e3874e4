//! The supervisor process, one for each live worker. It owns the worker's CLI for a whole attempt and outlives the
//! server. It starts turns, delivers messages, enforces the limits, verifies, collects the facts and writes the
//! outcome, once.
//!
//! Its interface is the attempt's folder (see [`assignment`]); the socket only makes it faster. It never touches the
//! journal or other workers. Start reading in [`run`].

mod apart;

mod board;

mod finish;
mod inbox;
mod leftovers;
mod likely_cause;
mod limits;
mod outside;
mod own_edits;

mod run;

mod socket;
mod tree;
mod turn;
mod verification_run;
mod verify;

pub use run::run;
pub use verification_run::run as run_verification;
