//! Lists the work of a worker that its branch does not contain, in any state of git in its worktree. This covers
//! uncommitted files, unfinished operations, commits elsewhere, stashes, nested repositories and ignored files.
//!
//! Nothing is changed here. In the usual case (everything is committed and HEAD is on the branch) no git process is
//! started. Nothing here fails: a part that cannot be read is reported as such, since it may contain work.

mod meanwhile;

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::command::{CommandError, Git};
use super::fingerprint::Fingerprint;
use super::include::Copied;
use super::index::{IndexError, marked_unchanged};
use super::locally_ignored::is_marked_regenerable;
use super::nested::{bare_repositories, has_commit, is_own_repository, unpublished_commits};
use super::records::{LINK, changed, staged};
use super::reflog::{HeadMove, head_moves, stashes_with_messages};
use super::reflog_only::without_children;
use super::refs;
use super::repository::{Repository, branch_commit, resolve_commit};
use super::status::{Status, StatusEntry, git_dir, operation_in_progress_in, status_despite_marks};
use super::worktree::{Listed, list};
use crate::mission::hint::with_hints;

pub use meanwhile::appeared;

/// Maximum number of parts listed. The last one then states how many more there are.
const MOST_PARTS: usize = 12;
/// Maximum number of separate lines of commits that are examined one by one.
const MOST_TIPS: usize = 24;
/// Maximum number of paths named in one sentence.
const MOST_NAMED: usize = 5;
/// Maximum number of files counted in an ignored folder.
const MOST_COUNTED: usize = 1_000;
/// Maximum number of commits that are checked one by one with libgit2.
const MOST_BY_HAND: usize = 64;

const UNCOMMITTED: &str = "uncommitted file";

/// One part of the work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotOnBranch {
    pub what: String,
    /// A path, a ref or a commit.
    pub place: String,
    pub how_to_include: String,
    /// Set if the part is about files that an integration looks for again.
    pub files: Option<Files>,
}

/// The files of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Files {
    Uncommitted,
    /// Files and folders that git ignores, as [`shown`]; `None` if there were too many.
    Ignored(Option<Vec<String>>),
}

/// The worker whose work is examined.
pub struct Asked<'a> {
    pub repo: &'a Repository,
    pub worktree: &'a Path,
    /// Branch for which the worktree was created.
    pub branch: &'a str,
    /// Commit at which the work began.
    pub base: &'a str,
    /// Files that this program copied into the worktree; they are not work.
    pub copies: &'a [Copied],
    /// State of the repository before the work, if known.
    pub before: Option<&'a Fingerprint>,
    /// Reason why uncommitted changes were not committed.
    pub why: Option<&'a str>,
}

/// Returns all parts except ignored files, for which there is [`ignored`]. `status` is the current one of the worktree.
pub fn not_on_branch(asked: &Asked, status: &Status) -> Vec<NotOnBranch> {
    let look = match Look::of(asked, status) {
        Ok(look) => look,
        Err(error) => return vec![unknown(asked.worktree, &with_hints(&error))],
    };
    let mut parts = look.files();
    for others in [look.marked(), look.repositories(), look.links(), look.commits(), look.stashes()] {
        parts.extend(others.unwrap_or_else(|error| vec![unknown(asked.worktree, &with_hints(&error))]));
    }
    bounded(parts)
}

/// Returns the part for a worktree whose folder is not the one that git works on. Nothing else can be determined there.
pub fn out_of_place(worktree: &Path, why: &str) -> NotOnBranch {
    part("the files in its worktree".to_owned(), shown(worktree), format!("nothing there could be committed: {why}"))
}

/// Limits the list to [`MOST_PARTS`]; the last part summarises the rest.
fn bounded(mut parts: Vec<NotOnBranch>) -> Vec<NotOnBranch> {
    if parts.len() > MOST_PARTS {
        let more = parts.split_off(MOST_PARTS - 1);
        let places: BTreeSet<String> = more.iter().map(|part| part.place.clone()).collect();
        let places: Vec<String> = places.into_iter().collect();
        parts.push(part(format!("{} more", more.len()), names(&places), more[0].how_to_include.clone()));
    }
    parts
}

