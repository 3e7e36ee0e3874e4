//! Computes the integration of one branch into another: a merge, a squash or a cherry-pick.
//!
//! The result is computed by `git merge-tree` without a working tree. It is the tree that the user's own `git merge`
//! would create. This module moves no branch; [`super::land()`] moves the target to a clean result. Its commits are not
//! signed and run no hook.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::blocking::{self, TreeChange};
use super::checkout::branch_commit;
use super::command::{CommandError, Git};
use super::identity::CommitIdentity;
use super::index::IndexError;
use super::refs::Ancestry;
use super::repository::{Repository, RepositoryError};
use super::{names, refs};
use crate::mission::hint::{Hint, Hinted};

/// Maximum number of commits compared on each side after a merge conflict.
const MOST_BY_HAND: usize = 100;

#[derive(Debug, thiserror::Error)]
pub enum IntegrateError {
    #[error("cannot combine the branches to build on: {branch:?} conflicts with those before it in {paths}")]
    Apart { branch: String, paths: String },
    #[error(transparent)]
    Git(#[from] CommandError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error("cannot integrate branch {branch:?}: it is not among the branches here ({branches})")]
    UnknownBranch { branch: String, branches: String },
    #[error("cannot read branch {branch}: its file {} names no commit that git can read", file.display())]
    BrokenBranch { branch: String, file: PathBuf },
    #[error("cannot integrate {branch}: it is the target branch")]
    SameBranch { branch: String },
    #[error("cannot cherry-pick {branch}: {commit} is a merge commit")]
    MergeCommit { branch: String, commit: String },
    #[error(
        "cannot move {branch}: its checkout in {} has uncommitted changes to {count} files that the integration changes ({})",
        worktree.display(),
        samples.join(", ")
    )]
    TargetDirty { branch: String, worktree: PathBuf, count: usize, samples: Vec<String> },
    #[error(
        "cannot move {branch}: its checkout in {} has {count} untracked files where the integration adds files ({})",
        worktree.display(),
        samples.join(", ")
    )]
    InTheWay { branch: String, worktree: PathBuf, count: usize, samples: Vec<String> },
    #[error(
        "cannot move {branch}: its checkout in {} has files in conflict ({})",
        worktree.display(),
        samples.join(", ")
    )]
    TargetUnmerged { branch: String, worktree: PathBuf, samples: Vec<String> },
    #[error("cannot move {branch}: the lock {} is older than a minute", lock.display())]
    TargetLocked { branch: String, lock: PathBuf },
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("cannot move {branch}: a {operation} of it is not finished in {}", worktree.display())]
    TargetBusy { branch: String, worktree: PathBuf, operation: &'static str },
    #[error("cannot create a temporary folder for merges")]
    Scratch(#[source] std::io::Error),
    #[error("cannot move {branch} from {expected}: it is at {found} now")]
    TargetMoved { branch: String, expected: String, found: String },
}

impl Hinted for IntegrateError {
    fn hints(&self) -> Vec<Hint> {
        match self {
            Self::Git(error) => error.hints(),
            Self::Repository(error) => error.hints(),
            Self::Index(error) => error.hints(),
            Self::Apart { .. } => vec![Hint::to("integrate them one after another first")],
            Self::UnknownBranch { .. } => Vec::new(),
            Self::BrokenBranch { branch, .. } => vec![Hint::to(format!(
                "delete that file and create the branch again at its last commit, which the worker's outcome and the \
                 end of logs/refs/heads/{branch} in the git directory name"
            ))],
            Self::SameBranch { .. } => vec![Hint::to("name another target branch")],
            Self::MergeCommit { .. } => vec![Hint::to("use the strategy merge"), Hint::to("use the strategy squash")],
            Self::TargetDirty { .. } => vec![Hint::to("commit or stash them there, then integrate again")],
            Self::InTheWay { .. } => vec![Hint::to("move them away, then integrate again")],
            Self::TargetUnmerged { .. } => vec![Hint::to("resolve them there, then integrate again")],
            Self::TargetLocked { .. } => {
                vec![Hint::to("delete that lock if no git process runs there, then integrate again")]
            }
            Self::TargetBusy { .. } => vec![Hint::to("finish it there, then integrate again")],
            Self::Scratch(_) => vec![Hint::to("set TMPDIR to a writable folder")],
            Self::TargetMoved { .. } => vec![Hint::to("integrate again")],
        }
    }
}

/// The way in which a branch is integrated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// One merge commit even if a fast-forward is possible, to record the origin of the commits.
    #[default]
    Merge,
    /// One commit with all changes, and the target as its only parent.
    Squash,
    /// Every commit separately, with its author and message. Commits that no longer change anything are left out.
    CherryPick,
}

