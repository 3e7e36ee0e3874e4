//! `config` creates the settings file once, shows where each setting comes from, and places errors in the file.

use std::fs;
use std::process::Command;

use crate::support::sandbox::PROGRAM;
use crate::world::*;

/// Returns a command without `--config`.
fn config(world: &World, args: &[&str]) -> Command {
    let mut command = world.bare_command(PROGRAM);
    command.arg("config").args(args);
    command
}

fn run(mut command: Command) -> Ran {
    Ran::of(command.output().unwrap())
}

#[test]
fn init_writes_settings_once_and_prints_the_path() {
    let world = World::new();
    let path = world.path(".config/orchestrator-boss/config.toml");
    let said = run(config(&world, &["init"])).ended(0);
    assert_eq!(said, format!("{}\n", path.display()));
    let written = fs::read_to_string(&path).unwrap();
    for setting in ["# max_workers = ", "# [boss]", "# max_cost_usd = ", "# max_tokens = ", "# integration_branch = "] {
        assert!(written.contains(setting), "{setting} in\n{written}");
    }
    assert_eq!(run(config(&world, &["check"])).ended(0), format!("{}: no errors\n", path.display()));
    fs::write(&path, "max_workers = 7\n").unwrap();
    let ran = run(config(&world, &["init"]));
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("it exists already") && ran.stderr.contains("--force"), "{ran:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "max_workers = 7\n");
    run(config(&world, &["init", "--force"])).ended(0);
    assert_eq!(fs::read_to_string(&path).unwrap(), written);
}

#[test]
fn show_names_the_source_of_each_setting() {
    let world = World::new();
    let path = world.path("mine.toml");
    let custom = "[[custom]]\nname = \"mine\"\nprogram = \"x\"\nenv = { KEY = \"secret\" }\n";
    fs::write(&path, format!("stall_minutes = 5\nmax_workers = 3\n[boss]\nmax_tokens = 9\n{custom}")).unwrap();
    let show = |args: &[&str]| {
        let mut command = config(&world, &[&["show", "--config", path.to_str().unwrap()][..], args].concat());
        run({
            command.env("ORCHESTRATOR_MAX_WORKERS", "5");
            command
        })
    };
    let said = show(&[]).ended(0);
    let line = |name: &str| {
        let line = said.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("{name} in\n{said}")).split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    assert!(said.starts_with(&format!("file: {}\n", path.display())), "{said}");
    assert_eq!(line("max_workers"), "5 (ORCHESTRATOR_MAX_WORKERS)");
    assert_eq!(line("stall_minutes"), "5.0 (file)");
    assert_eq!(line("boss.max_tokens"), "9 (file)");
    assert_eq!(line("boss.max_cost_usd"), "not set (default)");
    assert_eq!(line("branch_prefix"), "\"orchestrator/\" (default)");
    let ran = show(&["--json", "--state-dir", "/elsewhere"]);
    assert!(!ran.stdout.contains("secret"), "{ran:?}");
    let json = ran.json();
    let setting = |name: &str| {
        let all = json["settings"].as_array().unwrap();
        all.iter().find(|it| it["name"] == name).unwrap_or_else(|| panic!("{name} in {json:#}")).clone()
    };
    assert_eq!(setting("max_workers")["source"], "environment");
    assert_eq!(
        (&setting("state_dir")["value"], &setting("state_dir")["set_by"]),
        (&"/elsewhere".into(), &"--state-dir".into())
    );
    let absent = run(config(&world, &["show"])).ended(0);
    assert!(absent.contains("does not exist; `orchestrator-boss config init`"), "{absent}");
}

#[test]
fn check_places_the_error_and_suggests_the_name() {
    let world = World::new();
    let path = world.path("mine.toml");
    let file = path.to_str().unwrap();
    for (text, says) in [
        ("max_depth = 1\nmax_worker = 6", ":2:1: there is no setting \"max_worker\" here; did you mean max_workers?"),
        ("max_workers = \"6\"", ":1:15: "),
        (
            "[[custom]]\nname = \"a\"\nprogram = \"x\"\n[[custom]]\nname = \"a\"\nprogram = \"y\"",
            ":5:1: two [[custom]] have the name \"a\"; choose another name",
        ),
        (
            "max_depth = 1\n[repositories.\"rel/x\"]",
            ":2:1: [repositories.\"rel/x\"] names neither an absolute path nor a URL; give ",
        ),
        ("[boss]\nmax_cost_usd = -1.0", ":2:1: [boss] max_cost_usd = -1 is not an amount; give an amount"),
    ] {
        fs::write(&path, text).unwrap();
        let said = run(config(&world, &["check", file])).ended(1);
        assert!(said.starts_with(&format!("{file}{says}")), "{says} in {said}");
        assert_eq!(run(config(&world, &["check", "--config", file])).ended(1), said);
    }
    let ran = run(config(&world, &["check", file, "--json"]));
    let json = ran.json();
    assert_eq!((ran.code, &json["ok"], &json["line"], &json["column"]), (Some(1), &false.into(), &2.into(), &1.into()));
    let missing = run(config(&world, &["check", "/no/such/file"])).ended(1);
    assert!(missing.contains("/no/such/file: cannot read it"), "{missing}");
    assert!(run(config(&world, &["check"])).ended(0).contains("does not exist: the defaults apply"));
    let mut misspelt = config(&world, &["check", "--config", world.settings_file().to_str().unwrap()]);
    misspelt.env("ORCHESTRATOR_MAX_WORKER", "3");
    assert!(run(misspelt).ended(1).contains("did you mean ORCHESTRATOR_MAX_WORKERS"));
}

