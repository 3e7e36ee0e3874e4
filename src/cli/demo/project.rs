//! Creates the demo's repository and settings. The repository has its own identity and none of the user's hooks and
//! signing, so that it is the same everywhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::DemoError;
use crate::cli::demo_agent::{DICTIONARY, GREETINGS};

/// The backend that the settings declare.
pub const BACKEND: &str = "demo-agent";
pub const BRANCH: &str = "main";

const GREETINGS_TEXT: &str = "\
Greetings, a section for each language.

[english]
(not written yet)


[french]
(not written yet)


[german]
(not written yet)
";

const DICTIONARY_TEXT: &str = "\
english: Hello, world!
french: Bonjour, le monde!
german: Hallo, Welt!
";

/// The script that verifies the workers' results.
const CHECK_TEXT: &str = r#"#!/bin/sh
# Checks that a language's section of greetings.txt matches the dictionary.
expected=$(sed -n "s/^$1: //p" dictionary.txt)
found=$(sed -n "/^\[$1\]\$/{n;p;}" greetings.txt)
[ "$found" = "$expected" ] && exit 0
echo "$1: expected \"$expected\", found \"$found\""
exit 1
"#;

pub struct Project {
    /// The folder of the demo, which is kept.
    pub folder: PathBuf,
    pub repository: PathBuf,
    pub settings: PathBuf,
    pub server_log: PathBuf,
    /// The folder in which agents wait for each other.
    pub meeting: PathBuf,
}

impl Project {
    /// Creates the project. `agent`: the program with the built-in agent.
    pub fn make(agent: &Path) -> Result<Self, DemoError> {
        let folder = tempfile::Builder::new()
            .prefix("orchestrator-boss-demo-")
            .tempdir()
            // The temporary folder is a symlink on macOS; workers see the real path.
            .and_then(|folder| folder.keep().canonicalize())
            .map_err(|source| DemoError::Folder { source })?;
        let project = Self {
            repository: folder.join("greetings"),
            settings: folder.join("settings.toml"),
            server_log: folder.join("server.log"),
            meeting: folder.join("meeting"),
            folder,
        };
        project.write_files(agent).map_err(|source| DemoError::Folder { source })?;
        project.make_repository()?;
        Ok(project)
    }

    fn write_files(&self, agent: &Path) -> std::io::Result<()> {
        fs::create_dir(&self.meeting)?;
        fs::create_dir(&self.repository)?;
        fs::write(&self.settings, settings(agent, &self.meeting))?;
        fs::write(self.repository.join(GREETINGS), GREETINGS_TEXT)?;
        fs::write(self.repository.join(DICTIONARY), DICTIONARY_TEXT)?;
        fs::write(self.repository.join("check.sh"), CHECK_TEXT)
    }

    fn make_repository(&self) -> Result<(), DemoError> {
        let hooks = self.repository.join(".git/hooks");
        self.git(&["init", "--quiet", "--template=", "--initial-branch", BRANCH])?;
        for (key, value) in [
            ("user.name", "Demo"),
            ("user.email", "demo@localhost"),
            ("commit.gpgSign", "false"),
            ("core.autocrlf", "false"),
            ("core.hooksPath", &*hooks.to_string_lossy()),
        ] {
            self.git(&["config", key, value])?;
        }
        self.git(&["add", "--all"])?;
        self.git(&["commit", "--quiet", "--message", "Add three languages to greet in"])?;
        Ok(())
    }

    /// Runs git in the repository and returns its output.
    pub fn git(&self, args: &[&str]) -> Result<String, DemoError> {
        let failed = |said: String| DemoError::Git { command: args.join(" "), said };
        let ended = Command::new("git")
            .arg("-C")
            .arg(&self.repository)
            .args(args)
            .output()
            .map_err(|error| failed(format!("{error}; is git installed?")))?;
        if ended.status.success() {
            Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
        } else {
            Err(failed(String::from_utf8_lossy(&ended.stderr).trim().to_owned()))
        }
    }
}

/// Returns the settings. A JSON string is also a valid TOML string, so any path can be written.
fn settings(agent: &Path, meeting: &Path) -> String {
    let [program, meeting] = [agent, meeting].map(|path| serde_json::Value::from(&*path.to_string_lossy()));
    format!(
        r#"# Made by `orchestrator-boss demo`. A custom backend: any program that reads its prompt from stdin.
max_workers = 6
# The kernel lets workers write only their own. The agents of the demo meet here.
confine_writable = [{meeting}]

[[custom]]
name = "{BACKEND}"
program = {program}
args = ["demo-agent", "--session={{session_id}}", "{{dir}}"]
resume_args = ["demo-agent", "--session={{session_id}}", "{{dir}}"]
output = "jsonl"
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(project: &Project, language: &str) -> (bool, String) {
        let ended = Command::new("sh").args(["check.sh", language]).current_dir(&project.repository).output().unwrap();
        (ended.status.success(), String::from_utf8(ended.stdout).unwrap())
    }

    #[test]
    fn repository_is_clean_and_its_check_works() {
        let project = Project::make(Path::new("/path/with \"quotes\"/orchestrator-boss")).unwrap();
        assert_eq!(project.git(&["status", "--porcelain"]).unwrap(), "");
        assert_eq!(project.git(&["log", "--format=%an %s"]).unwrap(), "Demo Add three languages to greet in\n");

        let empty = "(not written yet)";
        let said = format!("french: expected \"Bonjour, le monde!\", found \"{empty}\"\n");
        assert_eq!(check(&project, "french"), (false, said));
        let text = GREETINGS_TEXT.replacen(empty, "Hello, world!", 1);
        fs::write(project.repository.join(GREETINGS), text).unwrap();
        assert_eq!(check(&project, "english"), (true, String::new()));

        let settings: toml::Table = fs::read_to_string(&project.settings).unwrap().parse().unwrap();
        assert_eq!(settings["custom"][0]["program"].as_str(), Some("/path/with \"quotes\"/orchestrator-boss"));
        fs::remove_dir_all(&project.folder).unwrap();
    }
}
