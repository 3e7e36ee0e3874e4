//! Writes a new branch and git's record of a new worktree (gitrepository-layout(5)). Starting git twice for this would
//! take longer than everything else that is done under the repository's lock.
//!
//! It does so only where it is certain what git would write: in a repository without extensions or special worktree
//! settings, for a branch that does not exist yet, with a plain name. Git does everything else, and reports why
//! something is not possible.
//!
//! Git writes its record file by file, and every other git process in the repository fails meanwhile. This module
//! writes the record beside the others and renames it into place as a whole. A git process survives the server that
//! started it; this code does not. The next creation removes an incomplete record, or [`super::refill`] completes it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use git2::{Oid, Repository as Opened};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::crash_point::{self, Point};
use crate::git::repository::Repository;

/// Folder in which a record is written before its branch is created and it is moved into place.
const UNFINISHED: &str = "orchestrator-boss.worktree";
/// Maximum difference in age between a leftover lock of a ref and the other remains of the same creation.
const AS_OLD: Duration = Duration::from_secs(2);
/// Settings that change what `git worktree add` does.
const UNUSUAL: [&str; 4] =
    ["core.sharedrepository", "core.sparsecheckout", "core.worktree", "worktree.userelativepaths"];

pub(super) struct NewBranch<'a> {
    pub name: &'a str,
    pub commit: &'a str,
    pub message: &'a str,
}

/// The created parts. All other parts are at most empty folders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    Nothing,
    Branch,
    Both,
}

/// A repository without extensions or special worktree settings.
pub(super) struct Usual {
    opened: Opened,
    /// Without symbolic links, as git writes it.
    common_dir: PathBuf,
}

impl Usual {
    pub(super) fn of(repo: &Repository) -> Option<Usual> {
        let root = repo.main_worktree.as_ref().filter(|root| root.join(".git") == repo.common_dir)?;
        // Libgit2 opens no repository with an unknown storage of refs or objects.
        let opened = Opened::open(root).ok().filter(|opened| !opened.is_bare())?;
        let settings = opened.config().and_then(|mut config| config.snapshot()).ok()?;
        let extended = settings.entries(Some("^extensions\\.")).ok()?.next().is_some();
        let unusual = UNUSUAL.iter().any(|name| settings.get_entry(name).is_ok());
        let common_dir = repo.common_dir.canonicalize().ok()?;
        // Git would copy it.
        let sparse = common_dir.join("info/sparse-checkout").exists();
        (!extended && !unusual && !sparse).then_some(Usual { opened, common_dir })
    }

