//! Backoff of backends that accept no work: after a lost login, at a rate limit, or at a usage limit. Pure, and derived
//! from the settled attempts, so that every server of a state directory agrees and a restart loses nothing.
//!
//! Like a circuit breaker: one refusal stops all queued workers of the backend. When the backoff ends, one worker
//! probes the backend. If it is refused too, the next backoff is longer; if its model answers, the others start.

use std::collections::HashMap;
use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::id::BackendName;
use super::lifecycle::{Ending, WorkerStatus};
use super::outcome::FailureKind;
use super::registry::Registry;
use super::summary::AttemptSummary;
use super::worker::Worker;

/// Backoff after a lost login. The login is also checked meanwhile.
const LOGIN: SignedDuration = SignedDuration::from_mins(10);
/// First backoff if the service states no end. It doubles with each refusal, up to [`LONGEST`].
const FIRST: SignedDuration = SignedDuration::from_secs(30);
/// Also the backoff of a used-up plan without a stated end.
const LONGEST: SignedDuration = SignedDuration::from_mins(15);
/// A refusal this long after the one before starts at [`FIRST`] again.
const FORGOTTEN: SignedDuration = SignedDuration::from_hours(1);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    pub backend: BackendName,
    /// The time of the last refusal.
    pub since: Timestamp,
    pub until: Timestamp,
    pub kind: FailureKind,
    /// The first line of the CLI's message.
    pub message: String,
}

impl Backoff {
    /// Returns whether it is still on. Afterwards one worker may probe the backend. A clock that was set back ends it.
    pub fn lasts(&self, now: Timestamp) -> bool {
        (self.since..self.until).contains(&now)
    }

    /// Returns whether a live worker was started after the refusal, and so probes the backend.
    pub fn is_probed_by(&self, worker: &Worker) -> bool {
        worker.status.is_live()
            && (worker.status == WorkerStatus::Starting || worker.started_at.is_none_or(|at| at > self.since))
    }
}

impl fmt::Display for Backoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { backend, until, message, .. } = self;
        match self.kind {
            FailureKind::Auth => write!(f, "{backend} to be logged in again")?,
            FailureKind::UsageLimit => write!(f, "{backend} to accept work again at {until:.0} (usage limit)")?,
            _ => write!(f, "{backend} to accept work again at {until:.0} (rate limit)")?,
        }
        if message.is_empty() { Ok(()) } else { write!(f, ": {message}") }
    }
}

/// Returns the backoffs by backend. One ends for good when a worker that was started after the refusal made progress,
/// or when the backend answered ([`Registry::answered`]).
pub fn backoffs(registry: &Registry) -> HashMap<BackendName, Backoff> {
    let briefs = || registry.workers().flat_map(|worker| worker.settled.iter().map(move |brief| (worker, brief)));
    if !briefs().any(|(_, brief)| is_refusal(brief)) {
        return HashMap::new();
    }
    let mut good: HashMap<&BackendName, Timestamp> = HashMap::new();
    for (_, brief) in briefs().filter(|(_, brief)| is_good(brief)) {
        let newest = good.entry(&brief.backend).or_insert(started(brief));
        *newest = started(brief).max(*newest);
    }
    let mut refusals: HashMap<&BackendName, Vec<(&Worker, &AttemptSummary)>> = HashMap::new();
    for (worker, brief) in briefs().filter(|(_, brief)| is_refusal(brief)) {
        if good.get(&brief.backend).is_none_or(|good| *good <= brief.settled_at) {
            refusals.entry(&brief.backend).or_default().push((worker, brief));
        }
    }
    let backoffs = refusals.into_values().filter_map(|mut refusals| {
        refusals.sort_by_key(|(_, brief)| brief.settled_at);
        after(&refusals).filter(|it| registry.answered.get(&it.backend).is_none_or(|at| *at < it.since))
    });
    backoffs.map(|backoff| (backoff.backend.clone(), backoff)).collect()
}

