//! Copies the files that `.worktreeinclude` names into a new worktree. A project needs them although git ignores them,
//! for example `.env`.
//!
//! The list is at the root of the main worktree and has gitignore syntax. A file is copied only if it matches and git
//! ignores it, which is the rule of Claude Code, Codex and Conductor for the same list. No file of the branch is
//! overwritten, and nothing is written outside the new worktree.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use git2::{ObjectType, Oid};
use serde::{Deserialize, Serialize};

use super::command::{CommandError, Git};
use super::repository::Repository;
use super::trust::Checkout;
use crate::mission::hint::{Hint, Hinted};

const LIST_FILE: &str = ".worktreeinclude";

/// Folder of this program. It contains the worktrees, so it is never copied.
const OWN_FOLDER: &str = ".orchestrator";

#[derive(Debug, thiserror::Error)]
pub enum IncludeError {
    #[error(transparent)]
    Git(#[from] CommandError),
    #[error("cannot copy {path}, which {LIST_FILE} names")]
    Copy { path: String, source: io::Error },
}

impl Hinted for IncludeError {
    fn hints(&self) -> Vec<Hint> {
        match self {
            Self::Git(error) => error.hints(),
            Self::Copy { .. } => Vec::new(),
        }
    }
}

/// A file that was copied into a worktree, by its path there, with the hash of its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    pub path: String,
    pub hash: String,
}

impl Copied {
    /// Returns whether the copy in `worktree` has another content now. A deleted copy does not count as changed.
    pub fn is_changed(&self, worktree: &Path) -> bool {
        hash(&worktree.join(&self.path)).is_ok_and(|hash| hash != self.hash)
    }
}

/// The result of copying.
#[derive(Debug, Default)]
pub struct Included {
    pub copied: Vec<Copied>,
    /// Files that were not copied, each with the reason for the user.
    pub skipped: Vec<String>,
}

/// Copies the files that the main worktree's `.worktreeinclude` names. A bare repository has no such list.
pub fn copy(repo: &Repository, worktree: &Path) -> Result<Included, IncludeError> {
    let mut included = Included::default();
    let Some(from) = &repo.main_worktree else {
        return Ok(included);
    };
    if !from.join(LIST_FILE).is_file() {
        return Ok(included);
    }
    for path in included_paths(&repo.checkout())? {
        let Some(name) = path.to_str() else {
            let shown = path.display();
            included.skipped.push(format!("{shown}: its name is not UTF-8"));
            continue;
        };
        let failed = |source| IncludeError::Copy { path: name.to_owned(), source };
        match copy_one(from, worktree, &path).map_err(failed)? {
            Some(reason) => included.skipped.push(format!("{name}: {reason}")),
            None => included
                .copied
                .push(Copied { path: name.to_owned(), hash: hash(&worktree.join(&path)).map_err(failed)? }),
        }
    }
    Ok(included)
}

fn included_paths(from: &Checkout) -> Result<Vec<PathBuf>, CommandError> {
    let matching = Git::read(from)
        .args(["ls-files", "-z", "--others", "--ignored"])
        .arg(format!("--exclude-from={LIST_FILE}"))
        .run()?;
    if matching.is_empty() {
        return Ok(Vec::new());
    }
    let ignored = Git::read(from).args(["check-ignore", "-z", "--stdin"]).input(matching).answer()?.unwrap_or_default();
    Ok(ignored
        .split(|byte| *byte == 0)
        // The path of a nested repository ends with a slash. Its files are not copied.
        .filter(|path| !path.is_empty() && !path.ends_with(b"/"))
        .map(|path| PathBuf::from(OsStr::from_bytes(path)))
        .filter(|path| !path.starts_with(OWN_FOLDER))
        .collect())
}

/// Copies one file. Returns the reason if it cannot be copied.
fn copy_one(from: &Path, to: &Path, path: &Path) -> io::Result<Option<&'static str>> {
    let (source, target) = (from.join(path), to.join(path));
    if target.symlink_metadata().is_ok() {
        return Ok(Some("the branch has a file there"));
    }
    if !make_parents(to, path)? {
        return Ok(Some("the branch has a file or link as one of its parent folders"));
    }
    let kind = source.symlink_metadata()?.file_type();
    let link = if kind.is_symlink() { Some(fs::read_link(&source)?) } else { None };
    match link {
        // A link out of the worktree would let a worker write to a file of the user, so the file itself is copied.
        Some(link) if !leads_outside(path, &link) => symlink(link, &target)?,
        Some(_) if !source.is_file() => return Ok(Some("it is a link that leads outside, and not to a file")),
        None if !kind.is_file() => return Ok(Some("it is neither a file nor a symbolic link")),
        _ => drop(fs::copy(&source, &target)?),
    }
    Ok(None)
}

