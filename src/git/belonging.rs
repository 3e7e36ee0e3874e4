//! Whether a directory really belongs to a repository. A worker can write the `.git` file of its worktree, and could
//! name the repository of another project there. It cannot write that repository's record of its worktrees.

use std::fs;
use std::path::Path;

use super::repository::Repository;

/// Returns whether the repository itself says that this directory is in one of its working trees.
pub fn belongs_to(directory: &Path, repository: &Repository) -> bool {
    let Some(top) = directory.ancestors().find(|folder| folder.join(".git").symlink_metadata().is_ok()) else {
        return false;
    };
    let (link, common) = (top.join(".git"), repository.common_dir.as_path());
    match link.symlink_metadata() {
        Ok(found) if found.is_dir() => {
            link.canonicalize().is_ok_and(|real| real == *common) && !link.join("commondir").exists()
        }
        Ok(_) => has_worktree(common, &link) || has_submodule_at(common, top),
        Err(_) => false,
    }
}

/// Returns whether the repository has a linked worktree with this `.git` file.
fn has_worktree(common: &Path, link: &Path) -> bool {
    let records = fs::read_dir(common.join("worktrees")).into_iter().flatten().flatten();
    records
        .filter_map(|record| fs::read_to_string(record.path().join("gitdir")).ok())
        .any(|recorded| Path::new(recorded.trim_end()) == link)
}

/// Returns whether the configuration of the repository names this folder as its working tree, as that of a submodule
/// does.
fn has_submodule_at(common: &Path, top: &Path) -> bool {
    let configuration = fs::read_to_string(common.join("config")).unwrap_or_default();
    let named = configuration.lines().filter_map(|line| line.trim().strip_prefix("worktree")?.trim().strip_prefix('='));
    named.map(|path| common.join(path.trim())).any(|path| path.canonicalize().is_ok_and(|real| real == top))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::testing::Fixture;

    #[test]
    fn forged_link_belongs_to_no_repository() {
        let (fixture, other) = (Fixture::new(), Fixture::new());
        let made = fixture.worktree("work");
        assert!(belongs_to(fixture.root(), &fixture.repo));
        assert!(belongs_to(&made.path, &fixture.repo));
        assert!(!belongs_to(&made.path, &other.repo));
        fs::write(made.path.join(".git"), format!("gitdir: {}\n", other.repo.common_dir.display())).unwrap();
        assert!(!belongs_to(&made.path, &other.repo));
        assert!(!belongs_to(Path::new("/"), &fixture.repo));
    }
}
