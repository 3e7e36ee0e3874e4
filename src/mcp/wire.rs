//! What the boss reads: twins of the domain's types, in the contract's words, with every text cut to size.
//!
//! Pure, and without a clock. Each constructor keeps to the room it is given, so that an answer made of them
//! keeps to its own.

use schemars::JsonSchema;

use crate::mission::budget::Spent;

mod conflicts;
mod next_step;
mod outcome;
mod race;
#[cfg(test)]
pub(super) mod testing;
mod worker;

pub(super) use next_step::{of_others, perhaps_missing};
pub(super) use outcome::{Attempt, NotOnBranchReport, VerificationReport};
pub use worker::worker_json;
pub(super) use worker::{Brief, Worker};

/// A placeholder for a [`Worker`] in the schemas of all tools but one. The full schema is long, and a client would hold
/// it seven times.
#[derive(JsonSchema)]
#[schemars(description = "A worker, as wait_for_any_worker describes it.")]
pub(super) struct SomeWorker {}

/// A placeholder for an [`OutcomeReport`] that another schema has in full.
#[derive(JsonSchema)]
#[schemars(inline, description = "An outcome, as wait_for_any_worker describes it.")]
pub(super) struct SomeOutcome {}

/// Stands for an object whose shape is told in words, or with a worker's outcome.
#[derive(JsonSchema)]
#[schemars(inline)]
pub(super) struct Described {}

/// Returns whether a count is zero, so that it is left out.
pub(super) fn is_zero<T: Default + PartialEq>(count: &T) -> bool {
    *count == T::default()
}

/// Formats what all workers of the boss have used. `None` if no CLI reported anything.
pub(super) fn spent(spent: &Spent) -> Option<String> {
    let cost = (spent.cost_usd > 0.0).then(|| format!("{:.2} USD", spent.cost_usd));
    let tokens = (spent.tokens > 0).then(|| format!("{} tokens", spent.tokens));
    let parts: Vec<String> = cost.into_iter().chain(tokens).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}
