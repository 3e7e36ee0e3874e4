//! Finds work that is ignored only locally: by a `.gitignore` that was written in the worktree and is in no trusted
//! commit.
//!
//! Files that the project's own rules ignore do not count as work. Exceptions are repositories, and files that an
//! outcome of the worker named. Folders that can be regenerated (a cache, a Python environment) do not count either.
//! This module changes nothing.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::command::{CommandError, Git};
use super::nested::is_own_repository;
use super::regenerable::{is_marked_regenerable, is_regenerable};
use super::trust::Checkout;

/// Ignored files that count as work. All paths are relative to the worktree.
#[derive(Debug, Default)]
pub struct LocallyIgnored {
    pub files: Vec<PathBuf>,
    /// Nested repositories, which git does not descend into.
    pub repositories: Vec<PathBuf>,
    pub bytes: u64,
    /// Folders that could not be read.
    pub unreadable: Vec<PathBuf>,
}

/// Returns the ignored files that count as work. The `.gitignore` files of the `trusted` commits are the project's. The
/// `named` files and folders count as work under any rule.
pub fn locally_ignored(
    worktree: &Checkout,
    trusted: &[String],
    named: &[PathBuf],
) -> Result<LocallyIgnored, CommandError> {
    let mut found = LocallyIgnored::default();
    let ignored = ignored(worktree)?;
    let local = ignored_locally(worktree, trusted, &ignored)?;
    for path in &ignored {
        if path.ancestors().skip(1).any(|folder| is_marked_regenerable(&worktree.join(folder))) {
            continue;
        }
        if local.contains(path) {
            found.add_path(worktree, path);
        } else if named.contains(path) {
            let mut inside = LocallyIgnored::default();
            inside.add_path(worktree, path);
            inside.files.retain(|file| !is_regenerable(worktree, file));
            found.add(inside);
        } else if !is_regenerable(worktree, path) {
            found.add_repositories(worktree, path)?;
        }
    }
    Ok(found)
}

impl LocallyIgnored {
    fn add(&mut self, other: LocallyIgnored) {
        self.files.extend(other.files);
        self.repositories.extend(other.repositories);
        self.bytes += other.bytes;
        self.unreadable.extend(other.unreadable);
    }

    /// Adds the repositories in ignored folders, since their content is unknown.
    fn add_repositories(&mut self, worktree: &Checkout, path: &Path) -> Result<(), CommandError> {
        let mut inside = LocallyIgnored::default();
        inside.add_path(worktree, path);
        for repository in inside.repositories {
            if !is_regenerable(worktree, &repository) && is_own_repository(&worktree.at(&repository))? {
                self.repositories.push(repository);
            }
        }
        Ok(())
    }

    fn add_path(&mut self, worktree: &Path, path: &Path) {
        let absolute = worktree.join(path);
        let Ok(kind) = absolute.symlink_metadata() else { return };
        if !kind.is_dir() {
            if kind.is_file() || kind.is_symlink() {
                self.bytes += kind.len();
                self.files.push(path.to_owned());
            }
            return;
        }
        if absolute.join(".git").symlink_metadata().is_ok() {
            return self.repositories.push(path.to_owned());
        }
        if is_marked_regenerable(&absolute) {
            return;
        }
        match fs::read_dir(&absolute) {
            Ok(entries) => {
                for entry in entries.flatten() {
                    self.add_path(worktree, &path.join(entry.file_name()));
                }
            }
            Err(_) => self.unreadable.push(path.to_owned()),
        }
    }
}

fn ignored_locally(
    worktree: &Checkout,
    trusted: &[String],
    ignored: &[PathBuf],
) -> Result<HashSet<PathBuf>, CommandError> {
    if ignored.is_empty() {
        return Ok(HashSet::new());
    }
    let mut rules = ProjectRules { worktree, trusted, read: HashMap::new() };
    // Paths without an answer from git count as work, as they may be needed.
    let mut local: HashSet<PathBuf> = ignored.iter().cloned().collect();
    for rule in matching_rules(worktree, ignored)? {
        if rules.is_of_project(&rule.source, &rule.pattern)? {
            local.remove(&rule.path);
        }
    }
    Ok(local)
}

