//! `doctor` finds problems, names their fixes, and changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::git::git;
use crate::support::wait::CEILING;
use crate::world::{World, mission, until_exists};
use crate::{program, stdout};

const PLANTED_KEY: &str = "sk-planted-77aa10";

pub struct Machine {
    folder: tempfile::TempDir,
    search_path: String,
}

impl Machine {
    /// Creates a home with a repository and without any CLI.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let machine = Self { search_path: String::new(), folder };
        for name in ["bin", "project", "home"] {
            fs::create_dir(machine.path(name)).unwrap();
        }
        let project = machine.path("project");
        git(&project, &["init", "-q", "-b", "main"]);
        git(&project, &["config", "user.name", "Tess Ter"]);
        git(&project, &["config", "user.email", "tess@localhost"]);
        git(&project, &["commit", "-q", "--allow-empty", "-m", "first"]);
        Self { search_path: format!("{}:/usr/bin:/bin", machine.path("bin").display()), ..machine }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(name)
    }

    pub fn install(&self, name: &str, script: &str) {
        // Another process writes it: a child of another thread could inherit the open file, and a file that is open
        // for writing cannot be started.
        let mut writer = Command::new("sh");
        writer.args(["-c", "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$2\" && chmod 755 \"$2\"", "sh", script]);
        assert!(writer.arg(self.path("bin").join(name)).status().unwrap().success());
    }

    fn command(&self) -> Command {
        let mut command = program(&self.path("home"), &self.path("project"));
        command.env("PATH", &self.search_path).env("ANTHROPIC_BASE_URL", PLANTED_KEY).arg("doctor");
        command
    }

    /// Runs `doctor`. Returns its findings and its exit status.
    pub fn ask(&self) -> (Value, Option<i32>) {
        let output = self.command().arg("--json").output().unwrap();
        assert!(!stdout(&output).contains(PLANTED_KEY), "values of the environment are not shown");
        (serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}")), output.status.code())
    }
}

pub fn check(found: &Value, topic: &str, name: &str) -> (String, String, String) {
    let checks = found["checks"][topic].as_array().unwrap_or_else(|| panic!("{topic}: {found:#}"));
    let check = checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("{name}: {found:#}"));
    let fixes = check["fix"].as_array().cloned().unwrap_or_default();
    let fixes: Vec<&str> = fixes.iter().filter_map(Value::as_str).collect();
    (check["severity"].as_str().unwrap().into(), check["message"].as_str().unwrap().into(), fixes.join("\n"))
}

/// Returns every file and folder, with properties that a change affects.
fn snapshot(folder: &Path) -> BTreeMap<PathBuf, (u64, i64, i64, u32)> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            let found = entry.metadata().unwrap();
            all.insert(entry.path(), (found.len(), found.mtime(), found.mtime_nsec(), found.mode()));
            if found.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    all
}

