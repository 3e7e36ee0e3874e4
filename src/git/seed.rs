//! Copies ignored folders of the main checkout, such as a cache, into a new worktree. The settings of the user name
//! them.
//!
//! A copy shares its blocks with the original where the file system can clone files. It is never a link, since a change
//! in the worktree must not change the main checkout. A folder appears in the worktree as a whole or not at all.

use std::ffi::OsStr;
use std::fs::{self, File, FileTimes};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::command::{CommandError, Git};
use super::include::{leads_outside, make_parents};
use super::repository::Repository;

/// The content of a folder to copy.
#[derive(Debug, Default)]
struct Content {
    bytes: u64,
    /// One of its files that is not empty, to determine whether the file system clones files.
    sample: Option<PathBuf>,
}

/// A reason for which a path is not copied.
type Reason = String;

/// The result of copying ignored paths.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seeded {
    /// The paths that now exist in the worktree. An interrupted creation may have copied some of them before.
    pub there: Vec<String>,
    /// The paths that were left out, with the reasons.
    pub left_out: Vec<String>,
    /// The paths that the main checkout does not have, as notes.
    pub missing: Vec<String>,
}

/// Copies the paths, which are relative to the root, into a new worktree. At most `limit` bytes of each are copied if
/// they cannot be cloned.
pub fn seed(repo: &Repository, worktree: &Path, paths: &[String], limit: u64) -> Result<Seeded, CommandError> {
    let mut result = Seeded::default();
    let Some(main) = &repo.main_worktree else { return Ok(result) };
    for path in paths {
        if main.join(path).symlink_metadata().is_err() {
            result.missing.push(format!("{path}: the main checkout does not have it"));
            continue;
        }
        let is_ignored = repo.read().args(["check-ignore", "--quiet", "--"]).arg(path).succeeds()?;
        let seeded = if is_ignored {
            seed_one(main, worktree, Path::new(path), limit)
        } else {
            Ok(Some("git does not ignore it".to_owned()))
        };
        match seeded {
            Ok(None) => {}
            Ok(Some(reason)) => result.left_out.push(format!("{path}: {reason}")),
            Err(error) => result.left_out.push(format!("{path}: {error}")),
        }
        if worktree.join(path).symlink_metadata().is_ok() {
            result.there.push(path.clone());
        }
    }
    Ok(result)
}

/// Copies the ignored files of one worktree into another, but not `except`, a folder. At most `limit` bytes of each are
/// copied if they cannot be cloned. Returns those that were left out, with the reasons.
pub fn copy_ignored(
    repo: &Repository,
    from: &Path,
    to: &Path,
    except: &Path,
    limit: u64,
) -> Result<Vec<String>, CommandError> {
    let list = ["ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory"];
    let listed = Git::read(&repo.at(from)).args(list).run()?;
    let paths = listed.split(|byte| *byte == 0).map(|path| Path::new(OsStr::from_bytes(path)));
    let mut left_out = Vec::new();
    for path in paths.filter(|path| !path.as_os_str().is_empty() && !except.starts_with(from.join(path))) {
        match seed_one(from, to, path, limit) {
            Ok(None) => {}
            // What git or `.worktreeinclude` has brought already.
            Ok(Some(_)) if to.join(path).symlink_metadata().is_ok() => {}
            Ok(Some(reason)) => left_out.push(format!("{}: {reason}", path.display())),
            Err(error) => left_out.push(format!("{}: {error}", path.display())),
        }
    }
    Ok(left_out)
}

/// Copies a folder that is in no repository, but not `except`, a folder. At most `limit` bytes are copied if they cannot
/// be cloned. Returns the reason if it was left out.
pub fn copy_folder(from: &Path, to: &Path, except: &Path, limit: u64) -> io::Result<Option<String>> {
    let mut content = Content::default();
    let reason = examine(from, Path::new(""), except, &mut content)?.or_else(|| content.too_large(limit, to));
    if reason.is_none() {
        copy_all(from, to, except)?;
    }
    Ok(reason)
}

fn seed_one(main: &Path, worktree: &Path, path: &Path, limit: u64) -> io::Result<Option<Reason>> {
    let (source, target) = (main.join(path), worktree.join(path));
    if target.symlink_metadata().is_ok() {
        return Ok(Some("the worktree has it".to_owned()));
    }
    let mut content = Content::default();
    if let Some(reason) = examine(main, path, Path::new(""), &mut content)? {
        return Ok(Some(reason));
    }
    if !make_parents(worktree, path)? {
        return Ok(Some("the branch has a file or link as one of its parent folders".to_owned()));
    }
    let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let partial = target.with_file_name(format!("{name}.{}", Uuid::new_v4().simple()));
    if let Some(reason) = content.too_large(limit, &partial) {
        return Ok(Some(reason));
    }
    let copied = copy_all(&source, &partial, Path::new("")).and_then(|()| fs::rename(&partial, &target));
    if copied.is_err() {
        let _ = fs::remove_dir_all(&partial).or_else(|_| fs::remove_file(&partial));
    }
    copied.map(|()| None)
}

