//! Codex and Claude Code as workers in jobs of a real Slurm cluster. The server runs on the login host, homes and
//! repositories are in the folder that all hosts share, and the model is the scripted one on the loopback interface of
//! this machine, which the nodes share.
//!
//! Without the CLIs, Linux, root or Slurm each test prints SKIPPED; with `CI=true` it fails.

#[path = "support/model_server/mod.rs"]
mod model_server;
#[path = "support/real_cli.rs"]
mod real_cli;
#[path = "support/mod.rs"]
mod support;

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use model_server::{ModelServer, Script};
use orchestrator_boss::process::confine;
use real_cli::{Cli, ScratchHome, skipped};
use support::cluster::Cluster;
use support::git;
use support::json_lines::Boss;
use support::processes::processes_in;
use support::sandbox::{PROGRAM, create, status, with};
use support::wait::{until, until_exists};

const LAUNCHER: &str =
    "[launchers.cluster]\nkind = \"slurm\"\ncpus = 1\nmemory = \"900M\"\npoll_seconds = 5\nlost_after_seconds = 60\n";
/// Variables with which Claude Code finds the model. Codex reads that in its settings.
const PASSED: &str = "pass_env = [\"ANTHROPIC_BASE_URL\", \"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC\"]\n";

#[test]
fn codex_does_a_mission_in_a_job() {
    does_a_mission(Cli::Codex);
}

#[test]
fn claude_does_a_mission_in_a_job() {
    does_a_mission(Cli::Claude);
}

/// Edits, runs a command, commits, is verified, and resumes its session in a second job.
fn does_a_mission(cli: Cli) {
    let Some(world) = World::logged_in(cli) else { return };
    let mut boss = world.boss();
    let script = Script::new()
        .say("I begin")
        .write("new.txt", "one\ntwo\n")
        .run("hostname > host.txt && git add . && git commit -qm 'add files' && echo committed-by-me")
        .say("it is done");
    let id = create(&mut boss, with(world.mission(&script), "verify_command", "test -f new.txt"));
    let first = settled(&mut boss, &id);
    let end = json!({"result": "completed", "reason": "turn_complete", "exit_code": 0});
    assert_eq!((&first["status"], &first["outcome"]["run"]), (&json!("completed"), &end), "{first:#}");
    assert_eq!(first["outcome"]["verification"]["result"], "passed", "{first:#}");
    assert_eq!(first["final_message"], "it is done");
    assert_eq!(first["outcome"]["changes"]["commits"], 1, "{first:#}");
    let branch = text(&first["branch"]);
    assert_eq!(world.git(&["show", &format!("{branch}:new.txt")]), "one\ntwo");
    let host = world.git(&["show", &format!("{branch}:host.txt")]);
    assert!(host.starts_with('c') && host.ends_with(['1', '2', '3']), "it ran on {host}");
    let seen = status(&mut boss, &id);
    let can_confine = matches!(confine::support(), confine::Support::Yes(_));
    assert_eq!(seen["confined"]["by"].as_str(), can_confine.then_some("landlock"), "{seen:#}");
    let log = boss.succeed("get_worker_status", json!({"worker_id": id, "include": ["log"]}))["log"].to_string();
    assert!(log.contains("said: I begin") && log.contains("committed-by-me"), "{log}");

    boss.succeed("retry_worker", json!({"worker_id": id, "feedback": "and then?"}));
    let second = settled(&mut boss, &id);
    assert_eq!((&second["status"], &second["attempt"]), (&json!("completed"), &json!(2)), "{second:#}");
    assert!(text(&second["final_message"]).starts_with("heard: and then?"), "{second:#}");
    assert_eq!(second["session_id"], first["session_id"]);
    assert!(world.last_request().contains("SCRIPT:"), "the session was lost");
    boss.leave();
}

#[test]
fn message_reaches_codex_in_a_job() {
    hears_a_message(Cli::Codex, "queued");
}

#[test]
fn message_reaches_claude_in_a_job() {
    hears_a_message(Cli::Claude, "live");
}

fn hears_a_message(cli: Cli, delivered: &str) {
    let Some(world) = World::logged_in(cli) else { return };
    let mut boss = world.boss();
    let wait = "touch started; while [ ! -e released ]; do sleep 0.1; done; rm started released";
    let id = create(&mut boss, world.mission(&Script::new().run(wait).say("never released")));
    until_exists(&world.worktree(&id).join("started"));
    let sent = boss.succeed("send_message_to_worker", json!({"worker_id": id, "message": "do that too"}));
    assert_eq!(sent["delivered"], delivered, "{sent:#}");
    fs::write(world.worktree(&id).join("released"), "").expect("a writable worktree");
    let end = settled(&mut boss, &id);
    let heard = json!("heard: do that too");
    assert_eq!((&end["status"], &end["final_message"], &end["attempt"]), (&json!("completed"), &heard, &json!(1)));
    assert!(world.last_request().contains("SCRIPT:"), "the session was lost");
    boss.leave();
}