/// Returns the backoff that follows from refusals of one backend, oldest first. Those of workers that ran at the same
/// time count as one.
fn after(refusals: &[(&Worker, &AttemptSummary)]) -> Option<Backoff> {
    let mut backoff: Option<Backoff> = None;
    let mut count = 0;
    for (worker, brief) in refusals {
        let at = brief.settled_at;
        match backoff.as_ref().map(|backoff| backoff.since) {
            Some(before) if started(brief) <= before => {}
            Some(before) if at.duration_since(before) < FORGOTTEN => count += 1,
            _ => (backoff, count) = (None, 1),
        }
        let failure = brief.failure.as_ref()?;
        let until = until(worker, brief, failure.kind, count);
        let longer = backoff.take().filter(|it| it.until > until && failure.kind != FailureKind::Auth);
        backoff = Some(match longer {
            Some(longer) => Backoff { since: at, ..longer },
            None => Backoff {
                backend: brief.backend.clone(),
                since: at,
                until,
                kind: failure.kind,
                message: failure.message.lines().next().unwrap_or_default().to_owned(),
            },
        });
    }
    backoff
}

fn until(worker: &Worker, brief: &AttemptSummary, kind: FailureKind, count: u32) -> Timestamp {
    let at = brief.settled_at;
    let later = |wait: SignedDuration| at.checked_add(wait).unwrap_or(Timestamp::MAX);
    let seed = format!("{} {} {at}", worker.id, brief.attempt);
    let again = |count| later(with_jitter(doubled(count), &seed));
    match (kind, brief.resets_at.filter(|stated| *stated > at)) {
        (FailureKind::Auth, _) => later(LOGIN),
        // An earlier stated end was wrong.
        (_, Some(stated)) if count > 1 => stated.max(again(count - 1)),
        (_, Some(stated)) => stated,
        (FailureKind::UsageLimit, None) => again(u32::MAX),
        _ => again(count),
    }
}

fn doubled(count: u32) -> SignedDuration {
    let seconds = FIRST.as_secs().saturating_mul(1 << count.clamp(1, 20).saturating_sub(1));
    SignedDuration::from_secs(seconds).min(LONGEST)
}

/// Returns up to a quarter less, so that installations which were refused together do not retry together. All readers
/// of a journal get the same result.
fn with_jitter(wait: SignedDuration, seed: &str) -> SignedDuration {
    let millis = wait.as_millis() as i64;
    SignedDuration::from_millis(millis - (fnv(seed) % 1_000) as i64 * millis / 4_000)
}

/// FNV-1a, which is the same in every build.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

fn started(brief: &AttemptSummary) -> Timestamp {
    let seconds = SignedDuration::from_secs(i64::try_from(brief.elapsed()).unwrap_or(0));
    brief.started_at.unwrap_or_else(|| brief.settled_at.checked_sub(seconds).unwrap_or(Timestamp::MIN))
}

fn is_refusal(brief: &AttemptSummary) -> bool {
    brief.failure.as_ref().is_some_and(|failure| {
        matches!(failure.kind, FailureKind::Auth | FailureKind::RateLimit | FailureKind::UsageLimit)
    })
}

/// Returns whether the backend's model answered.
fn is_good(brief: &AttemptSummary) -> bool {
    let ended_well = brief.status == Ending::Completed
        || brief.failure.as_ref().is_some_and(|failure| failure.kind == FailureKind::Verification);
    !is_refusal(brief) && (ended_well || brief.usage.output_tokens > 0)
}

#[cfg(test)]
mod tests {
    use super::super::entry::{Entry, FailureSummary, Line};
    use super::super::testing::{apply, brief, create, draft};
    use super::*;
    use FailureKind::{Auth, RateLimit, UsageLimit};

