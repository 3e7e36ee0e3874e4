//! What a worker may not exceed, and whether it still shows signs of life.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use crate::attempt::assignment::Assignment;
use crate::attempt::worker_dir::AttemptDir;
use crate::mission::outcome::Usage;
use crate::process::{self, Scope};

/// Quiet workers are looked at this often, or more often where less time makes a stall; a look costs a walk through the
/// process table.
const LOOK_EVERY: Duration = Duration::from_secs(20);
/// A waiting runtime uses a little CPU time by itself, work uses more than this part of a processor.
const IDLE_PART: u32 = 40;

pub struct Limits {
    pub deadline: Instant,
    max_cost_usd: Option<f64>,
    max_tokens: Option<u64>,
    max_output: u64,
    /// `None`: never.
    stall_after: Option<Duration>,
    /// All that grows with what it prints.
    output: [PathBuf; 3],
    life: Life,
}

/// The last signs of life, and how things were when they were last looked at.
struct Life {
    at: Instant,
    looked: Instant,
    output: u64,
    cpu: Duration,
}

impl Life {
    /// Output is sign enough: then the processes need not be looked at.
    fn has_printed(&mut self, now: Instant, output: u64) -> bool {
        let printed = output != self.output;
        if printed {
            (self.at, self.output) = (now, output);
        }
        printed
    }

    /// Takes in a look; returns for how long there was no sign of life.
    fn look(&mut self, now: Instant, cpu: Duration) -> Duration {
        let since = now.saturating_duration_since(self.looked);
        // CPU time of what has ended goes away with it, and to end is a sign of life too.
        let worked = cpu > self.cpu + since / IDLE_PART || cpu < self.cpu;
        if worked {
            self.at = now;
        }
        (self.looked, self.cpu) = (now, cpu);
        now.saturating_duration_since(self.at)
    }
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
            stall_after: assignment.settings.stall_after(),
            output: [dir.stdout(), dir.stderr(), dir.events()],
            life: Life { at: now, looked: now, output: 0, cpu: Duration::ZERO },
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

    /// How often to look.
    pub fn look_every(&self) -> Duration {
        let stall = self.stall_after.map_or(LOOK_EVERY, |after| after / 4);
        stall.clamp(Duration::from_millis(100), LOOK_EVERY)
    }

    /// Evidence, when neither events nor output nor CPU time have moved for long.
    pub fn check_stall(&mut self, scope: &Scope) -> Option<String> {
        let after = self.stall_after?;
        if self.life.has_printed(Instant::now(), self.output_size()) {
            return None;
        }
        let usage = process::tree_usage(scope);
        let silent = self.life.look(Instant::now(), usage.cpu_time);
        (silent >= after).then(|| {
            format!("no event, no output and no CPU time in {} processes for {}", usage.processes, in_words(silent))
        })
    }

    fn output_size(&self) -> u64 {
        self.output.iter().map(|path| std::fs::metadata(path).map_or(0, |metadata| metadata.len())).sum()
    }
}

fn in_words(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds < 120 => format!("{seconds} seconds"),
        seconds => format!("{} minutes", seconds / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After each step of 20 s: how many bytes and how much CPU time there are, and for how long nothing was seen.
    fn silences(steps: &[(u64, u64)]) -> Vec<u64> {
        let begin = Instant::now();
        let mut life = Life { at: begin, looked: begin, output: 0, cpu: Duration::ZERO };
        let looks = steps.iter().zip(1..).map(|((output, cpu), step)| {
            let now = begin + LOOK_EVERY * step;
            match life.has_printed(now, *output) {
                true => 0,
                false => life.look(now, Duration::from_millis(*cpu)).as_secs(),
            }
        });
        looks.collect()
    }

    #[test]
    fn output_work_and_the_end_of_a_process_are_signs_of_life() {
        assert_eq!(silences(&[(0, 0), (0, 0), (5, 0), (5, 0)]), [20, 40, 0, 20]);
        assert_eq!(silences(&[(0, 600), (0, 600), (0, 1_200)]), [0, 20, 0]);
        assert_eq!(silences(&[(0, 9_000), (0, 100), (0, 100)]), [0, 0, 20]);
    }

    #[test]
    fn the_little_that_a_waiting_runtime_uses_does_not_add_up_to_work() {
        let idle: Vec<(u64, u64)> = (1..=60).map(|step| (0, step * 100)).collect();
        assert_eq!(silences(&idle).last(), Some(&1_200));
    }
}
