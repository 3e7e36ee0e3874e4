//! Parses git's records about files of the index and about differences of trees. All of them are printed with `-z`:
//! each record and each path ends with NUL.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::command::{CommandError, Git};
use super::trust::Checkout;

/// The mode of a link to a commit of another repository.
pub const LINK: &str = "160000";

/// A file in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Staged<'a> {
    pub mode: &'a str,
    pub id: &'a str,
    pub stage: &'a str,
    pub path: &'a Path,
}

/// A path that differs between two trees. The mode is `000000` on the side where it is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed<'a> {
    pub old_mode: &'a str,
    pub new_mode: &'a str,
    pub old_id: &'a str,
    pub new_id: &'a str,
    pub path: &'a Path,
}

/// A submodule in the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub path: PathBuf,
    pub commit: String,
}

/// Parses `<mode> <id> <stage> TAB <path>`, as `git ls-files` prints it with `--stage` or `--unmerged`.
pub fn staged(listed: &[u8]) -> impl Iterator<Item = Staged<'_>> {
    listed.split(|byte| *byte == 0).filter_map(|record| {
        let (head, path) = split_at_tab(record)?;
        let mut fields = str::from_utf8(head).ok()?.split(' ');
        Some(Staged { mode: fields.next()?, id: fields.next()?, stage: fields.next()?, path })
    })
}

/// Parses `:<old mode> <new mode> <old id> <new id> <letter> NUL <path>`, as `--raw` prints it.
pub fn changed(raw: &[u8]) -> impl Iterator<Item = Changed<'_>> {
    let mut records = raw.split(|byte| *byte == 0);
    std::iter::from_fn(move || {
        // `git log` ends each commit with one more NUL.
        let head = records.find_map(|record| str::from_utf8(record.strip_prefix(b":")?).ok())?;
        let path = Path::new(OsStr::from_bytes(records.next()?));
        let mut fields = head.split(' ');
        let mut next = || fields.next();
        Some(Changed { old_mode: next()?, new_mode: next()?, old_id: next()?, new_id: next()?, path })
    })
}

/// Returns the submodules in a worktree's index.
pub fn links(worktree: &Checkout) -> Result<Vec<Link>, CommandError> {
    let index = Git::read(worktree).args(["ls-files", "--stage", "-z"]).run()?;
    let links = staged(&index).filter(|file| file.mode == LINK);
    Ok(links.map(|link| Link { path: link.path.to_owned(), commit: link.id.to_owned() }).collect())
}

pub fn split_at_tab(record: &[u8]) -> Option<(&[u8], &Path)> {
    let tab = record.iter().position(|byte| *byte == b'\t')?;
    Some((&record[..tab], Path::new(OsStr::from_bytes(&record[tab + 1..]))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_may_hold_any_character() {
        let listed = b"100644 aa 0\ta\tb\nc\x00160000 bb 2\t:\xff\0";
        let found: Vec<Staged> = staged(listed).collect();
        let path = |bytes| Path::new(OsStr::from_bytes(bytes));
        assert_eq!(found[0], Staged { mode: "100644", id: "aa", stage: "0", path: path(b"a\tb\nc") });
        assert_eq!(found[1], Staged { mode: LINK, id: "bb", stage: "2", path: path(b":\xff") });
        let raw = b":000000 100644 00 aa A\0:x\0\0:100644 000000 aa 00 D\0b\0";
        let found: Vec<_> = changed(raw).map(|it| (it.old_mode, it.new_mode, it.old_id, it.new_id, it.path)).collect();
        let first = ("000000", "100644", "00", "aa", path(b":x"));
        assert_eq!(found, [first, ("100644", "000000", "aa", "00", path(b"b"))]);
    }
}
