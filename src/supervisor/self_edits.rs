//! Edits that a CLI makes in the project by itself: OpenCode completes its configuration file when it reads it. They
//! are not the worker's edits, so they are undone: as soon as the CLI has begun, and again at the end of its turn.

use std::fs;
use std::path::{Path, PathBuf};

use crate::backend::Backend;
use crate::files;

/// The files that the CLI may edit by itself, as they were before it started.
#[derive(Debug, Default)]
pub(super) struct SelfEdits {
    before: Vec<(PathBuf, String)>,
}

impl SelfEdits {
    /// Reads the files in the directory and in its parents, up to the root of its worktree.
    pub fn before(backend: &dyn Backend, directory: &Path) -> Self {
        let root = directory.ancestors().find(|folder| folder.join(".git").symlink_metadata().is_ok());
        let folders =
            directory.ancestors().take_while(|folder| root.map_or(*folder == directory, |it| folder.starts_with(it)));
        let files = folders.flat_map(|folder| backend.self_edited_files().iter().map(|name| folder.join(name)));
        let text_of = |path: PathBuf| fs::read_to_string(&path).ok().map(|text| (path, text));
        Self { before: files.filter_map(text_of).collect() }
    }

    /// Reverts the CLI's own edits. Edits of the worker stay.
    pub fn undo(&self, backend: &dyn Backend) {
        for (path, before) in &self.before {
            let Some(now) = fs::read_to_string(path).ok().filter(|now| now != before) else { continue };
            let Some(without) = backend.without_self_edit(before, &now) else { continue };
            if let Err(error) = files::replace_users_own(path, without.as_bytes()) {
                tracing::warn!(path = %path.display(), %error, "cannot undo an edit that the CLI made by itself");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::backend::OpenCode;

    #[test]
    fn restored_file_keeps_mode_and_link() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real.json"), folder.path().join("opencode.json"));
        fs::write(&real, "{}").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&real, &link).unwrap();
        let edits = SelfEdits::before(&OpenCode, folder.path());
        let edited = "{\n  \"$schema\": \"https://opencode.ai/config.json\",}";
        fs::write(&real, edited).unwrap();
        let mut open = fs::File::open(&real).unwrap();
        edits.undo(&OpenCode);
        let mut read = String::new();
        open.read_to_string(&mut read).unwrap();
        assert_eq!(read, edited, "the old content stays whole until the new one is in its place");
        assert_eq!((fs::read_to_string(&real).unwrap().as_str(), fs::read_link(&link).unwrap()), ("{}", real.clone()));
        assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary file is left");
    }
}
