//! Individual cases of invalid input.

use serde_json::{Value, json};

use crate::check::Sealed;

fn mission(more: Value) -> Value {
    let mut mission = json!({"title": "x", "prompt": "x", "backend": "codex"});
    more.as_object().unwrap().iter().for_each(|(name, value)| mission[name] = value.clone());
    mission
}

#[test]
fn refusals_name_what_is_accepted() {
    let mut sealed = Sealed::new();
    let megabyte = "x".repeat(1024 * 1024);
    let cases = [
        ("create_worker_mission", mission(json!({"title": megabyte})), "title has 1048576 bytes, but at most 200"),
        ("create_worker_mission", mission(json!({"title": "a\nb"})), "title contains the control character"),
        ("create_worker_mission", mission(json!({"title": "a\u{1b}[2J"})), "title contains the control character"),
        ("create_worker_mission", mission(json!({"title": "a\u{202e}b"})), "title contains the control character"),
        ("create_worker_mission", mission(json!({"prompt": "a\u{0}b"})), "prompt contains a NUL"),
        ("create_worker_mission", mission(json!({"prompt": megabyte.repeat(4)})), "at most 1048576 are allowed"),
        ("create_worker_mission", mission(json!({"backend": "--version"})), "backend"),
        ("create_worker_mission", mission(json!({"model_override": "-c"})), "begins with a dash"),
        ("create_worker_mission", mission(json!({"timeout_minutes": -5})), "timeout_minutes"),
        ("create_worker_mission", mission(json!({"timeout_minutes": 1e300})), "timeout_minutes"),
        ("create_worker_mission", mission(json!({"max_cost_usd": -1.0})), "max_cost_usd"),
        ("create_worker_mission", mission(json!({"max_tokens": 0})), "max_tokens"),
        ("create_worker_mission", mission(json!({"setup_command": " "})), "setup_command is empty"),
        ("create_worker_mission", mission(json!({"setup_command": "a\u{0}b"})), "setup_command contains a NUL"),
        ("create_worker_mission", mission(json!({"permissions": "root"})), "read_only"),
        ("create_worker_mission", mission(json!({"working_directory": "/no/such"})), "/no/such"),
        ("create_worker_mission", mission(json!({"working_directory": "README"})), "README"),
        ("create_worker_mission", mission(json!({"worktree": {"path": "../../elsewhere"}})), "elsewhere"),
        ("create_worker_mission", mission(json!({"worktree": {"path": "link/inside"}})), "worktree_roots"),
        ("create_worker_mission", mission(json!({"worktree": {"path": ".git/x"}})), "git's own files"),
        ("create_worker_mission", mission(json!({"worktree": {"base": "--all"}})), "begins with a dash"),
        ("create_worker_mission", mission(json!({"worktree": {"base": "nothing"}})), "nothing"),
        ("create_worker_mission", json!({"title": "x"}), "missing field `prompt`"),
        ("create_worker_mission", json!({"title": "x", "prompt": "x"}), "backend is missing: give one of claudecode"),
        ("create_worker_mission", mission(json!({"profile": "x"})), "the user's settings have no profiles"),
        ("create_worker_mission", mission(json!({"profile": "-x"})), "begins with a dash"),
        ("create_worker_mission", mission(json!({"context_from": ["x"]})), "cannot take context from \"x\""),
        ("create_worker_mission", mission(json!({"context_from": vec!["x"; 101]})), "0 to 100"),
        ("batch_create_workers", json!({"workers": []}), "workers is empty"),
        ("batch_create_workers", json!({"workers": "x"}), "workers"),
        ("wait_for_worker", json!({"worker_id": "w-1", "mission_id": "w-2"}), "mission_id"),
        ("wait_for_worker", json!({"worker_id": ["w-1"]}), "worker_id"),
        ("wait_for_worker", json!({"worker_id": format!("w-1{}", "0".repeat(30))}), "no worker is called"),
        ("wait_for_worker", json!({"worker_id": "w\u{200b}-1"}), "no worker is called"),
        ("wait_for_any_worker", json!({"worker_ids": vec!["w-1"; 1_001]}), "0 to 1000"),
        ("list_worker_missions", json!({"limit": 0}), "limit"),
        ("list_worker_missions", json!({"cursor": "../../etc"}), "cursor"),
        ("get_worker_status", json!({"worker_id": "../w-1"}), "no worker is called"),
        ("create_worktree", json!({"branch": "x", "path": "/elsewhere"}), "/elsewhere"),
        ("create_worktree", json!({"branch": "x", "repo_path": "link"}), "not in a git repository"),
        ("create_worktree", json!({"branch": "x", "repo_path": "README"}), "repo_path"),
        ("create_worktree", json!({"branch": "x", "repo_path": "README/x"}), "a part of it is not a directory"),
        ("create_worktree", json!({"branch": "x", "repo_path": "nowhere"}), "it does not exist"),
        ("remove_worktree", json!({"path": "link"}), "find a worktree"),
        ("remove_worktree", json!({"path": "w-1", "repo_path": "README"}), "it is not a directory"),
        ("integrate_worker", json!({"branch": "nothing"}), "nothing"),
        ("integrate_worker", json!({"branch": "main", "into": "-f"}), "begins with a dash"),
        ("integrate_worker", json!({"branch": "main", "strategy": "a\r\nforged \u{1b}[2J"}), "strategy"),
        ("get_backend_status", json!({"backend": "\u{1b}[31m"}), "control character"),
    ];
    for (tool, arguments, words) in cases {
        let shown: String = arguments.to_string().chars().take(200).collect();
        match sealed.ask(tool, &arguments) {
            Ok((true, text)) => assert!(text.contains(words), "{tool} {shown}: {text}"),
            // A removal has an answer for each worker.
            Ok((false, text)) if tool == "remove_worktree" => assert!(text.contains(words), "{text}"),
            other => panic!("{tool} {shown}: {other:?}"),
        }
    }
    sealed.check_end_state();
}

