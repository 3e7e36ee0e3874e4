//! Build tools work in a confined worker, with the empty caches of an empty home folder and then with the filled ones,
//! and nothing that they need is refused. No test needs a network: packages come from the project.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::git::{commit_all, init};
use crate::support::sandbox::{mission, with};
use crate::support::wheel::make_wheel;
use crate::world::{World, run};

/// The expectation for a machine that runs `.ci/run`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum InCi {
    Installed,
    Optional,
}

/// Returns whether a tool works here, and prints that the test is skipped if it does not. In continuous integration a
/// tool that is installed there must work.
pub fn has(program: &str, arguments: &[&str], in_ci: InCi) -> bool {
    let works = Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success());
    let may_lack = in_ci == InCi::Optional || std::env::var_os("CI").is_none();
    assert!(works || may_lack, "not skipped in CI: {program} {arguments:?} fails");
    if !works {
        eprintln!("SKIPPED: {program} {arguments:?} fails");
    }
    works
}

pub fn write(world: &World, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = world.sandbox.repo().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// Runs a command in three confined shells: of a CLI with empty caches, of its verification, and of the CLI of a second
/// worker.
#[track_caller]
pub fn check(world: &World, command: &str) {
    commit_all(&world.sandbox.repo(), "project");
    // Toolchains stay where they are installed.
    let home = std::env::var("HOME").unwrap();
    let rustup = std::env::var("RUSTUP_HOME").unwrap_or_else(|_| format!("{home}/.rustup"));
    let mut boss = world.boss_with(&[("RUSTUP_HOME", &rustup)]);
    for title in ["cold", "warm"] {
        let script = format!("run {{ {command}; }} > $TMPDIR/out 2>&1 && touch worked || cat $TMPDIR/out");
        let draft = with(mission(title, &script), "verify_command", format!("test -e worked && {command}"));
        let worker = run(&mut boss, draft);
        let notes = worker["outcome"]["changes"]["notes"].to_string();
        let log = world.sandbox.attempt(worker["worker_id"].as_str().unwrap(), 1).join("stdout");
        let log = fs::read_to_string(log).unwrap_or_default();
        assert_eq!(
            (&worker["status"], &worker["enforced"]),
            (&"completed".into(), &"kernel".into()),
            "{worker:#}\n{log}"
        );
        assert!(!notes.contains("refused"), "{notes}");
    }
    boss.leave();
}

#[test]
fn npm_installs_packages() {
    if !has("npm", &["--version"], InCi::Installed) {
        return;
    }
    let Some(world) = World::new("") else { return };
    write(
        &world,
        &[
            (".gitignore", "node_modules/\n"),
            ("dep/package.json", r#"{"name": "dep", "version": "1.0.0", "bin": "index.js"}"#),
            ("dep/index.js", "#!/usr/bin/env node\nmodule.exports = 42;\n"),
            ("package.json", r#"{"name": "app", "version": "1.0.0", "dependencies": {"dep": "file:dep-1.0.0.tgz"}}"#),
            ("test.js", "if (require('dep') !== 42) process.exit(1);\n"),
        ],
    );
    let npm = |arguments: &[&str]| {
        let mut npm = world.sandbox.bare_command("npm");
        npm.args(arguments).args(["--offline", "--no-audit", "--no-fund", "--cache"]).arg(world.path("other-cache"));
        assert!(npm.status().unwrap().success());
    };
    npm(&["pack", "./dep"]);
    npm(&["install", "--package-lock-only"]);
    let options = "--offline --no-audit --no-fund --loglevel error";
    // The second installs into the cache of npx.
    check(&world, &format!("npm ci {options} && node test.js && npx {options} -y ./dep-1.0.0.tgz"));
    assert!(world.path(".npm/_cacache").exists());
}

#[test]
fn cargo_builds_with_a_dependency() {
    let Some(world) = World::new("") else { return };
    let dep = world.path("dep");
    init(&dep);
    fs::create_dir(dep.join("src")).unwrap();
    fs::write(dep.join("Cargo.toml"), "[package]\nname = \"dep\"\nversion = \"1.0.0\"\nedition = \"2021\"\n").unwrap();
    fs::write(dep.join("src/lib.rs"), "pub fn answer() -> u32 {\n    42\n}\n").unwrap();
    commit_all(&dep, "dep");
    let manifest = format!(
        "[package]\nname = \"app\"\nversion = \"1.0.0\"\nedition = \"2021\"\n[dependencies]\ndep = {{ git = \"file://{}\" }}\n",
        dep.display()
    );
    write(
        &world,
        &[
            (".gitignore", "/target\nCargo.lock\n"),
            ("Cargo.toml", &manifest),
            ("src/main.rs", "fn main() {\n    assert_eq!(dep::answer(), 42);\n}\n"),
        ],
    );
    check(&world, "env -u CARGO_TARGET_DIR cargo run");
    assert!(world.path(".cargo/git/checkouts").exists());
}

#[test]
fn pip_installs_into_a_virtual_environment() {
    if !has("python3", &["-m", "ensurepip", "--version"], InCi::Installed) {
        return;
    }
    let Some(world) = World::new("") else { return };
    write(&world, &[(".gitignore", ".venv/\n"), ("requirements.txt", "--no-index\n--find-links wheels\ndemo==1.0\n")]);
    make_wheel(&world.sandbox.repo().join("wheels"));
    let pip = ".venv/bin/pip install --disable-pip-version-check -r requirements.txt";
    check(
        &world,
        &format!("python3 -m venv .venv && {pip} && .venv/bin/python -c 'import demo, multiprocessing as m; m.Lock()'"),
    );
}

#[test]
fn uv_synchronizes_a_project() {
    if !has("uv", &["--version"], InCi::Installed) {
        return;
    }
    let Some(world) = World::new("") else { return };
    let project = "[project]\nname = \"app\"\nversion = \"1.0.0\"\nrequires-python = \">=3.8\"\n\
                   dependencies = [\"demo==1.0\"]\n[tool.uv]\nno-index = true\nfind-links = [\"wheels\"]\n";
    write(&world, &[(".gitignore", ".venv/\n"), ("pyproject.toml", project)]);
    make_wheel(&world.sandbox.repo().join("wheels"));
    check(&world, "uv sync --offline --no-managed-python && .venv/bin/python -c 'import demo'");
    assert!(world.path(".cache/uv").exists());
}

#[test]
fn make_and_the_compiler_build() {
    if !has("make", &["--version"], InCi::Optional) {
        return;
    }
    let Some(world) = World::new("") else { return };
    write(
        &world,
        &[
            (".gitignore", "app\n"),
            ("Makefile", "app: app.c\n\tcc -pipe -o $@ $<\n"),
            ("app.c", "int main(void) { return 0; }\n"),
        ],
    );
    check(&world, "make -B && ./app");
}

#[test]
fn go_builds() {
    if !has("go", &["version"], InCi::Optional) {
        return;
    }
    let Some(world) = World::new("") else { return };
    write(
        &world,
        &[
            (".gitignore", "app\n"),
            ("go.mod", "module app\n\ngo 1.18\n"),
            ("main.go", "package main\n\nfunc main() {}\n"),
        ],
    );
    check(&world, "GOFLAGS=-mod=mod GOPROXY=off go build -o app . && ./app");
    assert!(world.path(".cache/go-build").exists());
}

#[test]
fn chromium_renders_a_page_without_its_sandbox() {
    let Some(browser) = browser() else { return };
    let Some(world) = World::new("") else { return };
    write(&world, &[("page.html", "<p id=p></p><script>p.textContent = 6 * 7</script>\n")]);
    let options = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --dump-dom";
    let page = "file://$PWD/page.html";
    check(
        &world,
        &format!(
            "'{}' {options} --user-data-dir=$TMPDIR/profile {page} 2>/dev/null | grep -q '>42<'",
            browser.display()
        ),
    );
}

/// Returns a browser, or prints that the test is skipped.
fn browser() -> Option<PathBuf> {
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).flat_map(|folder| names.map(|name| folder.join(name)));
    let found = found.into_iter().find(|path| path.is_file());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "there is no Chromium");
        eprintln!("SKIPPED: there is no Chromium");
    }
    found
}

