//! The supervisor process, one for each live worker. It owns the worker's CLI for a whole attempt and outlives the
//! server. It starts turns, delivers messages, enforces the limits, verifies, collects the facts and writes the
//! outcome, once.
//!
//! Its interface is the attempt's folder (see [`crate::attempt`]); the socket only makes it faster. It never touches
//! the journal or other workers. Start reading in [`mod@run`].

mod attempt;
mod blocking;
mod caches;
mod cleanup;
mod confined_check;
mod confinement;
mod confinement_decision;
mod exit;
mod finish;
mod inbox;
mod isolation;
mod job;
mod likely_cause;
mod limits;
mod main_checkout;
mod missing;
mod outside_edits;
mod own_clone;
mod presence;
mod process_record;
mod questions;
mod refused_writes;
mod run;
mod self_edits;
mod setup;
mod shell;
mod signing;
mod socket;
mod startup;
mod status_publisher;
mod turn;
mod uncommitted;
mod verification_run;
mod verify;
mod verify_copy;
mod write_rules;

pub use confined_check::{CheckError, CheckResult, ConfinedCheck};
pub use run::{Alert, run, run_job};
pub use signing::start_agent;
pub use verification_run::run as run_verification;
