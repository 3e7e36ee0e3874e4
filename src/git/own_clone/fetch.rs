//! Fetches the work from a worker's clone, which is untrusted content.
//!
//! Git does not run in the clone. Its refs, its index and the state of operations are copied as plain files into a bare
//! repository of ours, the reader, which borrows the clone's objects. The configuration, hooks and attributes of the
//! clone have no effect, since the reader has its own. `git fetch` from the reader checks the hash of every object, and
//! that the history of each fetched commit is complete.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::copy::{Copier, make_writable};
use super::make::{KEPT, STASHES, alternates, digests, shared_indexes};
use super::{ARRIVING, CloneError, HELD, NESTED, Place, Record, STASHED, change_refs, delete_refs, remove};
use crate::git::checkout::branch_commit;
use crate::git::command::{CommandError, Git};
use crate::git::identity::CommitIdentity;
use crate::git::reflog_only::collect_ids;
use crate::git::repository::Repository;
use crate::git::salvage::state_files;
use crate::git::trust::{Checkout, Trust};

/// Reason written to the reflog of the branch.
const REASON: &str = "orchestrator-boss: fetched from the clone of its worker";
/// Settings of the reader. Git uses no file that is derived from objects, since it could be forged.
const READER_SETTINGS: &str =
    "\tbare = true\n\tcommitGraph = false\n\tmultiPackIndex = false\n[pack]\n\tuseBitmaps = false\n";
/// Maximum number of commits that only logs name.
const MOST_LOGGED: usize = 20_000;

/// The copy of a clone's refs, index and state, in which git can run.
struct Reader {
    folder: PathBuf,
    checkout: Checkout,
}

/// The refs of a clone.
struct Refs {
    all: BTreeMap<String, String>,
    /// The branch that HEAD is on.
    on: Option<String>,
    head: Option<String>,
}

/// Fetches everything from the clone, which lies aside, and brings the worktree's record to its state.
pub(super) fn fetch(place: &Place, record: &Record) -> Result<(), CloneError> {
    let clone = place.aside();
    let reader = Reader::of(place.repo, record, &clone, &place.folder().join("reader"))
        .map_err(|source| CloneError::Read { path: clone.clone(), source })?;
    let refs = reader.refs()?;
    let branch = format!("refs/heads/{}", record.branch);
    let tip = refs.all.get(&branch).cloned();
    let given: HashSet<&String> = record.refs.values().collect();
    let mut others = others(&refs, record, &branch);
    others.extend(reader.nested(&given)?.into_iter().map(|id| (format!("refs/{NESTED}{id}"), id)));
    let mut stashes = reader.stashes();
    stashes.extend(refs.all.get("refs/stash").cloned());
    let wanted: BTreeSet<&String> = tip.iter().chain(&refs.head).chain(others.values()).collect();
    let arriving =
        Arriving { repo: place.repo, reader: &reader, clone: &clone, prefix: format!("{ARRIVING}{}/", record.name) };
    if reader.has_objects(&clone) {
        for commits in
            [wanted.into_iter().filter(|id| !given.contains(id)).cloned().collect(), reader.logged(&given, &stashes)?]
        {
            arriving.fetch(&commits)?;
        }
        arriving.fetch(&reader.staged(place.repo)?.into_iter().collect())?;
    }
    let is_moved = move_branch(place.repo, &branch, record.refs.get(&branch), tip.as_deref())?;
    keep(place.repo, record, &refs, &others, &stashes)?;
    let on_branch = is_moved && refs.on.as_deref() == Some(&record.branch);
    bring_record(place, &reader, &refs, record, on_branch)?;
    keep_files(place, record).map_err(|source| CloneError::Read { path: clone.clone(), source })?;
    arriving.end()?;
    remove(&reader.folder)
}

/// Returns the refs that the worker made or moved, except its branch. What a remote has is not its work.
fn others(refs: &Refs, record: &Record, branch: &str) -> BTreeMap<String, String> {
    let is_other = |name: &str, id: &String| {
        name != branch && !name.starts_with("refs/remotes/") && record.refs.get(name) != Some(id)
    };
    let others = refs.all.iter().filter(|(name, id)| is_other(name, id));
    others.map(|(name, id)| (name.clone(), id.clone())).collect()
}

