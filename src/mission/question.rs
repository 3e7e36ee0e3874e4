//! The questions that a CLI asks while it works (a permission, a choice), and the decisions on them.
//!
//! Pure: a decoder turns a CLI's request into a [`Question`] and sends the answer. The supervisor keeps it open, and
//! denies it when its time is up. All texts come from a CLI, so they are limited and sanitised here.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::hint::{Hint, Hinted};
use super::message::Author;
use super::sanitize::escaped;

/// Maximum number of questions of one worker that are open at the same time. Further ones are denied.
pub const OPEN_LIMIT: usize = 8;
/// Maximum number of choices of a question.
const CHOICE_LIMIT: usize = 8;
/// Maximum size in bytes of the text of a question.
const TEXT_LIMIT: usize = 2_000;
/// Maximum size in bytes of the name of a choice.
const NAME_LIMIT: usize = 120;
/// Maximum size in bytes of the id of a choice. A CLI's longer id is replaced by a number.
const ID_LIMIT: usize = 60;

/// The reaction to the requests of a CLI.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum QuestionPolicy {
    /// Allow once what the mission permits and deny the rest, at once.
    #[default]
    AllowInWorktree,
    /// A request that would be denied becomes a question to the boss and to you.
    Ask,
    /// Deny every request.
    Deny,
}

/// The rules for the questions of one turn.
#[derive(Debug, Clone, Copy, Default)]
pub struct QuestionRules<'a> {
    pub policy: QuestionPolicy,
    /// The prefix of the ids of its questions, unique to this turn of the worker.
    pub prefix: &'a str,
}

/// A request of a CLI that waits for a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Unique among the questions of the worker.
    pub id: String,
    pub text: String,
    /// The action that it is about, in one line: the tool with its path or command.
    pub action: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<Choice>,
}

/// An answer that the CLI accepts. "Always" is never a choice: some CLIs then write a rule into the worktree or the
/// user's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    pub id: String,
    pub name: String,
    pub kind: ChoiceKind,
}

/// The effect of a choice on the action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChoiceKind {
    AllowOnce,
    RejectOnce,
    /// An answer that neither allows nor denies an action.
    Other,
}

/// The decision on a question, as its author wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Decision {
    Allow,
    Deny,
    /// The id of a choice.
    Choice(String),
}

/// The author of a decision. Decisions by the policy alone are made at once, and are not recorded as answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decider {
    Policy,
    Boss,
    User,
    /// `question_minutes` passed.
    TimeLimit,
}

/// The answer for the CLI, from a decision that fits the question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub is_allowed: bool,
    /// The id of the choice; `None` for a denial of a question without such a choice.
    pub choice: Option<String>,
    /// The reason of a denial, for CLIs that pass one to the model.
    pub reason: Option<String>,
}

/// A decision that is not among the choices of the question.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("cannot answer the question {question} with {decision:?}: it is not among its choices")]
pub struct InvalidDecision {
    pub question: String,
    pub decision: String,
    pub accepted: Vec<String>,
}

impl Hinted for InvalidDecision {
    fn hints(&self) -> Vec<Hint> {
        vec![Hint::to(format!("use one of {}", self.accepted.join(", ")))]
    }
}

impl Question {
    /// Creates a question from texts of a CLI. `choices` are those of the CLI, in its order, without "always".
    pub fn new(id: String, text: &str, action: &str, choices: impl IntoIterator<Item = Choice>) -> Self {
        let plain = |text: &str, limit| clipped(escaped(text, |c| matches!(c, '\n' | '\t')), limit);
        let choice = |(at, choice): (usize, Choice)| Choice {
            id: if is_plain_id(&choice.id) { choice.id } else { (at + 1).to_string() },
            name: plain(&choice.name, NAME_LIMIT),
            kind: choice.kind,
        };
        Self {
            id,
            text: plain(text, TEXT_LIMIT),
            action: plain(action, TEXT_LIMIT),
            choices: choices.into_iter().take(CHOICE_LIMIT).enumerate().map(choice).collect(),
        }
    }

    /// Returns the answer that a decision means.
    pub fn verdict(&self, decision: &Decision, reason: Option<String>) -> Result<Verdict, InvalidDecision> {
        let of_kind = |kind| self.choices.iter().find(|choice| choice.kind == kind).map(|choice| choice.id.clone());
        let verdict = match decision {
            Decision::Deny => Some((false, of_kind(ChoiceKind::RejectOnce))),
            Decision::Allow => of_kind(ChoiceKind::AllowOnce).map(|choice| (true, Some(choice))),
            Decision::Choice(id) => {
                let chosen = self.choices.iter().find(|choice| choice.id == *id);
                chosen.map(|choice| (choice.kind != ChoiceKind::RejectOnce, Some(choice.id.clone())))
            }
        };
        let (is_allowed, choice) = verdict.ok_or_else(|| InvalidDecision {
            question: self.id.clone(),
            decision: decision.to_string(),
            accepted: self.accepted(),
        })?;
        Ok(Verdict { is_allowed, choice, reason: reason.filter(|_| !is_allowed) })
    }

