//! The repository that workers work in: its folders, its trust, its integration branch, and the lock under which its
//! list of worktrees changes.
//!
//! Nothing here touches a tracked file.

use std::fs::{self, File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::checkout::{branch_commit, checked_out, resolve_commit};
use super::command::{CommandError, Git, require_supported_version};
use super::identity::{CommitIdentity, identity};
use super::layout::{own_records, zero_id};
use super::refs;
use super::trust::{Checkout, Trust};
use crate::mission::hint::{Hint, Hinted};

const LOCK_FILE: &str = "orchestrator-boss.lock";

#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    #[error(transparent)]
    Git(#[from] CommandError),
    #[error("cannot read the git repository of {}: {}", dir.display(), stderr.trim())]
    Unreadable { dir: PathBuf, stderr: String },
    #[error("cannot find the main worktree of {}: its working files are in another folder", common_dir.display())]
    NoMainWorktree { common_dir: PathBuf },
    #[error("cannot determine the integration branch: {} has a detached HEAD", root.display())]
    Detached { root: PathBuf },
    #[error("cannot commit in {}: git has no identity", dir.display())]
    MissingIdentity { dir: PathBuf },
    #[error("cannot resolve {name:?} to a commit: there is no such branch, tag or commit here")]
    UnknownCommit { name: String },
    #[error("cannot resolve {name:?} to a commit: it can mean {}", meanings.join(" or "))]
    Ambiguous { name: String, meanings: Vec<String> },
    #[error("cannot choose the remote of branch {branch}: the remotes {} each have that branch", remotes.join(", "))]
    SeveralRemotes { branch: String, remotes: Vec<String> },
    #[error("cannot find branch {branch}{why}: it is not among the branches of {} ({branches})", root.display())]
    NoSuchBranch { branch: String, why: &'static str, root: PathBuf, branches: String },
    #[error("cannot start a worktree from {what}: it has no commit yet")]
    NoCommits {
        what: String,
        /// Working tree in which the first commit can be made. `None` for a bare repository.
        tree: Option<PathBuf>,
    },
    #[error("cannot lock {}", path.display())]
    Lock { path: PathBuf, source: io::Error },
    #[error("cannot add {pattern} to {}", path.display())]
    Exclude { pattern: String, path: PathBuf, source: io::Error },
}

impl Hinted for RepositoryError {
    fn hints(&self) -> Vec<Hint> {
        match self {
            Self::Git(error) => error.hints(),
            Self::Unreadable { dir, .. } => vec![Hint::Run(format!("git -C {} status", dir.display()))],
            Self::NoMainWorktree { .. } => vec![Hint::to("give a path inside the main worktree")],
            Self::Detached { .. } => vec![
                Hint::to("check out a branch there"),
                Hint::to("name `base` in each mission and `into` at the integration"),
                Hint::Set("integration_branch"),
            ],
            Self::MissingIdentity { .. } => {
                let name = "git config --global user.name \"Your Name\"";
                vec![Hint::Run(format!("{name} && git config --global user.email you@example.com"))]
            }
            Self::Ambiguous { .. } => vec![Hint::to("name one of these in full")],
            Self::SeveralRemotes { branch, remotes } => {
                let track = |remote: &String| Hint::Run(format!("git branch --track {branch} {remote}/{branch}"));
                remotes
                    .iter()
                    .map(track)
                    .chain([Hint::to("set checkout.defaultRemote in git's configuration")])
                    .collect()
            }
            Self::NoCommits { tree: Some(tree), .. } => {
                vec![Hint::Run(format!("git -C {} commit --allow-empty -m \"First commit\"", tree.display()))]
            }
            Self::NoCommits { tree: None, .. } => vec![Hint::to("push a commit to it from a clone")],
            // A branch that a record or a setting names.
            Self::NoSuchBranch { why, .. } if !why.is_empty() => vec![
                Hint::to("create the branch again"),
                Hint::to("name `base` in each mission, and `into` at the integration"),
            ],
            Self::UnknownCommit { .. } | Self::NoSuchBranch { .. } | Self::Lock { .. } | Self::Exclude { .. } => {
                Vec::new()
            }
        }
    }
}

/// A git repository with all its worktrees, and the trust of git calls in it. Values are equal if they are of one
/// repository, whichever folder it was found from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Repository {
    /// `None` for a bare repository.
    pub main_worktree: Option<PathBuf>,
    /// The folder with the objects and refs, which all worktrees share.
    pub common_dir: PathBuf,
    pub trust: Trust,
}

impl PartialEq for Repository {
    fn eq(&self, other: &Repository) -> bool {
        (&self.main_worktree, &self.common_dir) == (&other.main_worktree, &other.common_dir)
    }
}

impl Eq for Repository {}

impl Hash for Repository {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.main_worktree, &self.common_dir).hash(state);
    }
}

