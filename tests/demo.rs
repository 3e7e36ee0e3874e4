//! The demo as in the README, on a machine without any setup.

#[path = "support/mod.rs"]
mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::git::git;

/// Runs the demo with its own home, temporary folder and git configuration.
fn demo(home: &TempDir) -> Output {
    run(home, home.path(), &["demo"])
}

fn run(home: &TempDir, directory: &Path, args: &[&str]) -> Output {
    sealed(home, directory, Command::new(env!("CARGO_BIN_EXE_orchestrator-boss")).args(args))
}

/// Runs a line as a user would type it.
fn run_line(home: &TempDir, directory: &Path, line: &str) -> Output {
    sealed(home, directory, Command::new("sh").args(["-c", line]))
}

fn sealed(home: &TempDir, directory: &Path, command: &mut Command) -> Output {
    command
        .current_dir(directory)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").expect("a PATH with git and a shell"))
        .env("HOME", home.path())
        .env("TMPDIR", home.path())
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .expect("the program starts")
}

#[test]
fn demo_merges_its_work_and_ends_with_commands() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let ended = demo(&home);
    let printed = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{printed}\n{}", String::from_utf8_lossy(&ended.stderr));

    let mut to_try = printed.lines().skip_while(|line| *line != "To try next:").skip(1);
    let repository = to_try.next().and_then(|line| line.strip_prefix("  cd ")).expect("the path is printed");
    let repository = Path::new(repository);
    let greetings = fs::read_to_string(repository.join("greetings.txt")).expect("the project is kept");
    for greeting in ["Hello, world!", "Bonjour, le monde!", "Hallo, Welt!"] {
        assert!(greetings.contains(greeting), "{greeting} is not in: {greetings}");
    }
    assert_eq!(git(repository, &["status", "--porcelain"]), "");
    // The mistake and its correction are both present, since a retry continues where the first attempt ended.
    assert_eq!(
        git(repository, &["log", "--format=%s", "--no-merges", "--grep=french"]).matches("Greet in french").count(),
        2
    );
    for row in ["greet-in-french", "shout-in-english", "cancelled"] {
        assert!(printed.contains(row), "{row} is not in: {printed}");
    }
    let commands: Vec<&str> = to_try.map_while(|line| line.strip_prefix("  ")).collect();
    assert_eq!(commands.len(), 5, "{printed}");
    for command in commands {
        let ended = run_line(&home, repository, command);
        assert!(ended.status.success(), "{command}: {ended:?}");
    }
    assert!(run(&home, repository, &["wait"]).status.success());
    let remove = printed.lines().find_map(|line| line.strip_prefix("To remove it: ")).expect("the last command");
    assert!(run_line(&home, home.path(), remove).status.success());
    assert!(!repository.exists());
}
