//! The four real CLIs, and a home directory in which they know only the scripted model.
//!
//! The CLIs and the node that runs them are pinned in `tests/real` and installed by `npm ci` there.
//! Starting a worker is not part of this module, since the tests check it.

// Each test binary uses a different part.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::json;
use tempfile::TempDir;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cli {
    Claude,
    Codex,
    Gemini,
    OpenCode,
}

impl Cli {
    pub const ALL: [Cli; 4] = [Cli::Claude, Cli::Codex, Cli::Gemini, Cli::OpenCode];

    pub fn program(self) -> &'static str {
        match self {
            Cli::Claude => "claude",
            Cli::Codex => "codex",
            Cli::Gemini => "gemini",
            Cli::OpenCode => "opencode",
        }
    }

    pub fn path(self) -> PathBuf {
        bin_dir().join(self.program())
    }

    /// Returns a model that this CLI accepts in a [`ScratchHome`].
    pub fn model(self) -> &'static str {
        match self {
            Cli::Claude => "sonnet",
            Cli::Codex => "gpt-5.5",
            Cli::Gemini => "gemini-2.5-pro",
            Cli::OpenCode => "scripted/scripted",
        }
    }
}

/// Returns whether a CLI is missing, and prints that the test is skipped. With `CI=true` it panics instead.
pub fn skipped() -> bool {
    let Some(missing) = Cli::ALL.into_iter().find(|cli| !cli.path().exists()) else {
        return false;
    };
    let why = format!("{} is not installed: run `npm ci` in tests/real", missing.program());
    assert!(env::var("CI").as_deref() != Ok("true"), "{why}");
    println!("SKIPPED: {why}");
    true
}

/// A temporary home in which all four CLIs use the scripted model with a dummy key and reach nothing but 127.0.0.1.
/// It is removed when dropped.
pub struct ScratchHome {
    dir: TempDir,
    env: BTreeMap<&'static str, String>,
}

impl ScratchHome {
    /// Creates a home whose CLIs use the scripted model at this URL, which has no path.
    pub fn new(model_url: &str) -> Self {
        Self::within(&env::temp_dir(), model_url)
    }

    /// Creates a home in this folder.
    pub fn within(folder: &Path, model_url: &str) -> Self {
        let dir = tempfile::tempdir_in(folder).expect("a temporary directory");
        let mut home = Self { dir, env: BTreeMap::new() };
        home.seal();
        home.point_claude_at(model_url);
        home.point_codex_at(model_url);
        home.point_gemini_at(model_url);
        home.point_opencode_at(model_url);
        home
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the whole environment of programs in this home. They inherit nothing from the test.
    pub fn env(&self) -> &BTreeMap<&'static str, String> {
        &self.env
    }

    pub fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.env.insert(name, value.into());
    }

    pub fn unset(&mut self, name: &str) {
        self.env.remove(name);
    }

    /// Returns a command that has only this home's environment.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.env_clear().envs(&self.env);
        command
    }

    fn seal(&mut self) {
        let path = env::var("PATH").expect("a PATH with git and a shell");
        self.set("PATH", format!("{}:{path}", bin_dir().display()));
        self.set("HOME", self.path().display().to_string());
        self.set("LANG", "C.UTF-8");
        self.set("GIT_CONFIG_GLOBAL", "/dev/null");
        self.set("GIT_CONFIG_NOSYSTEM", "1");
        // Gemini CLI leaves a report of every API error in the temporary directory.
        self.set("TMPDIR", self.path().join("tmp").display().to_string());
        fs::create_dir(self.path().join("tmp")).expect("a new directory in the scratch home");
    }

    fn point_claude_at(&mut self, model_url: &str) {
        self.set("ANTHROPIC_BASE_URL", model_url);
        self.set("ANTHROPIC_API_KEY", "dummy");
        let config = self.path().join(".claude").display().to_string();
        self.set("CLAUDE_CONFIG_DIR", config);
        self.set("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1");
    }

    /// Configures Codex. Without `plugins = false` it asks github.com at every start, which takes 5 s when offline.
    fn point_codex_at(&mut self, model_url: &str) {
        let config = format!(
            r#"model_provider = "scripted"

[model_providers.scripted]
name = "scripted"
base_url = "{model_url}/v1"
env_key = "SCRIPTED_API_KEY"
wire_api = "responses"
request_max_retries = 1
stream_max_retries = 1

[features]
plugins = false
"#
        );
        self.write(".codex/config.toml", &config);
        let codex_home = self.path().join(".codex").display().to_string();
        self.set("CODEX_HOME", codex_home);
        self.set("SCRIPTED_API_KEY", "dummy");
    }

    /// Configures Gemini CLI. A base URL alone selects the auth type `gateway`, which it refuses without a terminal.
    fn point_gemini_at(&mut self, model_url: &str) {
        let settings = json!({
            "security": {"auth": {"selectedType": "gemini-api-key"}},
            "privacy": {"usageStatisticsEnabled": false},
            "general": {"enableAutoUpdate": false, "enableAutoUpdateNotification": false},
        });
        self.write(".gemini/settings.json", &settings.to_string());
        self.set("GOOGLE_GEMINI_BASE_URL", model_url);
        self.set("GEMINI_API_KEY", "dummy");
    }

    /// Configures OpenCode. It installs a package at every start; the scripted model, as its registry, has none.
    fn point_opencode_at(&mut self, model_url: &str) {
        let config = json!({"provider": {"scripted": {
            "npm": "@ai-sdk/openai-compatible",
            "options": {"baseURL": format!("{model_url}/v1"), "apiKey": "dummy"},
            "models": {"scripted": {
                "name": "scripted",
                "tool_call": true,
                "limit": {"context": 100_000, "output": 8_000},
                "cost": {"input": 1, "output": 2},
            }},
        }}});
        self.write(".config/opencode/opencode.json", &config.to_string());
        self.write(".npmrc", &format!("registry={model_url}/\n"));
        self.set("OPENCODE_DISABLE_MODELS_FETCH", "1");
        self.set("OPENCODE_DISABLE_AUTOUPDATE", "1");
    }

    pub fn write(&self, path: &str, content: &str) {
        let path = self.path().join(path);
        let parent = path.parent().expect("a file in the scratch home");
        fs::create_dir_all(parent).expect("a new directory in the scratch home");
        fs::write(path, content).expect("a new file in the scratch home");
    }
}

/// Runs a CLI with `input` on its stdin and waits for its exit. After `ceiling` it is killed and the test fails.
/// Processes that its tools left in other sessions are not killed, so such commands must end by themselves.
pub fn run_to_end(command: &mut Command, input: &str, ceiling: Duration) -> Output {
    let mut child = command
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("an installed CLI");
    let group = Pid::from_child(&child);
    let mut stdin = child.stdin.take().expect("a piped stdin");
    let input = input.to_owned();
    let (ended, end) = mpsc::channel();
    thread::spawn(move || {
        // A CLI may exit without reading its input; the test judges that.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let _ = ended.send(child.wait_with_output());
    });
    match end.recv_timeout(ceiling) {
        Ok(output) => output.expect("a child of ours"),
        Err(_) => {
            let _ = kill_process_group(group, Signal::KILL);
            panic!("{command:?} did not end within {ceiling:?}");
        }
    }
}

/// Returns the folder of the pinned CLIs and node, which is first in the `PATH` of a [`ScratchHome`].
fn bin_dir() -> PathBuf {
    cli_folder().join(".bin")
}

/// Returns the folder of the packages of the pinned CLIs.
pub fn cli_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real/node_modules")
}
