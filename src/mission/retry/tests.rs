use super::super::create::Draft;
use super::super::entry::{Entry, FailureSummary};
use super::super::id::WorkerId;
use super::super::outcome::Verification;
use super::super::registry::Registry;
use super::super::testing::{apply, brief, create, draft};
use super::*;

/// A worker whose attempts ended so, each on the backend that its predecessor's end led to.
struct Tried {
    registry: Registry,
    id: WorkerId,
}

impl Tried {
    fn new(fallbacks: &[&str], max_attempts: u32) -> Self {
        let mut registry = Registry::default();
        let fallback_backends = fallbacks.iter().map(|name| BackendName::from(*name)).collect();
        let draft = Draft { fallback_backends, max_attempts, ..draft("t") };
        let id = create(&mut registry, &[draft]).remove(0).unwrap();
        Self { registry, id }
    }

    fn worker(&self) -> &Worker {
        self.registry.get(&self.id).unwrap()
    }

    fn ends(&mut self, kind: FailureKind) -> Option<NextAttempt> {
        self.ends_as(Ending::Failed, Some(kind), |_| {})
    }

    fn ends_as(
        &mut self,
        status: Ending,
        kind: Option<FailureKind>,
        change: impl FnOnce(&mut AttemptSummary),
    ) -> Option<NextAttempt> {
        let mut brief = brief(self.worker().attempt + 1, status);
        brief.backend = self.worker().next.backend.clone();
        brief.failure = kind.map(|kind| FailureSummary { kind, message: format!("{} failed", brief.backend) });
        change(&mut brief);
        apply(&mut self.registry, "s", Entry::Starting { worker: self.id.clone(), attempt: brief.attempt });
        apply(&mut self.registry, "s", Entry::Settled { worker: self.id.clone(), brief: Box::new(brief) });
        let next = automatic(self.worker())?;
        apply(
            &mut self.registry,
            "s",
            Entry::Requeued { worker: self.id.clone(), next: Box::new(next.clone()), lease: None },
        );
        Some(next)
    }
}

const CIRCUMSTANCES: [FailureKind; 4] =
    [FailureKind::Auth, FailureKind::RateLimit, FailureKind::UsageLimit, FailureKind::CouldNotStart];

#[test]
fn login_and_limit_failures_use_a_fallback() {
    for kind in CIRCUMSTANCES {
        assert_eq!(Tried::new(&[], 5).ends(kind), None, "{kind:?}");
        let mut tried = Tried::new(&["other"], 5);
        assert_eq!(tried.ends(kind).unwrap().backend.as_str(), "other", "{kind:?}");
        assert_eq!(tried.ends(kind), None, "{kind:?}: never back to the first either");
    }
    assert_eq!(Tried::new(&[], 2).ends(FailureKind::NoResult).unwrap().backend.as_str(), "codex");
}

#[test]
fn failed_setup_is_not_retried_and_blames_no_backend() {
    let mut tried = Tried::new(&["other"], 5);
    assert_eq!(tried.ends(FailureKind::SetupFailed), None);
    assert_eq!(Tried::new(&["other"], 5).ends(FailureKind::CouldNotStart).unwrap().backend.as_str(), "other");
    let next = Box::new(again(tried.worker(), "other".into(), ""));
    apply(&mut tried.registry, "s", Entry::Requeued { worker: tried.id.clone(), next, lease: None });
    tried.ends(FailureKind::SetupFailed);
    assert_eq!(exhausted(tried.worker()), None);
}

#[test]
fn survivors_and_lost_ends_prevent_retries() {
    let failed = Some(FailureKind::NoResult);
    for status in [Ending::Lost, Ending::Interrupted, Ending::Cancelled, Ending::Completed] {
        assert_eq!(Tried::new(&["other"], 5).ends_as(status, failed, |_| {}), None, "{status:?}");
    }
    assert_eq!(Tried::new(&["other"], 5).ends_as(Ending::Failed, failed, |brief| brief.survivors = 1), None);
}

