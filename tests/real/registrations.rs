//! The server is registered with the user's CLIs, since one of them is the boss. Their workers must not start it again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::boss::Boss;
use crate::model_server::Script;
use crate::real_cli::{Cli, run_to_end};
use crate::world::{CEILING, World};

with_each_cli!(worker_does_not_start_this_server: Claude Codex Gemini OpenCode);
with_each_cli!(worker_does_not_lead_under_another_name: Codex OpenCode);
with_each_cli!(worker_ignores_servers_named_by_variables: OpenCode);

async fn worker_does_not_start_this_server(world: &World) {
    let server = Registered::register_everywhere(world);
    server.run_as_user(world);
    // A profile of Codex applies only if the command line names it; that of a worker names none.
    let scopes: &[&str] = match world.cli {
        Cli::Claude => &["local", "plugin", "project", "user"],
        Cli::Codex => &["plugin", "project", "user"],
        Cli::OpenCode => &["project", "user"],
        Cli::Gemini => &["extension", "project", "user"],
    };
    assert_eq!(server.starts(), scopes, "without the supervisor the CLI starts all servers");

    let before = world.asked().len();
    let worker = world.start(&Script::new().run("git status").say("done"), json!({})).await;
    let settled = world.settled(&worker).await;
    assert_eq!(settled["status"], "completed", "{settled:#}");
    assert_eq!(server.starts(), [""; 0]);
    for request in &world.asked()[before..] {
        let offered = request.body.to_string();
        assert!(!offered.contains("batch_create_workers") && !offered.contains("boss-of-"), "{offered}");
    }
}

/// Checks a registration that does not identify the server, so that the CLI starts it. The server recognises the worker
/// by its own environment or that of its ancestors.
async fn worker_does_not_lead_under_another_name(world: &World) {
    let server = Registered::under_another_name(world);
    let tool = match world.cli {
        Cli::OpenCode => "helpers_batch_create_workers",
        _ => "mcp__helpers__batch_create_workers",
    };
    let mission = json!({"title": "Recurse", "prompt": "no", "backend": crate::world::backend(world.cli)});
    let script = Script::new().call(tool, json!({"workers": [mission]})).say("I was refused");
    let worker = world.start(&script, json!({"permissions": "read_only"})).await;
    let settled = world.settled(&worker).await;
    assert_eq!(
        (&settled["status"], &settled["final_message"]),
        (&json!("completed"), &json!("I was refused")),
        "{settled:#}"
    );
    assert_eq!(server.starts(), ["user"], "the server was started");
    let read = world.asked().iter().map(|request| request.body.to_string()).collect::<String>();
    assert!(read.contains("workers do not manage workers"), "{read}");
    let all = world.call("list_worker_missions", json!({"scope": "all"})).await;
    assert_eq!(all["workers"].as_array().map(Vec::len), Some(1), "{all:#}");
}

async fn worker_ignores_servers_named_by_variables(world: &World) {
    let server = Registered::new(world);
    let named = world.path("named.json");
    let entry = json!({"boss-of-variable": {"type": "local", "command": [server.program, "variable"]}});
    write(&named, &json!({"mcp": entry}).to_string());
    let mut command = world.home.command(env!("CARGO_BIN_EXE_orchestrator-boss"));
    command.current_dir(world.repo()).env("OPENCODE_CONFIG", &named);
    let boss = Boss::start(command, &world.path("other-server.log")).await;
    let mission = crate::world::mission(world.cli, &Script::new().say("done"));
    boss.call("create_worker_mission", mission).await.expect("it is created");
    let mut answer = json!({});
    while answer["status"] != "settled" {
        answer = boss.call("wait_for_any_worker", json!({"timeout_seconds": 20})).await.expect("a wait is answered");
    }
    assert_eq!(answer["settled"][0]["status"], "completed", "{answer:#}");
    assert_eq!(server.starts(), [""; 0]);
    boss.leave().await;
}

/// The server, registered by the user and by the project, with a trace of every start.
struct Registered {
    program: PathBuf,
    trace: PathBuf,
}

impl Registered {
    fn new(world: &World) -> Self {
        Self::started_by(world, "bin/orchestrator-boss")
    }

    /// Creates a program with another name that starts the server.
    fn under_another_name(world: &World) -> Self {
        let server = Self::started_by(world, "bin/lead");
        let (config, name) = match world.cli {
            Cli::Codex => (world.path(".codex/config.toml"), "command"),
            _ => (world.path(".config/opencode/opencode.json"), "mcp"),
        };
        let text = read(&config);
        let text = match name {
            "command" => format!(
                "{text}\n[mcp_servers.helpers]\ncommand = {:?}\nargs = [\"user\"]\ndefault_tools_approval_mode = \"approve\"\nrequired = true\n",
                server.program
            ),
            _ => {
                let mut config: Value = serde_json::from_str(&text).expect("the home's is JSON");
                config["mcp"] = json!({"helpers": {"type": "local", "command": [server.program, "user"]}});
                config.to_string()
            }
        };
        write(&config, &text);
        server
    }