#[test]
fn doctor_names_usable_clis_and_changes_nothing() {
    let machine = Machine::new();
    machine.install("codex", "case $1 in --version) echo codex-cli 99.0.0;; *) exit 0;; esac");
    machine.install("claude", "case $1 in --version) echo 1.0.0;; *) echo '{\"loggedIn\": false}'; exit 1;; esac");
    machine.install("gemini", "echo 0.99.0");
    let before = snapshot(machine.folder.path());
    let (found, code) = machine.ask();
    assert_eq!((code, &found["would_work"]), (Some(0), &Value::Bool(true)), "{found:#}");
    assert_eq!(found["with"], serde_json::json!(["codex"]), "{found:#}");
    assert_eq!(found["maybe_with"], serde_json::json!(["gemini"]), "{found:#}");
    let verdict = "Workers can run with: codex. They may run with: gemini (its login is unknown).";
    assert_eq!(found["verdict"], verdict);
    let (mark, says, fix) = check(&found, "agents", "claudecode");
    assert_eq!((&*mark, &*fix), ("bad", "claude auth login"));
    assert!(says.contains("untested: older"), "{says}");
    let (mark, says, fix) = check(&found, "agents", "gemini");
    assert!(mark == "warn" && says.contains("untested: newer") && fix.contains("GEMINI_API_KEY"), "{says} {fix}");
    let (mark, _, fix) = check(&found, "agents", "opencode");
    assert_eq!((&*mark, &*fix), ("warn", "npm install -g opencode-ai"));
    for (topic, name) in [
        ("git", "git"),
        ("git", "worktrees"),
        ("git", "identity"),
        ("git", "checkout"),
        ("place", "settings"),
        ("place", "disk"),
    ] {
        assert_eq!(check(&found, topic, name).0, "ok", "{name}: {found:#}");
    }
    assert!(check(&found, "git", "integration branch").1.starts_with("main"), "{found:#}");
    assert_eq!(check(&found, "clients", "waking").0, "note");
    assert_eq!(snapshot(machine.folder.path()), before, "it changes nothing");

    let output = machine.command().output().unwrap();
    let text = stdout(&output);
    assert!(text.contains("✗ bad   claudecode") && text.contains("\n") && !text.contains('\u{1b}'), "{text}");
    // The first client that is known to be logged in.
    let next = found["next"].as_str().unwrap();
    assert!(next.ends_with("orchestrator-boss setup codex"), "{next}");
    assert!(text.contains("claude auth login") && text.ends_with(&format!("{verdict}\nNext: {next}\n")), "{text}");
}

#[test]
fn silent_cli_is_unknown_and_its_processes_end() {
    let machine = Machine::new();
    let pid = machine.path("pid");
    machine.install("codex", &format!("sleep 600 & echo $! > {}; wait", pid.display()));
    let began = Instant::now();
    let (found, code) = machine.ask();
    assert!(began.elapsed() < Duration::from_secs(300), "it waited for the CLI");
    let (mark, says, fix) = check(&found, "agents", "codex");
    assert!(mark == "warn" && says.contains("printed no version") && fix.ends_with("codex --version"), "{says}");
    assert_eq!((code, &found["would_work"], &found["could_work"]), (Some(3), &false.into(), &true.into()), "{found:#}");
    assert_eq!(found["verdict"], "Workers may run with: codex (not everything could be checked).");
    let pid: i32 = fs::read_to_string(pid).unwrap().trim().parse().unwrap();
    let until = Instant::now() + CEILING;
    while is_alive(pid) {
        assert!(Instant::now() < until, "a process of the CLI still runs");
        std::thread::yield_now();
    }
}

/// Returns whether the process runs; a zombie does not.
fn is_alive(pid: i32) -> bool {
    let found = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output().unwrap();
    let state = String::from_utf8_lossy(&found.stdout).trim().to_owned();
    !state.is_empty() && !state.starts_with('Z')
}