/// One branch to integrate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntegrationStep {
    /// Name of the branch, for messages.
    pub source: String,
    /// Commit at the tip of the branch.
    pub tip: String,
    pub strategy: Strategy,
    /// Message of the merge or squash commit. Cherry-picked commits keep their own.
    pub message: String,
    /// True if nothing is built on top of the result. A dry run then needs no commit for it.
    pub is_last: bool,
    /// Commits up to which the target already has the changes, as other commits.
    pub contained: Vec<String>,
    /// Commits up to which the user removed the history from the target. None of it is integrated.
    pub withdrawn: Vec<String>,
}

impl IntegrationStep {
    fn settled(&self) -> impl Iterator<Item = &str> {
        self.contained.iter().chain(&self.withdrawn).map(String::as_str)
    }
}

/// The result of one integration step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stacked {
    /// The target already contains all changes.
    Nothing,
    Conflicts(Vec<MergeConflict>),
    /// A new commit that no ref points at yet. For the last step of a dry run it is only a tree.
    Clean(String),
}

/// A path in conflict. `kind` is git's own word: `contents`, `modify/delete`, `rename/rename`, `binary`, …
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeConflict {
    pub path: String,
    pub kind: String,
}

/// A scratch merge, which computes integrations on top of each other.
pub struct ScratchMerge<'a> {
    repo: &'a Repository,
    /// Folder for the objects of a dry run, deleted together with it.
    scratch: Option<TempDir>,
}

impl<'a> ScratchMerge<'a> {
    /// Creates one whose objects stay in the repository until `git gc` removes the unreachable ones.
    pub fn new(repo: &'a Repository) -> Self {
        Self { repo, scratch: None }
    }

    /// Creates one that writes nothing to the repository.
    pub fn dry(repo: &'a Repository) -> Result<Self, IntegrateError> {
        Ok(Self { repo, scratch: Some(tempfile::tempdir().map_err(IntegrateError::Scratch)?) })
    }

    /// Returns the folder with the objects of a dry run, for the caller to delete.
    pub fn into_scratch(self) -> Option<TempDir> {
        self.scratch
    }

    /// Computes the commit that integrates this step on top of `onto`. After a conflict, it is retried without the
    /// changes that the user has already integrated by hand. The commit up to which those reach is then returned too.
    /// The user may have reverted them since.
    pub fn stack(&self, onto: &str, step: &IntegrationStep) -> Result<(Stacked, Option<String>), IntegrateError> {
        let stacked = self.stack_once(onto, step)?;
        if !matches!(stacked, Stacked::Conflicts(_)) || step.settled().next().is_some() {
            return Ok((stacked, None));
        }
        let Some(contained) = self.integrated_by_hand(onto, &step.tip)? else { return Ok((stacked, None)) };
        match self.stack_once(onto, &IntegrationStep { contained: vec![contained.clone()], ..step.clone() })? {
            Stacked::Conflicts(_) => Ok((stacked, None)),
            beyond => Ok((beyond, Some(contained))),
        }
    }

    fn stack_once(&self, onto: &str, step: &IntegrationStep) -> Result<Stacked, IntegrateError> {
        match step.strategy {
            Strategy::Merge | Strategy::Squash => self.combine(onto, step),
            Strategy::CherryPick => self.pick(onto, step),
        }
    }