fn part(what: String, place: String, how_to_include: String) -> NotOnBranch {
    NotOnBranch { what, place, how_to_include, files: None }
}

/// Returns the part for something that git could not read.
pub fn unknown(worktree: &Path, why: &str) -> NotOnBranch {
    let how = format!("look there by hand: {why}");
    part("what could not be looked at".to_owned(), shown(worktree), how)
}

/// Returns the branch that the work is taken from: the checked out one, unless [`is_anothers`] excludes it, else the
/// assigned one.
pub fn own_branch<'a>(assigned: &'a str, checked_out: Option<&'a str>, before: Option<&Fingerprint>) -> &'a str {
    checked_out.filter(|branch| !is_anothers(assigned, branch, before)).unwrap_or(assigned)
}

/// Returns whether a branch is not the worker's: it is not the assigned one, it existed before, and no linked worktree
/// had it checked out.
pub fn is_anothers(assigned: &str, branch: &str, before: Option<&Fingerprint>) -> bool {
    let name = format!("refs/heads/{branch}");
    let was_there = |it: &Fingerprint| {
        it.branch.as_deref() == Some(branch) || it.refs.contains_key(&name) && !it.worktree_branches.contains(&name)
    };
    branch != assigned && before.is_some_and(was_there)
}

struct Look<'a> {
    asked: &'a Asked<'a>,
    status: &'a Status,
    branch: &'a str,
    /// Tip of `branch`; `None` if the branch is gone.
    tip: Option<String>,
    git_dir: PathBuf,
    /// Moves of the worktree's own HEAD, oldest first.
    moves: Vec<HeadMove>,
    /// Worktrees of the same repository inside this one.
    inside: Vec<Listed>,
}

impl<'a> Look<'a> {
    fn of(asked: &'a Asked<'a>, status: &'a Status) -> Result<Self, CommandError> {
        // A branch without a commit contains no work.
        let checked_out = status.branch.as_deref().filter(|_| status.head.is_some());
        let branch = own_branch(asked.branch, checked_out, asked.before);
        let git_dir = git_dir(asked.worktree)?;
        let is_inside = |it: &Listed| it.path != asked.worktree && it.path.starts_with(asked.worktree) && !it.missing;
        Ok(Self {
            inside: list(asked.repo)?.into_iter().filter(is_inside).collect(),
            tip: branch_commit(asked.repo.root(), branch)?,
            moves: head_moves(asked.worktree, &git_dir)?,
            asked,
            status,
            branch,
            git_dir,
        })
    }

    /// Lists unfinished operations, conflicts, uncommitted files and unreadable ones.
    fn files(&self) -> Vec<NotOnBranch> {
        let mut parts = Vec::new();
        let place = || shown(self.asked.worktree);
        let (conflicts, entries) = self.uncommitted();
        let operation = operation_in_progress_in(&self.git_dir);
        // An unfinished bisect alone is not work.
        let is_work = operation.is_some_and(|it| it != "bisect") || !conflicts.is_empty();
        if is_work {
            let what = match (operation, conflicts.is_empty()) {
                (Some(operation), true) => format!("{} that is not finished", with_article(operation)),
                (Some(operation), false) => {
                    format!("{} that is not finished, with conflicts in {}", with_article(operation), names(&conflicts))
                }
                (None, _) => format!("files with conflicts: {}", names(&conflicts)),
            };
            parts.push(part(what, place(), how_to_finish(operation)));
        }
        if !entries.is_empty() {
            let how = format!("commit it there on branch {}{}", self.branch, self.why_uncommitted(operation));
            let what = format!("{}: {}", count(entries.len(), UNCOMMITTED), names(&entries));
            parts.push(NotOnBranch { files: Some(Files::Uncommitted), ..part(what, place(), how) });
        }
        let changed = self.asked.copies.iter().filter(|copy| copy.is_changed(self.asked.worktree));
        let changed: Vec<String> = changed.map(|copy| copy.path.clone()).collect();
        if !changed.is_empty() {
            let what = format!("changes of files that were copied there by .worktreeinclude: {}", names(&changed));
            parts.push(part(what, place(), "copy what is wanted of them to the main checkout by hand".to_owned()));
        }
        if let Some(complaint) = &self.status.complaint {
            let what = format!("what git cannot read: {}", complaint.replace('\n', "; "));
            parts.push(part(what, place(), "make it readable and commit it there".to_owned()));
        }
        parts
    }

