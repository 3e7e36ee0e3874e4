//! Determines what in a checkout blocks a fast-forward, by the rules of `git merge --ff-only --no-overwrite-ignore`.
//! Only paths that the fast-forward itself changes can block it. This module changes nothing; git makes the final
//! decision when the branch moves.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::command::{CommandError, Git};
use super::index::{IndexError, marked_unchanged, status_despite_marks};
use super::records::{Changed, changed};
use super::status::{Untracked, status};
use super::trust::Checkout;

/// A path that differs between two trees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeChange {
    path: PathBuf,
    old: FileVersion,
    new: FileVersion,
}

/// The mode and id of a file, as git prints them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FileVersion {
    mode: String,
    id: String,
}

impl FileVersion {
    fn is_absent(&self) -> bool {
        self.mode == "000000"
    }
}

/// Paths that block the fast-forward, each list sorted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct BlockingPaths {
    /// Files in conflict. Git merges nothing before they are resolved.
    pub unmerged: Vec<PathBuf>,
    /// Tracked files with uncommitted changes.
    pub changed: Vec<PathBuf>,
    /// Untracked or ignored files where the fast-forward adds a file of its own, or that it would delete.
    pub untracked: Vec<PathBuf>,
}

/// Uncommitted changes of tracked files in a checkout, at one moment.
#[derive(Debug, Default)]
pub struct CheckoutState {
    tracked: HashMap<PathBuf, Tracked>,
    unmerged: Vec<PathBuf>,
}

#[derive(Debug)]
struct Tracked {
    staged: bool,
    in_worktree: bool,
    is_submodule: bool,
    index: FileVersion,
}

/// Lists what differs between two commits or trees, both of which `git` can read.
pub fn tree_changes(git: Git, from: &str, to: &str) -> Result<Vec<TreeChange>, CommandError> {
    let args =
        ["diff-tree", "-r", "-z", "--raw", "--no-renames", "--no-abbrev", "--no-commit-id", "--ignore-submodules=none"];
    let text = git.args(args).args([from, to]).run()?;
    let version = |mode: &str, id: &str| FileVersion { mode: mode.to_owned(), id: id.to_owned() };
    let change = |it: Changed| TreeChange {
        path: it.path.to_owned(),
        old: version(it.old_mode, it.old_id),
        new: version(it.new_mode, it.new_id),
    };
    Ok(changed(&text).map(change).collect())
}

impl CheckoutState {
    /// Reads a checkout. Changes of files marked as unchanged are included, because git's merge sees them too.
    pub fn of(worktree: &Checkout) -> Result<Self, IndexError> {
        let status = if marked_unchanged(worktree)?.is_empty() {
            status(worktree, Untracked::Omitted)?
        } else {
            status_despite_marks(worktree)?
        };
        let mut state = Self::default();
        for record in status.records.split(|byte| *byte == 0) {
            state.note(record);
        }
        Ok(state)
    }

    /// Records one line: `1 XY sub mH mI mW hH hI path` or `u XY sub m1 m2 m3 mW h1 h2 h3 path`.
    fn note(&mut self, record: &[u8]) {
        let field = |at: usize, of: usize| record.splitn(of, |byte| *byte == b' ').nth(at);
        let text = |at| field(at, 9).map(|it| String::from_utf8_lossy(it).into_owned()).unwrap_or_default();
        let path = |last: usize| field(last, last + 1).map(|it| PathBuf::from(OsStr::from_bytes(it)));
        match record.first() {
            Some(b'1') => {
                let (codes, Some(path)) = (text(1), path(8)) else { return };
                let tracked = Tracked {
                    staged: !codes.starts_with('.'),
                    in_worktree: !codes.ends_with('.'),
                    is_submodule: text(2).starts_with('S'),
                    index: FileVersion { mode: text(4), id: text(7) },
                };
                self.tracked.insert(path, tracked);
            }
            Some(b'u') => self.unmerged.extend(path(10)),
            _ => {}
        }
    }