    /// The start and end of a worker, its failure, and the stated reset.
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
            brief.failure = failure.map(|kind| FailureSummary { kind, message: format!("at {settled}") });
            apply(&mut registry, "s", Entry::Settled { worker: id, brief: Box::new(brief) });
        }
        registry
    }

    fn codex(registry: &Registry) -> Option<Backoff> {
        backoffs(registry).remove(&BackendName::from("codex"))
    }

    fn newest(ends: &[End]) -> Option<String> {
        codex(&registry(ends)).map(|it| it.message)
    }

    /// Returns the length of the last backoff.
    fn seconds(ends: &[End]) -> i64 {
        let backoff = codex(&registry(ends)).unwrap();
        backoff.until.duration_since(backoff.since).as_secs()
    }

    #[test]
    fn backoff_lasts_until_later_evidence_ends_it() {
        for kind in [Auth, RateLimit, UsageLimit] {
            let no = Some(kind);
            let cases: [(&[End], Option<&str>); 6] = [
                (&[], None),
                (&[(5, 10, None, None)], None),
                (&[(5, 10, no, None), (7, 12, no, None)], Some("at 12")),
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
    fn only_a_later_answer_ends_it() {
        for (seen, is_on) in [(9, true), (11, false)] {
            let mut registry = registry(&[(5, 10, Some(RateLimit), None)]);
            let entry = Entry::Answered { backend: "codex".into() };
            registry.apply(&Line { seq: registry.seq + 1, at: at(seen), server: "s".into(), entry });
            assert_eq!(codex(&registry).is_some(), is_on);
        }
    }

    #[test]
    fn stated_reset_is_kept() {
        assert_eq!(seconds(&[(0, 10, Some(UsageLimit), Some(5_010))]), 5_000);
        // A rate limit during a used-up plan does not shorten it.
        let backoff =
            codex(&registry(&[(0, 10, Some(UsageLimit), Some(5_010)), (1, 12, Some(RateLimit), None)])).unwrap();
        assert_eq!((backoff.since, backoff.until, backoff.kind), (at(12), at(5_010), UsageLimit));
        // Refused again after the stated reset.
        assert!(seconds(&[(0, 10, Some(RateLimit), Some(11)), (12, 13, Some(RateLimit), Some(14))]) >= 22);
    }

    #[test]
    fn each_failed_probe_doubles_the_backoff() {
        let mut ends: Vec<End> = Vec::new();
        let mut now = 0;
        for full in [30, 60, 120, 240, 480, 900, 900] {
            ends.push((now, now + 1, Some(RateLimit), None));
            // A second refusal at the same time does not count.
            ends.push((now, now + 1, Some(RateLimit), None));
            let backoff = seconds(&ends);
            assert!((full * 3 / 4..=full).contains(&backoff), "{backoff} s, of {full}");
            now += 1 + backoff + 1;
        }
        ends.push((now + 7_200, now + 7_201, Some(RateLimit), None));
        assert!(seconds(&ends) <= 30, "that was long ago");
        assert!(seconds(&[(0, 1, Some(UsageLimit), None)]) >= 675);
    }

    #[test]
    fn jitter_differs_by_worker_and_not_by_server() {
        let one = registry(&[(0, 1, Some(UsageLimit), None)]);
        let other = registry(&[(0, 2, Some(UsageLimit), None)]);
        assert_eq!(backoffs(&one), backoffs(&one.clone()));
        let wait =
            |registry: &Registry| codex(registry).map(|backoff| backoff.until.duration_since(backoff.since)).unwrap();
        assert_ne!(wait(&one), wait(&other));
    }

    #[test]
    fn clock_set_back_ends_it() {
        let backoff = codex(&registry(&[(5, 10, Some(RateLimit), Some(100))])).unwrap();
        let lasts = |second| backoff.lasts(at(second));
        assert_eq!((lasts(9), lasts(10), lasts(99), lasts(100)), (false, true, true, false));
    }
}