#[test]
fn obstacles_are_named_with_their_fixes() {
    let machine = Machine::new();
    machine.install("codex", "case $1 in --version) echo codex-cli 99.0.0;; *) exit 0;; esac");
    let stopped = |name: &str, machine: &Machine| {
        let (found, code) = machine.ask();
        assert_eq!(code, Some(1), "{found:#}");
        assert!(found["stopped_by"].as_array().unwrap().iter().any(|it| it == name), "{name}: {found:#}");
        found
    };
    // A misspelt setting, with its line.
    let settings = machine.path("home/.config/orchestrator-boss/config.toml");
    fs::create_dir_all(settings.parent().unwrap()).unwrap();
    fs::write(&settings, "max_depth = 1\nmax_worker = 3\n").unwrap();
    let found = stopped("settings", &machine);
    let (_, says, fix) = check(&found, "place", "settings");
    assert!(says.contains("line 2") && says.contains("max_worker") && fix.contains("config.toml"), "{says} {fix}");
    // Floors that every machine is below.
    fs::write(&settings, "min_free_disk_mib = 99999999999\nmin_free_memory_mib = 99999999999\n").unwrap();
    let found = stopped("disk", &machine);
    assert!(check(&found, "machine", "memory").1.contains("min_free_memory_mib"), "{found:#}");
    fs::remove_file(&settings).unwrap();
    // A state folder that cannot be used, and one of a newer version.
    let state = machine.path("project/.orchestrator");
    std::os::unix::fs::symlink(machine.path("home"), &state).unwrap();
    stopped("state", &machine);
    fs::remove_file(&state).unwrap();
    fs::create_dir(&state).unwrap();
    fs::write(state.join("orchestrator-state.json"), "{\"version\": 99}").unwrap();
    let found = stopped("state file", &machine);
    assert!(check(&found, "place", "state file").1.contains("newer"), "{found:#}");
    fs::remove_dir_all(&state).unwrap();
    // Without git, everything else is still checked.
    let without = Machine { search_path: machine.path("bin").display().to_string(), ..machine };
    let found = stopped("git", &without);
    assert!(check(&found, "git", "git").2.contains("install git"), "{found:#}");
    assert_eq!(check(&found, "agents", "codex").0, "ok");
}