#[test]
fn cancelled_codex_leaves_nothing_on_its_node() {
    is_cancelled(Cli::Codex);
}

#[test]
fn cancelled_claude_leaves_nothing_on_its_node() {
    is_cancelled(Cli::Claude);
}

fn is_cancelled(cli: Cli) {
    let Some(world) = World::logged_in(cli) else { return };
    let mut boss = world.boss();
    let command = "sh -c '(setsid sleep 300 &) ; sleep 300; true'";
    let id = create(&mut boss, world.mission(&Script::new().run(command).say("slept")));
    let worktree = world.worktree(&id);
    let is_sleep = |(_, command): &(u32, String)| command.starts_with("sleep 300");
    until("both sleep", || worktree.exists() && processes_in(&worktree).iter().filter(|it| is_sleep(it)).count() == 2);
    let cancelled = boss.succeed("cancel_worker", json!({"worker_id": id}));
    let left: Vec<_> = processes_in(&worktree).into_iter().filter(is_sleep).collect();
    assert!(left.is_empty(), "{left:?} after {cancelled:#}");
    assert_eq!((&cancelled["status"], &cancelled["proof"]), (&json!("cancelled"), &json!("full")), "{cancelled:#}");
    boss.succeed("retry_worker", json!({"worker_id": id, "feedback": "go on"}));
    let end = settled(&mut boss, &id);
    assert_eq!(end["status"], "completed", "{end:#}");
    assert!(text(&end["final_message"]).starts_with("heard: go on"), "{end:#}");
    assert!(world.last_request().contains("SCRIPT:"), "the session was lost");
    boss.leave();
}

#[test]
fn key_of_codex_reaches_a_job_only_if_allowed() {
    key_needs_permission(Cli::Codex, "CODEX_API_KEY", "codex login");
}

#[test]
fn key_of_claude_reaches_a_job_only_if_allowed() {
    key_needs_permission(Cli::Claude, "ANTHROPIC_API_KEY", "claude auth login");
}

/// A login of Codex does not help with a provider that has a key of its own.
#[test]
fn key_of_own_provider_reaches_a_job_only_if_allowed() {
    let Some(mut world) = World::logged_in(Cli::Codex) else { return };
    let settings = codex_settings(&world.model.url()).replace("requires_openai_auth = true", "env_key = \"OWN_KEY\"");
    world.home.write(".codex/config.toml", &settings);
    world.home.set("OWN_KEY", KEY);
    let refused = key_is_used_if_allowed(&world, "OWN_KEY");
    assert!(!refused.contains("codex login"), "{refused}");
}

fn key_needs_permission(cli: Cli, variable: &'static str, login: &str) {
    let Some(mut world) = World::start(cli) else { return };
    world.home.set(variable, KEY);
    let refused = key_is_used_if_allowed(&world, variable);
    assert!(refused.contains(login), "{refused}");
}

/// Returns the refusal of a mission whose key may not be passed.
fn key_is_used_if_allowed(world: &World, variable: &str) -> String {
    let script = Script::new().run("echo worked").say("it is done");
    let mut boss = world.boss();
    let refused = boss.refused("create_worker_mission", world.mission(&script));
    assert!(refused.contains(&format!("its key is in {variable}")), "{refused}");
    assert!(refused.contains("pass_keys in [launchers.cluster]"), "{refused}");
    boss.leave();

    world.write_settings("pass_keys = true\n");
    let mut boss = world.boss();
    let id = create(&mut boss, world.mission(&script));
    let end = settled(&mut boss, &id);
    assert_eq!((&end["status"], &end["final_message"]), (&json!("completed"), &json!("it is done")), "{end:#}");
    let keys: Vec<String> = world.model.requests().iter().filter_map(|it| key_of(&it.headers)).collect();
    assert!(!keys.is_empty() && keys.iter().all(|key| key.contains(KEY)), "{keys:?}");
    let stored = std::process::Command::new("grep").args(["-rlF", KEY]).arg(world.cluster.folder()).output();
    let stored = stored.expect("grep runs").stdout;
    assert!(stored.is_empty(), "the key is in {}", String::from_utf8_lossy(&stored));
    boss.leave();
    refused
}

const KEY: &str = "sk-planted-key-of-the-user";