    /// Returns the paths in conflict, and the other uncommitted paths of this repository's own files.
    fn uncommitted(&self) -> (Vec<String>, Vec<String>) {
        let bare = bare_repositories(self.asked.worktree, &self.status.entries);
        let is_copy = |path: &Path| self.asked.copies.iter().any(|copy| Path::new(&copy.path) == path);
        let own = |entry: &&StatusEntry| {
            // Uncommitted files of a submodule are listed with the submodule.
            let only_dirty =
                entry.submodule.is_some_and(|submodule| submodule.dirty && !submodule.moved) && !entry.staged;
            let elsewhere = entry.is_repository() || only_dirty;
            let left_alone = entry.untracked && (is_copy(&entry.path) || is_in(&bare, &entry.path));
            !elsewhere && !left_alone
        };
        let (conflicts, others): (Vec<&StatusEntry>, Vec<&StatusEntry>) =
            self.status.entries.iter().filter(own).partition(|entry| entry.in_conflict);
        let paths = |entries: Vec<&StatusEntry>| entries.into_iter().map(|entry| shown(&entry.path)).collect();
        (paths(conflicts), paths(others))
    }

    fn why_uncommitted(&self, operation: Option<&str>) -> String {
        let state = match (&self.status.head, &self.status.branch, operation) {
            (_, _, Some(operation)) => format!("{} is not finished there", with_article(operation)),
            (None, Some(branch), _) => {
                format!(
                    "HEAD is on {branch}, which has no commit; `git symbolic-ref HEAD refs/heads/{}` first",
                    self.branch
                )
            }
            (None, None, _) => format!(
                "HEAD is on no branch and has no commit; `git symbolic-ref HEAD refs/heads/{}` first",
                self.branch
            ),
            (_, None, _) => format!("HEAD is on no branch there; `git switch {}` first", self.branch),
            (_, Some(branch), _) if branch != self.branch => {
                format!("HEAD is on {branch}, which was there before; `git switch {}` first", self.branch)
            }
            _ => String::new(),
        };
        let reasons: Vec<&str> = [state.as_str(), self.asked.why.unwrap_or_default()]
            .into_iter()
            .filter(|reason| !reason.is_empty())
            .collect();
        if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join("; ")) }
    }

    /// Lists changes of files that are marked as unchanged in the index.
    fn marked(&self) -> Result<Vec<NotOnBranch>, IndexError> {
        let worktree = self.asked.worktree;
        let marked = marked_unchanged(worktree)?;
        if marked.is_empty() {
            return Ok(Vec::new());
        }
        let seen: HashSet<&PathBuf> = self.status.entries.iter().map(|entry| &entry.path).collect();
        let changed = status_despite_marks(worktree)?.entries;
        let changed = changed.iter().filter(|it| marked.contains(&it.path) && !seen.contains(&it.path));
        let changed: Vec<String> = changed.map(|entry| shown(&entry.path)).collect();
        if changed.is_empty() {
            return Ok(Vec::new());
        }
        let what = format!("changes of files that git was told to take for unchanged: {}", names(&changed));
        let how = "`git update-index --no-assume-unchanged --no-skip-worktree` for each of them there, then commit"
            .to_owned();
        Ok(vec![part(what, shown(worktree), how)])
    }

    /// Lists nested repositories, including submodules and worktrees.
    fn repositories(&self) -> Result<Vec<NotOnBranch>, IndexError> {
        let worktree = self.asked.worktree;
        let mut parts = Vec::new();
        for path in self.inside.iter().map(|it| &it.path) {
            let left = super::status::status(path, super::status::Untracked::Files)?;
            if !left.entries.is_empty() {
                let files: Vec<String> = left.entries.iter().map(|entry| shown(&entry.path)).collect();
                let what = format!("{} in a worktree inside: {}", count(files.len(), UNCOMMITTED), names(&files));
                let how = format!("commit them there, then merge that commit into {}", self.branch);
                parts.push(part(what, shown(path), how));
            }
        }
        let bare = bare_repositories(worktree, &self.status.entries);
        let untracked = self.status.entries.iter().filter(|entry| entry.is_repository()).map(|entry| &entry.path);
        let others = untracked
            .chain(&bare)
            .map(|path| worktree.join(path))
            .filter(|path| !self.inside.iter().any(|it| path.starts_with(&it.path)));
        for path in others {
            let how = format!(
                "push it to a place of its own, or move its git folder away and commit its files on branch {}",
                self.branch
            );
            parts.push(part("a repository inside, with all that is in it".to_owned(), shown(&path), how));
        }
        let index = folders_and_links(worktree)?;
        for folder in index.folders.iter().map(|folder| worktree.join(folder)) {
            if is_own_repository(&folder)? && resolve_commit(&folder, "HEAD")?.is_some() {
                let what = "the commits of a repository inside, whose files are also tracked here".to_owned();
                parts.push(part(what, shown(&folder), "push them to a place of its own".to_owned()));
            }
        }
        for link in &index.links {
            parts.extend(self.submodule(link)?);
        }
        Ok(parts)
    }

    fn submodule(&self, link: &Path) -> Result<Option<NotOnBranch>, CommandError> {
        let path = self.asked.worktree.join(link);
        if !is_own_repository(&path)? {
            return Ok(None);
        }
        let entry = self.status.entries.iter().find(|entry| entry.path == *link);
        let dirty = entry.and_then(|entry| entry.submodule).is_some_and(|submodule| submodule.dirty);
        let head = resolve_commit(&path, "HEAD")?;
        let unpublished = unpublished_commits(&path, head.as_deref())?;
        let what = match (unpublished.is_empty(), dirty) {
            (true, false) => return Ok(None),
            (true, true) => "uncommitted files of a submodule",
            (false, false) => "commits of a submodule that are in no other place",
            (false, true) => "commits of a submodule that are in no other place, and uncommitted files of it",
        };
        let how = format!("commit and push them there; then commit the submodule on branch {}", self.branch);
        Ok(Some(part(what.to_owned(), shown(&path), how)))
    }

    /// Lists new submodule links on the branch whose commit is not known to exist outside this worktree.
    fn links(&self) -> Result<Vec<NotOnBranch>, IndexError> {
        let Some(tip) = &self.tip else { return Ok(Vec::new()) };
        let mut parts = Vec::new();
        for (path, commit) in new_links(self.asked.repo, self.asked.base, tip)? {
            let main = self.asked.repo.main_worktree.as_ref().map(|main| main.join(&path));
            if main.is_some_and(|main| has_commit(&main, &commit)) {
                continue;
            }
            let here = self.asked.worktree.join(&path);
            let is_here = has_commit(&here, &commit);
            if is_here && unpublished_commits(&here, Some(&commit))?.is_empty() {
                continue;
            }
            let what =
                format!("the content of {}: branch {} only links to its commit {commit}", shown(&path), self.branch);
            let how = match is_here {
                true => {
                    "push that commit to the submodule's remote; or, if it shall be no submodule, `git rm --cached` it, move its git folder away, and commit its files"
                }
                false => "nobody here has that commit: have it pushed to the submodule's remote, or take the link out",
            };
            parts.push(part(what, shown(&here), how.to_owned()));
        }
        Ok(parts)
    }

    /// Lists commits that were made in this worktree and that the branch does not contain.
    fn commits(&self) -> Result<Vec<NotOnBranch>, IndexError> {
        let repo = self.asked.repo;
        let mut made = self.made_here();
        made.extend(self.status.head.clone().filter(|_| self.status.branch.as_deref() != Some(self.branch)));
        made.extend(self.inside.iter().filter_map(|it| it.head.clone()));
        if self.branch != self.asked.branch {
            made.extend(branch_commit(repo.root(), self.asked.branch)?);
        }
        let known: Vec<&str> = self.tip.iter().map(String::as_str).chain([self.asked.base]).collect();
        if made.len() <= MOST_BY_HAND {
            let is_known =
                |id: &String| known.iter().any(|whole| refs::is_ancestor(repo.root(), id, whole) == Some(true));
            made.retain(|id| !is_known(id));
        }
        if made.is_empty() {
            return Ok(Vec::new());
        }
        let hidden = self.known_before(&known)?;
        let input: String =
            made.iter().map(|id| format!("{id}\n")).chain(hidden.iter().map(|id| format!("^{id}\n"))).collect();
        let listed = ["rev-list", "--topo-order", "--parents", "--ignore-missing", "--stdin"];
        let listed = repo.read().args(listed).input(input).text()?;
        let mut tips = without_children(&listed);
        let others = tips.split_off(tips.len().min(MOST_TIPS));
        let mut parts = Vec::new();
        for tip in tips {
            parts.extend(self.commit(&tip, &hidden)?);
        }
        if !others.is_empty() {
            let what = format!("{} that were not examined", count(others.len(), "more commit"));
            let how = format!("`git log COMMIT` for each, then `git merge` what is wanted on branch {}", self.branch);
            parts.push(part(what, names(&others), how));
        }
        Ok(parts)
    }

    /// Returns the commits that were made here according to the reflog, except those replaced by an amendment or a
    /// rebase.
    fn made_here(&self) -> BTreeSet<String> {
        let made = self.moves.iter().filter(|it| it.created_commit()).map(|it| it.new.clone());
        let mut made: BTreeSet<String> = made.collect();
        for superseded in self.moves.iter().filter(|it| it.replaced_commit()) {
            made.remove(&superseded.old);
        }
        made
    }

    /// Returns the `known` commits, those that existed before the work, and the current HEAD of the main checkout.
    fn known_before(&self, known: &[&str]) -> Result<BTreeSet<String>, CommandError> {
        let mut hidden: BTreeSet<String> = known.iter().map(|id| (*id).to_owned()).collect();
        if let Some(before) = self.asked.before {
            hidden.extend(before.head.iter().chain(before.refs.values()).filter(|id| is_id(id)).cloned());
        }
        hidden.extend(resolve_commit(self.asked.repo.root(), "HEAD")?);
        Ok(hidden)
    }

    fn commit(&self, tip: &str, hidden: &BTreeSet<String>) -> Result<Option<NotOnBranch>, CommandError> {
        let repo = self.asked.repo;
        let holders = repo.read().args(["for-each-ref", "--format=%(refname)", "--contains", tip]).text()?;
        let holder = holders.lines().find(|name| !name.starts_with("refs/orchestrator/"));
        let at_head = self.status.head.as_deref() == Some(tip) && self.status.branch.is_none();
        if holder.is_none() && !at_head {
            // Skips a commit that was undone and committed again: the branch's own history contains all of its file
            // states.
            let branch = self.tip.as_deref().unwrap_or(self.asked.base);
            let states =
                ["diff", "-z", "--raw", "--no-renames", "--no-abbrev", "--no-ext-diff", "--ignore-submodules=none"];
            let states = repo.read().args(states).arg(format!("{branch}...{tip}")).output()?;
            let history = ["log", "-z", "--format=", "--raw", "--no-renames", "--no-abbrev", "--diff-merges=separate"];
            let history = repo.read().args(history).args([branch, "--not", self.asked.base]).output()?;
            if states.code == Some(0) && new_states(&states.stdout).is_subset(&new_states(&history.stdout)) {
                return Ok(None);
            }
        }
        let hidden: String = hidden.iter().map(|id| format!("^{id}\n")).collect();
        let number = repo.read().args(["rev-list", "--count", "--ignore-missing", "--stdin"]);
        let number = number.input(format!("{tip}\n{hidden}")).text()?;
        let commits = count(number.parse().unwrap_or(1), "commit");
        let (what, place) = match holder {
            Some(name) => match name.strip_prefix("refs/heads/") {
                Some(branch) => (format!("{commits} on branch {branch}"), format!("branch {branch}, commit {tip}")),
                None => (format!("{commits} at {name}"), format!("{name}, commit {tip}")),
            },
            None if at_head => (format!("{commits} on a detached HEAD"), format!("commit {tip}")),
            None => (format!("{commits} that only the reflog of its worktree knows"), format!("commit {tip}")),
        };
        let branch = self.branch;
        let how = match &self.tip {
            Some(own) => {
                let is_related = repo.read().args(["merge-base", own, tip]).succeeds()?;
                let option = if is_related { "" } else { "--allow-unrelated-histories " };
                format!("`git switch {branch} && git merge {option}{tip}` in {}", shown(self.asked.worktree))
            }
            None => format!("its branch is gone: `git branch {branch} {tip}`"),
        };
        Ok(Some(part(what, place, how)))
    }

    /// Lists the worker's stashes. All worktrees share one list of stashes; a stash's message names the branch that it
    /// was made on.
    fn stashes(&self) -> Result<Vec<NotOnBranch>, IndexError> {
        let before = self.asked.before.map(|before| before.stashes.as_slice()).unwrap_or_default();
        let mut parts = Vec::new();
        for (commit, message) in stashes_with_messages(self.asked.repo)? {
            if before.contains(&commit) || !self.is_own_stash(&commit, &message)? {
                continue;
            }
            let how = format!("`git stash apply {commit}` in {}, then commit it", shown(self.asked.worktree));
            parts.push(part(format!("a stash ({message})"), format!("commit {commit}"), how));
        }
        Ok(parts)
    }

    fn is_own_stash(&self, commit: &str, message: &str) -> Result<bool, CommandError> {
        let on = |branch: &str| {
            message.starts_with(&format!("WIP on {branch}:")) || message.starts_with(&format!("On {branch}:"))
        };
        let names = self.moves.iter().flat_map(HeadMove::branches).chain([self.branch, self.asked.branch]);
        if names.into_iter().any(on) {
            return Ok(true);
        }
        if !on("(no branch)") {
            return Ok(false);
        }
        let parent = resolve_commit(self.asked.repo.root(), &format!("{commit}^1"))?;
        let was_here = |id: &String| id != self.asked.base && self.moves.iter().any(|it| it.new == *id);
        Ok(parent.is_some_and(|parent| was_here(&parent) || self.was_detached_at(&parent)))
    }

    /// Returns whether HEAD was at this commit and on no branch. The next checkout then began at a commit's id.
    fn was_detached_at(&self, commit: &str) -> bool {
        let is_detached_after = |at: usize| {
            let next = self.moves[at + 1..].iter().find_map(|it| it.branches().first().copied());
            next.map_or(self.status.branch.is_none(), is_id)
        };
        self.moves.iter().enumerate().any(|(at, it)| it.new == commit && is_detached_after(at))
    }
}