impl Reader {
    fn of(repo: &Repository, record: &Record, clone: &Path, folder: &Path) -> io::Result<Reader> {
        make_writable(clone);
        clean_objects(&clone.join("objects"))?;
        remove(folder).map_err(|error| io::Error::other(error.to_string()))?;
        fs::create_dir_all(folder.join("objects/info"))?;
        fs::create_dir_all(folder.join("refs"))?;
        let mut copier = Copier::new();
        for name in ["packed-refs", "refs", "reftable", "logs", "shallow", "index"] {
            copier.all(&clone.join(name), &folder.join(name))?;
        }
        for worktree in fs::read_dir(clone.join("worktrees")).into_iter().flatten().flatten() {
            for name in ["HEAD", "logs/HEAD"] {
                let to = folder.join("nested").join(worktree.file_name()).join(name);
                copier.file(&worktree.path().join(name), &to)?;
            }
        }
        for name in shared_indexes(clone) {
            copier.file(&clone.join(&name), &folder.join(&name))?;
        }
        for file in state_files(clone) {
            copier.file(&clone.join(&file), &folder.join(&file))?;
        }
        if !copier.file(&clone.join("HEAD"), &folder.join("HEAD"))? {
            fs::write(folder.join("HEAD"), "ref: refs/heads/none\n")?;
        }
        let mut extensions = String::new();
        if record.refs.values().any(|id| id.len() == 64) {
            extensions.push_str("\tobjectFormat = sha256\n");
        }
        if folder.join("reftable/tables.list").exists() {
            extensions.push_str("\trefStorage = reftable\n");
        }
        let version = u8::from(!extensions.is_empty());
        let own = format!("[core]\n\trepositoryformatversion = {version}\n{READER_SETTINGS}");
        let config = format!("{own}[extensions]\n{extensions}");
        fs::write(folder.join("config"), config)?;
        // The worker may have deleted its list of folders to borrow from.
        let objects = format!("{}\n{}", clone.join("objects").display(), alternates(&repo.common_dir));
        fs::write(folder.join("objects/info/alternates"), objects)?;
        Ok(Reader { folder: folder.to_owned(), checkout: Checkout::new(folder, &Trust::everything()) })
    }

    /// Begins a call in the reader. Nothing is fetched into a clone that calls itself partial, and no object is taken
    /// for another.
    fn git(&self) -> Git {
        let git = Git::write(&self.checkout).env("GIT_DIR", &self.folder);
        git.env("GIT_NO_LAZY_FETCH", "1").env("GIT_NO_REPLACE_OBJECTS", "1")
    }