#[test]
fn worktree_that_cannot_be_created_stops_a_run() {
    let machine = Machine::new();
    machine.install("codex", "echo codex-cli 99.0.0");
    let project = machine.path("project");
    let stopped = |name: &str, words: &str| {
        let (found, code) = machine.ask();
        let (mark, says, _) = check(&found, "git", name);
        assert!(mark == "bad" && says.contains(words), "{name}: {found:#}");
        assert_eq!((code, &found["stopped_by"]), (Some(1), &serde_json::json!([name])), "{found:#}");
    };
    git(&project, &["branch", "orchestrator"]);
    stopped("branch prefix", "orchestrator");
    git(&project, &["branch", "-D", "orchestrator"]);
    let settings = machine.path("home/.config/orchestrator-boss/config.toml");
    fs::create_dir_all(settings.parent().unwrap()).unwrap();
    fs::write(&settings, "branch_prefix = 'a..b/'\n").unwrap();
    stopped("branch prefix", "a..b/");
    fs::write(machine.path("file"), "").unwrap();
    for folder in ["../file/trees", "/proc/trees"] {
        fs::write(&settings, format!("worktrees_dir = '{folder}'\n")).unwrap();
        stopped("worktrees folder", "trees");
    }
    fs::remove_file(&settings).unwrap();
    assert_eq!(machine.ask().1, Some(0));
    // Root can write everywhere.
    let heads = project.join(".git/refs/heads");
    fs::set_permissions(&heads, fs::Permissions::from_mode(0o500)).unwrap();
    if fs::write(heads.join("x"), "").is_err() {
        stopped("worktrees", "refs/heads");
    }
    fs::set_permissions(&heads, fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn missing_repository_or_identity_is_explained() {
    let machine = Machine::new();
    machine.install("codex", "echo 99.0.0");
    let project = machine.path("project");
    git(&project, &["config", "--unset", "user.name"]);
    git(&project, &["config", "--unset", "user.email"]);
    git(&project, &["config", "user.useConfigOnly", "true"]);
    let (found, code) = machine.ask();
    let (mark, says, fix) = check(&found, "git", "identity");
    assert!(mark == "bad" && says.contains("missions are refused") && fix.contains("user.email"), "{says}");
    assert_eq!((code, &found["stopped_by"]), (Some(1), &serde_json::json!(["identity"])), "{found:#}");
    fs::remove_dir_all(project.join(".git")).unwrap();
    let (found, code) = machine.ask();
    assert!(check(&found, "git", "repository").2.contains("git init"), "{found:#}");
    assert_eq!(code, Some(0), "workers can work in directories");
    // The first commit needs an identity.
    let settings = machine.path("home/.gitconfig");
    let first_day = |machine: &Machine| {
        let output = machine.command().env("GIT_CONFIG_GLOBAL", &settings).arg("--json").output().unwrap();
        check(&serde_json::from_slice(&output.stdout).unwrap(), "git", "repository").2
    };
    fs::write(&settings, "[user]\nuseConfigOnly = true\n").unwrap();
    assert!(first_day(&machine).starts_with("git config --global user.name"), "{}", first_day(&machine));
    fs::write(&settings, "[user]\nname = A\nemail = a@b.c\n").unwrap();
    assert!(first_day(&machine).starts_with("git init"), "{}", first_day(&machine));
}

#[test]
fn broken_repository_is_named_before_the_command() {
    let machine = Machine::new();
    fs::write(machine.path("project/.git/config"), "[broken\n").unwrap();
    let (mark, says, _) = check(&machine.ask().0, "git", "repository");
    assert!(
        mark == "bad" && says.starts_with("cannot read the git repository of ") && says.contains("config"),
        "{says}"
    );
}

#[test]
fn zero_workers_are_explained_by_their_source() {
    let machine = Machine::new();
    let settings = machine.path("home/.config/orchestrator-boss/config.toml");
    fs::create_dir_all(settings.parent().unwrap()).unwrap();
    fs::write(&settings, "max_workers = 0\n").unwrap();
    let (mark, says, fix) = check(&machine.ask().0, "machine", "workers");
    assert!(mark == "bad" && says.starts_with("max_workers is 0") && fix.ends_with("config.toml"), "{says} {fix}");
    let output = machine.command().arg("--json").env("ORCHESTRATOR_MAX_WORKERS", "0").output().unwrap();
    let fix = check(&serde_json::from_slice(&output.stdout).unwrap(), "machine", "workers").2;
    assert_eq!(fix, "unset ORCHESTRATOR_MAX_WORKERS");
}

#[test]
fn detached_head_stops_a_run() {
    let machine = Machine::new();
    machine.install("codex", "echo 99.0.0");
    let project = machine.path("project");
    git(&project, &["checkout", "-q", "--detach"]);
    let (found, code) = machine.ask();
    let (mark, says, fix) = check(&found, "git", "integration branch");
    assert!(mark == "bad" && says.contains("detached") && fix.contains("switch main"), "{says}");
    assert_eq!((code, &found["stopped_by"]), (Some(1), &serde_json::json!(["integration branch"])), "{found:#}");
    git(&project, &["checkout", "-q", "-b", "feature"]);
    let (found, _) = machine.ask();
    assert!(check(&found, "git", "integration branch").1.starts_with("feature"), "{found:#}");
}

#[test]
fn unknown_login_is_called_unknown() {
    let machine = Machine::new();
    machine.install("gemini", "echo 99.0.0");
    let (found, code) = machine.ask();
    assert_eq!((code, &found["would_work"], &found["could_work"]), (Some(3), &false.into(), &true.into()), "{found:#}");
    assert_eq!(found["verdict"], "Workers may run with: gemini (its login is unknown).");
    assert!(check(&found, "agents", "gemini").1.ends_with("nothing shows one"), "{found:#}");
}

#[test]
fn google_login_of_gemini_is_doubtful() {
    let machine = Machine::new();
    machine.install("gemini", "echo 99.0.0");
    fs::create_dir_all(machine.path("home/.gemini")).unwrap();
    fs::write(machine.path("home/.gemini/oauth_creds.json"), "{}").unwrap();
    let (found, code) = machine.ask();
    assert_eq!((code, &found["maybe_with"]), (Some(3), &serde_json::json!(["gemini"])), "{found:#}");
    let (mark, says, fix) = check(&found, "agents", "gemini");
    assert!(mark == "warn" && says.contains("may be that of a private account"), "{says}");
    assert!(fix.starts_with("set GEMINI_API_KEY, or ") && fix.contains("licence"), "{fix}");
}

#[test]
fn cli_that_fails_to_start_is_unusable() {
    let machine = Machine::new();
    let bad = |machine: &Machine, words: &str| {
        let (found, code) = machine.ask();
        let (mark, says, _) = check(&found, "agents", "codex");
        assert!(code == Some(1) && mark == "bad" && says.contains(words), "{words}: {found:#}");
    };
    // The interpreter is missing, named through `env` or by its path, or it is too old.
    let shebang = |line: &str| {
        let path = machine.path("bin/codex");
        let mut writer = Command::new("sh");
        writer.args(["-c", "printf '%s\\n' \"$1\" > \"$2\" && chmod 755 \"$2\"", "sh", line]).arg(path);
        assert!(writer.status().unwrap().success());
    };
    shebang("#!/usr/bin/env no-such-node");
    bad(&machine, "no-such-node");
    shebang("#!/no/such/node");
    bad(&machine, "does not start: its first line (#!) names a missing interpreter");
    machine.install("codex", "kill -9 $$");
    bad(&machine, "SIGKILL");
    machine.install("codex", "echo 'needs node 22, this is 12' >&2; exit 1");
    bad(&machine, "needs node 22");
    // The settings name a program that does not exist, so installing another one would not help.
    let settings = machine.path("home/.config/orchestrator-boss/config.toml");
    fs::create_dir_all(settings.parent().unwrap()).unwrap();
    fs::write(&settings, "[backends.codex]\nprogram = \"/no/such/codex\"\n").unwrap();
    let (found, _) = machine.ask();
    let (mark, says, fix) = check(&found, "agents", "codex");
    assert!(mark == "bad" && says.contains("/no/such/codex"), "{says}");
    assert!(fix.contains("[backends.codex]") && !fix.contains("npm"), "{fix}");
    fs::write(&settings, "[[custom]]\nname = \"mine\"\nprogram = \"/no/such/tool\"\n").unwrap();
    let (mark, says, fix) = check(&machine.ask().0, "agents", "mine");
    assert!(mark == "bad" && says == "/no/such/tool does not exist" && fix.contains("[[custom]]"), "{says} {fix}");
}

#[test]
fn boss_variables_are_hidden_from_clis() {
    let machine = Machine::new();
    machine.install("codex", "[ -z \"$CODEX_THREAD_ID$CLAUDECODE\" ] && echo codex-cli 99.0.0");
    let mut doctor = machine.command();
    let output = doctor.args(["--json"]).env("CODEX_THREAD_ID", "x").env("CLAUDECODE", "1").output().unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["with"], serde_json::json!(["codex"]), "{found:#}");
}

#[test]
fn impossible_checkout_is_found_and_leaves_nothing() {
    let machine = Machine::new();
    machine.install("codex", "echo codex-cli 99.0.0");
    let project = machine.path("project");
    fs::write(project.join(".gitattributes"), "*.bin filter=lfs\n").unwrap();
    fs::write(project.join("a.bin"), "x").unwrap();
    git(&project, &["add", "."]);
    git(&project, &["commit", "-q", "-m", "large"]);
    // The filter is not configured: git checks out the stored content.
    let (found, code) = machine.ask();
    let (mark, says, _) = check(&found, "git", "filter lfs");
    assert!(code == Some(0) && mark == "warn" && says.contains("git does not know"), "{found:#}");
    // The filter is configured and required, but not installed.
    git(&project, &["config", "filter.lfs.smudge", "no-such-lfs smudge -- %f"]);
    git(&project, &["config", "filter.lfs.required", "true"]);
    let (found, code) = machine.ask();
    let (mark, says, fix) = check(&found, "git", "filter lfs");
    assert!(code == Some(1) && mark == "bad" && says.contains("no-such-lfs") && fix.contains("git-lfs"), "{found:#}");
    // The filter is installed but fails, which only a real checkout shows.
    git(&project, &["config", "filter.lfs.smudge", "sh -c 'echo out of order >&2; exit 1'"]);
    let before = snapshot(&project);
    let temporary = machine.path("tmp");
    fs::create_dir(&temporary).unwrap();
    let output = machine.command().arg("--json").env("TMPDIR", &temporary).output().unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let (mark, says, _) = check(&found, "git", "checkout");
    assert!(mark == "bad" && says.contains("cannot create worktrees: cannot "), "{found:#}");
    assert_eq!(found["stopped_by"], serde_json::json!(["checkout"]));
    assert_eq!(snapshot(&project), before, "the repository is not touched");
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "nothing is left");
    git(&project, &["config", "filter.lfs.smudge", "cat"]);
    let (found, code) = machine.ask();
    assert_eq!((code, check(&found, "git", "checkout").0.as_str()), (Some(0), "ok"), "{found:#}");
}

