//! Small questions about refs and history, answered by libgit2: a start of git costs more than the answer.
//!
//! `None` is no answer: libgit2 cannot read here or found nothing, and the git program has to be asked. So an error is
//! always told in git's own words.

use git2::Oid;

use super::repository::Repository;

/// The commit at the tip of a local branch.
pub(super) fn branch_tip(repo: &Repository, branch: &str) -> Option<String> {
    let tip = open(repo)?.find_reference(&format!("refs/heads/{branch}")).ok()?.peel_to_commit().ok()?.id();
    Some(tip.to_string())
}

/// The commit that is checked out in the main worktree.
pub(super) fn head(repo: &Repository) -> Option<String> {
    Some(open(repo)?.head().ok()?.peel_to_commit().ok()?.id().to_string())
}

/// The branch that is checked out in the main worktree.
pub(super) fn checked_out(repo: &Repository) -> Option<String> {
    let opened = open(repo)?;
    let head = opened.find_reference("HEAD").ok()?;
    Some(head.symbolic_target().ok()??.strip_prefix("refs/heads/")?.to_owned())
}

/// Whether all of the one commit is in the other.
pub(super) fn is_ancestor(repo: &Repository, part: &str, whole: &str) -> Option<bool> {
    let (part, whole) = (Oid::from_str(part).ok()?, Oid::from_str(whole).ok()?);
    let repository = open(repo)?;
    // Git sees other parents than those where commits are replaced; libgit2 does not.
    if repository.references_glob("refs/replace/*").ok()?.next().is_some() {
        return None;
    }
    Some(part == whole || repository.graph_descendant_of(whole, part).ok()?)
}

fn open(repo: &Repository) -> Option<git2::Repository> {
    git2::Repository::open(repo.root()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::testing::Fixture;

    #[test]
    fn what_is_told_is_what_git_tells() {
        let fixture = Fixture::new();
        let first = fixture.git(&["rev-parse", "HEAD"]);
        fixture.git(&["branch", "work"]);
        let second = fixture.commit("readme.txt", "changed\n");
        assert_eq!((checked_out(&fixture.repo).as_deref(), head(&fixture.repo)), (Some("main"), Some(second.clone())));
        for packed in [false, true] {
            assert_eq!(branch_tip(&fixture.repo, "work"), Some(first.clone()), "{packed}");
            fixture.git(&["pack-refs", "--all"]);
        }
        let cases = [(&first, &second, true), (&second, &first, false), (&first, &first, true)];
        for (part, whole, expected) in cases {
            assert_eq!(is_ancestor(&fixture.repo, part, whole), Some(expected));
        }
    }

    #[test]
    fn what_git_would_see_otherwise_is_left_to_it() {
        let fixture = Fixture::new();
        let first = fixture.git(&["rev-parse", "HEAD"]);
        let second = fixture.commit("readme.txt", "changed\n");
        assert_eq!(branch_tip(&fixture.repo, "nothing"), None);
        assert_eq!(branch_tip(&fixture.repo, "main~1"), None);
        fixture.git(&["replace", "--graft", &second]);
        assert_eq!(is_ancestor(&fixture.repo, &first, &second), None);
        assert!(!crate::git::integrate::contains(&fixture.repo, &second, &first));
        fixture.git(&["checkout", "-q", "--detach"]);
        assert_eq!((checked_out(&fixture.repo), head(&fixture.repo)), (None, Some(second)));
    }
}
