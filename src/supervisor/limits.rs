//! The limits of a worker, and the detection of a worker that shows no activity.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use crate::attempt::assignment::Assignment;
use crate::attempt::worker_dir::AttemptDir;
use crate::mission::outcome::Usage;
use crate::process::{self, ProcessScope};

/// Longest interval between two checks of a quiet worker. A check scans the process table.
const CHECK_INTERVAL: Duration = Duration::from_secs(20);
/// Divisor of the time: work uses more than this part of a processor, and an idle runtime less.
const IDLE_PART: u32 = 40;

pub struct WorkerLimits {
    pub deadline: Instant,
    max_cost_usd: Option<f64>,
    max_tokens: Option<u64>,
    max_output: u64,
    /// `None` if stalls are not detected.
    stall_after: Option<Duration>,
    /// The files that grow with the output.
    output: [PathBuf; 3],
    activity: Activity,
}

/// The last activity of a worker, and its state at the last check.
struct Activity {
    at: Instant,
    checked: Instant,
    output: u64,
    cpu: Duration,
}

impl Activity {
    /// Returns whether there is new output. It is sufficient, so the processes need not be checked.
    fn has_printed(&mut self, now: Instant, output: u64) -> bool {
        let printed = output != self.output;
        if printed {
            (self.at, self.output) = (now, output);
        }
        printed
    }

    /// Takes the CPU time of a check. Returns how long there has been no activity.
    fn sample(&mut self, now: Instant, cpu: Duration) -> Duration {
        let since = now.saturating_duration_since(self.checked);
        // The CPU time of a process that ended is no longer counted, and its end is activity too.
        let worked = cpu > self.cpu + since / IDLE_PART || cpu < self.cpu;
        if worked {
            self.at = now;
        }
        (self.checked, self.cpu) = (now, cpu);
        now.saturating_duration_since(self.at)
    }
}

/// A limit that was reached, described for the boss.
#[derive(Debug, PartialEq, Eq)]
pub enum Exceeded {
    Budget(String),
    Output(String),
}

impl WorkerLimits {
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
            activity: Activity { at: now, checked: now, output: 0, cpu: Duration::ZERO },
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

    /// Extends the deadline by a time that does not count, such as that of the setup.
    pub fn extend(&mut self, time: Duration) {
        self.deadline += time;
        self.record_activity();
    }

    pub fn record_activity(&mut self) {
        self.activity.at = Instant::now();
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

    /// Returns the interval between two checks.
    pub fn check_interval(&self) -> Duration {
        let stall = self.stall_after.map_or(CHECK_INTERVAL, |after| after / 4);
        stall.clamp(Duration::from_millis(100), CHECK_INTERVAL)
    }

    /// Returns the evidence of a stall: no event, no output and no CPU time for a long time.
    pub fn check_stall(&mut self, scope: &ProcessScope) -> Option<String> {
        let after = self.stall_after?;
        if self.activity.has_printed(Instant::now(), self.output_size()) {
            return None;
        }
        let usage = process::scope_usage(scope);
        let silent = self.activity.sample(Instant::now(), usage.cpu_time);
        (silent >= after).then(|| {
            format!("no event, no output and no CPU time in {} processes for {}", usage.processes, describe(silent))
        })
    }

    fn output_size(&self) -> u64 {
        self.output.iter().map(|path| std::fs::metadata(path).map_or(0, |metadata| metadata.len())).sum()
    }
}

fn describe(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds < 120 => format!("{seconds} seconds"),
        seconds => format!("{} minutes", seconds / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the seconds without activity after each step of 20 s, given the bytes of output and the CPU time.
    fn silences(steps: &[(u64, u64)]) -> Vec<u64> {
        let begin = Instant::now();
        let mut activity = Activity { at: begin, checked: begin, output: 0, cpu: Duration::ZERO };
        let silences = steps.iter().zip(1..).map(|((output, cpu), step)| {
            let now = begin + CHECK_INTERVAL * step;
            if activity.has_printed(now, *output) {
                0
            } else {
                activity.sample(now, Duration::from_millis(*cpu)).as_secs()
            }
        });
        silences.collect()
    }

    #[test]
    fn output_cpu_time_and_ended_processes_are_activity() {
        assert_eq!(silences(&[(0, 0), (0, 0), (5, 0), (5, 0)]), [20, 40, 0, 20]);
        assert_eq!(silences(&[(0, 600), (0, 600), (0, 1_200)]), [0, 20, 0]);
        assert_eq!(silences(&[(0, 9_000), (0, 100), (0, 100)]), [0, 0, 20]);
    }

    #[test]
    fn excluded_time_extends_the_deadline() {
        let began = Instant::now();
        let mut limits = WorkerLimits {
            deadline: began + Duration::from_secs(60),
            max_cost_usd: None,
            max_tokens: None,
            max_output: 0,
            stall_after: None,
            output: Default::default(),
            activity: Activity { at: began, checked: began, output: 0, cpu: Duration::ZERO },
        };
        limits.extend(Duration::from_secs(600));
        assert_eq!(limits.deadline, began + Duration::from_secs(660));
    }

    #[test]
    fn idle_cpu_time_does_not_add_up() {
        let idle: Vec<(u64, u64)> = (1..=60).map(|step| (0, step * 100)).collect();
        assert_eq!(silences(&idle).last(), Some(&1_200));
    }
}