/// The lock under which worktrees, and the branches they are on, change. It is released when it is dropped.
#[derive(Debug)]
pub struct RepositoryLock {
    _file: File,
}

impl Repository {
    /// Returns the repository that `dir` lies in: a subfolder, a linked worktree and a bare repository are all fine.
    /// `None` if there is none. Finding it runs nothing that the repository names.
    pub fn discover(dir: &Path, trust: &Trust) -> Result<Option<Repository>, RepositoryError> {
        if is_surely_outside(dir) {
            return Ok(None);
        }
        require_supported_version()?;
        let trust = trust.clone();
        if let Some((root, common_dir)) = main_worktree_around(dir) {
            return Ok(Some(Repository { main_worktree: Some(root), common_dir, trust }));
        }
        let git_dir = match rev_parse_path(dir, "--absolute-git-dir") {
            Ok(git_dir) => git_dir,
            Err(error) if is_outside_repository(&error) => return Ok(None),
            Err(CommandError::Failed { dir, stderr, .. }) => return Err(RepositoryError::Unreadable { dir, stderr }),
            Err(error) => return Err(error.into()),
        };
        let common_dir = rev_parse_path(dir, "--git-common-dir")?;
        let main_worktree = if is_bare(&common_dir)? { None } else { Some(main_worktree(dir, &git_dir, &common_dir)?) };
        Ok(Some(Repository { main_worktree, common_dir, trust }))
    }

    /// Returns the main worktree, or the folder of a bare repository. Relative paths are resolved against it.
    pub fn root(&self) -> &Path {
        self.main_worktree.as_deref().unwrap_or(&self.common_dir)
    }

    /// Returns this repository with another trust.
    pub fn trusting(self, trust: Trust) -> Repository {
        Repository { trust, ..self }
    }

    /// Returns a folder of this repository, or of one inside it, in which git may run. A relative path is below the
    /// root.
    pub fn at(&self, path: impl AsRef<Path>) -> Checkout {
        let path = self.root().join(path);
        let git_dir = if path == self.root() { None } else { own_records(&self.common_dir, &path) };
        Checkout::new(path, &self.trust).with_git_dir(git_dir)
    }

    /// Returns the root as a folder in which git may run.
    pub fn checkout(&self) -> Checkout {
        self.at(self.root())
    }

    /// A reading call at the root.
    pub fn read(&self) -> Git {
        Git::read(&self.checkout())
    }

    /// A call at the root that changes something.
    pub fn write(&self) -> Git {
        Git::write(&self.checkout())
    }

    /// Returns the branch checked out in the main worktree, without `refs/heads/`. It may have no commit yet.
    pub fn integration_branch(&self) -> Result<String, RepositoryError> {
        checked_out(&self.checkout())?.ok_or_else(|| RepositoryError::Detached { root: self.root().to_owned() })
    }

    /// Returns the commit of a branch that is checked out in `tree`, or an error that explains why there is none.
    pub fn commit_checked_out(&self, tree: &Checkout, branch: &str) -> Result<String, RepositoryError> {
        branch_commit(tree, branch)?.ok_or_else(|| self.no_commits(tree, branch))
    }

    fn no_commits(&self, tree: &Path, branch: &str) -> RepositoryError {
        let is_empty = refs::all(self.root()).is_some_and(|refs| refs.is_empty());
        let what = if is_empty {
            format!("the repository at {}", self.root().display())
        } else {
            format!("branch {branch}, which is checked out in {}", tree.display())
        };
        let is_bare = self.main_worktree.is_none() && tree == self.root();
        let tree = (!is_bare).then(|| tree.to_owned());
        RepositoryError::NoCommits { what, tree }
    }

    /// Returns the commit id of an untrusted name.
    pub fn resolve(&self, name: &str) -> Result<String, RepositoryError> {
        let seen = resolve_commit(&self.checkout(), name)?;
        seen.ok_or_else(|| RepositoryError::UnknownCommit { name: name.to_owned() })
    }

    /// Restores a deleted branch at its last known commit. Returns `false` if the branch exists or the commit no longer
    /// does.
    pub fn restore_branch(&self, branch: &str, commit: &str) -> Result<bool, RepositoryError> {
        if branch_commit(&self.checkout(), branch)?.is_some() || resolve_commit(&self.checkout(), commit)?.is_none() {
            return Ok(false);
        }
        let message = "branch: made again at its last commit";
        let (name, absent) = (format!("refs/heads/{branch}"), zero_id(commit));
        self.write().args(["update-ref", "-m", message, &name, commit, &absent]).run()?;
        Ok(true)
    }

