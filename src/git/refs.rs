//! Refs and worktrees, read by libgit2 and from git's own files, since starting git takes longer than everything that
//! is done with the answer.
//!
//! An answer is given only if it is certain. In all other cases (sha256, reftable, partial clones, a partly created
//! worktree, names that only git understands) it is `None` or [`RefLookup::AskGit`], and the caller runs the git
//! program. Nothing is changed here.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use git2::{Direction, ErrorCode, ObjectType, Oid, Repository as Opened, Sort};

use super::layout::Listed;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RefLookup<T> {
    Found(T),
    /// It certainly does not exist.
    Absent,
    /// Only the git program knows.
    AskGit,
}

/// Looks up the commit behind `HEAD`, a whole id, a full ref name, or a short one by git's order of places.
pub(super) fn commit(dir: &Path, name: &str) -> RefLookup<String> {
    try_commit(dir, name).unwrap_or(RefLookup::AskGit)
}

fn try_commit(dir: &Path, name: &str) -> Option<RefLookup<String>> {
    let repository = Opened::open(dir).ok()?;
    if name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let commit = repository.find_commit(Oid::from_str(name).ok()?).ok()?;
        return Some(RefLookup::Found(commit.id().to_string()));
    }
    let found = if name == "HEAD" || name.starts_with("refs/") {
        repository.find_reference(name)
    } else {
        repository.resolve_reference_from_short_name(name)
    };
    match found {
        Ok(reference) => Some(RefLookup::Found(reference.peel_to_commit().ok()?.id().to_string())),
        Err(error) if error.code() == ErrorCode::NotFound && name.starts_with("refs/") => Some(RefLookup::Absent),
        Err(_) => None,
    }
}

/// Returns the checked out branch without `refs/heads/`. It may have no commit yet.
pub(super) fn checked_out(dir: &Path) -> Option<String> {
    let opened = Opened::open(dir).ok()?;
    let head = opened.find_reference("HEAD").ok()?;
    Some(head.symbolic_target().ok()??.strip_prefix("refs/heads/")?.to_owned())
}

/// Returns the root of the working tree around a folder.
pub(super) fn working_tree(dir: &Path) -> Option<PathBuf> {
    Opened::discover(dir).ok()?.workdir()?.canonicalize().ok()
}

/// Returns whether the commit `part` is contained in `whole`.
pub(super) fn is_ancestor(dir: &Path, part: &str, whole: &str) -> Option<bool> {
    Ancestry::of(dir)?.is_ancestor(part, whole)
}

/// Returns the commits of `tip` that `onto` lacks, each with its parents, oldest first.
pub(super) fn only_in(dir: &Path, tip: &str, onto: &str) -> Option<Vec<(String, Vec<String>)>> {
    let (tip, onto) = (Oid::from_str(tip).ok()?, Oid::from_str(onto).ok()?);
    let opened = Opened::open(dir).ok()?;
    if opened.references_glob("refs/replace/*").ok()?.next().is_some() {
        return None;
    }
    let mut walk = opened.revwalk().ok()?;
    walk.set_sorting(Sort::TOPOLOGICAL | Sort::REVERSE).ok()?;
    walk.push(tip).ok()?;
    walk.hide(onto).ok()?;
    let with_parents = |id: Result<Oid, git2::Error>| {
        let commit = opened.find_commit(id.ok()?).ok()?;
        Some((commit.id().to_string(), commit.parent_ids().map(|it| it.to_string()).collect()))
    };
    walk.map(with_parents).collect()
}

/// A move of a branch, as its reflog records it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Logged {
    pub to: String,
    /// Unix time of the move.
    pub at: i64,
    pub why: String,
}

/// Reads the reflog of a ref, newest move first.
pub(super) fn log(dir: &Path, name: &str) -> Option<Vec<Logged>> {
    let log = Opened::open(dir).ok()?.reflog(name).ok()?;
    let logged = |entry: git2::ReflogEntry<'_>| {
        let why = String::from_utf8_lossy(entry.message_bytes().unwrap_or_default()).into_owned();
        Logged { to: entry.id_new().to_string(), at: entry.committer().when().seconds(), why }
    };
    Some(log.iter().map(logged).collect())
}