/// Returns the ignored files and folders that only the worker can have created. Files that tools regenerate are not
/// work. `ignored` is git's current list for a worktree that was new when the work began.
pub fn ignored(worktree: &Path, ignored: &[PathBuf], copies: &[Copied]) -> Option<NotOnBranch> {
    // The path of each, and its description.
    let mut found: Vec<(String, String)> = Vec::new();
    for path in ignored {
        if copies.iter().any(|copy| Path::new(&copy.path) == path) || is_regenerable(worktree, path) {
            continue;
        }
        let described = match worktree.join(path).symlink_metadata() {
            Ok(kind) if kind.is_dir() => ignored_folder(worktree, path),
            Ok(kind) if kind.is_file() || kind.is_symlink() => Some(shown(path)),
            _ => None,
        };
        found.extend(described.map(|described| (shown(path), described)));
    }
    if found.is_empty() {
        return None;
    }
    let (paths, described): (Vec<String>, Vec<String>) = found.into_iter().unzip();
    let what = format!("files that git ignores: {}", listed(&described, MOST_PARTS));
    let how = "`git add -f` there what of it is wanted, and commit".to_owned();
    let files = Files::Ignored(Some(paths).filter(|paths| paths.len() <= MOST_PARTS));
    Some(NotOnBranch { files: Some(files), ..part(what, shown(worktree), how) })
}