    fn refs(&self) -> Result<Refs, CommandError> {
        let listed = self.git().args(["for-each-ref", "--format=%(objectname) %(refname)"]).run()?;
        let listed = String::from_utf8_lossy(&listed);
        let listed: BTreeMap<String, String> = listed
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(id, name)| (name.to_owned(), id.to_owned()))
            .collect();
        let known = self.known(listed.values())?;
        // A branch is at a commit. Anything else is no ref that git made.
        let is_valid = |name: &str, id: &String| match known.get(id) {
            Some(kind) => kind == "commit" || !name.starts_with("refs/heads/"),
            None => false,
        };
        let all = listed.into_iter().filter(|(name, id)| is_valid(name, id)).collect();
        let on = self.git().args(["symbolic-ref", "--quiet", "HEAD"]).output()?;
        let on = String::from_utf8_lossy(&on.stdout).trim_end().strip_prefix("refs/heads/").map(str::to_owned);
        let head = self.git().args(["rev-parse", "--verify", "--quiet", "HEAD^{commit}"]).output()?;
        let head = String::from_utf8_lossy(&head.stdout).trim().to_owned();
        let head = Some(head).filter(|id| id.len() >= 40 && id.bytes().all(|digit| digit.is_ascii_hexdigit()));
        Ok(Refs { all, on, head })
    }

    /// Returns the types of those of these objects that exist.
    fn known<'a>(&self, ids: impl Iterator<Item = &'a String>) -> Result<BTreeMap<String, String>, CommandError> {
        kinds(self.git(), ids)
    }

    /// Returns whether the worker has written any object.
    fn has_objects(&self, clone: &Path) -> bool {
        let names = |path: PathBuf| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let objects = clone.join("objects");
        names(objects.clone()).any(|name| name != "info" && name != "pack")
            || names(objects.join("pack")).next().is_some()
    }

    /// Returns the commits of all stashes, the newest of which is a ref as well.
    fn stashes(&self) -> BTreeSet<String> {
        let mut ids = HashSet::new();
        collect_ids(&self.folder.join("logs/refs/stash"), &mut ids);
        ids.into_iter().collect()
    }

    /// Returns the commits of worktrees that the worker added to its clone.
    fn nested(&self, given: &HashSet<&String>) -> Result<BTreeSet<String>, CommandError> {
        let mut ids = HashSet::new();
        collect_ids(&self.folder.join("nested"), &mut ids);
        ids.retain(|id| !given.contains(id));
        let kinds = self.known(ids.iter().take(MOST_LOGGED))?;
        Ok(kinds.into_iter().filter(|(_, kind)| kind == "commit").map(|(id, _)| id).collect())
    }

    /// Returns the commits that only logs and unfinished operations name, and the stashes.
    fn logged(&self, given: &HashSet<&String>, stashes: &BTreeSet<String>) -> Result<BTreeSet<String>, CommandError> {
        let mut ids = HashSet::new();
        collect_ids(&self.folder.join("logs/HEAD"), &mut ids);
        for file in state_files(&self.folder) {
            collect_ids(&self.folder.join(file), &mut ids);
        }
        ids.extend(stashes.iter().cloned());
        if self.folder.join("reftable").exists() {
            for name in ["HEAD", "refs/stash"] {
                let log = self.git().args(["log", "--walk-reflogs", "--format=%H", name, "--"]).output()?;
                ids.extend(String::from_utf8_lossy(&log.stdout).lines().map(str::to_owned));
            }
        }
        ids.retain(|id| !given.contains(id));
        let kinds = self.known(ids.iter().take(MOST_LOGGED))?;
        Ok(kinds.into_iter().filter(|(_, kind)| kind == "commit").map(|(id, _)| id).collect())
    }

    /// Returns a commit with the files that the index has and that no commit has yet.
    fn staged(&self, repo: &Repository) -> Result<Option<String>, CommandError> {
        if !self.folder.join("index").exists() {
            return Ok(None);
        }
        let listed = self.git().args(["ls-files", "--stage", "-z"]).output()?;
        let listed = String::from_utf8_lossy(&listed.stdout);
        let ids: BTreeSet<String> = listed
            .split_terminator('\0')
            .filter(|entry| !entry.starts_with("160000"))
            .filter_map(|entry| entry.split(' ').nth(1))
            .map(str::to_owned)
            .collect();
        let there = kinds(repo.read(), ids.iter())?;
        let new = self.known(ids.iter().filter(|id| !there.contains_key(*id)))?;
        if new.is_empty() {
            return Ok(None);
        }
        let tree: String =
            new.iter().filter(|(_, kind)| *kind == "blob").map(|(id, _)| format!("100644 blob {id}\t{id}\n")).collect();
        let tree = self.git().arg("mktree").input(tree).text()?;
        let git = CommitIdentity::fallback().commit_as(self.git());
        git.commit_tree::<&str>(&tree, &[], "staged in the clone of a worker").text().map(Some)
    }
}

/// Leaves only plain files in a folder of objects: git would wait for a pipe, and follow a link. It must not read from
/// other repositories either, so the list of those is renamed.
fn clean_objects(objects: &Path) -> io::Result<()> {
    let list = objects.join("info/alternates");
    if objects.symlink_metadata().is_ok_and(|kind| kind.is_dir()) && list.symlink_metadata().is_ok() {
        fs::rename(&list, objects.join("info/alternates.worker"))?;
    }
    remove_special(objects)
}

fn remove_special(path: &Path) -> io::Result<()> {
    let Ok(kind) = path.symlink_metadata() else { return Ok(()) };
    if kind.is_dir() {
        fs::read_dir(path)?.flatten().try_for_each(|entry| remove_special(&entry.path()))
    } else if kind.is_file() {
        Ok(())
    } else {
        fs::remove_file(path)
    }
}