/// Returns the tips of these local branches. Missing branches are left out.
pub(super) fn tips(dir: &Path, branches: &[String]) -> Option<HashMap<String, String>> {
    let opened = Opened::open(dir).ok()?;
    let mut found = HashMap::new();
    for branch in branches {
        match opened.find_reference(&format!("refs/heads/{branch}")) {
            Ok(reference) => {
                found.insert(branch.clone(), reference.peel_to_commit().ok()?.id().to_string());
            }
            // A branch with an invalid name cannot exist either.
            Err(error) if matches!(error.code(), ErrorCode::NotFound | ErrorCode::InvalidSpec) => {}
            Err(_) => return None,
        }
    }
    Some(found)
}

/// An open repository that answers many ancestry questions.
pub(super) struct Ancestry(Opened);

impl Ancestry {
    pub(super) fn of(dir: &Path) -> Option<Self> {
        let opened = Opened::open(dir).ok()?;
        // Git uses other parents where commits are replaced; libgit2 does not.
        if opened.references_glob("refs/replace/*").ok()?.next().is_some() {
            return None;
        }
        Some(Self(opened))
    }

    pub(super) fn is_ancestor(&self, part: &str, whole: &str) -> Option<bool> {
        let (part, whole) = (Oid::from_str(part).ok()?, Oid::from_str(whole).ok()?);
        // A commit that git has deleted is contained in no other.
        if self.0.find_commit(part).is_err_and(|error| error.code() == ErrorCode::NotFound) {
            return Some(false);
        }
        Some(part == whole || self.0.graph_descendant_of(whole, part).ok()?)
    }

    /// Returns the same repository together with the objects in another folder.
    pub(super) fn with_objects_in(self, folder: &Path) -> Option<Self> {
        self.0.odb().ok()?.add_disk_alternate(folder.to_str()?).ok()?;
        Some(self)
    }

    /// Returns the tree of a commit, or the tree itself.
    pub(super) fn tree_of(&self, commit: &str) -> Option<String> {
        let object = self.0.find_object(Oid::from_str(commit).ok()?, None).ok()?;
        Some(object.peel_to_tree().ok()?.id().to_string())
    }
}

/// Returns all refs by name, each with the id that it leads to.
pub(super) fn all(dir: &Path) -> Option<Vec<(String, String)>> {
    let repository = Opened::open(dir).ok()?;
    repository.references().ok()?.map(|found| named(&found.ok()?)).collect()
}

/// Returns the branch of this name, and those that cannot exist beside it, because git stores branches like files and
/// folders. Names are without `refs/heads/`.
pub(super) fn neighbours(dir: &Path, branch: &str) -> Option<Vec<(String, String)>> {
    let repository = Opened::open(dir).ok()?;
    let full = format!("refs/heads/{branch}");
    let mut found = Vec::new();
    for (at, _) in full.match_indices('/').skip(2).chain([(full.len(), "")]) {
        match repository.find_reference(&full[..at]) {
            Ok(reference) => found.push(named(&reference)?),
            Err(error) if error.code() == ErrorCode::NotFound => {}
            Err(_) => return None,
        }
    }
    for below in repository.references_glob(&format!("{full}/*")).ok()? {
        found.push(named(&below.ok()?)?);
    }
    Some(found.into_iter().map(|(name, id)| (name["refs/heads/".len()..].to_owned(), id)).collect())
}

fn named(reference: &git2::Reference) -> Option<(String, String)> {
    let id = reference.resolve().ok()?.target()?;
    Some((reference.name().ok()?.to_owned(), id.to_string()))
}

/// Returns each remote and the ref in which a fetch stores its branch of this name.
pub(super) fn remote_places(dir: &Path, branch: &str) -> Option<Vec<(String, String)>> {
    let repository = Opened::open(dir).ok()?;
    let branch = format!("refs/heads/{branch}");
    let mut places = Vec::new();
    for name in repository.remotes().ok()?.iter() {
        let name = name.ok()??;
        let remote = repository.find_remote(name).ok()?;
        let kept = remote.refspecs().filter(|it| it.direction() == Direction::Fetch && it.src_matches(&branch));
        for place in kept.filter_map(|it| it.transform(&branch).ok()) {
            places.push((name.to_owned(), place.as_str().ok()?.to_owned()));
        }
    }
    Some(places)
}

/// Returns whether a commit has a folder at this path, with no symbolic link on the way.
pub(super) fn has_folder(dir: &Path, commit: &str, folder: &Path) -> Option<bool> {
    let repository = Opened::open(dir).ok()?;
    let tree = repository.find_commit(Oid::from_str(commit).ok()?).ok()?.tree().ok()?;
    Some(tree.get_path(folder).is_ok_and(|entry| entry.kind() == Some(ObjectType::Tree)))
}

