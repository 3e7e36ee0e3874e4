//! The open questions of an attempt. The first decision on a question counts, and one without a decision is denied when
//! its time is up. No I/O: the turn answers the CLI and publishes the status.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::attempt::status::{ClosedQuestion, Decided, OpenQuestion};
use crate::mission::question::Question;
use crate::process;

/// Number of closed questions that are kept, so that a late answer gets the decision.
const CLOSED_KEPT: usize = 32;

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

    pub fn ask(&mut self, question: Question) {
        let now = Instant::now();
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
    pub fn close(&mut self, id: &str, decided: Option<Decided>) -> Option<Duration> {
        self.open.retain(|it| it.question.question.id != id);
        if self.closed.len() == CLOSED_KEPT {
            self.closed.pop_front();
        }
        self.closed.push_back(ClosedQuestion { question: id.to_owned(), decided });
        let waited = self.waits_since.filter(|_| self.open.is_empty())?.elapsed();
        self.waits_since = None;
        Some(waited)
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

    #[tokio::test(start_paused = true)]
    async fn time_of_overlapping_questions_counts_once() {
        let mut questions = Questions::new(Some(Duration::from_secs(60)));
        questions.ask(question("a"));
        tokio::time::advance(Duration::from_secs(20)).await;
        questions.ask(question("b"));
        assert_eq!(questions.overdue(Instant::now()), Vec::<String>::new());
        tokio::time::advance(Duration::from_secs(40)).await;
        assert_eq!(questions.overdue(Instant::now()), ["a"]);
        let decided = Decided { decision: Decision::Deny, by: Decider::TimeLimit, entry: None };
        assert_eq!(questions.close("a", Some(decided.clone())), None);
        assert_eq!(questions.close("b", None), Some(Duration::from_secs(60)));
        assert!(!questions.is_any_open() && questions.due().is_none());
        let (open, closed) = questions.listed();
        assert!(open.is_empty());
        assert_eq!(closed.iter().map(|it| it.decided.clone()).collect::<Vec<_>>(), [Some(decided), None]);
    }

    #[tokio::test(start_paused = true)]
    async fn question_without_limit_is_never_due() {
        let mut questions = Questions::new(None);
        questions.ask(question("a"));
        tokio::time::advance(Duration::from_secs(1_000_000)).await;
        assert_eq!((questions.due(), questions.overdue(Instant::now()).len()), (None, 0));
    }

    #[test]
    fn closed_questions_are_limited() {
        let mut questions = Questions::new(None);
        for number in 0..100 {
            questions.ask(question(&number.to_string()));
            questions.close(&number.to_string(), None);
        }
        assert_eq!(questions.listed().1.len(), CLOSED_KEPT);
    }
}
