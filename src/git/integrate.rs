//! Integrating a worker's branch into another branch: a merge, a squash or a cherry-pick.
//!
//! The result is computed without a working tree, by `git merge-tree`: it is the tree that the user's own `git merge`
//! would make. Conflicts touch nothing. Only a clean result moves the target branch: by compare-and-swap where nobody
//! has it checked out, by a fast-forward of git's own in a clean checkout, and not at all in a dirty one. Commits made
//! here are not signed and run no hook.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::command::{CommandError, Git};
use super::repository::{Repository, RepositoryError, branch_commit};
use super::status::{Untracked, git_dir, operation_in_progress, status};
use super::worktree::list;

/// How many files a refusal names.
const SAMPLES: usize = 5;

#[derive(Debug, thiserror::Error)]
pub enum IntegrateError {
    #[error(
        "the branches to build on conflict: {branch:?} with those before it, in {paths}; integrate them one after another first"
    )]
    Apart { branch: String, paths: String },
    #[error(transparent)]
    Git(#[from] CommandError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error("integrate branch {branch:?}: there is no such branch here")]
    UnknownBranch { branch: String },
    #[error("integrate {branch} into itself; name another target branch")]
    SameBranch { branch: String },
    #[error("cherry-pick {branch}: {commit} is a merge commit; use merge or squash")]
    MergeCommit { branch: String, commit: String },
    #[error(
        "move {branch}: it is checked out in {}, where {count} files have changes that are not committed ({}); commit \
         or stash them there, then integrate again",
        worktree.display(),
        samples.join(", ")
    )]
    TargetDirty { branch: String, worktree: PathBuf, count: usize, samples: Vec<String> },
    #[error(
        "move {branch}: in {} a {operation} of it is not finished; finish it there, then integrate \
         again",
        worktree.display()
    )]
    TargetBusy { branch: String, worktree: PathBuf, operation: &'static str },
    #[error("move {branch} from {expected}: it is at {found} meanwhile; integrate again")]
    TargetMoved { branch: String, expected: String, found: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// One merge commit, also where a fast-forward would do: it records what came from where.
    Merge,
    /// One commit with all changes, and the target as its only parent.
    Squash,
    /// Every commit by itself, with its author and message. Those that change nothing any more are left out.
    CherryPick,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Integrate {
    /// A local branch.
    pub source: String,
    /// A local branch.
    pub into: String,
    pub strategy: Strategy,
    /// Of the merge or squash commit; picked commits keep their own.
    pub message: String,
    /// Says what would happen and moves nothing.
    pub dry_run: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Integration {
    pub status: IntegrationStatus,
    /// Where the target branch stands now, `None` unless something was merged.
    pub commit: Option<String>,
    pub conflicts: Vec<Conflict>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntegrationStatus {
    Merged,
    AlreadyMerged,
    Conflicts,
    WouldMerge,
}

/// `kind` is git's own word: `contents`, `modify/delete`, `rename/rename`, `binary`, …
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    pub path: String,
    pub kind: String,
}

pub fn integrate(repo: &Repository, request: &Integrate) -> Result<Integration, IntegrateError> {
    if request.source == request.into {
        return Err(IntegrateError::SameBranch { branch: request.into.clone() });
    }
    let source = tip(repo, &request.source)?;
    let target = tip(repo, &request.into)?;
    if !request.dry_run {
        repo.identity()?;
    }
    let result = match request.strategy {
        Strategy::Merge | Strategy::Squash => combine(repo, request, &source, &target)?,
        Strategy::CherryPick => pick(repo, request, &source, &target)?,
    };
    match result {
        Computed::Nothing => Ok(plain(IntegrationStatus::AlreadyMerged)),
        Computed::Conflicts(conflicts) => Ok(Integration { conflicts, ..plain(IntegrationStatus::Conflicts) }),
        Computed::Clean(_) if request.dry_run => Ok(plain(IntegrationStatus::WouldMerge)),
        Computed::Clean(commit) => {
            move_branch(repo, request, &target, &commit)?;
            Ok(Integration { commit: Some(commit), ..plain(IntegrationStatus::Merged) })
        }
    }
}

/// A commit with all of these branches or commits in it, that no ref points at. For work that builds on several others.
pub fn merge_of(repo: &Repository, names: &[String]) -> Result<String, IntegrateError> {
    let mut merged: Option<String> = None;
    for name in names {
        let next = repo.resolve(name)?;
        merged = Some(match merged {
            None => next,
            Some(base) => join(repo, name, &base, &next)?,
        });
    }
    merged.ok_or_else(|| IntegrateError::UnknownBranch { branch: String::new() })
}

fn join(repo: &Repository, branch: &str, base: &str, next: &str) -> Result<String, IntegrateError> {
    let tree = merge_trees(repo, base, next)?.map_err(|conflicts| IntegrateError::Apart {
        branch: branch.to_owned(),
        paths: conflicts.into_iter().map(|conflict| conflict.path).collect::<Vec<_>>().join(", "),
    })?;
    let message = format!("Merge {branch} as a base to build on").into_bytes();
    Ok(commit_tree(repo.write(), &tree, &[base, next], message)?)
}

enum Computed {
    /// The target has it all already.
    Nothing,
    Conflicts(Vec<Conflict>),
    /// A new commit on top of the target, that no ref points at yet. In a dry run, the target itself.
    Clean(String),
}

fn plain(status: IntegrationStatus) -> Integration {
    Integration { status, commit: None, conflicts: Vec::new() }
}

fn tip(repo: &Repository, branch: &str) -> Result<String, IntegrateError> {
    branch_commit(repo.root(), branch)?.ok_or_else(|| IntegrateError::UnknownBranch { branch: branch.to_owned() })
}

fn combine(repo: &Repository, request: &Integrate, source: &str, target: &str) -> Result<Computed, IntegrateError> {
    let ancestor = ["merge-base", "--is-ancestor", source, target];
    if repo.read().args(ancestor).succeeds()? {
        return Ok(Computed::Nothing);
    }
    let tree = match merge_trees(repo, target, source)? {
        Ok(tree) => tree,
        Err(conflicts) => return Ok(Computed::Conflicts(conflicts)),
    };
    let squash = request.strategy == Strategy::Squash;
    if squash && tree == tree_of(repo, target)? {
        return Ok(Computed::Nothing);
    }
    if request.dry_run {
        return Ok(Computed::Clean(target.to_owned()));
    }
    let parents = if squash { &[target][..] } else { &[target, source] };
    let message = request.message.clone().into_bytes();
    Ok(Computed::Clean(commit_tree(repo.write(), &tree, parents, message)?))
}

/// Applies the commits one after another, in memory.
fn pick(repo: &Repository, request: &Integrate, source: &str, target: &str) -> Result<Computed, IntegrateError> {
    let commits = repo
        .read()
        .args(["rev-list", "--reverse", "--topo-order", "--parents"])
        .args([source, "--not", target])
        .text()?;
    let mut onto = target.to_owned();
    for line in commits.lines() {
        let ids: Vec<&str> = line.split(' ').collect();
        let [commit, parent] = ids[..] else {
            return Err(IntegrateError::MergeCommit { branch: request.source.clone(), commit: ids[0].to_owned() });
        };
        match pick_one(repo, &onto, commit, parent)? {
            Ok(picked) => onto = picked,
            Err(conflicts) => return Ok(Computed::Conflicts(conflicts)),
        }
    }
    Ok(if onto == target { Computed::Nothing } else { Computed::Clean(onto) })
}

/// Merges `commit` with what `onto` looks like, as if both came from `parent`. `merge-tree --merge-base` says the same,
/// but only since git 2.40.
fn pick_one(
    repo: &Repository,
    onto: &str,
    commit: &str,
    parent: &str,
) -> Result<Result<String, Vec<Conflict>>, IntegrateError> {
    let onto_tree = tree_of(repo, onto)?;
    let stand_in = commit_tree(repo.write(), &onto_tree, &[parent], b"stand-in for a cherry-pick".to_vec())?;
    let tree = match merge_trees(repo, &stand_in, commit)? {
        Ok(tree) => tree,
        Err(conflicts) => return Ok(Err(conflicts)),
    };
    if tree == onto_tree {
        return Ok(Ok(onto.to_owned()));
    }
    let show = |format: &str| {
        let format = format!("--format={format}");
        let args = ["show", "--no-patch", "--no-show-signature", "--date=raw", &format, commit];
        repo.read().args(args).text()
    };
    let git = repo
        .write()
        .env("GIT_AUTHOR_NAME", show("%an")?)
        .env("GIT_AUTHOR_EMAIL", show("%ae")?)
        .env("GIT_AUTHOR_DATE", show("%ad")?);
    let message = show("%B")?.into_bytes();
    Ok(Ok(commit_tree(git, &tree, &[onto], message)?))
}

fn tree_of(repo: &Repository, commit: &str) -> Result<String, CommandError> {
    repo.read().args(["rev-parse", &format!("{commit}^{{tree}}")]).text()
}

fn commit_tree(git: Git, tree: &str, parents: &[&str], message: Vec<u8>) -> Result<String, CommandError> {
    git.args(["commit-tree", tree])
        .args(parents.iter().flat_map(|parent| ["-p", parent]))
        .args(["-F", "-"])
        .input(message)
        .text()
}

/// The tree of a clean merge, or what is in conflict.
fn merge_trees(repo: &Repository, ours: &str, theirs: &str) -> Result<Result<String, Vec<Conflict>>, CommandError> {
    let arguments = ["merge-tree", "--write-tree", "-z", "--messages", ours, theirs];
    let output = repo.write().args(arguments).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    match output.code {
        Some(0) => Ok(Ok(text.split('\0').next().unwrap_or_default().to_owned())),
        Some(1) => Ok(Err(parse_conflicts(&text))),
        code => Err(CommandError::Failed {
            command: arguments.join(" "),
            dir: repo.root().to_owned(),
            code,
            stderr: output.stderr,
        }),
    }
}

/// The tree; the files in conflict (`<mode> <id> <stage> TAB <path>`) up to an empty record; then the messages: the
/// number of paths, the paths, the type (`CONFLICT (contents)`, `Auto-merging`) and the text.
fn parse_conflicts(text: &str) -> Vec<Conflict> {
    let mut records = text.split('\0').skip(1);
    let mut unmerged: Vec<String> = records
        .by_ref()
        .take_while(|record| !record.is_empty())
        .filter_map(|record| Some(record.split_once('\t')?.1.to_owned()))
        .collect();
    let mut conflicts = Vec::new();
    while let Some(count) = records.next().and_then(|count| count.parse().ok()) {
        let paths: Vec<&str> = records.by_ref().take(count).collect();
        let kind = records.next().unwrap_or_default();
        records.next();
        let kind = kind.strip_prefix("CONFLICT (").map(|kind| kind.trim_end_matches(')'));
        if let (Some(kind), Some(path)) = (kind, paths.first()) {
            unmerged.retain(|unmerged| !paths.contains(&unmerged.as_str()));
            conflicts.push(Conflict { path: (*path).to_owned(), kind: kind.to_owned() });
        }
    }
    unmerged.dedup();
    conflicts.extend(unmerged.into_iter().map(|path| Conflict { path, kind: "unmerged".to_owned() }));
    conflicts
}

fn move_branch(repo: &Repository, request: &Integrate, from: &str, to: &str) -> Result<(), IntegrateError> {
    // Nobody may check the branch out between looking and moving.
    let _lock = repo.lock()?;
    let checkout =
        list(repo)?.into_iter().find(|worktree| !worktree.bare && worktree.branch.as_ref() == Some(&request.into));
    refuse_rebased(repo, &request.into)?;
    let moved = match checkout {
        Some(checkout) => fast_forward(request, checkout.path, to)?,
        None => compare_and_swap(repo, request, from, to),
    };
    let Err(error) = moved else { return Ok(()) };
    let found = tip(repo, &request.into)?;
    if found == from {
        return Err(error.into());
    }
    Err(IntegrateError::TargetMoved { branch: request.into.clone(), expected: from.to_owned(), found })
}

/// While a branch is rebased it is checked out nowhere by name, but the rebase will end by moving it.
fn refuse_rebased(repo: &Repository, branch: &str) -> Result<(), IntegrateError> {
    let detached =
        list(repo)?.into_iter().filter(|worktree| worktree.branch.is_none() && !worktree.bare && !worktree.missing);
    for worktree in detached {
        let git_dir = git_dir(&worktree.path)?;
        let rebased = ["rebase-merge", "rebase-apply"]
            .iter()
            .filter_map(|state| fs::read_to_string(git_dir.join(state).join("head-name")).ok())
            .any(|name| name.trim_end().strip_prefix("refs/heads/") == Some(branch));
        if rebased {
            return Err(IntegrateError::TargetBusy {
                branch: branch.to_owned(),
                worktree: worktree.path,
                operation: "rebase",
            });
        }
    }
    Ok(())
}

fn compare_and_swap(repo: &Repository, request: &Integrate, from: &str, to: &str) -> Result<(), CommandError> {
    let reason = reason(request);
    let branch = format!("refs/heads/{}", request.into);
    repo.write().args(["update-ref", "-m", &reason, &branch, to, from]).run().map(drop)
}

/// The outer error says why the checkout must not be touched; the inner one is git's own refusal, for example because
/// an untracked file is in the way.
fn fast_forward(request: &Integrate, worktree: PathBuf, to: &str) -> Result<Result<(), CommandError>, IntegrateError> {
    let branch = request.into.clone();
    if let Some(operation) = operation_in_progress(&worktree)? {
        return Err(IntegrateError::TargetBusy { branch, worktree, operation });
    }
    let mut changed = status(&worktree, Untracked::Folders)?.entries;
    // Untracked files are no reason: git refuses if one is in the way.
    changed.retain(|entry| !entry.untracked);
    if !changed.is_empty() {
        let names = changed.iter().map(|entry| entry.path.display().to_string());
        return Err(IntegrateError::TargetDirty {
            branch,
            worktree,
            count: changed.len(),
            samples: names.take(SAMPLES).collect(),
        });
    }
    let merge = Git::write(&worktree)
        .env("GIT_REFLOG_ACTION", reason(request))
        .args(["merge", "--ff-only", "--no-squash", "--no-autostash", "--no-stat"])
        .args(["--quiet", "--no-overwrite-ignore", to]);
    Ok(merge.run().map(drop))
}

const REASON: &str = "orchestrator-boss: integrate ";

/// What the reflog says of it.
fn reason(request: &Integrate) -> String {
    format!("{REASON}{}", request.source)
}

/// Whether nothing but integrations of ours moved this ref from one commit to the other, by what its reflog says. Without
/// a reflog: no.
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
mod tests;