    /// Returns the changes between one commit and another commit or tree.
    pub fn changes(&self, from: &str, to: &str) -> Result<Vec<TreeChange>, IntegrateError> {
        Ok(blocking::tree_changes(self.read(), from, to)?)
    }

    /// Returns whether two commits, or a commit and a tree, have the same files.
    pub fn is_same(&self, one: &str, other: &str) -> Result<bool, IntegrateError> {
        let tree = self.tree_of(one)?;
        Ok(other == tree || self.tree_of(other)? == tree)
    }

    fn tree_of(&self, commit: &str) -> Result<String, CommandError> {
        let opened = Ancestry::of(self.repo.root()).and_then(|ancestry| match &self.scratch {
            Some(scratch) => ancestry.with_objects_in(scratch.path()),
            None => Some(ancestry),
        });
        let known = opened.and_then(|ancestry| ancestry.tree_of(commit));
        known.map_or_else(|| self.read().tree_of(commit), Ok)
    }

    fn read(&self) -> Git {
        self.with_scratch(self.repo.read())
    }

    fn write(&self) -> Git {
        self.with_scratch(self.repo.write())
    }

    fn with_scratch(&self, git: Git) -> Git {
        let Some(scratch) = &self.scratch else { return git };
        CommitIdentity::fallback().commit_as(with_objects_in(git, self.repo, scratch.path()))
    }

    fn combine(&self, onto: &str, step: &IntegrationStep) -> Result<Stacked, IntegrateError> {
        if self.is_in(onto, &step.tip)? {
            return Ok(Stacked::Nothing);
        }
        let settled: Vec<&str> = step.settled().collect();
        let tree = match self.merge_beyond(onto, &step.tip, &settled)? {
            Ok(tree) => tree,
            Err(conflicts) => return Ok(Stacked::Conflicts(conflicts)),
        };
        let squash = step.strategy == Strategy::Squash;
        if (squash || !settled.is_empty()) && tree == self.tree_of(onto)? {
            return Ok(Stacked::Nothing);
        }
        if self.scratch.is_some() && step.is_last {
            return Ok(Stacked::Clean(tree));
        }
        // The branch must not be a parent here: the removed commits would be in the history again, and later merges
        // could never bring them in.
        let alone = squash || !step.withdrawn.is_empty();
        let parents = if alone { &[onto][..] } else { &[onto, &step.tip] };
        Ok(Stacked::Clean(self.write().commit_tree(&tree, parents, step.message.clone()).text()?))
    }

    /// Merges the changes of `tip` beyond the `settled` commits, as if both sides had already merged those.
    fn merge_beyond(
        &self,
        onto: &str,
        tip: &str,
        settled: &[&str],
    ) -> Result<Result<String, Vec<MergeConflict>>, IntegrateError> {
        if settled.is_empty() {
            return Ok(self.merge_trees(onto, tip)?);
        }
        let mut rewritten = Vec::new();
        for commit in settled {
            if !self.is_in(tip, commit)? {
                rewritten.push(*commit);
            }
        }
        let ours = self.stand_in(onto, settled)?;
        let theirs = if rewritten.is_empty() { tip.to_owned() } else { self.stand_in(tip, &rewritten)? };
        Ok(self.merge_trees(&ours, &theirs)?)
    }

    /// Creates an unreferenced commit with the tree of `of` that also has `parents` in its history.
    fn stand_in(&self, of: &str, parents: &[&str]) -> Result<String, CommandError> {
        let parents: Vec<&str> = [of].iter().chain(parents).copied().collect();
        self.write().commit_tree(&self.tree_of(of)?, &parents, "stand-in for a merge").text()
    }

