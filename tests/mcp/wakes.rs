//! Bosses in Codex that end their turn and are woken by `codex queue`. The fake Codex records its calls; the daemon is a
//! shell with the daemon's arguments.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use orchestrator_boss::process::Identity;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{CEILING, Client, script};
use crate::integrate::repository;
use crate::support::wait::until;

/// A stand-in for Codex. The file `mode` selects the behaviour of `queue`.
const CODEX: &str = r#"#!/bin/sh
[ "$1" = queue ] || { echo 99.0; exit; }
echo "$*" >> {home}/queued
case "$(cat {home}/mode 2> /dev/null)" in
fail) echo "Error: no rollout found" >&2; exit 1 ;;
hang) setsid sleep 600 & echo $! > {home}/sleeper.new; mv {home}/sleeper.new {home}/sleeper; sleep 600 ;;
kill) rm {home}/mode; kill -9 $PPID ;;
esac
"#;

const THREAD: &str = "0199-thread";

/// A repository, and a home in which fake workers run.
fn home() -> TempDir {
    let home = tempfile::tempdir().unwrap();
    repository(home.path());
    let fake = Path::new(env!("CARGO_BIN_EXE_orchestrator-boss")).with_file_name("examples/fake-cli");
    assert!(fake.exists(), "the fake CLI is missing: run `cargo build --examples`");
    let settings = home.path().join(".config/orchestrator-boss");
    fs::create_dir_all(&settings).unwrap();
    let text = format!("[[custom]]\nname = \"fake\"\nprogram = {fake:?}\noutput = \"jsonl\"\n");
    fs::write(settings.join("config.toml"), text).unwrap();
    home
}

/// A server of one thread of Codex, and the state that its workers and the fake Codex share.
struct Boss {
    client: Client,
    shared: PathBuf,
    calls: i64,
}

impl Boss {
    /// Starts a server below the daemon.
    fn start() -> Self {
        let home = home();
        let shared = home.path().to_owned();
        Self::start_below(home, &shared, "codex app-server --listen unix:// --managed-daemon")
    }

    /// Starts a server whose parent has these arguments.
    fn start_below(home: TempDir, shared: &Path, parent: &str) -> Self {
        let program = home.path().join("parent");
        let server = env!("CARGO_BIN_EXE_orchestrator-boss");
        // Without a further command, the shell would become the server.
        script(&program, &format!("#!/bin/sh\nexec /bin/sh -c '{server}; exit $?' {parent}\n"));
        let client = Client::start_program(&program, home, shared.join("repo"), &[("ORCHESTRATOR_MAX_WORKERS", "4")]);
        client.install("codex", &CODEX.replace("{home}", &shared.display().to_string()));
        let mut boss = Self { client, shared: shared.to_owned(), calls: 0 };
        boss.client.initialize("codex-mcp-client", "2025-06-18");
        boss
    }

    /// Calls a tool in a turn, which began in this way.
    fn call_in(&mut self, turn: &str, trigger: &str, tool: &str, arguments: Value) -> Value {
        self.calls += 1;
        let turn = json!({"turn_id": turn, "turn_trigger": trigger});
        let meta = json!({"threadId": THREAD, "sessionId": THREAD, "x-codex-turn-metadata": turn});
        let params = json!({"name": tool, "arguments": arguments, "_meta": meta});
        let answer = self.client.ask(self.calls, "tools/call", params);
        assert_ne!(answer["result"]["isError"], true, "{answer}");
        answer["result"]["structuredContent"].clone()
    }

    fn call(&mut self, tool: &str, arguments: Value) -> Value {
        self.call_in("turn-1", "user", tool, arguments)
    }

    /// Creates a worker that runs until the file of its name exists.
    fn create(&mut self, name: &str) {
        let go = self.shared.join(name);
        let prompt = format!("FAKE:\nwait-file {} 100\nsay done", go.display());
        self.call("create_worker_mission", json!({"title": name, "prompt": prompt, "backend": "fake"}));
    }

    fn end(&self, name: &str) {
        fs::write(self.shared.join(name), "").unwrap();
    }

    fn end_turn(&mut self) -> Value {
        self.call("wait_for_any_worker", json!({"background": true}))
    }

    fn set_mode(&self, mode: &str) {
        fs::write(self.shared.join("mode"), mode).unwrap();
    }