/// Returns whether `core.ignorecase` is set, so that branches that differ only in case are the same file.
pub(super) fn ignores_case(dir: &Path) -> bool {
    let repository = Opened::open(dir).and_then(|repository| repository.config());
    repository.and_then(|config| config.get_bool("core.ignorecase")).unwrap_or(false)
}

/// Returns all worktrees, the main one first. A bare repository, or one whose files are not beside its worktree, is
/// left to the git program.
pub(super) fn worktrees(main_worktree: Option<&Path>, common_dir: &Path) -> Option<Vec<Listed>> {
    let root = main_worktree.filter(|root| root.join(".git") == common_dir)?;
    let opened = Opened::open(root).ok().filter(|opened| !opened.is_bare())?;
    let mut listed = vec![worktree(&opened, common_dir, root.to_owned())?];
    let linked = match fs::read_dir(common_dir.join("worktrees")) {
        Ok(linked) => linked.collect::<Result<Vec<_>, _>>().ok()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(_) => return None,
    };
    for folder in linked.iter().map(fs::DirEntry::path) {
        // Written last while one is made.
        fs::metadata(folder.join("commondir")).ok()?;
        let link = fs::read_to_string(folder.join("gitdir")).ok()?;
        let path = PathBuf::from(link.trim_end().strip_suffix("/.git")?);
        if !path.is_absolute() {
            return None;
        }
        let locked = match fs::read_to_string(folder.join("locked")) {
            Ok(reason) => Some(reason.trim().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(_) => return None,
        };
        listed.push(Listed { locked, ..worktree(&opened, &folder, path)? });
    }
    Some(listed)
}

/// Reads a worktree from the folder in which git keeps its HEAD.
fn worktree(opened: &Opened, folder: &Path, path: PathBuf) -> Option<Listed> {
    let file = folder.join("HEAD");
    // A symbolic link is how HEAD was written long ago.
    if !fs::symlink_metadata(&file).ok()?.is_file() {
        return None;
    }
    let text = fs::read_to_string(file).ok()?;
    let (head, branch) = match text.trim_end().strip_prefix("ref: ") {
        Some(name) => {
            let tip = match opened.find_reference(name) {
                Ok(reference) => Some(reference.target()?.to_string()),
                // The branch has no commit yet.
                Err(error) if error.code() == ErrorCode::NotFound => None,
                Err(_) => return None,
            };
            (tip, Some(name.strip_prefix("refs/heads/")?.to_owned()))
        }
        None => (Some(Oid::from_str(text.trim_end()).ok()?.to_string()), None),
    };
    Some(Listed { missing: !path.exists(), head, branch, path, ..Listed::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::checkout::{ask_commit, resolve_commit};
    use crate::git::list::ask_list;
    use crate::git::testing::{Fixture, at};

    fn found_in(fixture: &Fixture) -> Option<Vec<Listed>> {
        worktrees(fixture.repo.main_worktree.as_deref(), &fixture.repo.common_dir)
    }

    /// Branches, packed and not, tags of both kinds, a remote branch, a name that is two things.
    fn full_of_refs() -> Fixture {
        let fixture = Fixture::new();
        fixture.git(&["tag", "-a", "-m", "x", "v1"]);
        fixture.git(&["branch", "a/b/c"]);
        fixture.git(&["update-ref", "refs/remotes/origin/main", "HEAD"]);
        fixture.git(&["symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/main"]);
        fixture.git(&["pack-refs", "--all"]);
        fixture.commit("readme.txt", "second\n");
        fixture.git(&["tag", "twice", "HEAD~1"]);
        fixture.git(&["branch", "twice"]);
        fixture
    }

    #[test]
    fn names_resolve_as_in_git() {
        let fixture = full_of_refs();
        let (root, head) = (fixture.root(), fixture.git(&["rev-parse", "HEAD"]));
        let tag = fixture.git(&["rev-parse", "v1"]);
        let told = ["HEAD", "main", "refs/heads/a/b/c", "v1", "origin/main", "origin", "twice", "heads/twice", &head];
        for name in told {
            let expected = ask_commit(&at(root), name).unwrap();
            assert_eq!(commit(root, name), RefLookup::Found(expected.expect("git knows it")), "{name}");
        }
        assert_eq!(commit(root, "refs/heads/nothing"), RefLookup::Absent);
        for name in ["nothing", "main~1", "@{u}", "index", &head[..9], &tag, "a/b"] {
            assert_eq!(commit(root, name), RefLookup::AskGit, "{name}");
            assert_eq!(resolve_commit(&at(root), name).unwrap(), ask_commit(&at(root), name).unwrap(), "{name}");
        }
    }

    #[test]
    fn checkouts_and_ancestry_match_git() {
        let fixture = Fixture::new();
        let (root, first) = (fixture.root(), fixture.git(&["rev-parse", "HEAD"]));
        let second = fixture.commit("readme.txt", "changed\n");
        assert_eq!(checked_out(&at(root)).as_deref(), Some("main"));
        for (part, whole, expected) in [(&first, &second, true), (&second, &first, false), (&first, &first, true)] {
            assert_eq!(is_ancestor(root, part, whole), Some(expected));
        }
        fixture.git(&["replace", "--graft", &second]);
        assert_eq!(is_ancestor(root, &first, &second), None);
        assert!(!crate::git::integrate::contains(&fixture.repo, &second, &first));
        fixture.git(&["checkout", "-q", "--detach"]);
        assert_eq!(checked_out(&at(root)), None);
    }

    #[test]
    fn refs_match_those_of_git() {
        let fixture = full_of_refs();
        let mut found = all(fixture.root()).unwrap();
        found.sort();
        let listed = fixture.git(&["for-each-ref", "--format=%(refname) %(objectname)"]);
        let listed = listed.lines().filter_map(|line| line.split_once(' '));
        assert_eq!(found, listed.map(|(name, id)| (name.to_owned(), id.to_owned())).collect::<Vec<_>>());
    }

    #[test]
    fn conflicting_branch_is_found_above_and_below() {
        let fixture = full_of_refs();
        let names = |branch: &str| {
            let found = neighbours(fixture.root(), branch).expect("it is certain");
            found.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(names("a"), ["a/b/c"]);
        assert_eq!(names("a/b"), ["a/b/c"]);
        assert_eq!(names("a/b/c"), ["a/b/c"]);
        assert_eq!(names("a/b/c/d"), ["a/b/c"]);
        assert_eq!(names("a/c"), Vec::<String>::new());
        assert_eq!(names("mai"), Vec::<String>::new());
    }

    #[test]
    fn worktrees_match_those_of_git() {
        let fixture = full_of_refs();
        assert_eq!(found_in(&fixture), Some(ask_list(&fixture.repo).unwrap()));
        let place = |name: &str| fixture.beside(name).to_str().unwrap().to_owned();
        fixture.git(&["worktree", "add", "-q", "-b", "x/y", &place("on a branch")]);
        fixture.git(&["worktree", "add", "-q", "--detach", &place("detached")]);
        fixture.git(&["worktree", "add", "-q", "--lock", "--reason", "two\nlines ", &place("locked")]);
        fixture.git(&["worktree", "add", "-q", "--lock", &place("gone")]);
        fixture.git(&["worktree", "add", "-q", "--orphan", &place("unborn")]);
        fs::remove_dir_all(fixture.beside("gone")).unwrap();
        let mut found = found_in(&fixture).unwrap();
        let mut listed = ask_list(&fixture.repo).unwrap();
        assert_eq!((found.len(), found[0].path.as_path()), (6, fixture.root()));
        found.sort_by(|a, b| a.path.cmp(&b.path));
        listed.sort_by(|a, b| a.path.cmp(&b.path));
        assert_eq!(found, listed);
        // Half made.
        fs::remove_file(fixture.repo.common_dir.join("worktrees/detached/commondir")).unwrap();
        assert_eq!(found_in(&fixture), None);
    }

    #[test]
    fn unreadable_by_libgit2_is_left_to_git() {
        for option in ["--object-format=sha256", "--ref-format=reftable"] {
            let fixture = Fixture::empty(&[option]);
            fixture.commit("a.txt", "x\n");
            let root = fixture.root();
            assert_eq!(
                (commit(root, "HEAD"), commit(root, "refs/heads/none")),
                (RefLookup::AskGit, RefLookup::AskGit),
                "{option}"
            );
            assert_eq!((all(root), neighbours(root, "main"), found_in(&fixture)), (None, None, None));
        }
    }
}