    /// Returns the newest commit of `tip` whose changes the user has already integrated into `onto`, picked one by one
    /// or squashed into one commit. Called only after a merge conflict, and only the newest commits are compared.
    fn integrated_by_hand(&self, onto: &str, tip: &str) -> Result<Option<String>, IntegrateError> {
        let Some(base) = self.read().merge_base(onto, tip)? else { return Ok(None) };
        let listed = |kind: &str, of: &str| {
            let most = format!("--max-count={MOST_BY_HAND}");
            self.read().args(["rev-list", kind, &most, of, &format!("^{base}")]).text()
        };
        let theirs: HashSet<String> = self.patch_ids(&listed("--no-merges", onto)?)?.into_values().collect();
        let single = self.patch_ids(&listed("--no-merges", tip)?)?;
        let own = listed("--first-parent", tip)?;
        let own: Vec<&str> = own.lines().collect();
        let is_picked = |commit: &&&str| single.get(**commit).is_some_and(|id| theirs.contains(id));
        // All commits from the first on must be picked. Beyond the limit, the first one is not in the list.
        let is_whole = own.len() < MOST_BY_HAND;
        let picked = own.iter().rev().take_while(is_picked).last().filter(|_| is_whole);
        let beyond: Vec<&str> = own.iter().copied().take_while(|commit| Some(commit) != picked).collect();
        let squashed = self.patch_ids(&beyond.iter().map(|commit| format!("{commit} {base}\n")).collect::<String>())?;
        let is_squashed = |commit: &&&str| squashed.get(**commit).is_some_and(|id| theirs.contains(id));
        Ok(beyond.iter().find(is_squashed).or(picked).map(|commit| (*commit).to_owned()))
    }

    /// Returns the patch ids of these commits, one per line. A second id in a line is compared with, in place of the
    /// parent.
    fn patch_ids(&self, lines: &str) -> Result<HashMap<String, String>, CommandError> {
        // Unlike `log`, `diff-tree` ignores the user's settings for diffs.
        let patches =
            self.read().args(["diff-tree", "--stdin", "-p", "--full-index"]).input(format!("{lines}\n")).run()?;
        let ids = self.read().args(["patch-id", "--stable"]).input(patches).text()?;
        let line = |line: &str| line.split_once(' ').map(|(id, commit)| (commit.to_owned(), id.to_owned()));
        Ok(ids.lines().filter_map(line).collect())
    }

    fn is_in(&self, whole: &str, part: &str) -> Result<bool, CommandError> {
        // libgit2 does not see the objects of a dry run, so the git program is the fallback.
        match refs::is_ancestor(self.repo.root(), part, whole) {
            Some(answer) => Ok(answer),
            None => self.read().is_ancestor(part, whole),
        }
    }

    /// Applies the commits one after another.
    fn pick(&self, onto: &str, step: &IntegrationStep) -> Result<Stacked, IntegrateError> {
        let commits = self
            .read()
            .args(["rev-list", "--reverse", "--topo-order", "--parents"])
            .args([&step.tip, "--not", onto])
            .args(step.settled())
            .text()?;
        let mut picked = onto.to_owned();
        for line in commits.lines() {
            let ids: Vec<&str> = line.split(' ').collect();
            let [commit, parent] = ids[..] else {
                return Err(IntegrateError::MergeCommit { branch: step.source.clone(), commit: ids[0].to_owned() });
            };
            match self.pick_one(&picked, commit, parent)? {
                Ok(next) => picked = next,
                Err(conflicts) => return Ok(Stacked::Conflicts(conflicts)),
            }
        }
        Ok(if picked == onto { Stacked::Nothing } else { Stacked::Clean(picked) })
    }

    /// Merges `commit` with `onto`, as if both had `parent` as their merge base. `merge-tree --merge-base` does the
    /// same, but only since git 2.40.
    fn pick_one(
        &self,
        onto: &str,
        commit: &str,
        parent: &str,
    ) -> Result<Result<String, Vec<MergeConflict>>, IntegrateError> {
        let onto_tree = self.tree_of(onto)?;
        let stand_in = self.write().commit_tree(&onto_tree, &[parent], "stand-in for a cherry-pick").text()?;
        let tree = match self.merge_trees(&stand_in, commit)? {
            Ok(tree) => tree,
            Err(conflicts) => return Ok(Err(conflicts)),
        };
        if tree == onto_tree {
            return Ok(Ok(onto.to_owned()));
        }
        let show = |format: &str| {
            let format = format!("--format={format}");
            let args = ["show", "--no-patch", "--no-show-signature", "--date=raw", &format, commit];
            self.read().args(args).text()
        };
        let git = self
            .write()
            .env("GIT_AUTHOR_NAME", show("%an")?)
            .env("GIT_AUTHOR_EMAIL", show("%ae")?)
            .env("GIT_AUTHOR_DATE", show("%ad")?);
        Ok(Ok(git.commit_tree(&tree, &[onto], show("%B")?).text()?))
    }

