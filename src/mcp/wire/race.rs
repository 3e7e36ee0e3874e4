//! How a race stands, as the boss reads it.

use schemars::JsonSchema;
use serde::Serialize;

use super::outcome::tokens;
use crate::mcp::size;
use crate::orchestrator::{RaceView, RacerView};

/// Bytes for the racers of one race; about ten.
const RACERS: usize = 1_300;

/// The first to do the task wins; the losers' work stays on their branches.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct RaceReport {
    race_id: String,
    /// Absent until somebody has won.
    #[serde(skip_serializing_if = "Option::is_none")]
    winner: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<SomeRacer>")]
    racers: Vec<Racer>,
}

/// Stands for a [`Racer`] in the schemas.
#[derive(JsonSchema)]
#[schemars(description = "worker_id, status, backend, cost_usd and tokens so far, or cost_unknown.")]
struct SomeRacer {}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Racer {
    worker_id: String,
    status: &'static str,
    backend: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_usd: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<u64>,
    /// Its CLI has told neither its cost nor its tokens.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cost_unknown: bool,
}

impl RaceReport {
    /// Without the racers, which [`RaceReport::fill`] adds as there is room.
    pub(super) fn new(race: &RaceView) -> Self {
        let winner = race.winner.as_ref().map(ToString::to_string);
        Self { race_id: race.id.to_string(), winner, racers: Vec::new() }
    }

    /// Adds as many racers as have room, and says how many bytes they take.
    pub(super) fn fill(&mut self, race: &RaceView, room: usize) -> usize {
        const KEY: usize = 12;
        self.racers = size::fit(race.racers.iter().map(Racer::new), room.min(RACERS)).0;
        size::of(&self.racers) + KEY
    }
}

impl Racer {
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
