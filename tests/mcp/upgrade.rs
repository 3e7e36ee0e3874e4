//! Upgrades of the program while the server runs: its file is replaced, or its version's folder is removed.
//! Linux starts the running program again; macOS needs the new program at the old path or on the PATH.
#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::client::Client;
use crate::integrate::repository;
use crate::support::wait::until;

/// A stand-in for Codex that waits for the file `gate`, then writes a file and completes.
const CODEX: &str = r#"#!/bin/sh
case "$*" in --version | "login status") echo 1.0; exit ;; esac
cat > /dev/null
while [ ! -e "$HOME/gate" ]; do sleep 0.02; done
date +%N > "$$.txt"
echo '{"type":"thread.started","thread_id":"t-1"}'
echo '{"type":"turn.completed","usage":{"input_tokens":1,"cached_input_tokens":0,"output_tokens":1}}'
"#;

/// A program that is installed as version 1 behind a symbolic link, and a server that runs it.
struct Installed {
    home: PathBuf,
    boss: Client,
}

impl Installed {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().canonicalize().unwrap();
        repository(&home);
        fs::create_dir_all(home.join("versions/1")).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_orchestrator-boss"), home.join("versions/1/orchestrator-boss")).unwrap();
        fs::create_dir(home.join("links")).unwrap();
        symlink(home.join("versions/1/orchestrator-boss"), home.join("links/orchestrator-boss")).unwrap();
        let environment = [("ORCHESTRATOR_MAX_WORKERS", "2"), ("ORCHESTRATOR_WAIT_SECONDS", "1")];
        let program = home.join("links/orchestrator-boss");
        let mut boss = Client::start_program(&program, folder, "repo", &environment);
        boss.initialize("test", "2025-06-18");
        boss.install("codex", CODEX);
        Self { home, boss }
    }

    fn create(&mut self, id: i64, title: &str) -> String {
        let mission = json!({"title": title, "prompt": "x", "backend": "codex", "verify_command": "ls *.txt"});
        let created = self.boss.succeed(id, "create_worker_mission", mission);
        created["worker"]["worker_id"].as_str().unwrap().to_owned()
    }

    fn completes(&mut self, id: i64, worker: &str) {
        let answer = self.boss.next_report(id);
        let settled = &answer["settled"][0];
        assert_eq!((&settled["worker_id"], &settled["status"]), (&json!(worker), &json!("completed")), "{answer:#}");
        assert_eq!(settled["outcome"]["verification"]["result"], "passed", "{answer:#}");
    }

    fn status(&self, worker: &str) -> Value {
        let attempt = self.home.join("repo/.orchestrator/workers").join(worker).join("attempts/1/status.json");
        serde_json::from_slice(&fs::read(attempt).unwrap_or_default()).unwrap_or_default()
    }
}

/// Checks workers from before, during and after the upgrade, then a retry and an integration with verification.
fn check_after(upgrade: impl Fn(&Path)) {
    let mut it = Installed::start();
    fs::write(it.home.join("gate"), "").unwrap();
    let first = it.create(1, "first");
    it.completes(2, &first);
    fs::remove_file(it.home.join("gate")).unwrap();
    let during = it.create(3, "during");
    until("it runs", || it.status(&during)["phase"] == "running");

    upgrade(&it.home);

    let after = it.create(4, "after");
    until("it runs", || it.status(&after)["phase"] == "running");
    let supervisor = it.status(&after)["supervisor"]["pid"].as_u64().unwrap();
    let listed = |file: &str| fs::read_to_string(format!("/proc/{supervisor}/{file}")).unwrap();
    assert_eq!(listed("comm").trim_end(), "orchestrator-bo", "the supervisor is in the process table");
    let command = listed("cmdline").replace('\0', " ");
    assert!(command.contains("versions/1/orchestrator-boss supervise "), "{command}");
    fs::write(it.home.join("gate"), "").unwrap();
    let mut settled = Vec::new();
    let mut id = 4;
    while settled.len() < 2 {
        id += 1;
        let answer = it.boss.next_report(id);
        for worker in answer["settled"].as_array().unwrap() {
            assert_eq!(worker["status"], "completed", "{answer:#}");
            settled.push(worker["worker_id"].clone());
        }
    }
    it.boss.succeed(20, "retry_worker", json!({"worker_id": first, "feedback": "once more"}));
    it.completes(21, &first);

    let train = json!({"worker_ids": [first, during, after], "verify_command": "test $(ls *.txt | wc -l) -ge 3"});
    let mut id = 30;
    let merged = loop {
        let answer = it.boss.succeed(id, "integrate_worker", train.clone());
        id += 1;
        if answer["status"] != "running" {
            break answer;
        }
    };
    assert_eq!(merged["status"], "merged", "{merged:#}");
    assert_eq!(merged["verification"]["result"], "passed", "{merged:#}");
}

#[test]
fn server_works_after_its_version_is_removed() {
    check_after(|home| {
        fs::create_dir(home.join("versions/2")).unwrap();
        fs::write(home.join("versions/2/orchestrator-boss"), "another version").unwrap();
        fs::remove_file(home.join("links/orchestrator-boss")).unwrap();
        symlink(home.join("versions/2/orchestrator-boss"), home.join("links/orchestrator-boss")).unwrap();
        fs::remove_dir_all(home.join("versions/1")).unwrap();
    });
}

#[test]
fn server_works_after_its_file_is_replaced() {
    check_after(|home| {
        fs::write(home.join("new"), "another version").unwrap();
        fs::rename(home.join("new"), home.join("versions/1/orchestrator-boss")).unwrap();
    });
}

#[test]
fn server_works_after_its_program_is_uninstalled() {
    check_after(|home| {
        fs::remove_dir_all(home.join("versions")).unwrap();
        fs::remove_dir_all(home.join("links")).unwrap();
    });
}
