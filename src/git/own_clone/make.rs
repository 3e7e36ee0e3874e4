//! Makes a clone, from what is the user's and from what the worker's former clone held. It borrows all objects, so its
//! cost does not depend on their number.
//!
//! It is written in git's folder for the worktree, where no worker can write, and moved into place as a whole. No link
//! that a worker made is followed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use super::copy::{Copier, read};
use super::{BORROWED, CloneError, HELD, Place, Record, change_refs, remove, write};
use crate::git::checkout::{checked_out, head};
use crate::git::command::{CommandError, Git};
use crate::git::configuration::hash;
use crate::git::identity::CommitIdentity;
use crate::git::repository::Repository;
use crate::git::salvage::state_files;

/// Refs that a clone does not get: this program's own, those of a single worktree, and the stash, which is the user's.
const NOT_GIVEN: [&str; 5] = ["refs/orchestrator/", "refs/stash", "refs/bisect/", "refs/worktree/", "refs/rewritten/"];
/// Maximum size of a file whose change is noticed.
const MOST_COMPARED: u64 = 1 << 20;
/// Files and folders of a former clone that the next one gets again, if the worker changed them.
pub(super) const KEPT: [&str; 4] = ["config", "hooks", "info", "rr-cache"];
/// The list of stashes, of which a ref names only the newest.
pub(super) const STASHES: &str = "logs/refs/stash";

/// A setting of the repository. Without a value, it is true.
pub(super) struct Setting {
    pub name: String,
    pub value: Option<String>,
}

/// A ref, and the commit of a tag.
struct Given {
    id: String,
    peeled: String,
    symbolic: String,
}

/// Writes a new clone beside the worktree, and protects the objects that it borrows.
pub(super) fn make(place: &Place, branch: &str, name: &str, link: String) -> Result<Record, CloneError> {
    let clone = place.aside();
    remove(&clone)?;
    let failed = |source| CloneError::Write { path: clone.clone(), source };
    for folder in ["objects/info", "objects/pack", "refs/heads", "refs/tags", "info", "hooks", "logs"] {
        fs::create_dir_all(clone.join(folder)).map_err(failed)?;
    }
    write(&place.folder().join("name"), name.as_bytes())?;
    let refs = refs(place.repo, name)?;
    protect(place.repo, name, &refs)?;
    let settings = Setting::all(place)?;
    write(&clone.join("objects/info/alternates"), alternates(&place.repo.common_dir).as_bytes())?;
    write(&clone.join("config"), configuration(&settings).as_bytes())?;
    write(&clone.join("HEAD"), current(place)?.as_bytes())?;
    write_refs(&clone, &refs).map_err(failed)?;
    copy_files(place, &clone).map_err(failed)?;
    let files = digests(&clone);
    let mut copier = Copier::new();
    for kept in KEPT.into_iter().chain([STASHES]) {
        copier.all(&place.kept().join(kept), &clone.join(kept)).map_err(failed)?;
    }
    let refs = refs.into_iter().map(|(name, given)| (name, given.id)).collect();
    Ok(Record { name: name.to_owned(), branch: branch.to_owned(), link, refs, files })
}

/// Returns hashes of the files that are given to a clone and that a worker may change.
pub(super) fn digests(clone: &Path) -> BTreeMap<String, String> {
    KEPT.iter().map(|name| ((*name).to_owned(), digest(&clone.join(name)))).collect()
}

fn digest(path: &Path) -> String {
    if let Some(bytes) = read(path, MOST_COMPARED) {
        return hash(&bytes);
    }
    if !path.symlink_metadata().is_ok_and(|kind| kind.is_dir()) {
        return String::new();
    }
    let mut below: Vec<_> = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    below.sort();
    let text: Vec<String> = below.iter().map(|path| format!("{} {}\n", path.display(), digest(path))).collect();
    if text.is_empty() { String::new() } else { hash(text.concat().as_bytes()) }
}

