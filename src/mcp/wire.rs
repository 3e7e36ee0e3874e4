//! Serializable twins of the domain's types, in the words of the contract, with every text cut to size.
//!
//! Pure, and without a clock. Each constructor keeps to the bytes it is given, so that a whole answer keeps to its
//! limit.

use schemars::JsonSchema;

use crate::mission::budget::Spent;

mod confined;
mod conflicts;
mod next_step;
mod outcome;
mod question;
mod race;
#[cfg(test)]
pub(super) mod testing;
mod worker;

pub(super) use next_step::{hint_at_others, perhaps_missing};
pub(super) use outcome::{AttemptReport, NotOnBranchReport, VerificationReport};
pub(super) use question::QuestionReport;
pub use worker::worker_json;
pub(super) use worker::{WorkerReport, WorkerSummary};

/// A placeholder for a [`WorkerReport`] in the schemas of all tools but one, so that a client does not load the long
/// schema seven times.
#[derive(JsonSchema)]
#[schemars(description = "A worker, as wait_for_any_worker describes it.")]
pub(super) struct WorkerPlaceholder {}

/// A placeholder for an outcome, which another schema has in full.
#[derive(JsonSchema)]
#[schemars(inline, description = "An outcome, as wait_for_any_worker describes it.")]
pub(super) struct OutcomePlaceholder {}

/// A placeholder for an object that is described in words, or in another schema.
#[derive(JsonSchema)]
#[schemars(inline)]
pub(super) struct ObjectPlaceholder {}

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
