//! `setup` as a user runs it: the real program in a sealed home, without any client installed.

mod home;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use home::Home;
use serde_json::Value;

/// The user's earlier file of each client.
const FILES: [(&str, &str); 4] = [
    ("claude", ".claude.json"),
    ("codex", ".codex/config.toml"),
    ("gemini", ".gemini/settings.json"),
    ("opencode", ".config/opencode/opencode.json"),
];

#[test]
fn removal_restores_every_byte() {
    let json = [
        "",
        "{}",
        "{}\n",
        "{\n  \"mcpServers\": {},\n  \"mcp\": {}\n}\n",
        "\u{feff}{\"a\": 1}",
        "{\r\n\t\"a\": {\"b\": [1,2]},\r\n\t\"mcpServers\": {\r\n\t\t\"x\": {\"command\": \"x\"}\r\n\t}\r\n}",
    ];
    let commented = ["{\n  // a\n  \"mcpServers\": {\n    \"x\": 1 // one\n  }\n  /* end */\n}\n"];
    let trailing = ["{\n  \"mcp\": {\n    \"x\": {\"enabled\": true,}, // one\n  },\n}\n", "{ // nothing yet\n}\n"];
    let toml = [
        "",
        "\n",
        "a = 1",
        "# c\r\na = 1\r\n\r\n[mcp_servers.x]\r\ncommand = 'x'\r\n[f]\r\ny=2\r\n",
        "\u{feff}a = 1\n",
    ];
    for (client, file) in FILES {
        let texts = match client {
            "codex" => toml.to_vec(),
            "claude" => json.to_vec(),
            "gemini" => [&json[..], &commented].concat(),
            _ => [&json[..], &commented, &trailing].concat(),
        };
        for before in texts {
            let home = Home::new();
            home.write(file, before);
            assert_eq!(home.setup(&[client])["status"], "changed", "{client} {before:?}");
            let after = home.read(file);
            assert!(after.contains("orchestrator-boss") && after != before, "{after}");
            assert_eq!(home.setup(&[client])["status"], "already", "{client} {after}");
            assert_eq!(home.read(file), after);
            home.setup(&[client, "--remove"]);
            // jsonc-parser writes an object on one line again on several lines.
            let is_one_line = before.contains(':') && !before.contains('\n');
            let compact = |text: &str| text.split_whitespace().collect::<String>();
            let (given_back, before) = (home.read(file), before.to_owned());
            if is_one_line && file.contains("json") {
                assert_eq!(compact(&given_back), compact(&before), "{client} through {after}");
            } else {
                assert_eq!(given_back, before, "{client} through {after}");
            }
            assert_eq!(home.setup(&[client, "--remove"])["status"], "already");
        }
    }
}

#[test]
fn removal_deletes_only_created_files() {
    for client in ["claude", "codex", "gemini", "opencode"] {
        for scope in ["user", "project"] {
            let home = Home::new();
            let before = home.files();
            let made = home.setup(&[client, "--scope", scope, "--skill", "--allow-tools"]);
            let made = made["files"].as_array().expect("a list").len();
            assert_eq!(home.files().len(), before.len() + made + 1, "and a receipt: {:?}", home.files());
            home.setup(&[client, "--scope", scope, "--skill", "--remove"]);
            assert_eq!(home.files(), before, "{client} {scope}");
        }
    }
}

#[test]
fn removal_names_remaining_registrations() {
    let home = Home::new();
    let text = |arguments: &[&str]| String::from_utf8_lossy(&home.run(arguments).stdout).into_owned();
    home.setup(&["claude"]);
    home.setup(&["claude", "--scope", "project"]);
    let removed = text(&["setup", "claude", "--scope", "project", "--remove"]);
    assert!(
        removed.contains("still starts this server, through the entry in") && removed.contains(".claude.json"),
        "{removed}"
    );
    assert!(!removed.contains("any more"), "{removed}");
    let name = "orchestrator-boss@somewhere";
    home.write(".claude/settings.json", &format!("{{\"enabledPlugins\": {{\"{name}\": true}}}}"));
    home.write(".claude/plugins/installed_plugins.json", &format!("{{\"plugins\": {{\"{name}\": [{{}}]}}}}"));
    let removed = text(&["setup", "claude", "--remove"]);
    assert!(removed.contains("the plugin (claude plugin disable orchestrator-boss@somewhere)"), "{removed}");
    assert!(!removed.contains("any more"), "{removed}");
    let set_up = text(&["setup", "claude"]);
    assert!(set_up.contains("also starts this server through the plugin") && set_up.contains("twice"), "{set_up}");
    fs::remove_file(home.path(".claude/settings.json")).expect("a created file");
    assert!(text(&["setup", "claude", "--remove"]).contains("no longer starts this server"));
}