    /// Creates the branch, which must not exist, and git's record of a worktree at `path` on it, without any files. The
    /// caller holds the repository's lock.
    pub(super) fn make(&self, path: &Path, branch: &NewBranch, lock_reason: Option<&str>) -> Made {
        let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|name| is_plain(name)) else {
            return Made::Nothing;
        };
        let unfinished = self.common_dir.join(UNFINISHED);
        self.clear_away(&unfinished);
        if write(&unfinished, path, branch.name, lock_reason).is_err() {
            let _ = fs::remove_dir_all(&unfinished);
            return Made::Nothing;
        }
        crash_point::in_the_middle(Point::BranchBegun, || drop(fs::write(self.ref_lock(branch.name), "")));
        if !self.make_branch(branch) {
            let _ = fs::remove_dir_all(&unfinished);
            return Made::Nothing;
        }
        let Ok(folder) = self.name(&unfinished, name) else {
            let _ = fs::remove_dir_all(&unfinished);
            return Made::Branch;
        };
        crash_point::in_the_middle(Point::WorktreeRecorded, || drop(File::create(path.join(".git"))));
        let linked = link(path, &folder).and_then(|()| match lock_reason {
            Some(_) => Ok(()),
            None => fs::remove_file(folder.join("locked")),
        });
        if linked.is_err() {
            let _ = fs::remove_dir_all(&folder);
            let _ = fs::remove_file(path.join(".git"));
            return Made::Branch;
        }
        Made::Both
    }

    fn make_branch(&self, branch: &NewBranch) -> bool {
        let name = format!("refs/heads/{}", branch.name);
        let make = |id| {
            // Its absence is checked once more, under the lock of the ref.
            self.opened.reference_matching(&name, id, false, Oid::ZERO_SHA1, branch.message)
        };
        Oid::from_str(branch.commit).and_then(make).is_ok()
    }

    fn ref_lock(&self, branch: &str) -> PathBuf {
        self.common_dir.join("refs/heads").join(format!("{branch}.lock"))
    }

    /// Removes the remains of a worktree, and the lock of its ref, from a server that was killed while it made them.
    /// The server is dead, since this process holds the repository's lock.
    fn clear_away(&self, unfinished: &Path) {
        let head = unfinished.join("HEAD");
        if let Ok(text) = fs::read_to_string(&head)
            && let Some(branch) = text.trim_end().strip_prefix("ref: refs/heads/")
            // A worker can write it too, and must not redirect this process.
            && git2::Branch::name_is_valid(branch).unwrap_or(false)
        {
            let written = |path: &Path| path.metadata().and_then(|it| it.modified()).ok();
            let ref_lock = self.ref_lock(branch);
            let age = written(&head).zip(written(&ref_lock)).map(|(head, lock)| lock.duration_since(head));
            // Not the lock of another process that works on that branch now.
            if age.is_some_and(|age| age.is_ok_and(|age| age < AS_OLD)) {
                let _ = fs::remove_file(ref_lock);
            }
        }
        let _ = fs::remove_dir_all(unfinished);
    }

    /// Moves a record to its place, under the first free name, numbered as git numbers them.
    fn name(&self, unfinished: &Path, name: &str) -> io::Result<PathBuf> {
        let folder = self.common_dir.join("worktrees");
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let names = [name.to_owned()].into_iter().chain((1..1_000).map(|number| format!("{name}{number}")));
        for place in names.map(|name| folder.join(name)) {
            match renameat_with(CWD, unfinished, CWD, &place, RenameFlags::NOREPLACE).map_err(io::Error::from) {
                Ok(()) => return Ok(place),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

/// The record, in a folder of its own.
fn write(folder: &Path, path: &Path, branch: &str, lock_reason: Option<&str>) -> io::Result<()> {
    fs::create_dir_all(path)?;
    if path.read_dir()?.next().is_some() {
        return Err(io::ErrorKind::DirectoryNotEmpty.into());
    }
    let link = path.join(".git");
    let link = link.to_str().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir(folder)?;
    fs::write(folder.join("HEAD"), format!("ref: refs/heads/{branch}\n"))?;
    fs::create_dir(folder.join("refs"))?;
    // Git does the same: otherwise a worktree without files could be pruned.
    fs::write(folder.join("locked"), format!("{}\n", lock_reason.unwrap_or("initializing")))?;
    fs::write(folder.join("gitdir"), format!("{link}\n"))?;
    fs::write(folder.join("commondir"), "../..\n")
}

/// Writes the file in a worktree that links it to git's record, if that file is missing or incomplete.
pub(in crate::git) fn link(path: &Path, record: &Path) -> io::Result<()> {
    let file = path.join(".git");
    let text = format!("gitdir: {}\n", record.to_str().ok_or(io::ErrorKind::InvalidInput)?);
    match fs::read(&file) {
        Ok(there) if !there.is_empty() => Ok(()),
        Ok(_) => fs::write(&file, text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => File::create_new(&file)?.write_all(text.as_bytes()),
        Err(error) => Err(error),
    }
}

/// Returns whether git accepts a name unchanged.
fn is_plain(name: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.chars().all(plain)
        && !name.contains("..")
        && !name.ends_with(['.'])
        && !name.ends_with(".lock")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::list::{ask_list, list};
    use crate::git::testing::Fixture;
    use crate::git::worktree::{Request, add, create, create_branch, fill, refill};
    use crate::git::{check, layout};
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    fn make(repo: &Repository, path: &Path, name: &str, commit: &str, reason: Option<&str>) -> Made {
        let message = crate::git::worktree::BRANCH_MESSAGE;
        Usual::of(repo).unwrap().make(path, &NewBranch { name, commit, message }, reason)
    }

    fn request(fixture: &Fixture, name: &str) -> Request {
        Request { branch: format!("on/{name}"), path: Some(fixture.beside(name)), ..Request::default() }
    }

    /// Every file and folder below, with its mode, and a file's content.
    fn everything(folder: &Path) -> BTreeMap<PathBuf, (u32, String)> {
        let mut found = BTreeMap::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(next) = folders.pop() {
            for path in next.read_dir().unwrap().map(|entry| entry.unwrap().path()) {
                let mode = path.metadata().unwrap().permissions().mode();
                let content = if path.is_dir() { String::new() } else { fs::read_to_string(&path).unwrap() };
                if path.is_dir() {
                    folders.push(path.clone());
                }
                found.insert(path.strip_prefix(folder).unwrap().to_owned(), (mode, content));
            }
        }
        found
    }

    /// With its branch, made as asked; what git keeps of it, the names and times taken out.
    fn made(fixture: &Fixture, name: &str, by_us: bool, reason: Option<&str>) -> BTreeMap<PathBuf, (u32, String)> {
        let (repo, path) = (&fixture.repo, fixture.beside(name));
        let plan = check::check(repo, &request(fixture, name)).unwrap();
        if by_us {
            assert_eq!(make(repo, &path, &plan.branch, &plan.base_commit, reason), Made::Both)
        } else {
            create_branch(repo, &plan).unwrap();
            add(repo, &plan, &path, reason).unwrap();
        }
        let record = layout::own_git_dir(&repo.common_dir, &path).unwrap();
        let mut all = everything(&record);
        let of_files = |file: &Path| (file.metadata().unwrap().permissions().mode(), fs::read_to_string(file).unwrap());
        all.insert("link".into(), of_files(&path.join(".git")));
        for kept in ["refs/heads/on", "logs/refs/heads/on"] {
            all.insert(kept.into(), of_files(&repo.common_dir.join(kept).join(name)));
        }
        let listed = ask_list(repo).unwrap().into_iter().find(|listed| listed.path == path).unwrap();
        all.insert("listed".into(), (0, format!("{listed:?}")));
        fill(repo, &path).unwrap();
        let (_, log) = of_files(&record.join("logs/HEAD"));
        all.insert("last of HEAD".into(), (0, log.lines().last().unwrap().to_owned()));
        for (path, (_, text)) in &mut all {
            let is_log = path.to_string_lossy().contains("logs") || path.ends_with("last of HEAD");
            let plain: String = if is_log { seconds_cut(text) } else { text.clone() };
            *text = plain.replace(name, "NAME");
        }
        all
    }

    fn seconds_cut(log: &str) -> String {
        log.lines()
            .map(|line| line.split("> ").next().unwrap().to_owned() + line.split('\t').nth(1).unwrap_or(""))
            .collect()
    }

    #[test]
    fn record_equals_that_of_git() {
        let fixture = Fixture::new();
        for (round, reason) in [None, Some("a reason")].into_iter().enumerate() {
            let by_git = made(&fixture, &format!("one{round}x"), false, reason);
            let mut ours = made(&fixture, &format!("two{round}x"), true, reason);
            // Git begins the log of HEAD while it adds the worktree; ours begins when its files are filled in.
            for log in ["logs", "logs/HEAD"] {
                ours.insert(log.into(), by_git[Path::new(log)].clone());
            }
            assert_eq!(ours, by_git);
        }
        fixture.git(&["fsck", "--strict"]);
        assert_eq!(fixture.git(&["worktree", "prune", "--dry-run", "--verbose"]), "");
        assert!(!fixture.repo.common_dir.join(UNFINISHED).exists());
    }

    #[test]
    fn taken_name_is_numbered_as_in_git() {
        let fixture = Fixture::new();
        for (folder, name) in [("a", "same"), ("b", "same1"), ("c", "same2")] {
            let path = Some(fixture.root().join(folder).join("same"));
            create(&fixture.repo, &Request { branch: folder.into(), path, ..Request::default() }, None).unwrap();
            assert!(fixture.repo.common_dir.join("worktrees").join(name).join("index").exists());
        }
        assert!(["a", "a-b_c.d", "7"].iter().all(|name| is_plain(name)));
        assert!(!["", ".a", "-a", "a b", "a..b", "a.", "a.lock", "ä", "a*"].iter().any(|name| is_plain(name)));
    }

    #[test]
    fn unusual_repositories_are_left_to_git() {
        assert!(Usual::of(&Fixture::new().repo).is_some());
        let settings = [
            ["extensions.worktreeConfig", "true"],
            ["core.sparseCheckout", "true"],
            ["core.sharedRepository", "group"],
            ["worktree.useRelativePaths", "true"],
        ];
        for setting in settings {
            let fixture = Fixture::new();
            fixture.git(&[&["config"][..], &setting].concat());
            assert!(Usual::of(&fixture.repo).is_none(), "{setting:?}");
            create(&fixture.repo, &request(&fixture, "work"), None).unwrap();
        }
        for option in ["--object-format=sha256", "--ref-format=reftable", "--bare"] {
            assert!(Usual::of(&Fixture::empty(&[option]).repo).is_none(), "{option}");
        }
    }

    #[test]
    fn existing_branch_is_never_moved() {
        let fixture = Fixture::new();
        let first = fixture.git(&["rev-parse", "HEAD"]);
        let second = fixture.commit("b.txt", "b\n");
        fixture.git(&["branch", "loose", &first]);
        fixture.git(&["branch", "packed/deep", &first]);
        fixture.git(&["pack-refs", "--all"]);
        fixture.git(&["branch", "-f", "loose", &first]);
        let place = |name: &str| fixture.beside(&name.replace(['/', ' '], "-"));
        for name in ["loose", "packed/deep", "packed", "loose/below", "not valid"] {
            assert_eq!(make(&fixture.repo, &place(name), name, &second, None), Made::Nothing, "{name}");
        }
        let nowhere = "1".repeat(40);
        assert_eq!(make(&fixture.repo, &place("new"), "new", &nowhere, None), Made::Nothing);
        assert_eq!(make(&fixture.repo, &place("new"), "new", &second, None), Made::Both);
        let refs = fixture.git(&["for-each-ref", "--format=%(objectname) %(refname:lstrip=2)", "refs/heads"]);
        assert_eq!(refs, format!("{first} loose\n{second} main\n{second} new\n{first} packed/deep"));
    }

    #[test]
    fn no_git_process_sees_a_partial_worktree() {
        let fixture = Fixture::new();
        let made = AtomicBool::new(false);
        thread::scope(|scope| {
            let looking = scope.spawn(|| {
                let mut looks = 0;
                while !made.load(Ordering::Relaxed) {
                    fixture.repo.read().args(["worktree", "list", "--porcelain"]).run().unwrap();
                    looks += 1;
                }
                looks
            });
            for number in 0..40 {
                create(&fixture.repo, &request(&fixture, &format!("w{number}")), Some("a worker")).unwrap();
            }
            made.store(true, Ordering::Relaxed);
            assert!(looking.join().unwrap() > 0);
        });
    }

    #[test]
    fn interrupted_creation_is_completed() {
        let fixture = Fixture::new();
        let head = fixture.git(&["rev-parse", "HEAD"]);
        for (name, cut_off) in [("one", false), ("two", true)] {
            let path = fixture.beside(name);
            assert_eq!(make(&fixture.repo, &path, name, &head, Some("a worker")), Made::Both);
            fs::remove_file(path.join(".git")).unwrap();
            if cut_off {
                fs::write(path.join(".git"), "").unwrap();
            }
            assert_eq!(refill(&fixture.repo, &path).unwrap().branch, name);
            assert_eq!(crate::git::testing::git(&path, &["status", "--porcelain"]), "");
        }
        assert_eq!(list(&fixture.repo).unwrap().len(), 3);
    }

    #[test]
    fn only_locks_of_killed_server_are_removed() {
        let fixture = Fixture::new();
        let unfinished = fixture.repo.common_dir.join(UNFINISHED);
        let ref_lock = fixture.repo.common_dir.join("refs/heads/on/work.lock");
        let elsewhere = fixture.root().join("elsewhere.lock");
        fs::create_dir(&unfinished).unwrap();
        fs::write(unfinished.join("HEAD"), "ref: refs/heads/../../../elsewhere\n").unwrap();
        fs::write(&elsewhere, "").unwrap();
        create(&fixture.repo, &request(&fixture, "first"), None).unwrap();
        assert!(elsewhere.exists() && !unfinished.exists(), "it is not followed out of the refs");
        let leave = |later: Duration| {
            fs::create_dir_all(unfinished.join("refs")).unwrap();
            fs::write(unfinished.join("HEAD"), "ref: refs/heads/on/work\n").unwrap();
            fs::create_dir_all(ref_lock.parent().unwrap()).unwrap();
            let lock = File::create(&ref_lock).unwrap();
            lock.set_modified(unfinished.join("HEAD").metadata().unwrap().modified().unwrap() + later).unwrap();
        };
        leave(Duration::from_secs(60));
        create(&fixture.repo, &request(&fixture, "other"), None).unwrap();
        assert!(ref_lock.exists() && !unfinished.exists(), "another process works on that branch");
        fs::remove_file(&ref_lock).unwrap();
        leave(Duration::ZERO);
        create(&fixture.repo, &request(&fixture, "work"), None).unwrap();
        assert!(!ref_lock.exists() && !unfinished.exists());
        assert_eq!(list(&fixture.repo).unwrap().len(), 4);
    }

    #[test]
    fn impossible_creation_is_undone() {
        let fixture = Fixture::new();
        let (path, head) = (fixture.beside("work"), fixture.git(&["rev-parse", "HEAD"]));
        crate::git::testing::write(&path, "somebodys", "x");
        assert_eq!(make(&fixture.repo, &path, "work", &head, None), Made::Nothing, "there is something");
        // A file in place of git's folder.
        fs::write(fixture.repo.common_dir.join("worktrees"), "").unwrap();
        let other = fixture.beside("other");
        assert_eq!(make(&fixture.repo, &other, "work", &head, None), Made::Branch);
        assert!(!fixture.repo.common_dir.join(UNFINISHED).exists());
        assert_eq!(other.read_dir().unwrap().count(), 0);
    }
}