/// A hook like that of pre-commit: it stashes what is not staged, runs a check with a cache, and restores it.
#[test]
fn hook_of_a_commit_runs() {
    let Some(world) = World::new("") else { return };
    fs::create_dir_all(world.path(".cache/pre-commit")).unwrap();
    let hook = world.sandbox.repo().join(".git/hooks/pre-commit");
    let text = "#!/bin/sh\nset -e\n[ -n \"$ORCHESTRATOR_WORKER_TAG\" ] || exit 0\ngit diff > \"$TMPDIR/patch\"\ngit checkout-index -a -f\n\
                echo $$ > \"$HOME/.cache/pre-commit/db\"\ngit apply --allow-empty \"$TMPDIR/patch\"\ngit add -A\n";
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    fs::write(&hook, text).unwrap();
    make_executable(&hook);
    write(&world, &[("kept", "text\n")]);
    commit_all(&world.sandbox.repo(), "project");
    let mut boss = world.boss();
    let worker =
        run(&mut boss, with(mission("t", "write file x\ncommit file"), "verify_command", "git show HEAD:file"));
    assert_eq!((&worker["status"], &worker["enforced"]), (&"completed".into(), &"kernel".into()), "{worker:#}");
    boss.leave();
    assert!(world.path(".cache/pre-commit/db").exists());
}

/// A confined worker can ask the agent for the user's keys, but not start it. So it is started outside.
#[test]
fn commit_is_signed_although_no_agent_ran() {
    if !has("gpg", &["--version"], InCi::Optional) {
        return;
    }
    let Some(world) = World::new("") else { return };
    DirBuilder::new().mode(0o700).create(world.path(".gnupg")).unwrap();
    let works = |program: &str, arguments: &[&str]| {
        let mut command = world.sandbox.bare_command(program);
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    };
    works("gpg", &["--batch", "--passphrase", "", "--quick-gen-key", "T <t@localhost>", "ed25519", "sign", "never"]);
    works("gpgconf", &["--kill", "gpg-agent"]);
    for (name, value) in [("commit.gpgsign", "true"), ("user.signingkey", "t@localhost")] {
        world.sandbox.git(&["config", name, value]);
    }
    let mut boss = world.boss();
    let script =
        "wait-file ~/.gnupg/S.gpg-agent\nwrite a.txt x\ncommit a".replace('~', &world.path("").to_string_lossy());
    let worker = run(&mut boss, mission("signs", &script));
    assert_eq!((&worker["status"], &worker["enforced"]), (&"completed".into(), &"kernel".into()), "{worker:#}");
    works("git", &["verify-commit", "orchestrator/w-1-signs"]);
    boss.leave();
    works("gpgconf", &["--kill", "gpg-agent"]);
}

fn make_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
