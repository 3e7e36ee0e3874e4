//! Answers to the agent's requests for a permission, by the mission's permissions and the policy for questions. A
//! request that becomes a question waits for its decision. "Always" is never chosen, since some agents then write a rule
//! into the worktree or the user's settings.

use std::path::{Component, Path, PathBuf};

use serde_json::{Value, json};

use super::message::answer;
use super::tools::AskedCall;
use super::{AcpStream, State};
use crate::backend::AgentEvent;
use crate::backend::lines::{items, text};
use crate::mission::question::{Choice, ChoiceKind, OPEN_LIMIT, Question, QuestionPolicy, Verdict};
use crate::mission::spec::Permissions;

/// Kinds of tool calls that change nothing.
const READING_KINDS: [&str; 4] = ["read", "search", "think", "fetch"];

/// A request that waits for a decision.
pub(super) struct OpenPermission {
    request: Value,
    question: Question,
    /// The agent's ids of the choices, in their order.
    options: Vec<String>,
}

/// The options of a request that may be chosen, and the agent's ids of them.
struct Options {
    choices: Vec<Choice>,
    ids: Vec<String>,
}

impl Options {
    fn of(params: &Value) -> Self {
        let choice = |option: &Value| {
            let kind = match text(option, "/kind") {
                "allow_once" => ChoiceKind::AllowOnce,
                "reject_once" => ChoiceKind::RejectOnce,
                _ => return None,
            };
            let id = option["optionId"].as_str()?.to_owned();
            Some((Choice { id: id.clone(), name: text(option, "/name").to_owned(), kind }, id))
        };
        let (choices, ids) = items(params, "/options").filter_map(choice).unzip();
        Self { choices, ids }
    }

    fn first(&self, kind: ChoiceKind) -> Option<&str> {
        let at = self.choices.iter().position(|choice| choice.kind == kind)?;
        Some(&self.ids[at])
    }
}

impl AcpStream {
    pub(super) fn permission(&mut self, id: &Value, params: &Value) -> Vec<AgentEvent> {
        let call = &params["toolCall"];
        let started = self.tools.asked(call);
        let asked = self.tools.describe(call);
        let offered = Options::of(params);
        let may_run = self.state == State::Turn && !self.is_cancelled;
        let may_allow = may_run && self.policy != QuestionPolicy::Deny && self.is_permitted(&asked);
        let allowed = offered.first(ChoiceKind::AllowOnce).filter(|_| may_allow);
        let mut events = [self.confirmed(), self.speech.flush()].concat();
        events.extend(started);
        let may_ask = may_run && !may_allow && offered.first(ChoiceKind::AllowOnce).is_some();
        if may_ask && self.policy == QuestionPolicy::Ask && self.open_permissions.len() < OPEN_LIMIT {
            let text = self.question_text(&asked, call);
            events.push(self.ask(id, &text, &asked.line, offered));
            return events;
        }
        // A turn that was cancelled gets this outcome for all its requests.
        let chosen = allowed.or_else(|| offered.first(ChoiceKind::RejectOnce).filter(|_| may_run));
        self.replies.push(outcome(id, chosen));
        if allowed.is_none() {
            events.push(self.denied(asked.line));
        }
        events
    }

    fn ask(&mut self, request: &Value, text: &str, action: &str, offered: Options) -> AgentEvent {
        self.asked += 1;
        let question = Question::new(format!("{}.{}", self.question_prefix, self.asked), text, action, offered.choices);
        let (request, options) = (request.clone(), offered.ids);
        self.open_permissions.push(OpenPermission { request, question: question.clone(), options });
        AgentEvent::Asked { question }
    }

    /// Describes an action that is not permitted, with the whole command or all paths.
    fn question_text(&self, asked: &AskedCall, call: &Value) -> String {
        let command = text(call, "/rawInput/command");
        let what = match command {
            "" if asked.is_edit => format!("{}: {}", asked.tool, asked.paths.join(", ")),
            "" => asked.line.clone(),
            command => format!("{}: {command}", asked.tool),
        };
        let why = match self.permissions {
            Permissions::ReadOnly => " (the mission is read_only)",
            Permissions::Edit if asked.has_more_paths => " and more paths",
            Permissions::Edit | Permissions::Full => " (outside its worktree)",
        };
        format!("permission for {what}{why}")
    }

    /// Answers the request of a question. `None` if the question is not open.
    pub(super) fn decide(&mut self, question: &str, verdict: &Verdict) -> Option<Vec<AgentEvent>> {
        let at = self.open_permissions.iter().position(|open| open.question.id == question)?;
        let OpenPermission { request, question, options } = self.open_permissions.remove(at);
        let place = question.choices.iter().position(|choice| Some(&choice.id) == verdict.choice.as_ref());
        let chosen = place.and_then(|place| options.get(place));
        self.replies.push(outcome(&request, chosen.map(String::as_str)));
        let is_denied = !verdict.is_allowed || chosen.is_none();
        Some(is_denied.then(|| self.denied(question.action)).into_iter().collect())
    }

