//! Lists the user's git settings that this program bypasses when it commits, merges and pushes, so that answers can
//! name them. A hook could run code that a worker has written. A signature could prompt for a passphrase.

use std::path::PathBuf;

use super::command::CommandError;
use super::repository::Repository;

/// Hooks that `git merge` and `git commit` run.
const HOOKS: [&str; 7] = [
    "pre-merge-commit",
    "pre-commit",
    "prepare-commit-msg",
    "commit-msg",
    "post-merge",
    "post-commit",
    "reference-transaction",
];

/// Returns a sentence for the user about each kind of bypassed setting.
pub fn bypassed(repo: &Repository, push: bool) -> Result<Vec<String>, CommandError> {
    let mut notes = Vec::new();
    let set = set(repo)?;
    let is_set = |name: &str| set.iter().any(|it| it == name);
    let folder = if is_set("core.hookspath") { hooks_folder(repo)? } else { repo.common_dir.join("hooks") };
    let named = HOOKS.iter().chain(push.then_some(&"pre-push"));
    let hooks: Vec<&str> = named.filter(|name| folder.join(name).is_file()).copied().collect();
    if !hooks.is_empty() {
        notes.push(format!("hooks were not run: {}", hooks.join(", ")));
    }
    if is_set("commit.gpgsign") && signs(repo)? {
        notes.push("commit.gpgsign is set, but commits made here are not signed".to_owned());
    }
    Ok(notes)
}

/// Returns which of the two settings exist. One git process answers in the usual case that there are none.
fn set(repo: &Repository) -> Result<Vec<String>, CommandError> {
    let names = r"^(core\.hookspath|commit\.gpgsign)$";
    let found = repo.read().args(["config", "--name-only", "--show-scope", "--get-regexp", names]).output()?;
    let found = String::from_utf8_lossy(&found.stdout);
    let found = found.lines().filter_map(|line| line.split_once('\t')).filter(|(scope, _)| *scope != "command");
    Ok(found.map(|(_, name)| name.to_owned()).collect())
}

fn signs(repo: &Repository) -> Result<bool, CommandError> {
    let signs = repo.read().args(["config", "--type=bool", "--get", "commit.gpgsign"]).output()?;
    Ok(signs.stdout.starts_with(b"true"))
}

/// Returns the hooks folder of the user's own git. Calls of this program set another one.
fn hooks_folder(repo: &Repository) -> Result<PathBuf, CommandError> {
    let set = repo.read().args(["config", "--type=path", "--show-scope", "--get-all", "core.hooksPath"]).output()?;
    let set = String::from_utf8_lossy(&set.stdout);
    let mut set = set.lines().filter_map(|line| line.split_once('\t')).filter(|(scope, _)| *scope != "command");
    let set = set.next_back().map(|(_, folder)| repo.root().join(folder));
    Ok(set.unwrap_or_else(|| repo.common_dir.join("hooks")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::testing::Fixture;

    #[test]
    fn bypassed_hooks_and_signing_are_named() {
        let fixture = Fixture::new();
        assert_eq!(bypassed(&fixture.repo, true).unwrap(), Vec::<String>::new());
        for hook in ["hooks/post-merge", "hooks/pre-push"] {
            std::fs::create_dir_all(fixture.repo.common_dir.join("hooks")).unwrap();
            std::fs::write(fixture.repo.common_dir.join(hook), "#!/bin/sh\n").unwrap();
        }
        fixture.git(&["config", "commit.gpgsign", "yes"]);
        let notes = bypassed(&fixture.repo, false).unwrap();
        assert_eq!(notes.len(), 2);
        assert!(notes[0].ends_with(": post-merge") && notes[1].contains("not signed"), "{notes:?}");
        assert!(bypassed(&fixture.repo, true).unwrap()[0].ends_with("post-merge, pre-push"));
        fixture.write("own/commit-msg", "");
        fixture.git(&["config", "core.hooksPath", "own"]);
        assert!(bypassed(&fixture.repo, false).unwrap()[0].ends_with(": commit-msg"));
    }
}
