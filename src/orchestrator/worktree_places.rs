//! The default place of worktrees: beside the repository. Tools that search parent folders (node_modules, go.work,
//! .cargo) then find nothing of the user's checkout. Tools that walk the checkout do not find the worktrees. If they
//! cannot be beside it, they are in the user's data directory.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use rustix::fs::Access;

use crate::attempt::state_dir;
use crate::git::{self, Repository};

/// Names that tools look for in the folders above their own.
const MARKERS: [&str; 4] = [".git", "package.json", "Cargo.toml", "go.work"];

/// The inputs that determine the place of worktrees.
#[derive(Debug, Clone, Copy)]
pub struct Around<'a> {
    pub repository: &'a Repository,
    pub state_root: &'a Path,
    /// The setting `worktrees_dir`.
    pub template: Option<&'a str>,
}

/// Returns the folder in which new worktrees are created.
pub fn worktrees_folder(around: Around<'_>) -> PathBuf {
    let home = etcetera::home_dir().ok();
    real(&match around.template {
        Some(template) => filled(around, template, home.as_deref()),
        None => beside(around).filter(|folder| is_usable(folder, home.as_deref())).unwrap_or_else(|| in_data(around)),
    })
}

/// Checks that worktrees can be created in a folder. Creates and removes a scratch folder in it, or in the nearest one
/// above it that exists.
pub fn check_folder(folder: &Path) -> io::Result<()> {
    let nearest = folder.ancestors().find(|above| above.symlink_metadata().is_ok()).unwrap_or(folder);
    tempfile::Builder::new().prefix(".orchestrator-boss-").tempdir_in(nearest)?.close()
}

/// Resolves symbolic links, as git does. The part that does not exist yet stays as it is.
fn real(path: &Path) -> PathBuf {
    let known = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    known.map_or_else(
        || path.to_owned(),
        |(above, real)| match path.strip_prefix(above) {
            Ok(rest) if !rest.as_os_str().is_empty() => real.join(rest),
            _ => real,
        },
    )
}

/// Returns all folders that may contain worktrees of this state: the current one, and all default ones.
pub fn all_folders(around: Around<'_>) -> Vec<PathBuf> {
    let mut folders = vec![worktrees_folder(around), in_data(around), around.state_root.join(state_dir::WORKTREES)];
    folders.extend(beside(around));
    let mut folders: Vec<PathBuf> = folders.iter().map(|folder| real(folder)).collect();
    folders.sort();
    folders.dedup();
    folders
}

fn beside(around: Around<'_>) -> Option<PathBuf> {
    let root = around.repository.root();
    let mut name = root.file_name()?.to_owned();
    name.push(".worktrees");
    if !has_default_state(around) {
        name.push("-");
        name.push(short_id(around));
    }
    Some(root.parent()?.join(name))
}

fn in_data(around: Around<'_>) -> PathBuf {
    let root = around.repository.root();
    // A name may have 255 bytes in all; the id alone is unique.
    let mut name: OsString =
        root.file_name().filter(|name| name.len() <= 200).unwrap_or("long-name".as_ref()).to_owned();
    name.push("-");
    name.push(short_id(around));
    let data = etcetera::base_strategy::Xdg::new().map(|base| base.data_dir());
    // Only the state directory is known to be writable if there is no home directory.
    let data = data.map_or_else(|_| around.state_root.to_owned(), |data| data.join("orchestrator-boss"));
    data.join(state_dir::WORKTREES).join(name)
}

/// Expands the setting. `{repository}` is the name of the repository's folder, and `{id}` a short id of the state
/// directory. A subfolder with both is appended if two repositories could share the folder. A relative path starts at
/// the root of the repository.
fn filled(around: Around<'_>, template: &str, home: Option<&Path>) -> PathBuf {
    let root = around.repository.root();
    let repository = root.file_name().unwrap_or_default().to_string_lossy();
    let text = template.replace("{repository}", &repository).replace("{id}", &short_id(around));
    let path = match (text.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => root.join(&text),
    };
    let is_own = template.contains("{id}")
        || has_default_state(around) && !Path::new(&text).is_absolute() && !text.starts_with("~/");
    let path = if is_own { path } else { path.join(format!("{repository}-{}", short_id(around))) };
    plain(&path)
}

