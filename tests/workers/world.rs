//! A sealed world for one test: its own repository, settings in which the fake CLI is a backend, and servers that start
//! real supervisors. The user's configuration is invisible, and `Drop` checks that no process is left.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use orchestrator_boss::backend::Backends;
use orchestrator_boss::config::Settings;
use orchestrator_boss::mission::create::{Draft, DraftPlace};
use orchestrator_boss::mission::hint::with_hints;
use orchestrator_boss::mission::id::BossId;
use orchestrator_boss::mission::spec::Permissions;
use orchestrator_boss::orchestrator::{BatchKind, Orchestrator, Startup, WaitAnswer, WaitRequest, Waited};
use tokio_util::sync::CancellationToken;

use crate::support::processes::until_none_in;
use crate::support::sandbox::{PROGRAM, Sandbox, fake_cli};
use crate::support::wait::in_time;

pub struct World {
    sandbox: Sandbox,
}

impl Deref for World {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.sandbox
    }
}

impl World {
    pub fn new() -> Self {
        Self::named("repo")
    }

    /// Creates a world whose repository has this name.
    pub fn named(name: &str) -> Self {
        Self { sandbox: Sandbox::named(name) }
    }

    /// Returns settings with the fake CLI as the backends `fake` and `other`, and as `plain` without JSON.
    pub fn settings(&self) -> Settings {
        let fake = fake_cli();
        let text = format!(
            r#"
            max_workers = 8
            {}
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
            "#,
            self.sharing()
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
            program: PathBuf::from(PROGRAM),
        };
        let orchestrator = Orchestrator::start(startup, backends).expect("a started server");
        let boss = orchestrator.default_boss().clone();
        Server { orchestrator, boss }
    }

    /// Waits until the state file satisfies the condition. It follows the journal within 100 ms.
    pub async fn until_state(&self, condition: impl Fn(&serde_json::Value) -> bool) {
        let path = self.state_file();
        let read = || serde_json::from_slice(&std::fs::read(&path).unwrap_or_default()).unwrap_or_default();
        assert!(in_time(async || condition(&read())).await, "the state file is {:#}", read());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            until_none_in(&self.root());
        }
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
        let created =
            self.orchestrator.create(&self.boss, drafts, BatchKind::Independent).await.expect("an answer to the batch");
        created
            .results
            .into_iter()
            .map(|item| item.map(|created| created.worker_id.to_string()).map_err(|error| with_hints(&error)))
            .collect()
    }

    /// Creates a race between these missions.
    pub async fn create_race(&self, drafts: Vec<Draft>) -> Vec<Result<String, String>> {
        let drafts = drafts.into_iter().map(Ok).collect();
        let created =
            self.orchestrator.create(&self.boss, drafts, BatchKind::Race).await.expect("an answer to the race");
        created
            .results
            .into_iter()
            .map(|item| item.map(|created| created.worker_id.to_string()).map_err(|error| with_hints(&error)))
            .collect()
    }

    pub async fn create_one(&self, draft: Draft) -> String {
        self.create(vec![draft]).await.remove(0).expect("an accepted mission")
    }

    pub async fn wait(&self, workers: &[&str], timeout: Duration) -> WaitAnswer {
        let request = WaitRequest {
            workers: workers.iter().map(|it| (*it).to_owned()).collect(),
            receipts: Vec::new(),
            timeout,
            most: 100,
            background: None,
        };
        let waited = self.orchestrator.wait(&self.boss, request, &CancellationToken::new()).await;
        let (waited, delivery) = waited.expect("an answer to the wait");
        delivery.sent();
        match waited {
            Waited::Answered(answer) => *answer,
            Waited::Background(wait) => panic!("{wait:?} goes on in the background"),
        }
    }

    /// Waits until the worker has this status.
    pub async fn until(&self, worker: &str, status: &str) {
        let view = async || self.orchestrator.get(worker).await.expect("a known worker");
        if !in_time(async || view().await.worker.status.as_str() == status).await {
            let view = view().await;
            panic!("{worker} is {} and never became {status}: {view:#?}", view.worker.status);
        }
    }
}

/// Returns a mission for the fake CLI, whose script has one command a line.
pub fn mission(title: &str, script: &str) -> Draft {
    Draft {
        title: title.to_owned(),
        prompt: format!("FAKE:\n{script}"),
        backend: "fake".into(),
        model: None,
        effort: None,
        place: DraftPlace::Worktree { branch: None, base: None, path: None, directory: None },
        setup_command: None,
        verify_command: None,
        task_id: None,
        depends_on: Vec::new(),
        context_from: Vec::new(),
        timeout_minutes: 10,
        max_cost_usd: None,
        max_tokens: None,
        fallback_backends: Vec::new(),
        max_attempts: 1,
        request_id: None,
        permissions: Permissions::Edit,
        run_on: None,
        profile: None,
        needs: Vec::new(),
    }
}

/// Waits until the file exists.
pub async fn until_exists(path: &Path) {
    assert!(in_time(async || path.exists()).await, "{} was never created", path.display());
}
