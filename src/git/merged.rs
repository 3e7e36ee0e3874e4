//! Determines from the current state of git whether branches are merged, for any number of branches at once.
//!
//! A branch is merged if its tip is in its target, or if the target contains the commits of an earlier integration. It
//! is also merged if the user squashed or picked it: merging it would change nothing, or the target has its changes as
//! other commits.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::command::CommandError;
use super::facts::{self, BranchChanges};
use super::origins::EarlierIntegration;
use super::picked::is_picked_or_squashed;
use super::radar::{self, MergeResult, merge_base, merge_pairs, scratch};
use super::refs::Ancestry;
use super::repository::Repository;

/// Maximum number of branches for which one call computes a scratch merge.
const MOST_TRIED: usize = 256;
/// Maximum number of conflicting branches that are compared commit by commit.
const MOST_COMPARED: usize = 32;

#[derive(Debug, Clone, Default)]
pub struct MergeQuery {
    pub branch: String,
    /// Last known tip of the branch, used if the branch is gone.
    pub last_seen: Option<String>,
    /// Commit at which the work began. A branch that still points at it has no work.
    pub base: Option<String>,
    /// Candidate target branches, the intended one first.
    pub targets: Vec<String>,
    /// Recorded integrations with their targets, oldest first.
    pub earlier_integrations: Vec<(String, EarlierIntegration)>,
    /// True if an earlier part of the work may have been merged by itself.
    pub is_continued: bool,
}

/// The answer to a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merged {
    /// The branch that contains the work, and a commit of it that does.
    Into {
        branch: String,
        commit: String,
    },
    No,
    /// An earlier part of the work is merged, and these changes are not.
    Partly(BranchChanges),
    /// Git gave no answer, or the limits of one call were exceeded.
    Unknown,
}

/// Returns the answers for all branches, in the same order.
pub fn merged(repo: &Repository, works: &[MergeQuery]) -> Vec<Merged> {
    answers(repo, works).unwrap_or_else(|error| {
        unanswered::<()>(error);
        vec![Merged::Unknown; works.len()]
    })
}

fn answers(repo: &Repository, works: &[MergeQuery]) -> Result<Vec<Merged>, CommandError> {
    let mut names: HashSet<&String> = HashSet::new();
    for work in works {
        names.extend(
            work.targets.iter().chain([&work.branch]).chain(work.earlier_integrations.iter().map(|(target, _)| target)),
        );
    }
    let names: Vec<String> = names.into_iter().cloned().collect();
    let tips = radar::tips(repo, &names)?;
    let ancestry = Ancestry::of(repo.root());
    let is_in = |part: &str, whole: &str| match ancestry.as_ref().and_then(|it| it.is_ancestor(part, whole)) {
        Some(answer) => Ok(answer),
        None => repo.read().is_ancestor(part, whole),
    };
    let mut answers = Vec::new();
    let mut open = Vec::new();
    for (at, work) in works.iter().enumerate() {
        let answer = by_history(work, &tips, &is_in).unwrap_or_else(|error| {
            unanswered::<()>(error);
            Some(Merged::Unknown)
        });
        if let (None, Some((tip, onto))) = (&answer, pair(work, &tips)) {
            open.push((at, tip.clone(), onto.clone()));
        }
        answers.push(answer.unwrap_or(Merged::No));
    }
    by_content(repo, works, &open, &mut answers);
    for (at, tip, onto) in &open {
        if answers[*at] == Merged::No && works[*at].is_continued {
            let rest = rest(repo, &works[*at], tip, onto, &is_in).unwrap_or_else(unanswered);
            answers[*at] = rest.map_or(Merged::No, Merged::Partly);
        }
    }
    Ok(answers)
}

fn tip<'a>(work: &'a MergeQuery, tips: &'a HashMap<String, String>) -> Option<&'a String> {
    tips.get(&work.branch).or(work.last_seen.as_ref())
}

