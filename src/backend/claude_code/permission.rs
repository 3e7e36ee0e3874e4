//! Claude Code's permission prompts. With `--permission-prompt-tool=stdio` it asks by a `can_use_tool` request before
//! each action that it would refuse otherwise, and waits for the answer without a limit. The model then also has the tool
//! AskUserQuestion, whose questions (a form) arrive in the same way.
//!
//! An allowed action runs with the input that the CLI has. This module never sends the input of an action back, since it
//! has only a shortened copy of a long line.

use serde_json::{Map, Value, json};

use crate::backend::lines::{action, clip, gist, items, one_line, text};
use crate::mission::question::{Choice, ChoiceKind, OPEN_LIMIT, Question, QuestionPolicy, QuestionRules, Verdict};

/// The tool by which the model asks the user. It changes nothing, so its refusal is no denied action.
pub(super) const FORM: &str = "AskUserQuestion";
/// Maximum size in bytes of the input of a form.
const FORM_LIMIT: usize = 64 * 1024;
/// The reasons of a denial without a decision, for the model.
const UNUSABLE_FORM: &str = "the form is too large, or has no questions";
const TOO_MANY: &str = "there are too many questions";
/// Maximum size in bytes of a command in the text of a question.
const COMMAND_LIMIT: usize = 1_500;
/// Maximum size in bytes of the CLI's reason for a prompt.
const REASON_LIMIT: usize = 300;

/// The prompts of one process, and those that wait for an answer.
#[derive(Default)]
pub(super) struct Prompts {
    /// The prefix of the ids of questions. `None`: the CLI was started so that it does not ask.
    prefix: Option<String>,
    /// The number of questions so far.
    count: usize,
    open: Vec<Prompt>,
}

/// A request of the CLI that waits for an answer.
struct Prompt {
    request: String,
    refused: RefusedCall,
    /// The questions of a form; for a permission, one without labels.
    parts: Vec<Part>,
    /// The questions as the CLI sent them, for the answer to a form.
    form: Option<Value>,
}

/// One question of a prompt.
struct Part {
    /// Our id of the question.
    id: String,
    /// The question and its labels in a form.
    asked: String,
    labels: Vec<String>,
    is_open: bool,
    answer: Option<String>,
}

/// A tool call that is refused by the answer to its prompt. The CLI reports it only at the end of the turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RefusedCall {
    pub id: String,
    pub tool: String,
    pub what: String,
}

/// The consequences of a request or an answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reaction {
    pub questions: Vec<Question>,
    /// The line for the CLI.
    pub reply: Option<String>,
    pub refused: Option<RefusedCall>,
}

impl Prompts {
    pub fn new(rules: &QuestionRules<'_>) -> Self {
        let asks = rules.policy == QuestionPolicy::Ask;
        Self { prefix: asks.then(|| rules.prefix.to_owned()), ..Self::default() }
    }

    /// Takes a request of the CLI. One that is no prompt is refused, since the CLI would wait for the answer for ever.
    pub fn request(&mut self, event: &Value) -> Reaction {
        let (id, request) = (text(event, "/request_id"), &event["request"]);
        if self.prefix.is_none() {
            return Reaction::default();
        }
        if text(request, "/subtype") != "can_use_tool" {
            let response = json!({"subtype": "error", "request_id": id, "error": "this client does not support it"});
            return Reaction { reply: Some(line(&response)), ..Reaction::default() };
        }
        let (tool, input) = (text(request, "/tool_name"), &request["input"]);
        let refused = RefusedCall {
            id: text(request, "/tool_use_id").to_owned(),
            tool: tool.to_owned(),
            what: summary(tool, input),
        };
        let is_form = tool == FORM;
        let questions = match tool {
            // The copy of a larger one may be shortened, and an answer has to repeat the questions.
            FORM if input.to_string().len() > FORM_LIMIT => Vec::new(),
            FORM => self.form(input),
            tool => vec![self.permission(tool, request)],
        };
        let waiting: usize = self.open.iter().map(|prompt| prompt.parts.len()).sum();
        if questions.is_empty() || waiting + questions.len() > OPEN_LIMIT {
            let reason = if questions.is_empty() { UNUSABLE_FORM } else { TOO_MANY };
            let reply = Some(denial(id, Some(reason)));
            return Reaction { reply, refused: Some(refused).filter(|_| !is_form), ..Reaction::default() };
        }
        let (questions, parts) = questions.into_iter().unzip();
        let form = is_form.then(|| input["questions"].clone());
        self.open.push(Prompt { request: id.to_owned(), refused, parts, form });
        Reaction { questions, ..Reaction::default() }
    }

