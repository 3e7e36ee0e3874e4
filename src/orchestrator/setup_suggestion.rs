//! The suggestion of a `setup_command`, for a repository whose new worktrees lack what its main checkout has installed.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::context::Context;
use crate::config::Settings;
use crate::git::{self, Repository, SetupSuggestion};
use crate::mission::create::{Draft, DraftPlace};

/// Time limit for each call of git. In a checkout where git takes longer, nothing is suggested.
const LIMIT: Duration = Duration::from_secs(2);

/// Returns the suggestion for a repository, unless the settings name a command for it. Blocks.
pub fn suggested_setup(repository: &Repository, settings: &Settings) -> Option<SetupSuggestion> {
    let remotes = || git::remote_urls(repository).unwrap_or_default();
    if settings.setup(repository.root(), remotes).command.is_some() {
        return None;
    }
    git::suggested_setup(repository, LIMIT).unwrap_or_else(|error| {
        tracing::debug!(%error, "cannot determine whether worktrees need a setup");
        None
    })
}

/// Returns a note for the boss if one of these missions gets a worktree without a setup. A server gives it once.
pub(super) fn note<'a>(context: &Context, mut drafts: impl Iterator<Item = &'a Draft>) -> Option<String> {
    let repository = context.repository.as_ref()?;
    let lacks_setup =
        |draft: &Draft| draft.setup_command.is_none() && matches!(draft.place, DraftPlace::Worktree { .. });
    if !drafts.any(lacks_setup) || context.caches.suggested_setup.swap(true, Ordering::Relaxed) {
        return None;
    }
    let SetupSuggestion { command, creates } = suggested_setup(repository, &context.settings)?;
    let creates = creates.join(", ");
    Some(format!(
        "new worktrees lack {creates}, which the main checkout has: give missions setup_command {command:?}, or have the user set it in the settings"
    ))
}