/// Returns the two commits to compare when the history gives no answer: the branch's tip and the target's.
fn pair<'a>(work: &'a MergeQuery, tips: &'a HashMap<String, String>) -> Option<(&'a String, &'a String)> {
    let onto = tips.get(work.targets.first()?)?;
    Some((tip(work, tips).filter(|tip| work.base.as_ref() != Some(tip))?, onto))
}

/// Returns the answer that records and history give; `None` if they give none.
fn by_history(
    work: &MergeQuery,
    tips: &HashMap<String, String>,
    is_in: &impl Fn(&str, &str) -> Result<bool, CommandError>,
) -> Result<Option<Merged>, CommandError> {
    let tip = tip(work, tips);
    for (target, earlier) in work.earlier_integrations.iter().rev() {
        let Some(onto) = tips.get(target) else { continue };
        // If the branch is gone and its last tip is unknown, the record is the only evidence.
        let is_all = match tip {
            Some(tip) => *tip == earlier.source || is_in(tip, &earlier.source)?,
            None => true,
        };
        if is_all && is_in(&earlier.commit, onto)? {
            return Ok(Some(Merged::Into { branch: target.clone(), commit: earlier.commit.clone() }));
        }
    }
    let Some(tip) = tip.filter(|tip| work.base.as_ref() != Some(tip)) else { return Ok(Some(Merged::No)) };
    for target in &work.targets {
        if let Some(onto) = tips.get(target)
            && *target != work.branch
            && is_in(tip, onto)?
        {
            return Ok(Some(Merged::Into { branch: target.clone(), commit: tip.clone() }));
        }
    }
    Ok(None)
}

/// Returns the changes of a branch that the target lacks. `None` if it lacks all of them.
fn rest(
    repo: &Repository,
    work: &MergeQuery,
    tip: &str,
    onto: &str,
    is_in: &impl Fn(&str, &str) -> Result<bool, CommandError>,
) -> Result<Option<BranchChanges>, CommandError> {
    let Some(common) = merge_base(repo, onto, tip)? else { return Ok(None) };
    // A squash or a pick leaves no common commit, so its record shows how far the branch was integrated.
    let mut integrated = Vec::new();
    for (target, earlier) in &work.earlier_integrations {
        if work.targets.first() == Some(target) && is_in(&earlier.commit, onto)? && is_in(&earlier.source, tip)? {
            integrated.push(earlier.source.as_str());
        }
    }
    let last = integrated.last().copied().filter(|last| is_in(&common, last).unwrap_or(false));
    let start = last.unwrap_or(&common);
    if work.base.as_deref() == Some(start) {
        return Ok(None);
    }
    integrated.push(onto);
    facts::changes_without(&repo.checkout(), tip, start, &integrated).map(Some)
}

/// Compares the contents, by scratch merges in one git process per target. An error concerns only the branches that git
/// could not compare.
fn by_content(repo: &Repository, works: &[MergeQuery], open: &[(usize, String, String)], answers: &mut [Merged]) {
    let mut by_target: BTreeMap<&String, Vec<(usize, &String)>> = BTreeMap::new();
    for (at, tip, onto) in open {
        answers[*at] = Merged::Unknown;
        by_target.entry(onto).or_default().push((*at, tip));
    }
    let (mut tries, mut comparisons) = (MOST_TRIED, MOST_COMPARED);
    for (onto, mut branches) in by_target {
        branches.truncate(tries);
        tries -= branches.len();
        for (at, is_in) in are_in(repo, onto, &branches, &mut comparisons).unwrap_or_else(unanswered) {
            answers[at] = match is_in {
                Some(true) => Merged::Into { branch: works[at].targets[0].clone(), commit: onto.clone() },
                Some(false) => Merged::No,
                None => Merged::Unknown,
            };
        }
    }
}