#[test]
fn option_without_effect_is_noted() {
    let home = Home::new();
    let notes = |client: &str| home.setup(&[client, "--allow-tools", "--dry-run"])["notes"].to_string();
    assert!(notes("codex").contains("--allow-tools has no effect for Codex"));
    assert!(!notes("gemini").contains("--allow-tools"));
}

#[test]
fn claude_may_call_read_only_tools() {
    let home = Home::new();
    let before = home.files();
    let rules = || home.json(".claude/settings.json")["permissions"]["allow"].clone();
    home.write(
        ".claude/settings.json",
        "{\"permissions\": {\"allow\": [\"mcp__orchestrator-boss__get_worker_status\"]}}",
    );
    home.setup(&["claude"]);
    let reading = rules();
    let names: Vec<&str> = reading.as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert!(names.contains(&"mcp__orchestrator-boss__wait_for_any_worker"), "{names:?}");
    let reads = |name: &&str| ["wait_", "get_", "list_"].iter().any(|verb| name.contains(&format!("boss__{verb}")));
    assert!(names.len() == 5 && names.iter().all(reads), "{names:?}");
    assert_eq!(home.setup(&["claude"])["status"], "already");

    home.setup(&["claude", "--allow-tools"]);
    assert_eq!(rules().as_array().expect("a list").last().expect("a rule"), "mcp__orchestrator-boss");
    assert_eq!(home.setup(&["claude"])["status"], "already");
    home.setup(&["claude", "--remove"]);
    assert_eq!(rules(), serde_json::json!(["mcp__orchestrator-boss__get_worker_status"]), "the user's own stays");
    home.setup(&["claude", "--remove", "--allow-tools"]);
    assert_eq!(rules(), serde_json::json!([]));
    fs::remove_file(home.path(".claude/settings.json")).expect("a file");
    fs::remove_dir(home.path(".claude")).expect("an empty folder");
    assert_eq!(home.files(), before);
}

#[test]
fn rule_of_an_older_version_is_removed() {
    let home = Home::new();
    home.setup(&["claude", "--allow-tools"]);
    let record = ".local/state/orchestrator-boss/setup.json";
    let mut older = home.json(record);
    for file in older["files"].as_object_mut().expect("an object").values_mut() {
        let added = file.as_object_mut().and_then(|file| file.remove("rules")).expect("the rules");
        file["rule"] = (added != serde_json::json!([])).into();
    }
    let older = older.to_string();
    assert!(older.contains("\"rule\":true"), "{older}");
    home.write(record, &older);
    home.setup(&["claude", "--remove"]);
    assert!(!home.path(".claude/settings.json").exists());
}

#[test]
fn limits_go_to_the_settings_file() {
    let home = Home::new();
    let file = ".config/orchestrator-boss/config.toml";
    home.setup(&["codex", "--max-cost-usd", "2.5"]);
    assert_eq!(home.read(file), "[boss]\nmax_cost_usd = 2.5\n");
    home.write(file, "# mine\nmax_workers = 9 # many\n");
    home.setup(&["codex", "--max-workers", "3", "--max-cost-usd", "5"]);
    assert_eq!(home.read(file), "# mine\nmax_workers = 3 # many\n\n[boss]\nmax_cost_usd = 5.0\n");
    assert_eq!(home.setup(&["codex", "--max-workers", "3"])["status"], "already");
    home.setup(&["codex", "--remove"]);
    assert!(home.read(file).contains("max_workers = 3"));

    let amounts = ["-1", "-0.5", "nan", "-nan", "inf", "-inf", "-infinity", "1e400", "0", "-0", "x"];
    let amounts = amounts.map(|wrong| ("--max-cost-usd", wrong, ": give an amount of US dollars above 0"));
    let workers = ["0", "-1", "x"].map(|wrong| ("--max-workers", wrong, ": "));
    for (option, wrong, says) in amounts.into_iter().chain(workers) {
        let before = home.files();
        let refused = home.run(&["setup", "codex", option, wrong]);
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{wrong}: {error}");
        assert!(error.contains(&format!("invalid value '{wrong}' for '{option}")), "{error}");
        assert!(error.contains(says) && !error.contains("tip:"), "{error}");
        assert_eq!(home.files(), before, "{option} {wrong}");
    }
}