    fn permission(&mut self, tool: &str, request: &Value) -> (Question, Part) {
        let input = &request["input"];
        let what = match text(input, "/command") {
            "" => gist(input),
            command => clip(command, COMMAND_LIMIT),
        };
        let asked = match clip(text(request, "/decision_reason"), REASON_LIMIT) {
            reason if reason.is_empty() => format!("permission for {tool}: {what}"),
            reason => format!("permission for {tool}: {what} ({reason})"),
        };
        let choice = |id: &str, name: &str, kind| Choice { id: id.to_owned(), name: name.to_owned(), kind };
        let choices =
            [choice("yes", "allow it once", ChoiceKind::AllowOnce), choice("no", "deny it", ChoiceKind::RejectOnce)];
        let id = self.next_id();
        let question = Question::new(id.clone(), &asked, &action(tool, &gist(input)), choices);
        (question, Part { id, asked, labels: Vec::new(), is_open: true, answer: None })
    }

    /// Returns the questions of a form, each with its options as the choices.
    fn form(&mut self, input: &Value) -> Vec<(Question, Part)> {
        let mut questions = Vec::new();
        for item in items(input, "/questions").take(OPEN_LIMIT + 1) {
            let asked = text(item, "/question").to_owned();
            let labels: Vec<String> = items(item, "/options").map(|it| text(it, "/label").to_owned()).collect();
            let choices = items(item, "/options").enumerate().map(|(at, option)| Choice {
                id: (at + 1).to_string(),
                name: action(text(option, "/label"), text(option, "/description")),
                kind: ChoiceKind::Other,
            });
            let several = if item["multiSelect"] == true { ", also with several choices" } else { "" };
            let words = format!("{asked}\n(`deny` with a message answers in other words{several})");
            let id = self.next_id();
            let question = Question::new(id.clone(), &words, &action(FORM, &asked), choices);
            questions.push((question, Part { id, asked, labels, is_open: true, answer: None }));
        }
        questions
    }

    fn next_id(&mut self) -> String {
        self.count += 1;
        format!("{}.{}", self.prefix.as_deref().unwrap_or_default(), self.count)
    }

    /// Takes the answer to a question. `None` if it is not open. A form is answered with its last question.
    pub fn answer(&mut self, id: &str, verdict: &Verdict) -> Option<Reaction> {
        let is_asked = |prompt: &Prompt| prompt.parts.iter().any(|part| part.id == id && part.is_open);
        let at = self.open.iter().position(is_asked)?;
        let prompt = &mut self.open[at];
        if prompt.form.is_none() {
            let Prompt { request, refused, .. } = self.open.remove(at);
            return Some(if verdict.is_allowed {
                let reply = response(&request, &json!({"behavior": "allow"}));
                Reaction { reply: Some(reply), ..Reaction::default() }
            } else {
                let reply = Some(denial(&request, verdict.reason.as_deref()));
                Reaction { reply, refused: Some(refused), ..Reaction::default() }
            });
        }
        for part in prompt.parts.iter_mut().filter(|part| part.id == id) {
            part.is_open = false;
            part.answer = part.label(verdict.choice.as_deref()).or_else(|| verdict.reason.clone());
        }
        if prompt.parts.iter().any(|part| part.is_open) {
            return Some(Reaction::default());
        }
        Some(Reaction { reply: Some(self.open.remove(at).filled()), ..Reaction::default() })
    }

