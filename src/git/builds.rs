//! Finds the folders of a worktree that tools create again, such as `node_modules`, and deletes them.
//!
//! A folder is a build if the user's list has its name or path, or if it has a valid `CACHEDIR.TAG`. In addition,
//! nothing in it can be work: git ignores everything in it, it holds no git repository, and nothing in it was copied
//! from the main checkout. Links and other file systems are never entered.
//!
//! A build is first moved as a whole into an ignored folder of the same worktree, and deleted there. So a crash at any
//! point leaves no partial build in its original place. [`Aside::delete`] completes the work of an interrupted process.
//! The caller ensures that no process uses the worktree.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, DirEntry, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use uuid::Uuid;

use super::command::{CommandError, Git};
use super::regenerable::has_cache_tag;
use super::trust::Checkout;
use crate::mission::hint::{Hint, Hinted};

/// Folder of this program in a worktree, which git ignores: see [`super::Repository::exclude`].
const OWN_FOLDER: &str = ".orchestrator";
/// Prefix of the names of builds in that folder.
const ASIDE: &str = "pruned-";

#[derive(Debug, thiserror::Error)]
pub enum BuildsError {
    #[error("cannot use {}: it is not a folder", path.display())]
    NoFolder { path: PathBuf },
    #[error("cannot create {}", path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("cannot move {} aside", path.display())]
    Move { path: PathBuf, source: io::Error },
    #[error("cannot delete {}", path.display())]
    Delete { path: PathBuf, source: io::Error },
}

impl Hinted for BuildsError {
    fn hints(&self) -> Vec<Hint> {
        match self {
            Self::NoFolder { .. } => vec![Hint::to("move it away")],
            Self::Create { .. } | Self::Move { .. } | Self::Delete { .. } => Vec::new(),
        }
    }
}

/// The rules by which a folder counts as a build.
#[derive(Debug, Clone, Copy)]
pub struct BuildRules<'a> {
    /// Names of folders, and paths relative to the root of the worktree.
    pub listed: &'a [String],
    /// Files and folders that were copied into the worktree, relative to its root.
    pub copied: &'a [PathBuf],
    /// The time at which the search stops. `None` without a limit.
    pub until: Option<Instant>,
}

/// The builds of a worktree, by their paths relative to its root. No path is inside another.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Builds {
    pub folders: Vec<PathBuf>,
    /// Folders that look like builds but stay.
    pub kept: Vec<KeptBuild>,
    /// True if the time limit ended the search early.
    pub is_partial: bool,
}

/// A folder that stays, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptBuild {
    pub path: PathBuf,
    pub why: KeepReason,
}

/// The reason why a folder is not deleted although its name or its tag marks it as a build. Paths are relative to the
/// root of the worktree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeepReason {
    /// It is, or holds, this git repository.
    Repository(PathBuf),
    /// It holds, or is in, this file or folder, which was copied from the main checkout.
    Copied(PathBuf),
    /// It is, or holds, this folder on another file system.
    Mounted(PathBuf),
    /// It holds this folder, which cannot be read.
    Unreadable(PathBuf),
    /// It could not be moved, for this reason.
    Failed(String),
}

impl fmt::Display for KeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repository(path) => write!(f, "{} is a git repository", path.display()),
            Self::Copied(path) => write!(f, "{} was copied from the main checkout", path.display()),
            Self::Mounted(path) => write!(f, "{} is on another file system", path.display()),
            Self::Unreadable(path) => write!(f, "{} cannot be read", path.display()),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

/// Finds the outermost builds of a worktree. Changes nothing.
pub fn find_builds(worktree: &Checkout, rules: BuildRules) -> Result<Builds, CommandError> {
    let Ok(root) = worktree.symlink_metadata() else { return Ok(Builds::default()) };
    let mut search = Search { worktree, rules, device: root.dev(), shown: None, found: Builds::default() };
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        if search.is_late() {
            search.found.is_partial = true;
            break;
        }
        search.visit(folder, &mut folders)?;
    }
    search.found.folders.sort();
    search.found.kept.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(search.found)
}