#[test]
fn without_a_receipt_only_the_entry_is_removed() {
    let home = Home::new();
    home.setup(&["gemini"]);
    fs::remove_dir_all(home.path(".local")).expect("a created file");
    home.setup(&["gemini", "--remove"]);
    assert_eq!(home.read(".gemini/settings.json"), "{\n  \"mcpServers\": {}\n}\n");
}

#[test]
fn later_additions_by_others_stay() {
    let home = Home::new();
    home.setup(&["claude", "--allow-tools"]);
    let rules = home.read(".claude/settings.json").replace("[", "[\"Bash(ls)\", ");
    home.write(".claude/settings.json", &rules);
    home.setup(&["claude", "--remove"]);
    assert_eq!(home.json(".claude/settings.json")["permissions"]["allow"], serde_json::json!(["Bash(ls)"]));

    home.setup(&["codex"]);
    home.write(
        ".codex/config.toml",
        &format!("model = 'm' # mine\n{}\n[mcp_servers.other]\n", home.read(".codex/config.toml")),
    );
    home.setup(&["codex", "--remove"]);
    assert_eq!(home.read(".codex/config.toml"), "model = 'm' # mine\n\n[mcp_servers.other]\n");
}

#[test]
fn dry_run_shows_the_changes_and_makes_none() {
    let home = Home::new();
    let before = home.files();
    let shown = home.run(&["setup", "codex", "--dry-run"]);
    assert!(shown.status.success());
    assert_eq!(home.files(), before);
    let done = home.run(&["setup", "codex"]);
    let diff = |output: &std::process::Output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().filter(|line| line.starts_with(['+', '-', '@', ' '])).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(diff(&shown), diff(&done));
    let added: String =
        diff(&done).iter().skip(2).filter_map(|line| line.strip_prefix('+')).map(|line| format!("{line}\n")).collect();
    assert_eq!(added, home.read(".codex/config.toml"));
}

#[test]
fn links_and_modes_are_kept() {
    let home = Home::new();
    home.write("dotfiles/gemini.json", "{}");
    fs::set_permissions(home.path("dotfiles/gemini.json"), fs::Permissions::from_mode(0o640)).expect("ours");
    fs::create_dir(home.path(".gemini")).expect("a new folder");
    symlink("../dotfiles/gemini.json", home.path(".gemini/settings.json")).expect("a new link");
    home.setup(&["gemini"]);
    assert!(home.path(".gemini/settings.json").is_symlink());
    assert!(home.read("dotfiles/gemini.json").contains("orchestrator-boss"));
    let mode = |file: &str| fs::metadata(home.path(file)).expect("an existing path").permissions().mode() & 0o777;
    assert_eq!(mode("dotfiles/gemini.json"), 0o640);
    home.setup(&["gemini", "--remove"]);
    assert_eq!(home.read("dotfiles/gemini.json"), "{}");

    // A link that leads to nothing yet.
    fs::create_dir(home.path(".codex")).expect("a new folder");
    symlink(home.path("dotfiles/codex.toml"), home.path(".codex/config.toml")).expect("a new link");
    home.setup(&["codex"]);
    assert!(home.path(".codex/config.toml").is_symlink());
    assert_eq!(mode("dotfiles/codex.toml"), 0o600, "the user's own settings hold secrets");
}