#[test]
fn next_attempt_describes_the_last() {
    let mut tried = Tried::new(&["other"], 2);
    let next = tried.ends_as(Ending::Failed, Some(FailureKind::Verification), |brief| {
        brief.verification = Verification::Failed {
            commit: None,
            exit: crate::mission::outcome::Exit::Code(7),
            log_tail: "1 of 2 tests".to_owned(),
            seconds: 1.0,
        };
        brief.final_message = "I did it".to_owned();
    });
    let Some(NextAttempt { start: Start::Prompt { text }, .. }) = next else { panic!("{next:?}") };
    for said in ["do it", "codex failed", "1 of 2 tests", "I did it"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert_eq!(tried.ends(FailureKind::NoResult), None, "two attempts were requested");
}

#[test]
fn two_failed_backends_block() {
    let mut tried = Tried::new(&["other"], 2);
    tried.ends(FailureKind::NoResult);
    tried.ends(FailureKind::ModelNotFound);
    let why = exhausted(tried.worker()).expect("it is blocked");
    let why = why.text;
    assert!(why.contains("codex: codex failed") && why.contains("other: other failed"), "{why}");

    for kind in CIRCUMSTANCES {
        let mut tried = Tried::new(&["other"], 2);
        tried.ends(FailureKind::NoResult);
        tried.ends(kind);
        assert_eq!(exhausted(tried.worker()), None, "{kind:?}");
    }
    let mut tried = Tried::new(&["other"], 2);
    tried.ends(FailureKind::NoResult);
    tried.ends_as(Ending::Failed, Some(FailureKind::Verification), |brief| {
        brief.verification = Verification::CouldNotRun { why: "command not found".to_owned() };
    });
    assert_eq!(exhausted(tried.worker()), None, "what could not be verified is no failure of the backend");
    let mut same = Tried::new(&[], 2);
    same.ends(FailureKind::NoResult);
    same.ends(FailureKind::NoResult);
    assert_eq!(exhausted(same.worker()), None, "it was one backend twice");
    let mut tried = Tried::new(&["other"], 3);
    tried.ends(FailureKind::NoResult);
    tried.ends_as(Ending::Interrupted, None, |_| {});
    assert_eq!(exhausted(tried.worker()), None, "it was stopped from outside");
}

#[test]
fn resume_prompt_states_how_the_turn_ended() {
    let failed = FailureSummary { kind: FailureKind::NoResult, message: "it crashed".to_owned() };
    let unverified = FailureSummary { kind: FailureKind::Verification, message: "verification: failed".to_owned() };
    let exit = crate::mission::outcome::Exit::Code(1);
    let verification = Verification::Failed { commit: None, exit, log_tail: "2 tests failed".to_owned(), seconds: 1.0 };
    let ended = |status| brief(1, status);
    for (last, expected) in [
        (ended(Ending::Completed), "ended well"),
        (AttemptSummary { says_blocked: true, ..ended(Ending::Completed) }, "You said that you were blocked"),
        (AttemptSummary { failure: Some(failed), ..ended(Ending::Failed) }, "did not end well"),
        (AttemptSummary { failure: Some(unverified), verification, ..ended(Ending::Failed) }, "2 tests failed"),
        (ended(Ending::TimedOut), "its time was up"),
        (ended(Ending::Cancelled), "was cancelled"),
        (ended(Ending::Interrupted), "was interrupted"),
        (ended(Ending::Lost), "was not observed"),
    ] {
        let prompt = go_on(&last);
        assert!(prompt.contains(expected) && prompt.ends_with("finish what is missing."), "{prompt}");
        assert_eq!(prompt.contains("did not end well"), expected == "did not end well", "{prompt}");
    }
    let mut tried = Tried::new(&[], 1);
    tried.ends_as(Ending::Completed, None, |_| {});
    let digest = digest(tried.worker()).unwrap();
    assert!(digest.contains("(codex) ended as completed\n"), "{digest}");
}
