//! Which backends nothing may be started of just now: a lost login, a rate limit, a plan that is used up. Pure, and read
//! off what has settled, so that every server of a state directory agrees and a restart forgets nothing.
//!
//! One refusal holds the queue of its backend: the others would only be refused too. When the hold is over one worker
//! tries; if that is refused again it is held for longer, and when its model answers the rest may go.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::{SignedDuration, Timestamp};

use super::entry::Brief;
use super::id::BackendName;
use super::lifecycle::{Ending, WorkerStatus};
use super::outcome::FailureKind;
use super::registry::{Registry, Worker};

/// A login is looked at meanwhile; where nothing tells that it is back, one worker tries after this.
const LOGIN: SignedDuration = SignedDuration::from_mins(10);
/// Where a service does not say when it takes work again: doubled with each refusal, up to [`LONGEST`].
const FIRST: SignedDuration = SignedDuration::from_secs(30);
/// Also what a plan without a stated end is held for.
const LONGEST: SignedDuration = SignedDuration::from_mins(15);
/// A refusal so long after the one before begins to count anew.
const FORGOTTEN: SignedDuration = SignedDuration::from_hours(1);

/// Why and for how long a backend is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub backend: BackendName,
    /// When it was last refused.
    pub since: Timestamp,
    pub until: Timestamp,
    pub kind: FailureKind,
    /// What the CLI said, its first line.
    pub message: String,
}

impl Held {
    /// Before its end. After that one worker may try. A clock that was set back ends it too.
    pub fn lasts(&self, now: Timestamp) -> bool {
        (self.since..self.until).contains(&now)
    }

    /// Whether a live worker was started after the refusal, and so tries whether it is over.
    pub fn is_tried_by(&self, worker: &Worker) -> bool {
        worker.status.is_live()
            && (worker.status == WorkerStatus::Starting || worker.started_at.is_none_or(|at| at > self.since))
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { backend, until, message, .. } = self;
        match self.kind {
            FailureKind::Auth => write!(f, "{backend} to be logged in again")?,
            FailureKind::UsageLimit => write!(f, "{backend} to take work again at {until:.0} (usage limit)")?,
            _ => write!(f, "{backend} to take work again at {until:.0} (rate limit)")?,
        }
        if message.is_empty() { Ok(()) } else { write!(f, ": {message}") }
    }
}

/// By backend. A hold ends for good when a worker that was started after the refusal got work done, or when the backend was
/// seen to answer ([`Registry::answered`]).
pub fn held(registry: &Registry) -> HashMap<BackendName, Held> {
    let briefs = || registry.workers().flat_map(|worker| worker.settled.iter().map(move |brief| (worker, brief)));
    if !briefs().any(|(_, brief)| is_refusal(brief)) {
        return HashMap::new();
    }
    let mut good: HashMap<&BackendName, Timestamp> = HashMap::new();
    for (_, brief) in briefs().filter(|(_, brief)| is_good(brief)) {
        let newest = good.entry(&brief.backend).or_insert(started(brief));
        *newest = started(brief).max(*newest);
    }
    let mut refusals: HashMap<&BackendName, Vec<(&Worker, &Brief)>> = HashMap::new();
    for (worker, brief) in briefs().filter(|(_, brief)| is_refusal(brief)) {
        if good.get(&brief.backend).is_none_or(|good| *good <= brief.settled_at) {
            refusals.entry(&brief.backend).or_default().push((worker, brief));
        }
    }
    let held = refusals.into_values().filter_map(|mut refusals| {
        refusals.sort_by_key(|(_, brief)| brief.settled_at);
        after(&refusals).filter(|held| registry.answered.get(&held.backend).is_none_or(|at| *at < held.since))
    });
    held.map(|held| (held.backend.clone(), held)).collect()
}

