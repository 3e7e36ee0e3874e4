//! Ignored files that only the worker can have created.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{MOST_PARTS, names, part, shown};
use crate::git::include::Copied;
use crate::git::regenerable::is_regenerable;
use crate::mission::outcome::{NotOnBranch, PartFiles};
use crate::mission::words::{self, count};

/// Maximum number of files counted in an ignored folder.
const MOST_COUNTED: usize = 1_000;

/// Returns the ignored files and folders that only the worker can have created. Files that tools regenerate are not
/// work. `ignored` is git's current list for a worktree that was new when the work began, or was prepared until
/// `prepared_at`: older files are not work either.
pub fn ignored(
    worktree: &Path,
    ignored: &[PathBuf],
    copies: &[Copied],
    prepared_at: Option<SystemTime>,
) -> Option<NotOnBranch> {
    let is_older = |path: &Path| prepared_at.is_some_and(|at| !changed_since(&worktree.join(path), at));
    // The path of each, and its description.
    let mut found: Vec<(String, String)> = Vec::new();
    for path in ignored {
        if copies.iter().any(|copy| Path::new(&copy.path) == path) || is_regenerable(worktree, path) {
            continue;
        }
        let described = match worktree.join(path).symlink_metadata() {
            Ok(kind) if kind.is_dir() => ignored_folder(worktree, path, is_older),
            Ok(_) if is_older(path) => None,
            Ok(kind) if kind.is_file() || kind.is_symlink() => Some(shown(path)),
            _ => None,
        };
        found.extend(described.map(|described| (shown(path), described)));
    }
    if found.is_empty() {
        return None;
    }
    let (paths, described): (Vec<String>, Vec<String>) = found.into_iter().unzip();
    let what = format!("files that git ignores: {}", words::first(&described, MOST_PARTS));
    let how = "`git add -f` the files to keep there, and commit".to_owned();
    let files = PartFiles::Ignored(Some(paths).filter(|paths| paths.len() <= MOST_PARTS));
    Some(NotOnBranch { files: Some(files), ..part(what, shown(worktree), how) })
}

/// Returns the files of a recorded [`PartFiles::Ignored`] that are still there, as one part.
pub fn still_ignored(worktree: &Path, now: &[PathBuf], recorded: Option<&[String]>) -> Option<NotOnBranch> {
    ignored(worktree, &still_there(worktree, now, recorded), &[], None)
}

/// Returns the files and folders of a recorded [`PartFiles::Ignored`] that are still there. Those that were added later
/// are not the worker's. If there were too many to record, all ignored ones count that tools do not regenerate.
pub fn still_there(worktree: &Path, now: &[PathBuf], recorded: Option<&[String]>) -> Vec<PathBuf> {
    let is_recorded = |path: &&PathBuf| recorded.is_none_or(|paths| paths.contains(&shown(path)));
    now.iter().filter(is_recorded).filter(|path| !is_regenerable(worktree, path)).cloned().collect()
}

/// Describes the content of an ignored folder; `None` if there is no work in it.
fn ignored_folder(worktree: &Path, path: &Path, is_older: impl Fn(&Path) -> bool) -> Option<String> {
    let mut files = 0;
    let mut repositories = Vec::new();
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        if worktree.join(&folder).join(".git").symlink_metadata().is_ok() {
            // Each command that changes a repository changes this folder.
            if !is_older(&folder.join(".git")) {
                repositories.push(shown(&folder));
            }
            continue;
        }
        let Ok(entries) = fs::read_dir(worktree.join(&folder)) else {
            return Some(format!("{}/ (unreadable)", shown(path)));
        };
        for entry in entries.flatten() {
            let inside = folder.join(entry.file_name());
            match entry.file_type() {
                _ if is_regenerable(worktree, &inside) => {}
                Ok(kind) if kind.is_dir() => folders.push(inside),
                Ok(_) if is_older(&inside) => {}
                Ok(_) => files += 1,
                Err(_) => {}
            }
            if files > MOST_COUNTED {
                return Some(format!("{}/ (over {MOST_COUNTED} files)", shown(path)));
            }
        }
    }
    let repositories = (!repositories.is_empty()).then(|| format!("a repository at {}", names(&repositories)));
    let files = (files > 0).then(|| count(files, "file"));
    let content: Vec<String> = repositories.into_iter().chain(files).collect();
    (!content.is_empty()).then(|| format!("{}/ ({})", shown(path), content.join(", ")))
}

/// Returns whether the file was created, changed or moved after this time. A copy that keeps its time counts as new.
fn changed_since(path: &Path, at: SystemTime) -> bool {
    let Ok(found) = path.symlink_metadata() else { return true };
    let at = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (found.ctime(), found.ctime_nsec()) > (at.as_secs() as i64, i64::from(at.subsec_nanos()))
}
