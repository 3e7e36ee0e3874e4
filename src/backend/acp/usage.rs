//! The token counts of an agent. Agents mean different things by them; each preset names its meaning.

use serde_json::Value;

use crate::backend::lines::{add, count, items};
use crate::mission::outcome::Usage;

/// The meaning of an agent's token counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UsageMeaning {
    /// Nothing is known, or a part of the work is not counted, so the counts are not reported.
    #[default]
    Unknown,
    /// `_meta.quota.model_usage` of a turn's end counts this turn, by model.
    Turn,
    /// `usage` of a turn's end counts everything since the process began.
    Process,
    /// The counts are those of the whole session, in `usage` of a turn's end and in each `usage_update`.
    Session,
    /// Each model call is counted in an empty message.
    Calls,
}

impl UsageMeaning {
    /// Returns whether a session that is continued in another process continues its counts.
    pub fn is_cumulative(self) -> bool {
        self == Self::Session
    }

    /// Returns whether the counts arrive while a turn runs.
    pub fn is_in_time(self) -> bool {
        matches!(self, Self::Session | Self::Calls)
    }
}

/// The sum of the counts of one process.
#[derive(Debug, Default)]
pub struct UsageCounter {
    meaning: UsageMeaning,
    total: Usage,
}

impl UsageCounter {
    pub fn new(meaning: UsageMeaning) -> Self {
        Self { meaning, total: Usage::default() }
    }

    pub fn total(&self) -> Usage {
        self.total
    }

    /// Takes the end of a turn. Returns whether the total changed.
    pub fn take_result(&mut self, result: &Value) -> bool {
        let before = self.total;
        match self.meaning {
            UsageMeaning::Unknown | UsageMeaning::Calls => {}
            UsageMeaning::Turn => {
                for model in items(result, "/_meta/quota/model_usage") {
                    add(&mut self.total, of_model(&model["token_count"]));
                }
            }
            UsageMeaning::Process | UsageMeaning::Session => self.keep_larger(of_call(&result["usage"])),
        }
        self.total != before
    }

    /// Takes an update during a turn. Returns whether the total changed.
    pub fn take_update(&mut self, update: &Value) -> bool {
        let before = self.total;
        match (self.meaning, update["sessionUpdate"].as_str()) {
            (UsageMeaning::Session, Some("usage_update")) => {
                let meta = &update["_meta"];
                self.keep_larger(Usage {
                    input_tokens: count(meta, "/promptTokens"),
                    cached_tokens: count(meta, "/cachedTokens"),
                    output_tokens: count(meta, "/completionTokens"),
                    cost_usd: None,
                });
            }
            (UsageMeaning::Calls, Some("agent_message_chunk")) => {
                add(&mut self.total, of_call(&update["_meta"]["usage"]));
            }
            _ => {}
        }
        self.total != before
    }

    /// Keeps counts that only grow. A turn that was cancelled may report less.
    fn keep_larger(&mut self, now: Usage) {
        self.total.input_tokens = self.total.input_tokens.max(now.input_tokens);
        self.total.cached_tokens = self.total.cached_tokens.max(now.cached_tokens);
        self.total.output_tokens = self.total.output_tokens.max(now.output_tokens);
    }
}

/// Reads counts whose input includes what came from a cache.
fn of_call(usage: &Value) -> Usage {
    Usage {
        input_tokens: count(usage, "/inputTokens"),
        cached_tokens: count(usage, "/cachedReadTokens"),
        output_tokens: count(usage, "/outputTokens"),
        cost_usd: None,
    }
}

/// Reads the counts of one model. Their input excludes the tokens that came from a cache or were written to one.
fn of_model(counts: &Value) -> Usage {
    let sum = |places: &[&str]| places.iter().map(|place| count(counts, place)).fold(0, u64::saturating_add);
    let cached = count(counts, "/cachedInputTokens");
    let rest = sum(&["/inputTokens", "/input_tokens", "/cachedWriteTokens", "/cacheWriteInputTokens"]);
    Usage {
        input_tokens: rest.saturating_add(cached),
        cached_tokens: cached,
        output_tokens: sum(&["/outputTokens", "/output_tokens"]),
        cost_usd: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn counted(counter: &UsageCounter) -> (u64, u64, u64) {
        let total = counter.total();
        (total.input_tokens, total.cached_tokens, total.output_tokens)
    }

    #[test]
    fn turns_are_added_up_over_models() {
        let mut counter = UsageCounter::new(UsageMeaning::Turn);
        let codex = json!({"_meta": {"quota": {"model_usage": [
            {"token_count": {"inputTokens": 180, "cachedInputTokens": 120, "outputTokens": 60}},
            {"token_count": {"input_tokens": 7, "output_tokens": 3}},
        ]}}});
        assert!(counter.take_result(&codex));
        assert!(counter.take_result(&codex));
        assert_eq!(counted(&counter), (614, 240, 126));
        assert!(!counter.take_result(&json!({"stopReason": "cancelled"})));
    }

    #[test]
    fn counts_of_process_and_session_replace_smaller_ones() {
        for meaning in [UsageMeaning::Process, UsageMeaning::Session] {
            let mut counter = UsageCounter::new(meaning);
            let usage = |input: u64| json!({"usage": {"inputTokens": input, "outputTokens": 2, "cachedReadTokens": 1}});
            assert!(counter.take_result(&usage(10)));
            assert!(!counter.take_result(&usage(5)));
            assert_eq!(counted(&counter), (10, 1, 2), "{meaning:?}");
        }
    }

    #[test]
    fn updates_count_by_their_meaning() {
        let call = json!({"sessionUpdate": "agent_message_chunk", "_meta": {"usage": {"inputTokens": 10}}});
        let session = json!({"sessionUpdate": "usage_update", "used": 9, "_meta": {"promptTokens": 30}});
        let after = |meaning, update: &Value| {
            let mut counter = UsageCounter::new(meaning);
            (counter.take_update(update), counter.take_update(update), counter.total().input_tokens)
        };
        assert_eq!(after(UsageMeaning::Calls, &call), (true, true, 20));
        assert_eq!(after(UsageMeaning::Session, &session), (true, false, 30));
        assert_eq!(after(UsageMeaning::Turn, &call), (false, false, 0));
        assert_eq!(after(UsageMeaning::Unknown, &session), (false, false, 0));
    }
}
