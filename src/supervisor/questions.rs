//! The open questions of an attempt. The first decision on a question counts, and one without a decision is denied when
//! its time is up. No I/O: the turn answers the CLI and publishes the status.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::attempt::status::{ClosedQuestion, Decided, OpenQuestion};
use crate::mission::question::Question;
use crate::process;

/// Number of closed questions that are kept, so that a late answer gets an error with the decision.
const CLOSED_KEPT: usize = 32;

/// The questions of an attempt that are open, and the last ones that were closed.
pub(super) struct Questions {
    open: Vec<Waiting>,
    closed: VecDeque<ClosedQuestion>,
    /// Time after which a question is denied.
    limit: Option<Duration>,
    /// Time since which at least one question has been open.
    waits_since: Option<Instant>,
}

struct Waiting {
    question: OpenQuestion,
    /// By a clock that does not jump.
    deadline: Option<Instant>,
}

impl Questions {
    pub fn new(limit: Option<Duration>) -> Self {
        Self { open: Vec::new(), closed: VecDeque::new(), limit, waits_since: None }
    }

    /// Opens a question.
    pub fn ask(&mut self, question: Question, now: Instant) {
        let denied_at = self.limit.and_then(|limit| process::monotonic().checked_add(limit));
        let question = OpenQuestion { question, asked_at: Timestamp::now(), denied_at };
        self.open.push(Waiting { question, deadline: self.limit.and_then(|limit| now.checked_add(limit)) });
        self.waits_since.get_or_insert(now);
    }

    pub fn is_any_open(&self) -> bool {
        !self.open.is_empty()
    }

    pub fn find(&self, id: &str) -> Option<&Question> {
        self.open.iter().map(|it| &it.question.question).find(|question| question.id == id)
    }

    /// Returns the time at which the first open question is denied.
    pub fn due(&self) -> Option<Instant> {
        self.open.iter().filter_map(|it| it.deadline).min()
    }

    /// Returns the ids of the questions whose time is up.
    pub fn overdue(&self, now: Instant) -> Vec<String> {
        let is_overdue = |it: &&Waiting| it.deadline.is_some_and(|deadline| deadline <= now);
        self.open.iter().filter(is_overdue).map(|it| it.question.question.id.clone()).collect()
    }

    /// Closes a question. Returns the time that the worker has waited, if it waits for no other answer.
    pub fn close(&mut self, id: &str, decided: Option<Decided>, now: Instant) -> Option<Duration> {
        self.open.retain(|it| it.question.question.id != id);
        if self.closed.len() == CLOSED_KEPT {
            self.closed.pop_front();
        }
        self.closed.push_back(ClosedQuestion { question: id.to_owned(), decided });
        let since = self.waits_since.take_if(|_| self.open.is_empty())?;
        Some(now.saturating_duration_since(since))
    }

    /// Returns the ids of the open questions.
    pub fn ids(&self) -> Vec<String> {
        self.open.iter().map(|it| it.question.question.id.clone()).collect()
    }

    /// Returns the open and the closed questions, for the status.
    pub fn listed(&self) -> (Vec<OpenQuestion>, Vec<ClosedQuestion>) {
        (self.open.iter().map(|it| it.question.clone()).collect(), self.closed.iter().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mission::question::{Decider, Decision};

    fn question(id: &str) -> Question {
        Question::new(id.to_owned(), "may I?", "edit: x", [])
    }

    #[test]
    fn time_of_overlapping_questions_counts_once() {
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        let mut questions = Questions::new(Some(Duration::from_secs(60)));
        questions.ask(question("a"), began);
        questions.ask(question("b"), after(20));
        assert_eq!(questions.overdue(after(59)), Vec::<String>::new());
        assert_eq!(questions.overdue(after(60)), ["a"]);
        let decided = Decided { decision: Decision::Deny, by: Decider::TimeLimit, entry: None };
        assert_eq!(questions.close("a", Some(decided.clone()), after(60)), None);
        assert_eq!(questions.due(), Some(after(80)));
        assert_eq!(questions.close("b", None, after(70)), Some(Duration::from_secs(70)));
        assert!(!questions.is_any_open() && questions.due().is_none());
        let (open, closed) = questions.listed();
        assert!(open.is_empty());
        assert_eq!(closed.iter().map(|it| it.decided.clone()).collect::<Vec<_>>(), [Some(decided), None]);
        questions.ask(question("c"), after(100));
        assert_eq!(questions.close("c", None, after(101)), Some(Duration::from_secs(1)));
    }

    #[test]
    fn question_without_limit_is_never_due() {
        let mut questions = Questions::new(None);
        questions.ask(question("a"), Instant::now());
        assert_eq!((questions.due(), questions.overdue(Instant::now()).len()), (None, 0));
    }

    #[test]
    fn closed_questions_are_limited() {
        let mut questions = Questions::new(None);
        for number in 0..100 {
            questions.ask(question(&number.to_string()), Instant::now());
            questions.close(&number.to_string(), None, Instant::now());
        }
        assert_eq!(questions.listed().1.len(), CLOSED_KEPT);
    }
}
