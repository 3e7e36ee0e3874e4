//! Parses lines of the Agent Client Protocol with its published schema: all that we send, and all recorded ones
//! (`tests/fixtures/acp/`).
//!
//! The product does not use the schema, since it refuses a whole message if one kind in it is unknown.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use agent_client_protocol_schema::v1::{
    AgentNotification, AgentRequest, AgentResponse, ClientNotification, ClientRequest, ClientResponse, Error,
};
use serde::Serialize;
use serde_json::{Value, json};

/// Methods that only one agent has, and that have no type in the schema.
const WITHOUT_TYPE: [&str; 7] = [
    "_auth/status_update",
    "_session/retrying",
    "_session/steering",
    "craft/drainMidTurnQueue",
    "qwen/notify/session/mode-update",
    "qwen/notify/session/model-update",
    "qwen/notify/session/prompt-suggestion",
];

/// The kinds of lines that the recordings must have, each with the minimum number of lines.
const LEAST: [(&str, usize); 13] = [
    ("client request initialize", 1),
    ("client request session/new", 20),
    ("client request session/prompt", 30),
    ("client request session/load", 1),
    ("client request session/resume", 1),
    ("client notification session/cancel", 2),
    ("client answer session/request_permission", 10),
    ("agent request session/request_permission", 10),
    ("agent notification session/update", 200),
    ("agent answer initialize", 30),
    ("agent answer session/new", 20),
    ("agent answer session/prompt", 20),
    ("agent error", 5),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Agent,
}

/// The methods of one side's requests, by their ids.
type Requests = HashMap<String, String>;

