//! The budget of a boss, for all its workers together, and their usage. Pure.

use serde::{Deserialize, Serialize};

use super::outcome::Usage;
use super::summary::AttemptSummary;

/// The user's settings `[boss]`. A missing one is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Budget {
    pub max_cost_usd: Option<f64>,
    /// Input and output tokens together.
    pub max_tokens: Option<u64>,
    /// The total running time of its workers.
    pub timeout_minutes: Option<u64>,
}

/// Usage, as far as the CLIs reported it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    pub cost_usd: f64,
    pub tokens: u64,
    pub seconds: u64,
}

impl Budget {
    /// Returns the limit that is reached, in words.
    pub fn reached(&self, spent: &Spent) -> Option<String> {
        let Spent { cost_usd, tokens, seconds } = spent;
        if let Some(most) = self.max_cost_usd.filter(|most| cost_usd >= most) {
            return Some(format!("max_cost_usd {most} of [boss] is reached ({cost_usd:.2} USD spent)"));
        }
        if let Some(most) = self.max_tokens.filter(|most| tokens >= most) {
            return Some(format!("max_tokens {most} of [boss] is reached ({tokens} used)"));
        }
        let most = self.timeout_minutes.filter(|most| *seconds >= most.saturating_mul(60))?;
        Some(format!("timeout_minutes {most} of [boss] is reached (its workers ran {} minutes)", seconds / 60))
    }

    pub fn is_set(&self) -> bool {
        *self != Self::default()
    }
}

impl Spent {
    pub fn of(usage: &Usage, seconds: u64) -> Self {
        Self {
            cost_usd: usage.cost_usd.unwrap_or_default(),
            tokens: usage.input_tokens.saturating_add(usage.output_tokens),
            seconds,
        }
    }

    /// Returns the usage that an attempt added to the earlier ones. In a resumed session, some CLIs report totals that
    /// include the earlier attempts.
    pub fn by(brief: &AttemptSummary, before: &[AttemptSummary]) -> Self {
        let whole = Self::of(&brief.usage, brief.elapsed());
        let same = |it: &&AttemptSummary| it.session_id == brief.session_id && it.backend == brief.backend;
        let is_cumulative = brief.usage_is_cumulative && brief.session_id.is_some();
        match before.iter().rev().filter(|_| is_cumulative).find(same) {
            Some(before) => whole.since(&before.usage),
            None => whole,
        }
    }

    /// Returns the usage since an earlier total.
    pub fn since(self, before: &Usage) -> Self {
        let before = Self::of(before, 0);
        Self {
            cost_usd: (self.cost_usd - before.cost_usd).max(0.0),
            tokens: self.tokens.saturating_sub(before.tokens),
            ..self
        }
    }

    pub fn add(&mut self, more: Spent) {
        self.cost_usd += more.cost_usd;
        self.tokens = self.tokens.saturating_add(more.tokens);
        self.seconds = self.seconds.saturating_add(more.seconds);
    }
}

#[cfg(test)]
mod tests {
    use super::super::lifecycle::Ending;
    use super::super::testing::brief;
    use super::*;

    #[test]
    fn cumulative_usage_is_counted_once() {
        let attempt = |number, tokens, session: &str, usage_is_cumulative| {
            let usage = Usage { input_tokens: tokens, cost_usd: Some(tokens as f64), ..Usage::default() };
            let session_id = Some(session.to_owned());
            AttemptSummary { usage, session_id, usage_is_cumulative, ..brief(number, Ending::Failed) }
        };
        let first = attempt(1, 100, "s", true);
        for (second, added) in [
            (attempt(2, 150, "s", true), 50),
            (attempt(2, 150, "other", true), 150),
            (attempt(2, 150, "s", false), 150),
            // Killed before it reported anything.
            (attempt(2, 0, "s", true), 0),
        ] {
            let spent = Spent::by(&second, std::slice::from_ref(&first));
            assert_eq!((spent.tokens, spent.cost_usd, spent.seconds), (added, added as f64, 1));
        }
    }

    #[test]
    fn reached_limit_is_named_with_the_usage() {
        let spent = Spent { cost_usd: 5.2, tokens: 900, seconds: 125 };
        let budget = Budget { max_cost_usd: Some(5.0), ..Budget::default() };
        assert_eq!(budget.reached(&spent).unwrap(), "max_cost_usd 5 of [boss] is reached (5.20 USD spent)");
        let budget = Budget { max_tokens: Some(900), ..Budget::default() };
        assert_eq!(budget.reached(&spent).unwrap(), "max_tokens 900 of [boss] is reached (900 used)");
        let budget = Budget { timeout_minutes: Some(2), ..Budget::default() };
        assert!(budget.reached(&spent).unwrap().contains("ran 2 minutes"));
        let roomy = Budget { max_cost_usd: Some(6.0), max_tokens: Some(901), timeout_minutes: Some(3) };
        assert_eq!((roomy.reached(&spent), Budget::default().reached(&spent)), (None, None));
    }
}
