//! Atomic files: whole or absent at every instant, also after a crash. They are written to a temporary file, synced and
//! renamed.

pub mod disk;
pub mod lease;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::crash_point::{self, Moment};
use crate::mission::hint::{Hint, Hinted};

#[derive(Debug, Error)]
pub enum FileError {
    #[error("cannot write {}: no space left on its disk; nothing that was there before is lost", path.display())]
    NoSpace { path: PathBuf },
    #[error("cannot write {}: this user is not permitted to", path.display())]
    NotPermitted { path: PathBuf, source: io::Error },
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read {}: this user is not permitted to", path.display())]
    NotReadable { path: PathBuf, source: io::Error },
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot read {}: it is damaged: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("cannot write {}: it was written before and never changes", path.display())]
    Exists { path: PathBuf },
    #[error("cannot use {}: it was moved or removed, and nothing is created at its old place", path.display())]
    Gone { path: PathBuf },
    #[error("cannot use {}: it is not {expected} but something else, maybe a symbolic link, by which another user could redirect writes", path.display())]
    Foreign { path: PathBuf, expected: &'static str },
}

impl Hinted for FileError {
    fn hints(&self) -> Vec<Hint> {
        let other = || Hint::to("choose another folder with --state-dir");
        match self {
            Self::NoSpace { .. } => vec![Hint::to("free some space on that disk")],
            Self::NotPermitted { .. } => vec![Hint::to("check the owner and mode of its folder"), other()],
            Self::NotReadable { .. } => vec![Hint::to("check its owner and mode"), other()],
            Self::Foreign { .. } => vec![Hint::to("move it away"), other()],
            Self::Write { .. } | Self::Read { .. } | Self::Damaged { .. } | Self::Exists { .. } | Self::Gone { .. } => {
                Vec::new()
            }
        }
    }
}

impl FileError {
    pub fn write(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FileError::NoSpace { path },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                FileError::NotPermitted { path, source }
            }
            io::ErrorKind::AlreadyExists => FileError::Exists { path },
            _ => FileError::Write { path, source },
        }
    }

    pub fn read(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied => FileError::NotReadable { path, source },
            _ => FileError::Read { path, source },
        }
    }
}

/// Creates a folder and its parents, for its owner only.
pub fn make_private_dir(path: &Path) -> Result<(), FileError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| FileError::write(path, source))
}

/// Creates `base`, a folder within it, and the folders between them. The parent of `base` must exist, so that a state
/// directory that is being moved is not created again at its old path.
pub fn make_private_dir_within(base: &Path, folder: &Path) -> Result<(), FileError> {
    let between: Vec<&Path> = folder.ancestors().take_while(|it| it.starts_with(base)).collect();
    for folder in between.into_iter().rev() {
        match fs::DirBuilder::new().mode(0o700).create(folder) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(FileError::Gone { path: folder.parent().unwrap_or(folder).to_owned() });
            }
            Err(source) => return Err(FileError::write(folder, source)),
        }
    }
    Ok(())
}

/// Refuses anything but a folder at this path. A missing one is accepted.
pub fn refuse_no_folder(path: &Path) -> Result<(), FileError> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_dir() => Err(FileError::Foreign { path: path.to_owned(), expected: "a folder" }),
        _ => Ok(()),
    }
}

/// Refuses a folder that contains anything but files and folders. A missing one is accepted.
pub fn refuse_links_in(folder: &Path) -> Result<(), FileError> {
    refuse_no_folder(folder)?;
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(FileError::read(folder, source)),
    };
    for entry in entries {
        let entry = entry.map_err(|source| FileError::read(folder, source))?;
        // This does not follow links.
        let kind = entry.file_type().map_err(|source| FileError::read(&entry.path(), source))?;
        if !kind.is_file() && !kind.is_dir() {
            return Err(FileError::Foreign { path: entry.path(), expected: "a file" });
        }
    }
    Ok(())
}