#[test]
fn damaged_file_is_refused_with_its_position() {
    for (client, file, text, place) in [
        ("claude", ".claude.json", "{\n  // none here\n}", "line 2, column 3"),
        ("codex", ".codex/config.toml", "a = 1\nb = = 2\n", "line 2, column 5"),
        ("gemini", ".gemini/settings.json", "{\n  \"a\": 1,\n}", "line 2"),
        ("opencode", ".config/opencode/opencode.json", "{\"mcp\": []}", "line 1, column 2"),
    ] {
        for more in [&[][..], &["--remove"]] {
            let home = Home::new();
            home.write(file, text);
            let output = home.run(&[&["setup", client], more].concat());
            // A damaged file cannot have an entry, so removal succeeds.
            if client == "opencode" && !more.is_empty() {
                continue;
            }
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success() && error.contains(place) && error.contains(file), "{error}");
            assert_eq!(home.read(file), text);
        }
    }
}

#[test]
fn unwritable_file_is_reported() {
    let home = Home::new();
    home.write(".codex", "a file where the folder should be");
    let output = home.run(&["setup", "codex"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains(".codex/config.toml"), "{error}");
}

#[test]
fn unknown_names_list_known_ones() {
    let home = Home::new();
    for (arguments, known) in [
        (["setup", "cursor"].to_vec(), "claude, codex, gemini, opencode"),
        (["setup", "claude", "--scope", "local"].to_vec(), "user, project"),
    ] {
        let output = home.run(&arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        let words = error.replace("- ", "");
        assert!(!output.status.success(), "{error}");
        for name in known.split(", ") {
            assert!(words.contains(name), "{error}");
        }
    }
}

#[test]
fn skill_changed_by_the_user_is_kept() {
    let home = Home::new();
    let file = ".agents/skills/orchestrator-boss/SKILL.md";
    home.setup(&["gemini", "--skill"]);
    let skill = home.read(file);
    home.write(file, &(skill.clone() + "\nMine.\n"));
    for remove in [&[][..], &["--remove"]] {
        let output = home.run(&[&["setup", "gemini", "--skill"], remove].concat());
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains("--force"));
        assert!(home.read(file).ends_with("Mine.\n"));
    }
    home.setup(&["gemini", "--skill", "--force"]);
    assert_eq!(home.read(file), skill);
}

#[test]
fn options_are_passed_to_the_server() {
    let home = Home::new();
    home.setup(&["claude", "--state-dir", "state"]);
    let state = home.path("project/state").display().to_string();
    assert_eq!(
        home.json(".claude.json")["mcpServers"]["orchestrator-boss"]["args"],
        serde_json::json!(["--state-dir", state])
    );
    home.setup(&["claude"]);
    assert_eq!(
        home.json(".claude.json")["mcpServers"]["orchestrator-boss"]["args"][1],
        state,
        "the user's arguments stay"
    );
    home.write("project/c.toml", "max_workers = 2\n");
    home.setup(&["opencode", "--config", "c.toml"]);
    let command = home.json(".config/opencode/opencode.json")["mcp"]["orchestrator-boss"]["command"].take();
    let named = home.path("project/c.toml").display().to_string();
    assert_eq!(command.as_array().expect("a list")[1..], ["--config".to_owned(), named]);
}

#[test]
fn options_that_prevent_a_start_are_refused() {
    let home = Home::new();
    home.write("broken.toml", "max_worker = 3\n");
    home.write("a-file", "");
    let before = home.files();
    for (option, value, why) in [
        ("--config", "missing.toml", "cannot read the settings file missing.toml"),
        ("--config", "..", "cannot read the settings file"),
        ("--config", "../broken.toml", "did you mean max_workers?"),
        ("--state-dir", "../a-file", "is not a folder"),
    ] {
        for client in ["claude", "codex", "gemini", "opencode"] {
            let output = home.run(&["setup", client, option, value]);
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.code() == Some(1) && error.contains(why), "{client} {value}: {error}");
            assert_eq!(home.files(), before);
        }
    }
    // Removal needs no readable settings file.
    assert!(home.run(&["setup", "codex", "--remove", "--config", "missing.toml"]).status.success());
}