/// Returns the files of a recorded [`Files::Ignored`] that are still there, as one part.
pub fn still_ignored(worktree: &Path, now: &[PathBuf], recorded: Option<&[String]>) -> Option<NotOnBranch> {
    ignored(worktree, &still_there(worktree, now, recorded), &[])
}

/// Returns the files and folders of a recorded [`Files::Ignored`] that are still there. Those that were added later are
/// not the worker's. If there were too many to record, all ignored ones count that tools do not regenerate.
pub fn still_there(worktree: &Path, now: &[PathBuf], recorded: Option<&[String]>) -> Vec<PathBuf> {
    let is_recorded = |path: &&PathBuf| recorded.is_none_or(|paths| paths.contains(&shown(path)));
    now.iter().filter(is_recorded).filter(|path| !is_regenerable(worktree, path)).cloned().collect()
}

/// Describes the content of an ignored folder; `None` if there is no work in it.
fn ignored_folder(worktree: &Path, path: &Path) -> Option<String> {
    let mut files = 0;
    let mut repositories = Vec::new();
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        if worktree.join(&folder).join(".git").symlink_metadata().is_ok() {
            repositories.push(shown(&folder));
            continue;
        }
        let Ok(entries) = fs::read_dir(worktree.join(&folder)) else {
            return Some(format!("{}/ (unreadable)", shown(path)));
        };
        for entry in entries.flatten() {
            let inside = folder.join(entry.file_name());
            match entry.file_type() {
                _ if is_regenerable(worktree, &inside) => {}
                Ok(kind) if kind.is_dir() => folders.push(inside),
                Ok(_) => files += 1,
                Err(_) => {}
            }
            if files > MOST_COUNTED {
                return Some(format!("{}/ (over {MOST_COUNTED} files)", shown(path)));
            }
        }
    }
    let repositories = (!repositories.is_empty()).then(|| format!("a repository at {}", names(&repositories)));
    let files = (files > 0).then(|| count(files, "file"));
    let content: Vec<String> = repositories.into_iter().chain(files).collect();
    (!content.is_empty()).then(|| format!("{}/ ({})", shown(path), content.join(", ")))
}