    /// Returns the paths of the checkout for which git would refuse these changes.
    pub fn blocking_paths(&self, worktree: &Checkout, changes: &[TreeChange]) -> Result<BlockingPaths, CommandError> {
        let by_path: HashMap<&Path, &TreeChange> = changes.iter().map(|change| (&*change.path, change)).collect();
        let mut found = BlockingPaths { unmerged: self.unmerged.clone(), ..BlockingPaths::default() };
        for change in changes {
            if let Some(tracked) = self.tracked.get(&change.path) {
                found.changed.extend(tracked.blocks(worktree, change).then(|| change.path.clone()));
                // The file was removed from the index only. The fast-forward would delete the untracked copy as well.
                let is_kept = tracked.staged && tracked.index.is_absent() && change.new.is_absent();
                let is_there = || fs::symlink_metadata(worktree.join(&change.path)).is_ok();
                found.untracked.extend((is_kept && is_there()).then(|| change.path.clone()));
            }
            if change.old.is_absent() && !self.is_staged(&change.path) {
                found.untracked.extend(self.occupant(worktree, change, &by_path)?);
            }
        }
        // A staged path clashes with a path that the changes add if one is a folder of the other. Git itself would drop
        // the staged content without a warning.
        for (path, tracked) in self.tracked.iter().filter(|(path, it)| it.is_in_index_alone(&by_path, path)) {
            let clashes = |change: &&TreeChange| {
                let (one, other) = (&change.path, path);
                !change.new.is_absent() && one != other && (one.starts_with(other) || other.starts_with(one))
            };
            if tracked.staged && changes.iter().any(|change| clashes(&change)) {
                found.changed.push(path.clone());
            }
        }
        for list in [&mut found.unmerged, &mut found.changed, &mut found.untracked] {
            list.sort();
            list.dedup();
        }
        Ok(found)
    }

    fn is_staged(&self, path: &Path) -> bool {
        self.tracked.get(path).is_some_and(|it| it.staged && !it.index.is_absent())
    }

    /// Returns the path that occupies the place of a new file, unless the same changes remove it.
    fn occupant(
        &self,
        worktree: &Checkout,
        change: &TreeChange,
        changes: &HashMap<&Path, &TreeChange>,
    ) -> Result<Option<PathBuf>, CommandError> {
        let mut part = PathBuf::new();
        for name in change.path.components() {
            part.push(name);
            let metadata = match fs::symlink_metadata(worktree.join(&part)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                metadata => metadata.ok(),
            };
            if metadata.is_some_and(|it| it.is_dir()) {
                continue;
            }
            let is_removed = changes.get(&*part).is_some_and(|it| !it.old.is_absent() && it.new.is_absent());
            return Ok((!is_removed && !self.is_staged(&part)).then_some(part));
        }
        // The place is a folder: git removes tracked files in it, and the folder itself if it is empty.
        let listed = Git::read(worktree).env("GIT_LITERAL_PATHSPECS", "1").args(["ls-files", "-z", "--others", "--"]);
        let others = listed.arg(&change.path).run()?;
        Ok(others.split(|byte| *byte == 0).find(|it| !it.is_empty()).map(|it| OsStr::from_bytes(it).into()))
    }
}

impl Tracked {
    fn blocks(&self, worktree: &Path, change: &TreeChange) -> bool {
        if self.staged {
            // Git keeps staged content that equals the new content, regardless of the file in the worktree.
            return self.index != change.new && !(self.index.is_absent() && change.new.is_absent());
        }
        let is_missing = || {
            let metadata = fs::symlink_metadata(worktree.join(&change.path));
            metadata.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        };
        // A file that was only deleted is written again, and a submodule's checkout is not touched.
        self.in_worktree && !self.is_submodule && !is_missing()
    }