/// Returns the ignored files, and folders that are ignored as a whole.
fn ignored(worktree: &Checkout) -> Result<Vec<PathBuf>, CommandError> {
    let answer = Git::read(worktree)
        .args(["status", "--porcelain=v2", "-z", "--no-renames", "--ignore-submodules=all"])
        .args(["--ignored=matching", "--untracked-files=all"])
        .run()?;
    let path = |record: &[u8]| {
        let path = record.strip_prefix(b"! ")?;
        Some(PathBuf::from(OsStr::from_bytes(path.strip_suffix(b"/").unwrap_or(path))))
    };
    Ok(answer.split(|byte| *byte == 0).filter_map(path).collect())
}

/// The rule by which git ignores a path.
struct MatchingRule {
    source: String,
    pattern: String,
    path: PathBuf,
}

fn matching_rules(worktree: &Checkout, paths: &[PathBuf]) -> Result<Vec<MatchingRule>, CommandError> {
    let list: Vec<u8> = paths.iter().flat_map(|path| [path.as_os_str().as_bytes(), b"\0"].concat()).collect();
    let answer = Git::read(worktree).args(["check-ignore", "--verbose", "-z", "--stdin"]).input(list).answer()?;
    let answer = answer.unwrap_or_default();
    let fields: Vec<&[u8]> = answer.split(|byte| *byte == 0).collect();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(fields
        .chunks_exact(4)
        .map(|of| MatchingRule {
            source: text(of[0]),
            pattern: text(of[2]),
            path: PathBuf::from(OsStr::from_bytes(of[3])),
        })
        .collect())
}

/// The ignore rules of the project, read as needed.
struct ProjectRules<'a> {
    worktree: &'a Checkout,
    trusted: &'a [String],
    read: HashMap<String, String>,
}

impl ProjectRules<'_> {
    /// Returns whether a rule is in a trusted commit. Rules outside of the worktree, which are the user's, count too.
    fn is_of_project(&mut self, source: &str, pattern: &str) -> Result<bool, CommandError> {
        if Path::new(source).is_absolute() || source.starts_with(".git/") {
            return Ok(true);
        }
        if !self.read.contains_key(source) {
            let mut lines = String::new();
            for commit in self.trusted {
                let file = Git::read(self.worktree).args(["show", &format!("{commit}:{source}")]).output()?;
                // The commit may not contain the file.
                if file.code == Some(0) {
                    lines.push_str(&String::from_utf8_lossy(&file.stdout));
                    lines.push('\n');
                }
            }
            self.read.insert(source.to_owned(), lines);
        }
        Ok(self.read[source].lines().any(|line| line.trim_end() == pattern.trim_end()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::testing::{Fixture, at};

    fn found(fixture: &Fixture, trusted: &str) -> Vec<String> {
        let ignored = locally_ignored(&at(fixture.root()), &[fixture.git(&["rev-parse", trusted])], &[]).unwrap();
        let mut names: Vec<_> = ignored.files.iter().map(|path| path.display().to_string()).collect();
        names.sort();
        names
    }

    #[test]
    fn only_files_ignored_by_new_rules_count() {
        let fixture = Fixture::new();
        fixture.commit(".gitignore", "build/\n*.log\n");
        fixture.write("build/out", "x");
        fixture.write("a.log", "x");
        assert!(found(&fixture, "HEAD").is_empty());
        fixture.write(".gitignore", "build/\n*.log\nsecret/\n*.key\n");
        fixture.write("secret/deep/er.txt", "x");
        fixture.write("deep/my.key", "x");
        assert_eq!(found(&fixture, "HEAD"), ["deep/my.key", "secret/deep/er.txt"]);
        fixture.git(&["commit", "-qam", "rules"]);
        assert!(found(&fixture, "HEAD").is_empty());
        assert_eq!(found(&fixture, "HEAD~").len(), 2, "the commit is not trusted");
    }

    #[test]
    fn rule_that_ignores_everything_has_no_effect() {
        let fixture = Fixture::new();
        fixture.write(".gitignore", "*\n");
        fixture.write("work/a.txt", "x");
        fixture.git(&["init", "-q", "work/inner"]);
        let names = found(&fixture, "HEAD");
        assert_eq!(names, [".gitignore", "work/a.txt"]);
        let ignored = locally_ignored(&at(fixture.root()), &[], &[]).unwrap();
        assert_eq!(ignored.repositories, [Path::new("work/inner")]);
    }

    #[test]
    fn regenerable_folders_do_not_count() {
        let fixture = Fixture::new();
        fixture.write("cache/.gitignore", "*\n");
        fixture.write("cache/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n");
        fixture.write("cache/deep/x", "x");
        assert!(found(&fixture, "HEAD").is_empty());
    }
}
