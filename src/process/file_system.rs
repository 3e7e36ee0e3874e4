//! Detects network file systems, on which locks may not work.

use std::path::Path;

/// Returns the kind of a network file system, on which locks may be invisible to others or lost. `None` for a local
/// one. If the folder does not exist, checks the nearest parent that does. May hang, as network file systems do.
pub fn network_file_system(folder: &Path) -> Option<&'static str> {
    let found = folder.ancestors().find_map(|folder| rustix::fs::statfs(folder).ok())?;
    kind(&found)
}

/// Recognises the numbers of `linux/magic.h` and `statfs(2)`.
#[cfg(target_os = "linux")]
fn kind(found: &rustix::fs::StatFs) -> Option<&'static str> {
    const KINDS: [(u32, &str); 15] = [
        (0x6969, "nfs"),
        (0x517b, "smb"),
        (0xff53_4d42, "cifs"),
        (0xfe53_4d42, "smb2"),
        (0x0102_1997, "9p"),
        (0x5346_414f, "afs"),
        (0x00c3_6400, "ceph"),
        (0x7375_7245, "coda"),
        (0x6573_5546, "fuse"),
        (0x0bd0_0bd0, "lustre"),
        (0x4750_4653, "gpfs"),
        (0x1983_0326, "beegfs"),
        (0xaad7_aaea, "panfs"),
        (0x7461_636f, "ocfs2"),
        (0x0116_1970, "gfs2"),
    ];
    // The type of this field depends on the architecture.
    let number = found.f_type as u32;
    KINDS.iter().find(|(kind, _)| *kind == number).map(|(_, name)| *name)
}

#[cfg(target_os = "macos")]
fn kind(found: &rustix::fs::StatFs) -> Option<&'static str> {
    const KINDS: [&str; 7] = ["nfs", "smbfs", "afpfs", "webdav", "macfuse", "osxfuse", "ftp"];
    let name: Vec<u8> = found.f_fstypename.iter().map(|byte| *byte as u8).take_while(|byte| *byte != 0).collect();
    KINDS.into_iter().find(|kind| kind.as_bytes() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_folder_is_checked_by_parent() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(network_file_system(folder.path()), network_file_system(&folder.path().join("not/yet/there")));
    }
}