    fn merge_trees(&self, ours: &str, theirs: &str) -> Result<Result<String, Vec<MergeConflict>>, CommandError> {
        let arguments = ["merge-tree", "--write-tree", "-z", "--messages", ours, theirs];
        // Attributes come from the target, as in a checkout of it, and not from the branch checked out at the root.
        let output = self.write().env("GIT_ATTR_SOURCE", ours).args(arguments).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        match output.code {
            Some(0) => Ok(Ok(text.split('\0').next().unwrap_or_default().to_owned())),
            Some(1) => Ok(Err(parse_conflicts(&text, &[ours, theirs]))),
            code => Err(CommandError::Failed {
                command: arguments.join(" "),
                dir: self.repo.root().to_owned(),
                code,
                stderr: output.stderr,
            }),
        }
    }
}

/// Creates a commit that contains all of these branches or commits, as the base of work that builds on several others.
/// No ref points at it.
pub fn merge_of(repo: &Repository, names: &[String]) -> Result<String, IntegrateError> {
    let mut merged: Option<String> = None;
    for name in names {
        let next = repo.resolve(name)?;
        merged = Some(match merged {
            None => next,
            Some(base) => join(repo, name, &base, &next)?,
        });
    }
    merged.ok_or_else(|| IntegrateError::UnknownBranch { branch: String::new(), branches: String::new() })
}

fn join(repo: &Repository, branch: &str, base: &str, next: &str) -> Result<String, IntegrateError> {
    let tree = ScratchMerge::new(repo).merge_trees(base, next)?.map_err(|conflicts| IntegrateError::Apart {
        branch: branch.to_owned(),
        paths: conflicts.into_iter().map(|conflict| conflict.path).collect::<Vec<_>>().join(", "),
    })?;
    let message = format!("Merge {branch} as a base to build on");
    Ok(repo.write().commit_tree(&tree, &[base, next], message).text()?)
}

/// Returns the tip of a local branch, or else of the remote branch of that name.
pub fn tip(repo: &Repository, branch: &str) -> Result<String, IntegrateError> {
    names::tip(repo, branch)?.map_or_else(|| unknown(repo, branch), Ok)
}

/// Returns the tip of a local branch; branches of remotes are not considered.
pub fn local_tip(repo: &Repository, branch: &str) -> Result<String, IntegrateError> {
    branch_commit(&repo.checkout(), branch)?.map_or_else(|| unknown(repo, branch), Ok)
}

fn unknown<T>(repo: &Repository, branch: &str) -> Result<T, IntegrateError> {
    let file = repo.common_dir.join("refs/heads").join(branch);
    if file.is_file() {
        return Err(IntegrateError::BrokenBranch { branch: branch.to_owned(), file });
    }
    Err(IntegrateError::UnknownBranch { branch: branch.to_owned(), branches: names::branches(repo)? })
}

/// Configures a call to write new objects to `folder` and still read those of the repository.
pub(super) fn with_objects_in(git: Git, repo: &Repository, folder: &Path) -> Git {
    let objects = repo.common_dir.join("objects");
    // Git separates paths at colons, unless they are quoted.
    let objects = objects.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\"");
    git.env("GIT_OBJECT_DIRECTORY", folder).env("GIT_ALTERNATE_OBJECT_DIRECTORIES", format!("\"{objects}\""))
}

/// Returns whether the history of `whole` contains the commit `part`.
pub fn contains(repo: &Repository, whole: &str, part: &str) -> bool {
    CommitGraph::of(repo).contains(whole, part)
}

