//! The token cost of a whole run for the boss: eight workers from the backend check to the last merge, through the real
//! server, with realistic titles, prompts, outputs and diffs. The test counts the text that the model reads and writes:
//! the arguments of each call, and each answer as clients show it, which is its structured content as compact JSON.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::client::Client;
use crate::support::git::git;

/// Approximate bytes of a token in English and in JSON with words as keys. Hex ids take more tokens, blanks fewer.
const BYTES_A_TOKEN: usize = 4;
/// Maximum cost of the run.
const MOST_TOKENS: usize = 12_000;

const MISSIONS: [(&str, &str); 8] = [
    ("Add retry with backoff to the HTTP client", "src/http/client.rs"),
    ("Port the date parser to jiff", "src/parse/date.rs"),
    ("Fix the race in the cache's eviction", "src/cache/evict.rs"),
    ("Write property tests for the tokenizer", "tests/tokenizer.rs"),
    ("Document the public API of the storage layer", "src/storage/mod.rs"),
    ("Replace the hand-written argument parser by clap", "src/cli/arguments.rs"),
    ("Speed up the import of large CSV files", "src/import/csv.rs"),
    ("Show progress while the index is rebuilt", "src/index/rebuild.rs"),
];

struct Boss {
    client: Client,
    calls: i64,
    bytes: usize,
    table: String,
}

impl Boss {
    fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let repo = home.path().join("repo");
        fs::create_dir(&repo).unwrap();
        git(&repo, &["init", "-q", "-b", "main"]);
        git(&repo, &["config", "user.name", "Test"]);
        git(&repo, &["config", "user.email", "test@localhost"]);
        git(&repo, &["commit", "-q", "--allow-empty", "-m", "first"]);
        let fake = Path::new(env!("CARGO_BIN_EXE_orchestrator-boss")).with_file_name("examples/fake-cli");
        assert!(fake.exists(), "the fake CLI is missing: run `cargo build --examples`");
        let settings = home.path().join(".config/orchestrator-boss");
        fs::create_dir_all(&settings).unwrap();
        let text = format!("[[custom]]\nname = \"fake\"\nprogram = {fake:?}\noutput = \"jsonl\"\n");
        fs::write(settings.join("config.toml"), text).unwrap();
        let mut client = Client::start_in(home, "repo", &[("ORCHESTRATOR_MAX_WORKERS", "4")]);
        client.initialize("claude-code", "2025-11-25");
        Self { client, calls: 0, bytes: 0, table: String::new() }
    }

    fn call(&mut self, tool: &str, arguments: Value) -> Value {
        self.calls += 1;
        let asked = arguments.to_string().len();
        let answer = self.client.succeed(self.calls, tool, arguments);
        let answered = answer.to_string().len();
        self.bytes += asked + answered;
        self.table.push_str(&format!("{tool:<22} {asked:>6} {answered:>6}\n"));
        answer
    }
}

/// Returns a mission as a boss writes it, with the script of the fake CLI.
fn mission(title: &str, file: &str) -> Value {
    let words = format!(
        "{title}. The code is in {file}; read its tests first. Keep the public API as it is, add tests for what you \
         change, and keep to the style of the file. Report what you changed and what you found but left alone."
    );
    let said = format!(
        "I changed {file} as asked and added three tests. The public API is as it was. I found two places nearby that \
         copy the same logic and left them alone. All tests pass."
    );
    let script = format!(
        "FAKE:\nsay I will look at {file} and at its tests.\nwrite {file} one two three four five\nedit {file}\ncommit {title}\nsay {said}\nusage 48211 3127 0.42\nresult success"
    );
    json!({
        "title": title, "prompt": format!("{words}\n{script}"), "backend": "fake",
        "verify_command": "for i in $(seq 40); do echo \"test case_$i ... ok\"; done; echo 'test result: ok. 40 passed'",
    })
}

#[test]
fn run_of_eight_workers_costs_few_tokens() {
    let mut boss = Boss::start();
    boss.call("get_backend_status", json!({}));
    let missions: Vec<Value> = MISSIONS.iter().map(|(title, file)| mission(title, file)).collect();
    let created = boss.call("batch_create_workers", json!({ "workers": missions }));
    assert_eq!(created["created"], 8, "{created:#}");
    let mut integrated = 0;
    loop {
        let answer = boss.call("wait_for_any_worker", json!({"timeout_seconds": 18}));
        for worker in answer["settled"].as_array().unwrap() {
            assert_eq!(worker["status"], "completed", "{worker:#}");
            assert_eq!(worker["outcome"]["verification"]["result"], "passed");
            let merged = boss.call("integrate_worker", json!({"worker_id": worker["worker_id"]}));
            assert_eq!(merged["status"], "merged", "{merged:#}");
            integrated += 1;
        }
        if answer["status"] == "idle" {
            break;
        }
    }
    assert_eq!(integrated, 8);
    boss.call("list_worker_missions", json!({}));
    let tokens = boss.bytes / BYTES_A_TOKEN;
    println!(
        "call                    asked answered (bytes)\n{}together {} bytes, about {tokens} tokens",
        boss.table, boss.bytes
    );
    assert!(tokens < MOST_TOKENS, "{tokens} tokens:\n{}", boss.table);
}

/// Checks the size of the tool list, which a client loads first. Models read names, descriptions and input schemas;
/// output schemas are for clients (and for code that a model writes in Codex).
#[test]
fn list_of_tools_is_short() {
    let tools = orchestrator_boss::mcp::surface()["tools"].as_array().unwrap().clone();
    let whole = Value::from(tools.clone()).to_string().len();
    let of = |tool: &Value| {
        let read = ["name", "description", "inputSchema"].map(|key| tool[key].to_string().len());
        read.iter().sum::<usize>()
    };
    let read: usize = tools.iter().map(of).sum();
    println!("tools/list: {whole} bytes; read by models: {read} bytes, about {} tokens", read / BYTES_A_TOKEN);
    assert!(whole < 43_000, "{whole} bytes");
    assert!(read / BYTES_A_TOKEN < 5_000, "{read} bytes");
}
