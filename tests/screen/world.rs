//! A sealed world for one test: a repository, settings in which the fake CLI is a backend, and servers of the real
//! program. The user's configuration is invisible, and `Drop` always ends the workers.

use std::ops::Deref;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::json_lines::Boss;
pub use crate::support::sandbox::mission;
use crate::support::sandbox::{PROGRAM, Sandbox, fake_cli};
pub use crate::support::wait::until;

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
        let sandbox = Sandbox::new();
        let fake = fake_cli();
        let backend = format!(
            "[[custom]]\nname = \"fake\"\nprogram = {fake:?}\noutput = \"jsonl\"\nreports_cost = true\n\
             resume_args = [\"--resume\", \"{{session_id}}\"]\n\
             attach_args = [\"--resume\", \"{{session_id}}\"]\n"
        );
        let agent = format!("[[custom]]\nname = \"agent\"\nprogram = {fake:?}\nargs = [\"--acp\"]\noutput = \"acp\"\n");
        sandbox.write_settings(&format!("max_workers = 8\nquestions = \"ask\"\n{backend}{agent}"), &[]);
        Self { sandbox }
    }

    /// Returns the whole environment of the programs in this world.
    pub fn environment(&self) -> Vec<(String, String)> {
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        vec![
            set("HOME", &self.path("").to_string_lossy()),
            set("PATH", "/usr/local/bin:/usr/bin:/bin:/opt/homebrew/bin"),
            set("LANG", "C.UTF-8"),
            set("GIT_CONFIG_GLOBAL", "/dev/null"),
            set("GIT_CONFIG_NOSYSTEM", "1"),
        ]
    }

    fn sealed(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.env_clear().envs(self.environment()).current_dir(self.repo());
        command
    }

    /// Returns the program's arguments, preceded by those of every call in this world.
    pub fn arguments(&self, args: &[&str]) -> Vec<String> {
        let config = self.path("config.toml").to_string_lossy().into_owned();
        args.iter().map(|arg| (*arg).to_owned()).chain(["--config".to_owned(), config]).collect()
    }

    pub fn program() -> &'static str {
        PROGRAM
    }

    /// Runs a command to its end, without a terminal.
    pub fn run(&self, args: &[&str]) -> Output {
        self.sealed(Self::program()).args(self.arguments(args)).stdin(Stdio::null()).output().expect("the program runs")
    }

    /// Runs a command that must succeed, and returns its output.
    pub fn says(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    pub fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.says(args)).expect("JSON")
    }

    /// Starts a server of the boss with this session.
    pub fn boss(&self, session: &str) -> Boss {
        let mut command = self.sealed(Self::program());
        command.args(self.arguments(&["serve"])).env("CLAUDE_CODE_SESSION_ID", session);
        Boss::start(command)
    }

    /// Releases the scripts that wait for this name (see `hold`).
    pub fn release(&self, name: &str) {
        std::fs::write(self.shared(name), "").expect("a file");
    }

    /// Returns a script line that waits until [`World::release`].
    pub fn hold(&self, name: &str) -> String {
        format!("wait-file {} 600", self.shared(name).display())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !self.state_dir().exists() {
            return;
        }
        let everything = json!({"scope": "all", "reason": "the test is over"});
        drop(self.boss("the-end").call("cancel_all_workers", everything));
    }
}