struct Search<'a> {
    worktree: &'a Checkout,
    rules: BuildRules<'a>,
    device: u64,
    /// The files that git does not ignore, and the folders that hold one. Read from git once, when the first folder
    /// looks like a build.
    shown: Option<HashSet<PathBuf>>,
    found: Builds,
}

impl Search<'_> {
    fn is_late(&self) -> bool {
        self.rules.until.is_some_and(|until| Instant::now() >= until)
    }

    /// Examines one folder. Adds its subfolders to `left`, unless it looks like a build or is not part of the worktree.
    fn visit(&mut self, folder: PathBuf, left: &mut Vec<PathBuf>) -> Result<(), CommandError> {
        let absolute = self.worktree.join(&folder);
        let is_root = folder.as_os_str().is_empty();
        if !is_root && (self.is_listed(&folder) || has_cache_tag(&absolute)) && !self.is_shown(&folder)? {
            self.judge(folder);
            return Ok(());
        }
        let is_here = fs::symlink_metadata(&absolute).is_ok_and(|found| found.dev() == self.device);
        let is_repository = absolute.join(".git").symlink_metadata().is_ok();
        let Ok(entries) = fs::read_dir(&absolute) else { return Ok(()) };
        // Git lists no files of nested repositories.
        if !is_here || (is_repository && !is_root) {
            return Ok(());
        }
        let is_own = |entry: &DirEntry| is_root && (entry.file_name() == ".git" || entry.file_name() == OWN_FOLDER);
        let inner = entries.flatten().filter(|entry| is_folder(entry) && !is_own(entry));
        left.extend(inner.map(|entry| folder.join(entry.file_name())));
        Ok(())
    }

    fn is_listed(&self, folder: &Path) -> bool {
        self.rules.listed.iter().map(Path::new).any(|listed| match listed.components().count() {
            1 => folder.file_name() == listed.file_name(),
            // Components, so that a slash at the end has no effect.
            _ => listed.components().eq(folder.components()),
        })
    }

    /// Returns whether git does not ignore everything in the folder.
    fn is_shown(&mut self, folder: &Path) -> Result<bool, CommandError> {
        if self.shown.is_none() {
            let listed = Git::read(self.worktree)
                .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
                .run()?;
            let mut shown = HashSet::new();
            for path in listed.split(|byte| *byte == 0).filter(|path| !path.is_empty()) {
                // A nested repository ends with a slash.
                let path = Path::new(OsStr::from_bytes(path.strip_suffix(b"/").unwrap_or(path)));
                let new = path.ancestors().take_while(|folder| !shown.contains(*folder)).map(Path::to_owned);
                shown.extend(new.collect::<Vec<_>>());
            }
            self.shown = Some(shown);
        }
        Ok(self.shown.as_ref().is_some_and(|shown| shown.contains(folder)))
    }

    fn judge(&mut self, folder: PathBuf) {
        let is_around = |copy: &&PathBuf| copy.starts_with(&folder) || folder.starts_with(copy);
        let copied = self.rules.copied.iter().find(is_around).cloned().map(KeepReason::Copied);
        match copied.or_else(|| self.content_to_keep(&folder)) {
            Some(why) => self.found.kept.push(KeptBuild { path: folder, why }),
            // Another process deleted it meanwhile.
            None if is_gone(&self.worktree.join(&folder)) => {}
            None if self.is_late() => self.found.is_partial = true,
            None => self.found.folders.push(folder),
        }
    }

    /// Returns the first content that must not be deleted, if there is any. Folders that vanish meanwhile have none.
    fn content_to_keep(&self, folder: &Path) -> Option<KeepReason> {
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            if self.is_late() {
                return None;
            }
            let absolute = self.worktree.join(&folder);
            match fs::symlink_metadata(&absolute) {
                Ok(found) if found.dev() != self.device => return Some(KeepReason::Mounted(folder)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(_) => return Some(KeepReason::Unreadable(folder)),
            }
            let entries = match fs::read_dir(&absolute).and_then(|all| all.collect::<io::Result<Vec<DirEntry>>>()) {
                Ok(entries) => entries,
                Err(_) if is_gone(&absolute) => continue,
                Err(_) => return Some(KeepReason::Unreadable(folder)),
            };
            let has = |name: &str| entries.iter().any(|entry| entry.file_name() == name);
            // A bare repository has no `.git`, but these three.
            if has(".git") || has("HEAD") && has("objects") && has("refs") {
                return Some(KeepReason::Repository(folder));
            }
            let inner = entries.iter().filter(|entry| is_folder(entry));
            folders.extend(inner.map(|entry| folder.join(entry.file_name())));
        }
        None
    }
}

