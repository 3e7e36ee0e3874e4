//! The scripted model: markers, the order of answers, and the position in a conversation.

#[path = "support/model_server/mod.rs"]
mod model_server;

use std::collections::HashMap;

use model_server::script::{Answer, answer_at, steps_named_in, with_ids};
use model_server::tools::{Input, call_for};
use model_server::{Conversation, Dialect, Script, Step};
use serde_json::json;

fn speak(text: &str, tool: Option<Step>) -> Answer {
    Answer::Speak { text: text.into(), tool }
}

#[test]
fn prompt_has_its_script_as_json_or_name() {
    let script = Script::new().run("ls").say("done");
    let registered = HashMap::from([("list-it".to_owned(), script.clone())]);
    let inline = format!("do this: {}\nand end", script.marker());
    assert_eq!(steps_named_in(&inline, &registered), Some(script.0.clone()));
    assert_eq!(steps_named_in("SCRIPT:list-it, please", &registered), Some(script.0));
    assert_eq!(steps_named_in("no script", &registered), None);
}

#[test]
fn text_before_a_tool_is_one_answer() {
    let steps = Script::new().say("I list").run("ls").say("done").0;
    let at = |position| answer_at(&steps, &[""; 9][..position], |_| 0).0;
    assert_eq!(at(0), speak("I list", Some(Step::Run("ls".into()))));
    assert_eq!(at(1), speak("done", None));
    assert_eq!(at(2), speak("script finished", None));
}

#[test]
fn failure_ends_after_its_count() {
    let steps = Script::new().run("ls").fail_times(429, 2).say("done").0;
    let Step::Fail(failure) = steps[1].clone() else { panic!("the second step is the failure") };
    let after = |failed| answer_at(&steps, &[""], move |_| failed).0;
    assert_eq!(after(0), Answer::Fail(failure.clone()));
    assert_eq!(after(1), Answer::Fail(failure));
    assert_eq!(after(2), speak("done", None));
}

#[test]
fn call_is_repeated_until_its_result_matches() {
    let steps = Script::new().run("ls").until("wait", json!({}), "status: idle").say("done").0;
    let at = |results: &[&str]| answer_at(&steps, results, |_| 0).0;
    let wait = speak("", Some(steps[1].clone()));
    assert_eq!(at(&[]), speak("", Some(Step::Run("ls".into()))));
    assert_eq!(at(&["status: idle"]), wait);
    assert_eq!(at(&["", r#"{"status":"settled"}"#]), wait);
    assert_eq!(at(&["", r#"{"status":"settled"}"#, r#"{\"status\": \"idle\"}"#]), speak("done", None));
}

#[test]
fn ids_are_taken_from_earlier_results() {
    let results = [r#"{"worker_id":"w-12-add-it","branch":"b/w-12-add-it"}, "w-13-it""#];
    let arguments = json!({"worker_ids": ["{worker:it}", "w-1"], "worker_id": "{worker:add-it}", "dry_run": true});
    let expected = json!({"worker_ids": ["w-13-it", "w-1"], "worker_id": "w-12-add-it", "dry_run": true});
    assert_eq!(with_ids(&arguments, &results), expected);
}

#[test]
fn text_by_claude_code_is_no_user_message() {
    let body = json!({"messages": [
        {"role": "user", "content": [
            {"type": "text", "text": "<system-reminder>\nstatus\n</system-reminder>\n\n"},
            {"type": "text", "text": "do it"},
        ]},
        {"role": "assistant", "content": [{"type": "text", "text": "I do"}, {"type": "tool_use", "name": "Bash"}]},
        {"role": "user", "content": [
            {"type": "tool_result", "content": "ok"},
            {"type": "text", "text": "<system-reminder>be good</system-reminder>"},
        ]},
    ]});
    let conversation = Conversation::read(Dialect::Anthropic, &body);
    assert_eq!(conversation.last_user_message(), Some(("do it", vec!["ok"])));
}

#[test]
fn message_during_a_turn_is_a_user_message() {
    let said = "The user sent a new message while you were working:\nstop it\n\nThis is how Claude Code surfaces it";
    for role in ["user", "system"] {
        let body = json!({"messages": [
            {"role": "user", "content": "do it"},
            {"role": "assistant", "content": [{"type": "tool_use", "name": "Bash"}]},
            {"role": "user", "content": [{"type": "tool_result", "content": "ok"}]},
            {"role": role, "content": [{"type": "text", "text": said}]},
        ]});
        let conversation = Conversation::read(Dialect::Anthropic, &body);
        assert_eq!(conversation.last_user_message(), Some(("stop it", vec![])), "{role}");
    }
}

#[test]
fn message_after_an_interrupt_is_a_user_message() {
    let body = json!({"messages": [
        {"role": "user", "content": "do it"},
        {"role": "assistant", "content": [{"type": "tool_use", "name": "Bash"}]},
        {"role": "user", "content": [
            {"type": "tool_result", "content": "stopped"},
            {"type": "text", "text": "[Request interrupted by user for tool use]"},
            {"type": "text", "text": "do that"},
        ]},
    ]});
    let conversation = Conversation::read(Dialect::Anthropic, &body);
    assert_eq!(conversation.last_user_message(), Some(("do that", vec![])));
}

#[test]
fn inserted_elements_are_no_user_message() {
    let body = json!({"messages": [
        {"role": "user", "content": "<current_datetime>today</current_datetime>\n\ndo it\n<environment_details>x"},
    ]});
    let conversation = Conversation::read(Dialect::Chat, &body);
    assert_eq!(conversation.last_user_message(), Some(("do it", vec![])));
}

#[test]
fn each_agent_gets_calls_of_its_own_tools() {
    let step = Step::Write { path: "a.txt".into(), content: "x".into() };
    let called = |tools: &[&str]| {
        let tools: Vec<_> = tools.iter().map(|name| json!({"function": {"name": name}})).collect();
        let system = "I'm currently working in the directory: /work\nHere is its content";
        let body = json!({"messages": [{"role": "system", "content": system}], "tools": tools});
        let call = call_for(Dialect::Chat, &Conversation::read(Dialect::Chat, &body), &step).expect("a call");
        let Input::Json(arguments) = call.input else { panic!("it is JSON") };
        (call.name, arguments)
    };
    let cases = [
        (&["run_shell_command", "write_file"][..], "write_file", json!({"file_path": "/work/a.txt", "content": "x"})),
        (&["bash", "run_typescript", "write_file"], "write_file", json!({"path": "a.txt", "content": "x"})),
        (&["bash", "create"], "create", json!({"path": "a.txt", "file_text": "x"})),
        (&["bash", "write"], "write", json!({"filePath": "a.txt", "content": "x"})),
    ];
    for (tools, name, arguments) in cases {
        assert_eq!(called(tools), (name.to_owned(), arguments));
    }
}

#[test]
fn poll_of_codex_output_is_no_answer() {
    let call = |name: &str| json!({"type": "function_call", "name": name, "arguments": "{}"});
    let output = |text: &str| json!({"type": "function_call_output", "output": text});
    let body = json!({"input": [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "<environment_context>x</environment_context>"}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "do it"}]},
        call("exec_command"), output("Process running with session ID 7"),
        call("write_stdin"), output("Process exited with code 0"),
    ]});
    let conversation = Conversation::read(Dialect::Responses, &body);
    assert_eq!(conversation.last_user_message(), Some(("do it", vec!["Process exited with code 0"])));
}