    /// Returns who would commit here, by git's own rules.
    pub fn identity(&self) -> Result<CommitIdentity, RepositoryError> {
        identity(&self.checkout())?.ok_or_else(|| RepositoryError::MissingIdentity { dir: self.root().to_owned() })
    }

    /// Has git ignore `pattern` in all worktrees, without touching a tracked file. A repeated call adds nothing.
    pub fn exclude(&self, pattern: &str) -> Result<(), RepositoryError> {
        let path = self.common_dir.join("info/exclude");
        // Usually it is there, and parallel creations need not wait for each other.
        if fs::read(&path).is_ok_and(|text| has_line(&text, pattern)) {
            return Ok(());
        }
        let _lock = self.lock()?;
        add_line(&path, pattern).map_err(|source| RepositoryError::Exclude {
            pattern: pattern.to_owned(),
            path,
            source,
        })
    }

    /// Returns whether the index has anything under `path`, which is relative to the root.
    pub fn tracks(&self, path: &str) -> Result<bool, CommandError> {
        if self.main_worktree.is_none() {
            return Ok(false);
        }
        Ok(!self.read().args(["ls-files", "-z", "--", path]).run()?.is_empty())
    }

    /// Waits until no other thread or process changes worktrees of this repository. Without this lock, parallel
    /// `git worktree add` fails up to a third of the time (measured, git 2.47). Held only for milliseconds.
    ///
    /// The lock belongs to the opened file, so that it also keeps the threads of one process apart.
    pub fn lock(&self) -> Result<RepositoryLock, RepositoryError> {
        let path = self.common_dir.join(LOCK_FILE);
        let locked = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .and_then(|file| file.lock().map(|()| file));
        match locked {
            Ok(file) => Ok(RepositoryLock { _file: file }),
            Err(source) => Err(RepositoryError::Lock { path, source }),
        }
    }
}

fn rev_parse_path(dir: &Path, question: &str) -> Result<PathBuf, CommandError> {
    Git::without_trust(dir).args(["rev-parse", "--path-format=absolute", question]).path()
}

/// Returns the URLs of all remotes, as they are configured.
pub fn remote_urls(repository: &Repository) -> Result<Vec<String>, CommandError> {
    let listed = repository.read().args(["config", "-z", "--get-regexp", r"^remote\..*\.url$"]).answer()?;
    let listed = String::from_utf8_lossy(&listed.unwrap_or_default()).into_owned();
    Ok(listed.split('\0').filter_map(|record| Some(record.split_once('\n')?.1.to_owned())).collect())
}

/// Returns the root of the main or linked working tree that contains a folder. `None` in a bare repository.
pub fn working_tree(dir: &Path) -> Option<PathBuf> {
    refs::working_tree(dir).or_else(|| rev_parse_path(dir, "--show-toplevel").ok())
}

/// Returns whether nothing around the folder can be a repository. Git is not started.
fn is_surely_outside(dir: &Path) -> bool {
    let is_absent =
        |path: &Path| fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    let holds_none = |folder: &Path| {
        let git = folder.join(".git");
        // A folder without a HEAD is no repository, under any name.
        let is_other = fs::symlink_metadata(&git).is_ok_and(|found| found.is_dir()) && is_absent(&git.join("HEAD"));
        (is_other || is_absent(&git)) && is_absent(&folder.join("HEAD"))
    };
    dir.canonicalize().is_ok_and(|dir| dir.ancestors().all(holds_none))
}

/// Finds a main worktree and its shared folder in one start of git, the usual case. `None` in any other.
fn main_worktree_around(dir: &Path) -> Option<(PathBuf, PathBuf)> {
    let questions = ["--absolute-git-dir", "--git-common-dir", "--show-toplevel"];
    let said = Git::without_trust(dir).args(["rev-parse", "--path-format=absolute"]).args(questions).text().ok()?;
    // A path may hold a newline; then there are more lines.
    let [git_dir, common_dir, root] = said.split('\n').collect::<Vec<_>>()[..] else { return None };
    (git_dir == common_dir).then(|| (root.into(), common_dir.into()))
}

fn is_outside_repository(error: &CommandError) -> bool {
    // A linked worktree whose repository is gone says "not a git repository: <path>", and that is an error.
    matches!(error, CommandError::Failed { stderr, .. } if stderr.contains("not a git repository (or any"))
}

fn is_bare(common_dir: &Path) -> Result<bool, CommandError> {
    let answer = Git::without_trust(common_dir).args(["rev-parse", "--is-bare-repository"]).text()?;
    Ok(answer == "true")
}

