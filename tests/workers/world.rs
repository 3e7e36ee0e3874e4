//! A sealed world for one test: a repository of its own, settings in which the fake CLI is a backend, and servers that
//! start real supervisors. Nothing of the user's configuration is seen, and nothing is left running: `Drop` looks.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use orchestrator_boss::backend::Backends;
use orchestrator_boss::config::Settings;
use orchestrator_boss::mission::create::{Draft, DraftPlace};
use orchestrator_boss::mission::hint::with_hints;
use orchestrator_boss::mission::id::BossId;
use orchestrator_boss::mission::spec::Permissions;
use orchestrator_boss::orchestrator::{Orchestrator, Startup, WaitAnswer, WaitRequest};
use tokio_util::sync::CancellationToken;

/// Nothing that is waited for takes this long on any machine.
pub const CEILING: Duration = Duration::from_secs(60);

pub struct World {
    folder: tempfile::TempDir,
    name: &'static str,
}

impl World {
    pub fn new() -> Self {
        Self::named("repo")
    }

    /// With a repository of this name.
    pub fn named(name: &'static str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let world = Self { folder, name };
        std::fs::create_dir(world.repo()).expect("a folder for the repository");
        world.git(&["init", "-q", "-b", "main"]);
        world.git(&["config", "user.name", "Test"]);
        world.git(&["config", "user.email", "test@localhost"]);
        std::fs::write(world.repo().join("README"), "hello\n").expect("a file");
        world.git(&["add", "."]);
        world.git(&["commit", "-q", "-m", "first"]);
        world
    }

    pub fn repo(&self) -> PathBuf {
        self.folder.path().canonicalize().expect("the folder is there").join(self.name)
    }

    /// Returns the default path of this worker's worktree.
    pub fn worktree(&self, worker: impl AsRef<Path>) -> PathBuf {
        self.path(&format!("{}.worktrees", self.name)).join(worker)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().expect("the folder is there").join(name)
    }

    pub fn git(&self, args: &[&str]) -> String {
        git(&self.repo(), args)
    }

    /// Returns settings with the fake CLI as the backends `fake` and `other`, and as `plain` without JSON.
    pub fn settings(&self) -> Settings {
        let fake = fake_cli();
        let text = format!(
            r#"
            max_workers = 8
            [[custom]]
            name = "fake"
            program = {fake:?}
            resume_args = ["--resume", "{{session_id}}"]
            output = "jsonl"
            reports_cost = true
            [[custom]]
            name = "other"
            program = {fake:?}
            output = "jsonl"
            [[custom]]
            name = "plain"
            program = {fake:?}
            args = ["--plain"]
            "#
        );
        toml::from_str(&text).expect("valid settings")
    }

    /// Starts a server for the boss of this name; `None` for a boss without a session.
    pub fn server(&self, boss: Option<&str>) -> Server {
        self.server_with(boss, self.settings())
    }

    pub fn server_with(&self, boss: Option<&str>, settings: Settings) -> Server {
        self.server_in(&self.repo(), boss, settings)
    }

    /// Starts a server in this directory.
    pub fn server_in(&self, directory: &Path, boss: Option<&str>, settings: Settings) -> Server {
        let backends = Backends::with_custom(settings.custom.clone());
        let startup = Startup {
            settings,
            directory: directory.to_owned(),
            boss: boss.map(BossId::from),
            program: PathBuf::from(env!("CARGO_BIN_EXE_orchestrator-boss")),
        };
        let orchestrator = Orchestrator::start(startup, backends).expect("the server starts");
        let boss = orchestrator.default_boss().clone();
        Server { orchestrator, boss }
    }

    /// Waits until the state file says this; it follows the journal within 100 ms.
    pub async fn until_state(&self, says: impl Fn(&serde_json::Value) -> bool) {
        let path = self.repo().join(".orchestrator/orchestrator-state.json");
        let read = || serde_json::from_slice(&std::fs::read(&path).unwrap_or_default()).unwrap_or_default();
        assert!(in_time(async || says(&read())).await, "the state file says {:#}", read());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        // A supervisor that has written its outcome has a moment to go.
        let began = std::time::Instant::now();
        let mut left = processes_in(self.folder.path());
        while !left.is_empty() && began.elapsed() < CEILING {
            std::thread::sleep(Duration::from_millis(20));
            left = processes_in(self.folder.path());
        }
        assert!(left.is_empty(), "processes were left behind: {left:?}");
    }
}