#[test]
fn local_paths_in_a_shared_file_are_noted() {
    let mut home = Home::new();
    home.write("c.toml", "");
    let notes = |home: &Home, arguments: &[&str]| home.setup(arguments)["notes"].to_string();
    fs::create_dir(home.path("bin")).expect("a new folder");
    symlink(env!("CARGO_BIN_EXE_orchestrator-boss"), home.path("bin/orchestrator-boss")).expect("a new link");
    home.search_path = home.path("bin").display().to_string();
    for client in ["claude", "codex", "gemini", "opencode"] {
        let notes_shown = notes(&home, &[client, "--scope", "project"]);
        assert!(!notes_shown.contains("paths of this machine"), "{client}: {notes_shown}");
        let notes_shown = notes(&home, &[client, "--scope", "project", "--config", "../c.toml"]);
        assert!(
            notes_shown.contains("paths of this machine") && notes_shown.contains("c.toml"),
            "{client}: {notes_shown}"
        );
        assert!(!notes(&home, &[client, "--config", "../c.toml"]).contains("paths of this machine"));
    }
}

#[test]
fn entry_names_the_link_not_its_target() {
    let mut home = Home::new();
    let program = |home: &Home, scope: &str, file: &str| {
        home.setup(&["gemini", "--scope", scope]);
        home.json(file)["mcpServers"]["orchestrator-boss"]["command"].take()
    };
    let real = env!("CARGO_BIN_EXE_orchestrator-boss");
    assert_eq!(program(&home, "user", ".gemini/settings.json"), real, "it is not on the PATH");
    fs::create_dir(home.path("bin")).expect("a new folder");
    symlink(real, home.path("bin/orchestrator-boss")).expect("a new link");
    home.search_path = format!("{}:{}", home.path("bin").display(), home.search_path);
    let entry = Value::from(home.path("bin/orchestrator-boss").display().to_string());
    assert_eq!(program(&home, "user", ".gemini/settings.json"), entry);
    assert_eq!(
        program(&home, "project", "project/.gemini/settings.json"),
        "orchestrator-boss",
        "others have it elsewhere"
    );
}

#[test]
fn set_keys_are_named_and_never_written() {
    let mut home = Home::new();
    home.variables.push(("OPENAI_API_KEY", "secret-value"));
    home.variables.push(("CLAUDE_CONFIG_DIR", "/elsewhere"));
    home.setup(&["gemini"]);
    home.setup(&["codex"]);
    let (gemini, codex) = (home.read(".gemini/settings.json"), home.read(".codex/config.toml"));
    assert!(gemini.contains("\"OPENAI_API_KEY\": \"$OPENAI_API_KEY\"") && !gemini.contains("ANTHROPIC"), "{gemini}");
    for name in ["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "CLAUDE_CONFIG_DIR"] {
        assert!(codex.contains(&format!("\"{name}\"")), "{codex}");
    }
    assert!(!codex.contains("CODEX_HOME"), "it is not set: {codex}");
    assert!(!(gemini + &codex).contains("secret-value"));
}

#[test]
fn changes_by_claude_code_are_verified() {
    let mut home = Home::new();
    let old = "{\"mcpServers\": {\"orchestrator-boss\": {\"command\": \"/old\"}}}";
    home.write(".claude.json", old);
    home.search_path = home.path("bin").display().to_string();
    let with_claude = |home: &Home, end: &str| {
        home.install("bin/claude", &format!("#!/bin/sh\necho \"$*\" >> \"$HOME/asked\"\n{end}\n"));
        let output = home.run(&["setup", "claude"]);
        assert!(!output.status.success());
        assert_eq!(home.read(".claude.json"), old, "setup itself does not write it");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let output = with_claude(&home, "exit 0");
    assert!(output.contains("succeeded, but") && output.contains(".claude.json"), "{output}");

    fs::remove_file(home.path("asked")).expect("a call of the client");
    let output = with_claude(&home, "[ \"$2\" = remove ] || { echo no room >&2; exit 3; }");
    assert!(output.contains("no room"), "{output}");
    let asked = home.read("asked");
    let asked: Vec<&str> = asked.lines().collect();
    assert_eq!(asked[0], "mcp remove orchestrator-boss -s user");
    assert!(asked[1].starts_with("mcp add-json orchestrator-boss {") && !asked[1].contains("/old"));
    assert!(asked[2].contains("/old"), "the old entry is kept");
}