/// Removes `.` and `..`. Parts that do not exist yet are resolved by name alone.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                plain = plain.canonicalize().unwrap_or(plain);
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}

fn has_default_state(around: Around<'_>) -> bool {
    real(around.state_root) == real(around.repository.root()).join(state_dir::NAME)
}

/// Returns a short id of the state directory, since each one counts worker ids by itself.
fn short_id(around: Around<'_>) -> String {
    git::short_hash(real(around.state_root).as_os_str().as_encoded_bytes())
}

/// Returns whether a folder belongs to this user, and not everybody can replace what is in it. Its group may write:
/// many systems give each user a group of their own, and let it write to new folders.
fn is_ours(folder: &Path) -> bool {
    let (others_write, sticky) = (0o002, 0o1000);
    folder.metadata().is_ok_and(|found| {
        let mode = found.mode();
        found.uid() == rustix::process::getuid().as_raw() && (mode & others_write == 0 || mode & sticky != 0)
    })
}

/// Returns whether the folder is ours or can be created, and is not in a project.
fn is_usable(folder: &Path, home: Option<&Path>) -> bool {
    let is_writable =
        |path: &Path| path.is_dir() && rustix::fs::access(path, Access::WRITE_OK | Access::EXEC_OK).is_ok();
    let real = match folder.symlink_metadata() {
        Ok(_) => folder.canonicalize().ok().filter(|real| is_writable(real) && is_ours(real)),
        // The name may be too long.
        Err(error) if error.kind() != io::ErrorKind::NotFound => None,
        Err(_) => folder
            .parent()
            .filter(|parent| is_writable(parent))
            .and_then(|parent| parent.canonicalize().ok())
            .map(|parent| parent.join(folder.file_name().unwrap_or_default())),
    };
    real.is_some_and(|real| !is_in_a_project(&real, home))
}

/// Returns whether the folder, or one above it below the home, is a project.
fn is_in_a_project(folder: &Path, home: Option<&Path>) -> bool {
    let home = home.and_then(|home| home.canonicalize().ok());
    let above = folder.ancestors().take_while(|above| Some(*above) != home.as_deref());
    above.into_iter().any(|above| MARKERS.iter().any(|marker| is_marker(&above.join(marker))))
}

