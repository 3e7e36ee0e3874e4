//! The list of a repository's worktrees. [`super::worktree`] creates them, and [`super::remove()`] removes them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use super::command::CommandError;
use super::layout::{Listed, zero_id};
use super::refs;
use super::repository::Repository;

/// Returns all worktrees of a repository. The main one, or the bare repository, comes first.
pub fn list(repo: &Repository) -> Result<Vec<Listed>, CommandError> {
    refs::worktrees(repo.main_worktree.as_deref(), &repo.common_dir).map_or_else(|| ask_list(repo), Ok)
}

/// Does the same by the git program.
pub(super) fn ask_list(repo: &Repository) -> Result<Vec<Listed>, CommandError> {
    let records = patiently(|| repo.read().args(["worktree", "list", "--porcelain", "-z"]).run())?;
    Ok(parse_list(&records))
}

/// Runs a command again while a worktree of the repository is half created. Git then fails with `failed to read
/// …/commondir: Success` (seen with git 2.47). This program's own creations hold the lock, but a user's git does not,
/// nor does a creation whose server was killed. The git of a killed server may also still hold the lock file of a ref.
pub(super) fn patiently<T>(command: impl Fn() -> Result<T, CommandError>) -> Result<T, CommandError> {
    const PAUSE: Duration = Duration::from_millis(20);
    const TRIES: usize = 100;
    for _ in 0..TRIES {
        match command() {
            Err(CommandError::Failed { stderr, .. })
                if stderr.contains("commondir") || stderr.contains(".lock': File exists") =>
            {
                thread::sleep(PAUSE)
            }
            result => return result,
        }
    }
    command()
}

/// Parses `git worktree list --porcelain -z`: attributes end with NUL, worktrees with one NUL more.
fn parse_list(records: &[u8]) -> Vec<Listed> {
    let mut worktrees = Vec::new();
    for record in records.split(|byte| *byte == 0) {
        let (name, value) = match record.iter().position(|byte| *byte == b' ') {
            Some(space) => (&record[..space], &record[space + 1..]),
            None => (record, &[][..]),
        };
        if name == b"worktree" {
            worktrees.push(Listed { path: PathBuf::from(OsStr::from_bytes(value)), ..Listed::default() });
        }
        let Some(current) = worktrees.last_mut() else {
            continue;
        };
        let text = || String::from_utf8_lossy(value).into_owned();
        match name {
            b"HEAD" => current.head = Some(text()).filter(|id| *id != zero_id(id)),
            b"branch" => current.branch = text().strip_prefix("refs/heads/").map(str::to_owned),
            b"bare" => current.bare = true,
            b"locked" => current.locked = Some(text()),
            _ => {}
        }
    }
    for worktree in &mut worktrees {
        // Git's own `prunable` mark is not given for a locked worktree.
        worktree.missing = !worktree.path.exists();
    }
    worktrees
}
