//! The identity for commits: git's own, or a default one if git has none.

use serde::{Deserialize, Serialize};

use super::command::{CommandError, Git};
use super::trust::Checkout;

/// Name and e-mail address that commits carry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitIdentity {
    pub name: String,
    pub email: String,
}

impl CommitIdentity {
    /// Returns the identity for commits that must be made although git has none.
    pub fn fallback() -> CommitIdentity {
        CommitIdentity { name: "orchestrator-boss".to_owned(), email: "orchestrator-boss@localhost".to_owned() }
    }

    pub(super) fn commit_as(&self, git: Git) -> Git {
        git.env("GIT_AUTHOR_NAME", &self.name)
            .env("GIT_AUTHOR_EMAIL", &self.email)
            .env("GIT_COMMITTER_NAME", &self.name)
            .env("GIT_COMMITTER_EMAIL", &self.email)
    }
}

/// Returns the identity that git would commit with in `dir`, `None` if it would refuse to.
pub(super) fn identity(dir: &Checkout) -> Result<Option<CommitIdentity>, CommandError> {
    let author = Git::read(dir).args(["var", "GIT_AUTHOR_IDENT"]).output()?;
    let committer = Git::read(dir).args(["var", "GIT_COMMITTER_IDENT"]).output()?;
    if author.code != Some(0) || committer.code != Some(0) {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&author.stdout).into_owned();
    Ok(text.split_once(" <").and_then(|(name, rest)| {
        let (email, _) = rest.split_once('>')?;
        Some(CommitIdentity { name: name.to_owned(), email: email.to_owned() })
    }))
}

/// Returns whether git could commit in a directory, in a repository or not.
pub fn has_identity(dir: &Checkout) -> bool {
    identity(dir).is_ok_and(|identity| identity.is_some())
}

/// Runs a call that commits, with the user's identity or, where git has none, with `fallback`. Git is not asked for the
/// identity beforehand, because that would cost every commit two more starts of it.
pub(super) fn commit_with(
    dir: &Checkout,
    fallback: &CommitIdentity,
    call: impl Fn(Git) -> Git,
) -> Result<String, CommandError> {
    match call(Git::write(dir)).text() {
        Err(CommandError::Failed { .. }) if identity(dir)?.is_none() => {
            call(fallback.commit_as(Git::write(dir))).text()
        }
        answer => answer,
    }
}
