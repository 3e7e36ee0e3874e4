//! The questions of a running CLI. Passes the decisions to its decoder, and records each change in the status and the
//! event log. Which decision counts is decided by the order of the inbox, not here.

use tokio::time::Instant;

use super::running::Running;
use crate::attempt::status::Decided;
use crate::backend::AgentEvent;
use crate::mission::question::{Decider, Decision, Question};
use crate::supervisor::attempt::LiveAttempt;

impl Running {
    /// Opens a question. One that cannot be answered any more is closed at once.
    pub(super) fn take_question(&mut self, attempt: &mut LiveAttempt, question: &Question) {
        attempt.questions.ask(question.clone(), Instant::now());
        if self.stop.is_some() || !self.input.is_open() {
            return self.withdraw(attempt, &question.id);
        }
        attempt.publish_questions();
    }

    /// Takes the answers of bosses and the user, in the order in which they were written.
    pub(super) fn take_answers(&mut self, attempt: &mut LiveAttempt) {
        for answer in attempt.inbox.take_answers() {
            let decided = Decided { decision: answer.decision, by: answer.by, entry: Some(answer.entry) };
            self.decide(attempt, &answer.question, decided, answer.reason);
        }
    }

    /// Denies the questions whose time is up.
    pub(super) fn deny_overdue(&mut self, attempt: &mut LiveAttempt) {
        for id in attempt.questions.overdue(Instant::now()) {
            let decided = Decided { decision: Decision::Deny, by: Decider::TimeLimit, entry: None };
            let minutes = attempt.assignment.settings.question_minutes;
            self.decide(attempt, &id, decided, Some(format!("no answer came within {minutes} minutes")));
        }
    }

    /// Answers an open question. A later decision has no effect.
    fn decide(&mut self, attempt: &mut LiveAttempt, id: &str, decided: Decided, reason: Option<String>) {
        let Some(question) = attempt.questions.find(id) else { return };
        let verdict = match question.verdict(&decided.decision, reason) {
            Ok(verdict) => verdict,
            Err(error) => return tracing::warn!(%error, "cannot apply a decision that the server has checked"),
        };
        let can_answer = self.stop.is_none() && self.input.is_open();
        let Some(events) = can_answer.then(|| self.decoder.answer(id, &verdict)).flatten() else {
            return self.withdraw(attempt, id);
        };
        self.send_replies();
        let (question, decision, by) = (id.to_owned(), decided.decision.clone(), decided.by);
        attempt.status.record(&AgentEvent::Answered { question, decision, by });
        self.close(attempt, id, Some(decided));
        for event in events {
            self.take_event(attempt, &event);
        }
    }

    /// Closes all open questions undecided, since the turn is being stopped or has ended.
    pub(super) fn withdraw_questions(&mut self, attempt: &mut LiveAttempt) {
        for id in attempt.questions.ids() {
            self.withdraw(attempt, &id);
        }
    }

    fn withdraw(&mut self, attempt: &mut LiveAttempt, id: &str) {
        attempt.status.record(&AgentEvent::Withdrawn { question: id.to_owned() });
        self.close(attempt, id, None);
    }

    /// Closes a question. The time for which the worker has waited counts against no limit.
    pub(super) fn close(&mut self, attempt: &mut LiveAttempt, id: &str, decided: Option<Decided>) {
        if let Some(waited) = attempt.questions.close(id, decided, Instant::now()) {
            attempt.limits.extend(waited);
            self.printed_at = Instant::now();
        }
        attempt.publish_questions();
    }
}

impl LiveAttempt {
    fn publish_questions(&mut self) {
        let (open, closed) = self.questions.listed();
        self.status.set_questions(open, closed);
    }
}