#[test]
fn broken_settings_file_leaves_a_way_to_act() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("run", "wait-file ../../repo/go"));
    until_status(&mut boss, &worker, "running");
    let file = world.path(".config/orchestrator-boss/config.toml");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, "max_worker = 6\n").unwrap();
    let run = |args: &[&str]| Ran::of(world.bare_command(PROGRAM).args(args).output().unwrap());
    let way_out = "`--config /dev/null` runs this command without the file";
    let commands: [&[&str]; 5] =
        [&["status"], &["logs", &worker], &["path", &worker], &["wait", "--timeout", "0"], &["cancel", &worker]];
    for command in commands {
        let ran = run(command);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.stderr.contains("did you mean max_workers?") && ran.stderr.contains(way_out), "{ran:?}");
        let ran = run(&[command, &["--config", "/dev/null"]].concat());
        assert!(!ran.stderr.contains("error"), "{command:?}: {ran:?}");
    }
    until_status(&mut boss, &worker, "cancelled");
    fs::write(&file, "").unwrap();
    let mut misspelt = world.bare_command(PROGRAM);
    let ran = Ran::of(misspelt.arg("status").env("ORCHESTRATOR_MAX_WORKER", "3").output().unwrap());
    assert!(ran.code == Some(1) && !ran.stderr.contains("/dev/null"), "the file is not at fault: {ran:?}");
    // The server has no such option to offer: its client decides how it starts.
    fs::write(&file, "max_worker = 6\n").unwrap();
    let said = run(&["config", "check"]).ended(1);
    assert!(!said.contains("/dev/null"), "{said}");
}

#[test]
fn amount_in_a_variable_is_refused_as_an_amount() {
    let world = World::new();
    for (value, is_refused) in [("nan", true), ("inf", true), ("abc", true), ("-1", true), ("0.5", false)] {
        let mut command = config(&world, &["show"]);
        let ran = run({
            command.env("ORCHESTRATOR_BOSS_MAX_COST_USD", value);
            command
        });
        let said = "it is not an amount; unset it, or give an amount of US dollars";
        assert_eq!((ran.code == Some(1), ran.stderr.contains(said)), (is_refused, is_refused), "{ran:?}");
    }
}

#[test]
fn schema_is_written_and_updated_only_if_ours() {
    let world = World::new();
    let folder = world.path(".config/orchestrator-boss");
    let (path, schema) = (folder.join("config.toml"), folder.join("config.schema.json"));
    let ran = run(config(&world, &["init"]));
    assert!(ran.stderr.contains(&format!("{}: created", schema.display())), "{ran:?}");
    assert!(fs::read_to_string(&path).unwrap().starts_with("#:schema ./config.schema.json\n"));
    let current = fs::read_to_string(&schema).unwrap();
    assert_eq!(run(config(&world, &["schema"])).ended(0), current);

    let older = current.replace("\"max_depth\"", "\"max_levels\"");
    fs::write(&schema, &older).unwrap();
    let said = run(config(&world, &["check"])).ended(0);
    assert!(said.ends_with(&format!("{}: updated to the settings of this version\n", schema.display())), "{said}");
    assert_eq!(fs::read_to_string(&schema).unwrap(), current);

    for others in ["{\"title\": \"mine\"}", "no JSON", ""] {
        fs::write(&schema, others).unwrap();
        let json = run(config(&world, &["check", "--json"])).json();
        assert_eq!((&json["ok"], &json["schema"]["state"]), (&true.into(), &"not_ours".into()), "{json:#}");
        let ran = run(config(&world, &["init", "--force"]));
        assert!(ran.stderr.contains("left unchanged"), "{ran:?}");
        assert_eq!(fs::read_to_string(&schema).unwrap(), others);
        let written = fs::read_to_string(&path).unwrap();
        assert!(!written.contains("#:schema"), "editors would check it against another schema: {written}");
        fs::write(&path, format!("#:schema ./config.schema.json\n{written}")).unwrap();
    }
    fs::remove_file(&schema).unwrap();
    let said = run(config(&world, &["check"])).ended(0);
    assert!(said.contains("config schema > "), "{said}");
    assert!(!schema.exists(), "`check` creates no file");
    fs::write(&path, "max_workers = 2\n").unwrap();
    fs::write(&schema, &older).unwrap();
    assert_eq!(run(config(&world, &["check"])).ended(0), format!("{}: no errors\n", path.display()));
    assert_eq!(fs::read_to_string(&schema).unwrap(), older, "the settings do not name it");
}

#[test]
fn profiles_are_shown_and_checked() {
    let world = World::new();
    let path = world.path("mine.toml");
    let file = path.to_str().unwrap();
    fs::write(&path, "[profiles.cheap]\nbackend = \"codex\"\nmax_attempts = 2\n").unwrap();
    let said = run(config(&world, &["show", "--config", file])).ended(0);
    let rows: Vec<String> = said
        .lines()
        .filter(|line| line.starts_with("profiles."))
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(rows, ["profiles.cheap.backend \"codex\" (file)", "profiles.cheap.max_attempts 2 (file)"]);
    fs::write(&path, "[profiles.cheap]\nbackend = \"codex\"\nmax_attempts = 0\n").unwrap();
    let said = run(config(&world, &["check", file])).ended(1);
    let says = ":3:1: cannot use [profiles.cheap]: max_attempts is 0: it must be from 1 to 20";
    assert!(said.starts_with(&format!("{file}{says}")), "{said}");
}