/// Removes the permissions of all but the owner from an existing folder.
pub fn make_private(folder: &Path) -> Result<(), FileError> {
    let mode = fs::metadata(folder).map_err(|source| FileError::read(folder, source))?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(|source| FileError::write(folder, source))
}

/// Returns options for a file that only its owner may read.
pub fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// Replaces a file. Readers see the old or the new content.
pub fn replace(path: &Path, content: &[u8], durable: bool) -> Result<(), FileError> {
    let temporary = write_beside(path, content, durable)?;
    crash_point::at_file(path, Moment::Written);
    temporary.persist(path).map_err(|error| FileError::write(path, error.error))?;
    crash_point::at_file(path, Moment::Named);
    if durable { sync_parent(path) } else { Ok(()) }
}

/// Replaces a file of the user. It keeps its mode, and a symlink to it stays.
pub fn replace_users_own(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let path = &path.canonicalize().map_err(|source| FileError::read(path, source))?;
    let fail = |source| FileError::write(path, source);
    let permissions = fs::metadata(path).map_err(fail)?.permissions();
    let temporary = write_beside(path, content, true)?;
    temporary.as_file().set_permissions(permissions).map_err(fail)?;
    temporary.persist(path).map_err(|error| fail(error.error))?;
    Ok(())
}

/// Creates a file that must not exist yet.
pub fn create_once(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let temporary = write_beside(path, content, true)?;
    crash_point::at_file(path, Moment::Written);
    temporary.persist_noclobber(path).map_err(|error| FileError::write(path, error.error))?;
    crash_point::at_file(path, Moment::Named);
    sync_parent(path)
}

/// Moves a file to a name that must not exist yet.
pub fn move_once(from: &Path, to: &Path) -> Result<(), FileError> {
    let fail = |source| FileError::write(to, source);
    let mut file = tempfile::TempPath::try_from_path(from).map_err(fail)?;
    file.disable_cleanup(true);
    file.persist_noclobber(to).map_err(|error| fail(error.error))?;
    sync_parent(to)
}

pub fn replace_json(path: &Path, value: &impl Serialize, durable: bool) -> Result<(), FileError> {
    replace(path, &to_json(path, value)?, durable)
}

/// Creates a JSON file that must not exist yet. The value needs something of its own, such as an id: a network file system
/// repeats a request whose reply was lost, so a file with exactly this content is the one that this call created.
pub fn create_json_once(path: &Path, value: &impl Serialize) -> Result<(), FileError> {
    let content = to_json(path, value)?;
    match create_once(path, &content) {
        Err(FileError::Exists { .. }) if read_existing(path).is_ok_and(|there| there == content) => Ok(()),
        created => created,
    }
}

/// Returns the end of a text file, of at most this many bytes. Empty if there is none; bytes that are not UTF-8 are
/// replaced.
pub fn read_end(path: &Path, most: usize) -> String {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(most as u64)))?;
        file.take(most as u64).read_to_end(&mut bytes)
    });
    if read.is_ok() { String::from_utf8_lossy(&bytes).into_owned() } else { String::new() }
}

/// Reads a JSON file. `None` if it does not exist.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, FileError> {
    match fs::read(path) {
        Ok(bytes) => parse(path, &bytes).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FileError::read(path, source)),
    }
}

/// Reads a JSON file that is known to exist.
pub fn read_existing_json<T: DeserializeOwned>(path: &Path) -> Result<T, FileError> {
    parse(path, &read_existing(path)?)
}

/// Reads a file that is known to exist. A network file system may still report it as missing, since this host asked for
/// it before another host created it. Opening it for creation makes the file system ask its file server again.
fn read_existing(path: &Path) -> Result<Vec<u8>, FileError> {
    let fail = |source| FileError::read(path, source);
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            private().create(true).truncate(false).write(true).open(path).map_err(fail)?;
            fs::read(path).map_err(fail)
        }
        read => read.map_err(fail),
    }
}

/// Makes a file and its name durable. A file that was removed meanwhile needs nothing.
pub fn sync(path: &Path) -> Result<(), FileError> {
    match File::open(path).and_then(|file| file.sync_all()) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(FileError::write(path, source)),
    }
}

