//! Writes that the confinement refused, found in the output of commands. Programs report a path and the system's words
//! for a refusal. A path counts only if the rules do not grant it and its folder could otherwise be written.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::process::confine::WriteRules;

/// Maximum number of paths in a record.
const NAMED_PATHS: usize = 5;
/// The system's words for a refusal, and Node's.
const REFUSED: [&str; 4] = ["Permission denied", "permission denied", "EACCES", "Invalid cross-device link"];

/// Paths that a worker could not write because it is confined.
#[derive(Debug, Default)]
pub struct RefusedWrites(BTreeSet<PathBuf>);

impl RefusedWrites {
    /// Records the paths in this output of a command that ran under these rules.
    pub fn record(&mut self, output: &str, rules: Option<&WriteRules>) {
        let Some(rules) = rules else { return };
        for line in output.lines().filter(|line| REFUSED.iter().any(|words| line.contains(words))) {
            let refused = paths_in(line).filter(|path| !rules.covers(path) && is_otherwise_writable(path));
            let room = NAMED_PATHS.saturating_sub(self.0.len());
            self.0.extend(refused.map(Path::to_owned).take(room));
        }
    }

    /// Returns a sentence about each path.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|path| {
            format!(
                "the confinement refused writing {}: the setting confine_writable can allow a folder",
                path.display()
            )
        })
    }
}

/// Returns the absolute paths in a line.
fn paths_in(line: &str) -> impl Iterator<Item = &Path> {
    let words = line.split(|c: char| c.is_whitespace() || "'\"`‘’“”()[],;".contains(c));
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
                      bash: /no/such/folder/x: Permission denied, as relative/path\n";
        refused.record(&output.replace("ROOT", &root.to_string_lossy()), Some(&rules));
        refused.record("touch: cannot touch '/tmp/x': Permission denied", None);
        let root_can = access("/", Access::WRITE_OK).is_ok();
        let mut expected = vec![root.join("a"), root.join("b/c")];
        expected.extend(root_can.then(|| PathBuf::from("/no/such/folder/x")));
        expected.sort();
        assert_eq!(refused.0.iter().cloned().collect::<Vec<_>>(), expected);
        assert!(refused.notes().next().unwrap().contains("confine_writable"));
    }
}
