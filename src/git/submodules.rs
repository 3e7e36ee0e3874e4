//! Fills the submodules of a new worktree from those of the main checkout, at the commits that the worktree's own
//! commit links to.
//!
//! Only objects of the main checkout's submodules are used: nothing is fetched over a network, and no hook runs. A
//! submodule that is missing there stays empty and is reported. So does one with files or a repository that may be a
//! worker's: nothing of them is ever deleted. Each filled one is a separate repository in the
//! worktree's git directory, as `git submodule update` would create it. Work in it does not touch the main checkout's
//! submodule.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::checkout::git_dir;
use super::command::{CommandError, Git};
use super::nested::{has_commit, is_own_repository};
use super::records::{links, split_at_tab};
use super::repository::Repository;
use super::trust::Checkout;
use crate::mission::hint::with_hints;

/// Name of the remote during the clone. The source's branches stay under it as remote-tracking refs.
const FROM: &str = "main-checkout";

/// Fills the empty submodules of a worktree. Returns a message for each one that is not filled, with the reason.
pub fn fill(repo: &Repository, worktree: &Path) -> Result<Vec<String>, CommandError> {
    let Some(main) = &repo.main_worktree else { return Ok(Vec::new()) };
    let mut empty = Vec::new();
    fill_all(&repo.at(main), &repo.at(worktree), Path::new(""), &mut empty)?;
    Ok(empty)
}

/// Returns whether a worktree of this commit would have empty submodules.
pub fn lacks_submodules(repo: &Repository, commit: &str) -> bool {
    let listed = repo.read().args(["ls-tree", "-r", "-z", "--full-tree", commit]).run().unwrap_or_default();
    let links = listed.split(|byte| *byte == 0).filter_map(|record| {
        // `160000 commit <id> TAB <path>`
        let (head, path) = split_at_tab(record.strip_prefix(b"160000 commit ")?)?;
        Some((String::from_utf8_lossy(head).into_owned(), path))
    });
    let main = repo.main_worktree.as_ref();
    links.into_iter().any(|(id, path)| main.is_none_or(|main| !has_commit(&repo.at(main.join(path)), &id)))
}

fn fill_all(main: &Checkout, worktree: &Checkout, prefix: &Path, empty: &mut Vec<String>) -> Result<(), CommandError> {
    if !may_have_links(worktree) {
        return Ok(());
    }
    let links = links(worktree)?;
    let names = names(worktree)?;
    let modules = git_dir(worktree)?.join("modules");
    for link in links {
        let (from, to) = (main.at(&link.path), worktree.at(&link.path));
        let shown = prefix.join(&link.path);
        if is_own_repository(&to)? {
            continue;
        }
        // Git's own default name is the path. A link that .gitmodules does not name has no other.
        let name = names.iter().find(|(_, path)| *path == link.path).map(|(name, _)| name.as_str());
        let why = match name.or(link.path.to_str()).filter(|name| is_safe(name)) {
            _ if !is_own_repository(&from)? => Some("it is not there in the main checkout either".to_owned()),
            _ if !has_commit(&from, &link.commit) => {
                Some(format!("the one in the main checkout does not have commit {}", link.commit))
            }
            None => Some("its name cannot be the name of a folder".to_owned()),
            Some(name) => {
                let own = modules.join(name);
                in_the_way(&to, &own)
                    .or_else(|| make(&from, &to, &own, &link.commit).err().map(|error| with_hints(&error)))
            }
        };
        match why {
            Some(why) => empty.push(format!("submodule {} is not filled: {why}", shown.display())),
            None => fill_all(&from, &to, &shown, empty)?,
        }
    }
    Ok(())
}

/// Returns why nothing can be created there without deleting what may be a worker's.
fn in_the_way(to: &Path, own: &Path) -> Option<String> {
    let is_free = |folder: &Path| match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    if !is_free(to) {
        return Some("there are files in it that do not belong to a repository".to_owned());
    }
    // The clone's remote is removed at the end of a creation, before any worker sees the repository.
    let is_unfinished =
        || fs::read_to_string(own.join("config")).is_ok_and(|it| it.contains(&format!("[remote \"{FROM}\"]")));
    if is_free(own) || is_unfinished() {
        return None;
    }
    Some(format!(
        "it was removed, and its commits are in {}; `git submodule update --init` brings it back",
        own.display()
    ))
}

/// Creates a separate repository with all objects of the source, and checks out the commit. A failure leaves an empty
/// folder.
fn make(from: &Checkout, to: &Checkout, own: &Path, commit: &str) -> Result<(), CommandError> {
    let made = try_make(from, to, own, commit);
    if made.is_err() {
        let _ = fs::remove_dir_all(own);
        let _ = fs::remove_dir_all(to);
        let _ = fs::create_dir(to);
    }
    made
}

