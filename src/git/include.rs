//! The files that `.worktreeinclude` names come along into a new worktree: what a project needs and git ignores, such
//! as `.env`.
//!
//! The file lies at the root of the main worktree and has gitignore syntax; a file is copied only if it matches and is
//! ignored by git (the rule of Claude Code, Codex and Conductor, which read the same file). Nothing that the branch
//! itself brings is ever overwritten, and nothing is written outside the new worktree.

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
use crate::mission::hint::{Hint, Hinted};

const LIST_FILE: &str = ".worktreeinclude";

/// Our own folder is never copied, whatever the patterns say: it holds the worktrees themselves.
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

/// A file that we copied into a worktree, relative to it, with the hash of what we copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    pub path: String,
    pub hash: String,
}

impl Copied {
    /// The copy in `worktree` holds something else now. One that was deleted holds nothing to lose.
    pub fn is_changed(&self, worktree: &Path) -> bool {
        hash(&worktree.join(&self.path)).is_ok_and(|hash| hash != self.hash)
    }
}

#[derive(Debug, Default)]
pub struct Included {
    pub copied: Vec<Copied>,
    /// With the reason, for people.
    pub skipped: Vec<String>,
}

/// Copies what the main worktree's `.worktreeinclude` names. A bare repository has none.
pub fn copy(repo: &Repository, worktree: &Path) -> Result<Included, IncludeError> {
    let mut included = Included::default();
    let Some(from) = &repo.main_worktree else {
        return Ok(included);
    };
    if !from.join(LIST_FILE).is_file() {
        return Ok(included);
    }
    for path in included_paths(from)? {
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

fn included_paths(from: &Path) -> Result<Vec<PathBuf>, CommandError> {
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
        // A repository inside the main worktree ends with a slash; its files are not ours to copy.
        .filter(|path| !path.is_empty() && !path.ends_with(b"/"))
        .map(|path| PathBuf::from(OsStr::from_bytes(path)))
        .filter(|path| !path.starts_with(OWN_FOLDER))
        .collect())
}

/// The reason when the file stays behind.
fn copy_one(from: &Path, to: &Path, path: &Path) -> io::Result<Option<&'static str>> {
    let (source, target) = (from.join(path), to.join(path));
    if target.symlink_metadata().is_ok() {
        return Ok(Some("the branch has a file there"));
    }
    if !make_parents(to, path)? {
        return Ok(Some("the branch has something else than a folder on the way to it"));
    }
    let kind = source.symlink_metadata()?.file_type();
    if kind.is_symlink() {
        symlink(fs::read_link(&source)?, &target)?;
    } else if kind.is_file() {
        fs::copy(&source, &target)?;
    } else {
        return Ok(Some("it is neither a file nor a symbolic link"));
    }
    Ok(None)
}

/// False when a symbolic link or a file is on the way: a link could lead out of the worktree.
fn make_parents(root: &Path, path: &Path) -> io::Result<bool> {
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

/// Of a file's content, or of where a symbolic link leads.
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
    use crate::git::{Request, create};

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

    fn worktree(fixture: &Fixture, branch: &str) -> crate::git::Worktree {
        let request = Request { branch: branch.to_owned(), ..Request::default() };
        create(&fixture.repo, &request, None).unwrap()
    }

    #[test]
    fn named_and_ignored_files_come_along() {
        let fixture = project();
        let made = worktree(&fixture, "work");
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
    fn a_link_in_the_branch_cannot_lead_a_copy_outside() {
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
        let made = worktree(&fixture, "hostile");
        assert_eq!(outside.read_dir().unwrap().count(), 0);
        assert_eq!(made.not_copied.len(), 1, "{:?}", made.not_copied);
    }
}
