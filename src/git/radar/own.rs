//! Determines which part of a conflict between two branches comes from the branches themselves. A branch that started
//! at a newer commit of the target contains the target's changes too. Merged with an older branch, these conflict as if
//! they were the branch's own.

use std::path::Path;

use super::{CommitPair, MergeResult, alone, git, in_scratch};
use crate::git::command::CommandError;
use crate::git::repository::{Identity, Repository};

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
    let place = Place { repo, target, scratch };
    for (tip, fork, other, others_fork) in [(&pair.1, forks.1, &pair.0, forks.0), (&pair.0, forks.0, &pair.1, forks.1)]
    {
        let Some(moved) = place.transplant(tip, fork, others_fork)? else { continue };
        return Ok(place.merge(other, &moved)?.map(|tried| tried.conflicts));
    }
    Ok(None)
}

/// The repository and folder in which scratch merges are computed.
struct Place<'a> {
    repo: &'a Repository,
    target: &'a str,
    scratch: &'a Path,
}

impl Place<'_> {
    fn merge(&self, one: &str, other: &str) -> Result<Option<MergeResult>, CommandError> {
        alone(git(self.repo, self.target, self.scratch), &(one.to_owned(), other.to_owned()))
    }

    /// Creates a commit on top of `onto` with the changes between `fork` and `tip`. A stand-in commit with the tree of
    /// `onto` makes `fork` the merge base. `merge-tree --merge-base` does the same, but only since git 2.40.
    fn transplant(&self, tip: &str, fork: &str, onto: &str) -> Result<Option<String>, CommandError> {
        let stand_in = self.commit(&format!("{onto}^{{tree}}"), fork)?;
        match self.merge(&stand_in, tip)? {
            Some(tried) if tried.conflicts.is_empty() => Ok(Some(self.commit(&tried.tree, onto)?)),
            _ => Ok(None),
        }
    }

    fn commit(&self, tree: &str, parent: &str) -> Result<String, CommandError> {
        let us = Identity::fallback();
        in_scratch(self.repo, self.target, self.scratch)
            .env("GIT_AUTHOR_NAME", &us.name)
            .env("GIT_AUTHOR_EMAIL", &us.email)
            .env("GIT_COMMITTER_NAME", &us.name)
            .env("GIT_COMMITTER_EMAIL", &us.email)
            .args(["commit-tree", tree, "-p", parent, "-m", "tried by the conflict radar"])
            .text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::radar::{collisions, merge_base, scratch};
    use crate::git::testing::Fixture;

    const LINES: &str = "1\n2\n3\n4\n5\n6\n7\n8\n9\n";

    /// A branch `old` from the first commit, and a branch `new` from a later commit of main.
    struct Two {
        fixture: Fixture,
        old: String,
        new: String,
    }

    impl Two {
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
            let whole = collisions(repo, "main", std::slice::from_ref(&pair), scratch.path()).unwrap().remove(0);
            let main = self.fixture.git(&["rev-parse", "main"]);
            let forks = [&self.old, &self.new].map(|tip| merge_base(repo, &main, tip).unwrap().unwrap());
            let before = self.fixture.git(&["count-objects", "-v"]);
            let own = own_conflicts(repo, "main", &pair, (&forks[0], &forks[1]), scratch.path()).unwrap();
            assert_eq!(self.fixture.git(&["count-objects", "-v"]), before, "nothing is kept of it");
            (whole.unwrap(), own)
        }
    }

    fn changed(line: usize, text: &str) -> String {
        LINES.replace(&format!("{line}\n"), &format!("{text}\n"))
    }

    #[test]
    fn what_a_newer_branch_has_of_main_is_not_its_own() {
        let (whole, own) =
            Two::of(&[("list.txt", &changed(2, "old"))], &[("list.txt", &changed(2, "main"))], &[("new.txt", "x\n")])
                .conflicts();
        assert_eq!((whole, own), (vec!["list.txt".to_owned()], Some(vec![])));
    }

    #[test]
    fn a_change_elsewhere_in_the_same_file_is_no_conflict_of_its_own() {
        let main = changed(2, "main");
        let two = Two::of(
            &[("list.txt", &changed(2, "old"))],
            &[("list.txt", &main)],
            &[("list.txt", &main.replace("8\n", "new\n"))],
        );
        assert_eq!(two.conflicts(), (vec!["list.txt".to_owned()], Some(vec![])));
    }

    #[test]
    fn a_conflict_of_their_own_stays_beside_that_with_main() {
        let main = changed(2, "main");
        let old = changed(2, "old").replace("8\n", "old\n");
        let two =
            Two::of(&[("list.txt", &old)], &[("list.txt", &main)], &[("list.txt", &main.replace("8\n", "new\n"))]);
        assert_eq!(two.conflicts(), (vec!["list.txt".to_owned()], Some(vec!["list.txt".to_owned()])));
    }

    #[test]
    fn what_main_took_back_is_nobodys() {
        let fixture =
            Two::of(&[("list.txt", &changed(2, "old"))], &[("list.txt", &changed(2, "main"))], &[("new.txt", "x\n")]);
        fixture.fixture.commit("list.txt", LINES);
        assert_eq!(fixture.conflicts(), (vec!["list.txt".to_owned()], Some(vec![])));
    }

    #[test]
    fn changes_that_need_each_others_beginning_cannot_be_told_apart() {
        let two = Two::of(
            &[("list.txt", &changed(2, "old"))],
            &[("list.txt", &changed(2, "main"))],
            &[("list.txt", &changed(2, "new"))],
        );
        assert_eq!(two.conflicts(), (vec!["list.txt".to_owned()], None));
    }
}
