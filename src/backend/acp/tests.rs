//! The states of a conversation, and any line in any of them.

use std::path::Path;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::mission::id::{BackendName, TaskId};
use crate::mission::outcome::FailureKind;
use crate::mission::question::QuestionRules;
use crate::mission::spec::{Mission, Place};

fn stream(session: Session<'_>, permissions: Permissions) -> AcpStream {
    stream_with(Traits::default(), session, permissions)
}

pub(super) fn stream_with(traits: Traits, session: Session<'_>, permissions: Permissions) -> AcpStream {
    stream_by(QuestionPolicy::AllowInWorktree, traits, session, permissions)
}

pub(super) fn stream_by(
    policy: QuestionPolicy,
    traits: Traits,
    session: Session<'_>,
    permissions: Permissions,
) -> AcpStream {
    let mission = Mission {
        title: "t".into(),
        prompt: "do it".into(),
        backend: BackendName::from("mine"),
        model: None,
        effort: None,
        place: Place::Directory { path: "/srv/tree".into() },
        setup_command: None,
        verify_command: None,
        task_id: TaskId::from("t"),
        depends_on: Vec::new(),
        context_from: Vec::new(),
        timeout_minutes: 120,
        max_cost_usd: None,
        max_tokens: None,
        fallback_backends: Vec::new(),
        max_attempts: 1,
        request_id: None,
        permissions,
        run_on: None,
        profile: None,
    };
    let turn = Turn {
        mission: &mission,
        prompt: "go on",
        prompt_anew: "the mission, and go on",
        dir: Path::new("/srv/tree"),
        session,
        message_id: Uuid::nil(),
        git: None,
        identity: None,
        scratch: Path::new("/srv/scratch"),
        own_registrations: &[],
        root: false,
        questions: QuestionRules { policy, prefix: "q1.1" },
        confined: false,
    };
    AcpStream::new("mine".into(), traits, &turn)
}

