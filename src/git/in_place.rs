//! Checks whether git, run in a worktree's folder, works on that folder. A `core.worktree` that all worktrees share, or
//! a replaced `.git`, makes git work on another folder. Commits would then not contain the files of the worktree.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::command::{CommandError, Git};
use super::layout::own_git_dir;
use super::repository::Repository;
use super::trust::Checkout;
use crate::mission::hint::{Hint, Hinted};

#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error(
        "cannot use the worktree {}: in it, git works on {} with the git directory {}",
        worktree.display(),
        works_on.display(),
        records.display()
    )]
    Elsewhere { worktree: PathBuf, works_on: PathBuf, records: PathBuf },
    #[error("cannot use the worktree {}: its `.git` does not lead to git's record of it", worktree.display())]
    Replaced { worktree: PathBuf },
    #[error("cannot determine which folder git works on in the worktree {}", worktree.display())]
    Unknown { worktree: PathBuf, source: CommandError },
}

impl Hinted for PlaceError {
    fn hints(&self) -> Vec<Hint> {
        match self {
            Self::Elsewhere { .. } => {
                vec![Hint::to("correct core.worktree and core.bare in `git config --list --show-origin`")]
            }
            Self::Replaced { worktree } => {
                let repair = format!("git worktree repair {}", worktree.display());
                vec![Hint::to(format!("move that `.git` away and run `{repair}`"))]
            }
            Self::Unknown { source, .. } => source.hints(),
        }
    }
}

/// Returns an error unless git's top-level folder and git directory are those of this worktree.
pub fn check_in_place(repo: &Repository, worktree: &Path) -> Result<(), PlaceError> {
    let replaced = || PlaceError::Replaced { worktree: worktree.to_owned() };
    let own = own_git_dir(&repo.common_dir, worktree).and_then(|own| own.canonicalize().ok()).ok_or_else(replaced)?;
    if linked(worktree).is_none_or(|linked| linked != own) {
        return Err(replaced());
    }
    match has_own_settings(repo) {
        Some(false) => Ok(()),
        _ => ask(&repo.at(worktree), &own),
    }
}

/// Performs the same check for a new worktree that is still unused. If shared settings redirect git elsewhere, the
/// worktree gets settings of its own.
pub(super) fn put_in_place(repo: &Repository, worktree: &Path) -> Result<(), PlaceError> {
    let Err(error) = check_in_place(repo, worktree) else { return Ok(()) };
    let own = own_git_dir(&repo.common_dir, worktree).filter(|_| has_own_settings(repo) == Some(true));
    let (Some(own), false) = (own, matches!(error, PlaceError::Replaced { .. })) else { return Err(error) };
    let failed = |source| PlaceError::Unknown { worktree: worktree.to_owned(), source };
    let file = own.join("config.worktree");
    let set = |name: &str| repo.write().args(["config", "--file"]).arg(&file).arg(name);
    set("core.worktree").arg(worktree).run().map_err(failed)?;
    set("core.bare").arg("false").run().map_err(failed)?;
    check_in_place(repo, worktree)
}

/// Returns the directory that the worktree's `.git` file points to.
fn linked(worktree: &Path) -> Option<PathBuf> {
    let text = fs::read(worktree.join(".git")).ok()?;
    let path = text.strip_prefix(b"gitdir: ")?;
    let path = path.strip_suffix(b"\n").unwrap_or(path);
    worktree.join(std::ffi::OsStr::from_bytes(path)).canonicalize().ok()
}

/// Returns whether worktree-specific settings are enabled (`extensions.worktreeConfig`). If not, git ignores
/// core.worktree and core.bare in a linked worktree (gitrepository-layout(5), `setup.c`). `None`: only the git program
/// can answer.
fn has_own_settings(repo: &Repository) -> Option<bool> {
    let opened = git2::Repository::open(&repo.common_dir).ok()?;
    let settings = opened.config().and_then(|mut config| config.snapshot()).ok()?;
    match settings.get_bool("extensions.worktreeconfig") {
        Ok(is_set) => Some(is_set),
        Err(error) if error.code() == git2::ErrorCode::NotFound => Some(false),
        Err(_) => None,
    }
}

