//! Whether a directory really belongs to a repository. A worker can write the `.git` file of its worktree, and could
//! name the repository of another project there. It cannot write that repository's record of its worktrees.

use std::fs;
use std::path::Path;

use super::repository::Repository;

/// Returns the top of the working tree that this directory is in, if the repository itself says that it is one of its
/// own.
pub fn top_in<'a>(directory: &'a Path, repository: &Repository) -> Option<&'a Path> {
    let top = directory.ancestors().find(|folder| folder.join(".git").symlink_metadata().is_ok())?;
    is_top(top, repository).then_some(top)
}

fn is_top(top: &Path, repository: &Repository) -> bool {
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
        // A relative path counts from the record.
        .filter_map(|record| {
            Some(record.path().join(fs::read_to_string(record.path().join("gitdir")).ok()?.trim_end()))
        })
        .any(|recorded| recorded == link || recorded.canonicalize().is_ok_and(|recorded| recorded == link))
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
        let belongs_to = |directory: &Path, repository: &Repository| top_in(directory, repository).is_some();
        fs::create_dir(fixture.root().join("inner")).unwrap();
        assert_eq!(top_in(&fixture.root().join("inner"), &fixture.repo), Some(fixture.root()));
        assert!(belongs_to(fixture.root(), &fixture.repo));
        assert!(belongs_to(&made.path, &fixture.repo));
        assert!(!belongs_to(&made.path, &other.repo));
        fs::write(made.path.join(".git"), format!("gitdir: {}\n", other.repo.common_dir.display())).unwrap();
        assert!(!belongs_to(&made.path, &other.repo));
        assert!(!belongs_to(Path::new("/"), &fixture.repo));
    }
}