/// One boss and its server.
pub struct Server {
    pub orchestrator: Orchestrator,
    pub boss: BossId,
}

impl Server {
    pub async fn create(&self, drafts: Vec<Draft>) -> Vec<Result<String, String>> {
        let drafts = drafts.into_iter().map(Ok).collect();
        let created = self.orchestrator.create(&self.boss, drafts).await.expect("the batch is answered");
        created
            .results
            .into_iter()
            .map(|item| item.map(|created| created.worker_id.to_string()).map_err(|error| with_hints(&error)))
            .collect()
    }

    /// Creates a race between these missions.
    pub async fn create_race(&self, drafts: Vec<Draft>) -> Vec<Result<String, String>> {
        let drafts = drafts.into_iter().map(Ok).collect();
        let created = self.orchestrator.create_race(&self.boss, drafts).await.expect("the race is answered");
        created
            .results
            .into_iter()
            .map(|item| item.map(|created| created.worker_id.to_string()).map_err(|error| with_hints(&error)))
            .collect()
    }

    pub async fn create_one(&self, draft: Draft) -> String {
        self.create(vec![draft]).await.remove(0).expect("the mission is accepted")
    }

    pub async fn wait(&self, workers: &[&str], timeout: Duration) -> WaitAnswer {
        let request = WaitRequest { workers: workers.iter().map(|it| (*it).to_owned()).collect(), timeout, most: 100 };
        let waited = self.orchestrator.wait(&self.boss, request, &CancellationToken::new()).await;
        let (answer, handing) = waited.expect("the wait is answered");
        handing.sent();
        answer
    }

    /// Waits until the worker has this status.
    pub async fn until(&self, worker: &str, status: &str) {
        let view = async || self.orchestrator.get(worker).await.expect("it is known");
        if !in_time(async || view().await.worker.status.as_str() == status).await {
            let view = view().await;
            panic!("{worker} is {} and never became {status}: {view:#?}", view.worker.status);
        }
    }
}

/// A mission for the fake CLI; its script is one command a line.
pub fn mission(title: &str, script: &str) -> Draft {
    Draft {
        title: title.to_owned(),
        prompt: format!("FAKE:\n{script}"),
        backend: "fake".into(),
        model: None,
        effort: None,
        place: DraftPlace::Worktree { branch: None, base: None, path: None, directory: None },
        verify_command: None,
        task_id: None,
        depends_on: Vec::new(),
        timeout_minutes: 10,
        max_cost_usd: None,
        max_tokens: None,
        fallback_backends: Vec::new(),
        max_attempts: 1,
        request_id: None,
        permissions: Permissions::Edit,
        needs: Vec::new(),
    }
}

/// Waits until the file is there.
pub async fn until_exists(path: &Path) {
    assert!(in_time(async || path.exists()).await, "{} never came", path.display());
}

/// Whether it came true before the ceiling. Looked at again and again: it depends on other processes.
pub async fn in_time(mut is: impl AsyncFnMut() -> bool) -> bool {
    let reached = async {
        while !is().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(CEILING, reached).await.is_ok()
}

pub fn git(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .expect("git runs");
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Built by cargo with the tests.
pub fn fake_cli() -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_orchestrator-boss")).parent().expect("it lies in a folder");
    let fake = target.join("examples/fake-cli");
    assert!(fake.exists(), "the fake CLI is missing: run `cargo build --examples` (`cargo test` does)");
    fake
}

/// Command lines of processes that name the folder or work in it.
#[cfg(target_os = "linux")]
fn processes_in(folder: &Path) -> Vec<String> {
    let folder = folder.canonicalize().expect("it is there");
    let entries = std::fs::read_dir("/proc").expect("Linux has /proc").flatten();
    let pids = entries.filter(|entry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()));
    pids.filter_map(|entry| {
        let works_there = std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&folder));
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let named = command.contains(&*folder.to_string_lossy());
        (works_there || named).then_some(command)
    })
    .collect()
}

#[cfg(not(target_os = "linux"))]
fn processes_in(_folder: &Path) -> Vec<String> {
    Vec::new()
}