fn ask(worktree: &Checkout, own: &Path) -> Result<(), PlaceError> {
    let unknown = |source| PlaceError::Unknown { worktree: worktree.to_path_buf(), source };
    let question = ["rev-parse", "--path-format=absolute", "--show-toplevel", "--absolute-git-dir"];
    let answer = Git::read(worktree).args(question).path().map_err(unknown)?;
    let real = worktree.canonicalize().unwrap_or_else(|_| worktree.to_path_buf());
    // The whole output is compared, because a path may contain a newline.
    if answer.as_os_str().as_bytes() == [real.as_os_str().as_bytes(), b"\n", own.as_os_str().as_bytes()].concat() {
        return Ok(());
    }
    let text = answer.to_string_lossy().into_owned();
    let (works_on, records) = text.split_once('\n').unwrap_or((&text, ""));
    Err(PlaceError::Elsewhere { worktree: worktree.to_path_buf(), works_on: works_on.into(), records: records.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::testing::{Fixture, commit, git, identify, read};
    use crate::git::{Request, create};

    fn work() -> Request {
        Request { branch: "work".to_owned(), ..Request::default() }
    }

    /// Creates a submodule, on request with worktree-specific settings, as `git sparse-checkout` leaves it.
    fn submodule(settings_of_worktrees: bool) -> (Fixture, Repository) {
        let fixture = Fixture::new();
        let lib = Fixture::new();
        let url = lib.root().to_str().unwrap();
        fixture.git(&["-c", "protocol.file.allow=always", "submodule", "add", "-q", url, "sub"]);
        let root = fixture.root().join("sub");
        identify(&root);
        if settings_of_worktrees {
            git(&root, &["config", "extensions.worktreeConfig", "true"]);
        }
        let repo = Repository::discover(&root, &crate::git::Trust::everything()).unwrap().unwrap();
        (fixture, repo)
    }

    #[test]
    fn worktree_of_a_submodule_is_in_place() {
        for settings_of_worktrees in [false, true] {
            let (_fixture, repo) = submodule(settings_of_worktrees);
            let before = git(repo.root(), &["status", "--porcelain"]);
            let made = create(&repo, &work(), None).unwrap();
            assert_eq!(read(&made.path, "readme.txt"), "hello\n");
            check_in_place(&repo, &made.path).unwrap();
            commit(&made.path, "mine.txt", "x\n");
            assert_eq!(git(&made.path, &["ls-tree", "-r", "--name-only", "work"]), "mine.txt\nreadme.txt");
            assert_eq!(git(repo.root(), &["status", "--porcelain"]), before);
        }
    }

    #[test]
    fn redirecting_settings_are_refused() {
        let fixture = Fixture::new();
        let made = create(&fixture.repo, &work(), None).unwrap();
        // A worker can change these settings too.
        fixture.git(&["config", "extensions.worktreeConfig", "true"]);
        fixture.git(&["config", "core.worktree", fixture.root().to_str().unwrap()]);
        let error = check_in_place(&fixture.repo, &made.path).unwrap_err();
        assert!(matches!(&error, PlaceError::Elsewhere { works_on, .. } if works_on == fixture.root()), "{error}");
        fixture.git(&["config", "--unset", "core.worktree"]);
        fixture.git(&["config", "core.bare", "true"]);
        assert!(check_in_place(&fixture.repo, &made.path).is_err());
        fixture.git(&["config", "core.bare", "false"]);
        check_in_place(&fixture.repo, &made.path).unwrap();
    }

    #[test]
    fn replaced_dot_git_is_refused() {
        let fixture = Fixture::new();
        let made = create(&fixture.repo, &work(), None).unwrap();
        let own = fs::read(made.path.join(".git")).unwrap();
        fs::remove_file(made.path.join(".git")).unwrap();
        git(&made.path, &["init", "-q"]);
        let error = check_in_place(&fixture.repo, &made.path).unwrap_err();
        assert!(matches!(error, PlaceError::Replaced { .. }), "{error}");
        fs::remove_dir_all(made.path.join(".git")).unwrap();
        for other in
            [&b"gitdir: /nowhere\n"[..], b"rubbish", format!("gitdir: {}/.git", fixture.root().display()).as_bytes()]
        {
            fs::write(made.path.join(".git"), other).unwrap();
            assert!(check_in_place(&fixture.repo, &made.path).is_err());
        }
        fs::write(made.path.join(".git"), own).unwrap();
        check_in_place(&fixture.repo, &made.path).unwrap();
    }
}
