//! The git program without the configuration of the user.

use std::path::Path;
use std::process::Command;

/// Sets the environment in which git reads neither the user's nor the system's configuration, and never prompts.
pub fn seal(command: &mut Command) -> &mut Command {
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_TERMINAL_PROMPT", "0")
}

/// Returns git's trimmed output. Panics with git's error output if it fails.
#[track_caller]
pub fn git(directory: &Path, args: &[&str]) -> String {
    try_git(directory, args).unwrap_or_else(|error| panic!("git {args:?} in {}: {error}", directory.display()))
}

/// Returns git's trimmed output, or its error output.
pub fn try_git(directory: &Path, args: &[&str]) -> Result<String, String> {
    let mut command = Command::new("git");
    let output = seal(command.args(args).current_dir(directory)).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Creates an empty repository with a branch `main` and an identity, and with the folders that git's own template has.
pub fn init(directory: &Path) {
    std::fs::create_dir_all(directory).expect("a folder for the repository");
    git(directory, &["init", "-q", "-b", "main", "--template="]);
    for folder in ["hooks", "info"] {
        std::fs::create_dir(directory.join(".git").join(folder)).expect("a folder in the git directory");
    }
    identify(directory);
}

/// Sets the identity of commits.
pub fn identify(directory: &Path) {
    git(directory, &["config", "user.name", "Test"]);
    git(directory, &["config", "user.email", "test@localhost"]);
}

/// Commits everything in the working tree.
pub fn commit_all(directory: &Path, message: &str) {
    git(directory, &["add", "-A"]);
    git(directory, &["commit", "-q", "-m", message]);
}