/// Names of folders that package managers, compilers and test runners fill.
const REGENERABLE_FOLDERS: [&str; 41] = [
    "node_modules",
    "bower_components",
    ".pnpm-store",
    ".yarn",
    ".npm",
    "target",
    "build",
    "dist",
    "out-tsc",
    ".next",
    ".nuxt",
    ".svelte-kit",
    ".turbo",
    ".parcel-cache",
    ".angular",
    ".cache",
    "__pycache__",
    ".venv",
    "venv",
    ".tox",
    ".nox",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".hypothesis",
    ".eggs",
    ".gradle",
    ".kotlin",
    "bin",
    "obj",
    "Pods",
    "DerivedData",
    ".build",
    ".dart_tool",
    "_build",
    "deps",
    "elm-stuff",
    ".terraform",
    "coverage",
    ".nyc_output",
    ".bundle",
];
/// Endings of files that compilers, test runners and editors leave.
const REGENERABLE_ENDINGS: [&str; 19] = [
    ".pyc",
    ".pyo",
    ".o",
    ".obj",
    ".class",
    ".a",
    ".so",
    ".dylib",
    ".dll",
    ".exe",
    ".gcda",
    ".gcno",
    ".tsbuildinfo",
    ".swp",
    ".swo",
    ".egg-info",
    ".DS_Store",
    ".eslintcache",
    ".coverage",
];