fn main_worktree(dir: &Path, git_dir: &Path, common_dir: &Path) -> Result<PathBuf, RepositoryError> {
    if git_dir == common_dir
        && let Ok(top) = rev_parse_path(dir, "--show-toplevel")
    {
        return Ok(top);
    }
    match common_dir.parent() {
        Some(parent) if common_dir.ends_with(".git") => Ok(parent.to_owned()),
        // A submodule's repository names its worktree in its configuration.
        _ => rev_parse_path(common_dir, "--show-toplevel")
            .map_err(|_| RepositoryError::NoMainWorktree { common_dir: common_dir.to_owned() }),
    }
}

fn has_line(text: &[u8], line: &str) -> bool {
    text.split(|byte| *byte == b'\n').any(|it| it == line.as_bytes())
}

fn add_line(path: &Path, line: &str) -> io::Result<()> {
    let old = match fs::read(path) {
        Ok(old) => old,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    if has_line(&old, line) {
        return Ok(());
    }
    // Only `info` itself: a repository that was moved is not begun again at its old place.
    match path.parent().map(fs::create_dir) {
        Some(Err(error)) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let gap = if old.is_empty() || old.ends_with(b"\n") { "" } else { "\n" };
    OpenOptions::new().append(true).create(true).open(path)?.write_all(format!("{gap}{line}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::testing::{Fixture, git, read};
    use std::thread;

    #[test]
    fn repository_is_found_from_every_folder() {
        let fixture = Fixture::new();
        fixture.write("deep/er/file", "");
        let linked = fixture.beside("linked");
        fixture.git(&["worktree", "add", "-q", "-b", "x", linked.to_str().unwrap()]);
        for dir in [fixture.root().join("deep/er"), fixture.root().join(".git"), linked] {
            let found = Repository::discover(&dir, &Trust::everything()).unwrap().unwrap();
            assert_eq!(found, fixture.repo, "from {}", dir.display());
        }
        let outside = fixture.beside("outside");
        fs::create_dir_all(outside.join(".git")).unwrap();
        assert_eq!(Repository::discover(&outside, &Trust::everything()).unwrap(), None);
    }

    #[test]
    fn bare_repository_is_found_from_its_worktrees() {
        let fixture = Fixture::new();
        let bare = fixture.beside("bare.git");
        fixture.git(&["clone", "-q", "--bare", ".", bare.to_str().unwrap()]);
        git(&bare, &["worktree", "add", "-q", "-b", "x", "../linked"]);
        for dir in [bare.clone(), fixture.beside("linked")] {
            let found = Repository::discover(&dir, &Trust::everything()).unwrap().unwrap();
            assert_eq!((found.main_worktree.as_ref(), found.root()), (None, &*bare));
            assert_eq!(found.integration_branch().unwrap(), "main");
        }
    }

    #[test]
    fn worktree_without_its_repository_is_an_error() {
        let fixture = Fixture::new();
        let linked = fixture.beside("linked");
        fixture.git(&["worktree", "add", "-q", "-b", "x", linked.to_str().unwrap()]);
        fs::remove_dir_all(fixture.root().join(".git")).unwrap();
        assert!(Repository::discover(&linked, &Trust::everything()).is_err());
    }

    #[test]
    fn detached_head_is_no_integration_branch() {
        let fixture = Fixture::new();
        assert_eq!(fixture.repo.integration_branch().unwrap(), "main");
        fixture.git(&["checkout", "-q", "--detach"]);
        assert!(matches!(fixture.repo.integration_branch(), Err(RepositoryError::Detached { .. })));
    }

    #[test]
    fn missing_identity_names_the_fixing_command() {
        let fixture = Fixture::new();
        assert_eq!(fixture.repo.identity().unwrap().name, "Tess Ter");
        fixture.git(&["config", "--unset", "user.name"]);
        fixture.git(&["config", "user.useConfigOnly", "true"]);
        fixture.git(&["config", "--unset", "user.email"]);
        let error = crate::mission::hint::with_hints(&fixture.repo.identity().unwrap_err());
        assert!(error.contains("git config --global user.name"), "{error}");
    }

    #[test]
    fn concurrent_excludes_add_one_line() {
        let fixture = Fixture::new();
        let exclude = fixture.repo.common_dir.join("info/exclude");
        fs::write(&exclude, "*.swp").unwrap();
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| fixture.repo.exclude(".orchestrator/").unwrap());
            }
        });
        assert_eq!(read(&fixture.repo.common_dir, "info/exclude"), "*.swp\n.orchestrator/\n");
    }

    #[test]
    fn names_that_look_like_options_resolve_to_nothing() {
        let fixture = Fixture::new();
        for name in ["--all", "-", "", "main\0", "main..main", "nothing", "HEAD^{tree}"] {
            assert!(matches!(fixture.repo.resolve(name), Err(RepositoryError::UnknownCommit { .. })), "{name:?}");
        }
        assert_eq!(fixture.repo.resolve("main").unwrap(), fixture.git(&["rev-parse", "HEAD"]));
    }
}