#[test]
fn invalid_branches_are_refused_by_name() {
    let mut sealed = Sealed::new();
    let names = [
        "..",
        "a..b",
        "a@{b",
        "@{-1}",
        "x.lock",
        "x.",
        "a b",
        "HEAD",
        "-x",
        "-f",
        "@",
        "",
        " ",
        "a~1",
        "a^",
        "a:b",
        "a?",
        "a*",
        "a[",
        "a\\b",
        "/a",
        "a/",
        "a//b",
        ".a",
        "a/.b",
        "a\u{7f}",
        "a\tb",
        "--upload-pack=x",
    ];
    for name in names {
        for (tool, arguments) in [
            ("create_worktree", json!({"branch": name})),
            ("create_worker_mission", mission(json!({"worktree": {"branch": name}}))),
            ("integrate_worker", json!({"branch": name})),
        ] {
            let (refused, text) = sealed.ask(tool, &arguments).unwrap();
            assert!(refused, "{tool} {name:?}: {text}");
        }
    }
    let branches = crate::support::git::git(&sealed.repo(), &["for-each-ref", "--format=%(refname)"]);
    assert_eq!(branches, "refs/heads/main");
    sealed.check_end_state();
}

#[test]
fn call_with_10000_missions_is_answered() {
    let mut sealed = Sealed::new();
    let workers: Vec<Value> =
        (0..10_000).map(|n| if n % 2 == 0 { json!({"title": n}) } else { json!([n, "\u{1b}"]) }).collect();
    let (refused, text) = sealed.ask("batch_create_workers", &json!({"workers": workers})).unwrap();
    assert!(refused && text.contains("none of the 10000 missions"), "{text}");
    let workers: Vec<Value> =
        (0..300).map(|n| mission(json!({"title": format!("n {n}"), "working_directory": "."}))).collect();
    let (_, text) = sealed.ask("batch_create_workers", &json!({"workers": workers})).unwrap();
    assert!(!text.is_empty());
    sealed.check_end_state();
}

#[test]
fn link_created_after_the_check_is_not_followed() {
    let mut sealed = Sealed::new();
    let created = sealed.ask("create_worktree", &json!({"branch": "one", "path": "places/one"})).unwrap();
    assert!(!created.0, "{}", created.1);
    // The folder is replaced by a link to another place.
    let places = sealed.repo().join("places");
    std::fs::rename(&places, sealed.repo().join("moved")).unwrap();
    std::os::unix::fs::symlink(sealed.outside(), &places).unwrap();
    let (refused, text) = sealed.ask("create_worktree", &json!({"branch": "two", "path": "places/two"})).unwrap();
    assert!(refused, "{text}");
    let (_, text) = sealed.ask("remove_worktree", &json!({"path": "places/one", "force": true})).unwrap();
    assert!(sealed.repo().join("moved/one/README").exists(), "{text}");
    sealed.check_end_state();
}
