//! What a worker may not exceed, and whether it still shows signs of life.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use super::assignment::Assignment;
use crate::mission::outcome::Usage;
use crate::process::{self, Scope};
use crate::store::worker_dir::AttemptDir;

/// Quiet workers are looked at this often; a look costs a walk through the process table.
pub const LOOK_EVERY: Duration = Duration::from_secs(20);

pub struct Limits {
    pub deadline: Instant,
    max_cost_usd: Option<f64>,
    max_tokens: Option<u64>,
    max_output: u64,
    stall_after: Duration,
    /// All that grows with what it prints.
    output: [PathBuf; 3],
    life: Life,
}

/// The last signs of life.
struct Life {
    at: Instant,
    output: u64,
    cpu: Duration,
}

/// A limit that was reached, in words for the boss.
#[derive(Debug, PartialEq, Eq)]
pub enum Exceeded {
    Budget(String),
    Output(String),
}

impl Limits {
    pub fn new(assignment: &Assignment, dir: &AttemptDir) -> Self {
        let now = Instant::now();
        let mission = &assignment.mission;
        Self {
            deadline: now + Duration::from_secs(60) * mission.timeout_minutes,
            max_cost_usd: mission.max_cost_usd,
            max_tokens: mission.max_tokens,
            max_output: assignment.settings.max_output_mib << 20,
            stall_after: Duration::from_secs(60) * assignment.settings.stall_minutes,
            output: [dir.stdout(), dir.stderr(), dir.events()],
            life: Life { at: now, output: 0, cpu: Duration::ZERO },
        }
    }

    pub fn check_usage(&self, usage: &Usage) -> Option<Exceeded> {
        let tokens = usage.input_tokens.saturating_add(usage.output_tokens);
        if let Some(most) = self.max_tokens.filter(|most| tokens > *most) {
            return Some(Exceeded::Budget(format!("max_tokens {most} was reached ({tokens} used)")));
        }
        let cost = usage.cost_usd.unwrap_or_default();
        let most = self.max_cost_usd.filter(|most| cost > *most)?;
        Some(Exceeded::Budget(format!("max_cost_usd {most} was reached ({cost:.4} spent)")))
    }

    pub fn note_life(&mut self) {
        self.life.at = Instant::now();
    }

    pub fn check_output(&self) -> Option<Exceeded> {
        let size = self.output_size();
        (size > self.max_output).then(|| {
            Exceeded::Output(format!(
                "it printed {} MiB, more than the {} MiB that max_output_mib allows",
                size >> 20,
                self.max_output >> 20
            ))
        })
    }

    /// Evidence, when neither events nor output nor CPU time have moved for long.
    pub fn check_stall(&mut self, scope: &Scope) -> Option<String> {
        if self.life.at.elapsed() < LOOK_EVERY {
            return None;
        }
        let (output, usage) = (self.output_size(), process::tree_usage(scope));
        // A waiting runtime uses a little CPU time by itself; work uses more.
        let worked = usage.cpu_time > self.life.cpu + Duration::from_millis(500);
        if output != self.life.output || worked {
            self.life = Life { at: Instant::now(), output, cpu: usage.cpu_time };
        }
        let silent = self.life.at.elapsed();
        (silent >= self.stall_after).then(|| {
            format!(
                "no event, no output and no CPU time in {} processes for {} minutes",
                usage.processes,
                silent.as_secs() / 60
            )
        })
    }

    fn output_size(&self) -> u64 {
        self.output.iter().map(|path| std::fs::metadata(path).map_or(0, |metadata| metadata.len())).sum()
    }
}