/// Returns whether the path is, or lies in, what package managers, compilers and test runners create.
pub(super) fn is_regenerable(worktree: &Path, path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let in_regenerable = path
        .ancestors()
        .skip(1)
        .filter_map(Path::file_name)
        .any(|folder| REGENERABLE_FOLDERS.iter().any(|known| folder == *known));
    let absolute = worktree.join(path);
    in_regenerable
        || REGENERABLE_ENDINGS.iter().any(|ending| name.ends_with(ending))
        || absolute.is_dir() && (REGENERABLE_FOLDERS.contains(&name.as_str()) || is_marked_regenerable(&absolute))
}

fn path_of(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

/// Two kinds of places in the index: folders with tracked files that contain a `.git`, and links to other repositories.
#[derive(Default)]
struct Index {
    folders: BTreeSet<PathBuf>,
    links: Vec<PathBuf>,
}

fn folders_and_links(worktree: &Path) -> Result<Index, CommandError> {
    let mut found = Index::default();
    let mut seen = HashSet::new();
    for (path, is_link) in tracked(worktree)? {
        for folder in path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()) {
            if !seen.insert(folder.to_owned()) {
                break;
            }
            if worktree.join(folder).join(".git").symlink_metadata().is_ok() {
                found.folders.insert(folder.to_owned());
            }
        }
        if is_link {
            found.links.push(path);
        }
    }
    Ok(found)
}

