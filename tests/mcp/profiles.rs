//! Profiles of missions: the fields that they supply, the refusals, and the answers that show them.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::Client;

const PROFILES: &str = r#"
[profiles.cheap]
backend = "codex"
model_effort = "low"
verify_command = "make quick"
timeout_minutes = 30
max_tokens = 1000
fallback_backends = ["gemini"]

[profiles.reviewer]
permissions = "read_only"

[profiles.sonnet]
model_override = "sonnet"
"#;

/// Starts a server whose user has these settings.
fn with_settings(home: TempDir, settings: &str) -> Client {
    let folder = home.path().join(".config/orchestrator-boss");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("config.toml"), settings).unwrap();
    let mut client = Client::start_in(home, "", &[]);
    client.initialize("test", "2025-06-18");
    client
}

fn client() -> Client {
    with_settings(tempfile::tempdir().unwrap(), PROFILES)
}

fn mission(client: &Client, more: Value) -> Value {
    let mut mission = json!({"title": "Fix", "prompt": "Nothing.", "working_directory": client.home.path()});
    more.as_object().unwrap().iter().for_each(|(name, value)| mission[name] = value.clone());
    mission
}

/// Returns the mission of the first worker, as the journal has it.
fn recorded(home: &Path) -> Value {
    let files = fs::read_dir(home.join(".orchestrator/journal")).unwrap().flatten();
    let text: String = files.map(|file| fs::read_to_string(file.path()).unwrap_or_default()).collect();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.into_iter().find_map(|line| find_mission(&line)).expect("a recorded mission")
}

fn find_mission(value: &Value) -> Option<Value> {
    match value {
        Value::Object(fields) => match fields.get("mission") {
            Some(mission) => Some(mission.clone()),
            None => fields.values().find_map(find_mission),
        },
        Value::Array(items) => items.iter().find_map(find_mission),
        _ => None,
    }
}

#[test]
fn own_fields_win_over_those_of_the_profile() {
    let mut client = client();
    let own = json!({"profile": "cheap", "verify_command": "make all", "fallback_backends": []});
    let made = client.succeed(1, "create_worker_mission", mission(&client, own));
    assert_eq!((&made["worker"]["backend"], &made["worker"]["profile"]), (&json!("codex"), &json!("cheap")), "{made}");
    let mission = recorded(client.home.path());
    for (field, value) in [
        ("backend", json!("codex")),
        ("effort", json!("low")),
        ("verify_command", json!("make all")),
        ("timeout_minutes", json!(30)),
        ("max_tokens", json!(1_000)),
        ("max_attempts", json!(1)),
        ("permissions", json!("edit")),
        ("profile", json!("cheap")),
    ] {
        assert_eq!(mission[field], value, "{field} in {mission:#}");
    }
    assert_eq!(mission.get("fallback_backends"), None, "an empty list is an own value");
}

#[test]
fn refused_profiles_and_values_are_named() {
    let mut client = client();
    for (id, (more, words)) in [
        (json!({"backend": "codex", "profile": "chaep"}), "cannot use the profile \"chaep\": there are only cheap"),
        (json!({"backend": "codex", "profile": "chaep"}), "did you mean cheap?"),
        (json!({}), "backend is missing: give one of claudecode, codex, gemini, opencode, "),
        (json!({"profile": "reviewer"}), "or a profile that has one: cheap"),
        (
            json!({"backend": "codex", "profile": "sonnet"}),
            "cannot take model_override from the profile \"sonnet\": cannot use the model \"sonnet\"",
        ),
        (json!({"backend": "codex", "profile": "sonnet"}), "give the mission its own model_override"),
        (
            json!({"backend": "gemini", "model_effort": "high", "profile": "sonnet", "model_override": "gemini-2.5-pro"}),
            "0: cannot use the effort",
        ),
        (json!({"profile": "cheap", "timeout_minutes": 0}), "timeout_minutes is 0: it must be from 1 to 10080"),
    ]
    .into_iter()
    .enumerate()
    {
        let refused = client.refused(id as i64 + 1, "create_worker_mission", mission(&client, more.clone()));
        assert!(refused.contains(words), "{more}: {refused}");
    }
}

#[test]
fn race_compares_missions_with_their_profiles() {
    let mut client = client();
    let racer = |profile: &str, more: Value| {
        let mut racer = json!({"title": "Fix", "prompt": "Nothing.", "profile": profile, "permissions": "read_only",
            "working_directory": client.home.path()});
        more.as_object().unwrap().iter().for_each(|(name, value)| racer[name] = value.clone());
        racer
    };
    let other = json!({"backend": "codex"});
    let differs = [racer("cheap", json!({})), racer("reviewer", other.clone())];
    let same = [
        racer("cheap", json!({"verify_command": "make"})),
        racer("reviewer", json!({"backend": "codex", "verify_command": "make"})),
    ];
    let refused = client.refused(1, "batch_create_workers", json!({"workers": differs, "race": true}));
    assert!(refused.contains("verify_command of mission 1 differs"), "{refused}");
    let made = client.succeed(2, "batch_create_workers", json!({"workers": same, "race": true}));
    assert_eq!(made["created"], 2, "{made}");
}

#[test]
fn backend_status_lists_the_profiles() {
    let mut client = client();
    let answer = client.succeed(1, "get_backend_status", json!({}));
    assert_eq!(answer["profiles"]["reviewer"], json!({"permissions": "read_only"}), "{answer:#}");
    assert_eq!(answer["profiles"]["cheap"]["timeout_minutes"], 30);
    let mut without = Client::initialized("test");
    let answer = without.succeed(1, "get_backend_status", json!({}));
    assert_eq!(answer.get("profiles"), None, "{answer:#}");
}

#[test]
fn retry_does_not_need_the_profile() {
    let mut before = client();
    let made = before.succeed(1, "create_worker_mission", mission(&before, json!({"profile": "cheap"})));
    let worker = made["worker"]["worker_id"].clone();
    before.succeed(2, "cancel_worker", json!({"worker_id": worker}));
    let mut after = with_settings(before.kill(), "");
    let retried = after.succeed(3, "retry_worker", json!({"worker_id": worker}));
    let worker = &retried["worker"];
    assert_eq!((&worker["status"], &worker["profile"]), (&json!("queued"), &json!("cheap")), "{retried:#}");
    assert_eq!(recorded(after.home.path())["verify_command"], "make quick");
}