    /// Returns the decisions that it accepts.
    pub fn accepted(&self) -> Vec<String> {
        let can_allow = self.choices.iter().any(|choice| choice.kind == ChoiceKind::AllowOnce);
        let words = [can_allow.then_some(Decision::Allow), Some(Decision::Deny)];
        let words = words.into_iter().flatten().map(|word| word.to_string());
        words.chain(self.choices.iter().map(|choice| choice.id.clone())).collect()
    }
}

/// Returns a text with at most `limit` bytes, and an ellipsis if it was cut.
fn clipped(text: String, limit: usize) -> String {
    if text.len() <= limit { text } else { format!("{}…", &text[..text.floor_char_boundary(limit)]) }
}

/// Returns whether a CLI's id of a choice can be shown and typed. The words of decisions are reserved.
fn is_plain_id(id: &str) -> bool {
    let is_word = matches!(Decision::from(id.to_owned()), Decision::Allow | Decision::Deny);
    !is_word && (1..=ID_LIMIT).contains(&id.len()) && id.chars().all(|c| c.is_ascii_graphic())
}

impl Decision {
    pub fn as_str(&self) -> &str {
        match self {
            Decision::Allow => "allow",
            Decision::Deny => "deny",
            Decision::Choice(id) => id,
        }
    }
}

impl From<String> for Decision {
    fn from(text: String) -> Self {
        match text.as_str() {
            "allow" => Self::Allow,
            "deny" => Self::Deny,
            _ => Self::Choice(text),
        }
    }
}

impl From<Decision> for String {
    fn from(decision: Decision) -> Self {
        decision.as_str().to_owned()
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Decider {
    pub fn as_str(self) -> &'static str {
        match self {
            Decider::Policy => "policy",
            Decider::Boss => "boss",
            Decider::User => "user",
            Decider::TimeLimit => "time limit",
        }
    }
}

impl From<Author> for Decider {
    fn from(author: Author) -> Self {
        match author {
            Author::Boss => Self::Boss,
            Author::User => Self::User,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(id: &str, kind: ChoiceKind) -> Choice {
        Choice { id: id.to_owned(), name: id.to_owned(), kind }
    }

    fn question(choices: &[(&str, ChoiceKind)]) -> Question {
        Question::new("q1.1.1".into(), "may I?", "edit: x", choices.iter().map(|(id, kind)| choice(id, *kind)))
    }

    #[test]
    fn decisions_become_choices() {
        use ChoiceKind::{AllowOnce, Other, RejectOnce};
        let both = question(&[("once", AllowOnce), ("no", RejectOnce), ("blue", Other)]);
        let cases = [
            ("allow", Some((true, Some("once")))),
            ("deny", Some((false, Some("no")))),
            ("once", Some((true, Some("once")))),
            ("no", Some((false, Some("no")))),
            ("blue", Some((true, Some("blue")))),
            ("always", None),
            ("", None),
        ];
        for (decision, expected) in cases {
            let verdict = both.verdict(&decision.to_owned().into(), Some("since".into()));
            let expected = expected.map(|(is_allowed, choice)| Verdict {
                is_allowed,
                choice: choice.map(str::to_owned),
                reason: (!is_allowed).then(|| "since".to_owned()),
            });
            assert_eq!(verdict.ok(), expected, "{decision}");
        }
        let none = question(&[("blue", Other)]);
        assert_eq!(none.verdict(&Decision::Deny, None).unwrap().choice, None);
        let refused = none.verdict(&Decision::Allow, None).unwrap_err();
        assert_eq!(refused.accepted, ["deny", "blue"]);
    }

    #[test]
    fn ids_of_choices_are_never_decision_words() {
        use ChoiceKind::{AllowOnce, RejectOnce};
        let long = "x".repeat(61);
        let hostile =
            question(&[("deny", AllowOnce), ("a\u{202e}b", RejectOnce), (&long, RejectOnce), ("", RejectOnce)]);
        assert_eq!(hostile.choices.iter().map(|it| it.id.as_str()).collect::<Vec<_>>(), ["1", "2", "3", "4"]);
        assert!(!hostile.verdict(&Decision::Deny, None).unwrap().is_allowed);
    }

    #[test]
    fn texts_are_limited_and_sanitised() {
        let many = (0..50).map(|at| choice(&format!("c{at}"), ChoiceKind::Other));
        let question = Question::new("q".into(), &format!("\u{1b}[2J{}", "é".repeat(5_000)), "\u{202e}", many);
        assert!(question.text.len() <= TEXT_LIMIT + 3 && question.text.starts_with("\\u{1b}[2J"));
        assert_eq!(question.action, "\\u{202e}");
        assert_eq!(question.choices.len(), CHOICE_LIMIT);
    }
}