    /// Ends a question that the agent has cancelled.
    pub(super) fn request_cancelled(&mut self, params: &Value) -> Vec<AgentEvent> {
        let is_meant = |open: &mut OpenPermission| open.request == params["requestId"];
        let ended: Vec<OpenPermission> = self.open_permissions.extract_if(.., is_meant).collect();
        self.withdraw(ended)
    }

    /// Ends all questions, since no turn runs for them any more.
    pub(super) fn withdraw_all(&mut self) -> Vec<AgentEvent> {
        let ended = std::mem::take(&mut self.open_permissions);
        self.withdraw(ended)
    }

    fn withdraw(&mut self, ended: Vec<OpenPermission>) -> Vec<AgentEvent> {
        self.replies.extend(ended.iter().map(|open| outcome(&open.request, None)));
        ended.into_iter().map(|open| AgentEvent::Withdrawn { question: open.question.id }).collect()
    }

    fn is_permitted(&self, call: &AskedCall) -> bool {
        match self.permissions {
            Permissions::ReadOnly => READING_KINDS.contains(&call.kind.as_str()),
            // Commands reach everywhere, so only edits can be kept inside.
            Permissions::Edit if call.is_edit => {
                !call.has_more_paths && call.paths.iter().all(|path| self.is_inside(path))
            }
            Permissions::Edit => true,
            Permissions::Full => true,
        }
    }

    fn is_inside(&self, path: &str) -> bool {
        let path = normalised(&Path::new(&self.directory).join(path));
        path.starts_with(self.worktree.as_deref().unwrap_or(&self.directory))
    }
}

/// Returns the answer to a request: the chosen option, or that none was chosen.
fn outcome(request: &Value, chosen: Option<&str>) -> String {
    let outcome = match chosen {
        Some(option) => json!({"outcome": "selected", "optionId": option}),
        None => json!({"outcome": "cancelled"}),
    };
    answer(request, json!({"outcome": outcome}))
}

