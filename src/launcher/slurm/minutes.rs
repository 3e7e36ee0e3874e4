//! The minutes that the job of a mission needs. Slurm's limit is a backstop: the limits of the mission end it before.

use std::fmt;
use std::time::Duration;

/// Minutes beyond the limits of a mission, so that Slurm's limit is reached only when ours did not work.
pub(super) const RESERVE: u64 = 15;
/// Minutes for questions that are never denied.
const UNLIMITED_QUESTIONS: u64 = 24 * 60;

/// The minutes that the job of a mission needs, by purpose. As a text: those that are not zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobMinutes {
    /// The `timeout_minutes` of the mission.
    pub timeout: u64,
    pub setup: u64,
    pub checks: u64,
    pub questions: u64,
}

impl JobMinutes {
    /// Returns the minutes of a mission. `setup` and `checks` are minutes too, and `None` if there is no such command.
    pub fn new(timeout: u32, setup: Option<f64>, checks: Option<u32>) -> Self {
        // A cast of a float that is too large gives the largest number.
        let setup = setup.map_or(0, |minutes| minutes.ceil() as u64);
        Self { timeout: timeout.into(), setup, checks: checks.unwrap_or_default().into(), questions: 0 }
    }

    /// Adds the time for questions to the user. `None`: they are never denied.
    pub fn with_questions(self, limit: Option<Duration>) -> Self {
        let questions = limit.map_or(UNLIMITED_QUESTIONS, |limit| limit.as_secs().div_ceil(60));
        Self { questions, ..self }
    }

    pub fn total(self) -> u64 {
        self.timeout.saturating_add(self.beside_timeout())
    }

    /// Returns the minutes that the job needs beyond `timeout_minutes`.
    pub fn beside_timeout(self) -> u64 {
        [self.setup, self.checks, self.questions].into_iter().fold(RESERVE, u64::saturating_add)
    }
}

impl fmt::Display for JobMinutes {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let Self { timeout, setup, checks, questions } = *self;
        write!(formatter, "timeout_minutes {timeout}")?;
        let parts = [("setup", setup), ("checks", checks), ("questions", questions), ("reserve", RESERVE)];
        parts
            .iter()
            .filter(|(_, minutes)| *minutes > 0)
            .try_for_each(|(name, minutes)| write!(formatter, ", {name} {minutes}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_has_time_for_everything_within_a_mission() {
        let plain = JobMinutes::new(120, None, None);
        assert_eq!((plain.total(), plain.to_string().as_str()), (135, "timeout_minutes 120, reserve 15"));
        assert_eq!(plain.with_questions(Some(Duration::from_secs(601))).total(), 135 + 11);
        let all = JobMinutes::new(120, Some(0.5), Some(30)).with_questions(None);
        assert_eq!(all.total(), 120 + 1 + 30 + 24 * 60 + 15);
        assert_eq!(all.to_string(), "timeout_minutes 120, setup 1, checks 30, questions 1440, reserve 15");
        let endless = JobMinutes::new(120, Some(f64::MAX), None);
        assert_eq!((endless.total(), endless.beside_timeout()), (u64::MAX, u64::MAX));
    }
}
