//! The exact command line, environment and files of every backend, for each permission, in new and resumed sessions.
//! One snapshot: each change of how a CLI is started changes its file.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use orchestrator_boss::backend::{
    Backends, CustomBackend, CustomOutput, GitDirs, LaunchPlan, PromptInput, Session, StopAction, StopSignal, Turn,
};
use orchestrator_boss::mission::hint::with_hints;
use orchestrator_boss::mission::id::{BackendName, TaskId};
use orchestrator_boss::mission::question::{QuestionPolicy, QuestionRules};
use orchestrator_boss::mission::spec::{Mission, Permissions, Place};
use uuid::Uuid;

const SESSION: Uuid = Uuid::from_u128(0x5e55);
const MESSAGE: Uuid = Uuid::from_u128(0x3e55);

#[test]
fn backends_have_the_recommended_command_lines() {
    let backends = Backends::with_custom(vec![custom(), agent()]);
    let mut text = String::new();
    for name in backends.names() {
        let backend = backends.get(name).unwrap();
        for permissions in [Permissions::ReadOnly, Permissions::Edit, Permissions::Full] {
            let mission = mission(name, permissions);
            let enforced = backend.check(&mission).map_err(|refusal| refusal.to_string());
            for session in [Session::New(SESSION), Session::Resume("ses_1")] {
                writeln!(text, "## {name} {permissions:?} {session:?}: enforced by {enforced:?}").unwrap();
                describe(&mut text, &backend.plan(&turn(&mission, session)));
            }
        }
    }
    insta::assert_snapshot!(text);
}

/// Checks the command lines of all backends. The others that ask do so by their protocol, without an argument.
#[test]
fn only_claude_code_is_started_to_ask() {
    let backends = Backends::with_custom(vec![custom(), agent()]);
    for name in backends.names() {
        for permissions in [Permissions::ReadOnly, Permissions::Edit, Permissions::Full] {
            let mission = mission(name, permissions);
            let plan = |policy| {
                let questions = QuestionRules { policy, prefix: "q1.1" };
                backends.get(name).unwrap().plan(&Turn { questions, ..turn(&mission, Session::New(SESSION)) })
            };
            let default = plan(QuestionPolicy::AllowInWorktree);
            assert_eq!(plan(QuestionPolicy::Deny), default, "{name}");
            let mut asks = plan(QuestionPolicy::Ask);
            if name == "claudecode" {
                let added = ["--permission-prompt-tool=stdio", "--disallowedTools=EnterPlanMode,ExitPlanMode"];
                asks.args.retain(|arg| !added.contains(&arg.as_str()));
                let plans = ",EnterPlanMode,ExitPlanMode";
                asks.args.iter_mut().for_each(|arg| *arg = arg.replace(plans, ""));
                assert!(plan(QuestionPolicy::Ask).args.contains(&added[0].to_owned()));
            }
            assert_eq!(asks, default, "{name}");
        }
    }
}

/// The package `acp_schema` checks this line.
#[test]
fn agents_get_the_same_first_line() {
    let backends = Backends::with_custom(vec![agent()]);
    let stdin_of = |name| {
        let mission = mission(name, Permissions::Edit);
        backends.get(name).unwrap().plan(&turn(&mission, Session::New(SESSION))).stdin
    };
    let first_line = |name| match stdin_of(name) {
        PromptInput::KeepOpen(line) if is_acp(&line) => Some(line),
        _ => None,
    };
    let mut lines: Vec<String> = backends.names().filter_map(first_line).collect();
    lines.dedup();
    assert_eq!(lines.len(), 1, "{lines:?}");
    insta::assert_snapshot!(lines[0].replace(env!("CARGO_PKG_VERSION"), "0.0.0"));
}

