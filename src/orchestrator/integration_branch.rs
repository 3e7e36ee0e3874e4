//! The integration branch, where work starts and is merged. Each boss has one: the branch that is checked out in its
//! server's working tree when it creates its first worker. Each worker records it. The setting takes precedence over
//! both.

use super::answers::Base;
use super::context::Context;
use super::error::OrchestratorError;
use crate::git::{self, Checkout, Repository, RepositoryError, names};
use crate::mission::registry::Worker;

/// Returns the branch that a worker's work starts from and is merged into: the one that is set, or else the worker's
/// own. `None` if there is none.
pub(super) fn of_worker(set: Option<&str>, worker: Option<&Worker>) -> Option<String> {
    let own = || worker.and_then(|worker| worker.integration_branch.as_deref());
    set.or_else(own).map(str::to_owned)
}

/// Determines where the next workers of a boss start, or why that is unknown. Blocks.
pub(super) fn determine(context: &Context, recorded: Option<String>) -> Result<Base, OrchestratorError> {
    let mut base = branch_of(context, recorded)?;
    let own = context.subfolder();
    if !own.as_os_str().is_empty() && !git::has_folder(context.repository()?, &base.commit, own) {
        let top =
            format!("{} is not in {}: your workers start at the top of their worktrees", own.display(), base.branch);
        base.note = Some([base.note, Some(top)].into_iter().flatten().collect::<Vec<_>>().join("; "));
    }
    Ok(base)
}

fn branch_of(context: &Context, recorded: Option<String>) -> Result<Base, OrchestratorError> {
    let repository = context.repository()?;
    if let Some(branch) = &context.settings.integration_branch {
        return Ok(set_by_user(repository, names::branch_name(branch))?);
    }
    let tree = &context.checkout();
    let here = git::checked_out(tree)?;
    let Some(branch) = recorded else { return Ok(first(repository, tree, here)?) };
    let commit = git::integrate::local_tip(repository, &branch)
        .map_err(|_| repository.no_such_branch(&branch, ", from which this boss's workers start"))?;
    let note = (here.as_ref() != Some(&branch)).then(|| {
        let now = here.map_or_else(|| "no branch (HEAD is detached)".to_owned(), |here| format!("branch {here}"));
        format!(
            "{} is on {now} now; your workers still start from {branch} and are merged into it, as your first one was: name another with `base` and `into`",
            tree.display()
        )
    });
    Ok(Base { branch, commit, note })
}

fn set_by_user(repository: &Repository, branch: &str) -> Result<Base, RepositoryError> {
    names::adopt(repository, branch)?;
    match names::tip(repository, branch)? {
        Some(commit) => Ok(Base { branch: branch.to_owned(), commit, note: None }),
        None => Err(repository.no_such_branch(branch, ", which the setting integration_branch names")),
    }
}

fn first(repository: &Repository, tree: &Checkout, here: Option<String>) -> Result<Base, RepositoryError> {
    let branch = here.ok_or_else(|| RepositoryError::Detached { root: tree.to_path_buf() })?;
    let commit = repository.commit_checked_out(tree, &branch)?;
    Ok(Base { branch, commit, note: None })
}

/// Returns the same as [`checked_out`] without starting git, for the actor's thread. `None` where only git knows it.
pub(super) fn checked_out_at_a_glance(context: &Context) -> Option<String> {
    let set = context.settings.integration_branch.as_deref();
    set.map(|branch| names::branch_name(branch).to_owned()).or_else(|| git::checked_out_at_a_glance(context.tree()))
}

/// Returns the target branch for work without a recorded one.
pub(super) fn checked_out(context: &Context) -> Result<String, OrchestratorError> {
    if let Some(branch) = &context.settings.integration_branch {
        return Ok(names::branch_name(branch).to_owned());
    }
    let tree = &context.checkout();
    let here = git::checked_out(tree)?;
    here.ok_or_else(|| RepositoryError::Detached { root: tree.to_path_buf() }.into())
}
