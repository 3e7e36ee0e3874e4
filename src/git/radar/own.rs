//! Determines which part of a conflict between two branches comes from the branches themselves. A branch that started
//! at a newer commit of the target contains the target's changes too. Merged with an older branch, these conflict as if
//! they were the branch's own.

use std::path::Path;

use super::{CommitPair, MergeResult, git, in_scratch, merge_one};
use crate::git::command::CommandError;
use crate::git::identity::CommitIdentity;
use crate::git::repository::Repository;

/// Returns the paths in which two branches would conflict if both had started at the same commit. The changes of one
/// branch are applied to the commit where the other began, and the result is merged with the other.
///
/// `forks` are the commits at which each branch left the target. Returns `None` if neither branch applies to the
/// other's start.
pub fn own_conflicts(
    repo: &Repository,
    target: &str,
    pair: &CommitPair,
    forks: (&str, &str),
    scratch: &Path,
) -> Result<Option<Vec<String>>, CommandError> {
    let transplant = Transplant { repo, target, scratch };
    for (tip, fork, other, others_fork) in [(&pair.1, forks.1, &pair.0, forks.0), (&pair.0, forks.0, &pair.1, forks.1)]
    {
        let Some(moved) = transplant.commit_onto(tip, fork, others_fork)? else { continue };
        return Ok(transplant.merge(other, &moved)?.map(|result| result.conflicts));
    }
    Ok(None)
}

/// The repository and folder in which scratch merges are computed.
struct Transplant<'a> {
    repo: &'a Repository,
    target: &'a str,
    scratch: &'a Path,
}

impl Transplant<'_> {
    fn merge(&self, one: &str, other: &str) -> Result<Option<MergeResult>, CommandError> {
        merge_one(git(self.repo, self.target, self.scratch), &(one.to_owned(), other.to_owned()))
    }

    /// Creates a commit on top of `onto` with the changes between `fork` and `tip`. A stand-in commit with the tree of
    /// `onto` makes `fork` the merge base. `merge-tree --merge-base` does the same, but only since git 2.40.
    fn commit_onto(&self, tip: &str, fork: &str, onto: &str) -> Result<Option<String>, CommandError> {
        let stand_in = self.commit(&format!("{onto}^{{tree}}"), fork)?;
        match self.merge(&stand_in, tip)? {
            Some(result) if result.conflicts.is_empty() => Ok(Some(self.commit(&result.tree, onto)?)),
            _ => Ok(None),
        }
    }

    fn commit(&self, tree: &str, parent: &str) -> Result<String, CommandError> {
        let git = CommitIdentity::fallback().commit_as(in_scratch(self.repo, self.target, self.scratch));
        git.commit_tree(tree, &[parent], "computed by the conflict radar").text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::radar::{merge_base, merge_pairs, scratch};
    use crate::git::testing::Fixture;

    const LINES: &str = "1\n2\n3\n4\n5\n6\n7\n8\n9\n";

    /// A branch `old` from the first commit, and a branch `new` from a later commit of main.
    struct Diverged {
        fixture: Fixture,
        old: String,
        new: String,
    }

    impl Diverged {
        fn of(old: &[(&str, &str)], main: &[(&str, &str)], new: &[(&str, &str)]) -> Self {
            let fixture = Fixture::new();
            fixture.commit("list.txt", LINES);
            fixture.git(&["branch", "old"]);
            let commit = |branch: &str, files: &[(&str, &str)]| {
                fixture.git(&["checkout", "-q", branch]);
                files.iter().fold(fixture.git(&["rev-parse", "HEAD"]), |_, (path, text)| fixture.commit(path, text))
            };
            let old = commit("old", old);
            commit("main", main);
            fixture.git(&["branch", "new"]);
            let new = commit("new", new);
            fixture.git(&["checkout", "-q", "main"]);
            Self { fixture, old, new }
        }

        /// Returns the conflicts that git finds, and those that belong to the branches themselves.
        fn conflicts(&self) -> (Vec<String>, Option<Vec<String>>) {
            let (repo, scratch) = (&self.fixture.repo, scratch().unwrap());
            let pair = (self.old.clone(), self.new.clone());
            let whole = merge_pairs(repo, "main", std::slice::from_ref(&pair), scratch.path()).unwrap().remove(0);
            let main = self.fixture.git(&["rev-parse", "main"]);
            let forks = [&self.old, &self.new].map(|tip| merge_base(repo, &main, tip).unwrap().unwrap());
            let before = self.fixture.git(&["count-objects", "-v"]);
            let own = own_conflicts(repo, "main", &pair, (&forks[0], &forks[1]), scratch.path()).unwrap();
            assert_eq!(self.fixture.git(&["count-objects", "-v"]), before, "nothing is kept of it");
            (whole.unwrap().conflicts, own)
        }
    }

    fn changed(line: usize, text: &str) -> String {
        LINES.replace(&format!("{line}\n"), &format!("{text}\n"))
    }

    #[test]
    fn changes_inherited_from_main_are_not_own() {
        let (whole, own) = Diverged::of(
            &[("list.txt", &changed(2, "old"))],
            &[("list.txt", &changed(2, "main"))],
            &[("new.txt", "x\n")],
        )
        .conflicts();
        assert_eq!((whole, own), (vec!["list.txt".to_owned()], Some(vec![])));
    }

    #[test]
    fn separate_changes_in_one_file_do_not_conflict() {
        let main = changed(2, "main");
        let diverged = Diverged::of(
            &[("list.txt", &changed(2, "old"))],
            &[("list.txt", &main)],
            &[("list.txt", &main.replace("8\n", "new\n"))],
        );
        assert_eq!(diverged.conflicts(), (vec!["list.txt".to_owned()], Some(vec![])));
    }

    #[test]
    fn own_conflicts_remain_beside_those_with_main() {
        let main = changed(2, "main");
        let old = changed(2, "old").replace("8\n", "old\n");
        let diverged =
            Diverged::of(&[("list.txt", &old)], &[("list.txt", &main)], &[("list.txt", &main.replace("8\n", "new\n"))]);
        assert_eq!(diverged.conflicts(), (vec!["list.txt".to_owned()], Some(vec!["list.txt".to_owned()])));
    }

    #[test]
    fn changes_reverted_on_main_are_not_own() {
        let fixture = Diverged::of(
            &[("list.txt", &changed(2, "old"))],
            &[("list.txt", &changed(2, "main"))],
            &[("new.txt", "x\n")],
        );
        fixture.fixture.commit("list.txt", LINES);
        assert_eq!(fixture.conflicts(), (vec!["list.txt".to_owned()], Some(vec![])));
    }

    #[test]
    fn inseparable_changes_have_no_answer() {
        let diverged = Diverged::of(
            &[("list.txt", &changed(2, "old"))],
            &[("list.txt", &changed(2, "main"))],
            &[("list.txt", &changed(2, "new"))],
        );
        assert_eq!(diverged.conflicts(), (vec!["list.txt".to_owned()], None));
    }
}
