//! Reads the reflogs of a worktree's HEAD and of the stash: how commits were made, and where HEAD moved.

use std::fs;
use std::path::Path;

use super::command::{CommandError, Git};
use super::refs::{self, Logged};
use super::repository::Repository;
use super::trust::Checkout;

/// A move of HEAD from one commit to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadMove {
    pub old: String,
    pub new: String,
    /// Message of the entry, such as `commit: …`, `checkout: moving from a to b` or `rebase (pick): …`.
    pub message: String,
}

impl HeadMove {
    /// Returns whether the move created the new commit. Otherwise HEAD only moved to an existing one.
    pub fn created_commit(&self) -> bool {
        const MOVES: [&str; 5] = ["checkout", "reset", "clone", "branch", "Branch"];
        const TAKES: [&str; 3] = [": Fast-forward", ": forwarding", "(start)"];
        let message = self.message.as_str();
        !message.is_empty()
            && !MOVES.iter().any(|word| message.starts_with(word))
            && !TAKES.iter().any(|word| message.contains(word))
    }

    /// Returns whether the move replaces the old commit, by an amendment or a rebase.
    pub fn replaced_commit(&self) -> bool {
        let message = self.message.as_str();
        message.starts_with("commit (amend)") || message.starts_with("rebase") || message.starts_with("pull --rebase")
    }

    /// Returns the names that a checkout moved from and to.
    pub fn branches(&self) -> Vec<&str> {
        let names = self.message.strip_prefix("checkout: moving from ").and_then(|it| it.split_once(" to "));
        names.map(|(from, to)| vec![from, to]).unwrap_or_default()
    }
}

/// Returns the moves of a worktree's HEAD, oldest first; none if git keeps no such log.
pub fn head_moves(worktree: &Checkout, git_dir: &Path) -> Result<Vec<HeadMove>, CommandError> {
    match fs::read(git_dir.join("logs/HEAD")) {
        Ok(log) => Ok(parse(&String::from_utf8_lossy(&log))),
        Err(_) if git_dir.join("reftable").exists() => ask(worktree, "HEAD"),
        Err(_) => Ok(Vec::new()),
    }
}

/// Returns the moves of a branch, newest first.
pub(super) fn log(repo: &Repository, branch: &str) -> Result<Vec<Logged>, CommandError> {
    let name = format!("refs/heads/{branch}");
    refs::log(repo.root(), &name).map_or_else(|| ask_log(repo, &name), Ok)
}

fn ask_log(repo: &Repository, name: &str) -> Result<Vec<Logged>, CommandError> {
    let args = ["log", "--walk-reflogs", "--date=unix", "--format=%H %gd %gs", name, "--"];
    let log = repo.read().args(args).output()?;
    let logged = |line: &str| {
        let (to, rest) = line.split_once(' ')?;
        let (at, why) = rest.split_once("@{")?.1.split_once('}')?;
        Some(Logged { to: to.to_owned(), at: at.parse().ok()?, why: why.trim_start().to_owned() })
    };
    // Git's exit code is ignored: a deleted branch has no reflog.
    Ok(String::from_utf8_lossy(&log.stdout).lines().filter_map(logged).collect())
}

/// Returns each stash with its message, in no particular order.
pub fn stashes_with_messages(repo: &Repository) -> Result<Vec<(String, String)>, CommandError> {
    let moves = match fs::read(repo.common_dir.join("logs/refs/stash")) {
        Ok(log) => parse(&String::from_utf8_lossy(&log)),
        Err(_) if repo.common_dir.join("reftable").exists() => ask(&repo.checkout(), "refs/stash")?,
        Err(_) => Vec::new(),
    };
    Ok(moves.into_iter().map(|it| (it.new, it.message)).collect())
}

/// Parses lines of the form `<old> <new> <name> <email> <time> <zone> TAB <message>`.
fn parse(log: &str) -> Vec<HeadMove> {
    let line = |line: &str| {
        let (head, message) = line.split_once('\t').unwrap_or((line, ""));
        let mut ids = head.split(' ');
        Some(HeadMove { old: ids.next()?.to_owned(), new: ids.next()?.to_owned(), message: message.to_owned() })
    };
    log.lines().filter_map(line).collect()
}

fn ask(dir: &Checkout, name: &str) -> Result<Vec<HeadMove>, CommandError> {
    let log = Git::read(dir).args(["log", "--walk-reflogs", "--format=%H %gs", name, "--"]).output()?;
    let log = String::from_utf8_lossy(&log.stdout).into_owned();
    let newest_first: Vec<(&str, &str)> = log.lines().filter_map(|line| line.split_once(' ')).collect();
    let mut old = String::new();
    let mut moves = Vec::new();
    for (new, message) in newest_first.into_iter().rev() {
        moves.push(HeadMove {
            old: std::mem::replace(&mut old, new.to_owned()),
            new: new.to_owned(),
            message: message.to_owned(),
        });
    }
    Ok(moves)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::testing::Fixture;

    #[test]
    fn libgit2_and_git_read_the_same_reflog() {
        let fixture = Fixture::new();
        fixture.commit("readme.txt", "x\n");
        fixture.git(&["commit", "-q", "--amend", "-m", "explain main@{1} and @{u} 5}"]);
        let name = "refs/heads/main";
        assert_eq!(ask_log(&fixture.repo, name).unwrap(), refs::log(fixture.root(), name).unwrap());
    }
}