#[test]
fn plugin_and_second_registration_are_reported() {
    let machine = Machine::new();
    machine.install("codex", "echo codex-cli 99.0.0");
    let claude = machine.path("home/.claude");
    fs::create_dir_all(claude.join("plugins")).unwrap();
    let name = "orchestrator-boss@somewhere";
    fs::write(claude.join("settings.json"), format!("{{\"enabledPlugins\": {{\"{name}\": true}}}}")).unwrap();
    let plugin = |machine: &Machine| check(&machine.ask().0, "clients", "plugin");
    assert!(plugin(&machine).1.contains("is not installed"));
    fs::write(claude.join("plugins/installed_plugins.json"), format!("{{\"plugins\": {{\"{name}\": [{{}}]}}}}"))
        .unwrap();
    let (mark, says, _) = plugin(&machine);
    assert!(mark == "bad" && says.contains("does not find"), "{says}");
    machine.install("orchestrator-boss", "echo orchestrator-boss 0.0.7");
    let (mark, says, _) = plugin(&machine);
    assert!(mark == "ok" && says.contains("bin/orchestrator-boss"), "{says}");
    // The plugin starts only a program of its own version, or the npm package.
    let place = machine.path("home/installed");
    let installed =
        format!("{{\"plugins\": {{\"{name}\": [{{\"version\": \"0.0.8\", \"installPath\": {place:?}}}]}}}}");
    fs::write(claude.join("plugins/installed_plugins.json"), installed).unwrap();
    let (mark, says, fix) = plugin(&machine);
    assert!(mark == "bad" && says.contains("starts only version 0.0.8"), "{says}");
    assert_eq!(fix, format!("claude plugin update {name}"));
    fs::create_dir_all(place.join(".claude-plugin")).unwrap();
    fs::write(place.join(".claude-plugin/published"), "").unwrap();
    machine.install("npx", "");
    let (mark, says, _) = plugin(&machine);
    assert!(mark == "ok" && says.contains("starts the npm package"), "{says}");
    machine.install("orchestrator-boss", "echo orchestrator-boss 0.0.8");
    assert!(plugin(&machine).1.contains("bin/orchestrator-boss"));
    let (found, _) = machine.ask();
    let (mark, _, fix) = check(&found, "clients", "Codex");
    assert!(mark == "note" && fix.ends_with("setup codex"), "not registered is neither good nor bad: {mark} {fix}");
    // `setup` registers the server a second time.
    let mut setup = program(&machine.path("home"), &machine.path("project"));
    assert!(setup.args(["setup", "claude", "--yes"]).output().unwrap().status.success());
    let (mark, says, fix) = plugin(&machine);
    assert!(mark == "warn" && says.contains("twice") && fix.contains("setup claude --remove"), "{says} {fix}");
    // The plugin is disabled in this project.
    fs::create_dir_all(machine.path("project/.claude")).unwrap();
    let off = format!("{{\"enabledPlugins\": {{\"{name}\": false}}}}");
    fs::write(machine.path("project/.claude/settings.local.json"), off).unwrap();
    assert_eq!(plugin(&machine).0, "note");
}

