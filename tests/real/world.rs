//! A sealed world for one CLI: a scripted model, a private home, a repository, the server, and a boss.
//! [`World::end`] checks that no process is left.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use orchestrator_boss::process::confine::{Support, support};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::acp_agents::{Agent, point_agents_at};
use crate::boss::Boss;
use crate::model_server::{ModelServer, Recorded, Script};
use crate::real_cli::{Cli, ScratchHome, skipped};

/// The longest wait for anything, also on a loaded machine.
pub const CEILING: Duration = Duration::from_secs(120);

/// The value of variables that no worker may have.
pub const OF_THE_BOSS: &str = "of-the-boss";

/// Returns how the permissions of a worker are enforced, `otherwise` where the kernel cannot confine.
pub fn enforced(otherwise: &'static str) -> &'static str {
    match support() {
        Support::Yes(_) => "kernel",
        Support::No { .. } => otherwise,
    }
}

pub struct World {
    pub cli: Cli,
    pub model: ModelServer,
    pub home: ScratchHome,
    boss: Option<Boss>,
}

/// Runs a test in its own world, unless the CLIs are not installed.
pub async fn with(cli: Cli, test: impl AsyncFnOnce(&World)) {
    with_settings(cli, "", test).await;
}

/// Runs a test in a world whose user has these settings.
pub async fn with_settings(cli: Cli, settings: &str, test: impl AsyncFnOnce(&World)) {
    if skipped() {
        return;
    }
    let world = World::new(cli, settings, |_, _| {}).await;
    test(&world).await;
    world.end().await;
}

/// Runs a test in a world whose user has these settings, and whose home is prepared.
pub async fn with_home(
    cli: Cli,
    settings: &str,
    prepare: impl FnOnce(&mut ScratchHome),
    test: impl AsyncFnOnce(&World),
) {
    if skipped() {
        return;
    }
    let world = World::new(cli, settings, |home, _| prepare(home)).await;
    test(&world).await;
    world.end().await;
}

/// Runs a test in a world that has the agents of the Agent Client Protocol, unless this one is not installed.
pub async fn with_agent(agent: Agent, settings: &str, test: impl AsyncFnOnce(&World)) {
    if agent.skipped() {
        return;
    }
    let world = World::new(Cli::Claude, settings, point_agents_at).await;
    test(&world).await;
    world.end().await;
}

impl World {
    /// Creates a world. `prepare` completes the home, given the URL of the model.
    async fn new(cli: Cli, settings: &str, prepare: impl FnOnce(&mut ScratchHome, &str)) -> Self {
        let model = ModelServer::start();
        let mut home = home(&model);
        prepare(&mut home, &model.url());
        let mut world = Self { cli, model, home, boss: None };
        fs::create_dir(world.repo()).expect("a new folder in the scratch home");
        world.git(&["init", "-q", "-b", "main"]);
        fs::write(world.repo().join("README"), "hello\n").expect("a new file");
        world.git(&["add", "."]);
        world.git(&["commit", "-q", "-m", "begin"]);
        let folder = world.path(".config/orchestrator-boss");
        for folder in [&folder, &world.shared("")] {
            fs::create_dir_all(folder).expect("a folder of the scratch home");
        }
        let settings = format!("confine_writable = [\"~/shared\"]\n{settings}");
        fs::write(folder.join("config.toml"), settings).expect("a new file");
        let mut server = world.home.command(env!("CARGO_BIN_EXE_orchestrator-boss"));
        server.current_dir(world.repo());
        world.boss = Some(Boss::start(server, &world.path("server.log")).await);
        world
    }

    /// Returns a path in the scratch home, with links resolved.
    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().canonicalize().expect("an existing path").join(name)
    }

    /// Returns a path that workers can write too, for what their programs leave for the test.
    pub fn shared(&self, name: &str) -> PathBuf {
        self.path("shared").join(name)
    }

    pub fn repo(&self) -> PathBuf {
        self.path("repository")
    }

    pub fn git(&self, arguments: &[&str]) -> String {
        self.git_in(&self.repo(), arguments)
    }

    pub fn git_in(&self, directory: &Path, arguments: &[&str]) -> String {
        let output = self.home.command("git").args(arguments).current_dir(directory).output().expect("git starts");
        assert!(output.status.success(), "git {arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub async fn call(&self, tool: &'static str, arguments: Value) -> Value {
        let boss = self.boss.as_ref().expect("the boss leads until the end");
        let answer = tokio::time::timeout(CEILING, boss.call(tool, arguments)).await;
        answer.unwrap_or_else(|_| panic!("{tool} was not answered")).unwrap_or_else(|error| panic!("{tool}: {error}"))
    }

    /// Starts a worker whose model does this, and returns its id. `more` are further fields of the mission.
    pub async fn start(&self, script: &Script, more: Value) -> String {
        let mut mission = mission(self.cli, script);
        let fields = mission.as_object_mut().expect("a mission is an object");
        fields.extend(more.as_object().cloned().unwrap_or_default());
        let created = self.call("create_worker_mission", mission).await;
        created["worker"]["worker_id"].as_str().expect("a worker has an id").to_owned()
    }

    /// Waits until the worker has settled, and returns the answer to the boss.
    pub async fn settled(&self, worker: &str) -> Value {
        let began = Instant::now();
        while began.elapsed() < CEILING {
            let answer = self.call("wait_for_worker", json!({"worker_id": worker, "timeout_seconds": 20})).await;
            if answer["status"] == "settled" {
                return answer["settled"][0].clone();
            }
        }
        panic!("{worker} did not settle: {:#}", self.details(worker, &["log"]).await);
    }

    /// Repeats a wait for any worker until it has something to report.
    pub async fn next_report(&self) -> Value {
        let began = Instant::now();
        loop {
            let answer = self.call("wait_for_any_worker", json!({"timeout_seconds": 60})).await;
            if answer["status"] != "still_running" || began.elapsed() > CEILING {
                return answer;
            }
        }
    }

    /// Returns the answer of get_worker_status.
    pub async fn details(&self, worker: &str, include: &[&str]) -> Value {
        self.call("get_worker_status", json!({"worker_id": worker, "include": include})).await
    }

    pub fn worktree(&self, worker: &str) -> PathBuf {
        self.repo().with_extension("worktrees").join(worker)
    }

    /// Returns the requests that offered tools to the model.
    pub fn asked(&self) -> Vec<Recorded> {
        let requests = self.model.requests().into_iter();
        requests.filter(|request| request.conversation.as_ref().is_some_and(|it| !it.tools.is_empty())).collect()
    }

    /// Returns a file of an attempt, which is one JSON object.
    pub fn attempt_file(&self, worker: &str, attempt: u32, file: &str) -> Value {
        serde_json::from_str(&self.attempt_text(worker, attempt, file)).expect("valid JSON")
    }

    /// Returns a file of an attempt.
    pub fn attempt_text(&self, worker: &str, attempt: u32, file: &str) -> String {
        let folder = self.repo().join(".orchestrator/workers").join(worker).join("attempts").join(attempt.to_string());
        String::from_utf8_lossy(&fs::read(folder.join(file)).expect("a file of the attempt")).into_owned()
    }

    /// Kills the supervisor of an attempt.
    pub fn kill_supervisor(&self, worker: &str, attempt: u32) {
        let status = self.attempt_file(worker, attempt, "status.json");
        let pid = status["supervisor"]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        kill_process(pid.expect("a pid"), Signal::KILL).expect("a live process");
    }

    /// Waits until the worker has created this file in its worktree.
    pub async fn until_made(&self, worker: &str, file: &str) {
        let path = self.worktree(worker).join(file);
        let began = Instant::now();
        while !path.exists() {
            if began.elapsed() > CEILING {
                panic!("{file} was never created: {:#}", self.details(worker, &["log"]).await);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends the boss, and checks that all processes exit soon after.
    async fn end(mut self) {
        self.boss.take().expect("a world ends once").leave().await;
        let began = Instant::now();
        let mut left = self.processes();
        while !left.is_empty() && began.elapsed() < CEILING {
            tokio::time::sleep(Duration::from_millis(20)).await;
            left = self.processes();
        }
        assert!(left.is_empty(), "processes were left behind: {left:?}");
    }

    fn processes(&self) -> Vec<Process> {
        let folder = self.path("");
        let here = folder.to_string_lossy();
        let here = here.trim_end_matches('/');
        processes().into_iter().filter(|it| it.directory.starts_with(here) || it.command.contains(here)).collect()
    }
}

pub fn backend(cli: Cli) -> &'static str {
    match cli {
        Cli::Claude => "claudecode",
        cli => cli.program(),
    }
}

/// Returns a mission. The other two CLIs find a model by themselves.
pub fn mission(cli: Cli, script: &Script) -> Value {
    let mut mission = json!({"title": "try", "backend": backend(cli), "prompt": script.marker()});
    if matches!(cli, Cli::Gemini | Cli::OpenCode) {
        mission["model_override"] = cli.model().into();
    }
    mission
}

/// Creates a home with the user's only git identity, and with a marker in the environment of the boss.
fn home(model: &ModelServer) -> ScratchHome {
    let mut home = ScratchHome::new(&model.url());
    let config = home.path().join("gitconfig");
    fs::write(&config, "[user]\n\tname = Scratch\n\temail = scratch@example.com\n").expect("a new file");
    home.set("GIT_CONFIG_GLOBAL", config.display().to_string());
    for variable in ["CLAUDE_CODE_MESSAGING_TOKEN", "CODEX_THREAD_ID", "OPENCODE_PID", "ORCHESTRATOR_NOTE"] {
        home.set(variable, OF_THE_BOSS);
    }
    home
}

/// Ends all processes of a failed test.
impl Drop for World {
    fn drop(&mut self) {
        for process in self.processes() {
            let _ = kill_process(process.pid, Signal::KILL);
        }
    }
}

#[derive(Debug)]
pub struct Process {
    pub pid: Pid,
    pub command: String,
    directory: PathBuf,
    environment: Vec<u8>,
}

impl Process {
    pub fn has_in_its_environment(&self, text: &str) -> bool {
        self.environment.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

/// Returns all readable processes without zombies. Reading processes of others needs Linux.
pub fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter_map(|entry| {
        let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
        let command = fs::read(entry.path().join("cmdline")).ok().filter(|command| !command.is_empty())?;
        Some(Process {
            pid,
            command: String::from_utf8_lossy(&command).replace('\0', " "),
            directory: fs::read_link(entry.path().join("cwd")).unwrap_or_default(),
            environment: fs::read(entry.path().join("environ")).unwrap_or_default(),
        })
    });
    processes.collect()
}