/// Creates the parent folders. Returns `false` if one of them is a file or a symbolic link, which could lead outside.
pub(super) fn make_parents(root: &Path, path: &Path) -> io::Result<bool> {
    let mut folder = root.to_owned();
    for component in path.parent().into_iter().flat_map(Path::components) {
        let Component::Normal(name) = component else {
            return Ok(false);
        };
        folder.push(name);
        match folder.symlink_metadata() {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir(&folder)?,
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Returns whether a link at this path from the root leads out of the root. An absolute one would lead into the main
/// checkout.
pub(super) fn leads_outside(path: &Path, target: &Path) -> bool {
    let mut depth = path.components().count() as isize - 1;
    target.components().any(|component| {
        match component {
            Component::Normal(_) => depth += 1,
            Component::ParentDir => depth -= 1,
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => depth = -1,
        }
        depth < 0
    })
}

/// Returns the hash of a file's content, or of a symbolic link's target.
fn hash(path: &Path) -> io::Result<String> {
    let hash = if path.symlink_metadata()?.is_symlink() {
        Oid::hash_object(ObjectType::Blob, fs::read_link(path)?.as_os_str().as_bytes())
    } else {
        Oid::hash_file(ObjectType::Blob, path)
    };
    hash.map(|id| id.to_string()).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::testing::{Fixture, read, write};

    fn project() -> Fixture {
        let fixture = Fixture::new();
        fixture.write(".gitignore", ".env*\nlocal/\nbuild/\n");
        fixture.write(".worktreeinclude", ".env\nlocal/\nnotes.txt\n");
        fixture.commit("code.rs", "fn main() {}\n");
        fixture.write(".env", "KEY=1\n");
        fixture.write(".env.other", "not named\n");
        fixture.write("local/deep/settings", "a\n");
        fixture.write("notes.txt", "named, but not ignored\n");
        fixture
    }

    #[test]
    fn link_to_another_place_is_copied_as_its_file() {
        let fixture = project();
        fixture.write("local/own", "own\n");
        let outside = fixture.beside("shared");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("env"), "SHARED=1\n").unwrap();
        for (name, target) in [("file", outside.join("env")), ("folder", outside.clone()), ("inner", "own".into())] {
            symlink(target, fixture.repo.root().join("local").join(name)).unwrap();
        }
        let made = fixture.worktree("work");
        fs::write(made.path.join("local/file"), "changed\n").unwrap();
        assert_eq!(fs::read_to_string(outside.join("env")).unwrap(), "SHARED=1\n");
        assert_eq!(fs::read_link(made.path.join("local/inner")).unwrap(), Path::new("own"));
        assert_eq!(made.not_copied, ["local/folder: it is a link that leads outside, and not to a file"]);
    }

    #[test]
    fn only_named_and_ignored_files_are_copied() {
        let fixture = project();
        let made = fixture.worktree("work");
        let copied: Vec<_> = made.copies.iter().map(|c| c.path.as_str()).collect();
        assert_eq!(copied, [".env", "local/deep/settings"]);
        assert_eq!(read(&made.path, ".env"), "KEY=1\n");
        assert!(!made.path.join(".env.other").exists());
        assert!(!made.path.join("notes.txt").exists());
        assert!(!made.copies[0].is_changed(&made.path));
        write(&made.path, ".env", "KEY=2\n");
        assert!(made.copies[0].is_changed(&made.path));
    }

    #[test]
    fn no_copy_follows_a_link_of_the_branch() {
        let fixture = project();
        let outside = fixture.beside("outside");
        fs::create_dir(&outside).unwrap();
        fixture.git(&["checkout", "-qb", "hostile"]);
        fs::remove_dir_all(fixture.root().join("local")).unwrap();
        symlink(&outside, fixture.root().join("local")).unwrap();
        fixture.git(&["add", "-f", "local"]);
        fixture.git(&["commit", "-qm", "link"]);
        fixture.git(&["checkout", "-q", "main"]);
        fixture.write("local/deep/settings", "a\n");
        let made = fixture.worktree("hostile");
        assert_eq!(outside.read_dir().unwrap().count(), 0);
        assert_eq!(made.not_copied.len(), 1, "{:?}", made.not_copied);
    }
}