    /// Returns the calls of `codex queue`, once there are so many.
    fn queued(&self, count: usize) -> Vec<String> {
        let mut queued = Vec::new();
        let enough = || {
            queued =
                fs::read_to_string(self.shared.join("queued")).unwrap_or_default().lines().map(str::to_owned).collect();
            queued.len() >= count
        };
        until("enough calls of codex queue", enough);
        assert_eq!(queued.len(), count, "{queued:#?}");
        queued
    }

    /// Waits until so many workers have settled, without consuming anything.
    fn until_settled(&mut self, count: usize) {
        let began = Instant::now();
        loop {
            let list = self.call("list_worker_missions", json!({"status": ["completed"]}));
            if list["workers"].as_array().is_some_and(|workers| workers.len() == count) {
                return;
            }
            assert!(began.elapsed() < CEILING, "{list:#}");
        }
    }

    /// Returns the severity of the check `waking` in `doctor`.
    fn doctor(&self) -> String {
        let mut doctor = Command::new(env!("CARGO_BIN_EXE_orchestrator-boss"));
        let path = format!("{}:/usr/bin:/bin", self.client.home.path().join("bin").display());
        doctor.args(["doctor", "--json"]).current_dir(self.shared.join("repo"));
        let output = doctor.env_clear().env("HOME", &self.shared).env("PATH", path).output().unwrap();
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let clients = found["checks"]["clients"].as_array().unwrap().clone();
        let waking = clients.iter().find(|check| check["name"] == "waking").unwrap();
        waking["severity"].as_str().unwrap().to_owned()
    }

    /// Returns the entries of the journal of this kind.
    fn entries(&self, kind: &str) -> usize {
        let files = fs::read_dir(self.shared.join("repo/.orchestrator/journal")).unwrap().flatten();
        let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
        texts.map(|text| text.matches(&format!("\"kind\":\"{kind}\"")).count()).sum()
    }
}

fn pointer(due: &str) -> String {
    format!("queue --thread {THREAD} --message orchestrator-boss: {due}; call wait_for_any_worker")
}

#[test]
fn idle_boss_gets_one_pointer_for_all_that_settles() {
    let mut boss = Boss::start();
    boss.create("one");
    boss.create("two");
    let began = Instant::now();
    let left = boss.end_turn();
    assert!(began.elapsed() < Duration::from_secs(20), "it does not block");
    assert_eq!((&left["status"], &left["not_woken"]), (&json!("still_running"), &Value::Null), "{left:#}");
    assert!(left["next_step"].as_str().unwrap().starts_with("end your turn"), "{left:#}");
    assert_eq!(boss.entries("wake_requested"), 1);

    boss.end("one");
    assert_eq!(boss.queued(1), [pointer("1 worker settled")]);
    boss.end("two");
    boss.until_settled(2);
    // The woken turn gets both, and only then is the pointer known to have arrived.
    assert_eq!(boss.entries("wake_arrived"), 0);
    let woken = boss.call_in("turn-2", "queue", "wait_for_any_worker", json!({"background": true}));
    assert_eq!(woken["settled"].as_array().map(Vec::len), Some(2), "{woken:#}");
    assert_eq!(boss.entries("wake_arrived"), 1);

    boss.create("three");
    let left = boss.call_in("turn-2", "queue", "wait_for_worker", json!({"worker_id": "w-3", "background": true}));
    assert_eq!(left["status"], "still_running", "{left:#}");
    boss.end("three");
    boss.queued(2);
}

#[test]
fn what_is_due_already_is_answered_at_once() {
    let mut boss = Boss::start();
    boss.create("one");
    boss.end("one");
    boss.until_settled(1);
    let answer = boss.end_turn();
    assert_eq!(answer["status"], "settled", "{answer:#}");
    let answer = boss.end_turn();
    assert_eq!(answer["status"], "idle", "{answer:#}");
    assert_eq!(boss.entries("wake_requested"), 0);
    boss.queued(0);
}