/// Returns an absolute path without `.` and `..`. The disk is not read, so symbolic links stay.
fn normalised(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::super::Traits;
    use super::super::tests::{answer_with, in_turn_by, says, sent};
    use super::*;
    use crate::backend::Decoder;
    use crate::mission::question::Decision;

    fn in_turn(policy: QuestionPolicy) -> AcpStream {
        in_turn_by(policy, Traits::default(), Permissions::Edit)
    }

    /// Requests an edit of a path. Returns the events, and the outcome if it was answered.
    fn edit(stream: &mut AcpStream, id: u64, path: &str) -> (Vec<AgentEvent>, Option<Value>) {
        let call = json!({"toolCallId": format!("c{id}"), "kind": "edit", "rawInput": {"path": path}});
        let options = json!([
            {"optionId": "always", "kind": "allow_always", "name": "Always"},
            {"optionId": "yes", "kind": "allow_once", "name": "Yes"},
            {"optionId": "no", "kind": "reject_once", "name": "No"},
        ]);
        let params = json!({"toolCall": call, "options": options});
        let request = json!({"jsonrpc": "2.0", "id": id, "method": "session/request_permission", "params": params});
        let events = stream.line(&request.to_string());
        (events, sent(stream).into_iter().next().map(|answer| answer["result"]["outcome"].clone()))
    }

    fn asked(events: &[AgentEvent]) -> &Question {
        let question = events.iter().find_map(|event| match event {
            AgentEvent::Asked { question } => Some(question),
            _ => None,
        });
        question.expect("a question")
    }

    fn decide(stream: &mut AcpStream, question: &Question, decision: &str) -> (Vec<AgentEvent>, Value) {
        let verdict = question.verdict(&Decision::from(decision.to_owned()), None).unwrap();
        let events = Decoder::answer(stream, &question.id, &verdict).expect("an open question");
        (events, sent(stream)[0]["result"]["outcome"].clone())
    }

    #[test]
    fn policy_decides_what_becomes_a_question() {
        let selected = |option: &str| Some(json!({"outcome": "selected", "optionId": option}));
        let cases = [
            (QuestionPolicy::AllowInWorktree, "a.txt", selected("yes")),
            (QuestionPolicy::AllowInWorktree, "/etc/hosts", selected("no")),
            (QuestionPolicy::Ask, "a.txt", selected("yes")),
            (QuestionPolicy::Ask, "/etc/hosts", None),
            (QuestionPolicy::Deny, "a.txt", selected("no")),
            (QuestionPolicy::Deny, "/etc/hosts", selected("no")),
        ];
        for (policy, path, outcome) in cases {
            let mut stream = in_turn(policy);
            let (events, found) = edit(&mut stream, 5, path);
            assert_eq!(found, outcome, "{policy:?} {path}");
            let is_asked = events.iter().any(|event| matches!(event, AgentEvent::Asked { .. }));
            assert_eq!(is_asked, outcome.is_none(), "{policy:?} {path}");
            let is_denied = events.iter().any(|event| matches!(event, AgentEvent::Denied { .. }));
            assert_eq!(is_denied, outcome == selected("no"), "{policy:?} {path}");
        }
    }

    #[test]
    fn question_names_action_and_choices() {
        let mut stream = in_turn(QuestionPolicy::Ask);
        let (events, _) = edit(&mut stream, 5, "/etc/hosts");
        let question = asked(&events);
        assert_eq!((question.id.as_str(), question.action.as_str()), ("q1.1.1", "edit: /etc/hosts"));
        assert_eq!(question.text, "permission for edit: /etc/hosts (outside its worktree)");
        assert_eq!(question.accepted(), ["allow", "deny", "yes", "no"], "never always");
    }

    #[test]
    fn decision_answers_the_request_once() {
        for (decision, option, denials) in [("allow", "yes", 0), ("yes", "yes", 0), ("deny", "no", 1), ("no", "no", 1)]
        {
            let mut stream = in_turn(QuestionPolicy::Ask);
            let question = asked(&edit(&mut stream, 5, "/etc/hosts").0).clone();
            let (events, outcome) = decide(&mut stream, &question, decision);
            assert_eq!(outcome, json!({"outcome": "selected", "optionId": option}));
            assert_eq!(events.len(), denials, "{decision}");
            let verdict = question.verdict(&Decision::Deny, None).unwrap();
            assert_eq!(Decoder::answer(&mut stream, &question.id, &verdict), None, "it was answered");
            assert!(sent(&mut stream).is_empty());
        }
    }

    #[test]
    fn whole_command_is_shown() {
        let mut stream = in_turn_by(QuestionPolicy::Ask, Traits::default(), Permissions::ReadOnly);
        let command = format!("echo {} && rm -rf /", "x".repeat(500));
        let call = json!({"toolCallId": "c", "kind": "execute", "rawInput": {"command": command}});
        let params = json!({"toolCall": call, "options": [{"optionId": "y", "kind": "allow_once"}]});
        let request = json!({"jsonrpc": "2.0", "id": 0, "method": "session/request_permission", "params": params});
        let events = stream.line(&request.to_string());
        let question = asked(&events);
        assert!(question.text.ends_with("&& rm -rf / (the mission is read_only)"), "{}", question.text);
        let (_, outcome) = decide(&mut stream, &question.clone(), "deny");
        assert_eq!(outcome, json!({"outcome": "cancelled"}), "it offers no denial");
    }

    #[test]
    fn too_many_questions_are_denied() {
        let mut stream = in_turn(QuestionPolicy::Ask);
        for id in 0..OPEN_LIMIT as u64 {
            assert_eq!(edit(&mut stream, id, "/etc/hosts").1, None);
        }
        let (events, outcome) = edit(&mut stream, 99, "/etc/passwd");
        assert_eq!(outcome.unwrap()["optionId"], "no");
        assert!(matches!(events.last(), Some(AgentEvent::Denied { .. })));
    }

    #[test]
    fn cancelled_turn_answers_open_questions() {
        let mut stream = in_turn(QuestionPolicy::Ask);
        edit(&mut stream, 5, "/etc/hosts");
        assert!(stream.cancel());
        let lines = sent(&mut stream);
        assert_eq!(lines[0]["method"], "session/cancel");
        assert_eq!((&lines[1]["id"], &lines[1]["result"]["outcome"]["outcome"]), (&json!(5), &json!("cancelled")));
    }

    #[test]
    fn question_ends_with_its_turn_or_request() {
        let withdrawn = AgentEvent::Withdrawn { question: "q1.1.1".to_owned() };
        let mut stream = in_turn(QuestionPolicy::Ask);
        edit(&mut stream, 5, "/etc/hosts");
        says(&mut stream, "never mind");
        let (_, events) = answer_with(&mut stream, json!({"stopReason": "end_turn"}));
        assert!(events.contains(&withdrawn), "{events:?}");

        let mut stream = in_turn(QuestionPolicy::Ask);
        edit(&mut stream, 5, "/etc/hosts");
        let cancel = |id: u64| json!({"jsonrpc": "2.0", "method": "$/cancel_request", "params": {"requestId": id}});
        assert!(stream.line(&cancel(6).to_string()).is_empty());
        assert_eq!(stream.line(&cancel(5).to_string()), [withdrawn]);
        assert_eq!(sent(&mut stream)[0]["id"], 5);
    }
}
