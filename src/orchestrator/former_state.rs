//! State that an earlier version of orchestrator-boss, with an older format, left in a state directory. It is set
//! aside, and a message names the branches, worktrees and salvage refs that stay in the repository.

use super::context::Context;
use super::error::OrchestratorError;
use crate::attempt::state_dir::StateDir;
use crate::git::{self, Repository};
use crate::mission::id::WorkerId;
use crate::store::former_format::{self, Remains};

/// Sets state of a former format aside. Does nothing where there is none.
pub(super) fn set_aside(context: &Context, dir: &StateDir) -> Result<(), OrchestratorError> {
    let remains = || context.repository.as_ref().map(remains).unwrap_or_default();
    former_format::set_aside(dir, remains)?;
    Ok(())
}

/// Returns the branches, worktrees and salvage refs that carry the id of a worker. What git cannot list is left out.
fn remains(repository: &Repository) -> Remains {
    let refs = |below: &str| {
        let listed = repository.read().args(["for-each-ref", "--format=%(refname)", below]).text();
        let short = |name: &str| name.strip_prefix("refs/heads/").unwrap_or(name).to_owned();
        listed.unwrap_or_default().lines().map(short).collect::<Vec<String>>()
    };
    let worktrees = git::list(repository).unwrap_or_default().into_iter().map(|it| it.path.display().to_string());
    let is_of_worker = |name: &String| WorkerId::number_in(name.rsplit('/').next().unwrap_or_default()).is_some();
    Remains {
        branches: refs("refs/heads").into_iter().filter(is_of_worker).collect(),
        worktrees: worktrees.filter(is_of_worker).collect(),
        salvage_refs: refs("refs/orchestrator/salvage"),
    }
}
