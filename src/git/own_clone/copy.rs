//! Copies files that a worker could write. Only regular files are copied, no link is followed, and the amount is
//! limited.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

/// Maximum number and total size of the copied files.
const MOST_FILES: u32 = 200_000;
const MOST_BYTES: u64 = 2 << 30;

pub(super) struct Copier {
    files: u32,
    bytes: u64,
}

impl Copier {
    pub(super) fn new() -> Copier {
        Copier { files: MOST_FILES, bytes: MOST_BYTES }
    }

    /// Copies a file, unless it is missing or something else. Returns whether it was copied.
    pub(super) fn file(&mut self, from: &Path, to: &Path) -> io::Result<bool> {
        // A pipe is opened without waiting for its other end.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = match OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(from) {
            Ok(file) => file,
            Err(error) if is_nothing(&error) => return Ok(false),
            Err(error) => return Err(error),
        };
        let kind = file.metadata()?;
        if !kind.is_file() {
            return Ok(false);
        }
        self.files = self.files.checked_sub(1).ok_or_else(too_much)?;
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut target = File::create(to)?;
        let copied = io::copy(&mut file.take(self.bytes.saturating_add(1)), &mut target)?;
        self.bytes = self.bytes.checked_sub(copied).ok_or_else(too_much)?;
        // Git compares the time of an index with those of files.
        target.set_modified(kind.modified()?)?;
        if kind.permissions().mode() & 0o100 != 0 {
            target.set_permissions(Permissions::from_mode(0o755))?;
        }
        Ok(true)
    }

    /// Copies a file or a folder with everything below it.
    pub(super) fn all(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let is_folder = from.symlink_metadata().is_ok_and(|kind| kind.is_dir());
        if !is_folder {
            return self.file(from, to).map(drop);
        }
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            self.all(&entry.path(), &to.join(entry.file_name()))?;
        }
        Ok(())
    }
}

/// Returns whether there is no file: nothing, a link, a socket, or a file in place of a folder. A file that cannot be
/// read is an error, since it may hold work.
fn is_nothing(error: &io::Error) -> bool {
    let others = [Errno::LOOP, Errno::NXIO, Errno::NOTDIR].map(Errno::raw_os_error);
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error().is_some_and(|code| others.contains(&code))
}

fn too_much() -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, "more than 200,000 files or 2 GiB")
}

/// Reads a regular file of at most `most` bytes.
pub(super) fn read(path: &Path, most: u64) -> Option<Vec<u8>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= most).then_some(bytes)
}

/// Makes all folders writable, so that their files can be deleted.
pub(super) fn make_writable(folder: &Path) {
    let _ = fs::set_permissions(folder, Permissions::from_mode(0o700));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            make_writable(&entry.path());
        }
    }
}