fn try_make(from: &Checkout, to: &Checkout, own: &Path, commit: &str) -> Result<(), CommandError> {
    // Only an interrupted creation can have left one, see [`in_the_way`].
    let _ = fs::remove_dir_all(own);
    if let Some(folder) = own.parent() {
        let _ = fs::create_dir_all(folder);
    }
    Git::write(&to.at(to.parent().unwrap_or(to)))
        .config("protocol.file.allow=always")
        .args(["clone", "--quiet", "--no-checkout", "--template=", "--origin", FROM])
        // Commits of the source's remotes must not count as commits that only this worktree has.
        .args(["--config", &format!("remote.{FROM}.fetch=+refs/remotes/*:refs/remotes/*")])
        .arg("--separate-git-dir")
        .arg(own)
        .arg("--")
        .args([&**from, &**to])
        .run()?;
    Git::write(to).args(["checkout", "--quiet", "--detach", commit, "--"]).run()?;
    take_settings(from, to)
}

/// Copies the settings that a checkout made by hand would have: remotes, submodules in use, and identity. The clone's
/// own remote and its local branches are deleted; the remote-tracking refs stay.
fn take_settings(from: &Checkout, to: &Checkout) -> Result<(), CommandError> {
    let branches = Git::read(to).args(["for-each-ref", "--format=%(refname:short)", "refs/heads/"]).text()?;
    for branch in branches.lines() {
        Git::write(to).args(["branch", "--quiet", "-D", "--", branch]).run()?;
    }
    Git::write(to).args(["config", "--local", "--remove-section", &format!("remote.{FROM}")]).run()?;
    let names = r"^(remote\..*\.(url|pushurl|fetch)|submodule\..*\.(url|active)|submodule\.active|user\.(name|email))$";
    let settings =
        Git::read(from).args(["config", "--local", "-z", "--get-regexp", names]).answer()?.unwrap_or_default();
    for setting in settings.split(|byte| *byte == 0) {
        let Some(newline) = setting.iter().position(|byte| *byte == b'\n') else { continue };
        let (name, value) = (OsStr::from_bytes(&setting[..newline]), OsStr::from_bytes(&setting[newline + 1..]));
        Git::write(to).args(["config", "--local", "--add"]).arg(name).arg(value).run()?;
    }
    Ok(())
}

/// Returns whether the worktree's index holds links, as far as that is known without starting git.
fn may_have_links(worktree: &Path) -> bool {
    const LINK: u32 = 0o160_000;
    let index = git2::Repository::open(worktree).and_then(|opened| opened.index());
    index.map_or(true, |index| index.iter().any(|entry| entry.mode == LINK))
}

/// Returns the name and path of each submodule in `.gitmodules`.
fn names(worktree: &Checkout) -> Result<Vec<(String, PathBuf)>, CommandError> {
    if !worktree.join(".gitmodules").is_file() {
        return Ok(Vec::new());
    }
    let paths = ["config", "--file", ".gitmodules", "-z", "--get-regexp", r"^submodule\..*\.path$"];
    let answer = Git::read(worktree).args(paths).answer()?.unwrap_or_default();
    let named = answer.split(|byte| *byte == 0).filter_map(|setting| {
        let newline = setting.iter().position(|byte| *byte == b'\n')?;
        let name = String::from_utf8_lossy(&setting[..newline]).into_owned();
        let name = name.strip_prefix("submodule.")?.strip_suffix(".path")?.to_owned();
        Some((name, PathBuf::from(OsStr::from_bytes(&setting[newline + 1..]))))
    });
    Ok(named.collect())
}

