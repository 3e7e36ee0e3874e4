//! The token cost of a whole run for the boss: eight workers from the backend check to the last merge, through the real
//! server, with realistic titles, prompts, outputs and diffs. The cost depends on how many workers settle before each
//! wait, so the test decides when each one ends. It counts the text that the model reads and writes:
//! the list of tools, the arguments of each call, and each answer as clients show it, which is its structured content as
//! compact JSON. The scripts of the fake CLI are part of its prompts, but not of what a boss writes, so they do not count.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::client::Client;
use crate::support::git::git;
use crate::support::wait::until;

/// Approximate bytes of a token in English and in JSON with words as keys. Hex ids take more tokens, blanks fewer.
const BYTES_A_TOKEN: usize = 4;
/// Maximum cost of a run with the list of tools, if workers settle in groups.
const MOST_TOKENS: usize = 8_000;
/// The same, if the boss waits for each worker by itself. Each answer then lists the workers that still run.
const MOST_TOKENS_ONE_BY_ONE: usize = 9_100;

/// Begins the script of the fake CLI in a prompt.
const SCRIPT: &str = "\nFAKE:\n";

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
        let asked = arguments.to_string().len() - scripts(&arguments);
        let answer = self.client.succeed(self.calls, tool, arguments);
        let answered = answer.to_string().len();
        self.bytes += asked + answered;
        self.table.push_str(&format!("{tool:<22} {asked:>6} {answered:>6}\n"));
        answer
    }

    /// Lets the workers with these numbers end, and waits until they have settled.
    fn release(&self, workers: std::ops::Range<usize>) {
        workers.clone().for_each(|number| fs::write(self.client.home.path().join(format!("go-{number}")), "").unwrap());
        let state = self.client.home.path().join("repo/.orchestrator/orchestrator-state.json");
        until("the workers have settled", || {
            let state: Value = fs::read(&state).map_or(Value::Null, |text| serde_json::from_slice(&text).unwrap());
            state["completed_tasks"].as_array().is_some_and(|tasks| tasks.len() + 1 == workers.end)
        });
    }

    /// Integrates the settled workers as the next step says: one by itself, several as a train. Returns their number.
    fn integrate(&mut self, settled: &[Value], next_step: &str) -> usize {
        let ids: Vec<&str> = settled.iter().map(|worker| short_id(worker["worker_id"].as_str().unwrap())).collect();
        let arguments = match ids.as_slice() {
            [] => return 0,
            [one] => json!({ "worker_id": one }),
            several => {
                let train = format!("worker_ids [\"{}\"]", several.join("\", \""));
                assert!(next_step.contains(&train), "{next_step}");
                json!({ "worker_ids": several })
            }
        };
        let merged = self.call("integrate_worker", arguments);
        assert_eq!(merged["status"], "merged", "{merged:#}");
        ids.len()
    }
}

/// Returns the bytes of the scripts in the prompts of a batch.
fn scripts(arguments: &Value) -> usize {
    let workers = arguments["workers"].as_array();
    let prompts = workers.into_iter().flatten().filter_map(|mission| mission["prompt"].as_str());
    let script = |prompt: &str| prompt.find(SCRIPT).map_or(0, |at| Value::from(&prompt[at..]).to_string().len() - 2);
    prompts.map(script).sum()
}

/// Returns a mission as a boss writes it, with the script of the fake CLI, which ends once the file `go` is there.
fn mission(title: &str, file: &str, go: &Path) -> Value {
    let words = format!(
        "{title}. The code is in {file}; read its tests first. Keep the public API as it is, add tests for what you \
         change, and keep to the style of the file. Report what you changed and what you found but left alone."
    );
    let said = format!(
        "I changed {file} as asked and added three tests. The public API is as it was. I found two places nearby that \
         copy the same logic and left them alone. All tests pass."
    );
    let script = format!(
        "{SCRIPT}say I will look at {file} and at its tests.\nwait-file {}\nwrite {file} one two three four five\nedit {file}\ncommit {title}\nsay {said}\nusage 48211 3127 0.42\nresult success",
        go.display()
    );
    json!({
        "title": title, "prompt": format!("{words}{script}"), "backend": "fake",
        "verify_command": "for i in $(seq 40); do echo \"test case_$i ... ok\"; done; echo 'test result: ok. 40 passed'",
    })
}

#[test]
fn run_of_eight_workers_costs_few_tokens() {
    costs_at_most(MOST_TOKENS, &[1, 3, 4]);
}

#[test]
fn waiting_for_each_worker_costs_little_more() {
    costs_at_most(MOST_TOKENS_ONE_BY_ONE, &[1; 8]);
}

/// Runs the workers so that each wait answers about one of the groups.
fn costs_at_most(most_tokens: usize, groups: &[usize]) {
    let mut boss = Boss::start();
    boss.call("get_backend_status", json!({}));
    let numbered = MISSIONS.iter().zip(1..);
    let missions: Vec<Value> = numbered
        .map(|((title, file), number)| mission(title, file, &boss.client.home.path().join(format!("go-{number}"))))
        .collect();
    let created = boss.call("batch_create_workers", json!({ "workers": missions }));
    assert_eq!(created["created"], 8, "{created:#}");
    let mut integrated = 0;
    for group in groups {
        boss.release(integrated + 1..integrated + 1 + group);
        let answer = boss.call("wait_for_any_worker", json!({"timeout_seconds": 18}));
        let settled = answer["settled"].as_array().unwrap();
        assert_eq!(settled.len(), *group, "{answer:#}");
        for worker in settled {
            assert_eq!(worker["status"], "completed", "{worker:#}");
            assert_eq!(worker["outcome"]["verification"]["result"], "passed");
        }
        integrated += boss.integrate(settled, answer["next_step"].as_str().unwrap());
    }
    assert_eq!(integrated, MISSIONS.len());
    let tools =
        orchestrator_boss::mcp::surface()["tools"].as_array().unwrap().iter().map(read_by_models).sum::<usize>();
    let tokens = (tools + boss.bytes) / BYTES_A_TOKEN;
    println!(
        "call                    asked answered (bytes)\n{}together {} bytes, and {tools} of tools: about {tokens} tokens",
        boss.table, boss.bytes
    );
    assert!(tokens < most_tokens, "{tokens} tokens:\n{}", boss.table);
}

/// Returns the short form of a worker id, which every tool accepts.
fn short_id(id: &str) -> &str {
    id.match_indices('-').nth(1).map_or(id, |(at, _)| &id[..at])
}

/// Returns the bytes of a tool that models read: its name, description and input schema. Output schemas are for clients
/// (and for code that a model writes in Codex).
fn read_by_models(tool: &Value) -> usize {
    ["name", "description", "inputSchema"].map(|key| tool[key].to_string().len()).iter().sum()
}

/// Checks the size of the tool list, which a client loads first.
#[test]
fn list_of_tools_is_short() {
    let tools = orchestrator_boss::mcp::surface()["tools"].as_array().unwrap().clone();
    let whole = Value::from(tools.clone()).to_string().len();
    let read: usize = tools.iter().map(read_by_models).sum();
    println!("tools/list: {whole} bytes; read by models: {read} bytes, about {} tokens", read / BYTES_A_TOKEN);
    assert!(whole < 39_000, "{whole} bytes");
    assert!(read / BYTES_A_TOKEN < 3_600, "{read} bytes");
}
