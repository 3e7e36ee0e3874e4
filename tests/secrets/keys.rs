//! A full session of a server and its workers with planted keys, and then a search for the keys in all places.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::Client;
use crate::support::git::git;
use crate::support::sandbox::fake_cli;

/// Typical variables of users; each gets its own value.
const PLANTED: [&str; 14] = [
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "OPENAI_API_KEY",
    "CODEX_API_KEY",
    "GEMINI_API_KEY",
    "GOOGLE_API_KEY",
    "OPENROUTER_API_KEY",
    "AWS_SECRET_ACCESS_KEY",
    "GITHUB_TOKEN",
    "HARMLESS_LOOKING",
    "DATABASE_URL",
    "SSH_AUTH_SOCK",
    "MY_LOGIN",
];
/// A part of every planted value.
const MARK: &str = "planted-q7x-";
/// A value that one CLI prints itself.
const PRINTED: &str = "printed-by-itself";

fn every_file(folder: &Path, found: &mut Vec<PathBuf>) {
    // Temporary files of a server may disappear meanwhile.
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        found.push(path.clone());
        if path.is_dir() && !path.is_symlink() {
            every_file(&path, found);
        }
    }
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

fn command_lines_with(text: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| holds(line, text)).map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).collect()
}

struct Day {
    client: Client,
    answers: String,
    next: i64,
}

impl Day {
    fn call(&mut self, tool: &str, arguments: Value) -> Value {
        self.next += 1;
        let result = self.client.call(self.next, tool, arguments);
        self.answers.push_str(&result.to_string());
        result["structuredContent"].clone()
    }