/// Returns the types of those of these objects that exist.
fn kinds<'a>(git: Git, ids: impl Iterator<Item = &'a String>) -> Result<BTreeMap<String, String>, CommandError> {
    let asked: String = ids.flat_map(|id| [id, "\n"]).collect();
    if asked.is_empty() {
        return Ok(BTreeMap::new());
    }
    let answers = git.args(["cat-file", "--batch-check=%(objectname) %(objecttype)"]).input(asked).text()?;
    let known = answers.lines().filter_map(|line| line.split_once(' ')).filter(|(_, kind)| *kind != "missing");
    Ok(known.map(|(id, kind)| (id.to_owned(), kind.to_owned())).collect())
}

/// Commits on their way. Refs keep them until the record of the worktree names them.
struct Arriving<'a> {
    repo: &'a Repository,
    reader: &'a Reader,
    clone: &'a Path,
    prefix: String,
}

impl Arriving<'_> {
    /// Fetches commits. If they cannot be fetched together, each is fetched alone, so that the error names the first
    /// one that is incomplete.
    fn fetch(&self, ids: &BTreeSet<String>) -> Result<(), CloneError> {
        if ids.is_empty() || self.call(ids.iter()).is_ok() {
            return Ok(());
        }
        let mut broken = None;
        for id in ids {
            if let Err(source) = self.call([id].into_iter()) {
                let error =
                    CloneError::Fetch { commit: id.clone(), clone: self.clone.to_owned(), source: Box::new(source) };
                broken.get_or_insert(error);
            }
        }
        broken.map_or(Ok(()), Err)
    }

    fn call<'a>(&self, ids: impl Iterator<Item = &'a String>) -> Result<(), CommandError> {
        let prefix = &self.prefix;
        let specs: String = ids.map(|id| format!("+{id}:{prefix}{id}\n")).collect();
        let fetch = self
            .repo
            .write()
            .config("protocol.file.allow=always")
            .config("protocol.version=2")
            .config("fetch.writeCommitGraph=false")
            // The clone is deleted afterwards.
            .config("core.fsync=all");
        let fetch = fetch.env("GIT_NO_LAZY_FETCH", "1").args([
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-prune",
            "--no-write-fetch-head",
        ]);
        let fetch = fetch.args(["--no-recurse-submodules", "--update-shallow", "--stdin", "--"]);
        fetch.arg(&self.reader.folder).input(specs).run().map(drop)
    }

    fn end(self) -> Result<(), CommandError> {
        delete_refs(self.repo, &self.prefix)
    }
}

/// Moves the worker's branch to where the clone has it. Returns false if the user moved it to another commit meanwhile,
/// or the worker deleted it: then it stays.
fn move_branch(
    repo: &Repository,
    branch: &str,
    given: Option<&String>,
    tip: Option<&str>,
) -> Result<bool, CommandError> {
    let Some(tip) = tip else { return Ok(false) };
    let now = branch_commit(&repo.checkout(), branch.strip_prefix("refs/heads/").unwrap_or(branch))?;
    if now.as_deref() == Some(tip) {
        return Ok(true);
    }
    if given.map(String::as_str) == Some(tip) {
        // The worker left it alone.
        return Ok(now.is_some());
    }
    let Some(now) = now else {
        repo.write().args(["update-ref", "-m", REASON, branch, tip]).run()?;
        return Ok(true);
    };
    if given != Some(&now) && !repo.read().is_ancestor(&now, tip)? {
        return Ok(false);
    }
    repo.write().args(["update-ref", "-m", REASON, branch, tip, &now]).run()?;
    Ok(true)
}

