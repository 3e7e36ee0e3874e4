//! The answer to a worker's question on the live screen: a permission is allowed or denied after a confirmation, and
//! another question is answered with one of its choices or in the user's words. Pure.

use crossterm::event::{KeyCode, KeyEvent};

use super::super::dashboard::DashboardWorker;
use super::edit::edit;
use crate::cli::question;
use crate::mission::id::WorkerId;
use crate::mission::question::{Decision, Question};

/// An unfinished answer. It stays with its question, even if the worker asks another one meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli::status) struct AnswerDraft {
    pub worker: WorkerId,
    pub question: Question,
    pub kind: AnswerKind,
}

/// The kind of an unfinished answer, with the text typed so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli::status) enum AnswerKind {
    /// Without text; a key confirms it.
    Allow,
    /// With the reason typed so far.
    Deny(String),
    /// With the choice, or the words, typed so far.
    Choose(String),
}

/// The answer to one question of a worker.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli::status) struct Answer {
    pub worker: WorkerId,
    pub question: String,
    pub decision: Decision,
    pub reason: Option<String>,
}

/// The effect of a key on an answer.
pub(super) enum AnswerStep {
    Open(AnswerDraft),
    Send(Answer),
    Discard,
}

/// Returns the first question of a worker that waits for an answer.
pub(super) fn open_question(shown: &DashboardWorker) -> Option<&Question> {
    shown.view.open_questions().next().map(|open| &open.question)
}

impl AnswerDraft {
    /// Begins the positive answer to the first question of a worker, or its denial.
    pub fn begin(shown: &DashboardWorker, denies: bool) -> Option<Self> {
        let question = open_question(shown)?.clone();
        let kind = if denies {
            AnswerKind::Deny(String::new())
        } else if question::is_permission(&question) {
            AnswerKind::Allow
        } else {
            AnswerKind::Choose(String::new())
        };
        Some(Self { worker: shown.view.worker.id.clone(), question, kind })
    }

    /// Returns the line that is being typed.
    pub fn line(&mut self) -> Option<&mut String> {
        match &mut self.kind {
            AnswerKind::Allow => None,
            AnswerKind::Deny(line) | AnswerKind::Choose(line) => Some(line),
        }
    }

    /// Applies a key.
    pub fn press(mut self, key: KeyEvent) -> AnswerStep {
        let Some(line) = self.line() else {
            let is_confirmed = matches!(key.code, KeyCode::Char('y' | 'Y'));
            return if is_confirmed { self.send(Decision::Allow, None) } else { AnswerStep::Discard };
        };
        match key.code {
            KeyCode::Esc => AnswerStep::Discard,
            KeyCode::Enter => {
                let typed = Some(line.trim().to_owned()).filter(|line| !line.is_empty());
                match (&self.kind, typed) {
                    (AnswerKind::Choose(_), None) => AnswerStep::Discard,
                    (AnswerKind::Choose(_), Some(typed)) if self.has_choice(&typed) => {
                        self.send(Decision::Choice(typed), None)
                    }
                    // A text that is no choice denies all of them, and is the reason.
                    (_, typed) => self.send(Decision::Deny, typed),
                }
            }
            _ => {
                edit(line, key);
                AnswerStep::Open(self)
            }
        }
    }

    fn has_choice(&self, typed: &str) -> bool {
        self.question.choices.iter().any(|choice| choice.id == typed)
    }

    fn send(self, decision: Decision, reason: Option<String>) -> AnswerStep {
        AnswerStep::Send(Answer { worker: self.worker, question: self.question.id, decision, reason })
    }
}