#[test]
fn confined_backends_have_no_sandbox_of_their_own() {
    let backends = Backends::with_custom(Vec::new());
    let args = |name, permissions| {
        let mission = mission(name, permissions);
        let confined = Turn { confined: true, ..turn(&mission, Session::New(SESSION)) };
        backends.get(name).unwrap().plan(&confined).args
    };
    for permissions in [Permissions::ReadOnly, Permissions::Edit] {
        let codex = args("codex", permissions);
        assert!(codex.contains(&"--sandbox=danger-full-access".to_owned()), "{codex:?}");
        assert!(!codex.iter().any(|arg| arg.starts_with("--add-dir") || arg.starts_with("sandbox_")), "{codex:?}");
        let claude = args("claudecode", permissions);
        assert!(claude.contains(&r#"--settings={"sandbox":{"enabled":false}}"#.to_owned()), "{claude:?}");
    }
}

#[test]
fn unset_fields_set_no_options() {
    let backends = Backends::with_custom(vec![custom()]);
    let mut text = String::new();
    for name in backends.names() {
        let mission = Mission { model: None, effort: None, max_cost_usd: None, ..mission(name, Permissions::Edit) };
        let turn = Turn {
            git: None,
            identity: None,
            own_registrations: &[],
            root: false,
            questions: QuestionRules::default(),
            confined: false,
            ..turn(&mission, Session::New(SESSION))
        };
        writeln!(text, "## {name}").unwrap();
        describe(&mut text, &backends.get(name).unwrap().plan(&turn));
    }
    insta::assert_snapshot!(text);
}

/// Records the line in full. The plans omit it, and `tests/acp_schema` checks it.
#[test]
fn tools_in_subfolder_reach_whole_worktree() {
    let backends = Backends::with_custom(Vec::new());
    let place = Place::Worktree {
        path: "/srv/tree".into(),
        branch: "work".into(),
        base: None,
        directory: Some("packages/app".into()),
    };
    let around = |name: &str, directory: &str| {
        let mission = Mission { place: place.clone(), ..mission(name, Permissions::Edit) };
        let dir = Path::new(directory);
        backends.get(name).unwrap().plan(&Turn { dir, ..turn(&mission, Session::New(SESSION)) }).args
    };
    for (name, option) in [
        ("claudecode", "--add-dir=/srv/tree"),
        ("codex", "--add-dir=/srv/tree"),
        ("gemini", "--include-directories=/srv/tree"),
    ] {
        assert!(around(name, "/srv/tree/packages/app").iter().any(|arg| arg == option), "{name}");
        // If the folder is missing, the CLI runs at the top of the worktree.
        assert!(around(name, "/srv/tree").iter().all(|arg| arg != option), "{name}");
    }
}

#[test]
fn running_turn_receives_messages_where_the_cli_can() {
    let backends = Backends::with_custom(vec![custom()]);
    let receives = |name: &str| {
        let mission = mission(name, Permissions::Edit);
        let backend = backends.get(name).unwrap();
        let mut decoder = backend.decoder(&turn(&mission, Session::New(SESSION)));
        let is_taken = decoder.message(MESSAGE, "a \"b\"\nc");
        (backend.accepts_live_messages(), is_taken, decoder.replies())
    };
    let frame = "{\"type\":\"user\",\"message\":{\"role\":\"user\",\"content\":\"a \\\"b\\\"\\nc\"},\"uuid\":\"00000000-0000-0000-0000-000000003e55\"}\n";
    assert_eq!(receives("claudecode"), (true, true, vec![frame.to_owned()]));
    for name in ["codex", "gemini", "opencode", "mine", "copilot"] {
        assert_eq!(receives(name), (false, false, Vec::new()), "{name}");
    }
    // No turn runs yet.
    for name in ["qwen", "codex-acp", "claude-agent-acp", "opencode-acp", "kilo"] {
        assert_eq!(receives(name), (true, false, Vec::new()), "{name}");
    }
}

#[test]
fn workers_inherit_no_boss_variables() {
    let backends = Backends::with_custom(vec![custom()]);
    for name in backends.names() {
        let mission = mission(name, Permissions::Edit);
        let plan = backends.get(name).unwrap().plan(&turn(&mission, Session::New(SESSION)));
        for gone in [
            "CLAUDECODE",
            "CLAUDE_CODE_SESSION_ID",
            "CLAUDE_CODE_MESSAGING_TOKEN",
            "CLAUDE_PLUGIN_ROOT",
            "AI_AGENT",
            "CODEX_THREAD_ID",
            "GEMINI_CLI",
            "OPENCODE",
            "ORCHESTRATOR_STATE_DIR",
            "GIT_DIR",
            "GIT_INDEX_FILE",
        ] {
            assert!(plan.removes(gone), "{name} keeps {gone}");
        }
        for kept in [
            "ANTHROPIC_API_KEY",
            "CLAUDE_CODE_OAUTH_TOKEN",
            "CLAUDE_CODE_USE_BEDROCK",
            "CLAUDE_CODE_USE_VERTEX",
            "CLAUDE_CONFIG_DIR",
            "CODEX_HOME",
            "CODEX_API_KEY",
            "GEMINI_API_KEY",
            "GEMINI_CLI_HOME",
            "OPENCODE_CONFIG",
            "GIT_CONFIG_COUNT",
            "GIT_SSH_COMMAND",
            "PATH",
        ] {
            assert!(!plan.removes(kept), "{name} loses {kept}");
        }
    }
}

#[test]
fn each_backend_opens_a_session_in_the_terminal() {
    let backends = Backends::with_custom(vec![custom()]);
    let arguments = |name: &str| {
        let plan = backends.get(name).unwrap().attach("ses-1", Path::new("/w")).unwrap();
        assert_eq!(plan.env_set["PWD"], "/w");
        plan.args.join(" ")
    };
    let all = ["codex", "claudecode", "gemini", "opencode", "mine"].map(arguments);
    assert_eq!(all, ["resume ses-1", "--resume=ses-1", "--resume=ses-1", "--session=ses-1", "--in=/w --id=ses-1"]);
    let without = Backends::with_custom(vec![CustomBackend { attach_args: None, ..custom() }]);
    assert_eq!(without.get("mine").unwrap().attach("ses-1", Path::new("/w")), None);
}

#[test]
fn unsupported_limits_are_refused_with_hints() {
    let backends = Backends::with_custom(vec![CustomBackend { args: Vec::new(), ..custom() }, agent()]);
    let cases = [
        ("codex", Mission { model: Some("opus".into()), ..plain("codex") }),
        ("codex", Mission { max_cost_usd: Some(1.0), ..plain("codex") }),
        ("claudecode", Mission { effort: Some("ultra".into()), ..plain("claudecode") }),
        ("gemini", Mission { effort: Some("high".into()), ..plain("gemini") }),
        ("opencode", Mission { model: Some("qwen".into()), ..plain("opencode") }),
        ("mine", Mission { model: Some("big".into()), ..plain("mine") }),
        ("mine", Mission { permissions: Permissions::ReadOnly, ..plain("mine") }),
        ("agent", Mission { permissions: Permissions::ReadOnly, ..plain("agent") }),
        ("agent", Mission { max_tokens: Some(1_000), ..plain("agent") }),
    ];
    let mut text = String::new();
    for (name, mission) in cases {
        writeln!(text, "{}", with_hints(&backends.get(name).unwrap().check(&mission).unwrap_err())).unwrap();
    }
    insta::assert_snapshot!(text);
}

fn is_acp(input: &str) -> bool {
    input.contains(r#""method":"initialize""#)
}

fn describe(text: &mut String, plan: &LaunchPlan) {
    writeln!(text, "{} {}", plan.program, plan.args.join(" ")).unwrap();
    for (name, value) in &plan.env_set {
        writeln!(text, "    {name}={value}").unwrap();
    }
    match &plan.stdin {
        PromptInput::Once(input) => writeln!(text, "    stdin, then closed: {input:?}").unwrap(),
        PromptInput::KeepOpen(input) => {
            let input = if is_acp(input) { "initialize".to_owned() } else { format!("{input:?}") };
            writeln!(text, "    stdin, held open: {input}").unwrap();
        }
    }
    if plan.needs_output_pipe {
        writeln!(text, "    stdout: a pipe").unwrap();
    }
    for (path, content) in &plan.files {
        writeln!(text, "    file {}: {content:?}", path.display()).unwrap();
    }
    for step in &plan.stop {
        match step.action {
            StopAction::Signal(signal) => writeln!(text, "    stop: {signal:?}, {} s", step.grace.as_secs()).unwrap(),
            action => writeln!(text, "    stop: {action:?}, {} s", step.grace.as_secs()).unwrap(),
        }
    }
}

fn plain(backend: &str) -> Mission {
    Mission { model: None, effort: None, max_cost_usd: None, ..mission(backend, Permissions::Edit) }
}

/// Returns a mission with all fields that the backend supports.
fn mission(backend: &str, permissions: Permissions) -> Mission {
    let (model, effort, max_cost_usd) = match backend {
        "codex" | "codex-acp" => (Some("gpt-5.5"), Some("high"), None),
        "claudecode" => (Some("sonnet"), Some("high"), Some(2.5)),
        "claude-agent-acp" => (Some("sonnet"), Some("high"), None),
        "gemini" | "gemini-acp" => (Some("gemini-2.5-pro"), None, None),
        "opencode" => (Some("mock/model"), Some("high"), Some(2.5)),
        "copilot" | "mine" | "agent" => (Some("big"), Some("high"), None),
        "qwen" | "vibe" | "kilo" | "opencode-acp" => (Some("mock/big"), None, None),
        _ => (None, None, None),
    };
    Mission {
        title: "Fix parser".into(),
        prompt: "boss's words".into(),
        backend: BackendName::from(backend),
        model: model.map(str::to_owned),
        effort: effort.map(str::to_owned),
        place: Place::Directory { path: PathBuf::from("/srv/tree") },
        setup_command: None,
        verify_command: None,
        task_id: TaskId::from("t"),
        depends_on: Vec::new(),
        context_from: Vec::new(),
        timeout_minutes: 120,
        max_cost_usd,
        max_tokens: None,
        fallback_backends: Vec::new(),
        max_attempts: 1,
        request_id: None,
        permissions,
        run_on: None,
        profile: None,
    }
}

fn turn<'a>(mission: &'a Mission, session: Session<'a>) -> Turn<'a> {
    Turn {
        mission,
        prompt: "do it",
        prompt_anew: "do it",
        dir: Path::new("/srv/tree"),
        session,
        message_id: MESSAGE,
        git: Some(GitDirs { common: Path::new("/srv/repo/.git"), own: Path::new("/srv/repo/.git/worktrees/tree") }),
        identity: Some(("Ann", "ann@example.com")),
        scratch: Path::new("/srv/scratch"),
        own_registrations: registered_names(),
        root: true,
        questions: QuestionRules::default(),
        confined: false,
    }
}

fn registered_names() -> &'static [String] {
    static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| vec!["orchestrator-boss".to_owned()]);
    &NAMES
}

fn agent() -> CustomBackend {
    CustomBackend {
        name: "agent".into(),
        args: vec!["--acp".into(), "--model={model}".into(), "--effort={effort}".into()],
        resume_args: None,
        output: CustomOutput::Acp,
        stop: StopSignal::Terminate,
        ..custom()
    }
}

fn custom() -> CustomBackend {
    CustomBackend {
        name: "mine".into(),
        program: "mine".into(),
        args: [
            "--model={model}",
            "--effort={effort}",
            "--in={dir}",
            "--may={permissions}",
            "--id={session_id}",
            "{{}}",
        ]
        .map(str::to_owned)
        .to_vec(),
        resume_args: Some(vec!["go-on".into(), "{session_id}".into()]),
        attach_args: Some(vec!["--in={dir}".into(), "--id={session_id}".into(), "--model={model}".into()]),
        output: CustomOutput::Jsonl,
        env: [("MINE".to_owned(), "1".to_owned())].into(),
        key_variables: Vec::new(),
        models: Vec::new(),
        efforts: Vec::new(),
        reports_cost: false,
        version_args: vec!["--version".into()],
        stop: StopSignal::Interrupt,
    }
}
