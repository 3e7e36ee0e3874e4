//! Forms in which the user answers the questions of workers, for clients that show them beside a task. This module only
//! translates; it decides nothing and answers no worker.

use rmcp::model::InputRequests;
use serde_json::{Value, json};

use super::size;
use crate::attempt::inbox::Delivery;
use crate::mission::question::{ChoiceKind, Decision};
use crate::orchestrator::{AnswerRequest, NewMessage, QuestionView};

/// Maximum size in bytes of the text of a form.
const TEXT: usize = 1_500;
/// Maximum size in bytes of a reason.
const REASON: usize = 4_000;
/// Separator of worker and question in the key of a form. Neither id can contain it.
const SEPARATOR: char = '/';

/// Returns a form for each question.
pub(super) fn of(questions: &[QuestionView]) -> InputRequests {
    let forms = questions.iter().filter_map(|view| {
        let key = format!("{}{SEPARATOR}{}", view.worker_id, view.open.question.id);
        let form = json!({"method": "elicitation/create", "params": form(view)});
        Some((key, serde_json::from_value(form).ok()?))
    });
    forms.collect()
}

fn form(view: &QuestionView) -> Value {
    let question = &view.open.question;
    // "allow" and "deny" stand for the first choice of their kind.
    let others = question.choices.iter().filter(|choice| choice.kind == ChoiceKind::Other);
    let words = question.accepted().into_iter().filter(|word| ["allow", "deny"].contains(&word.as_str()));
    let decisions: Vec<Value> = words
        .map(|word| json!({"const": word, "title": word}))
        .chain(others.map(|choice| json!({"const": choice.id, "title": choice.name})))
        .collect();
    json!({
        "mode": "form",
        "message": format!("{} asks: {}", view.worker_id, size::ends(&question.text, TEXT)),
        "requestedSchema": {
            "type": "object",
            "properties": {
                "decision": {"type": "string", "title": "Decision", "oneOf": decisions},
                "reason": {"type": "string", "title": "Reason or message to the worker, if any"},
            },
            "required": ["decision"],
        },
    })
}

/// Returns the worker and the user's answer. `None` if the form was closed without one.
pub(super) fn answer(key: &str, response: &Value) -> Option<(String, AnswerRequest)> {
    let (worker, question) = key.split_once(SEPARATOR)?;
    let content = &response["content"];
    let decision = match response["action"].as_str()? {
        "accept" => Decision::from(content["decision"].as_str()?.to_owned()),
        "decline" => Decision::Deny,
        _ => return None,
    };
    let reason = content["reason"].as_str().map(str::trim).filter(|reason| !reason.is_empty());
    let message = reason.map(|reason| NewMessage {
        text: size::head(reason, REASON).to_owned(),
        delivery: Delivery::default(),
        by: None,
    });
    Some((worker.to_owned(), AnswerRequest { question: Some(question.to_owned()), decision, message }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempt::status::OpenQuestion;
    use crate::mission::id::WorkerId;
    use crate::mission::question::{Choice, Question};

    fn view() -> QuestionView {
        let choice = |id: &str, kind| Choice { id: id.to_owned(), name: format!("Use {id}"), kind };
        let choices = [
            choice("once", ChoiceKind::AllowOnce),
            choice("no", ChoiceKind::RejectOnce),
            choice("b", ChoiceKind::Other),
        ];
        let question = Question::new("q-1".to_owned(), "May I run make?", "make", choices);
        let open = OpenQuestion { question, asked_at: jiff::Timestamp::UNIX_EPOCH, denied_at: None };
        QuestionView { worker_id: WorkerId::new(3, "fix"), open }
    }

    #[test]
    fn form_offers_each_decision_once() {
        let forms = serde_json::to_value(of(&[view()])).unwrap();
        let params = &forms["w-3-fix/q-1"]["params"];
        assert_eq!(params["message"], "w-3-fix asks: May I run make?");
        let decisions = &params["requestedSchema"]["properties"]["decision"]["oneOf"];
        let decisions: Vec<&str> =
            decisions.as_array().unwrap().iter().map(|it| it["const"].as_str().unwrap()).collect();
        assert_eq!(decisions, ["allow", "deny", "b"]);
    }

    #[test]
    fn only_an_answered_form_decides() {
        let key = "w-3-fix/q-1";
        let (worker, request) =
            answer(key, &json!({"action": "accept", "content": {"decision": "b", "reason": " why "}})).unwrap();
        assert_eq!((worker.as_str(), request.question.as_deref()), ("w-3-fix", Some("q-1")));
        assert_eq!((request.decision, request.message.unwrap().text.as_str()), (Decision::Choice("b".into()), "why"));
        let (_, declined) = answer(key, &json!({"action": "decline"})).unwrap();
        assert_eq!((declined.decision, declined.message.is_none()), (Decision::Deny, true));
        for (key, response) in [
            (key, json!({"action": "cancel"})),
            (key, json!({"action": "accept"})),
            (key, json!({"action": "accept", "content": {"decision": 7}})),
            (key, json!("accept")),
            ("w-3-fix", json!({"action": "decline"})),
        ] {
            assert!(answer(key, &response).is_none(), "{key} {response}");
        }
    }
}