impl Content {
    /// Returns the reason if it is more than the limit and cannot be cloned to this path.
    fn too_large(&self, limit: u64, target: &Path) -> Option<Reason> {
        let fits = self.bytes <= limit || self.sample.as_ref().is_some_and(|sample| can_clone(sample, target));
        let (has, may) = (self.bytes >> 20, limit >> 20);
        (!fits).then(|| format!("it has {has} MiB, and only {may} MiB are copied here (seed_limit_mib)"))
    }
}

/// Adds up what is below a path. Returns the reason if it cannot be copied to another folder.
fn examine(main: &Path, path: &Path, except: &Path, content: &mut Content) -> io::Result<Option<Reason>> {
    let full = main.join(path);
    if full == except {
        return Ok(None);
    }
    let found = full.symlink_metadata()?;
    let kind = found.file_type();
    if kind.is_symlink() {
        let leaves = leads_outside(path, &fs::read_link(&full)?);
        return Ok(leaves.then(|| format!("the link {} leads outside", path.display())));
    }
    if kind.is_file() {
        content.bytes += found.len();
        if found.len() > 0 && content.sample.is_none() {
            content.sample = Some(full);
        }
        return Ok(None);
    }
    if !kind.is_dir() {
        return Ok(Some(format!("{} is neither a file, a folder nor a link", path.display())));
    }
    if full.join("pyvenv.cfg").exists() {
        return Ok(Some(format!("{} is a virtual environment, which works in its own place only", path.display())));
    }
    if full.join(".git").symlink_metadata().is_ok() {
        return Ok(Some(format!("{} is a git repository", path.display())));
    }
    for entry in fs::read_dir(&full)? {
        if let Some(reason) = examine(main, &path.join(entry?.file_name()), except, content)? {
            return Ok(Some(reason));
        }
    }
    Ok(None)
}

fn copy_all(source: &Path, target: &Path, except: &Path) -> io::Result<()> {
    if source == except {
        return Ok(());
    }
    let found = source.symlink_metadata()?;
    if found.is_symlink() {
        return symlink(fs::read_link(source)?, target);
    }
    if found.is_file() {
        return copy_file(source, target);
    }
    fs::create_dir(target)?;
    for entry in fs::read_dir(source)? {
        let name = entry?.file_name();
        copy_all(&source.join(&name), &target.join(&name), except)?;
    }
    // Last, since the folder may be read-only.
    fs::set_permissions(target, found.permissions())
}

/// Copies a file with its mode and its time, by which build tools recognise it.
fn copy_file(source: &Path, target: &Path) -> io::Result<()> {
    if clone(source, target).is_err() {
        fs::copy(source, target)?;
    }
    let found = source.metadata()?;
    let written = File::open(target)?;
    written.set_times(FileTimes::new().set_modified(found.modified()?))?;
    fs::set_permissions(target, found.permissions())
}

fn can_clone(sample: &Path, partial: &Path) -> bool {
    let cloned = clone(sample, partial).is_ok();
    let _ = fs::remove_file(partial);
    cloned
}

/// Clones a file. An error leaves no target, or an empty one.
#[cfg(target_os = "linux")]
fn clone(source: &Path, target: &Path) -> io::Result<()> {
    let (from, to) = (File::open(source)?, File::create(target)?);
    Ok(rustix::fs::ioctl_ficlone(&to, &from)?)
}

