//! This server is registered with the user's CLIs, since one of them is the boss. Their workers must not start it again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::model_server::Script;
use crate::real_cli::{Cli, run_to_end};
use crate::world::{CEILING, World};

with_each_cli!(a_worker_does_not_start_this_server: Claude Codex Gemini OpenCode);

async fn a_worker_does_not_start_this_server(world: &World) {
    let server = Registered::with_everyone(world);
    server.run_by_itself(world);
    assert_eq!(server.starts(), ["project", "user"], "without us the CLI starts both");

    let before = world.asked().len();
    let worker = world.start(&Script::new().run("git status").say("done"), json!({})).await;
    let told = world.settled(&worker).await;
    assert_eq!(told["status"], "completed", "{told:#}");
    assert_eq!(server.starts(), [""; 0]);
    for request in &world.asked()[before..] {
        let offered = request.body.to_string();
        assert!(!offered.contains("batch_create_workers") && !offered.contains("boss-of-"), "{offered}");
    }
}

/// This server as a user has registered it and as a project has, and a trace of every start of it.
struct Registered {
    program: PathBuf,
    trace: PathBuf,
}

impl Registered {
    fn with_everyone(world: &World) -> Self {
        let server = Self { program: world.path("bin/orchestrator-boss"), trace: world.path("started") };
        let real = env!("CARGO_BIN_EXE_orchestrator-boss");
        let script = format!("#!/bin/sh\necho \"$1\" >> '{}'\nexec '{real}'\n", server.trace.display());
        write(&server.program, &script);
        fs::set_permissions(&server.program, fs::Permissions::from_mode(0o755)).expect("it is ours");
        match world.cli {
            Cli::Claude => server.with_claude(world),
            Cli::Codex => server.with_codex(world),
            Cli::Gemini => server.with_gemini(world),
            Cli::OpenCode => server.with_opencode(world),
        }
        world.git(&["add", "."]);
        world.git(&["commit", "-qm", "register the server"]);
        server
    }

    /// The CLI as its user runs it: the proof that it reads what is registered.
    fn run_by_itself(&self, world: &World) {
        let mut command = world.home.command(world.cli.path());
        match world.cli {
            Cli::Claude => command.arg("-p"),
            Cli::Codex => command.args(["exec", "-"]),
            Cli::Gemini => command.args(["-m", world.cli.model()]).env("GEMINI_CLI_TRUST_WORKSPACE", "true"),
            Cli::OpenCode => command.args(["run", "-m", world.cli.model(), "--title", "T"]),
        };
        let ended = run_to_end(command.current_dir(world.repo()).env("PWD", world.repo()), "Hello", CEILING);
        assert!(ended.status.success(), "{ended:?}");
    }

    /// Who has started it since this was asked last.
    fn starts(&self) -> Vec<String> {
        let mut starts: Vec<String> =
            fs::read_to_string(&self.trace).unwrap_or_default().lines().map(str::to_owned).collect();
        let _ = fs::remove_file(&self.trace);
        starts.sort();
        starts.dedup();
        starts
    }

    fn with_claude(&self, world: &World) {
        write(&world.path(".claude/.claude.json"), &self.mcp_servers("user").to_string());
        write(&world.repo().join(".mcp.json"), &self.mcp_servers("project").to_string());
    }

    fn with_codex(&self, world: &World) {
        let config = world.path(".codex/config.toml");
        let trust = format!("\n[projects.{:?}]\ntrust_level = \"trusted\"\n", world.repo());
        let server =
            |who: &str| format!("\n[mcp_servers.boss-of-{who}]\ncommand = {:?}\nargs = [{who:?}]\n", self.program);
        write(&config, &(read(&config) + &server("user") + &trust));
        write(&world.repo().join(".codex/config.toml"), &server("project"));
    }

    fn with_gemini(&self, world: &World) {
        let settings = world.path(".gemini/settings.json");
        let mut config: Value = serde_json::from_str(&read(&settings)).expect("the home's is JSON");
        config["mcpServers"] = self.mcp_servers("user")["mcpServers"].take();
        write(&settings, &config.to_string());
        write(&world.repo().join(".gemini/settings.json"), &self.mcp_servers("project").to_string());
    }

    fn with_opencode(&self, world: &World) {
        let server = |who: &str| json!({format!("boss-of-{who}"): {"type": "local", "command": [self.program, who]}});
        let settings = world.path(".config/opencode/opencode.json");
        let mut config: Value = serde_json::from_str(&read(&settings)).expect("the home's is JSON");
        config["mcp"] = server("user");
        write(&settings, &config.to_string());
        write(&world.repo().join("opencode.json"), &json!({"mcp": server("project")}).to_string());
    }

    fn mcp_servers(&self, who: &str) -> Value {
        json!({"mcpServers": {format!("boss-of-{who}"): {"command": self.program, "args": [who]}}})
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("the home has it")
}

fn write(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("a new folder");
    fs::write(path, content).expect("it is ours");
}
