//! The plugin without its clients: its launcher with and without the program, its manifests, and the names of its
//! tools. `tests/real/plugin.rs` installs it into Claude Code and Codex.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use orchestrator_boss::mcp::surface;
use serde_json::Value;

const INITIALIZE: &str =
    "{\"jsonrpc\": \"2.0\", \"method\": \"initialize\", \"params\": {\"protocolVersion\": \"x\"}, \"id\": 7}\n";

const VERSION: &str = env!("CARGO_PKG_VERSION");

struct Plugin {
    folder: tempfile::TempDir,
}

impl Plugin {
    /// Copies the launcher to a folder whose path has characters that are special in a shell and in JSON.
    fn new() -> Self {
        let plugin = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        fs::create_dir_all(plugin.root().join(".claude-plugin")).expect("a folder");
        for file in [".claude-plugin/launch.sh", ".claude-plugin/plugin.json"] {
            let file = Path::new(file);
            fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join(file), plugin.root().join(file)).expect("it is there");
        }
        plugin
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn root(&self) -> PathBuf {
        self.path("it's a \"plug\\nin\" $HOME")
    }

    /// Writes a script. Another process writes it: a child of this one could inherit the open file, and a file that is
    /// open for writing cannot be started.
    fn write_script(&self, path: &str, script: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a path with a parent")).expect("a folder");
        let mut writer = Command::new("sh");
        writer.args(["-c", "printf '%s\\n' \"$1\" > \"$2\" && chmod 755 \"$2\"", "sh", script]);
        assert!(writer.arg(path).status().expect("sh runs").success());
    }

    /// Installs a program of this version that prints its folder and its argument.
    fn install(&self, folder: &str, version: &str) {
        let script =
            format!("#!/bin/sh\n[ \"$1\" = --version ] && echo 'orchestrator-boss {version}' || echo \"{folder}: $1\"");
        self.write_script(&format!("{folder}/orchestrator-boss"), &script);
    }

    /// Adds what a publishing release adds.
    fn publish(&self) {
        fs::write(self.root().join(".claude-plugin/published"), "").expect("a file");
    }

