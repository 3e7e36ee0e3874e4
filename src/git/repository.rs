//! The repository that the work happens in: where it lies, which branch it is on, who commits, and the lock under which
//! the list of its worktrees changes.
//!
//! Nothing here touches a file that is tracked.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use git2::{ObjectType, Oid};
use serde::{Deserialize, Serialize};

use super::command::{CommandError, Git, require_supported_version};
use super::{names, refs};
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

/// A git repository with all its worktrees. The value is equal for every folder of one repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Repository {
    /// `None` for a bare repository.
    pub main_worktree: Option<PathBuf>,
    /// The folder with the objects and refs, which all worktrees share.
    pub common_dir: PathBuf,
}

/// Name and e-mail address that commits carry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub name: String,
    pub email: String,
}

/// Held while the worktrees, or the branches they are on, change. Dropping it lets the next one in.
#[derive(Debug)]
pub struct RepositoryLock {
    _file: File,
}

impl Repository {
    /// The repository that `dir` lies in: a subfolder, a linked worktree and a bare repository are all fine. `None`
    /// when there is none.
    pub fn discover(dir: &Path) -> Result<Option<Repository>, RepositoryError> {
        if is_surely_outside(dir) {
            return Ok(None);
        }
        require_supported_version()?;
        if let Some(found) = main_worktree_around(dir) {
            return Ok(Some(found));
        }
        let git_dir = match rev_parse_path(dir, "--absolute-git-dir") {
            Ok(git_dir) => git_dir,
            Err(error) if is_outside_repository(&error) => return Ok(None),
            Err(CommandError::Failed { dir, stderr, .. }) => return Err(RepositoryError::Unreadable { dir, stderr }),
            Err(error) => return Err(error.into()),
        };
        let common_dir = rev_parse_path(dir, "--git-common-dir")?;
        let main_worktree = if is_bare(&common_dir)? { None } else { Some(main_worktree(dir, &git_dir, &common_dir)?) };
        Ok(Some(Repository { main_worktree, common_dir }))
    }

    /// Returns the main worktree, or the folder of a bare repository. Relative paths are resolved against it.
    pub fn root(&self) -> &Path {
        self.main_worktree.as_deref().unwrap_or(&self.common_dir)
    }

    /// Returns twelve hex digits that identify the repository in file names.
    pub fn short_id(&self) -> String {
        short_id(&self.common_dir)
    }

    pub(super) fn read(&self) -> Git {
        Git::read(self.root())
    }

    pub(super) fn write(&self) -> Git {
        Git::write(self.root())
    }

    /// Returns the branch checked out in the main worktree, without `refs/heads/`. It may have no commit yet.
    pub fn integration_branch(&self) -> Result<String, RepositoryError> {
        checked_out(self.root())?.ok_or_else(|| RepositoryError::Detached { root: self.root().to_owned() })
    }

    /// Returns the commit of a branch that is checked out in `tree`, or an error that explains why there is none.
    pub fn commit_checked_out(&self, tree: &Path, branch: &str) -> Result<String, RepositoryError> {
        branch_commit(tree, branch)?.ok_or_else(|| self.no_commits(tree, branch))
    }

    fn no_commits(&self, tree: &Path, branch: &str) -> RepositoryError {
        let is_empty = refs::all(self.root()).is_some_and(|refs| refs.is_empty());
        let what = match is_empty {
            true => format!("the repository at {}", self.root().display()),
            false => format!("branch {branch}, which is checked out in {}", tree.display()),
        };
        let is_bare = self.main_worktree.is_none() && tree == self.root();
        let tree = (!is_bare).then(|| tree.to_owned());
        RepositoryError::NoCommits { what, tree }
    }

    /// Builds the error for a missing branch; `why` states where its name comes from.
    pub fn no_such_branch(&self, branch: &str, why: &'static str) -> RepositoryError {
        match names::branches(self) {
            Ok(branches) => {
                RepositoryError::NoSuchBranch { branch: branch.to_owned(), why, root: self.root().to_owned(), branches }
            }
            Err(error) => error,
        }
    }