/// Returns whether a marker exists. Codex's sandbox leaves an empty folder `.git` in folders that a worker may write.
/// Git ignores it, so an empty folder does not count.
fn is_marker(path: &Path) -> bool {
    let is_empty_folder = || path.read_dir().is_ok_and(|mut entries| entries.next().is_none());
    path.symlink_metadata().is_ok() && !is_empty_folder()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Case {
        _folder: tempfile::TempDir,
        root: PathBuf,
        repository: Repository,
    }

    fn repository(root: &Path) -> Repository {
        let trust = git::Trust::nothing();
        Repository { common_dir: root.join(".git"), main_worktree: Some(root.to_owned()), trust }
    }

    impl Case {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path().canonicalize().unwrap().join("deep/er/repo");
            fs::create_dir_all(&root).unwrap();
            let repository = repository(&root);
            Self { _folder: folder, root, repository }
        }

        fn folder(&self, template: Option<&str>) -> PathBuf {
            self.with_state(&self.root.join(".orchestrator"), template)
        }

        fn with_state(&self, state_root: &Path, template: Option<&str>) -> PathBuf {
            worktrees_folder(Around { repository: &self.repository, state_root, template })
        }

        fn beside(&self) -> PathBuf {
            self.root.with_file_name("repo.worktrees")
        }

        fn is_in_data(&self) -> bool {
            let found = self.folder(None);
            found.to_string_lossy().contains("orchestrator-boss/worktrees/repo-")
        }
    }

    #[test]
    fn worktrees_are_beside_the_repository() {
        let case = Case::new();
        assert_eq!(case.folder(None), case.beside());
        fs::create_dir(case.beside()).unwrap();
        assert_eq!(case.folder(None), case.beside());
        let other = case.with_state(&case.root.join("other"), None);
        assert!(other.to_string_lossy().contains("/repo.worktrees-"), "{other:?}");
        assert_ne!(other, case.with_state(&case.root.join("third"), None));
    }

    #[test]
    fn nested_repository_uses_the_data_directory() {
        for marker in MARKERS {
            for depth in [1, 2] {
                let case = Case::new();
                let above = case.root.ancestors().nth(depth).unwrap();
                fs::write(above.join(marker), "").unwrap();
                assert!(case.is_in_data(), "{marker} {depth}");
            }
        }
        let case = Case::new();
        fs::create_dir(case.root.parent().unwrap().join(".git")).unwrap();
        assert_eq!(case.folder(None), case.beside(), "an empty folder is no repository");
        // Markers in the repository itself are beside the worktrees, not above them.
        fs::write(case.root.join("package.json"), "").unwrap();
        assert_eq!(case.folder(None), case.beside());
    }

    #[test]
    fn project_folder_is_not_used() {
        for marker in MARKERS {
            let case = Case::new();
            fs::create_dir(case.beside()).unwrap();
            fs::write(case.beside().join(marker), "").unwrap();
            assert!(case.is_in_data(), "{marker}");
        }
    }

    #[test]
    fn long_repository_name_leads_to_the_data_directory() {
        for length in [245, 246, 255] {
            let mut case = Case::new();
            case.root.set_file_name("r".repeat(length));
            fs::create_dir(&case.root).unwrap();
            case.repository = repository(&case.root);
            let folder = case.folder(None);
            let name = folder.file_name().unwrap();
            assert!(name.len() <= 255, "{length}: {folder:?}");
            assert_eq!(folder.to_string_lossy().contains("orchestrator-boss/worktrees/"), length > 245, "{folder:?}");
        }
    }

    #[test]
    fn projects_in_or_above_home_are_ignored() {
        let case = Case::new();
        let home = case.root.ancestors().nth(2).unwrap();
        fs::create_dir(home.join(".git")).unwrap();
        fs::write(home.parent().unwrap().join("package.json"), "").unwrap();
        assert!(is_usable(&case.beside(), Some(home)));
        assert!(!is_usable(&case.beside(), None));
        fs::write(case.root.parent().unwrap().join("go.work"), "").unwrap();
        assert!(!is_usable(&case.beside(), Some(home)));
    }

    #[test]
    fn unwritable_parent_leads_to_the_data_directory() {
        let case = Case::new();
        fs::write(case.beside(), "a file").unwrap();
        assert!(case.is_in_data());
        let case = Case::new();
        // A symlink counts as its target.
        std::os::unix::fs::symlink("/nowhere/at/all", case.beside()).unwrap();
        assert!(case.is_in_data());
    }

    #[test]
    fn world_writable_folder_is_not_used() {
        use std::os::unix::fs::{PermissionsExt, chown};
        let case = Case::new();
        fs::create_dir(case.beside()).unwrap();
        for (mode, is_used) in [(0o755, true), (0o775, true), (0o777, false), (0o1777, true)] {
            fs::set_permissions(case.beside(), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(case.folder(None) == case.beside(), is_used, "{mode:o}");
        }
        if chown(case.beside(), Some(1), None).is_ok() {
            assert!(case.is_in_data(), "it belongs to another user");
        }
    }

    #[test]
    fn template_gives_each_repository_its_own_folder() {
        let case = Case::new();
        assert_eq!(case.folder(Some("../trees")), case.root.with_file_name("trees"));
        assert_eq!(case.folder(Some("../{repository}-wt")), case.root.with_file_name("repo-wt"));
        assert_eq!(case.folder(Some(".trees")), case.root.join(".trees"));
        let shared = case.folder(Some("/srv/trees"));
        assert!(shared.starts_with("/srv/trees/") && shared.to_string_lossy().contains("/repo-"), "{shared:?}");
        let named = case.folder(Some("/srv/{repository}.{id}"));
        assert!(named.to_string_lossy().starts_with("/srv/repo."), "{named:?}");
        assert_ne!(
            case.with_state(&case.root.join("a"), Some("../x")),
            case.with_state(&case.root.join("b"), Some("../x"))
        );
    }
}