/// Syncs the folder of `path`, so that a rename or a new name survives a power failure.
pub fn sync_parent(path: &Path) -> Result<(), FileError> {
    let parent = path.parent().unwrap_or(Path::new("."));
    File::open(parent).and_then(|folder| folder.sync_all()).map_err(|source| FileError::write(parent, source))
}

/// Returns whether an open file is still the one at this path, neither removed nor replaced.
pub fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => identity(ours) == identity(there),
        _ => false,
    }
}

fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, FileError> {
    serde_json::from_slice(bytes)
        .map_err(|error| FileError::Damaged { path: path.to_owned(), reason: error.to_string() })
}

fn to_json(path: &Path, value: &impl Serialize) -> Result<Vec<u8>, FileError> {
    serde_json::to_vec_pretty(value)
        .map_err(|error| FileError::Damaged { path: path.to_owned(), reason: error.to_string() })
}

fn write_beside(path: &Path, content: &[u8], durable: bool) -> Result<tempfile::NamedTempFile, FileError> {
    let fail = |source| FileError::write(path, source);
    let folder = path.parent().unwrap_or(Path::new("."));
    // tempfile sets mode 0600.
    let mut temporary = tempfile::Builder::new().prefix(".new-").tempfile_in(folder).map_err(fail)?;
    temporary.write_all(content).map_err(fail)?;
    if durable {
        temporary.as_file().sync_data().map_err(fail)?;
    }
    Ok(temporary)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mission::testing::{all_messages, row};

    #[test]
    fn every_message_is_as_recorded() {
        let path = || PathBuf::from("/repo/.orchestrator/file");
        let source = || io::Error::from(io::ErrorKind::PermissionDenied);
        let rows = [
            row(FileError::NoSpace { path: path() }),
            row(FileError::NotPermitted { path: path(), source: source() }),
            row(FileError::Write { path: path(), source: io::Error::other("the disk is gone") }),
            row(FileError::NotReadable { path: path(), source: source() }),
            row(FileError::Read { path: path(), source: io::Error::other("the disk is gone") }),
            row(FileError::Damaged { path: path(), reason: "it is no JSON".into() }),
            row(FileError::Exists { path: path() }),
            row(FileError::Gone { path: path() }),
            row(FileError::Foreign { path: path(), expected: "a folder" }),
        ];
        insta::assert_snapshot!(all_messages(&rows, "src/files.rs"));
    }

    #[test]
    fn created_file_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outcome.json");
        create_once(&path, b"first").unwrap();
        assert!(matches!(create_once(&path, b"second"), Err(FileError::Exists { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn creation_with_a_lost_reply_succeeds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("claim");
        create_json_once(&path, &"our id").unwrap();
        create_json_once(&path, &"our id").unwrap();
        assert!(matches!(create_json_once(&path, &"another id"), Err(FileError::Exists { .. })));
        assert_eq!(read_json::<String>(&path).unwrap().as_deref(), Some("our id"));
    }

    #[test]
    fn missing_parent_is_not_created() {
        let folder = tempfile::tempdir().unwrap();
        let (base, deep) = (folder.path().join("repo/state"), folder.path().join("repo/state/a/b"));
        let refused = make_private_dir_within(&base, &deep).unwrap_err();
        assert!(matches!(&refused, FileError::Gone { path } if path.ends_with("repo")), "{refused}");
        assert!(!folder.path().join("repo").exists());
        fs::create_dir(folder.path().join("repo")).unwrap();
        make_private_dir_within(&base, &deep).unwrap();
        make_private_dir_within(&base, &deep).unwrap();
        assert!(deep.is_dir());
    }

    #[test]
    fn files_and_folders_are_private() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        make_private_dir(&inner).unwrap();
        replace(&inner.join("f"), b"x", false).unwrap();
        assert_eq!(fs::metadata(&inner).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(inner.join("f")).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
