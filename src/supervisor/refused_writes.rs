//! Writes and reads that the confinement refused, found in the output of commands. Programs report a path and the
//! system's words for a refusal, some on lines of their own. A path counts only if the rules do not grant it and its
//! folder could otherwise be written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::process::confine::WriteRules;

/// Maximum number of paths in a record.
const NAMED_PATHS: usize = 5;
/// The system's words for a refusal, and Node's.
const REFUSED: &[&str] = &[
    "Permission denied",
    "permission denied",
    "EACCES",
    "Invalid cross-device link",
    #[cfg(target_os = "macos")]
    "Operation not permitted",
    #[cfg(target_os = "macos")]
    "EPERM",
];
/// Lines between the words and the path. npm names the path after the words, Cargo before them.
const APART: usize = 3;

/// Paths that a worker could not use because it is confined.
#[derive(Debug, Default)]
pub struct RefusedWrites(BTreeMap<PathBuf, Use>);

/// The use that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Write,
    Read,
    /// The folder is above an unreadable path, or the path is new in such a folder.
    Either,
}

impl RefusedWrites {
    /// Records the paths in this output of a command that ran under these rules.
    pub fn record(&mut self, output: &str, rules: Option<&WriteRules>) {
        let Some(rules) = rules else { return };
        let lines: Vec<&str> = output.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let refused = paths_near(&lines, at).filter_map(|path| {
                let refused = use_of(path, rules)?;
                is_otherwise_writable(path).then(|| (path.to_owned(), refused))
            });
            let room = NAMED_PATHS.saturating_sub(self.0.len());
            if REFUSED.iter().any(|words| line.contains(words)) {
                self.0.extend(refused.take(room));
            }
        }
    }

    /// Returns a sentence about each path, with the setting that allows it. `work` is the directory of the worker, and
    /// `checkout` the one of the user.
    pub fn notes(&self, work: &Path, checkout: Option<&Path>) -> impl Iterator<Item = String> {
        self.0.iter().map(move |(path, refused)| {
            let (what, how) = match refused {
                Use::Read => ("reading", "it is in the setting confine_unreadable"),
                Use::Either => ("reading or writing", "see the settings confine_unreadable and confine_writable"),
                Use::Write if path.starts_with(work) => ("writing", "permissions: \"edit\" allow it"),
                Use::Write if checkout.is_some_and(|checkout| path.starts_with(checkout)) => {
                    ("writing", "it is in the checkout of the user, which no worker needs to write")
                }
                Use::Write => ("writing", "the setting confine_writable can allow a folder"),
            };
            format!("the confinement refused {what} {}: {how}", path.display())
        })
    }
}

/// Returns the use of a path that the rules refuse.
fn use_of(path: &Path, rules: &WriteRules) -> Option<Use> {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let is_above = |path: &Path| rules.unreadable().iter().any(|unreadable| unreadable.starts_with(path));
    if rules.unreadable().iter().any(|unreadable| real.starts_with(unreadable)) {
        Some(Use::Read)
    } else if rules.covers(path) {
        None
    } else if is_above(&real) || real.parent().is_some_and(is_above) {
        Some(Use::Either)
    } else {
        Some(Use::Write)
    }
}

/// Returns the paths that a report of a refusal in this line is about. npm names the path some lines later, and Rust's
/// programs some lines earlier. For other lines without a path, no neighbouring line is searched.
fn paths_near<'a>(lines: &[&'a str], at: usize) -> impl Iterator<Item = &'a Path> {
    let line = lines[at];
    let (after, before) = (lines[at + 1..].iter().take(APART), lines[..at].iter().rev().take(APART));
    let near: Vec<&'a str> = if paths_in(line).next().is_some() {
        vec![line]
    } else if line.contains("EACCES") {
        after.chain(before).copied().collect()
    } else if line.contains("(os error ") {
        before.copied().collect()
    } else {
        Vec::new()
    };
    let named = near.into_iter().find(|line| !is_place_in_code(line) && paths_in(line).next().is_some());
    paths_in(named.unwrap_or_default())
}

/// Returns whether a line of a stack trace names a file of the program.
fn is_place_in_code(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("at ") || line.starts_with("File \"")
}

/// Returns the absolute paths in a line.
fn paths_in(line: &str) -> impl Iterator<Item = &Path> {
    let words = line.split(|c: char| c.is_whitespace() || "'\"`‘’“”()[],;=".contains(c));
    words
        .map(|word| word.trim_end_matches([':', '.']))
        .filter(|word| word.starts_with('/') && word.len() > 1)
        .map(Path::new)
}