#[test]
fn client_entries_are_checked_to_their_program() {
    let machine = Machine::new();
    machine.install("codex", "echo 99.0.0");
    let (found, _) = machine.ask();
    let (mark, _, fix) = check(&found, "clients", "clients");
    assert!(mark == "warn" && fix.ends_with("setup codex"), "{fix}");
    // The plugin.
    let config = machine.path("home/.codex/config.toml");
    fs::create_dir_all(config.parent().unwrap()).unwrap();
    fs::write(&config, "[plugins.\"orchestrator-boss@here\"]\nenabled = true\n").unwrap();
    let (mark, says, _) = check(&machine.ask().0, "clients", "Codex");
    assert!(mark == "ok" && says.contains("through orchestrator-boss@here"), "{says}");
    // An entry as `setup` writes it.
    let mut setup = program(&machine.path("home"), &machine.path("project"));
    assert!(setup.args(["setup", "codex", "--yes"]).output().unwrap().status.success());
    let (found, _) = machine.ask();
    let (mark, says, _) = check(&found, "clients", "Codex");
    assert!(mark == "ok" && says.contains("starts this program"), "{says}");
    assert!(found["next"].as_str().unwrap().starts_with("start `codex` in your repository and say: "), "{found:#}");
    let entry =
        |program: &str| fs::write(&config, format!("[mcp_servers.orchestrator-boss]\ncommand = \"{program}\"\n"));
    entry("/gone/orchestrator-boss").unwrap();
    let (mark, says, fix) = check(&machine.ask().0, "clients", "Codex");
    assert!(mark == "bad" && says.contains("which does not exist") && fix.ends_with("setup codex"), "{says}");
    machine.install("orchestrator-boss", "echo orchestrator-boss 0.0.7");
    entry(&machine.path("bin/orchestrator-boss").display().to_string()).unwrap();
    let (mark, says, _) = check(&machine.ask().0, "clients", "Codex");
    assert!(mark == "warn" && says.contains("version 0.0.7"), "{says}");
    // `doctor` does not run programs that a project's file names.
    let ran = machine.path("ran");
    machine.install("orchestrator-boss", &format!("touch {}", ran.display()));
    fs::remove_file(&config).unwrap();
    fs::write(
        machine.path("project/.mcp.json"),
        format!(
            "{{\"mcpServers\": {{\"orchestrator-boss\": {{\"command\": {:?}}}}}}}",
            machine.path("bin/orchestrator-boss")
        ),
    )
    .unwrap();
    let (mark, _, _) = check(&machine.ask().0, "clients", "Claude Code");
    assert!(mark == "warn" && !ran.exists());
    fs::write(machine.path("project/.mcp.json"), "{\n  \"mcpServers\": [,\n").unwrap();
    let (mark, says, _) = check(&machine.ask().0, "clients", "Claude Code");
    assert!(mark == "bad" && says.contains("line 2"), "{says}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leftovers_of_ended_bosses_are_named() {
    let world = World::new();
    let mut settings = world.settings();
    settings.max_workers = Some(2);
    let server = world.server_with(Some("boss"), settings.clone());
    let gate = world.path("gate");
    let busy = world.shared("busy");
    let done = server.create_one(mission("done", "write a.txt x\ncommit a")).await;
    server.until(&done, "completed").await;
    let script = format!("touch {}\nwait-file {}", busy.display(), gate.display());
    let running = server.create_one(mission("running", &script)).await;
    until_exists(&busy).await;
    server.until(&running, "running").await;
    let other = server.create_one(mission("other", &format!("wait-file {}", gate.display()))).await;
    server.until(&other, "running").await;
    let waiting = server.create_one(mission("waiting", "say x")).await;
    let ask = || {
        let mut doctor = program(&world.path("home"), &world.repo());
        let output = doctor.args(["doctor", "--json"]).output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let (mark, says, _) = check(&ask(), "left_over", "workers");
    assert!(mark == "ok" && says.contains("3 open, 1 of their bosses here"), "{says}");
    let mut report = program(&world.path("home"), &world.repo());
    let html = stdout(&report.args(["report", "--output", "-"]).output().unwrap());
    let (running_says, queued_says) = (html.matches("▸ running").count(), html.matches("○ queued").count());
    assert_eq!((running_says, queued_says), (4, 2), "in the table and for each worker, also for open ones");
    server.orchestrator.shut_down().await;
    drop(server);

    world.git(&["update-ref", "refs/orchestrator/salvage/w-9-$(x)", "HEAD"]);
    fs::create_dir_all(world.repo().join(".orchestrator/integrations/s-1.2")).unwrap();
    let found = ask();
    let left = found["checks"]["left_over"].as_array().unwrap();
    let commands: Vec<&str> =
        left.iter().filter_map(|it| it["fix"].as_array()).flatten().filter_map(Value::as_str).collect();
    for id in ["w-2", "w-3", "w-4"] {
        assert!(commands.contains(&&*format!("orchestrator-boss cancel {id}")), "{id}: {found:#}");
    }
    let texts: Vec<&str> = left.iter().filter_map(|it| it["message"].as_str()).collect();
    assert!(texts.iter().any(|it| it.contains("w-2, w-3: running under a supervisor")), "{texts:?}");
    assert!(texts.iter().any(|it| it.contains("w-4: queued without a server")), "{texts:?}");
    // A worker may have created it with a name that a shell would run.
    for command in ["show 'refs/orchestrator/salvage/w-9-$(x)'", "update-ref -d 'refs/orchestrator/salvage/w-9-$(x)'"] {
        assert!(commands.iter().any(|it| it.ends_with(command)), "{commands:?}");
    }
    assert!(commands.contains(&"orchestrator-boss clean --dry-run"), "{commands:?}");
    assert!(check(&found, "left_over", "worktrees").1.contains("1 not merged"), "{found:#}");
    assert!(check(&found, "left_over", "verifications").1.contains("1 of interrupted integrations"), "{found:#}");
    assert!(check(&found, "left_over", "size").1.contains(".orchestrator"), "{found:#}");

    fs::write(&gate, "").unwrap();
    let server = world.server_with(Some("boss"), settings);
    for worker in [&running, &other, &waiting] {
        server.until(worker, "completed").await;
    }
    server.orchestrator.shut_down().await;
}

#[test]
fn missing_setup_command_is_suggested() {
    let machine = Machine::new();
    let project = machine.path("project");
    fs::write(project.join(".gitignore"), "node_modules\n").unwrap();
    fs::write(project.join("package-lock.json"), "{}\n").unwrap();
    git(&project, &["add", "."]);
    git(&project, &["commit", "-qm", "packages"]);
    fs::create_dir_all(project.join("node_modules/x")).unwrap();
    fs::write(project.join("node_modules/x/index.js"), "x").unwrap();
    let (mark, says, _) = check(&machine.ask().0, "git", "setup");
    let lines: Vec<&str> = says.lines().collect();
    assert!(mark == "note" && lines[0].contains("lack node_modules"), "{says}");
    let expected = [format!("[repositories.\"{}\"]", project.display()), "setup_command = \"npm ci\"".to_owned()];
    assert_eq!(lines[1..], expected);
    // These lines are what it asks for.
    let settings = machine.path("home").join("settings.toml");
    fs::write(&settings, expected.join("\n")).unwrap();
    let output = machine.command().arg("--config").arg(&settings).arg("--json").output().unwrap();
    assert!(!stdout(&output).contains("\"setup\""), "{}", stdout(&output));
}
