//! Reads and replaces clients' files. A replacement keeps the mode of a file and follows links to it.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::SetupError;
use super::syntax_error::SyntaxError;

/// Maximum size of a settings file in bytes.
const LARGEST: u64 = 64 << 20;

/// Follows links to a file, which may not exist yet: users link to settings that they keep elsewhere.
pub fn real(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    // No system follows more links than this.
    for _ in 0..40 {
        let Ok(target) = fs::read_link(&path) else { break };
        path = path.parent().map_or(target.clone(), |folder| folder.join(&target));
    }
    path
}

/// Reads a file; `None` if it does not exist.
pub fn read(path: &Path) -> Result<Option<String>, SetupError> {
    let fail = |source| SetupError::Read { path: path.to_owned(), source };
    match fs::metadata(path) {
        Ok(found) if !found.is_file() || found.len() > LARGEST => {
            return Err(fail(io::Error::new(io::ErrorKind::InvalidData, "not a settings file")));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error)),
    }
    let text = String::from_utf8(fs::read(path).map_err(fail)?).map_err(|error| {
        let valid = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]).into_owned();
        let damage = SyntaxError::at(&valid, valid.len(), "invalid UTF-8".into());
        SetupError::Damaged { path: path.to_owned(), damage }
    })?;
    Ok(Some(text))
}

/// Replaces the file at once and whole, and returns the folders that had to be created, the outermost first. `shared`:
/// a new file is for other_entries too; the user's own settings hold secrets.
pub fn write(path: &Path, content: &str, shared: bool) -> Result<Vec<PathBuf>, SetupError> {
    let path = real(path);
    let fail = |source| SetupError::Write { path: path.clone(), source };
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut created: Vec<PathBuf> = folder.ancestors().take_while(|it| !it.exists()).map(Path::to_owned).collect();
    created.reverse();
    fs::create_dir_all(folder).map_err(fail)?;
    let mode = match OpenOptions::new().append(true).open(&path) {
        // Opened for writing, so that a write-protected file is not replaced.
        Ok(file) => Some(file.metadata().map_err(fail)?.permissions().mode() & 0o7777),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(fail(error)),
    };
    let fresh = Permissions::from_mode(if shared { 0o666 } else { 0o600 });
    let mut file = tempfile::Builder::new().prefix(".setup-").permissions(fresh).tempfile_in(folder).map_err(fail)?;
    file.write_all(content.as_bytes()).map_err(fail)?;
    if let Some(mode) = mode {
        file.as_file().set_permissions(Permissions::from_mode(mode)).map_err(fail)?;
    }
    file.as_file().sync_all().map_err(fail)?;
    file.persist(&path).map_err(|error| fail(error.error))?;
    Ok(created)
}

/// Removes a file that setup created, and its created folders if they are empty.
pub fn remove(path: &Path, created: &[PathBuf]) -> Result<(), SetupError> {
    fs::remove_file(real(path)).map_err(|source| SetupError::Write { path: path.to_owned(), source })?;
    for folder in created.iter().rev() {
        // A folder with other files stays.
        let _ = fs::remove_dir(folder);
    }
    Ok(())
}