    fn run(&self, command: &mut Command, input: &str) -> Output {
        let path = format!("{}:/usr/bin:/bin", self.path("bin").display());
        command.env_clear().env("PATH", path).env("HOME", self.path("home")).env("CLAUDE_PLUGIN_ROOT", self.root());
        command.env("CLAUDE_PLUGIN_OPTION_GUARD", "true").current_dir(self.folder.path());
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

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn manifest() -> Value {
    let text = include_str!("../.claude-plugin/plugin.json");
    serde_json::from_str(text).expect("the plugin's manifest is JSON")
}

fn codex_manifest() -> Value {
    let text = include_str!("../.codex-plugin/plugin.json");
    serde_json::from_str(text).expect("the plugin's manifest for Codex is JSON")
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
    plugin.write_script("bin/orchestrator-boss", "#!/bin/sh\necho 'no such loader' >&2\nexit 127");
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
    plugin.install("bin", "0.0.7");
    silent("an older program");
    // Claude Code takes exit status 2 as a refusal of the edit.
    let fails = format!("#!/bin/sh\n[ \"$1\" = --version ] && echo 'orchestrator-boss {VERSION}' || exit 2");
    plugin.write_script("bin/orchestrator-boss", &fails);
    silent("a program with an error");
    plugin.write_script("bin/orchestrator-boss", "#!/no/such/interpreter");
    silent("a program that does not start");
    fs::remove_dir_all(plugin.root()).expect("it was there");
    silent("the plugin's folder is gone");
}

#[test]
fn program_is_found_outside_a_short_path() {
    for folder in ["bin", "home/.cargo/bin", "home/.local/bin"] {
        let plugin = Plugin::new();
        plugin.install(folder, &format!("{VERSION} (0123456 2026-11-29)"));
        assert_eq!(stdout(&plugin.serve("")), format!("{folder}: serve\n"));
        assert_eq!(stdout(&plugin.hook()), format!("{folder}: guard\n"));
    }
}

#[test]
fn program_of_another_version_is_not_started() {
    let plugin = Plugin::new();
    plugin.write_script("bin/npx", "#!/bin/sh\necho npx was started");
    plugin.install("bin", "0.0.7");
    let said = stdout(&plugin.serve(INITIALIZE));
    let expected = format!("needs orchestrator-boss {VERSION}, and {}", plugin.path("bin/orchestrator-boss").display());
    assert!(said.contains(&expected) && said.contains("another version (orchestrator-boss 0.0.7)"), "{said}");
    assert_eq!(stdout(&plugin.hook()), "");
    // One of a version that begins with ours is another one, too.
    plugin.install("bin", &format!("{VERSION}0"));
    assert!(stdout(&plugin.serve(INITIALIZE)).contains("another version"));
    plugin.install("home/.local/bin", VERSION);
    assert_eq!(stdout(&plugin.serve("")), "home/.local/bin: serve\n");
}

/// Checks that npx is used only after a publishing release, and reads nothing from the project.
#[test]
fn published_plugin_starts_its_npm_package() {
    let plugin = Plugin::new();
    // Runs the command like npx, with the package on the PATH.
    let npx = "#!/bin/sh\npwd\necho \"$1 $2 $3\"\nPATH=\"$(cd ../package && pwd):$PATH\" exec sh -c \"$5\"";
    plugin.write_script("bin/npx", npx);
    plugin.write_script("package/orchestrator-boss", "#!/bin/sh\npwd\necho \"package: $1 $PLUGIN_PROJECT\"");
    if !is_installed_where_the_launcher_looks() {
        assert!(stdout(&plugin.serve(INITIALIZE)).contains("which is not installed"));
    }
    plugin.install("bin", "0.0.7");
    assert!(stdout(&plugin.serve(INITIALIZE)).contains("another version"));
    plugin.publish();
    let real = |path: PathBuf| path.canonicalize().expect("it exists").display().to_string();
    let (root, project) = (real(plugin.root()), real(plugin.path("")));
    let expected = |what: &str| {
        let package = format!("--yes --prefer-offline --package=orchestrator-boss@{VERSION}");
        format!("{root}\n{package}\n{project}\npackage: {what} \n")
    };
    assert_eq!(stdout(&plugin.serve("")), expected("serve"));
    assert_eq!(stdout(&plugin.hook()), expected("guard"));
    plugin.install("bin", VERSION);
    assert_eq!(stdout(&plugin.serve("")), "bin: serve\n");
    let stamp = Path::new(env!("CARGO_MANIFEST_DIR")).join(".claude-plugin/published");
    assert!(!stamp.exists(), "only a release adds it");
}

/// Checks the archive of a release: only a release that has published the npm package lets the plugin start it.
#[test]
fn release_stamps_only_a_published_plugin() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let files = |more: &[&str]| {
        let mut pack = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/plugin"));
        let packed = pack.arg(folder.path()).args(more).output().expect("bash runs");
        assert!(packed.status.success(), "{packed:?}");
        let listed = Command::new("tar").arg("-tzf").arg(stdout(&packed).trim()).output().expect("tar runs");
        stdout(&listed)
    };
    let stamp = "orchestrator-boss-plugin/.claude-plugin/published\n";
    let published = files(&["published"]);
    assert!(published.contains(stamp), "{published}");
    let others = files(&[]);
    assert_eq!(others, published.replace(stamp, ""));
    for file in [".claude-plugin/launch.sh", ".codex-plugin/plugin.json", "skills/orchestrator-boss/SKILL.md"] {
        assert!(others.contains(&format!("orchestrator-boss-plugin/{file}\n")), "{file} in {others}");
    }
}

/// Checks that Codex's manifest is that of Claude Code, and that its server starts the launcher of this version.
#[test]
fn manifests_of_both_clients_agree() {
    let (claude, codex) = (manifest(), codex_manifest());
    for field in ["name", "version", "description", "author", "license", "keywords"] {
        assert_eq!(claude[field], codex[field], "{field}");
    }
    assert_eq!(claude["version"], VERSION);
    let plugin = Plugin::new();
    let cache = format!("home/.codex/plugins/cache/a market/orchestrator-boss/{VERSION}/.claude-plugin");
    plugin.write_script(&format!("{cache}/launch.sh"), "pwd; echo \"$1\"");
    let entry = &codex["mcpServers"]["orchestrator-boss"];
    let arguments: Vec<&str> = entry["args"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    let mut server = Command::new(entry["command"].as_str().unwrap());
    let started = plugin.run(server.args(arguments), "");
    let project = plugin.folder.path().canonicalize().expect("it exists");
    assert_eq!(stdout(&started), format!("{}\nserve\n", project.display()));
}

/// Checks the limit of the model services: they refuse longer names.
#[test]
fn every_tool_name_fits_with_each_clients_prefix() {
    let manifest = manifest();
    let plugin = manifest["name"].as_str().expect("a name");
    let servers = manifest["mcpServers"].as_object().expect("servers").keys();
    let server = env!("CARGO_PKG_NAME");
    // The prefixes of Claude Code, Codex, Gemini CLI and OpenCode.
    let mut prefixes: Vec<String> = servers.map(|name| format!("mcp__plugin_{plugin}_{name}__")).collect();
    prefixes.extend([format!("mcp__{server}__"), format!("mcp_{server}_"), format!("{server}_")]);
    let codex = codex_manifest();
    prefixes.extend(codex["mcpServers"].as_object().expect("servers").keys().map(|name| format!("mcp__{name}__")));
    let surface = surface();
    let tools: BTreeSet<&str> =
        surface["tools"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert!(tools.len() >= 14 && prefixes.len() == 5, "{tools:?} {prefixes:?}");
    for prefix in prefixes {
        for tool in &tools {
            let name = format!("{prefix}{tool}");
            assert!(name.len() <= 64, "{name} has {} characters", name.len());
        }
    }
}