    pub fn is_any_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Forgets a prompt that the CLI has withdrawn. Returns the ids of its questions that were open.
    pub fn withdraw(&mut self, event: &Value) -> Vec<String> {
        let request = text(event, "/request_id");
        let Some(at) = self.open.iter().position(|prompt| prompt.request == request) else { return Vec::new() };
        let parts = self.open.remove(at).parts.into_iter();
        parts.filter(|part| part.is_open).map(|part| part.id).collect()
    }
}

impl Prompt {
    /// Returns the answer to a form: the questions that have one. A form without any is refused.
    fn filled(self) -> String {
        let answers: Map<String, Value> =
            self.parts.into_iter().filter_map(|part| Some((part.asked, json!(part.answer?)))).collect();
        if answers.is_empty() {
            return denial(&self.request, Some("there is no answer to these questions"));
        }
        let input = json!({"questions": self.form, "answers": answers});
        response(&self.request, &json!({"behavior": "allow", "updatedInput": input}))
    }
}

impl Part {
    /// Returns the label of a choice, whose id is its number.
    fn label(&self, choice: Option<&str>) -> Option<String> {
        let at = choice?.parse::<usize>().ok()?.checked_sub(1)?;
        self.labels.get(at).cloned()
    }
}

/// Summarises a tool call in one line: a form by its questions, any other call by its input.
pub(super) fn summary(tool: &str, input: &Value) -> String {
    match tool {
        FORM => one_line(&items(input, "/questions").map(|item| text(item, "/question")).collect::<Vec<_>>().join(" ")),
        _ => gist(input),
    }
}

/// Returns the line that denies a request. The model gets its text as the result of the call.
fn denial(request: &str, reason: Option<&str>) -> String {
    let message = match reason {
        Some(reason) => format!("This was denied: {reason}"),
        None => "This was denied.".to_owned(),
    };
    response(request, &json!({"behavior": "deny", "message": message}))
}

fn response(request: &str, answer: &Value) -> String {
    line(&json!({"subtype": "success", "request_id": request, "response": answer}))
}