/// Returns whether `onto` has the changes of each branch; `None` if that is unknown.
fn are_in(
    repo: &Repository,
    onto: &str,
    branches: &[(usize, &String)],
    comparisons: &mut usize,
) -> Result<Vec<(usize, Option<bool>)>, CommandError> {
    let scratch = scratch()?;
    let tree = radar::tree_of(repo, onto)?;
    let pairs: Vec<_> = branches.iter().map(|(_, tip)| (onto.to_owned(), (*tip).clone())).collect();
    let tried = merge_pairs(repo, onto, &pairs, scratch.path())?;
    let mut is_in = |tip: &str, tried: Option<MergeResult>| match tried {
        Some(tried) if tried.conflicts.is_empty() => Ok(Some(tried.tree == tree)),
        Some(_) if *comparisons == 0 => Ok(None),
        Some(_) => {
            *comparisons -= 1;
            is_picked_or_squashed(repo, tip, onto).map(Some)
        }
        // Git does not merge unrelated histories.
        None => Ok(merge_base(repo, tip, onto)?.is_none().then_some(false)),
    };
    Ok(branches
        .iter()
        .zip(tried)
        .map(|((at, tip), tried)| (*at, is_in(tip, tried).unwrap_or_else(unanswered)))
        .collect())
}

/// Logs an error for which there is no answer.
fn unanswered<T: Default>(error: CommandError) -> T {
    tracing::debug!(%error, "cannot determine which branches are merged");
    T::default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::testing::Fixture;

    fn work(fixture: &Fixture) -> MergeQuery {
        let base = Some(fixture.git(&["rev-parse", "main"]));
        fixture.git(&["checkout", "-qb", "work"]);
        fixture.commit("work.txt", "1\n");
        fixture.commit("work.txt", "2\n");
        fixture.git(&["checkout", "-q", "main"]);
        MergeQuery { branch: "work".to_owned(), base, targets: vec!["main".to_owned()], ..MergeQuery::default() }
    }

    fn is_merged(fixture: &Fixture, work: &MergeQuery) -> bool {
        let both = merged(&fixture.repo, &[work.clone(), work.clone()]);
        assert_eq!(both[0], both[1]);
        assert_ne!(both[0], Merged::Unknown);
        matches!(both[0], Merged::Into { .. })
    }

    #[test]
    fn merges_and_resets_by_hand_are_detected() {
        let ways: [&[&[&str]]; 5] = [
            &[&["merge", "-q", "--ff-only", "work"]],
            &[&["merge", "-q", "--no-ff", "--no-edit", "work"]],
            &[&["merge", "-q", "--squash", "work"], &["commit", "-qm", "squashed"]],
            &[&["cherry-pick", "main..work"]],
            &[&["checkout", "-q", "work", "--", "work.txt"], &["commit", "-qm", "copied"]],
        ];
        for options in [&[][..], &["--object-format=sha256"]] {
            for way in ways {
                let fixture = Fixture::empty(options);
                fixture.commit("readme.txt", "hello\n");
                let work = work(&fixture);
                fixture.commit("main.txt", "1\n");
                let ff = way[0].contains(&"--ff-only");
                if ff {
                    fixture.git(&["reset", "-q", "--hard", "HEAD~1"]);
                }
                let before = fixture.git(&["rev-parse", "main"]);
                assert!(!is_merged(&fixture, &work), "{way:?}");
                way.iter().for_each(|command| drop(fixture.git(command)));
                assert!(is_merged(&fixture, &work), "{way:?}");
                fixture.git(&["checkout", "-q", "work"]);
                fixture.commit("more.txt", "1\n");
                fixture.git(&["checkout", "-q", "main"]);
                assert!(!is_merged(&fixture, &work), "a later commit is not merged: {way:?}");
                fixture.git(&["branch", "-f", "work", "work~1"]);
                fixture.git(&["reset", "-q", "--hard", &before]);
                assert!(!is_merged(&fixture, &work), "{way:?}");
            }
        }
    }

    #[test]
    fn record_counts_while_its_commit_is_contained() {
        let fixture = Fixture::new();
        let mut work = work(&fixture);
        fixture.git(&["merge", "-q", "--squash", "work"]);
        fixture.git(&["commit", "-qm", "squashed"]);
        let (source, commit) = (fixture.git(&["rev-parse", "work"]), fixture.git(&["rev-parse", "main"]));
        work.earlier_integrations.push((
            "main".to_owned(),
            EarlierIntegration { source, commit: commit.clone(), partial: false, own: true },
        ));
        // The later change to the same lines makes a merge conflict.
        fixture.commit("work.txt", "changed\n");
        assert_eq!(merged(&fixture.repo, &[work.clone()]), [Merged::Into { branch: "main".to_owned(), commit }]);
        let elsewhere = MergeQuery { targets: vec!["other".to_owned()], ..work.clone() };
        fixture.git(&["branch", "other", "main~2"]);
        assert!(is_merged(&fixture, &elsewhere), "the record is of another target");
        let gone = MergeQuery { branch: "gone".to_owned(), ..work.clone() };
        assert!(is_merged(&fixture, &gone), "its branch was deleted after the merge");
        fixture.git(&["reset", "-q", "--hard", "HEAD~2"]);
        assert!(!is_merged(&fixture, &work));
    }

    #[test]
    fn only_changes_after_a_merge_are_counted() {
        for way in [&["merge", "-q", "--no-ff", "--no-edit", "work"][..], &["merge", "-q", "--squash", "work"]] {
            let fixture = Fixture::new();
            let mut work = MergeQuery { is_continued: true, ..work(&fixture) };
            assert_eq!(merged(&fixture.repo, &[work.clone()]), [Merged::No], "all of it");
            fixture.commit("main.txt", "1\n");
            fixture.git(way);
            if way.contains(&"--squash") {
                fixture.git(&["commit", "-qm", "squashed"]);
            }
            let (source, commit) = (fixture.git(&["rev-parse", "work"]), fixture.git(&["rev-parse", "main"]));
            let earlier = EarlierIntegration { source, commit, partial: false, own: true };
            work.earlier_integrations.push(("main".to_owned(), earlier));
            fixture.git(&["checkout", "-q", "work"]);
            fixture.commit("more.txt", "1\n2\n3\n");
            fixture.git(&["checkout", "-q", "main"]);
            let found = merged(&fixture.repo, &[work.clone()]);
            let [Merged::Partly(rest)] = &found[..] else { panic!("{way:?}: {found:?}") };
            assert_eq!((rest.commits, rest.files_changed, rest.insertions), (1, 1, 3), "{way:?}");
        }
    }

    #[test]
    fn unanswered_branch_does_not_affect_others() {
        let fixture = Fixture::new();
        let merged_work = work(&fixture);
        fixture.git(&["merge", "-q", "--squash", "work"]);
        fixture.git(&["commit", "-qm", "squashed"]);
        fixture.git(&["checkout", "-q", "--orphan", "unrelated"]);
        fixture.commit("other.txt", "x\n");
        fixture.git(&["checkout", "-q", "main"]);
        let unrelated = MergeQuery { branch: "unrelated".to_owned(), base: None, ..merged_work.clone() };
        let gone = MergeQuery { branch: "gone".to_owned(), last_seen: Some("f".repeat(40)), ..unrelated.clone() };
        let found = merged(&fixture.repo, &[gone, unrelated, merged_work]);
        assert_eq!(found[..2], [Merged::Unknown, Merged::No]);
        assert!(matches!(found[2], Merged::Into { .. }), "{found:?}");
    }

    #[test]
    fn branch_without_work_is_not_merged() {
        let fixture = Fixture::new();
        let work = work(&fixture);
        fixture.git(&["branch", "-f", "work", "main"]);
        fixture.commit("main.txt", "1\n");
        assert!(!is_merged(&fixture, &work));
        std::fs::rename(fixture.root().join(".git"), fixture.beside("away")).unwrap();
        assert_eq!(merged(&fixture.repo, &[work]), [Merged::Unknown]);
    }
}