/// Returns all refs for a clone: the user's, then what the worker's former clone had.
fn refs(repo: &Repository, name: &str) -> Result<BTreeMap<String, Given>, CommandError> {
    let format = "--format=%(objectname)%00%(*objectname)%00%(symref)%00%(refname)";
    let listed = repo.read().args(["for-each-ref", format]).run()?;
    let listed = String::from_utf8_lossy(&listed);
    let own = format!("{HELD}{name}/");
    let (mut refs, mut former) = (BTreeMap::new(), BTreeMap::new());
    for line in listed.lines() {
        let [id, peeled, symbolic, full_name] = line.split('\0').collect::<Vec<_>>()[..] else { continue };
        let given = Given { id: id.to_owned(), peeled: peeled.to_owned(), symbolic: symbolic.to_owned() };
        if let Some(rest) = full_name.strip_prefix(&own) {
            former.insert(format!("refs/{rest}"), given);
        } else if !NOT_GIVEN.iter().any(|not| full_name.starts_with(not)) {
            refs.insert(full_name.to_owned(), given);
        }
    }
    let is_beside =
        |new: &str, there: &str| new.starts_with(&format!("{there}/")) || there.starts_with(&format!("{new}/"));
    for (name, given) in former {
        // A name that the user took meanwhile wins.
        if !refs.keys().any(|there| is_beside(&name, there)) {
            refs.insert(name, given);
        }
    }
    Ok(refs)
}

/// Keeps git from deleting what the clone borrows, even if the user deletes branches. One commit has all of it as its
/// parents; it has no date, so that equal ones are stored once.
fn protect(repo: &Repository, name: &str, refs: &BTreeMap<String, Given>) -> Result<(), CommandError> {
    let mut commits: Vec<&str> = refs
        .values()
        .map(|given| if given.peeled.is_empty() { &given.id } else { &given.peeled })
        .map(String::as_str)
        .collect();
    commits.sort_unstable();
    commits.dedup();
    let asked: String = commits.iter().flat_map(|id| [id, "\n"]).collect();
    let kinds = repo.read().args(["cat-file", "--batch-check=%(objecttype) %(objectname)"]).input(asked).text()?;
    let parents: String =
        kinds.lines().filter_map(|line| line.strip_prefix("commit ")).map(|id| format!("parent {id}\n")).collect();
    let tree = repo.write().arg("mktree").input("").text()?;
    let CommitIdentity { name: author, email } = CommitIdentity::fallback();
    let text = format!(
        "tree {tree}\n{parents}author {author} <{email}> 0 +0000\ncommitter {author} <{email}> 0 +0000\n\nborrowed by the clones of workers\n"
    );
    let commit = repo.write().args(["hash-object", "-t", "commit", "-w", "--stdin"]).input(text).text()?;
    repo.write().args(["update-ref", &format!("{BORROWED}{name}"), &commit]).run().map(drop)
}

pub(super) fn stop_borrowing(repo: &Repository, name: &str) -> Result<(), CommandError> {
    change_refs(repo, &format!("delete {BORROWED}{name}"))
}

/// Returns the folders of objects to borrow from. Git follows no relative path of a borrowed folder.
pub(super) fn alternates(common_dir: &Path) -> String {
    let objects = common_dir.join("objects");
    let further = fs::read_to_string(objects.join("info/alternates")).unwrap_or_default();
    let further = further.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let all = further.map(|line| objects.join(line)).chain([objects.clone()]);
    all.map(|path| format!("{}\n", path.display())).collect()
}

/// Returns the content of the clone's HEAD.
fn current(place: &Place) -> Result<String, CommandError> {
    let checkout = place.repo.at(place.worktree);
    Ok(match (checked_out(&checkout)?, head(&checkout)?) {
        (Some(branch), _) => format!("ref: refs/heads/{branch}\n"),
        (None, Some(commit)) => format!("{commit}\n"),
        (None, None) => "ref: refs/heads/main\n".to_owned(),
    })
}

fn write_refs(clone: &Path, refs: &BTreeMap<String, Given>) -> io::Result<()> {
    let mut packed = "# pack-refs with: peeled fully-peeled sorted \n".to_owned();
    for (name, given) in refs {
        if !given.symbolic.is_empty() {
            let file = clone.join(name);
            fs::create_dir_all(file.parent().unwrap_or(clone))?;
            fs::write(file, format!("ref: {}\n", given.symbolic))?;
            continue;
        }
        packed.push_str(&format!("{} {name}\n", given.id));
        if !given.peeled.is_empty() {
            packed.push_str(&format!("^{}\n", given.peeled));
        }
    }
    fs::write(clone.join("packed-refs"), packed)
}