    fn started_by(world: &World, program: &str) -> Self {
        let server = Self { program: world.path(program), trace: world.shared("started") };
        let real = env!("CARGO_BIN_EXE_orchestrator-boss");
        let script = format!("#!/bin/sh\necho \"$1\" >> '{}'\nexec '{real}'\n", server.trace.display());
        write(&server.program, &script);
        fs::set_permissions(&server.program, fs::Permissions::from_mode(0o755)).expect("a writable file");
        server
    }

    fn register_everywhere(world: &World) -> Self {
        let server = Self::new(world);
        match world.cli {
            Cli::Claude => server.register_with_claude(world),
            Cli::Codex => server.register_with_codex(world),
            Cli::Gemini => server.register_with_gemini(world),
            Cli::OpenCode => server.register_with_opencode(world),
        }
        world.git(&["add", "."]);
        world.git(&["commit", "-qm", "register the server"]);
        server
    }

    /// Runs the CLI as its user does, to check that it reads the registrations.
    fn run_as_user(&self, world: &World) {
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

    /// Returns the registrations that were started since the last call.
    fn starts(&self) -> Vec<String> {
        let mut starts: Vec<String> =
            fs::read_to_string(&self.trace).unwrap_or_default().lines().map(str::to_owned).collect();
        let _ = fs::remove_file(&self.trace);
        starts.sort();
        starts.dedup();
        starts
    }

    fn register_with_claude(&self, world: &World) {
        let mut config = self.mcp_servers("user");
        config["projects"] = json!({ world.repo().display().to_string(): self.mcp_servers("local") });
        write(&world.path(".claude/.claude.json"), &config.to_string());
        self.register_as_plugin(world);
        write(&world.repo().join(".mcp.json"), &self.mcp_servers("project").to_string());
    }

    fn register_as_plugin(&self, world: &World) {
        let mut manifest = self.mcp_servers("plugin");
        manifest["name"] = "boss".into();
        install_plugin(world, ".claude-plugin/plugin.json", manifest, "install");
    }

    /// Registers the server with the names of the real plugin, by which it is recognised.
    fn register_as_codex_plugin(&self, world: &World) {
        let entry = json!({"command": self.program, "args": ["plugin"]});
        let manifest = json!({"name": "orchestrator-boss", "mcpServers": {"orchestrator-boss": entry}});
        install_plugin(world, ".codex-plugin/plugin.json", manifest, "add");
    }

    fn register_with_codex(&self, world: &World) {
        let config = world.path(".codex/config.toml");
        let trust = format!("\n[projects.{:?}]\ntrust_level = \"trusted\"\n", world.repo());
        let server =
            |who: &str| format!("\n[mcp_servers.boss-of-{who}]\ncommand = {:?}\nargs = [{who:?}]\n", self.program);
        let home = read(&config).replace("plugins = false", "plugins = true");
        write(&config, &(home + &server("user") + &trust));
        self.register_as_codex_plugin(world);
        write(&world.repo().join(".codex/config.toml"), &server("project"));
    }

    fn register_with_gemini(&self, world: &World) {
        let settings = world.path(".gemini/settings.json");
        let mut config: Value = serde_json::from_str(&read(&settings)).expect("the home's is JSON");
        config["mcpServers"] = self.mcp_servers("user")["mcpServers"].take();
        write(&settings, &config.to_string());
        let mut extension = self.mcp_servers("extension");
        extension["name"] = "boss".into();
        extension["version"] = "1.0.0".into();
        write(&world.path(".gemini/extensions/boss/gemini-extension.json"), &extension.to_string());
        write(&world.repo().join(".gemini/settings.json"), &self.mcp_servers("project").to_string());
    }

    fn register_with_opencode(&self, world: &World) {
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

fn install_plugin(world: &World, path: &str, mut manifest: Value, install: &str) {
    let source = world.path("plugin");
    manifest["version"] = "1.0.0".into();
    let name = manifest["name"].as_str().expect("a name");
    let plugin = json!({"name": name, "source": "./", "description": "x"});
    let market = json!({"name": "market", "owner": {"name": "x"}, "plugins": [plugin]});
    write(&source.join(".claude-plugin/marketplace.json"), &market.to_string());
    write(&source.join(path), &manifest.to_string());
    for arguments in [&["marketplace", "add", "./"][..], &[install, &format!("{name}@market")]] {
        let mut cli = world.home.command(world.cli.path());
        let done = cli.arg("plugin").args(arguments).current_dir(&source).output().expect("the CLI starts");
        assert!(done.status.success(), "{done:?}");
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("the home has it")
}

fn write(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().expect("a path with a parent")).expect("a new folder");
    fs::write(path, content).expect("a writable file");
}