/// What follows from refusals of one backend, oldest first. Those that ran at the same time count as one.
fn after(refusals: &[(&Worker, &Brief)]) -> Option<Held> {
    let mut held: Option<Held> = None;
    let mut strikes = 0;
    for (worker, brief) in refusals {
        let at = brief.settled_at;
        match held.as_ref().map(|held| held.since) {
            Some(before) if started(brief) <= before => {}
            Some(before) if at.duration_since(before) < FORGOTTEN => strikes += 1,
            _ => (held, strikes) = (None, 1),
        }
        let failure = brief.failure.as_ref()?;
        let until = until(worker, brief, failure.kind, strikes);
        let longer = held.take().filter(|held| held.until > until && failure.kind != FailureKind::Auth);
        held = Some(match longer {
            Some(longer) => Held { since: at, ..longer },
            None => Held {
                backend: brief.backend.clone(),
                since: at,
                until,
                kind: failure.kind,
                message: failure.message.lines().next().unwrap_or_default().to_owned(),
            },
        });
    }
    held
}

fn until(worker: &Worker, brief: &Brief, kind: FailureKind, strikes: u32) -> Timestamp {
    let at = brief.settled_at;
    let later = |wait: SignedDuration| at.checked_add(wait).unwrap_or(Timestamp::MAX);
    let again = |strikes| later(less_a_little(back_off(strikes), &(worker.id.as_str(), brief.attempt, at)));
    match (kind, brief.resets_at.filter(|stated| *stated > at)) {
        (FailureKind::Auth, _) => later(LOGIN),
        // It was there again as stated, and refused again.
        (_, Some(stated)) if strikes > 1 => stated.max(again(strikes - 1)),
        (_, Some(stated)) => stated,
        (FailureKind::UsageLimit, None) => again(u32::MAX),
        _ => again(strikes),
    }
}

fn back_off(strikes: u32) -> SignedDuration {
    let doubled = FIRST.as_secs().saturating_mul(1 << strikes.clamp(1, 20).saturating_sub(1));
    SignedDuration::from_secs(doubled).min(LONGEST)
}

/// Up to a quarter less, by what no two installations have in common: those that were refused together do not come back
/// together. The same for everybody who reads the same journal.
fn less_a_little(wait: SignedDuration, seed: &impl Hash) -> SignedDuration {
    let mut hasher = DefaultHasher::new();
    seed.hash(&mut hasher);
    let millis = wait.as_millis() as i64;
    SignedDuration::from_millis(millis - (hasher.finish() % 1_000) as i64 * millis / 4_000)
}

fn started(brief: &Brief) -> Timestamp {
    let seconds = SignedDuration::from_secs(i64::try_from(brief.elapsed()).unwrap_or(0));
    brief.started_at.unwrap_or_else(|| brief.settled_at.checked_sub(seconds).unwrap_or(Timestamp::MIN))
}

fn is_refusal(brief: &Brief) -> bool {
    brief.failure.as_ref().is_some_and(|failure| {
        matches!(failure.kind, FailureKind::Auth | FailureKind::RateLimit | FailureKind::UsageLimit)
    })
}

/// Its model answered.
fn is_good(brief: &Brief) -> bool {
    let ended_well = brief.status == Ending::Completed
        || brief.failure.as_ref().is_some_and(|failure| failure.kind == FailureKind::Verification);
    !is_refusal(brief) && (ended_well || brief.usage.output_tokens > 0)
}

#[cfg(test)]
mod tests {
    use super::super::entry::{BriefFailure, Entry, Line};
    use super::super::testing::{apply, brief, create, draft};
    use super::*;
    use FailureKind::{Auth, RateLimit, UsageLimit};

    /// When a worker started and settled, how, and when the service said that it takes work again.
    type End = (i64, i64, Option<FailureKind>, Option<i64>);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn registry(ends: &[End]) -> Registry {
        let mut registry = Registry::default();
        let drafts: Vec<_> = (0..ends.len()).map(|n| draft(&format!("t{n}"))).collect();
        let ids: Vec<_> = create(&mut registry, &drafts).into_iter().map(Result::unwrap).collect();
        for (id, (started, settled, failure, resets)) in ids.into_iter().zip(ends) {
            apply(&mut registry, "s", Entry::Starting { worker: id.clone(), attempt: 1 });
            let mut brief = brief(1, if failure.is_none() { Ending::Completed } else { Ending::Failed });
            (brief.started_at, brief.settled_at) = (Some(at(*started)), at(*settled));
            brief.resets_at = resets.map(at);
            brief.failure = failure.map(|kind| BriefFailure { kind, message: format!("at {settled}") });
            apply(&mut registry, "s", Entry::Settled { worker: id, brief: Box::new(brief) });
        }
        registry
    }

