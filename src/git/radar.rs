//! Determines which branches would merge cleanly into which others. The merges are computed by `git merge-tree`, as an
//! integration would, and leave nothing in the repository.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use tempfile::TempDir;

use super::command::{CommandError, Git};
use super::integrate::{own_name, with_objects_in};
use super::refs::{self, Ancestry};
use super::repository::Repository;

mod own;

pub use own::own_conflicts;

/// Two commits; the second would be merged into the first.
pub type CommitPair = (String, String);

/// The state of the files that hold refs. It shows without a git process that branches may have moved, since git writes
/// a ref by replacing a file.
pub type RefStamp = Vec<Option<(u64, SystemTime, u64)>>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeResult {
    pub tree: String,
    /// Paths in conflict; empty for a clean merge.
    pub conflicts: Vec<String>,
}

/// Merges each pair. `None` means that git cannot, for example because the histories are unrelated. `target` provides
/// the attributes, as in an integration. `scratch` is an empty folder.
pub fn merge_pairs(
    repo: &Repository,
    target: &str,
    pairs: &[CommitPair],
    scratch: &Path,
) -> Result<Vec<Option<MergeResult>>, CommandError> {
    // Once git has to be started, one more pair costs it little.
    let known = Ancestry::of(repo.root())
        .and_then(|ancestry| pairs.iter().map(|pair| without_git(&ancestry, pair).map(Some)).collect());
    if let Some(known) = known {
        return Ok(known);
    }
    let git = || git(repo, target, scratch);
    let mut found: Vec<Option<MergeResult>> = Vec::new();
    while found.len() < pairs.len() {
        let rest = &pairs[found.len()..];
        found.extend(merge_all(git(), rest)?.into_iter().map(Some));
        // Git stopped at this pair. Git 2.38 stops at the first one, since it does not support `--stdin`.
        if let Some(pair) = pairs.get(found.len()) {
            found.push(merge_one(git(), pair)?);
        }
    }
    Ok(found)
}

/// Returns the result of a merge in which one commit contains the other. No git process is started for it.
fn without_git(ancestry: &Ancestry, (onto, other): &CommitPair) -> Option<MergeResult> {
    let whole =
        if ancestry.is_ancestor(onto, other)? { other } else { ancestry.is_ancestor(other, onto)?.then_some(onto)? };
    Some(MergeResult { tree: ancestry.tree_of(whole)?, conflicts: Vec::new() })
}

/// Creates a temporary folder for the trees and files of scratch merges. The caller deletes it after answering: each
/// merge creates folders in it, and on a disk with `discard` each freed block can take milliseconds.
pub fn scratch() -> Result<TempDir, CommandError> {
    tempfile::tempdir().map_err(|source| CommandError::Start {
        command: "merge-tree".into(),
        dir: std::env::temp_dir(),
        source,
    })
}

/// Merges all pairs in one process, which saves most of the time.
fn merge_all(git: Git, pairs: &[CommitPair]) -> Result<Vec<MergeResult>, CommandError> {
    let lines: String = pairs.iter().map(|(onto, other)| format!("{onto} {other}\n")).collect();
    let output = git.args(["--stdin", "--no-messages", "--name-only"]).input(lines).output()?;
    let merges = parse(&String::from_utf8_lossy(&output.stdout));
    let named = |(result, pair): (MergeResult, &CommitPair)| MergeResult {
        conflicts: own_names(result.conflicts, pair),
        ..result
    };
    Ok(merges.into_iter().zip(pairs).map(named).collect())
}

fn own_names(paths: Vec<String>, (onto, other): &CommitPair) -> Vec<String> {
    let own = |path: String| own_name(&path, &[onto, other]).to_owned();
    let named: BTreeSet<String> = paths.into_iter().map(own).collect();
    named.into_iter().collect()
}