pub(super) fn sent(stream: &mut AcpStream) -> Vec<Value> {
    let lines = stream.replies();
    assert!(lines.iter().all(|line| line.ends_with('\n') && line.trim_end().lines().count() == 1), "{lines:?}");
    lines.iter().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// Returns the id of our oldest request without an answer.
fn awaited(stream: &AcpStream) -> Option<u64> {
    stream.open_requests.first().map(|request| request.id)
}

/// Gives the result to our oldest request without an answer. Returns what is sent then, and the events.
pub(super) fn answer_with(stream: &mut AcpStream, result: Value) -> (Vec<Value>, Vec<AgentEvent>) {
    let line = json!({"jsonrpc": "2.0", "id": awaited(stream), "result": result}).to_string();
    let events = stream.line(&line);
    (sent(stream), events)
}

fn in_turn(permissions: Permissions) -> AcpStream {
    in_turn_with(Traits::default(), permissions)
}

pub(super) fn in_turn_with(traits: Traits, permissions: Permissions) -> AcpStream {
    in_turn_by(QuestionPolicy::AllowInWorktree, traits, permissions)
}

pub(super) fn in_turn_by(policy: QuestionPolicy, traits: Traits, permissions: Permissions) -> AcpStream {
    let mut stream = stream_by(policy, traits, Session::New(Uuid::nil()), permissions);
    answer_with(&mut stream, json!({"protocolVersion": 1, "_meta": {"steering": {"supported": true}}}));
    let (prompt, _) = answer_with(&mut stream, json!({"sessionId": "s"}));
    assert_eq!(prompt[0]["params"]["prompt"][0]["text"], "go on");
    stream
}

pub(super) fn says(stream: &mut AcpStream, text: &str) -> Vec<AgentEvent> {
    let update = json!({"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text}});
    stream.line(&json!({"jsonrpc": "2.0", "method": "session/update", "params": {"update": update}}).to_string())
}

fn end_of(mut stream: AcpStream, result: Value) -> Result<(), FailureKind> {
    let (_, events) = answer_with(&mut stream, result);
    assert_eq!(events.last(), Some(&AgentEvent::Idle));
    stream.end(Exit::Code(0), "").end.map_err(|failure| failure.kind)
}

fn ask(stream: &mut AcpStream, kind: &str, options: &[&str]) -> (Value, Vec<AgentEvent>) {
    let options: Vec<Value> =
        options.iter().map(|kind| json!({"optionId": format!("{kind}!"), "kind": kind})).collect();
    let call = json!({"toolCallId": "c", "kind": kind, "title": "it"});
    let params = json!({"toolCall": call, "options": options});
    let asked = json!({"jsonrpc": "2.0", "id": 0, "method": "session/request_permission", "params": params});
    let events = stream.line(&asked.to_string());
    let answer = sent(stream).remove(0);
    assert_eq!(answer["id"], 0);
    (answer["result"]["outcome"].clone(), events)
}

#[test]
fn end_turn_needs_words() {
    assert_eq!(end_of(in_turn(Permissions::Edit), json!({"stopReason": "end_turn"})), Err(FailureKind::NoResult));
    let mut spoke = in_turn(Permissions::Edit);
    says(&mut spoke, "Done.");
    assert_eq!(end_of(spoke, json!({"stopReason": "end_turn"})), Ok(()));
}

#[test]
fn error_as_last_words_without_usage_is_failure() {
    let end = |words: &[&str], result: Value| {
        let mut stream = in_turn(Permissions::Edit);
        words.iter().for_each(|piece| drop(says(&mut stream, piece)));
        end_of(stream, result)
    };
    let plain = json!({"stopReason": "end_turn"});
    assert_eq!(end(&["Info: x", "Error: HTTP 401 refused"], plain.clone()), Err(FailureKind::Auth));
    let with_usage = json!({"stopReason": "end_turn", "usage": {"inputTokens": 1}});
    assert_eq!(end(&["Error: HTTP 401 refused"], with_usage), Ok(()));
    assert_eq!(end(&["Err", "or: was what I fixed"], plain.clone()), Ok(()));
    assert_eq!(end(&["Error: it failed", " before I fixed it"], plain), Ok(()));
}

#[test]
fn other_ends_are_failures() {
    let end = |reason: &str| {
        let mut stream = in_turn(Permissions::Edit);
        says(&mut stream, "words");
        end_of(stream, json!({"stopReason": reason}))
    };
    assert_eq!(end("cancelled"), Err(FailureKind::Other));
    assert_eq!(end("refusal"), Err(FailureKind::Other));
    assert_eq!(end("max_tokens"), Err(FailureKind::TurnLimit));
    assert_eq!(end("max_turn_requests"), Err(FailureKind::TurnLimit));
    assert_eq!(end("surprise"), Err(FailureKind::Other));
}

#[test]
fn only_allow_once_is_chosen() {
    let mut stream = in_turn(Permissions::Full);
    let (outcome, events) = ask(&mut stream, "edit", &["allow_always", "allow_once", "reject_once"]);
    assert_eq!((&outcome["optionId"], events.len()), (&json!("allow_once!"), 1));
    let (outcome, events) = ask(&mut stream, "edit", &["allow_always", "reject_once"]);
    assert_eq!(outcome["optionId"], "reject_once!");
    assert_eq!(events, [AgentEvent::Denied { what: "edit: it".into() }]);
    assert_eq!(ask(&mut stream, "edit", &["allow_always"]).0["outcome"], "cancelled");
    assert_eq!(stream.end(Exit::Code(0), "").denials, 2);
}

#[test]
fn read_only_worker_may_only_read() {
    let mut stream = in_turn(Permissions::ReadOnly);
    let options = ["allow_once", "reject_once"];
    assert_eq!(ask(&mut stream, "read", &options).0["optionId"], "allow_once!");
    for kind in ["edit", "execute", "other", ""] {
        let mut stream = in_turn(Permissions::ReadOnly);
        assert_eq!(ask(&mut stream, kind, &options).0["optionId"], "reject_once!", "{kind}");
    }
}

#[test]
fn edits_stay_in_the_worktree() {
    let asked = |permissions, place: &str, path: &str| {
        let mut stream = in_turn(permissions);
        let mut call = json!({"toolCallId": "c", "kind": "edit", "title": "it"});
        match place {
            "locations" => call["locations"] = json!([{"path": path}]),
            field => call["rawInput"] = json!({field: path}),
        }
        let options = json!([{"optionId": "yes", "kind": "allow_once"}, {"optionId": "no", "kind": "reject_once"}]);
        let params = json!({"toolCall": call, "options": options});
        let request = json!({"jsonrpc": "2.0", "id": 0, "method": "session/request_permission", "params": params});
        stream.line(&request.to_string());
        sent(&mut stream)[0]["result"]["outcome"]["optionId"].as_str().unwrap_or_default().to_owned()
    };
    for place in ["locations", "path", "file_path", "filePath"] {
        for inside in ["a.txt", "/srv/tree/a.txt", "b/../a.txt", "/srv/tree"] {
            assert_eq!(asked(Permissions::Edit, place, inside), "yes", "{place}: {inside}");
        }
        for outside in ["/srv/trees/a.txt", "../a.txt", "/srv/tree/../a.txt", "/etc/passwd"] {
            assert_eq!(asked(Permissions::Edit, place, outside), "no", "{place}: {outside}");
            assert_eq!(asked(Permissions::Full, place, outside), "yes", "{place}: {outside}");
        }
    }
}

#[test]
fn edit_of_another_kind_is_still_an_edit() {
    let asked = |announced: &str, asked_as: &str| {
        let mut stream = in_turn(Permissions::Edit);
        let call = |kind: &str| json!({"sessionUpdate": "tool_call", "toolCallId": "c", "kind": kind, "title": "it"});
        let update = json!({"jsonrpc": "2.0", "method": "session/update", "params": {"update": call(announced)}});
        stream.line(&update.to_string());
        let mut asked = call(asked_as);
        asked["locations"] = json!([{"path": "/etc/hosts"}, {"path": "/etc"}]);
        let options = json!([{"optionId": "yes", "kind": "allow_once"}, {"optionId": "no", "kind": "reject_once"}]);
        let params = json!({"toolCall": asked, "options": options});
        let request = json!({"jsonrpc": "2.0", "id": 0, "method": "session/request_permission", "params": params});
        stream.line(&request.to_string());
        sent(&mut stream)[0]["result"]["outcome"]["optionId"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(asked("edit", "other"), "no");
    assert_eq!(asked("edit", "read"), "no");
    assert_eq!(asked("other", "edit"), "no");
    assert_eq!(asked("read", "other"), "yes");
}

#[test]
fn notices_are_no_part_of_the_final_message() {
    let end = |mixes_notices| {
        let mut stream = in_turn_with(Traits { mixes_notices, ..Traits::default() }, Permissions::Edit);
        for piece in ["Warning: a call was lost", "Do", "ne."] {
            says(&mut stream, piece);
        }
        answer_with(&mut stream, json!({"stopReason": "end_turn"}));
        stream.end(Exit::Code(0), "").final_message
    };
    assert_eq!(end(true), "Done.");
    assert_eq!(end(false), "Warning: a call was lostDone.");
}

#[test]
fn session_counts_once_it_has_the_mission() {
    let setting = SessionSetting { kind: SettingKind::Mode, values: vec!["edit".into()], is_required: false };
    let traits = Traits { settings: vec![setting], ..Traits::default() };
    let mut stream = stream_with(traits, Session::New(Uuid::nil()), Permissions::Edit);
    answer_with(&mut stream, json!({"protocolVersion": 1}));
    let (_, events) =
        answer_with(&mut stream, json!({"sessionId": "s", "modes": {"availableModes": [{"id": "edit"}]}}));
    assert_eq!(events, []);
    assert_eq!(stream.end(Exit::Code(0), "").session_id, None, "another process could not continue with it");
}

#[test]
fn edit_without_usable_id_is_judged() {
    for id in [Value::Null, json!(7), json!("x".repeat(600))] {
        let mut stream = in_turn(Permissions::Edit);
        let call = json!({"toolCallId": id, "kind": "edit", "locations": [{"path": "/etc/passwd"}]});
        let params = json!({"toolCall": call, "options": [{"optionId": "no", "kind": "reject_once"}]});
        let request = json!({"jsonrpc": "2.0", "id": 0, "method": "session/request_permission", "params": params});
        stream.line(&request.to_string());
        assert_eq!(sent(&mut stream)[0]["result"]["outcome"]["optionId"], "no", "{id}");
    }
}

#[test]
fn edit_of_too_many_files_is_refused() {
    let mut stream = in_turn(Permissions::Edit);
    let locations: Vec<Value> = (0..1_000).map(|number| json!({"path": format!("{number}.txt")})).collect();
    let call = json!({"toolCallId": "c", "kind": "edit", "title": "it", "locations": locations});
    let params = json!({"toolCall": call, "options": [{"optionId": "no", "kind": "reject_once"}]});
    let request = json!({"jsonrpc": "2.0", "id": 0, "method": "session/request_permission", "params": params});
    stream.line(&request.to_string());
    assert_eq!(sent(&mut stream)[0]["result"]["outcome"]["optionId"], "no");
}

#[test]
fn settings_are_applied_before_the_prompt() {
    let setting = |kind, value: &str, is_required| SessionSetting { kind, values: vec![value.into()], is_required };
    let settings = vec![
        setting(SettingKind::Mode, "edit", true),
        setting(SettingKind::Effort, "high", false),
        setting(SettingKind::Model, "m", true),
    ];
    let opened = || {
        let traits = Traits { settings: settings.clone(), ..Traits::default() };
        let mut stream = stream_with(traits, Session::New(Uuid::nil()), Permissions::Edit);
        answer_with(&mut stream, json!({"protocolVersion": 1}));
        stream
    };
    let offers = json!({
        "sessionId": "s", "modes": {"availableModes": [{"id": "edit"}]},
        "configOptions": [{"id": "model", "category": "model", "options": []}],
    });
    let modes = json!({"sessionId": "s", "modes": {"availableModes": [{"id": "edit"}]}});

    let mut stream = opened();
    let (mode, _) = answer_with(&mut stream, offers.clone());
    assert_eq!((&mode[0]["method"], &mode[0]["params"]["modeId"]), (&json!("session/set_mode"), &json!("edit")));
    let (model, events) = answer_with(&mut stream, json!({}));
    assert_eq!((&model[0]["params"]["configId"], &model[0]["params"]["value"]), (&json!("model"), &json!("m")));
    assert!(matches!(&events[0], AgentEvent::Warning { text } if text.contains("no choice of effort")), "{events:?}");
    assert_eq!(answer_with(&mut stream, json!({})).0[0]["method"], "session/prompt");

    let mut stream = opened();
    answer_with(&mut stream, offers);
    answer_with(&mut stream, json!({}));
    let refused = json!({"jsonrpc": "2.0", "id": awaited(&stream), "error": {"code": -32602, "message": "no m"}});
    assert_eq!(stream.line(&refused.to_string()), [AgentEvent::Idle]);
    assert_eq!(stream.end(Exit::Code(0), "").end.unwrap_err().kind, FailureKind::ModelNotFound);

    let mut stream = opened();
    answer_with(&mut stream, modes);
    assert!(answer_with(&mut stream, json!({})).0.is_empty(), "without the model there is no prompt");
    let failure = stream.end(Exit::Code(0), "").end.unwrap_err();
    assert_eq!(failure.message, "cannot set the agent's model: it offers no choice of model");
}

#[test]
fn replaced_model_is_a_failure_before_work() {
    let end = |current: &str| {
        let traits = Traits { expected_model: Some("m".into()), ..Traits::default() };
        let mut stream = stream_with(traits, Session::New(Uuid::nil()), Permissions::Edit);
        answer_with(&mut stream, json!({"protocolVersion": 1}));
        let model = json!({"id": "model", "category": "model", "currentValue": current});
        let (sent, _) = answer_with(&mut stream, json!({"sessionId": "s", "configOptions": [model]}));
        (sent.len(), stream.end(Exit::Code(0), "").end.unwrap_err().kind)
    };
    assert_eq!(end("other"), (0, FailureKind::ModelNotFound));
    assert_eq!(end("m"), (1, FailureKind::NoResult));
}

#[test]
fn login_comes_before_the_session() {
    let traits = Traits { login_methods: &["cached", "key"], ..Traits::default() };
    let mut stream = stream_with(traits, Session::New(Uuid::nil()), Permissions::Edit);
    let (sent, _) = answer_with(&mut stream, json!({"protocolVersion": 1, "authMethods": [{"id": "key"}]}));
    assert_eq!((&sent[0]["method"], &sent[0]["params"]["methodId"]), (&json!("authenticate"), &json!("key")));
    assert_eq!(answer_with(&mut stream, json!({})).0[0]["method"], "session/new");
}

#[test]
fn missing_usage_is_failure_of_some_agents() {
    let end = |result: Value| {
        let mut stream = in_turn_with(Traits { usage_shows_success: true, ..Traits::default() }, Permissions::Edit);
        says(&mut stream, "exceeded retry limit, last status: 429 Too Many Requests");
        end_of(stream, result)
    };
    assert_eq!(end(json!({"stopReason": "end_turn", "usage": null})), Err(FailureKind::RateLimit));
    assert_eq!(end(json!({"stopReason": "end_turn", "usage": {"inputTokens": 1}})), Ok(()));
}

#[test]
fn denial_without_later_words_is_permission_failure() {
    let denied = |words: &str, reason: &str| {
        let mut stream = in_turn(Permissions::ReadOnly);
        ask(&mut stream, "edit", &["reject_once"]);
        says(&mut stream, words);
        end_of(stream, json!({"stopReason": reason}))
    };
    assert_eq!(denied("", "end_turn"), Err(FailureKind::Permission));
    assert_eq!(denied("", "cancelled"), Err(FailureKind::Permission));
    assert_eq!(denied("Info: Operation cancelled by user", "end_turn"), Err(FailureKind::Permission));
    assert_eq!(denied("I could not", "end_turn"), Ok(()));
}

#[test]
fn cancelled_turn_gets_cancelled_permissions() {
    let mut stream = in_turn(Permissions::Edit);
    assert!(stream.cancel());
    assert_eq!(sent(&mut stream)[0]["method"], "session/cancel");
    assert!(stream.cancel(), "the turn still runs");
    assert!(sent(&mut stream).is_empty(), "it is asked once");
    assert_eq!(ask(&mut stream, "edit", &["allow_once", "reject_once"]).0, json!({"outcome": "cancelled"}));
    answer_with(&mut stream, json!({"stopReason": "cancelled"}));
    assert!(!stream.cancel());
    let id = Uuid::from_u128(1);
    assert!(stream.prompt(&[id], "next"));
    assert_eq!(sent(&mut stream)[0]["params"]["prompt"][0]["text"], "next");
    let (_, events) = answer_with(&mut stream, json!({"stopReason": "refusal"}));
    assert_eq!(events[0], AgentEvent::Received { message_id: id, text: None });
    assert!(!stream.prompt(&[id], "again"), "the boss decides about a turn that ended badly");
}

#[test]
fn session_is_resumed_as_the_agent_can() {
    let opens = |capabilities: Value| {
        let mut stream = stream(Session::Resume("old"), Permissions::Edit);
        let result = json!({"protocolVersion": 1, "agentCapabilities": capabilities});
        let (sent, _) = answer_with(&mut stream, result);
        (sent[0]["method"].as_str().unwrap().to_owned(), stream)
    };
    let both = json!({"loadSession": true, "sessionCapabilities": {"resume": {}}});
    assert_eq!(opens(both).0, "session/resume");
    let (method, mut stream) = opens(json!({"loadSession": true}));
    assert_eq!(method, "session/load");
    says(&mut stream, "old words");
    let (prompt, events) = answer_with(&mut stream, Value::Null);
    assert_eq!(prompt[0]["params"]["prompt"][0]["text"], "go on");
    assert_eq!(events, [AgentEvent::Session { id: "old".into(), model: None }]);
    assert_eq!(end_of(stream, json!({"stopReason": "end_turn"})), Err(FailureKind::NoResult));
}

#[test]
fn lost_session_is_replaced_with_a_note() {
    let mut stream = stream(Session::Resume("old"), Permissions::Edit);
    answer_with(&mut stream, json!({"protocolVersion": 1, "agentCapabilities": {"loadSession": true}}));
    let error = json!({"jsonrpc": "2.0", "id": awaited(&stream), "error": {"code": -32002, "message": "not found"}});
    let events = stream.line(&error.to_string());
    assert!(matches!(&events[0], AgentEvent::Warning { text } if text.contains("a new session begins")), "{events:?}");
    assert_eq!(sent(&mut stream)[0]["method"], "session/new");
    let (prompt, _) = answer_with(&mut stream, json!({"sessionId": "new"}));
    assert!(prompt[0]["params"]["prompt"][0]["text"].as_str().unwrap().ends_with("the mission, and go on"));
    assert_eq!(stream.end(Exit::Code(0), "").session_id.as_deref(), Some("new"));
}

#[test]
fn other_version_and_missing_session_are_failures() {
    let mut other = stream(Session::New(Uuid::nil()), Permissions::Edit);
    let (sent, events) = answer_with(&mut other, json!({"protocolVersion": 2}));
    assert_eq!((sent.len(), events), (0, vec![AgentEvent::Idle]));
    assert!(other.end(Exit::Code(0), "").end.unwrap_err().message.contains("version 2"));
    let mut none = stream(Session::New(Uuid::nil()), Permissions::Edit);
    answer_with(&mut none, json!({"protocolVersion": 1}));
    answer_with(&mut none, json!({}));
    assert!(none.end(Exit::Code(0), "").end.is_err());
}

#[test]
fn damaged_request_is_answered_from_its_head() {
    let mut stream = in_turn(Permissions::Edit);
    stream.line(r#"{"jsonrpc":"2.0","id":"x","method":"session/request_permission","params":{"a":"#);
    stream.line(r#"{"jsonrpc":"2.0","id":4,"method":"fs/read_text_file","params":{"a":"#);
    let answers = sent(&mut stream);
    assert_eq!(answers[0], json!({"jsonrpc": "2.0", "id": "x", "result": {"outcome": {"outcome": "cancelled"}}}));
    assert_eq!((&answers[1]["id"], &answers[1]["error"]["code"]), (&json!(4), &json!(-32601)));
}

#[test]
fn answer_with_wrong_id_ends_nothing() {
    let mut stream = in_turn(Permissions::Edit);
    for id in [json!(99), json!("3"), json!(2), Value::Null] {
        let line = json!({"jsonrpc": "2.0", "id": id, "result": {"stopReason": "end_turn"}});
        assert!(!stream.line(&line.to_string()).contains(&AgentEvent::Idle), "{id}");
    }
    assert_eq!(stream.state, State::Turn);
}

/// A step of a random conversation.
#[derive(Debug, Clone)]
enum Step {
    /// An answer to our outstanding request.
    Answer(Value),
    Request(Value, &'static str),
    Line(String),
    Prompt,
    Message,
    Cancel,
}

fn any_traits() -> impl Strategy<Value = Traits> {
    let messages = [LiveMessages::NextTurn, LiveMessages::SecondPrompt, LiveMessages::Steering, LiveMessages::Drained];
    let mode = SessionSetting { kind: SettingKind::Mode, values: vec!["edit".into()], is_required: false };
    (select(messages.to_vec()), any::<bool>()).prop_map(move |(messages, has_mode)| Traits {
        messages,
        settings: if has_mode { vec![mode.clone()] } else { Vec::new() },
        ..Traits::default()
    })
}

fn any_step() -> impl Strategy<Value = Step> {
    let results = select(vec![
        json!({"protocolVersion": 1, "agentCapabilities": {"loadSession": true}}),
        json!({"sessionId": "s"}),
        json!({"sessionId": "s", "modes": {"availableModes": [{"id": "edit"}]}}),
        json!({"outcome": "injected"}),
        json!({"stopReason": "end_turn"}),
        json!({"stopReason": "cancelled"}),
        json!({}),
        Value::Null,
    ]);
    let id = prop_oneof![any::<u32>().prop_map(Value::from), "[a-z]{0,8}".prop_map(Value::from), Just(Value::Null)];
    let methods = ["session/request_permission", "fs/read_text_file", "craft/drainMidTurnQueue", "x"];
    let method = select(methods.to_vec());
    let update =
        select(vec!["agent_message_chunk", "agent_thought_chunk", "tool_call", "tool_call_update", "plan", "?"]);
    let line = prop_oneof![
        ".{0,60}",
        (update, "[a-z ]{0,6}", select(vec!["pending", "completed", "failed"])).prop_map(|(kind, word, status)| {
            let update = json!({
                "sessionUpdate": kind, "toolCallId": word, "status": status, "content": {"text": word},
                "entries": [{"content": word}],
            });
            json!({"jsonrpc": "2.0", "method": "session/update", "params": {"update": update}}).to_string()
        }),
        Just(r#"{"jsonrpc":"2.0","id":7,"error":{}}"#.to_owned()),
        Just("[{},null]".to_owned()),
    ];
    prop_oneof![
        4 => results.prop_map(Step::Answer),
        3 => (id, method).prop_map(|(id, method)| Step::Request(id, method)),
        3 => line.prop_map(Step::Line),
        1 => Just(Step::Prompt),
        1 => Just(Step::Message),
        1 => Just(Step::Cancel),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_line_in_any_state_keeps_the_rules(
        steps in proptest::collection::vec(any_step(), 0..40),
        resumes: bool,
        traits in any_traits(),
    ) {
        let session = if resumes { Session::Resume("old") } else { Session::New(Uuid::nil()) };
        let mut stream = stream_with(traits, session, Permissions::Edit);
        for step in steps {
            let (awaited, was) = (awaited(&stream), stream.state);
            match &step {
                Step::Answer(result) => {
                    stream.line(&json!({"jsonrpc": "2.0", "id": awaited, "result": result}).to_string());
                }
                Step::Request(id, method) => {
                    stream.line(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": {}}).to_string());
                }
                Step::Line(line) => drop(stream.line(line)),
                Step::Prompt => drop(stream.prompt(&[Uuid::nil()], "more")),
                Step::Message => drop(stream.message(Uuid::from_u128(9), "now")),
                Step::Cancel => drop(stream.cancel()),
            }
            let sent = sent(&mut stream);
            let (answers, requests): (Vec<&Value>, Vec<&Value>) = sent.iter().partition(|it| it.get("method").is_none());
            if let Step::Request(id, _) = &step {
                prop_assert_eq!(answers.len(), 1);
                prop_assert_eq!(&answers[0]["id"], id);
                prop_assert!(requests.is_empty());
            }
            let asked = requests.iter().filter(|it| it.get("id").is_some()).count();
            let may_ask = awaited.is_none() || matches!(step, Step::Answer(_) | Step::Message | Step::Prompt);
            prop_assert!(asked <= 1 && (asked == 0 || may_ask));
            let steps = stream.open_requests.iter().filter(|request| request.purpose == Purpose::Step).count();
            // The answer to the turn's prompt may come before those to its messages.
            let expected = usize::from(stream.state != State::Idle && stream.turn.result.is_none());
            prop_assert_eq!(steps, expected);
            prop_assert!(was != State::Idle || stream.state == State::Idle || matches!(step, Step::Prompt));
        }
        let said = !stream.speech.last().is_empty();
        let end = stream.end(Exit::Code(0), "").end;
        prop_assert!(end.is_err() || said);
    }
}