/// Copies the index, unfinished operations and the log of HEAD from the worktree's record, and hooks, excludes and
/// attributes from the repository.
fn copy_files(place: &Place, clone: &Path) -> io::Result<()> {
    let (own, common) = (&place.own, &place.repo.common_dir);
    let mut copier = Copier::new();
    for name in ["index", "logs/HEAD"].into_iter().map(str::to_owned).chain(shared_indexes(own)) {
        copier.file(&own.join(&name), &clone.join(&name))?;
    }
    for file in state_files(own) {
        copier.file(&own.join(&file), &clone.join(&file))?;
    }
    copier.file(&common.join("shallow"), &clone.join("shallow"))?;
    for folder in [common.join("info"), own.join("info")] {
        for name in ["exclude", "attributes", "sparse-checkout", "grafts"] {
            copier.file(&folder.join(name), &clone.join("info").join(name))?;
        }
    }
    for entry in fs::read_dir(common.join("hooks")).into_iter().flatten().flatten() {
        let (hook, to) = (entry.path(), clone.join("hooks").join(entry.file_name()));
        if hook.extension().is_some_and(|extension| extension == "sample") {
            continue;
        }
        match fs::read_link(&hook) {
            Ok(target) => std::os::unix::fs::symlink(common.join("hooks").join(target), to)?,
            Err(_) => drop(copier.file(&hook, &to)?),
        }
    }
    Ok(())
}

/// Returns the names of the files that a split index consists of.
pub(super) fn shared_indexes(git_dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(git_dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with("sharedindex.")).collect()
}

impl Setting {
    /// Returns the settings of the repository and of the worktree, with those of included files.
    pub(super) fn all(place: &Place) -> Result<Vec<Setting>, CommandError> {
        let args = ["config", "--includes", "--list", "--show-scope", "-z"];
        let listed = Git::read(&place.repo.at(place.worktree)).args(args).run()?;
        let listed = String::from_utf8_lossy(&listed);
        let mut records = listed.split_terminator('\0');
        let mut settings = Vec::new();
        while let (Some(scope), Some(setting)) = (records.next(), records.next()) {
            if matches!(scope, "local" | "worktree") {
                let (name, value) = match setting.split_once('\n') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (setting, None),
                };
                settings.push(Setting { name: name.to_owned(), value });
            }
        }
        Ok(settings)
    }

    /// Returns whether a clone gets it. It has its own place and formats, and the content of included files is given
    /// one by one.
    fn is_given(&self) -> bool {
        const OWN: [&str; 3] = ["core.worktree", "core.bare", "core.repositoryformatversion"];
        const SECTIONS: [&str; 3] = ["extensions.", "include.", "includeif."];
        !OWN.contains(&self.name.as_str()) && !SECTIONS.iter().any(|section| self.name.starts_with(section))
    }
}

fn configuration(settings: &[Setting]) -> String {
    let format = settings.iter().rev().find(|it| it.name == "extensions.objectformat").and_then(|it| it.value.clone());
    let version = u8::from(format.is_some());
    let mut text = format!("[core]\n\trepositoryformatversion = {version}\n\tbare = false\n");
    if let Some(format) = format {
        text.push_str(&format!("[extensions]\n\tobjectFormat = {}\n", quoted(&format)));
    }
    for Setting { name, value } in settings.iter().filter(|it| it.is_given()) {
        let (Some(first), Some(last)) = (name.find('.'), name.rfind('.')) else { continue };
        let section = &name[..first];
        let key = &name[last + 1..];
        match name.get(first + 1..last) {
            Some(middle) if middle.contains('\n') => continue,
            Some(middle) => {
                let middle = middle.replace('\\', "\\\\").replace('"', "\\\"");
                text.push_str(&format!("[{section} \"{middle}\"]\n"));
            }
            None => text.push_str(&format!("[{section}]\n")),
        }
        match value {
            Some(value) => text.push_str(&format!("\t{key} = {}\n", quoted(value))),
            None => text.push_str(&format!("\t{key}\n")),
        }
    }
    text
}

fn quoted(value: &str) -> String {
    let mut text = String::from("\"");
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            '\u{8}' => text.push_str("\\b"),
            other => text.push(other),
        }
    }
    text.push('"');
    text
}