fn key_of(headers: &std::collections::BTreeMap<String, String>) -> Option<String> {
    headers.get("x-api-key").or_else(|| headers.get("authorization")).cloned()
}

/// A cluster, a scripted model, and a user of one CLI whose home and repository are on the shared folder.
struct World {
    cli: Cli,
    model: ModelServer,
    home: ScratchHome,
    cluster: Cluster,
}

impl World {
    /// Starts a world whose CLI is logged in by the file that its login writes. `None` if that cannot run here.
    fn logged_in(cli: Cli) -> Option<Self> {
        let world = Self::start(cli)?;
        let (path, login) = match cli {
            Cli::Codex => (".codex/auth.json", json!({"OPENAI_API_KEY": "dummy"})),
            _ => (
                ".claude/.credentials.json",
                json!({"claudeAiOauth": {
                    "accessToken": "dummy", "refreshToken": "dummy", "expiresAt": 4_102_444_800_000_u64,
                    "scopes": ["user:inference"], "subscriptionType": "max",
                }}),
            ),
        };
        world.home.write(path, &login.to_string());
        Some(world)
    }

    /// Starts a world whose CLI is not logged in.
    fn start(cli: Cli) -> Option<Self> {
        if skipped() {
            return None;
        }
        let cluster = Cluster::start(&[])?;
        let model = ModelServer::start();
        let mut home = ScratchHome::within(&cluster.shared(), &model.url());
        home.unset("ANTHROPIC_API_KEY");
        home.set("SLURM_CONF", cluster.configuration().display().to_string());
        home.write(".codex/config.toml", &codex_settings(&model.url()));
        let world = Self { cli, model, home, cluster };
        git::init(&world.repo());
        fs::write(world.repo().join("README"), "hello\n").expect("a writable folder");
        git::commit_all(&world.repo(), "first");
        world.write_settings("");
        Some(world)
    }

    /// Writes the settings of the user, with these lines of the launcher.
    fn write_settings(&self, launcher: &str) {
        self.home.write("config.toml", &format!("{LAUNCHER}{PASSED}{launcher}"));
    }

    /// Starts a server on the login host.
    fn boss(&self) -> Boss {
        let prefix = self.cluster.on_login();
        let mut command = self.home.command(&prefix[0]);
        command.args(&prefix[1..]).args(["sh", "-c", "cd \"$0\" && exec \"$@\""]).arg(self.repo()).arg(PROGRAM);
        command.arg("--config").arg(self.home.path().join("config.toml")).current_dir("/");
        let log = fs::File::options().create(true).append(true).open(self.home.path().join("server.log"));
        Boss::start_logging(command, log.expect("a log file").into())
    }

    fn repo(&self) -> PathBuf {
        self.home.path().join("repo")
    }

    fn worktree(&self, worker: &str) -> PathBuf {
        self.home.path().join("repo.worktrees").join(worker)
    }

    fn git(&self, arguments: &[&str]) -> String {
        git::git(&self.repo(), arguments).trim().to_owned()
    }

    fn mission(&self, script: &Script) -> Value {
        let backend = if self.cli == Cli::Codex { "codex" } else { "claudecode" };
        json!({"title": "try", "backend": backend, "prompt": script.marker(), "run_on": "cluster"})
    }

    /// Returns the last request of a worker to the model.
    fn last_request(&self) -> String {
        let requests = self.model.requests();
        let of_worker = |it: &&model_server::Recorded| it.conversation.as_ref().is_some_and(|it| !it.tools.is_empty());
        requests.iter().rfind(of_worker).expect("a request").body.to_string()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.home.path().join("server.log")).unwrap_or_default();
            eprintln!("--- the servers' log\n{log}");
        }
    }
}

/// Returns settings of Codex with a provider that uses the login, or the key of `CODEX_API_KEY`.
fn codex_settings(model: &str) -> String {
    format!(
        "model_provider = \"scripted\"\n[model_providers.scripted]\nname = \"scripted\"\nbase_url = \"{model}/v1\"\n\
         requires_openai_auth = true\nsupports_websockets = false\nwire_api = \"responses\"\n\
         request_max_retries = 1\nstream_max_retries = 1\n[features]\nplugins = false\n"
    )
}

/// Waits until the worker has settled, and returns it.
fn settled(boss: &mut Boss, worker: &str) -> Value {
    let mut answer = Value::Null;
    until(&format!("{worker} has settled"), || {
        answer = boss.succeed("wait_for_worker", json!({"worker_id": worker, "timeout_seconds": 20}));
        answer["status"] == "settled"
    });
    answer["settled"][0].clone()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