fn tracked(worktree: &Path) -> Result<Vec<(PathBuf, bool)>, CommandError> {
    if let Ok(index) = git2::Repository::open(worktree).and_then(|opened| opened.index()) {
        return Ok(index
            .iter()
            .map(|entry| (path_of(&entry.path), entry.mode == u32::from(git2::FileMode::Commit)))
            .collect());
    }
    let listed = Git::read(worktree).args(["ls-files", "--stage", "-z"]).run()?;
    Ok(staged(&listed).map(|file| (file.path.to_owned(), file.mode == LINK)).collect())
}

/// Returns the submodule links that `tip` has and `base` lacks or has with another commit.
fn new_links(repo: &Repository, base: &str, tip: &str) -> Result<Vec<(PathBuf, String)>, CommandError> {
    if base == tip {
        return Ok(Vec::new());
    }
    if let Some(found) = new_links_by_libgit2(repo, base, tip) {
        return Ok(found);
    }
    let diff = ["diff-tree", "-r", "-z", "--no-renames", "--raw", "--no-abbrev", base, tip];
    let answer = repo.read().args(diff).run()?;
    let links = changed(&answer).filter(|it| it.new_mode == LINK);
    Ok(links.map(|link| (link.path.to_owned(), link.new_id.to_owned())).collect())
}

fn new_links_by_libgit2(repo: &Repository, base: &str, tip: &str) -> Option<Vec<(PathBuf, String)>> {
    let opened = git2::Repository::open(repo.root()).ok()?;
    let tree = |id: &str| opened.find_commit(git2::Oid::from_str(id).ok()?).ok()?.tree().ok();
    let diff = opened.diff_tree_to_tree(Some(&tree(base)?), Some(&tree(tip)?), None).ok()?;
    let links = diff.deltas().filter(|delta| delta.new_file().mode() == git2::FileMode::Commit);
    Some(
        links
            .map(|delta| {
                (path_of(delta.new_file().path_bytes().unwrap_or_default()), delta.new_file().id().to_string())
            })
            .collect(),
    )
}

/// Returns the new mode, new id and path of each record.
fn new_states(raw: &[u8]) -> HashSet<(&str, &str, &Path)> {
    changed(raw).map(|it| (it.new_mode, it.new_id, it.path)).collect()
}

fn is_id(name: &str) -> bool {
    matches!(name.len(), 40 | 64) && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_in(folders: &[PathBuf], path: &Path) -> bool {
    folders.iter().any(|folder| path.starts_with(folder))
}

fn with_article(operation: &str) -> String {
    format!("{} {operation}", if operation == "am" { "an" } else { "a" })
}

fn how_to_finish(operation: Option<&str>) -> String {
    match operation {
        Some("merge") => {
            "finish it there: resolve what is in conflict, `git add` it, `git commit`; or `git merge --abort`"
                .to_owned()
        }
        Some("bisect") => "`git bisect reset` there".to_owned(),
        Some(operation) => format!("finish it there: `git {operation} --continue`; or `git {operation} --abort`"),
        None => "resolve them there, `git add` them and `git commit`".to_owned(),
    }
}

fn count(number: usize, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

fn names(names: &[String]) -> String {
    listed(names, MOST_NAMED)
}

fn listed(names: &[String], most: usize) -> String {
    let more = names.len().saturating_sub(most);
    let shown = names.iter().take(most).cloned().collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

/// Formats a path. One with control characters or invalid UTF-8 is quoted.
fn shown(path: &Path) -> String {
    match path.to_str() {
        Some(name) if !name.contains(char::is_control) => name.to_owned(),
        _ => format!("{path:?}"),
    }
}

#[cfg(test)]
mod tests;