/// The commit graph of a repository, opened once for many queries.
pub struct CommitGraph<'a> {
    repo: &'a Repository,
    ancestry: Option<refs::Ancestry>,
}

impl<'a> CommitGraph<'a> {
    pub fn of(repo: &'a Repository) -> Self {
        Self { repo, ancestry: refs::Ancestry::of(repo.root()) }
    }

    /// Returns whether the history of `whole` contains the commit `part`.
    pub fn contains(&self, whole: &str, part: &str) -> bool {
        let known = self.ancestry.as_ref().and_then(|it| it.is_ancestor(part, whole));
        known.unwrap_or_else(|| self.repo.read().is_ancestor(part, whole).unwrap_or(false))
    }
}

/// Parses the output of `git merge-tree`. It consists of the tree, the files in conflict
/// (`<mode> <id> <stage> TAB <path>`), an empty record, and messages. A message is the number of paths, the paths, the
/// type (`CONFLICT (contents)`, `Auto-merging`) and the text.
fn parse_conflicts(text: &str, sides: &[&str]) -> Vec<MergeConflict> {
    let own = |path: &str| own_name(path, sides).to_owned();
    let mut records = text.split('\0').skip(1);
    let mut unmerged: Vec<String> = records
        .by_ref()
        .take_while(|record| !record.is_empty())
        .filter_map(|record| Some(own(record.split_once('\t')?.1)))
        .collect();
    let mut conflicts = Vec::new();
    let mut named = BTreeSet::new();
    while let Some(count) = records.next().and_then(|count| count.parse().ok()) {
        let paths: Vec<String> = records.by_ref().take(count).map(own).collect();
        let kind = records.next().unwrap_or_default();
        records.next();
        let kind = kind.strip_prefix("CONFLICT (").map(|kind| kind.trim_end_matches(')'));
        let (Some(kind), Some(first)) = (kind, paths.first()) else { continue };
        // A conflict of several paths concerns the unmerged ones. A few kinds of conflict leave no path unmerged.
        let open: Vec<&String> = paths.iter().filter(|path| unmerged.contains(path)).collect();
        let of = if open.is_empty() { vec![first] } else { open };
        named.extend(of.iter().map(|path| (*path).clone()));
        conflicts.extend(of.into_iter().map(|path| MergeConflict { path: path.clone(), kind: kind.to_owned() }));
    }
    conflicts.dedup();
    unmerged.retain(|path| !named.contains(path));
    unmerged.dedup();
    conflicts.extend(unmerged.into_iter().map(|path| MergeConflict { path, kind: "unmerged".to_owned() }));
    conflicts
}

/// Returns the original path of `<path>~<side>`, the name that git uses if both sides need the same path.
pub(super) fn own_name<'a>(path: &'a str, sides: &[&str]) -> &'a str {
    match path.rsplit_once('~') {
        Some((own, side)) if sides.contains(&side) => own,
        _ => path,
    }
}

/// Beginning of the reflog messages of this program's moves.
pub(super) const REASON: &str = "orchestrator-boss: integrate ";

/// Returns whether only integrations of this program moved the ref from one commit to the other, according to its
/// reflog. Returns `false` if there is no reflog.
pub fn only_integrated(repo: &Repository, name: &str, from: &str, to: &str) -> Result<bool, CommandError> {
    let log = repo.read().args(["log", "--walk-reflogs", "--format=%H %gs", name, "--"]).output()?;
    let log = String::from_utf8_lossy(&log.stdout);
    let mut moves = log.lines().filter_map(|line| line.split_once(' ')).peekable();
    if moves.peek().is_none_or(|(newest, _)| *newest != to) {
        return Ok(false);
    }
    let others = moves.find(|(commit, why)| *commit == from || !why.starts_with(REASON));
    Ok(others.is_some_and(|(commit, _)| commit == from))
}

#[cfg(test)]
mod as_git;
#[cfg(test)]
mod repositories;
#[cfg(test)]
pub(super) mod tests;
