use super::*;
use crate::mission::hint::with_hints;

fn refused(text: &str) -> String {
    with_hints(&Settings::parse(text).unwrap_err())
}

#[test]
fn invalid_value_is_refused_with_a_fix() {
    for (text, said) in [
        ("stall_minutes = -1", "0 for never"),
        ("stall_minutes = nan", "0 for never"),
        ("question_minutes = -1", "0 for never"),
        ("questions = \"always\"", "allow-in-worktree"),
        ("setup_timeout_minutes = -1", "number of minutes"),
        ("seed = ['../cache']", "a path in the main worktree"),
        ("seed = ['/cache']", "a path in the main worktree"),
        ("[repositories.\"/r\"]\nseed = ['']", "a path in the main worktree"),
        ("seed = ['.git']", "outside .git"),
        ("seed = ['cache', './.git/hooks']", "outside .git"),
        ("seed = ['.GIT/info']", "outside .git"),
        ("seed = ['sub/.git']", "outside .git"),
        ("seed = ['cache/../../x']", "a path in the main worktree"),
        ("prune = ['../target']", "the name of a folder"),
        ("prune = ['target', '/tmp']", "the name of a folder"),
        ("prune = ['.']", "the name of a folder"),
        ("[repositories.\"/r\"]\nsetup_timeout_minutes = nan", "number of minutes"),
        ("[repositories.\"/r\"]\nsetup_cmd = 'x'", "did you mean setup_command?"),
        ("integration_branch = ''", "name a branch, or leave it out"),
        ("integration_branch = 'refs/heads/'", "name a branch, or leave it out"),
        ("commit_name = \"A\"", "give both"),
        ("[boss]\nmax_cost_usd = -1.0", "US dollars"),
        ("[boss]\nmax_cost = 1.0", "max_cost_usd"),
        ("on_stall = \"kill\"", "resume"),
        ("max_workers = \"6\"", "expected a whole number"),
        ("stall_minutes = 'x'", "expected a number"),
        ("worktree_roots = '/x'", "expected a list"),
    ] {
        let error = refused(text);
        assert!(error.contains(said), "{error}");
    }
    let settings = Settings::parse("stall_minutes = 15\n[boss]\nmax_cost_usd = 5").unwrap();
    assert_eq!(settings.stall_after(), Some(Duration::from_secs(900)));
    assert_eq!(settings.boss.max_cost_usd, Some(5.0));
    let full = Settings::parse("integration_branch = 'refs/heads/main'").unwrap();
    assert_eq!(full.integration_branch.as_deref(), Some("main"));
    assert_eq!(Settings::parse("stall_minutes = 0").unwrap().stall_after(), None);
}

#[test]
fn templates_with_unknown_placeholders_are_refused() {
    for (text, said) in [
        ("prompt_frame = 'Be nice.'", "prompt_frame has no {prompt}"),
        ("prompt_frame = '{prompts}'", "there is no {prompts} in prompt_frame; did you mean {prompt}?"),
        ("prompt_frame = '{prompt}, then {verify_command}'", "give {prompt} a line of its own"),
        ("worktrees_dir = '../{repo}'", "there is no {repo} in worktrees_dir; did you mean {repository}?"),
        ("commit_message = '{titel} x'", "there is no {titel} in commit_message; did you mean {title}?"),
    ] {
        let error = refused(text);
        assert!(error.contains(said), "{text}: {error}");
    }
    for text in [
        "worktrees_dir = '../{repository}.{id}'",
        "commit_message = 'feat({scope}): {title} {worker_id} {} {not a name}'",
        "prompt_frame = \"{prompt} in {directory}\\n{branch} ${HOME} {\\\"json\\\": {}}\"",
    ] {
        assert!(Settings::parse(text).is_ok(), "{text}: {:?}", Settings::parse(text));
    }
}

#[test]
fn misspelt_setting_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    std::fs::write(&path, "max_worker = 3\n").unwrap();
    let error = with_hints(&Settings::load(Some(&path)).unwrap_err());
    assert!(error.ends_with("line 1: there is no setting \"max_worker\" here; did you mean max_workers?"), "{error}");
}

#[test]
fn unknown_name_suggests_the_intended_one() {
    for (text, said) in [
        ("\nmax_worker = 3", "line 2: there is no setting \"max_worker\" here; did you mean max_workers?"),
        ("[boss]\nmax_cost = 1.0", "line 2: there is no setting \"max_cost\" here; did you mean max_cost_usd?"),
        ("[backends.codex]\nmodels = 'x'", "did you mean model?"),
        ("[[custom]]\nname = 'a'\nprogram = 'a'\narguments = []", "there is no setting \"arguments\" here"),
        ("[[custom]]\nname = 'a'\nprogram = 'a'\nresume_arg = []", "did you mean resume_args?"),
        ("[boss]\nmax_tokens = 1\nwait_seconds = 3", "put wait_seconds above the first [section]"),
        ("max_cost_usd = 3", "put max_cost_usd below [boss]"),
        ("partition = 'cpu'", "put partition below [launchers.NAME]"),
        ("[launcher.a]\nkind = 'slurm'", "did you mean launchers?"),
        ("[backend.codex]", "did you mean backends?"),
        ("[backends.codx]\nprogram = 'x'", "did you mean [backends.codex]?"),
        ("[backends.claude]\nprogram = 'x'", "did you mean [backends.claudecode]?"),
        (
            "colour = true",
            "there is no setting \"colour\" here; run `orchestrator-boss help settings` for all settings",
        ),
    ] {
        let error = refused(text);
        assert!(error.contains(said) && !error.contains("expected one of"), "{text}: {error}");
    }
}