#[test]
fn every_line_fits_the_schema() {
    let (mut kinds, mut wrong) = (BTreeMap::<String, usize>::new(), Vec::new());
    let initialize = initialize();
    for case in cases() {
        let sent: Vec<Value> = [initialize.clone()].into_iter().chain(messages(&case.join("sent.jsonl"))).collect();
        let received = messages(&case.join("stream.jsonl"));
        let (ours, theirs) = (requests(&sent), requests(&received));
        let sides = [(Side::Client, &sent, &theirs), (Side::Agent, &received, &ours)];
        for (side, lines, requests) in sides {
            for line in lines {
                match kind_of(side, line, requests) {
                    Ok(kind) => *kinds.entry(kind).or_default() += 1,
                    Err(why) => wrong.push(format!("{}: {why}\n  {line}", case.display())),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} lines do not fit:\n{}", wrong.len(), wrong.join("\n"));
    println!("{kinds:#?}");
    for (kind, least) in LEAST {
        let count = kinds.get(kind).copied().unwrap_or_default();
        assert!(count >= least, "only {count} of: {kind}");
    }
}

#[test]
fn broken_lines_are_refused() {
    let requests = Requests::from([("1".into(), "session/prompt".into())]);
    let update = |update: Value| json!({"jsonrpc": "2.0", "method": "session/update", "params": {"sessionId": "s", "update": update}});
    let prompt = |params: Value| json!({"jsonrpc": "2.0", "id": 1, "method": "session/prompt", "params": params});
    let end = |id: u64, result: Value| json!({"jsonrpc": "2.0", "id": id, "result": result});
    let words = json!([{"type": "text", "text": "do it"}]);
    for (side, line, is_valid) in [
        (Side::Client, prompt(json!({"sessionId": "s", "prompt": words})), true),
        (Side::Client, prompt(json!({"session": "s", "prompt": words})), false),
        (Side::Client, prompt(json!({"sessionId": "s", "prompt": words, "urgent": true})), false),
        (
            Side::Client,
            json!({"id": 1, "method": "session/prompt", "params": {"sessionId": "s", "prompt": words}}),
            false,
        ),
        (Side::Client, json!({"jsonrpc": "2.0", "id": 2, "method": "session/begin", "params": {}}), false),
        (Side::Agent, update(json!({"sessionUpdate": "session_info_update", "title": "t"})), true),
        (Side::Agent, update(json!({"sessionUpdate": "no_such_update"})), false),
        (Side::Agent, json!({"jsonrpc": "2.0", "method": "_no/such/extension", "params": {}}), false),
        (Side::Agent, end(1, json!({"stopReason": "end_turn"})), true),
        (Side::Agent, end(1, json!({"stopReason": "tired"})), false),
        (Side::Agent, end(2, json!({"stopReason": "end_turn"})), false),
        (Side::Agent, json!({"jsonrpc": "2.0", "id": 1, "error": {"code": -32000, "message": "m"}}), true),
        (Side::Agent, json!({"jsonrpc": "2.0", "id": 1, "error": {"message": "m"}}), false),
    ] {
        let kind = kind_of(side, &line, &requests);
        assert_eq!(kind.is_ok(), is_valid, "{line}: {kind:?}");
    }
}

/// Parses a line of this side as the type of its method, or of the other side's request that it answers.
fn kind_of(side: Side, line: &Value, requests_of_other: &Requests) -> Result<String, String> {
    if line["jsonrpc"] != "2.0" {
        return Err("not a message of JSON-RPC 2.0".into());
    }
    let name = if side == Side::Client { "client" } else { "agent" };
    let Some(method) = line["method"].as_str() else { return answer(side, name, line, requests_of_other) };
    let kind = if line.get("id").is_some() { "request" } else { "notification" };
    if WITHOUT_TYPE.contains(&method) {
        return Ok(format!("{name} {kind} {method} without a type"));
    }
    // The schema accepts every method with this beginning.
    if method.starts_with('_') {
        return Err(format!("{method} is an unknown extension"));
    }
    let params = &line["params"];
    match (side, kind) {
        (Side::Client, "request") => ours(ClientRequest::from_method_and_params(method, params), params),
        (Side::Client, _) => ours(ClientNotification::from_method_and_params(method, params), params),
        (Side::Agent, "request") => checked(AgentRequest::from_method_and_params(method, params)),
        (Side::Agent, _) => checked(AgentNotification::from_method_and_params(method, params)),
    }?;
    Ok(format!("{name} {kind} {method}"))
}

fn answer(side: Side, name: &str, line: &Value, requests: &Requests) -> Result<String, String> {
    let method = requests.get(&line["id"].to_string()).ok_or("answers no request")?;
    if WITHOUT_TYPE.contains(&method.as_str()) {
        return Ok(format!("{name} answer {method} without a type"));
    }
    if let Some(error) = line.get("error") {
        checked(serde_json::from_value::<Error>(error.clone()))?;
        return Ok(format!("{name} error"));
    }
    let result = line.get("result").ok_or("neither a result nor an error")?;
    match side {
        Side::Client => ours(ClientResponse::from_method_and_result(method, result.clone()), result),
        Side::Agent => checked(AgentResponse::from_method_and_result(method, result.clone())),
    }?;
    Ok(format!("{name} answer {method}"))
}

fn checked<T, E: ToString>(parsed: Result<T, E>) -> Result<(), String> {
    parsed.map(drop).map_err(|error| error.to_string())
}

/// Checks that the type has all fields that we send. Parsing alone ignores unknown ones.
fn ours<T: Serialize, E: ToString>(parsed: Result<T, E>, sent: &Value) -> Result<(), String> {
    let parsed = serde_json::to_value(parsed.map_err(|error| error.to_string())?);
    let parsed = parsed.map_err(|error| error.to_string())?;
    if has_all(&parsed, sent) { Ok(()) } else { Err(format!("of these fields only {parsed} are in the schema")) }
}

fn has_all(whole: &Value, part: &Value) -> bool {
    match part {
        // The types omit some lists that are empty.
        Value::Object(fields) => {
            fields.iter().all(|(key, part)| whole.get(key).map_or(*part == json!([]), |whole| has_all(whole, part)))
        }
        Value::Array(items) => items.iter().enumerate().all(|(at, part)| has_all(&whole[at], part)),
        _ => whole == part,
    }
}

fn requests(messages: &[Value]) -> Requests {
    let requests = messages.iter().filter(|message| message.get("id").is_some());
    requests.filter_map(|message| Some((message["id"].to_string(), message["method"].as_str()?.to_owned()))).collect()
}

/// Returns our first line, which is the same for every agent.
fn initialize() -> Value {
    let text = read(&root().join("snapshots/backend_plans__agents_get_the_same_first_line.snap"));
    let line = text.lines().find(|line| line.starts_with('{')).expect("the line");
    serde_json::from_str(line).expect("a JSON line")
}

/// Returns the messages in a file; the other lines are noise, or steps of the test that replays it.
fn messages(path: &Path) -> Vec<Value> {
    // An agent that ends at once is sent nothing after the first line.
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).filter(Value::is_object).collect()
}

fn cases() -> Vec<PathBuf> {
    let folder = root().join("fixtures/acp");
    let mut cases: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 150, "only {} cases", cases.len());
    cases
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the folder of the tests").to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
