//! Reads the configuration that a repository has now, by the git program. What it can make git run is in
//! [`super::configuration`].

use std::path::{Path, PathBuf};

use super::command::{CommandError, own_settings};
use super::configuration::{Configuration, OF_WORKTREES, counts, hash_of_own_file};
use super::layout::{MADE_FILE, folders, linked_git_dirs, worktree_of};
use super::repository::Repository;

impl Configuration {
    pub fn of(repo: &Repository) -> Result<Configuration, CommandError> {
        if let Some(same) = as_before(repo) {
            return Ok(same);
        }
        let own_file = hash_of_own_file(&repo.common_dir);
        let own = own_settings(&repo.checkout())?.into_iter().filter(|(name, _)| counts(name));
        let of_worktrees = settings_of_others_worktrees(repo)?;
        Ok(Configuration::new(own.chain(of_worktrees), own_file, &repo.common_dir))
    }
}

/// Returns the trusted configuration if the settings are surely the same, with the files as they are now.
fn as_before(repo: &Repository) -> Option<Configuration> {
    let folders = folders(repo.root())?;
    let before = repo.trust.before(&folders.common)?;
    let none_of_worktrees = !before.has_settings_of_worktrees() && others_worktrees(repo).next().is_none();
    let same = none_of_worktrees && before.is_surely_unchanged(&folders);
    same.then(|| before.with_files_of(&repo.common_dir))
}

/// Returns the worktree-specific settings of linked worktrees that this program did not create, except those of a
/// sparse checkout. A worker can write these settings too.
fn settings_of_others_worktrees(repo: &Repository) -> Result<Vec<(String, String)>, CommandError> {
    const SPARSE: [&str; 3] = ["core.sparsecheckout", "core.sparsecheckoutcone", "index.sparse"];
    let mut found = Vec::new();
    for folder in others_worktrees(repo) {
        let file = folder.join("config.worktree");
        let listed = repo.read().args(["config", "--includes", "--list", "-z", "--file"]).arg(file).run()?;
        let listed = String::from_utf8_lossy(&listed);
        let settings = listed.split_terminator('\0').map(|it| it.split_once('\n').unwrap_or((it, "")));
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // These two settings may come from `put_in_place`, which makes git work on the worktree itself.
        let own = worktree_of(&folder).unwrap_or_default();
        let is_ours = |(setting, value): &(&str, &str)| match *setting {
            "core.worktree" => Path::new(value) == own,
            "core.bare" => *value == "false",
            _ => false,
        };
        let others = settings.filter(|it| !SPARSE.contains(&it.0) && !is_ours(it));
        found.extend(others.map(|(setting, value)| (format!("{OF_WORKTREES}{name}: {setting}"), value.to_owned())));
    }
    Ok(found)
}

/// Git's folders of the worktrees that are not ours and have settings of their own.
fn others_worktrees(repo: &Repository) -> impl Iterator<Item = PathBuf> {
    linked_git_dirs(&repo.common_dir)
        .filter(|folder| !folder.join(MADE_FILE).exists() && folder.join("config.worktree").is_file())
}

#[cfg(test)]
mod tests;