#[test]
fn boss_that_cannot_be_woken_gets_the_reason() {
    let mut boss = Boss::start();
    boss.create("one");
    let wait = json!({"background": true, "timeout_seconds": 1});
    let answer = boss.call_in("turn-1", "exec", "wait_for_any_worker", wait.clone());
    assert_eq!(answer["not_woken"], "codex exec takes no further message", "{answer:#}");
    assert_eq!(answer["status"], "still_running");
    assert!(!answer["next_step"].as_str().unwrap().contains("end your turn"), "{answer:#}");
    let status = boss.call("get_backend_status", json!({"backend": "fake"}));
    assert!(status["waking"].as_str().unwrap().starts_with("with background: true"), "{status:#}");

    fs::remove_file(boss.client.home.path().join("bin/codex")).unwrap();
    let answer = boss.call("wait_for_any_worker", wait.clone());
    assert_eq!(answer["not_woken"], "codex is not on the PATH", "{answer:#}");
    boss.end("one");
    drop(boss);

    for (setting, parent, reason) in [
        ("wake = \"off\"\n", "codex app-server --managed-daemon", "the setting wake is off"),
        ("", "codex", "Codex runs without its app-server daemon"),
    ] {
        let home = home();
        let settings = home.path().join(".config/orchestrator-boss/config.toml");
        fs::write(&settings, setting.to_owned() + &fs::read_to_string(&settings).unwrap()).unwrap();
        let shared = home.path().to_owned();
        let mut boss = Boss::start_below(home, &shared, parent);
        boss.create("one");
        let answer = boss.call("wait_for_any_worker", wait.clone());
        assert_eq!((&answer["status"], &answer["not_woken"]), (&json!("still_running"), &json!(reason)), "{answer:#}");
        let status = boss.call("get_backend_status", json!({"backend": "fake"}));
        assert_eq!(status["waking"], format!("the wait blocks: {reason}"));
        boss.end("one");
        boss.until_settled(1);
        boss.queued(0);
    }
}

#[test]
fn failed_command_is_shown_and_repeated() {
    let mut boss = Boss::start();
    boss.create("one");
    boss.set_mode("fail");
    boss.end_turn();
    boss.end("one");
    boss.queued(1);
    until("the record of the failure", || boss.entries("wake_ran") == 1);
    let status = boss.call("get_backend_status", json!({"backend": "fake"}));
    let waking = status["waking"].as_str().unwrap();
    assert!(waking.contains("codex queue: cannot complete the command: exit status: 1: Error: no rollout"), "{waking}");
    assert_eq!(boss.doctor(), "warn");
    boss.set_mode("");
    boss.queued(2);
    let woken = boss.call_in("turn-2", "queue", "wait_for_any_worker", json!({}));
    assert_eq!(woken["status"], "settled", "{woken:#}");
    assert_eq!(boss.doctor(), "note");
    let status = boss.call("get_backend_status", json!({"backend": "fake"}));
    assert!(!status["waking"].as_str().unwrap().contains("failed"), "{status:#}");
}

#[test]
fn hanging_command_blocks_nothing_and_is_ended() {
    let mut boss = Boss::start();
    boss.create("one");
    boss.set_mode("hang");
    boss.end_turn();
    boss.end("one");
    boss.queued(1);
    // The server answers meanwhile.
    boss.until_settled(1);
    assert_eq!(boss.entries("wake_ran"), 0);
    boss.set_mode("");
    // A failed call is repeated at once, so a second entry can follow before the next look.
    until("the end of the command", || boss.entries("wake_ran") >= 1);
    let sleeper: u32 = fs::read_to_string(boss.shared.join("sleeper")).unwrap().trim().parse().unwrap();
    until("the end of its processes", || !Identity::of(sleeper).is_some_and(|it| it.is_alive()));
    boss.queued(2);
}

#[test]
fn server_killed_in_the_middle_loses_no_pointer() {
    let mut boss = Boss::start();
    boss.create("one");
    boss.set_mode("kill");
    boss.end_turn();
    boss.end("one");
    boss.queued(1);
    boss.client.end();
    let shared = boss.shared.clone();
    // Its home must exist longer than the server.
    let home = std::mem::replace(&mut boss.client.home, tempfile::tempdir().unwrap());
    drop(boss);
    let mut boss = Boss::start_below(home, &shared, "codex app-server --managed-daemon");
    boss.queued(2);
    let woken = boss.call_in("turn-2", "queue", "wait_for_any_worker", json!({}));
    assert_eq!(woken["status"], "settled", "{woken:#}");
    assert_eq!(boss.entries("wake_arrived"), 1);
}

#[test]
fn one_of_several_servers_sends() {
    let mut boss = Boss::start();
    boss.create("one");
    boss.end_turn();
    let others: Vec<Boss> = (0..2)
        .map(|_| Boss::start_below(tempfile::tempdir().unwrap(), &boss.shared, "codex app-server --managed-daemon"))
        .collect();
    boss.end("one");
    boss.queued(1);
    boss.until_settled(1);
    for mut other in others {
        other.call("list_worker_missions", json!({}));
    }
    until("the record of the run", || boss.entries("wake_ran") == 1);
    boss.queued(1);
}