/// Returns whether the name can only become a folder below `modules`.
fn is_safe(name: &str) -> bool {
    !name.is_empty() && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::testing::{Fixture, at, check_out_submodules, commit, git, identify, read, write};
    use crate::git::{Remove, Request, create, refill, remove};

    const ALLOW: [&str; 2] = ["-c", "protocol.file.allow=always"];

    /// Creates a repository with a submodule `lib`, which has a submodule `deep`; both are checked out.
    fn with_submodules() -> (Fixture, Vec<Fixture>) {
        let (main, lib, deep) = (Fixture::new(), Fixture::new(), Fixture::new());
        for (outer, inner, name) in [(&lib, &deep, "deep"), (&main, &lib, "lib")] {
            let url = inner.root().to_str().unwrap();
            outer.git(&[&ALLOW[..], &["submodule", "add", "-q", "--name", &format!("its/{name}"), url, name]].concat());
            outer.git(&["commit", "-qm", "a submodule"]);
        }
        check_out_submodules(main.root());
        (main, vec![lib, deep])
    }

    #[test]
    fn worktree_has_submodules_of_the_main_checkout() {
        let (fixture, remotes) = with_submodules();
        let url = git(&fixture.root().join("lib"), &["config", "remote.origin.url"]);
        // The remotes are gone, so nothing can be fetched.
        drop(remotes);
        let made = fixture.worktree("work");
        assert_eq!(made.not_copied, Vec::<String>::new());
        assert_eq!(read(&made.path, "lib/deep/readme.txt"), "hello\n");
        assert_eq!(git(&made.path, &["status", "--porcelain", "--ignored"]), "");
        let status = git(&made.path, &["submodule", "status", "--recursive"]);
        assert!(status.lines().count() == 2 && status.lines().all(|line| line.starts_with(' ')), "{status}");
        let lib = made.path.join("lib");
        assert_eq!(git(&lib, &["remote"]), "origin");
        assert_eq!(git(&lib, &["config", "remote.origin.url"]), url);
        assert_eq!(git(&lib, &["branch", "--format=%(refname)"]).lines().count(), 1, "HEAD alone");
        // The main checkout's submodule is a different repository.
        write(&lib, "mine.txt", "x");
        assert_eq!(fixture.git(&["status", "--porcelain"]), "");
        assert!(!lacks_submodules(&fixture.repo, "work"));
    }

    #[test]
    fn gitlink_without_gitmodules_entry_is_filled() {
        let (fixture, lib) = (Fixture::new(), Fixture::new());
        fixture.git(&["clone", "-q", lib.root().to_str().unwrap(), "deps/lib"]);
        fixture.git(&["add", "deps/lib"]);
        fixture.git(&["commit", "-qm", "a link alone"]);
        let filled = fixture.worktree("work");
        assert_eq!((filled.not_copied, read(&filled.path, "deps/lib/readme.txt")), (vec![], "hello\n".to_owned()));
        assert_eq!(git(&filled.path, &["status", "--porcelain", "--ignored"]), "");
        fs::remove_dir_all(fixture.root().join("deps/lib")).unwrap();
        let request = Request { branch: "other".to_owned(), base: Some("main".to_owned()), ..Request::default() };
        let empty = create(&fixture.repo, &request, None).unwrap();
        assert!(empty.not_copied[0].starts_with("submodule deps/lib is not filled"), "{:?}", empty.not_copied);
    }

    #[test]
    fn removal_keeps_commits_in_submodules() {
        let (fixture, _remotes) = with_submodules();
        for commits in [false, true] {
            let made = fixture.worktree("work");
            if commits {
                let lib = made.path.join("lib");
                identify(&lib);
                commit(&lib, "mine.txt", "x\n");
            }
            let request = |force| Remove {
                path: made.path.clone(),
                force,
                delete_branch: true,
                salvage_name: "kept".to_owned(),
                ..Remove::default()
            };
            if commits {
                remove(&fixture.repo, &request(false)).unwrap_err();
            }
            let removed = remove(&fixture.repo, &request(commits)).unwrap();
            assert_eq!(removed.salvage_ref.is_some(), commits, "{removed:?}");
            assert!(!made.path.exists() && read(fixture.root(), "lib/deep/readme.txt") == "hello\n");
        }
    }

    #[test]
    fn refilling_deletes_no_work() {
        let (fixture, _remotes) = with_submodules();
        let made = fixture.worktree("work");
        let lib = made.path.join("lib");
        git(&lib, &["-c", "user.name=x", "-c", "user.email=x@y", "commit", "-q", "--allow-empty", "-m", "mine"]);
        let mine = git(&lib, &["rev-parse", "HEAD"]);
        let own = git_dir(&at(&lib)).unwrap();
        fs::remove_file(lib.join(".git")).unwrap();
        let refilled = refill(&fixture.repo, &made.path).unwrap();
        assert_eq!(read(&lib, "readme.txt"), "hello\n");
        assert!(refilled.not_copied[0].contains("lib is not filled: there are files"), "{refilled:?}");
        fs::remove_dir_all(&lib).unwrap();
        fs::create_dir(&lib).unwrap();
        let refilled = refill(&fixture.repo, &made.path).unwrap();
        assert!(refilled.not_copied[0].contains("lib is not filled: it was removed"), "{refilled:?}");
        assert!(Git::read(&at(&own)).args(["cat-file", "-e", &mine]).succeeds().unwrap());
        // An interrupted creation was never used, and is made again.
        git(&own, &["config", &format!("remote.{FROM}.url"), "x"]);
        assert_eq!(refill(&fixture.repo, &made.path).unwrap().not_copied, Vec::<String>::new());
        assert_eq!(read(&lib, "readme.txt"), "hello\n");
    }

    #[test]
    fn unavailable_submodule_stays_empty_and_is_reported() {
        let (fixture, _remotes) = with_submodules();
        let known = fixture.git(&["rev-parse", ":lib"]);
        fixture.git(&["update-index", "--cacheinfo", &format!("160000,{},lib", "1".repeat(40))]);
        fixture.git(&["commit", "-qm", "a commit that nobody has"]);
        let first = fixture.worktree("work");
        assert!(
            first.not_copied[0].contains("lib is not filled: the one in the main checkout does not have commit 1111"),
            "{first:?}"
        );
        assert_eq!(first.path.join("lib").read_dir().unwrap().count(), 0);
        assert!(lacks_submodules(&fixture.repo, "work"));
        fixture.git(&["update-index", "--cacheinfo", &format!("160000,{known},lib")]);
        fixture.git(&["commit", "-qm", "back"]);
        fixture.git(&["submodule", "-q", "deinit", "--force", "lib"]);
        let second = fixture.worktree("second");
        assert!(second.not_copied[0].contains("not there in the main checkout either"), "{second:?}");
        assert_eq!(git(&second.path, &["status", "--porcelain"]), "");
    }
}