/// Does not follow links.
fn is_folder(entry: &DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_dir())
}

fn is_gone(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// The folder of a worktree into which builds are moved before they are deleted.
#[derive(Debug)]
pub struct Aside {
    worktree: PathBuf,
}

impl Aside {
    /// Creates the folder. The caller has excluded it from git.
    pub fn make(worktree: &Path) -> Result<Self, BuildsError> {
        let folder = worktree.join(OWN_FOLDER);
        match folder.symlink_metadata() {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(BuildsError::NoFolder { path: folder }),
            // Creates no parents, since the worktree may have been removed meanwhile.
            Err(_) => fs::DirBuilder::new()
                .mode(0o700)
                .create(&folder)
                .map_err(|source| BuildsError::Create { path: folder, source })?,
        }
        Ok(Self { worktree: worktree.to_owned() })
    }

    /// Moves a build aside as a whole. Its path is relative to the root of the worktree. Returns false if it has
    /// vanished since it was found.
    pub fn take(&self, build: &Path) -> Result<bool, BuildsError> {
        let from = self.worktree.join(build);
        // A link could have replaced a folder since the build was found.
        let outer = build.ancestors().filter(|folder| !folder.as_os_str().is_empty());
        let mut folders = outer.map(|folder| self.worktree.join(folder));
        let is_real = |folder: &PathBuf| folder.symlink_metadata().is_ok_and(|found| found.is_dir());
        if let Some(path) = folders.find(|folder| !is_real(folder)) {
            return if is_gone(&from) { Ok(false) } else { Err(BuildsError::NoFolder { path }) };
        }
        let to = self.worktree.join(OWN_FOLDER).join(format!("{ASIDE}{}", Uuid::new_v4().simple()));
        match fs::rename(&from, to) {
            Ok(()) => Ok(true),
            Err(_) if is_gone(&from) => Ok(false),
            Err(source) => Err(BuildsError::Move { path: from, source }),
        }
    }

    /// Returns the builds that were moved aside and are not deleted yet.
    pub fn content(worktree: &Path) -> Vec<PathBuf> {
        let folder = worktree.join(OWN_FOLDER);
        if !folder.symlink_metadata().is_ok_and(|found| found.is_dir()) {
            return Vec::new();
        }
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let ours =
            entries.filter(|entry| is_folder(entry) && entry.file_name().as_bytes().starts_with(ASIDE.as_bytes()));
        ours.map(|entry| entry.path()).collect()
    }

    /// Deletes everything that this process or an earlier one moved aside. Several processes may do so at once.
    pub fn delete(worktree: &Path) -> Result<(), BuildsError> {
        for path in Self::content(worktree) {
            delete_all(&path).map_err(|source| BuildsError::Delete { path, source })?;
        }
        // Fails if the folder holds anything else, which must stay.
        let _ = fs::remove_dir(worktree.join(OWN_FOLDER));
        Ok(())
    }
}

/// Deletes a folder even if folders in it are read-only, as in the module cache of Go.
fn delete_all(folder: &Path) -> io::Result<()> {
    let gone = |deleted: io::Result<()>| match deleted {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        deleted => deleted,
    };
    if gone(fs::remove_dir_all(folder)).is_ok() {
        return Ok(());
    }
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let mode = folder.symlink_metadata().map_or(0, |found| found.mode());
        let _ = fs::set_permissions(&folder, Permissions::from_mode(mode | 0o700));
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        folders.extend(entries.filter(is_folder).map(|entry| entry.path()));
    }
    gone(fs::remove_dir_all(folder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::testing::{Fixture, at, git, write};
    use std::os::unix::fs::symlink;

    const TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n";

    fn found(worktree: &Path, listed: &[&str], copied: &[&str]) -> Builds {
        let listed: Vec<String> = listed.iter().map(|name| (*name).to_owned()).collect();
        let copied: Vec<PathBuf> = copied.iter().map(PathBuf::from).collect();
        find_builds(&at(worktree), BuildRules { listed: &listed, copied: &copied, until: None }).unwrap()
    }

    fn names(folders: &[PathBuf]) -> Vec<&str> {
        folders.iter().map(|path| path.to_str().unwrap()).collect()
    }

    fn reasons(builds: &Builds) -> Vec<String> {
        builds.kept.iter().map(|kept| format!("{}: {}", kept.path.display(), kept.why)).collect()
    }

    fn project() -> Fixture {
        let fixture = Fixture::new();
        fixture.commit(".gitignore", "target/\nnode_modules/\nout/\ncache/\nlink\n");
        fixture
    }

    #[test]
    fn outermost_ignored_folders_are_found() {
        let fixture = project();
        for file in [
            "target/debug/target/x",
            "web/node_modules/a/node_modules/b/x",
            "out/node_modules/x",
            "out/plain/x",
            "web/out/deep/x",
            "cache/x",
            "plain/cache/x",
        ] {
            fixture.write(file, "x\n");
        }
        fixture.write("cache/CACHEDIR.TAG", TAG);
        fixture.write("plain/cache/CACHEDIR.TAG", "Signature: 0\n");
        let builds = found(fixture.root(), &["target", "node_modules", "web/out/deep/", "plain/out"], &[]);
        let expected = ["cache", "out/node_modules", "target", "web/node_modules", "web/out/deep"];
        assert_eq!(names(&builds.folders), expected);
        assert_eq!((builds.kept.len(), builds.is_partial), (0, false));
        assert_eq!(names(&found(fixture.root(), &[], &[]).folders), ["cache"]);
    }

    #[test]
    fn folder_that_git_shows_is_no_build() {
        let fixture = project();
        fixture.write("target/x", "x\n");
        fixture.write("target/kept.txt", "x\n");
        fixture.git(&["add", "-f", "target/kept.txt"]);
        fixture.git(&["commit", "-qm", "kept"]);
        // Not ignored, and not committed either.
        fixture.write("venv/x", "x\n");
        // In a folder with tracked files, inner builds count.
        fixture.write("target/node_modules/x", "x\n");
        // Ignores itself, as the environments of Python do.
        fixture.write("sub/.venv/.gitignore", "*\n");
        fixture.write("sub/.venv/x", "x\n");
        let builds = found(fixture.root(), &["target", "node_modules", "venv", ".venv"], &[]);
        assert_eq!(names(&builds.folders), ["sub/.venv", "target/node_modules"]);
        std::fs::remove_file(fixture.root().join("target/kept.txt")).unwrap();
        let builds = found(fixture.root(), &["target"], &[]);
        assert_eq!(builds.folders.len(), 0, "the index still has a file in it");
    }

    #[test]
    fn repositories_links_and_copies_stay() {
        let fixture = project();
        for file in
            ["target/deep/.git/HEAD", "web/target/HEAD", "node_modules/.env", "one/target/x", "out/node_modules/x"]
        {
            fixture.write(file, "x\n");
        }
        fixture.write("web/target/objects/x", "x\n");
        fixture.write("web/target/refs/x", "x\n");
        fixture.git(&["init", "-q", "two/node_modules"]);
        let outside = fixture.beside("outside");
        write(&outside, "node_modules/x", "x\n");
        symlink(&outside, fixture.root().join("link")).unwrap();
        symlink(outside.join("node_modules"), fixture.root().join("web/node_modules")).unwrap();
        let builds = found(fixture.root(), &["target", "node_modules"], &["node_modules/.env", "out"]);
        assert_eq!(names(&builds.folders), ["one/target"]);
        let expected = [
            "node_modules: node_modules/.env was copied from the main checkout",
            "out/node_modules: out was copied from the main checkout",
            "target: target/deep is a git repository",
            "two/node_modules: two/node_modules is a git repository",
            "web/target: web/target is a git repository",
        ];
        assert_eq!(reasons(&builds), expected);
    }

    #[test]
    fn search_stops_when_time_is_up() {
        let fixture = project();
        fixture.write("target/x", "x\n");
        let listed = ["target".to_owned()];
        let rules = BuildRules { listed: &listed, copied: &[], until: Some(Instant::now()) };
        let builds = find_builds(&at(fixture.root()), rules).unwrap();
        assert!(builds.is_partial && builds.folders.is_empty(), "{builds:?}");
    }

    #[test]
    fn builds_are_moved_as_a_whole_and_deleted() {
        let fixture = project();
        let made = fixture.worktree("work");
        write(&made.path, "target/deep/x", "x\n");
        write(&made.path, "web/node_modules/x", "x\n");
        fixture.repo.exclude(".orchestrator/").unwrap();
        let aside = Aside::make(&made.path).unwrap();
        assert!(aside.take(Path::new("target")).unwrap());
        assert!(aside.take(Path::new("web/node_modules")).unwrap());
        assert!(!made.path.join("target").exists() && made.path.join("web").exists());
        assert_eq!(Aside::content(&made.path).len(), 2);
        assert_eq!(git(&made.path, &["status", "--porcelain"]), "", "git does not show it");
        assert_eq!(found(&made.path, &["target", "node_modules"], &[]), Builds::default());
        assert!(!aside.take(Path::new("target")).unwrap(), "it is gone");
        write(&made.path, "out", "a file now\n");
        assert!(matches!(aside.take(Path::new("out")), Err(BuildsError::NoFolder { .. })));
        std::fs::remove_file(made.path.join("out")).unwrap();
        // Read-only folders are deleted, too.
        let inner =
            Aside::content(&made.path).into_iter().map(|path| path.join("deep")).find(|it| it.exists()).unwrap();
        std::fs::set_permissions(&inner, Permissions::from_mode(0o500)).unwrap();
        Aside::delete(&made.path).unwrap();
        assert!(!made.path.join(".orchestrator").exists());
        Aside::delete(&made.path).unwrap();
    }

    #[test]
    fn build_that_vanishes_during_the_search_is_neither_found_nor_kept() {
        let fixture = project();
        fixture.write("target/x", "x\n");
        let listed = ["target".to_owned()];
        let (worktree, rules) = (at(fixture.root()), BuildRules { listed: &listed, copied: &[], until: None });
        let device = worktree.symlink_metadata().unwrap().dev();
        let mut search = Search { worktree: &worktree, rules, device, shown: None, found: Builds::default() };
        std::fs::remove_dir_all(fixture.root().join("target")).unwrap();
        search.judge("target".into());
        assert_eq!(search.found, Builds::default());
    }

    #[test]
    fn nothing_is_moved_through_a_link() {
        let fixture = project();
        let outside = fixture.beside("outside");
        write(&outside, "target/x", "x\n");
        let made = fixture.worktree("work");
        symlink(&outside, made.path.join("link")).unwrap();
        let gone = fixture.beside("gone");
        assert!(matches!(Aside::make(&gone), Err(BuildsError::Create { .. })));
        assert!(!gone.exists(), "a removed worktree is not created again");
        let aside = Aside::make(&made.path).unwrap();
        assert!(matches!(aside.take(Path::new("link/target")), Err(BuildsError::NoFolder { .. })));
        Aside::delete(&made.path).unwrap();
        symlink(&outside, made.path.join(".orchestrator")).unwrap();
        assert!(matches!(Aside::make(&made.path), Err(BuildsError::NoFolder { .. })));
        std::fs::create_dir(outside.join("pruned-1")).unwrap();
        Aside::delete(&made.path).unwrap();
        assert!(outside.join("target/x").exists() && outside.join("pruned-1").exists());
    }
}
