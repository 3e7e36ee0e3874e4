use std::path::Path;

use super::*;
use crate::files::lease;

struct World {
    _folder: tempfile::TempDir,
    home: PathBuf,
    state: StateDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join(".cli");
        fs::create_dir(&home).unwrap();
        let state = StateDir::open(&folder.path().join("state")).unwrap();
        Self { home, state, _folder: folder }
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.home.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn record(&self, attempt: u32) -> CliSettings {
        let settings = CliSettings::read(&WorkerId::new(1, "t"), attempt, vec![self.home.clone()]);
        settings.record(&self.state).unwrap();
        settings
    }

    /// Returns the names of the changes without the folder.
    fn open(&self) -> Vec<String> {
        let changes = open_changes(&self.state).unwrap();
        let folder = format!("{}/", self.home.display());
        changes.iter().map(|change| change.replace(&folder, "")).collect()
    }
}

/// The state of a CLI before and after its worker.
type Case = (&'static str, &'static str, &'static str);

#[test]
fn own_writes_of_a_cli_stop_nothing() {
    let cases: [Case; 14] = [
        ("settings.json", r#"{"model": "a", "hooks": {"Stop": [1]}}"#, r#"{ "hooks" : {"Stop":[1]},  "model": "b" }"#),
        ("settings.json", "{}", r#"{"theme": "dark", "hooks": {}, "mcpServers": {}}"#),
        // The form of settings before and after it moves them.
        (
            "settings.json",
            r#"{"autoAccept": true, "toolCallCommand": "x"}"#,
            r#"{"tools": {"autoAccept": true, "callCommand": "x"}}"#,
        ),
        ("config.toml", "model = 'a'\n", "model = 'a'\n[projects.\"/p\"]\ntrust_level = 'trusted'\n"),
        (
            "config.toml",
            "[marketplaces.m]\nlast_updated = 'a'\nsource = 's'\n",
            "[marketplaces.m]\nlast_updated = 'b'\nsource = 's'\n",
        ),
        (
            ".claude.json",
            r#"{"numStartups": 1}"#,
            r#"{"numStartups": 2, "projects": {"/p": {"mcpServers": {}, "env": {"a": 1}}}}"#,
        ),
        (
            "plugins/known_marketplaces.json",
            r#"{"m": {"source": "s", "lastUpdated": 1}}"#,
            r#"{"m": {"source": "s", "lastUpdated": 2}}"#,
        ),
        (
            "plugins/installed_plugins.json",
            r#"{"plugins": {"p@m": [{"installPath": "/c/p/1", "version": "1"}]}}"#,
            r#"{"plugins": {"p@m": [{"installPath": "/c/p/2", "version": "2"}]}}"#,
        ),
        ("plugins/cache/m/p/2/index.js", "", "new version"),
        ("plugins/cache/m/p/1/run.log", "a", "b"),
        ("skills/.system/x/SKILL.md", "a", "b"),
        ("sessions/1.jsonl", "", "{}"),
        ("CLAUDE.md", "a", "b"),
        ("rules/style.md", "", "new"),
    ];
    for (name, before, after) in cases {
        let world = World::new();
        if !before.is_empty() {
            world.write(name, before);
        }
        let settings = world.record(1);
        assert_eq!(world.open(), [""; 0], "{name}");
        world.write(name, after);
        let said = settings.end(&world.state);
        assert_eq!(
            said.is_some(),
            ["CLAUDE.md", "rules/style.md", "plugins/cache/m/p/2/index.js"].contains(&name),
            "{name}: {said:?}"
        );
        assert_eq!(world.open(), [""; 0], "{name}");
        assert!(!world.state.cli_settings().exists(), "{name}");
    }
}

#[test]
fn settings_that_run_programs_stop_integration() {
    let cases: [(Case, &str); 16] = [
        (("settings.json", "{}", r#"{"hooks": {"Stop": [1]}}"#), "settings.json hooks (added)"),
        (("settings.json", r#"{"permissions": {"deny": ["x"]}}"#, "{}"), "settings.json permissions (removed)"),
        (("settings.json", "{}", r#"{"statusLine": {"command": "evil"}}"#), "settings.json statusLine (added)"),
        (
            ("settings.json", "{}", r#"{"tools": {"discoveryCommand": "evil"}}"#),
            "settings.json tools discoveryCommand (added)",
        ),
        (("settings.json", "{}", "{ not json"), "settings.json (added)"),
        (("config.toml", "notify = ['a']", "notify = ['b']"), "config.toml notify (changed)"),
        (("config.toml", "", "[mcp_servers.x]\ncommand = 'evil'\n"), "config.toml mcp_servers (added)"),
        (
            ("config.toml", "", "[profiles.p]\napproval_policy = 'never'\n"),
            "config.toml profiles p approval_policy (added)",
        ),
        (
            (".claude.json", "{}", r#"{"projects": {"/p": {"mcpServers": {"x": 1}}}}"#),
            ".claude.json projects /p mcpServers (added)",
        ),
        ((".env", "", "NODE_OPTIONS=--require /evil"), ".env (added)"),
        (("hooks/stop.sh", "a", "b"), "hooks/stop.sh (changed)"),
        (("rules/default.rules", "", "allow"), "rules/default.rules (added)"),
        (("extensions/x/gemini-extension.json", "", "{}"), "extensions/x/gemini-extension.json (added)"),
        (("skills/a/SKILL.md", "a", "b"), "skills/a/SKILL.md (changed)"),
        (("plugins/cache/m/p/1/index.js", "a", "b"), "plugins/cache/m/p/1/index.js (changed)"),
        (
            (
                "plugins/installed_plugins.json",
                r#"{"p": [{"installPath": "/c/p/1"}]}"#,
                r#"{"p": [{"installPath": "/evil/1"}]}"#,
            ),
            "plugins/installed_plugins.json (changed)",
        ),
    ];
    for ((name, before, after), expected) in cases {
        let world = World::new();
        if !before.is_empty() {
            world.write(name, before);
        }
        let settings = world.record(1);
        world.write(name, after);
        let now = world.open();
        let said = settings.end(&world.state).unwrap_or_default();
        assert!(said.contains(&format!("{expected}; this can make it run programs")), "{said}");
        assert_eq!((now, world.open()), (vec![expected.to_owned()], vec![expected.to_owned()]));
        // The user undoes it.
        if before.is_empty() {
            fs::remove_file(world.home.join(name)).unwrap()
        } else {
            world.write(name, before)
        }
        assert_eq!(world.open(), [""; 0], "{name}");
        assert!(!world.state.cli_settings().exists(), "{name}");
    }
}

#[test]
fn later_changes_of_the_user_stop_nothing() {
    let world = World::new();
    world.write("hooks/a.sh", "a");
    let settings = world.record(1);
    world.write("hooks/a.sh", "evil");
    settings.end(&world.state);
    world.write("settings.json", r#"{"hooks": {"Stop": [1]}}"#);
    assert_eq!(world.open(), ["hooks/a.sh (changed)"]);
    // Accepted, as the error asks.
    fs::remove_dir_all(world.state.cli_settings()).unwrap();
    assert_eq!(world.open(), [""; 0]);
    assert_eq!(world.record(2).end(&world.state), None);
}

#[test]
fn killed_supervisor_hides_no_change() {
    let world = World::new();
    drop(world.record(1));
    world.write("hooks/a.sh", "evil");
    assert_eq!(world.open(), ["hooks/a.sh (added)"]);
    fs::remove_file(world.home.join("hooks/a.sh")).unwrap();
    assert_eq!(world.open(), [""; 0]);
    assert!(!world.state.cli_settings().exists());
}

#[test]
fn damaged_record_hides_no_change() {
    let world = World::new();
    let attempt = world.state.worker(&WorkerId::new(1, "t")).attempt(1);
    files::make_private_dir(attempt.root()).unwrap();
    world.write("settings.json", "{}");
    let damage = || {
        drop(world.record(1));
        let record = world.state.cli_settings().join("w-1-t.1.json");
        // As a file is after a power failure before its content was written.
        let length = fs::metadata(&record).unwrap().len();
        fs::write(&record, vec![0; length as usize]).unwrap();
        record
    };
    // The copy replaces it.
    damage();
    world.write("hooks/a.sh", "evil");
    assert_eq!(world.open(), ["hooks/a.sh (added)"]);
    fs::remove_dir_all(world.home.join("hooks")).unwrap();
    assert_eq!(world.open(), [""; 0]);
    assert!(!world.state.cli_settings().exists() && !attempt.cli_settings().exists());
    // Without a copy, the changes are unknown. Those of another worker are compared nevertheless.
    let record = damage();
    fs::write(attempt.cli_settings(), "{").unwrap();
    drop(world.record(2));
    world.write("hooks/a.sh", "evil");
    let unknown = format!("those of w-1-t (attempt 1), which are unknown since {} is damaged", record.display());
    for _ in 0..2 {
        assert_eq!(world.open(), ["hooks/a.sh (added)".to_owned(), unknown.clone()]);
    }
    // Accepted, as the error asks.
    fs::remove_dir_all(world.state.cli_settings()).unwrap();
    assert_eq!(world.open(), [""; 0]);
}

#[test]
fn record_of_a_running_attempt_stays() {
    let world = World::new();
    let attempt = world.state.worker(&WorkerId::new(1, "t")).attempt(1);
    files::make_private_dir(attempt.root()).unwrap();
    let lease = lease::take(&attempt.lock()).unwrap();
    drop(world.record(1));
    assert_eq!(world.open(), [""; 0]);
    assert!(world.state.cli_settings().exists());
    drop(lease);
    world.open();
    assert!(!world.state.cli_settings().exists());
}

#[test]
fn links_count_by_their_target() {
    let world = World::new();
    world.write("../real/a.md", "a");
    std::os::unix::fs::symlink(world.home.join("../real"), world.home.join("skills")).unwrap();
    world.write("hooks/x", "");
    let settings = world.record(1);
    fs::remove_file(world.home.join("skills")).unwrap();
    std::os::unix::fs::symlink(Path::new("/evil"), world.home.join("skills")).unwrap();
    fs::remove_file(world.home.join("hooks/x")).unwrap();
    std::os::unix::fs::symlink(Path::new("/evil"), world.home.join("hooks/x")).unwrap();
    let said = settings.end(&world.state).unwrap();
    assert!(said.contains("hooks/x (changed)") && said.contains("skills (changed)"), "{said}");
}
