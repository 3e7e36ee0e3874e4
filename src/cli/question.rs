//! The words for the questions of workers, the same in all commands. Pure.

use super::text;
use crate::mission::question::{ChoiceKind, Decision, Question};

/// Returns a question with its id in one line.
pub(super) fn line(question: &Question) -> String {
    text::clean(&format!("{}: {}", question.id, question.text))
}

/// Returns whether it is answered by allowing or denying something. Others have choices of their own.
pub(super) fn is_permission(question: &Question) -> bool {
    question.choices.iter().any(|choice| choice.kind == ChoiceKind::AllowOnce)
}

/// Returns the decisions that it accepts, each with its meaning: `allow, deny, 1 (Red)`.
pub(super) fn choices(question: &Question) -> String {
    // "allow" and "deny" stand for the first choice of their kind.
    let is_word = |at: usize, kind: ChoiceKind| {
        kind != ChoiceKind::Other && question.choices.iter().position(|choice| choice.kind == kind) == Some(at)
    };
    let words = [is_permission(question).then_some(Decision::Allow), Some(Decision::Deny)];
    let words = words.into_iter().flatten().map(|word| word.to_string());
    let others = question.choices.iter().enumerate().filter(|(at, choice)| !is_word(*at, choice.kind));
    let others = others.map(|(_, choice)| format!("{} ({})", choice.id, choice.name));
    text::clean(&words.chain(others).collect::<Vec<_>>().join(", "))
}

/// Describes the decision on a question.
pub(super) fn decided(worker: &str, question: &str, decision: &Decision) -> String {
    let what = match decision {
        Decision::Allow => "allowed".to_owned(),
        Decision::Deny => "denied".to_owned(),
        Decision::Choice(id) => format!("answered with {id}"),
    };
    text::clean(&format!("{question} of {worker} is {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mission::question::Choice;

    #[test]
    fn choices_are_named_once() {
        let choice = |id: &str, kind| Choice { id: id.into(), name: format!("name {id}"), kind };
        let asked = |choices| Question::new("q1.1.1".into(), "may\nI?", "edit: x", choices);
        use ChoiceKind::{AllowOnce, Other, RejectOnce};
        let permission = asked(vec![choice("once", AllowOnce), choice("no", RejectOnce), choice("here", AllowOnce)]);
        assert_eq!(choices(&permission), "allow, deny, here (name here)");
        assert_eq!(line(&permission), "q1.1.1: may I?");
        let form = asked(vec![choice("1", Other), choice("2", Other)]);
        assert_eq!(choices(&form), "deny, 1 (name 1), 2 (name 2)");
        assert!(is_permission(&permission) && !is_permission(&form));
    }
}