    fn is_in_index_alone(&self, changes: &HashMap<&Path, &TreeChange>, path: &Path) -> bool {
        !self.index.is_absent() && !changes.contains_key(path)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::git::testing::{Fixture, at};

    /// Creates `main`, which is checked out, and `next`, one commit ahead, with every kind of change.
    fn ahead() -> Fixture {
        let fixture = Fixture::new();
        for path in ["mod.txt", "del.txt", "other.txt", "swap", "fold/a.txt", "run.sh", "deep/er/x.txt"] {
            fixture.write(path, "one\n");
        }
        fixture.write(".gitignore", "*.ign\n");
        fixture.git(&["add", "-A"]);
        fixture.git(&["commit", "-qm", "from"]);
        fixture.git(&["checkout", "-qb", "next"]);
        fixture.write("mod.txt", "two\n");
        for path in ["del.txt", "swap", "fold/a.txt", "deep/er/x.txt"] {
            fs::remove_file(fixture.root().join(path)).unwrap();
        }
        for gone in ["fold", "deep/er", "deep"] {
            fs::remove_dir(fixture.root().join(gone)).unwrap();
        }
        for path in ["swap/in.txt", "fold", "new.txt", "made/new.txt", "made.ign"] {
            fixture.write(path, "two\n");
        }
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(fixture.root().join("run.sh"), mode).unwrap();
        fixture.git(&["add", "-Af"]);
        fixture.git(&["commit", "-qm", "to"]);
        fixture.git(&["checkout", "-q", "main"]);
        fixture
    }

    fn found(fixture: &Fixture) -> BlockingPaths {
        let changes = tree_changes(fixture.repo.read(), "main", "next").unwrap();
        CheckoutState::of(&at(fixture.root())).unwrap().blocking_paths(&at(fixture.root()), &changes).unwrap()
    }

    type Local = (&'static str, fn(&Fixture));

    fn stage(fixture: &Fixture, path: &str, text: &str) {
        fixture.write(path, text);
        fixture.git(&["add", "-f", path]);
    }

    fn remove(fixture: &Fixture, path: &str) {
        let path = fixture.root().join(path);
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }

    fn locals() -> Vec<Local> {
        vec![
            ("nothing", |_| {}),
            ("edit of another file", |f| f.write("other.txt", "mine\n")),
            ("staged edit of another file", |f| stage(f, "other.txt", "mine\n")),
            ("staged new file", |f| stage(f, "mine.txt", "mine\n")),
            ("untracked file", |f| f.write("mine.txt", "mine\n")),
            ("edit of a changed file", |f| f.write("mod.txt", "mine\n")),
            ("the same edit", |f| f.write("mod.txt", "two\n")),
            ("the same edit, staged", |f| stage(f, "mod.txt", "two\n")),
            ("the same edit, staged, and a further one", |f| {
                stage(f, "mod.txt", "two\n");
                f.write("mod.txt", "three\n");
            }),
            ("another edit, staged", |f| stage(f, "mod.txt", "mine\n")),
            ("staged and taken back in the file", |f| {
                stage(f, "mod.txt", "mine\n");
                f.write("mod.txt", "one\n");
            }),
            ("deletion of a changed file", |f| remove(f, "mod.txt")),
            ("staged deletion of a changed file", |f| drop(f.git(&["rm", "-q", "mod.txt"]))),
            ("deletion of a removed file", |f| remove(f, "del.txt")),
            ("staged deletion of a removed file", |f| drop(f.git(&["rm", "-q", "del.txt"]))),
            ("edit of a removed file", |f| f.write("del.txt", "mine\n")),
            ("untracked copy of a removed file", |f| drop(f.git(&["rm", "-q", "--cached", "del.txt"]))),
            ("untracked file in the place of a new one", |f| f.write("new.txt", "mine\n")),
            ("the same file, untracked", |f| f.write("new.txt", "two\n")),
            ("the new file, staged the same", |f| stage(f, "new.txt", "two\n")),
            ("the new file, staged otherwise", |f| stage(f, "new.txt", "mine\n")),
            ("ignored file in the place of a new one", |f| f.write("made.ign", "mine\n")),
            ("file in the place of a new folder", |f| f.write("made", "mine\n")),
            ("link in the place of a new folder", |f| symlink("fold", f.root().join("made")).unwrap()),
            ("dangling link in the place of a new file", |f| symlink("no", f.root().join("new.txt")).unwrap()),
            ("staged file in the place of a new folder", |f| stage(f, "made", "mine\n")),
            ("empty folder in the place of a new file", |f| fs::create_dir(f.root().join("new.txt")).unwrap()),
            ("full folder in the place of a new file", |f| f.write("new.txt/x", "mine\n")),
            ("folder of ignored files there", |f| f.write("new.txt/x.ign", "mine\n")),
            ("staged folder in the place of a new file", |f| stage(f, "new.txt/x", "mine\n")),
            ("untracked file in a folder that becomes a file", |f| f.write("fold/mine.txt", "mine\n")),
            ("ignored file in a folder that becomes a file", |f| f.write("fold/mine.ign", "mine\n")),
            ("staged file in a folder that becomes a file", |f| stage(f, "fold/mine.txt", "mine\n")),
            ("untracked file in a removed folder", |f| f.write("deep/er/mine.txt", "mine\n")),
            ("edit of a file that becomes a folder", |f| f.write("swap", "mine\n")),
            ("folder in the place of that file", |f| {
                remove(f, "swap");
                f.write("swap/mine.txt", "mine\n");
            }),
            ("a folder where a changed file was", |f| {
                remove(f, "mod.txt");
                f.write("mod.txt/mine.txt", "mine\n");
            }),
            ("untracked file in a new folder", |f| f.write("made/mine.txt", "mine\n")),
            ("mode of a file that changes its mode", |f| {
                let mode = fs::Permissions::from_mode(0o755);
                fs::set_permissions(f.root().join("run.sh"), mode).unwrap();
            }),
            ("edit of a file marked as unchanged", |f| {
                f.git(&["update-index", "--assume-unchanged", "mod.txt"]);
                f.write("mod.txt", "mine\n");
            }),
            ("edit of another file marked as unchanged", |f| {
                f.git(&["update-index", "--assume-unchanged", "other.txt"]);
                f.write("other.txt", "mine\n");
            }),
            ("intent to add", |f| {
                f.write("new.txt", "mine\n");
                f.git(&["add", "-N", "new.txt"]);
            }),
        ]
    }

    #[test]
    fn blocking_paths_match_the_decision_of_git() {
        let mut wrong = Vec::new();
        for (name, local) in locals() {
            let fixture = ahead();
            local(&fixture);
            let ours = found(&fixture);
            let merge =
                Git::write(&at(fixture.root())).args(["merge", "--ff-only", "--no-overwrite-ignore", "-q", "next"]);
            let gits = merge.output().unwrap();
            // Git removes the user's staged file here. This program must not.
            let git_loses = ["staged folder in the place of a new file", "staged file in a folder that becomes a file"];
            if git_loses.contains(&name) {
                assert_eq!((ours.changed.len(), gits.code), (1, Some(0)), "{name}");
                continue;
            }
            if (ours == BlockingPaths::default()) != (gits.code == Some(0)) {
                wrong.push(format!("{name}: {ours:?}, git: {}", gits.stderr));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn blocking_paths_are_named() {
        let fixture = ahead();
        for path in ["mod.txt", "other.txt", "made.ign", "fold/b.ign"] {
            fixture.write(path, "mine\n");
        }
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let expected = BlockingPaths {
            unmerged: vec![],
            changed: paths(&["mod.txt"]),
            untracked: paths(&["fold/b.ign", "made.ign"]),
        };
        assert_eq!(found(&fixture), expected);
    }
}
