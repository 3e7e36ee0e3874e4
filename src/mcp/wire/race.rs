//! The state of a race.

use schemars::JsonSchema;
use serde::Serialize;

use super::outcome::tokens;
use crate::mcp::size;
use crate::orchestrator::{RaceView, RacerView};

/// Maximum size in bytes of the racers of a race; about ten.
const RACERS: usize = 1_300;

/// The first completed worker wins; the others' work stays on their branches.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct RaceReport {
    race_id: String,
    /// Absent while undecided.
    #[serde(skip_serializing_if = "Option::is_none")]
    winner: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<RacerPlaceholder>")]
    racers: Vec<RacerReport>,
}

/// A placeholder for a [`RacerReport`] in the schemas.
#[derive(JsonSchema)]
#[schemars(description = "worker_id, status, backend, cost_usd and tokens so far, or cost_unknown.")]
struct RacerPlaceholder {}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct RacerReport {
    worker_id: String,
    status: &'static str,
    backend: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_usd: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<u64>,
    /// Its CLI has reported neither cost nor tokens.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cost_unknown: bool,
}

impl RaceReport {
    /// Builds a report without the racers, which [`RaceReport::fill`] adds if they fit.
    pub(super) fn new(race: &RaceView) -> Self {
        let winner = race.winner.as_ref().map(ToString::to_string);
        Self { race_id: race.id.to_string(), winner, racers: Vec::new() }
    }

    /// Adds the racers that fit, and returns their size in bytes.
    pub(super) fn fill(&mut self, race: &RaceView, room: usize) -> usize {
        const KEY: usize = 12;
        self.racers = size::fit(race.racers.iter().map(RacerReport::new), room.min(RACERS)).0;
        size::of(&self.racers) + KEY
    }
}

impl RacerReport {
    fn new(racer: &RacerView) -> Self {
        Self {
            worker_id: racer.worker_id.to_string(),
            status: racer.status.as_str(),
            backend: size::line(racer.backend.as_str(), 40),
            cost_usd: racer.spent.and_then(|usage| usage.cost_usd),
            tokens: racer.spent.as_ref().and_then(tokens),
            cost_unknown: racer.spent.is_none(),
        }
    }
}