#[cfg(target_os = "macos")]
fn clone(source: &Path, target: &Path) -> io::Result<()> {
    let from = File::open(source)?;
    Ok(rustix::fs::fclonefileat(&from, rustix::fs::CWD, target, rustix::fs::CloneFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::testing::{Fixture, read};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    const LIMIT: u64 = 1 << 20;

    fn project() -> Fixture {
        let fixture = Fixture::new();
        fixture.commit(".gitignore", "cache/\n.venv/\nbig/\nlinks/\nsub/\n");
        fixture
    }

    fn seeded(fixture: &Fixture, worktree: &Path, paths: &[&str]) -> Vec<String> {
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        let seeded = seed(&fixture.repo, worktree, &paths, LIMIT).unwrap();
        assert!(seeded.there.iter().all(|path| worktree.join(path).exists()), "{seeded:?}");
        [seeded.left_out, seeded.missing].concat()
    }

    #[test]
    fn copy_has_modes_times_and_links_and_is_independent() {
        let fixture = project();
        fixture.write("cache/a/run", "x\n");
        let run = fixture.root().join("cache/a/run");
        fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).unwrap();
        symlink("a/run", fixture.root().join("cache/link")).unwrap();
        let made = fixture.worktree("work");
        assert_eq!(seeded(&fixture, &made.path, &["cache", "absent"]), ["absent: the main checkout does not have it"]);
        let copy = made.path.join("cache/a/run");
        let (one, other) = (run.metadata().unwrap(), copy.metadata().unwrap());
        assert_eq!((one.mode(), one.modified().unwrap()), (other.mode(), other.modified().unwrap()));
        assert_ne!(one.ino(), other.ino(), "no hard link");
        assert_eq!(fs::read_link(made.path.join("cache/link")).unwrap(), Path::new("a/run"));
        fs::write(&copy, "changed\n").unwrap();
        assert_eq!(read(fixture.root(), "cache/a/run"), "x\n");
        assert_eq!(seeded(&fixture, &made.path, &["cache"]), ["cache: the worktree has it"]);
    }

    #[test]
    fn what_cannot_be_moved_is_left_out_with_its_reason() {
        let fixture = project();
        fixture.write(".venv/pyvenv.cfg", "home = /usr\n");
        fixture.write("sub/deep/.git/HEAD", "x\n");
        fixture.write("links/a", "x\n");
        symlink("/etc", fixture.root().join("links/etc")).unwrap();
        fixture.write("plain/a", "x\n");
        let made = fixture.worktree("work");
        let expected = [
            ".venv: .venv is a virtual environment, which works in its own place only",
            "links: the link links/etc leads outside",
            "sub: sub/deep is a git repository",
            "plain: git does not ignore it",
        ];
        assert_eq!(seeded(&fixture, &made.path, &[".venv", "links", "sub", "plain"]), expected);
        for path in [".venv", "links", "sub", "plain"] {
            assert!(!made.path.join(path).exists(), "{path}");
        }
    }

    #[test]
    fn folder_over_the_limit_is_only_cloned() {
        let fixture = project();
        fixture.write("big/a", &"x".repeat(2 << 20));
        let made = fixture.worktree("work");
        let clones = can_clone(&fixture.root().join("big/a"), &made.path.join("clone"));
        let left_out = seeded(&fixture, &made.path, &["big"]);
        if clones {
            assert_eq!(left_out, Vec::<String>::new());
        } else {
            assert_eq!(left_out, ["big: it has 2 MiB, and only 1 MiB are copied here (seed_limit_mib)"]);
        }
        let others = fs::read_dir(&made.path).unwrap().flatten().filter(|it| it.file_name() != ".git");
        let names: Vec<_> = others.map(|it| it.file_name().into_string().unwrap()).collect();
        assert!(names.iter().all(|name| !name.starts_with("big.")), "{names:?}");
    }

    #[test]
    fn folder_is_copied_without_the_exception() {
        let folder = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| folder.path().join(name));
        fs::create_dir_all(from.join("state/inner")).unwrap();
        fs::write(from.join("file"), "x\n").unwrap();
        fs::write(from.join("state/big"), "x".repeat(2 << 20)).unwrap();
        let copy = |except: &str| copy_folder(&from, &to, &from.join(except), LIMIT).unwrap();
        assert_eq!(copy("state"), None);
        assert_eq!((fs::read_dir(&to).unwrap().count(), read(&to, "file")), (1, "x\n".to_owned()));
        fs::remove_dir_all(&to).unwrap();
        let clones = can_clone(&from.join("state/big"), &folder.path().join("clone"));
        assert_eq!(copy("file").is_none(), clones);
        assert_eq!(to.join("state/big").exists(), clones);
    }

    #[test]
    fn only_links_within_the_root_are_copied() {
        let leads = |path: &str, target: &str| leads_outside(Path::new(path), Path::new(target));
        for (path, target) in [("a/link", "../b"), ("a/link", "b/../../c"), ("a/b/link", "./../../c"), ("link", "a")] {
            assert!(!leads(path, target), "{path} {target}");
        }
        for (path, target) in [("a/link", "../../b"), ("link", ".."), ("a/link", "/etc"), ("a/link", "b/../../../c/d")]
        {
            assert!(leads(path, target), "{path} {target}");
        }
    }
}