fn line(response: &Value) -> String {
    format!("{}\n", json!({"type": "control_response", "response": response}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompts(policy: QuestionPolicy) -> Prompts {
        Prompts::new(&QuestionRules { policy, prefix: "q1.1" })
    }

    fn asked(id: &str, tool: &str, input: Value) -> Value {
        json!({"type": "control_request", "request_id": id, "request": {
            "subtype": "can_use_tool", "tool_name": tool, "input": input, "tool_use_id": format!("call-{id}"),
            "decision_reason": "Path is outside allowed working directories",
        }})
    }

    fn allowed(choice: &str) -> Verdict {
        Verdict { is_allowed: true, choice: Some(choice.to_owned()), reason: None }
    }

    fn refused(reason: Option<&str>) -> Verdict {
        Verdict { is_allowed: false, choice: None, reason: reason.map(str::to_owned) }
    }

    fn sent(reaction: Option<Reaction>) -> Value {
        let reply = reaction.and_then(|reaction| reaction.reply).unwrap_or_default();
        serde_json::from_str::<Value>(&reply).unwrap_or_default()["response"].take()
    }

    fn form(questions: &[&str]) -> Value {
        let options = json!([{"label": "Red", "description": "warm"}, {"label": "Blue", "description": ""}]);
        let question = |text: &&str| json!({"question": text, "options": options, "multiSelect": false});
        json!({"questions": questions.iter().map(question).collect::<Vec<_>>()})
    }

    #[test]
    fn permission_is_allowed_without_an_input() {
        let mut prompts = prompts(QuestionPolicy::Ask);
        let long = json!({"file_path": "/etc/x", "content": "x".repeat(100_000)});
        let question = prompts.request(&asked("r1", "Write", long)).questions.remove(0);
        assert_eq!((question.id.as_str(), question.action.as_str()), ("q1.1.1", "Write: /etc/x"));
        assert_eq!(question.text, "permission for Write: /etc/x (Path is outside allowed working directories)");
        assert_eq!(question.accepted(), ["allow", "deny", "yes", "no"]);
        let answer = sent(prompts.answer("q1.1.1", &allowed("yes")));
        assert_eq!(answer, json!({"subtype": "success", "request_id": "r1", "response": {"behavior": "allow"}}));
        assert_eq!(prompts.answer("q1.1.1", &allowed("yes")), None, "it has one answer");
    }

    #[test]
    fn denial_names_the_call_and_the_reason() {
        let mut prompts = prompts(QuestionPolicy::Ask);
        for (id, reason, said) in
            [("q1.1.1", Some("too risky"), "This was denied: too risky"), ("q1.1.2", None, "This was denied.")]
        {
            prompts.request(&asked("r1", "Bash", json!({"command": "rm -rf /x"})));
            let reaction = prompts.answer(id, &refused(reason)).unwrap();
            let call = RefusedCall { id: "call-r1".into(), tool: "Bash".into(), what: "rm -rf /x".into() };
            assert_eq!(reaction.refused, Some(call));
            assert_eq!(sent(Some(reaction))["response"], json!({"behavior": "deny", "message": said}));
        }
    }

    #[test]
    fn form_is_answered_with_its_last_question() {
        let mut prompts = prompts(QuestionPolicy::Ask);
        let questions = prompts.request(&asked("r1", FORM, form(&["A?", "B?", "C?"]))).questions;
        assert_eq!(questions[0].choices[0].name, "Red: warm");
        assert_eq!(questions[0].accepted(), ["deny", "1", "2"]);
        assert_eq!(prompts.answer("q1.1.1", &allowed("2")), Some(Reaction::default()));
        assert_eq!(prompts.answer("q1.1.1", &allowed("1")), None);
        assert_eq!(prompts.answer("q1.1.3", &refused(None)), Some(Reaction::default()));
        let answer = sent(prompts.answer("q1.1.2", &refused(Some("green"))));
        let input = &answer["response"]["updatedInput"];
        assert_eq!(input["answers"], json!({"A?": "Blue", "B?": "green"}));
        assert_eq!(input["questions"].as_array().map(Vec::len), Some(3));
        prompts.request(&asked("r2", FORM, form(&["D?"])));
        let reaction = prompts.answer("q1.1.4", &refused(None)).unwrap();
        assert_eq!(reaction.refused, None, "a form changes nothing");
        assert_eq!(sent(Some(reaction))["response"]["behavior"], "deny");
    }

    #[test]
    fn withdrawn_prompt_has_no_answer() {
        let mut prompts = prompts(QuestionPolicy::Ask);
        prompts.request(&asked("r1", FORM, form(&["A?", "B?"])));
        prompts.answer("q1.1.1", &allowed("1"));
        let cancel = json!({"type": "control_cancel_request", "request_id": "r1"});
        assert_eq!(prompts.withdraw(&cancel), ["q1.1.2"]);
        assert_eq!(prompts.answer("q1.1.2", &allowed("1")), None);
        assert!(prompts.withdraw(&cancel).is_empty());
    }

    #[test]
    fn number_of_open_questions_is_limited() {
        let mut prompts = prompts(QuestionPolicy::Ask);
        for at in 0..OPEN_LIMIT {
            assert_eq!(prompts.request(&asked(&at.to_string(), "Bash", json!({}))).questions.len(), 1);
        }
        let reaction = prompts.request(&asked("more", "Bash", json!({"command": "ls"})));
        assert!(reaction.questions.is_empty() && reaction.refused.is_some());
        assert_eq!(sent(Some(reaction))["response"]["behavior"], "deny");
        let reaction = prompts.request(&asked("big", FORM, form(&[&"x".repeat(FORM_LIMIT)])));
        assert_eq!(sent(Some(reaction))["response"]["behavior"], "deny");
    }

    #[test]
    fn other_requests_are_refused_only_if_it_may_ask() {
        let other = json!({"type": "control_request", "request_id": "r1", "request": {"subtype": "elicitation"}});
        assert_eq!(sent(Some(prompts(QuestionPolicy::Ask).request(&other)))["subtype"], "error");
        for policy in [QuestionPolicy::AllowInWorktree, QuestionPolicy::Deny] {
            for request in [&other, &asked("r2", "Bash", json!({}))] {
                assert_eq!(prompts(policy).request(request), Reaction::default());
            }
        }
    }
}