/// Parses merges. Each is `1` or `0`, the tree, the files in conflict if it was `0`, and an empty record. An incomplete
/// one at the end of the output is left out.
fn parse(text: &str) -> Vec<MergeResult> {
    let whole = &text[..text.rfind("\0\0").map_or(0, |end| end + 1)];
    let mut records = whole.split_terminator('\0');
    let mut merges = Vec::new();
    while let (Some("0" | "1"), Some(tree)) = (records.next(), records.next()) {
        let conflicts = records.by_ref().take_while(|record| !record.is_empty()).map(str::to_owned).collect();
        merges.push(MergeResult { tree: tree.to_owned(), conflicts });
    }
    merges
}

fn merge_one(git: Git, pair: &CommitPair) -> Result<Option<MergeResult>, CommandError> {
    let output = git.args(["-z", "--no-messages", "--name-only", &pair.0, &pair.1]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut records = text.split('\0').filter(|record| !record.is_empty()).map(str::to_owned);
    let tree = records.next().unwrap_or_default();
    Ok(match output.code {
        Some(0) => Some(MergeResult { tree, conflicts: Vec::new() }),
        // Without a tree, the output only reports a missing commit.
        Some(1) if !tree.is_empty() => Some(MergeResult { tree, conflicts: own_names(records.collect(), pair) }),
        _ => None,
    })
}

fn git(repo: &Repository, target: &str, scratch: &Path) -> Git {
    in_scratch(repo, target, scratch).args(["merge-tree", "--write-tree"])
}

fn in_scratch(repo: &Repository, target: &str, scratch: &Path) -> Git {
    with_objects_in(repo.read(), repo, scratch)
        .env("GIT_ATTR_SOURCE", target)
        // Nothing is fetched into a partial clone for this.
        .env("GIT_NO_LAZY_FETCH", "1")
}

pub fn tree_of(repo: &Repository, commit: &str) -> Result<String, CommandError> {
    let known = Ancestry::of(repo.root()).and_then(|ancestry| ancestry.tree_of(commit));
    known.map_or_else(|| repo.read().tree_of(commit), Ok)
}

/// Returns the merge base of two commits; `None` for unrelated histories.
pub fn merge_base(repo: &Repository, one: &str, other: &str) -> Result<Option<String>, CommandError> {
    repo.read().merge_base(one, other)
}

/// Returns the tips of these local branches. Missing branches are left out.
pub fn tips(repo: &Repository, branches: &[String]) -> Result<HashMap<String, String>, CommandError> {
    refs::tips(repo.root(), branches).map_or_else(|| ask_tips(repo, branches), Ok)
}

/// Returns the same as [`tips`], read by the git program.
fn ask_tips(repo: &Repository, branches: &[String]) -> Result<HashMap<String, String>, CommandError> {
    const PREFIX: &str = "refs/heads/";
    let names = branches.iter().map(|branch| format!("{PREFIX}{branch}"));
    let text = repo.read().args(["for-each-ref", "--format=%(objectname) %(refname)"]).args(names).text()?;
    let tip = |line: &str| {
        let (commit, name) = line.split_once(' ')?;
        // The pattern also matches refs in a folder of that name.
        let branch = name.strip_prefix(PREFIX).filter(|branch| branches.iter().any(|it| it == branch))?;
        Some((branch.to_owned(), commit.to_owned()))
    };
    Ok(text.lines().filter_map(tip).collect())
}

/// Reads the state of the files that hold these branches.
pub fn stamp(repo: &Repository, branches: &[String]) -> RefStamp {
    let single = branches.iter().map(|branch| format!("refs/heads/{branch}"));
    let shared = ["packed-refs", "reftable/tables.list"].map(str::to_owned);
    let of = |name: String| {
        let found = fs::symlink_metadata(repo.common_dir.join(name)).ok()?;
        Some((found.ino(), found.modified().ok()?, found.len()))
    };
    single.chain(shared).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::testing::Fixture;

    /// Creates branches from `main`, each with one file: `(name, path, text)`.
    fn with_branches(branches: &[(&str, &str, &str)]) -> (Fixture, HashMap<String, String>) {
        let fixture = Fixture::new();
        for (name, path, text) in branches {
            fixture.git(&["checkout", "-q", "-b", name, "main"]);
            fixture.commit(path, text);
        }
        fixture.git(&["checkout", "-q", "main"]);
        let names: Vec<String> = branches.iter().map(|(name, ..)| (*name).to_owned()).collect();
        let tips = tips(&fixture.repo, &names).unwrap();
        (fixture, tips)
    }

    #[test]
    fn pairs_are_distinguished_without_leaving_objects() {
        let (fixture, tips) =
            with_branches(&[("a", "readme.txt", "a\n"), ("b", "readme.txt", "b\n"), ("c", "c.txt", "c\n")]);
        fixture.git(&["checkout", "-q", "--orphan", "stranger"]);
        let stranger = fixture.commit("other.txt", "x\n");
        let objects = || fixture.git(&["count-objects", "-v"]);
        let before = objects();
        let pair = |one: &str, other: &str| (tips[one].clone(), tips[other].clone());
        let pairs = [
            pair("a", "b"),
            pair("a", "c"),
            (tips["a"].clone(), stranger.clone()),
            pair("c", "b"),
            (stranger, tips["c"].clone()),
            pair("b", "a"),
        ];
        let readme = Some(vec!["readme.txt".to_owned()]);
        let expected = [readme.clone(), Some(vec![]), None, Some(vec![]), None, readme];
        let scratch = scratch().unwrap();
        let one_by_one: Vec<_> =
            pairs.iter().map(|pair| merge_one(git(&fixture.repo, "main", scratch.path()), pair).unwrap()).collect();
        assert_eq!(one_by_one, merge_pairs(&fixture.repo, "main", &pairs, scratch.path()).unwrap());
        let paths: Vec<_> = one_by_one.into_iter().map(|result| Some(result?.conflicts)).collect();
        assert_eq!(paths, expected);
        assert_eq!(objects(), before, "no tree of a merge is kept");
    }

    #[test]
    fn trivial_merges_equal_those_of_git() {
        let (fixture, tips) = with_branches(&[("a", "readme.txt", "a\n")]);
        let main = fixture.git(&["rev-parse", "main"]);
        let pair = |one: &str, other: &str| (one.to_owned(), other.to_owned());
        let pairs = [pair(&main, &tips["a"]), pair(&tips["a"], &main), pair(&main, &main)];
        let ancestry = Ancestry::of(fixture.root()).unwrap();
        let scratch = scratch().unwrap();
        for pair in &pairs {
            let from_git = merge_one(git(&fixture.repo, "main", scratch.path()), pair).unwrap();
            assert!(from_git.is_some());
            assert_eq!(without_git(&ancestry, pair), from_git);
        }
        assert_eq!(tree_of(&fixture.repo, &main).unwrap(), fixture.git(&["rev-parse", "main^{tree}"]));
    }

    #[test]
    fn moved_branch_is_detected_without_git() {
        let (fixture, tips) = with_branches(&[("a", "a.txt", "a\n"), ("deep/b", "b.txt", "b\n")]);
        let names = ["a".to_owned(), "deep".to_owned(), "deep/b".to_owned()];
        assert_eq!(tips.len(), 2);
        assert_eq!(ask_tips(&fixture.repo, &names).unwrap(), tips, "a folder of branches is no branch");
        let before = stamp(&fixture.repo, &names);
        assert_eq!(stamp(&fixture.repo, &names), before);
        fixture.git(&["branch", "-f", "a", "deep/b"]);
        let moved = stamp(&fixture.repo, &names);
        assert_ne!(moved, before);
        fixture.git(&["pack-refs", "--all"]);
        assert_ne!(stamp(&fixture.repo, &names), moved);
        assert_eq!(super::tips(&fixture.repo, &names).unwrap()["a"], tips["deep/b"]);
    }

    #[test]
    fn truncated_answer_is_ignored() {
        let result = |tree: &str, paths: &[&str]| MergeResult {
            tree: tree.to_owned(),
            conflicts: paths.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(parse(""), []);
        assert_eq!(parse("1\0abc\0\0"), [result("abc", &[])]);
        assert_eq!(parse("0\0abc\0f\0g\0\x001\0def\0\0"), [result("abc", &["f", "g"]), result("def", &[])]);
        assert_eq!(parse("0\0abc\0f\0\x000\0def\0half"), [result("abc", &["f"])]);
    }
}