/// Returns whether this process may write the path, or create it.
fn is_otherwise_writable(path: &Path) -> bool {
    let existing = path.ancestors().find(|path| path.symlink_metadata().is_ok());
    existing.is_some_and(|existing| access(existing, Access::WRITE_OK).is_ok()) && !path.starts_with("/proc")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::confine::{GrantKind, Links};

    #[test]
    fn only_paths_that_the_rules_refuse_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let mut rules = WriteRules::default();
        rules.add(&root.join("granted"), GrantKind::Folder, Links::Followed);
        let mut refused = RefusedWrites::default();
        let output = "touch: cannot touch 'ROOT/a': Permission denied\n\
                      Error: EACCES: permission denied, mkdir \"ROOT/b/c\"\n\
                      sh: 1: cannot create ROOT/granted/x: Permission denied\n\
                      ROOT/fine was written\n\
                      bash: line 1: relative: Permission denied\n\
                      ROOT/fine was written\n\
                      bash: /no/such/folder/x: Permission denied, as relative/path\n";
        refused.record(&output.replace("ROOT", &root.to_string_lossy()), Some(&rules));
        refused.record("touch: cannot touch '/tmp/x': Permission denied", None);
        let root_can = access("/", Access::WRITE_OK).is_ok();
        let mut expected = vec![root.join("a"), root.join("b/c")];
        expected.extend(root_can.then(|| PathBuf::from("/no/such/folder/x")));
        expected.sort();
        assert_eq!(refused.0.keys().cloned().collect::<Vec<_>>(), expected);
        let notes = |work: &str, checkout: &str| {
            let (work, checkout) = (root.join(work), root.join(checkout));
            let notes = refused.notes(&work, Some(&checkout));
            notes.filter(|note| note.contains(&*root.to_string_lossy())).collect::<Vec<_>>()
        };
        let [checkout, work] = notes("b", "a").try_into().unwrap();
        assert!(checkout.contains("checkout of the user") && work.contains("\"edit\""), "{checkout} {work}");
        assert!(notes("work", "checkout")[0].contains("confine_writable"));

        for folder in ["secret", "other"] {
            std::fs::create_dir(root.join(folder)).unwrap();
        }
        rules.forbid_reading(&[root.join("secret")]);
        for (path, words) in [
            ("secret/key", "refused reading ROOT/secret/key: it is in the setting confine_unreadable"),
            ("new", "refused reading or writing ROOT/new: see the settings confine_unreadable"),
            ("other/file", "refused writing ROOT/other/file: the setting confine_writable"),
        ] {
            let mut refused = RefusedWrites::default();
            refused.record(&format!("cat: {}: Permission denied", root.join(path).display()), Some(&rules));
            let note = refused.notes(Path::new("/work"), None).next().unwrap();
            assert!(note.contains(&words.replace("ROOT", &root.to_string_lossy())), "{note}");
        }
    }

    /// Reports of the tools themselves, with HOME in place of the home folder.
    #[test]
    fn refused_path_is_found_in_the_report_of_each_tool() {
        let cases = [
            (
                "npm error code EACCES\nnpm error syscall mkdir\nnpm error path HOME/.npm\nnpm error errno EACCES",
                ".npm",
            ),
            (
                "error: failed to create directory `HOME/.cargo/registry/cache`\n\nCaused by:\n  Permission denied (os error 13)",
                ".cargo/registry/cache",
            ),
            (
                "warning: failed to write cache, path: HOME/.cargo/registry/index/x, error: Permission denied (os error 13)",
                ".cargo/registry/index/x",
            ),
            (
                "error: Failed to initialize cache at `HOME/.cache/uv`\n  cause: failed to create directory `HOME/.cache/uv`: Permission denied (os error 13)",
                ".cache/uv",
            ),
            (
                "ERROR: Could not install packages due to an OSError: [Errno 13] Permission denied: 'HOME/lib/six.py'\nConsider using the `--user` option or check the permissions.",
                "lib/six.py",
            ),
            (
                "failed to initialize build cache at HOME/.cache/go-build: mkdir HOME/.cache: permission denied",
                ".cache",
            ),
            (
                "touch HOME/made\ntouch: cannot touch 'HOME/made': Permission denied\nmake: *** [Makefile:2: all] Error 1",
                "made",
            ),
            ("error: could not lock config file HOME/.gitconfig: Permission denied", ".gitconfig"),
            ("fatal: could not create work tree dir 'HOME/r': Permission denied", "r"),
            (
                "Traceback (most recent call last):\n  File \"/usr/lib/python3/x.py\", line 1, in <module>\nPermissionError: [Errno 13] Permission denied: 'HOME/p'",
                "p",
            ),
            (
                "Error: EACCES: permission denied, open 'HOME/n'\n    at f (/usr/x.js:1:2) {\n  errno: -13,\n  code: 'EACCES',\n  syscall: 'open',\n  path: 'HOME/n'\n}",
                "n",
            ),
            ("bash: line 1: HOME/b: Permission denied", "b"),
            ("dd: failed to open 'HOME/dd': Permission denied", "dd"),
            (
                "/usr/bin/ld: cannot open output file HOME/prog: Permission denied\ncollect2: error: ld returned 1",
                "prog",
            ),
        ];
        let home = tempfile::tempdir().unwrap();
        let home = home.path().canonicalize().unwrap();
        // Root could write these.
        let mut rules = WriteRules::default();
        rules.add(Path::new("/usr"), GrantKind::Folder, Links::Followed);
        for (report, expected) in cases {
            let mut refused = RefusedWrites::default();
            refused.record(&report.replace("HOME", &home.to_string_lossy()), Some(&rules));
            let found = refused.0.keys().collect::<Vec<_>>();
            assert!(found.contains(&&home.join(expected)), "{report}: {found:?}");
            assert!(found.iter().all(|path| path.starts_with(&home)), "{report}: {found:?}");
        }
    }
}