    fn create(&mut self, title: &str, backend: &str, script: &str, verify: Option<&str>) -> String {
        let prompt = format!("FAKE:\n{script}");
        let mut mission = json!({"title": title, "prompt": prompt, "backend": backend});
        mission["verify_command"] = json!(verify);
        let answer = self.call("create_worker_mission", mission);
        answer["worker"]["worker_id"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    fn until(&mut self, worker: &str, statuses: &[&str]) {
        let began = Instant::now();
        loop {
            let answer = self.call("get_worker_status", json!({"worker_id": worker}));
            if statuses.iter().any(|status| answer["worker"]["status"] == *status) {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{worker} is never {statuses:?}: {answer}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn planted_keys_leak_nowhere_and_files_are_private() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().canonicalize().unwrap();
    let repo = root.join("repo");
    for folder in ["repo", "runtime", "tmp", ".config/orchestrator-boss"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    let broken = root.join("broken-cli");
    std::fs::write(&broken, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&broken, std::fs::Permissions::from_mode(0o755)).unwrap();
    let settings = root.join(".config/orchestrator-boss/config.toml");
    let fake = fake_cli();
    // For what the scripts leave outside of their worktrees.
    let shared = root.join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(
        &settings,
        format!(
            "max_workers = 8\nconfine_writable = [{shared:?}]\n[[custom]]\nname = \"fake\"\nprogram = {fake:?}\noutput = \"jsonl\"\n\
             resume_args = [\"--resume\", \"{{session_id}}\"]\nkey_variables = [\"MY_LOGIN\"]\n\
             env = {{ OF_THE_SETTINGS = \"{MARK}settings\" }}\n\
             [[custom]]\nname = \"broken\"\nprogram = {broken:?}\nenv = {{ OF_THE_OTHER = \"{MARK}other\" }}\n"
        ),
    )
    .unwrap();
    std::fs::write(root.join(".netrc"), format!("machine x password {MARK}netrc\n")).unwrap();
    let user = format!("[user]\nname = T\nemail = t@localhost\n[http]\nextraHeader = {MARK}git\n");
    std::fs::write(root.join(".gitconfig"), user).unwrap();
    git(&repo, &["init", "-q", "-b", "main"]);
    git(&repo, &["-c", "user.name=T", "-c", "user.email=t@localhost", "commit", "-q", "--allow-empty", "-m", "first"]);
    // A worker's change of the configuration is reported too, without the value.
    git(&repo, &["config", "http.proxy", &format!("{MARK}proxy")]);

    let path = |name: &str| root.join(name).to_string_lossy().into_owned();
    let (gitconfig, runtime, tmp) = (path(".gitconfig"), path("runtime"), path("tmp"));
    let mut environment: Vec<(&str, &str)> = vec![
        ("GIT_CONFIG_GLOBAL", &gitconfig),
        ("XDG_RUNTIME_DIR", &runtime),
        ("TMPDIR", &tmp),
        ("ORCHESTRATOR_LOG", "trace"),
        ("ORCHESTRATOR_MAX_WORKERS", "8"),
        ("GIT_INDEX_FILE", "/nowhere/index"),
        ("SEEN_BY_TESTS", "yes"),
    ];
    let values: Vec<String> = PLANTED.iter().map(|name| format!("{MARK}{}", name.to_lowercase())).collect();
    environment.extend(PLANTED.iter().copied().zip(values.iter().map(String::as_str)));
    let mut client = Client::start_in(home, &repo, &environment);
    client.initialize("gemini-cli", "2025-06-18");
    let mut day = Day { client, answers: String::new(), next: 0 };

    let seen_by_verify = shared.join("verify-environment");
    let verify = format!("env > {}", seen_by_verify.display());
    let good = day.create("good", "fake", "say hello\nwrite a.txt x\ncommit a\nwrite left.txt y", Some(&verify));
    let given =
        day.create("given", "fake", "env OF_THE_SETTINGS ../../shared/given\nenv MY_LOGIN ../../shared/key", None);
    let fails = day.create("fails", "fake", "write b.txt x\nfail model_error no", None);
    let unproven = day.create("unproven", "fake", "say x", Some("exit 3"));
    let broken = day.create("broken", "broken", "say x", None);
    let says = day.create("says", "fake", &format!("run echo $MY_LOGIN\nsay {PRINTED}"), None);
    let cancelled = day.create("cancelled", "fake", "write c.txt x\nhang", None);
    day.until(&cancelled, &["running"]);
    day.call("send_message_to_worker", json!({"worker_id": cancelled, "message": "hear me"}));
    assert_eq!(command_lines_with(MARK), Vec::<String>::new());
    day.call("cancel_worker", json!({"worker_id": cancelled}));
    for worker in [&good, &given] {
        day.until(worker, &["completed"]);
    }
    for worker in [&fails, &unproven, &broken] {
        day.until(worker, &["failed"]);
    }
    day.until(&says, &["completed"]);
    day.call("remove_worktree", json!({"worker_id": cancelled, "force": true}));
    for worker in [&good, &fails, &broken, &cancelled] {
        day.call("get_worker_status", json!({"worker_id": worker, "include": ["log", "diff", "messages", "attempts"]}));
    }
    git(&repo, &["config", "http.proxy", &format!("{MARK}another")]);
    day.call("integrate_worker", json!({"worker_id": good}));
    assert!(day.answers.contains("http.proxy (changed)"));
    day.call("list_worker_missions", json!({"scope": "all"}));
    day.call("get_backend_status", json!({}));
    day.call("wait_for_any_worker", json!({"timeout_seconds": 0}));

    // The CLI receives the variables of the user's settings, and its keys.
    let written = |name: &str| std::fs::read_to_string(shared.join(name)).unwrap();
    assert_eq!((written("given"), written("key")), (format!("set {MARK}settings\n"), format!("set {MARK}my_login\n")));
    let seen = std::fs::read_to_string(&seen_by_verify).unwrap();
    for name in PLANTED.iter().filter(|name| !["HARMLESS_LOOKING", "DATABASE_URL"].contains(name)) {
        assert!(!seen.contains(&format!("{name}=")), "verify_command sees {name}");
    }
    assert!(!seen.contains("GIT_INDEX_FILE") && !seen.contains("ORCHESTRATOR_BACKEND_ENV"), "{seen}");
    assert!(seen.contains("SEEN_BY_TESTS=yes") && seen.contains("PATH="), "{seen}");
    // Removes the files that were written for the checks above.
    for file in ["given", "key", "verify-environment"] {
        std::fs::remove_file(shared.join(file)).unwrap();
    }

    // Values that the CLI printed itself are in its raw log, and may be quoted from there.
    assert!(!holds(day.answers.as_bytes(), MARK), "an answer holds a planted value");
    check_all_files(&root, &says);
    let objects = std::process::Command::new("git")
        .args(["cat-file", "--batch-all-objects", "--batch"])
        .current_dir(&repo)
        .output()
        .unwrap();
    assert!(objects.stdout.len() > 500 && !holds(&objects.stdout, MARK), "a git object holds a planted value");
    assert!(!git(&repo, &["for-each-ref"]).contains(MARK));
    check_private(&repo.join(".orchestrator"), &root.join("runtime"));
    day.client.close();
}

fn check_all_files(root: &Path, says: &str) {
    // Allowed places: the user's own files, and the raw log of the CLI that prints a value.
    let theirs = [".netrc", ".gitconfig", ".config/orchestrator-boss/config.toml", "repo/.git/config"];
    let raw = root.join("repo/.orchestrator/workers").join(says);
    let mut files = Vec::new();
    every_file(root, &mut files);
    let mut looked = 0;
    for file in files.iter().filter(|file| file.is_file() && !theirs.iter().any(|it| root.join(it) == **file)) {
        let bytes = std::fs::read(file).unwrap_or_default();
        looked += 1;
        let quotes = file.starts_with(&raw) && (file.ends_with("stdout.log") || file.ends_with("events.jsonl"));
        assert!(quotes || !holds(&bytes, MARK), "{} holds a planted value", file.display());
    }
    assert!(looked > 50, "only {looked} files were found");
    let log = std::fs::metadata(root.join("server.log")).unwrap();
    assert!(log.len() > 1_000, "the server logs everything");
}

fn check_private(state: &Path, runtime: &Path) {
    for top in [state, runtime] {
        let mut files = Vec::new();
        every_file(top, &mut files);
        // Files in worktrees follow the user's umask; private folders protect them.
        let ours = files.iter().filter(|file| !file.starts_with(state.join("worktrees")));
        for file in ours.filter(|file| !file.is_symlink()) {
            let Ok(metadata) = file.metadata() else {
                assert!(!file.exists(), "{} cannot be looked at", file.display());
                continue;
            };
            let mode = metadata.permissions().mode() & 0o777;
            let private = if metadata.is_dir() { mode == 0o700 } else { mode & 0o077 == 0 };
            let reachable_by_us_alone = top == runtime && !metadata.is_dir();
            assert!(private || reachable_by_us_alone, "{} is {mode:o}", file.display());
        }
    }
    assert_eq!(state.metadata().unwrap().permissions().mode() & 0o777, 0o700);
}
