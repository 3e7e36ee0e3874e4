//! The Claude Code plugin without Claude Code: its launcher with and without the program, and the names of its tools.
//! `tests/real/plugin.rs` checks that Claude Code shows the launcher's text.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use orchestrator_boss::mcp::surface;
use serde_json::Value;

const INITIALIZE: &str =
    "{\"jsonrpc\": \"2.0\", \"method\": \"initialize\", \"params\": {\"protocolVersion\": \"x\"}, \"id\": 7}\n";

struct Plugin {
    folder: tempfile::TempDir,
}

impl Plugin {
    /// Copies the launcher to a folder whose path has characters that are special in a shell and in JSON.
    fn new() -> Self {
        let plugin = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        fs::create_dir_all(plugin.root().join(".claude-plugin")).expect("a folder");
        let launcher = Path::new(env!("CARGO_MANIFEST_DIR")).join(".claude-plugin/launch.sh");
        fs::copy(launcher, plugin.root().join(".claude-plugin/launch.sh")).expect("the repository has it");
        plugin
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn root(&self) -> PathBuf {
        self.path("it's a \"plug\\nin\" $HOME")
    }

    /// Installs a script as the program. Another process writes it: a child of this one could inherit the open file,
    /// and a file that is open for writing cannot be started.
    fn install(&self, folder: &str, script: &str) {
        fs::create_dir_all(self.path(folder)).expect("a folder");
        let mut writer = Command::new("sh");
        writer.args(["-c", "printf '%s\\n' \"$1\" > \"$2\" && chmod 755 \"$2\"", "sh", script]);
        assert!(writer.arg(self.path(folder).join("orchestrator-boss")).status().expect("sh runs").success());
    }

    fn run(&self, command: &mut Command, input: &str) -> Output {
        let path = format!("{}:/usr/bin:/bin", self.path("bin").display());
        command.env_clear().env("PATH", path).env("HOME", self.path("home")).env("CLAUDE_PLUGIN_ROOT", self.root());
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a shell starts");
        // The program may exit without reading its input.
        let _ = child.stdin.take().expect("a piped stdin").write_all(input.as_bytes());
        child.wait_with_output().expect("the program exits")
    }

    fn serve(&self, input: &str) -> Output {
        self.run(Command::new("/bin/sh").arg(self.root().join(".claude-plugin/launch.sh")).arg("serve"), input)
    }

    /// Runs the hook's command from the manifest in a shell, as Claude Code does.
    fn hook(&self) -> Output {
        let line = manifest()["hooks"]["PreToolUse"][0]["hooks"][0]["command"].as_str().expect("a command").to_owned();
        // Claude Code replaces `CLAUDE_PLUGIN_ROOT` itself; here the shell expands it, inside the quotes.
        self.run(Command::new("/bin/sh").args(["-c", &line]), "{}")
    }
}

fn manifest() -> Value {
    let text = include_str!("../.claude-plugin/plugin.json");
    serde_json::from_str(text).expect("the plugin's manifest is JSON")
}

fn is_installed_where_the_launcher_looks() -> bool {
    let installed = ["/usr/local/bin", "/opt/homebrew/bin", "/usr/bin", "/bin"];
    let found = installed.iter().any(|folder| Path::new(folder).join("orchestrator-boss").exists());
    if found {
        assert!(std::env::var_os("CI").is_none(), "orchestrator-boss is installed on this machine");
        eprintln!("SKIPPED: orchestrator-boss is installed on this machine, so it cannot be missing");
    }
    found
}

#[test]
fn missing_program_names_its_installation() {
    if is_installed_where_the_launcher_looks() {
        return;
    }
    let plugin = Plugin::new();
    let text = |with: &str| {
        let output = plugin.serve(with);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let answer: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
        (answer["id"].clone(), answer["error"]["message"].as_str().unwrap_or_default().to_owned())
    };
    let (id, said) = text(INITIALIZE);
    assert_eq!(id, 7);
    assert!(said.contains("orchestrator-boss, which is not installed") && said.contains("README"), "{said}");
    let compact = "{\"id\":\"a-b\",\"method\":\"initialize\",\"jsonrpc\":\"2.0\"}\n{\"method\":\"notifications/x\"}\n";
    assert_eq!(text(compact).0, "a-b");
    // The plugin's folder now holds the sources, so the answer has a command that names this folder.
    fs::write(plugin.root().join("Cargo.toml"), "").expect("a file");
    let said = text(INITIALIZE).1;
    let named =
        said.split("cargo install --locked --path ").nth(1).and_then(|rest| rest.split('`').next()).expect("a command");
    let seen = plugin.run(Command::new("/bin/sh").args(["-c", &format!("cd {named} && pwd")]), "");
    assert_eq!(String::from_utf8_lossy(&seen.stdout).trim(), plugin.root().canonicalize().unwrap().to_string_lossy());
}

#[test]
fn program_that_fails_to_start_reports_why() {
    let plugin = Plugin::new();
    plugin.install("bin", "#!/bin/sh\necho 'no such loader' >&2\nexit 127");
    let said = String::from_utf8_lossy(&plugin.serve(INITIALIZE).stdout).into_owned();
    assert!(said.contains("does not start (no such loader)"), "{said}");
    serde_json::from_str::<Value>(&said).expect("JSON");
}

#[test]
fn hook_is_silent_when_it_cannot_run() {
    let plugin = Plugin::new();
    let silent = |why: &str| {
        let output = plugin.hook();
        assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{why}: {output:?}");
    };
    if !is_installed_where_the_launcher_looks() {
        silent("no program");
    }
    // Claude Code takes exit status 2 as a refusal of the edit.
    plugin.install("bin", "#!/bin/sh\necho 'unrecognized subcommand' >&2\nexit 2");
    silent("an older program");
    plugin.install("bin", "#!/no/such/interpreter");
    silent("a program that does not start");
    fs::remove_dir_all(plugin.root()).expect("it was there");
    silent("the plugin's folder is gone");
}

#[test]
fn program_is_found_outside_a_short_path() {
    for folder in ["bin", "home/.cargo/bin", "home/.local/bin"] {
        let plugin = Plugin::new();
        plugin.install(folder, "#!/bin/sh\necho \"$1\"");
        assert_eq!(String::from_utf8_lossy(&plugin.serve("").stdout), "serve\n", "{folder}");
        assert_eq!(String::from_utf8_lossy(&plugin.hook().stdout), "guard\n", "{folder}");
    }
}

/// Checks the limit of the model services: they refuse longer names.
#[test]
fn every_tool_name_fits_with_each_clients_prefix() {
    let manifest = manifest();
    let plugin = manifest["name"].as_str().expect("a name");
    let servers = manifest["mcpServers"].as_object().expect("servers").keys();
    let server = env!("CARGO_PKG_NAME");
    // The prefixes of Claude Code 2.1.330, Codex 0.169.0, Gemini CLI 0.61.0 and OpenCode 1.18.33.
    let mut prefixes: Vec<String> = servers.map(|name| format!("mcp__plugin_{plugin}_{name}__")).collect();
    prefixes.extend([format!("mcp__{server}__"), format!("mcp_{server}_"), format!("{server}_")]);
    let surface = surface();
    let tools: BTreeSet<&str> =
        surface["tools"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert!(tools.len() >= 14 && prefixes.len() == 4, "{tools:?} {prefixes:?}");
    for prefix in prefixes {
        for tool in &tools {
            let name = format!("{prefix}{tool}");
            assert!(name.len() <= 64, "{name} has {} characters", name.len());
        }
    }
}