    /// Returns the commit id of an untrusted name.
    pub fn resolve(&self, name: &str) -> Result<String, RepositoryError> {
        let seen = resolve_commit(self.root(), name)?;
        seen.ok_or_else(|| RepositoryError::UnknownCommit { name: name.to_owned() })
    }

    /// Restores a deleted branch at its last known commit. Returns `false` if the branch exists or the commit no longer
    /// does.
    pub fn restore_branch(&self, branch: &str, commit: &str) -> Result<bool, RepositoryError> {
        if branch_commit(self.root(), branch)?.is_some() || resolve_commit(self.root(), commit)?.is_none() {
            return Ok(false);
        }
        let message = "branch: made again at its last commit";
        let (name, absent) = (format!("refs/heads/{branch}"), "0".repeat(commit.len()));
        self.write().args(["update-ref", "-m", message, &name, commit, &absent]).run()?;
        Ok(true)
    }

    /// Who would commit here, by git's own rules.
    pub fn identity(&self) -> Result<Identity, RepositoryError> {
        identity(self.root())?.ok_or_else(|| RepositoryError::MissingIdentity { dir: self.root().to_owned() })
    }

    /// Hides `pattern` from git in all worktrees, without touching a tracked file. Asking twice adds one line.
    pub fn exclude(&self, pattern: &str) -> Result<(), RepositoryError> {
        let path = self.common_dir.join("info/exclude");
        // As a rule it is there, and many who begin at once need not wait for each other to see it.
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

    /// Whether anything under `path` (relative to the root) is committed, or is to be.
    pub fn tracks(&self, path: &str) -> Result<bool, CommandError> {
        if self.main_worktree.is_none() {
            return Ok(false);
        }
        Ok(!self.read().args(["ls-files", "-z", "--", path]).run()?.is_empty())
    }

    /// Waits until nobody else changes worktrees of this repository, in this process or another. Without it, parallel
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

pub(super) fn short_id(common_dir: &Path) -> String {
    let id = Oid::hash_object(ObjectType::Blob, common_dir.as_os_str().as_bytes());
    id.map_or_else(|_| "unnamed".to_owned(), |id| id.to_string()[..12].to_owned())
}

impl Identity {
    /// For commits that must be made although the user has told git no identity.
    pub fn fallback() -> Identity {
        Identity { name: "orchestrator-boss".to_owned(), email: "orchestrator-boss@localhost".to_owned() }
    }

    pub(super) fn commit_as(&self, git: Git) -> Git {
        git.env("GIT_AUTHOR_NAME", &self.name)
            .env("GIT_AUTHOR_EMAIL", &self.email)
            .env("GIT_COMMITTER_NAME", &self.name)
            .env("GIT_COMMITTER_EMAIL", &self.email)
    }
}

/// The identity that git itself would commit with in `dir`, `None` when it would refuse to.
pub(super) fn identity(dir: &Path) -> Result<Option<Identity>, CommandError> {
    let author = Git::read(dir).args(["var", "GIT_AUTHOR_IDENT"]).output()?;
    let committer = Git::read(dir).args(["var", "GIT_COMMITTER_IDENT"]).output()?;
    if author.code != Some(0) || committer.code != Some(0) {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&author.stdout).into_owned();
    Ok(text.split_once(" <").and_then(|(name, rest)| {
        let (email, _) = rest.split_once('>')?;
        Some(Identity { name: name.to_owned(), email: email.to_owned() })
    }))
}

/// Returns whether git could commit in a directory, in a repository or not.
pub fn has_identity(dir: &Path) -> bool {
    identity(dir).is_ok_and(|identity| identity.is_some())
}

/// Runs a call that commits, with the user's identity or, where git has none, with `fallback`. Asking git beforehand
/// would cost every commit two more starts of it.
pub(super) fn commit_with(dir: &Path, fallback: &Identity, call: impl Fn(Git) -> Git) -> Result<String, CommandError> {
    match call(Git::write(dir)).text() {
        Err(CommandError::Failed { .. }) if identity(dir)?.is_none() => {
            call(fallback.commit_as(Git::write(dir))).text()
        }
        answer => answer,
    }
}

/// Returns the branch that is checked out in `dir`, `None` if HEAD is detached.
pub(super) fn current_branch(dir: &Path) -> Result<Option<String>, CommandError> {
    let symbolic = Git::read(dir).args(["symbolic-ref", "--quiet", "HEAD"]);
    Ok(symbolic.answer()?.and_then(|name| {
        let name = String::from_utf8_lossy(&name);
        let branch = name.trim_end().strip_prefix("refs/heads/");
        branch.map(str::to_owned)
    }))
}

/// Returns the branch that is checked out in a working tree, `None` if HEAD is detached. It may have no commit yet.
pub fn checked_out(tree: &Path) -> Result<Option<String>, CommandError> {
    refs::checked_out(tree).map_or_else(|| current_branch(tree), |branch| Ok(Some(branch)))
}

/// Returns the branch that is checked out in a working tree, as far as that is known without starting git.
pub fn checked_out_at_a_glance(tree: &Path) -> Option<String> {
    refs::checked_out(tree)
}

/// Returns the root of the main or linked working tree that contains a folder. `None` in a bare repository.
pub fn working_tree(dir: &Path) -> Option<PathBuf> {
    refs::working_tree(dir).unwrap_or_else(|| rev_parse_path(dir, "--show-toplevel").ok())
}

/// Returns the checked out commit; `None` before the first one.
pub fn head(worktree: &Path) -> Result<Option<String>, CommandError> {
    resolve_commit(worktree, "HEAD")
}

/// Returns the commit id of any name that git understands; `None` for an unknown one. A name is never parsed as an
/// option.
pub(super) fn resolve_commit(dir: &Path, name: &str) -> Result<Option<String>, CommandError> {
    if name.is_empty() || name.starts_with('-') || name.contains('\0') {
        return Ok(None);
    }
    match refs::commit(dir, name) {
        Some(answer) => Ok(answer),
        None => ask_commit(dir, name),
    }
}

/// The same, by the git program. The caller has looked at the name.
pub(super) fn ask_commit(dir: &Path, name: &str) -> Result<Option<String>, CommandError> {
    let output = Git::read(dir)
        .args(["rev-parse", "--verify", "--quiet", "--end-of-options"])
        .arg(format!("{name}^{{commit}}"))
        .output()?;
    let id = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    // Some errors (an ambiguous or malformed name) leave other text behind.
    let is_id = id.len() >= 40 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    Ok((output.code == Some(0) && is_id).then_some(id))
}

/// The commit at the tip of a local branch, never of a tag or a remote branch of the same name.
pub(super) fn branch_commit(dir: &Path, branch: &str) -> Result<Option<String>, CommandError> {
    ref_commit(dir, &format!("refs/heads/{branch}"))
}

/// The commit of a ref by its full name. A revision such as `refs/heads/main~1` is none.
pub(super) fn ref_commit(dir: &Path, full_name: &str) -> Result<Option<String>, CommandError> {
    if git2::Reference::is_valid_name(full_name) { resolve_commit(dir, full_name) } else { Ok(None) }
}

fn rev_parse_path(dir: &Path, question: &str) -> Result<PathBuf, CommandError> {
    Git::read(dir).args(["rev-parse", "--path-format=absolute", question]).path()
}

/// Told without git: there is nothing around that it could take for a repository.
fn is_surely_outside(dir: &Path) -> bool {
    let is_absent =
        |path: &Path| fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    let holds_none = |folder: &Path| {
        let git = folder.join(".git");
        // A folder without a HEAD is none, whatever its name.
        let is_other = fs::symlink_metadata(&git).is_ok_and(|found| found.is_dir()) && is_absent(&git.join("HEAD"));
        (is_other || is_absent(&git)) && is_absent(&folder.join("HEAD"))
    };
    dir.canonicalize().is_ok_and(|dir| dir.ancestors().all(holds_none))
}

/// The usual case, in one start of git: a main worktree and its repository. `None` asks for a closer look.
fn main_worktree_around(dir: &Path) -> Option<Repository> {
    let questions = ["--absolute-git-dir", "--git-common-dir", "--show-toplevel"];
    let said = Git::read(dir).args(["rev-parse", "--path-format=absolute"]).args(questions).text().ok()?;
    // A path may hold a newline; then there are more lines.
    let [git_dir, common_dir, root] = said.split('\n').collect::<Vec<_>>()[..] else { return None };
    (git_dir == common_dir).then(|| Repository { main_worktree: Some(root.into()), common_dir: common_dir.into() })
}

fn is_outside_repository(error: &CommandError) -> bool {
    // A linked worktree whose repository is gone says "not a git repository: <path>", and that is an error.
    matches!(error, CommandError::Failed { stderr, .. } if stderr.contains("not a git repository (or any"))
}

fn is_bare(common_dir: &Path) -> Result<bool, CommandError> {
    let answer = Git::read(common_dir).args(["rev-parse", "--is-bare-repository"]).text()?;
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
    fn one_repository_is_found_from_everywhere_in_it() {
        let fixture = Fixture::new();
        fixture.write("deep/er/file", "");
        let linked = fixture.beside("linked");
        fixture.git(&["worktree", "add", "-q", "-b", "x", linked.to_str().unwrap()]);
        for dir in [fixture.root().join("deep/er"), fixture.root().join(".git"), linked] {
            let found = Repository::discover(&dir).unwrap().unwrap();
            assert_eq!(found, fixture.repo, "from {}", dir.display());
        }
        let outside = fixture.beside("outside");
        fs::create_dir_all(outside.join(".git")).unwrap();
        assert_eq!(Repository::discover(&outside).unwrap(), None);
    }

    #[test]
    fn a_bare_repository_is_found_from_itself_and_its_worktrees() {
        let fixture = Fixture::new();
        let bare = fixture.beside("bare.git");
        fixture.git(&["clone", "-q", "--bare", ".", bare.to_str().unwrap()]);
        git(&bare, &["worktree", "add", "-q", "-b", "x", "../linked"]);
        for dir in [bare.clone(), fixture.beside("linked")] {
            let found = Repository::discover(&dir).unwrap().unwrap();
            assert_eq!((found.main_worktree.as_ref(), found.root()), (None, &*bare));
            assert_eq!(found.integration_branch().unwrap(), "main");
        }
    }

    #[test]
    fn a_worktree_without_its_repository_is_an_error_and_not_an_absence() {
        let fixture = Fixture::new();
        let linked = fixture.beside("linked");
        fixture.git(&["worktree", "add", "-q", "-b", "x", linked.to_str().unwrap()]);
        fs::remove_dir_all(fixture.root().join(".git")).unwrap();
        assert!(Repository::discover(&linked).is_err());
    }

    #[test]
    fn a_detached_head_is_no_integration_branch() {
        let fixture = Fixture::new();
        assert_eq!(fixture.repo.integration_branch().unwrap(), "main");
        fixture.git(&["checkout", "-q", "--detach"]);
        assert!(matches!(fixture.repo.integration_branch(), Err(RepositoryError::Detached { .. })));
    }

    #[test]
    fn a_missing_identity_names_the_command_that_sets_it() {
        let fixture = Fixture::new();
        assert_eq!(fixture.repo.identity().unwrap().name, "Tess Ter");
        fixture.git(&["config", "--unset", "user.name"]);
        fixture.git(&["config", "user.useConfigOnly", "true"]);
        fixture.git(&["config", "--unset", "user.email"]);
        let error = crate::mission::hint::with_hints(&fixture.repo.identity().unwrap_err());
        assert!(error.contains("git config --global user.name"), "{error}");
    }

    #[test]
    fn excluding_at_once_from_many_threads_adds_one_line() {
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
