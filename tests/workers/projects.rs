//! Real projects of npm, Cargo, Python and uv, whose tests pass only in a worktree that was set up. Without the setup
//! the cause is named; with it the work is verified and merged.

use std::fs;
use std::process::Command;

use orchestrator_boss::config::Settings;
use orchestrator_boss::mission::create::Draft;
use orchestrator_boss::mission::outcome::Verification;
use orchestrator_boss::orchestrator::{IntegrationRequest, IntegrationSource};

use crate::support::wait::CEILING;
use crate::support::wheel::make_wheel;
use crate::world::{Server, World, mission};

/// Returns whether a program is missing, and prints that the test is skipped. In continuous integration it panics
/// instead.
fn lacks(program: &str, arguments: &[&str]) -> bool {
    let works = Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success());
    assert!(works || std::env::var_os("CI").is_none(), "not skipped in CI: {program} {arguments:?} fails");
    if !works {
        eprintln!("SKIPPED: {program} {arguments:?} fails");
    }
    !works
}

fn write(world: &World, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = world.repo().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn shell(world: &World, command: &str) {
    let output = Command::new("sh").args(["-c", command]).current_dir(world.repo()).output().unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
}

fn commit(world: &World) {
    world.git(&["add", "."]);
    world.git(&["commit", "-qm", "project"]);
}

/// Runs a mission to its end, and returns its id and its verification.
async fn run(server: &Server, title: &str, verify: &str) -> (String, Verification) {
    let script = format!("write {title}.txt x\ncommit {title}");
    let draft = Draft { verify_command: Some(verify.to_owned()), ..mission(title, &script) };
    let id = server.create_one(draft).await;
    server.wait(&[&id], CEILING).await;
    let worker = server.orchestrator.get(&id).await.unwrap().worker;
    (id, worker.last().expect("it has settled").verification.clone())
}

async fn merge(server: &Server, id: &str, verify: &str) {
    let source = IntegrationSource::Worker(id.to_owned());
    let request = IntegrationRequest { verify_command: Some(verify.to_owned()), ..IntegrationRequest::of(source) };
    let answer = server.orchestrator.integrate(&server.boss, request).await.unwrap();
    assert_eq!(answer.status.as_str(), "merged", "{answer:#?}");
}

fn with_setup(world: &World, command: &str) -> Settings {
    Settings { setup_command: Some(command.to_owned()), ..world.settings() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn npm_project_is_installed_from_its_lock_file() {
    if lacks("npm", &["--version"]) {
        return;
    }
    let world = World::new();
    let cache = world.shared("npm-cache").display().to_string();
    write(
        &world,
        &[
            (".gitignore", "node_modules/\n"),
            ("dep/package.json", r#"{"name": "dep", "version": "1.0.0"}"#),
            ("dep/index.js", "module.exports = 42;\n"),
            ("package.json", r#"{"name": "app", "version": "1.0.0", "dependencies": {"dep": "file:dep-1.0.0.tgz"}}"#),
            ("test.js", "if (require('dep') !== 42) process.exit(1);\n"),
        ],
    );
    let npm = |line: &str| format!("npm {line} --offline --no-audit --no-fund --loglevel error --cache '{cache}'");
    shell(&world, &npm("pack ./dep"));
    shell(&world, &npm("install"));
    commit(&world);

    let (_, without) = run(&world.server(Some("boss")), "without", "node test.js").await;
    assert!(
        matches!(&without, Verification::Failed { log_tail, .. } if log_tail.contains("MODULE_NOT_FOUND")),
        "{without:?}"
    );
    let server = world.server_with(Some("boss"), with_setup(&world, &npm("ci")));
    let (id, with) = run(&server, "with", "node test.js").await;
    assert!(matches!(with, Verification::Passed { .. }), "{with:?}");
    merge(&server, &id, "node test.js").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cargo_project_builds_on_its_seeded_target() {
    let world = World::new();
    write(
        &world,
        &[
            (".gitignore", "/target\n"),
            (
                "Cargo.toml",
                "[package]\nname = \"app\"\nversion = \"1.0.0\"\nedition = \"2021\"\n[dependencies]\ndep = { path = \"dep\" }\n",
            ),
            ("src/lib.rs", "#[test]\nfn works() {\n    assert_eq!(dep::answer(), 42);\n}\n"),
            ("dep/Cargo.toml", "[package]\nname = \"dep\"\nversion = \"1.0.0\"\nedition = \"2021\"\n"),
            ("dep/src/lib.rs", "pub fn answer() -> u32 {\n    42\n}\n"),
        ],
    );
    let test = "env -u CARGO_TARGET_DIR cargo test --offline --quiet";
    shell(&world, test);
    commit(&world);
    let seed = vec!["target".to_owned()];
    let server = world.server_with(Some("boss"), Settings { seed, ..with_setup(&world, "test -d target/debug") });
    let (id, verification) = run(&server, "built", test).await;
    assert!(matches!(verification, Verification::Passed { .. }), "{verification:?}");
    merge(&server, &id, test).await;
    assert!(world.git(&["ls-files"]).lines().all(|file| !file.starts_with("target")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_project_gets_a_virtual_environment_of_its_own() {
    if lacks("python3", &["-m", "ensurepip", "--version"]) {
        return;
    }
    let world = World::new();
    write(
        &world,
        &[
            (".gitignore", ".venv/\n"),
            ("requirements.txt", "--no-index\n--find-links wheels\ndemo==1.0\n"),
            ("check.py", CHECK),
        ],
    );
    make_wheel(&world.repo().join("wheels"));
    let install =
        "python3 -m venv .venv && .venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt";
    shell(&world, install);
    commit(&world);
    let seed = vec![".venv".to_owned()];
    let verify = ".venv/bin/python check.py";
    let server = world.server_with(Some("boss"), Settings { seed, ..with_setup(&world, install) });
    let (id, verification) = run(&server, "own", verify).await;
    assert!(matches!(verification, Verification::Passed { .. }), "{verification:?}");
    let notes = server.orchestrator.get(&id).await.unwrap().worker.last().unwrap().changes.notes.clone();
    assert!(notes.iter().any(|note| note.contains(".venv is a virtual environment")), "{notes:?}");
    merge(&server, &id, verify).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uv_project_is_synchronized_from_its_lock_file() {
    if lacks("uv", &["--version"]) {
        return;
    }
    let world = World::new();
    write(
        &world,
        &[
            (".gitignore", ".venv/\n"),
            (
                "pyproject.toml",
                "[project]\nname = \"app\"\nversion = \"1.0.0\"\nrequires-python = \">=3.8\"\ndependencies = \
                 [\"demo==1.0\"]\n[tool.uv]\nno-index = true\nfind-links = [\"wheels\"]\n",
            ),
            ("check.py", CHECK),
        ],
    );
    make_wheel(&world.repo().join("wheels"));
    let cache = world.shared("uv-cache").display().to_string();
    let uv = |line: &str| format!("uv {line} --offline --no-managed-python --quiet --cache-dir '{cache}'");
    shell(&world, &uv("lock"));
    shell(&world, &uv("sync"));
    commit(&world);

    let verify = ".venv/bin/python check.py";
    let (_, without) = run(&world.server(Some("boss")), "without", verify).await;
    assert!(
        matches!(&without, Verification::CouldNotRun { why } if why.contains(".venv/bin/python: not found")),
        "{without:?}"
    );
    let server = world.server_with(Some("boss"), with_setup(&world, &uv("sync --locked")));
    let (id, with) = run(&server, "with", verify).await;
    assert!(matches!(with, Verification::Passed { .. }), "{with:?}");
    merge(&server, &id, verify).await;
}

/// A program that checks that the module of [`make_wheel`] is installed in the virtual environment here.
const CHECK: &str = "import demo, os, sys\n\
                     assert demo.answer == 42\n\
                     assert sys.prefix == os.path.realpath('.venv'), sys.prefix\n";
