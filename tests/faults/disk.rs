//! A disk of a few MiB for a single test: a tmpfs in the test's own mount namespace, so that nothing stays mounted
//! after any end; on macOS a disk image.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

pub struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    pub fn root(&self) -> PathBuf {
        self.folder.path().canonicalize().expect("an existing path").join("disk")
    }

    fn ballast(&self) -> PathBuf {
        self.root().join("ballast")
    }

    /// Writes until there is no space for another byte.
    pub fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.ballast()).expect("an empty file fits");
        for size in [64 * 1024, 1024, 1] {
            let chunk = vec![b'x'; size];
            while file.write_all(&chunk).is_ok() {}
        }
    }

    pub fn fill_but(&self, bytes: u64) {
        self.fill();
        let file = File::options().write(true).open(self.ballast()).expect("the ballast");
        let length = file.metadata().expect("its length").len();
        file.set_len(length.saturating_sub(bytes)).expect("a file can be cut");
    }

    pub fn free(&self) {
        fs::remove_file(self.ballast()).expect("the ballast is removed");
    }
}

/// Runs `test` with a disk of this size. Prints that it is skipped where no disk can be created.
#[cfg(target_os = "linux")]
pub fn with_disk(mib: u32, test: impl FnOnce(&Disk)) {
    in_own_mounts(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let disk = Disk { folder };
        fs::create_dir(disk.root()).expect("a folder");
        let size = format!("size={mib}m,mode=0700");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(disk.root())).expect("a tmpfs");
        test(&disk);
    });
}

/// Runs `test` with an XFS disk of this size, which clones files. Without root, prints that the test is skipped, since
/// no other user can mount a disk.
#[cfg(target_os = "linux")]
pub fn with_cloning_disk(mib: u32, test: impl FnOnce(&Disk)) {
    if !rustix::process::getuid().is_root() {
        eprintln!("SKIPPED: only root can mount a disk that clones files");
        return;
    }
    in_own_mounts(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (disk, image) = (Disk { folder }, tempfile::NamedTempFile::new().expect("a temporary file"));
        fs::create_dir(disk.root()).expect("a folder");
        image.as_file().set_len(u64::from(mib) << 20).expect("a sparse file");
        if let Err(why) = run(Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(image.path())) {
            return crate::world::skip(&format!("no XFS disk can be made: {why}"));
        }
        if let Err(why) = run(Command::new("mount").args(["-o", "loop"]).arg(image.path()).arg(disk.root())) {
            // A container may have no loop devices.
            eprintln!("SKIPPED: no loop device can be mounted: {why}");
            return;
        }
        test(&disk);
    });
}

#[cfg(target_os = "linux")]
impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg("-l").arg(self.root()));
    }
}

#[cfg(target_os = "macos")]
pub fn with_disk(mib: u32, test: impl FnOnce(&Disk)) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let disk = Disk { folder };
    fs::create_dir(disk.root()).expect("a folder");
    let image = disk.folder.path().join("image.dmg");
    let size = format!("{}m", mib.max(8));
    let made =
        run(Command::new("hdiutil").args(["create", "-size", &size, "-fs", "HFS+", "-volname", "faults"]).arg(&image))
            .and_then(|()| {
                run(Command::new("hdiutil").args(["attach", "-nobrowse", "-mountpoint"]).arg(disk.root()).arg(&image))
            });
    match made {
        Ok(()) => test(&disk),
        Err(why) => crate::world::skip(&format!("no disk image can be attached: {why}")),
    }
}

/// Runs `test` with a temporary folder: APFS clones files.
#[cfg(target_os = "macos")]
pub fn with_cloning_disk(_: u32, test: impl FnOnce(&Disk)) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let disk = Disk { folder };
    fs::create_dir(disk.root()).expect("a folder");
    test(&disk);
}

#[cfg(target_os = "macos")]
impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run(Command::new("hdiutil").args(["detach", "-force"]).arg(self.root()));
    }
}

/// Runs the test again in another process with its own mount namespace; without root also with a user namespace.
#[cfg(target_os = "linux")]
pub fn in_own_mounts(test: impl FnOnce()) {
    const INSIDE: &str = "FAULTS_IN_OWN_MOUNTS";
    if std::env::var_os(INSIDE).is_some() {
        return test();
    }
    let flags = if rustix::process::getuid().is_root() { "-m" } else { "-rm" };
    if let Err(why) = run(Command::new("unshare").args([flags, "mount", "-t", "tmpfs", "tmpfs", "/mnt"])) {
        return crate::world::skip(&format!("nothing can be mounted here, not in a namespace either: {why}"));
    }
    let thread = std::thread::current();
    let name = thread.name().expect("tests run in threads with their names");
    let mut again = Command::new("unshare");
    again.arg(flags).arg(std::env::current_exe().expect("the test's program"));
    let status = again.args(["--exact", name, "--nocapture"]).env(INSIDE, "1").status().expect("unshare was there");
    assert!(status.success(), "{name} failed in its own mount namespace: see above");
}

/// Skips the test on macOS, where tests with permissions cover the same faults.
#[cfg(target_os = "macos")]
pub fn in_own_mounts(_: impl FnOnce()) {
    eprintln!("SKIPPED: there are no mount namespaces on macOS; tests/faults/permission.rs has the like without them");
}

/// Makes a folder read-only by a mount, also for root, or writable again.
#[cfg(target_os = "linux")]
pub fn set_read_only(folder: &Path, read_only: bool) {
    if read_only {
        run(Command::new("mount").arg("--bind").args([folder, folder])).expect("a bind mount");
        // Refused while a process writes to a file that was opened after the mount.
        crate::world::until("it is mounted read-only", || {
            run(Command::new("mount").args(["-o", "remount,bind,ro"]).arg(folder)).is_ok()
        });
    } else {
        run(Command::new("umount").arg("-l").arg(folder)).expect("the mount is removed");
    }
}

#[cfg(target_os = "macos")]
pub fn set_read_only(_: &Path, _: bool) {
    unreachable!("only in mount namespaces");
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
}
