//! A sandbox with a server whose workers are confined, and the attacks as a script.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::json_lines::Boss;
use crate::support::processes::until_none_in;
use crate::support::sandbox::{PROGRAM, Sandbox, create, fake_backend, status};
use crate::support::wait::until_some;

pub struct World {
    pub sandbox: Sandbox,
}

impl World {
    /// Creates a world with these settings. `None` where the kernel cannot confine.
    pub fn new(settings: &str) -> Option<Self> {
        if let orchestrator_boss::process::confine::Support::No { why } = orchestrator_boss::process::confine::support()
        {
            assert!(std::env::var_os("CI").is_none(), "the kernel cannot confine: {why}");
            eprintln!("SKIPPED: the kernel cannot confine: {why}");
            return None;
        }
        Some(Self::anywhere(settings))
    }

    /// Creates a world with these settings on any kernel. Workers are confined unless the settings choose.
    pub fn anywhere(settings: &str) -> Self {
        let sandbox = Sandbox::new();
        let confine = if settings.contains("confine = ") { "" } else { "confine = \"auto\"\n" };
        fs::write(sandbox.settings_file(), format!("{confine}{settings}\n{}", fake_backend("fake"))).unwrap();
        fs::create_dir(sandbox.path("runtime")).unwrap();
        Self { sandbox }
    }

    pub fn boss(&self) -> Boss {
        self.boss_with(&[])
    }

    /// Starts a server with these variables.
    pub fn boss_with(&self, variables: &[(&str, &str)]) -> Boss {
        let mut server = self.sandbox.bare_command(PROGRAM);
        server.arg("--config").arg(self.sandbox.settings_file());
        server.env("XDG_RUNTIME_DIR", self.sandbox.path("runtime")).envs(variables.iter().copied());
        self.sandbox.boss_of(server)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.sandbox.path(name)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            until_none_in(&self.sandbox.root());
        }
        self.sandbox.check_log();
    }
}

/// Creates a worker and waits until it has settled. Returns its last report.
pub fn run(boss: &mut Boss, mission: Value) -> Value {
    let id = create(boss, mission);
    settled(boss, &id)
}

pub fn settled(boss: &mut Boss, id: &str) -> Value {
    let is_settled = |worker: &Value| {
        let status = worker["status"].as_str().unwrap_or_default();
        ["completed", "failed", "cancelled", "timed_out", "interrupted", "lost"].contains(&status)
    };
    until_some(&format!("{id} settles"), || Some(status(boss, id)).filter(is_settled))
}
