//! The repository that a state directory belongs to, opened with the trust that its records allow.

use std::path::Path;

use crate::git::{Repository, RepositoryError, Trust};

/// Opens the repository that a state directory belongs to. Git calls there use the configuration from before the first
/// worker.
pub fn own_repository(root: &Path, state_root: &Path) -> Result<Option<Repository>, RepositoryError> {
    let found = Repository::discover(root, &Trust::nothing())?;
    Ok(found.map(|it| with_recorded_trust(it, state_root)))
}

/// Returns the same repository, trusted as far as the records in its state directory say.
pub(super) fn with_recorded_trust(repository: Repository, state_root: &Path) -> Repository {
    let trust = Trust::recorded(state_root, Some(&repository.common_dir));
    repository.trusting(trust)
}