/// Keeps the other refs and the stashes of the clone under refs of their own, in place of those of its former clone.
fn keep(
    repo: &Repository,
    record: &Record,
    refs: &Refs,
    others: &BTreeMap<String, String>,
    stashes: &BTreeSet<String>,
) -> Result<(), CommandError> {
    let is_whole = refs.all.contains_key(&format!("refs/heads/{}", record.branch));
    let (held, stashed) = (format!("{HELD}{}/", record.name), format!("{STASHED}{}/", record.name));
    let listed = ["for-each-ref", "--format=%(objectname) %(refname)", &held, &stashed];
    let listed = repo.read().args(listed).text()?;
    let mut deletions = String::new();
    for (id, name) in listed.lines().filter_map(|line| line.split_once(' ')) {
        let in_clone = name.strip_prefix(&held).map(|rest| format!("refs/{rest}"));
        let is_given = in_clone.as_ref().and_then(|name| record.refs.get(name)).is_some_and(|given| given == id);
        // A clone without the worker's branch is broken, and the worker has not deleted the others on purpose.
        let is_left = !is_whole || in_clone.as_ref().is_some_and(|name| refs.all.get(name).is_some_and(|it| it == id));
        if !(is_given && is_left) {
            deletions.push_str(&format!("delete {name}\n"));
        }
    }
    let mut wanted: BTreeMap<String, &String> = BTreeMap::new();
    for (name, id) in others {
        wanted.insert(format!("{held}{}", name.strip_prefix("refs/").unwrap_or(name)), id);
    }
    wanted.extend(stashes.iter().map(|id| (format!("{stashed}{id}"), id)));
    let fetched = kinds(repo.read(), others.values().chain(stashes))?;
    let there = wanted.iter().filter(|(_, id)| fetched.contains_key(**id));
    let creations: String = there.map(|(name, id)| format!("update {name} {id}\n")).collect();
    // A name may be a folder of names now, so the deletions come first.
    change_refs(repo, &deletions)?;
    change_refs(repo, &creations)
}

/// Brings HEAD, the index, unfinished operations and the log of HEAD into the worktree's record.
fn bring_record(
    place: &Place,
    reader: &Reader,
    refs: &Refs,
    record: &Record,
    on_branch: bool,
) -> Result<(), CloneError> {
    let (own, folder) = (&place.own, &reader.folder);
    let is_reftable = own.join("reftable").exists();
    set_head(place, refs, record, on_branch)?;
    let bring = || {
        let mut copier = Copier::new();
        if !is_reftable {
            replace(&mut copier, &folder.join("logs/HEAD"), &own.join("logs/HEAD"))?;
        }
        for name in shared_indexes(folder) {
            replace(&mut copier, &folder.join(&name), &own.join(&name))?;
        }
        if reader.git().args(["ls-files", "--stage"]).output().is_ok_and(|listed| listed.code == Some(0)) {
            replace(&mut copier, &folder.join("index"), &own.join("index"))?;
        }
        let state = state_files(folder);
        for gone in state_files(own).into_iter().filter(|file| !state.contains(file)) {
            fs::remove_file(own.join(&gone))?;
            if let Some(folder) = gone.parent().filter(|folder| !folder.as_os_str().is_empty()) {
                let _ = fs::remove_dir(own.join(folder));
            }
        }
        for file in state {
            replace(&mut copier, &folder.join(&file), &own.join(&file))?;
        }
        Ok(())
    };
    bring().map_err(|source| CloneError::Write { path: own.clone(), source })
}

/// Puts HEAD on the worker's branch, or at the clone's commit. A branch that only the clone has is not checked out in
/// the user's repository.
fn set_head(place: &Place, refs: &Refs, record: &Record, on_branch: bool) -> Result<(), CommandError> {
    // The link of the worktree leads nowhere if the repository was moved.
    let git = || Git::write(&place.repo.at(place.worktree)).env("GIT_DIR", &place.own);
    match &refs.head {
        Some(commit) if !on_branch => {
            git().args(["update-ref", "--no-deref", "-m", REASON, "HEAD", commit]).run()?;
        }
        _ => {
            git().args(["symbolic-ref", "HEAD", &format!("refs/heads/{}", record.branch)]).run()?;
        }
    }
    Ok(())
}

fn replace(copier: &mut Copier, from: &Path, to: &Path) -> io::Result<()> {
    let new = to.with_extension("orchestrator-new");
    if copier.file(from, &new)? {
        fs::rename(&new, to)?;
    }
    Ok(())
}

/// Keeps the worker's own settings, hooks and records for its next clone. Only its clones read them.
fn keep_files(place: &Place, record: &Record) -> io::Result<()> {
    let (clone, kept) = (place.aside(), place.kept());
    let now = digests(&clone);
    let mut copier = Copier::new();
    for name in KEPT.iter().filter(|name| now.get(**name) != record.files.get(**name)) {
        remove(&kept.join(name)).map_err(|error| io::Error::other(error.to_string()))?;
        copier.all(&clone.join(name), &kept.join(name))?;
    }
    remove(&kept.join(STASHES)).map_err(|error| io::Error::other(error.to_string()))?;
    copier.file(&clone.join(STASHES), &kept.join(STASHES)).map(drop)
}