    fn codex(registry: &Registry) -> Option<Held> {
        held(registry).remove(&BackendName::from("codex"))
    }

    fn newest(ends: &[End]) -> Option<String> {
        codex(&registry(ends)).map(|held| held.message)
    }

    /// How long the last refusal holds.
    fn seconds(ends: &[End]) -> i64 {
        let held = codex(&registry(ends)).unwrap();
        held.until.duration_since(held.since).as_secs()
    }

    #[test]
    fn a_backend_is_held_until_something_later_shows_that_it_is_back() {
        for kind in [Auth, RateLimit, UsageLimit] {
            let no = Some(kind);
            let cases: [(&[End], Option<&str>); 6] = [
                (&[], None),
                (&[(5, 10, None, None)], None),
                (&[(5, 10, no, None), (7, 12, no, None)], Some("at 12")),
                // It had its last answer before.
                (&[(5, 10, no, None), (6, 11, None, None)], Some("at 10")),
                (&[(5, 10, no, None), (15, 20, None, None)], None),
                (&[(5, 10, no, None), (15, 20, Some(FailureKind::Other), None)], Some("at 10")),
            ];
            for (ends, expected) in cases {
                assert_eq!(newest(ends).as_deref(), expected, "{ends:?}");
            }
        }
    }

    #[test]
    fn an_answer_that_was_seen_frees_it_and_one_from_before_does_not() {
        for (seen, is_held) in [(9, true), (11, false)] {
            let mut registry = registry(&[(5, 10, Some(RateLimit), None)]);
            let entry = Entry::Answered { backend: "codex".into() };
            registry.apply(&Line { seq: registry.seq + 1, at: at(seen), server: "s".into(), entry });
            assert_eq!(codex(&registry).is_some(), is_held);
        }
    }

    #[test]
    fn a_stated_reset_is_kept_to() {
        assert_eq!(seconds(&[(0, 10, Some(UsageLimit), Some(5_010))]), 5_000);
        // One that ran then and was only told of the rate does not shorten it.
        let held = codex(&registry(&[(0, 10, Some(UsageLimit), Some(5_010)), (1, 12, Some(RateLimit), None)])).unwrap();
        assert_eq!((held.since, held.until, held.kind), (at(12), at(5_010), UsageLimit));
        // Stated, and refused again all the same.
        assert!(seconds(&[(0, 10, Some(RateLimit), Some(11)), (12, 13, Some(RateLimit), Some(14))]) >= 22);
    }

    #[test]
    fn without_a_stated_reset_each_trial_that_fails_holds_for_longer_up_to_a_limit() {
        let mut ends: Vec<End> = Vec::new();
        let mut now = 0;
        for full in [30, 60, 120, 240, 480, 900, 900] {
            ends.push((now, now + 1, Some(RateLimit), None));
            // Another one that ran at the same time counts for nothing.
            ends.push((now, now + 1, Some(RateLimit), None));
            let held = seconds(&ends);
            assert!((full * 3 / 4..=full).contains(&held), "{held} s, of {full}");
            now += 1 + held + 1;
        }
        ends.push((now + 7_200, now + 7_201, Some(RateLimit), None));
        assert!(seconds(&ends) <= 30, "that was long ago");
        assert!(seconds(&[(0, 1, Some(UsageLimit), None)]) >= 675);
    }

    #[test]
    fn two_that_were_refused_together_do_not_come_back_together_and_all_servers_agree() {
        let one = registry(&[(0, 1, Some(UsageLimit), None)]);
        let other = registry(&[(0, 2, Some(UsageLimit), None)]);
        assert_eq!(held(&one), held(&one.clone()));
        let wait = |registry: &Registry| codex(registry).map(|held| held.until.duration_since(held.since)).unwrap();
        assert_ne!(wait(&one), wait(&other));
    }

    #[test]
    fn a_clock_that_was_set_back_holds_nobody() {
        let held = codex(&registry(&[(5, 10, Some(RateLimit), Some(100))])).unwrap();
        let lasts = |second| held.lasts(at(second));
        assert_eq!((lasts(9), lasts(10), lasts(99), lasts(100)), (false, true, true, false));
    }
}