#[test]
fn profile_refuses_what_no_mission_could_have() {
    for (text, said) in [
        ("timeout_minutes = 0", "cannot use [profiles.a]: timeout_minutes is 0: it must be from 1 to 10080"),
        ("max_attempts = 21", "it must be from 1 to 20"),
        ("max_cost_usd = 0.0", "it must be more than 0"),
        ("max_tokens = -1", "invalid value"),
        ("max_tokens = 'x'", "expected a whole number"),
        ("permissions = 'root'", "expected one of `read_only`, `edit`, `full`"),
        ("permissions = 'full'", "set `allow_full_permissions`"),
        ("backend = 'codx'", "there are only claudecode, codex, gemini, opencode, "),
        ("fallback_backends = ['codx']", "there are only claudecode, codex, gemini, opencode, "),
        ("backend = 'codex'\nmax_cost_usd = 1.0", "cannot limit the cost of \"codex\""),
        ("title = 'x'", "line 2: a profile cannot set \"title\": each mission has its own; give it in each mission"),
        ("worktree = {}", "no two missions can work in one place"),
        ("context_from = []", "it names other workers"),
        ("timeout_minute = 3", "did you mean timeout_minutes?"),
        ("model = 'x'", "did you mean model_override?"),
        ("effort = 'low'", "did you mean model_effort?"),
        ("verify = 'x'", "did you mean verify_command?"),
    ] {
        let error = refused(&format!("[profiles.a]\n{text}"));
        assert!(error.contains(said), "{text}: {error}");
    }
    assert!(refused("[profiles.'a b']").contains("only letters, digits, hyphens and underscores"));
    assert!(refused("model_override = 'x'").contains("put model_override below [profiles.NAME]"));
    let text = "allow_full_permissions = true\n[profiles.a]\npermissions = 'full'\nmodel_override = ' opus '\n\
                [profiles.mine]\nbackend = 'mine'\n[[custom]]\nname = 'mine'\nprogram = 'x'";
    let settings = Settings::parse(text).unwrap();
    assert_eq!(settings.profiles["a"].model_override.as_deref(), Some("opus"));
    assert_eq!(settings.profile("mine").unwrap().backend.as_deref(), Some("mine"));
    assert_eq!(with_hints(&settings.profile("main").unwrap_err()).split("; ").last(), Some("did you mean mine?"));
    let none = Settings::default().profile("a").unwrap_err();
    assert_eq!(
        with_hints(&none),
        "cannot use the profile \"a\": the user's settings have no profiles; leave out `profile`"
    );
}

#[test]
fn own_fields_win_over_a_profile() {
    let profile = Profile {
        backend: Some("codex".into()),
        max_attempts: Some(3),
        fallback_backends: Some(vec!["gemini".into()]),
        ..Profile::default()
    };
    let own = Profile { max_attempts: Some(1), max_tokens: Some(5), ..Profile::default() };
    let (merged, supplied) = own.completed_by(&profile);
    assert_eq!(merged, Profile { max_attempts: Some(1), max_tokens: Some(5), ..profile });
    assert_eq!(supplied, ["backend", "fallback_backends"]);
}

#[test]
fn misspelt_variable_is_refused_and_foreign_ignored() {
    let check = |name: &str| check_variables([name.to_owned()].into_iter()).map_err(|error| with_hints(&error));
    let error = check("ORCHESTRATOR_MAX_WORKER").unwrap_err();
    assert!(error.contains("did you mean ORCHESTRATOR_MAX_WORKERS"), "{error}");
    for other in ["ORCHESTRATOR_WORKER_TAG", "ORCHESTRATOR_BACKEND_ENV", "ORCHESTRATOR_URL", "ORCHESTRATOR_LOG"] {
        assert_eq!(check(other), Ok(()));
    }
    assert!(check("ORCHESTRATOR_PORT").is_ok() && check("ORCHESTRATOR_WORKER").is_ok());
    assert!(check("ORCHESTRATOR_CRASH_LOG").is_ok() && check("ORCHESTRATOR_NOTE").is_ok());
}

#[test]
fn repository_settings_win_field_by_field() {
    let text = "setup_command = 'make'\n[repositories.\"https://example.org/a/b\"]\nsetup_timeout_minutes = 2\n\
                [repositories.\"https://example.org/a/c\"]\nsetup_command = ''";
    let settings = Settings::parse(text).unwrap();
    let setup = |remote: &str| settings.setup(Path::new("/nowhere"), || vec![remote.to_owned()]);
    let expected = |command: Option<&str>, timeout_minutes| SetupSettings {
        command: command.map(str::to_owned),
        timeout_minutes,
        seed: Vec::new(),
        seed_is_own: false,
    };
    assert_eq!(setup("git@example.org:a/b.git"), expected(Some("make"), 2.0));
    assert_eq!(setup("git@example.org:a/c.git"), expected(None, 10.0));
    assert_eq!(setup("git@example.org:a/d.git"), expected(Some("make"), 10.0));
}

#[test]
fn custom_backend_is_checked_when_settings_load() {
    let error = refused("[[custom]]\nname = \"codex\"\nprogram = \"x\"\n");
    assert!(error.contains("codex"), "{error}");
}

#[test]
fn each_backend_has_its_own_settings() {
    let settings: Settings = toml::from_str("[backends.codex]\nmax_workers = 2\nprogram = \"/opt/codex\"\n").unwrap();
    assert_eq!(settings.backend("codex").max_workers, Some(2));
    assert_eq!(settings.backend("gemini"), BackendSettings::default());
}
