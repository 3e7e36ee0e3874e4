//! What changed, from git: for the outcome record, and for a worker whose supervisor died.

use std::path::Path;

use super::assignment::Assignment;
use crate::git;
use crate::mission::causes::with_causes;
use crate::mission::outcome::Changes;

/// As many paths as a record names.
const NAMED_FILES: usize = 50;

/// Never fails: what cannot be told is said in the notes. Blocks.
pub fn changes(assignment: &Assignment) -> Changes {
    let Some(base) = &assignment.base_commit else {
        return Changes {
            notes: vec!["not in a git repository: changes are not counted".to_owned()],
            ..Changes::default()
        };
    };
    counted(git::changes(&assignment.directory, base))
}

/// The same for a worktree that is gone: what was committed there is on its branch. `common` is the repository's git
/// directory.
pub fn branch_changes(assignment: &Assignment, common: &Path) -> Changes {
    match (&assignment.base_commit, assignment.mission.place.branch()) {
        (Some(base), Some(branch)) => counted(git::branch_changes(common, branch, base)),
        _ => Changes::default(),
    }
}

fn counted(changes: Result<git::Changes, git::RepositoryError>) -> Changes {
    match changes {
        Ok(changes) => Changes {
            branch: changes.branch,
            base_commit: Some(changes.base),
            head: Some(changes.head),
            commits: changes.commits as u32,
            files_changed: changes.files_changed as u32,
            insertions: changes.insertions as u32,
            deletions: changes.deletions as u32,
            files: changes.files.into_iter().take(NAMED_FILES).map(|file| file.path).collect(),
            uncommitted: changes.uncommitted as u32,
            ..Changes::default()
        },
        Err(error) => {
            Changes { notes: vec![format!("changes could not be read: {}", with_causes(&error))], ..Changes::default() }
        }
    }
}
