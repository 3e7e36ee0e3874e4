//! Which backends have lost their login, as far as settled workers show. Pure.
//!
//! A login that expires would fail every worker of that backend that starts: one that fails by it is told, and those that
//! wait go on waiting until the login is back.

use std::collections::HashMap;

use jiff::Timestamp;

use super::entry::Brief;
use super::id::BackendName;
use super::outcome::FailureKind;
use super::registry::Registry;

/// The newest failure by which a login showed to be lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    pub at: Timestamp,
    pub message: String,
}

/// By backend. Forgotten is what lies before a good end of a worker that started after it, and before `back`: when the
/// login was last seen to be back.
pub fn lost(registry: &Registry, back: impl Fn(&BackendName) -> Option<Timestamp>) -> HashMap<BackendName, Loss> {
    let briefs = || registry.workers().flat_map(|worker| &worker.settled);
    if !briefs().any(is_loss) {
        return HashMap::new();
    }
    let mut good: HashMap<&BackendName, Timestamp> = HashMap::new();
    for brief in briefs().filter(|brief| is_good(brief)) {
        let started = brief.settled_at - jiff::SignedDuration::from_secs(i64::try_from(brief.seconds).unwrap_or(0));
        let newest = good.entry(&brief.backend).or_insert(started);
        *newest = started.max(*newest);
    }
    let mut lost: HashMap<BackendName, Loss> = HashMap::new();
    for brief in briefs().filter(|brief| is_loss(brief)) {
        let at = brief.settled_at;
        let is_over = good.get(&brief.backend).is_some_and(|good| *good > at) || back(&brief.backend) >= Some(at);
        if is_over || lost.get(&brief.backend).is_some_and(|newer| newer.at >= at) {
            continue;
        }
        let message = brief.failure.as_ref().map(|failure| failure.message.clone()).unwrap_or_default();
        lost.insert(brief.backend.clone(), Loss { at, message });
    }
    lost
}

fn is_loss(brief: &Brief) -> bool {
    brief.failure.as_ref().is_some_and(|failure| failure.kind == FailureKind::Auth)
}

/// Its model answered to the end.
fn is_good(brief: &Brief) -> bool {
    brief.failure.as_ref().is_none_or(|failure| failure.kind == FailureKind::Verification)
        && brief.status != super::lifecycle::Ending::Cancelled
}

#[cfg(test)]
mod tests {
    use super::super::entry::{BriefFailure, Entry};
    use super::super::lifecycle::Ending;
    use super::super::testing::{apply, brief, create, draft};
    use super::*;

    /// When a worker settled, after how many seconds, and whether with a login.
    type End = (i64, u64, bool);

    fn registry(ends: &[End]) -> Registry {
        let mut registry = Registry::default();
        let drafts: Vec<_> = (0..ends.len()).map(|n| draft(&format!("t{n}"))).collect();
        let ids: Vec<_> = create(&mut registry, &drafts).into_iter().map(Result::unwrap).collect();
        for (id, (at, seconds, good)) in ids.into_iter().zip(ends) {
            apply(&mut registry, "s", Entry::Starting { worker: id.clone(), attempt: 1 });
            let mut brief = brief(1, if *good { Ending::Completed } else { Ending::Failed });
            brief.settled_at = Timestamp::from_second(*at).unwrap();
            brief.seconds = *seconds;
            brief.failure = (!good).then(|| BriefFailure { kind: FailureKind::Auth, message: format!("at {at}") });
            apply(&mut registry, "s", Entry::Settled { worker: id, brief: Box::new(brief) });
        }
        registry
    }

    fn newest(ends: &[End], back: Option<i64>) -> Option<String> {
        let back = back.map(|at| Timestamp::from_second(at).unwrap());
        lost(&registry(ends), |_| back).into_values().next().map(|loss| loss.message)
    }

    #[test]
    fn a_login_is_lost_until_something_later_shows_that_it_is_back() {
        let cases: [(&[End], Option<i64>, Option<&str>); 7] = [
            (&[], None, None),
            (&[(10, 5, true)], None, None),
            (&[(10, 5, false), (12, 5, false)], None, Some("at 12")),
            // It had its last answer before.
            (&[(10, 5, false), (11, 5, true)], None, Some("at 10")),
            (&[(10, 5, false), (20, 5, true)], None, None),
            (&[(10, 5, false)], Some(11), None),
            (&[(10, 5, false)], Some(9), Some("at 10")),
        ];
        for (ends, back, expected) in cases {
            assert_eq!(newest(ends, back).as_deref(), expected, "{ends:?} {back:?}");
        }
    }
}
