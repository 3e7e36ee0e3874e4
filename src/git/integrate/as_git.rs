//! Compares computed integrations with the results of `git merge`, `git merge --squash` and `git cherry-pick` in
//! scratch clones of generated repositories. `INTEGRATION_CASES` sets their number; each is identified by its seed.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::git::radar;
use crate::git::testing::{Fixture, at, git, identify};

const CASES: u64 = 60;

/// A pseudorandom generator. The same seed generates the same repository.
struct SeededRandom(u64);

impl SeededRandom {
    fn below(&mut self, limit: usize) -> usize {
        // splitmix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }

    fn choose<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        if all.is_empty() { None } else { Some(&all[self.below(all.len())]) }
    }
}

struct GeneratedRepository {
    fixture: Fixture,
    random: SeededRandom,
    links: usize,
}

impl GeneratedRepository {
    fn new(seed: u64) -> GeneratedRepository {
        let fixture = Fixture::empty(&[]);
        let mut case = GeneratedRepository { fixture, random: SeededRandom(seed), links: 0 };
        for folder in ["a", "b", "c/deep"] {
            for file in ["one.txt", "two.txt", "three.txt"] {
                let lines: String = (0..12).map(|n| format!("{folder} {file} line {n}\n")).collect();
                case.fixture.write(&format!("{folder}/{file}"), &lines);
            }
        }
        fs::write(case.path("a/image.bin"), [0, 1, 2, 3, 0, 255].repeat(40)).unwrap();
        case.fixture.write("run.sh", "#!/bin/sh\necho\n");
        symlink("a/one.txt", case.path("link")).unwrap();
        match case.random.below(6) {
            0 => case.fixture.write(".gitattributes", "*.txt merge=union\n"),
            1 => case.fixture.write(".gitattributes", "b/* -merge\n*.sh text eol=crlf\n"),
            _ => {}
        }
        case.commit(true);
        case.fixture.git(&["branch", "base"]);
        for branch in ["work", "main"] {
            case.fixture.git(&["checkout", "-q", "-B", branch, "base"]);
            for _ in 0..1 + case.random.below(3) {
                let mut link = false;
                for _ in 0..1 + case.random.below(4) {
                    link |= case.change();
                }
                case.commit(link);
            }
        }
        // The result must not depend on the branch that is checked out.
        if case.random.below(2) == 0 {
            case.fixture.git(&["checkout", "-q", "--detach", "base"]);
        }
        case
    }

    fn path(&self, name: &str) -> PathBuf {
        self.fixture.root().join(name)
    }

    /// Commits all changes. With `link`, the submodule moves to another commit, of which only the id exists.
    fn commit(&mut self, link: bool) {
        fs::create_dir_all(self.path("sub")).unwrap();
        self.fixture.git(&["add", "-A"]);
        if link {
            self.links += 1 + self.random.below(2);
            let link = format!("160000,{:040x},sub", self.links + 1);
            self.fixture.git(&["update-index", "--add", "--cacheinfo", &link]);
        }
        self.fixture.git(&["commit", "-q", "--allow-empty", "-m", "change"]);
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        walk(self.fixture.root(), &mut found);
        found.sort();
        found
    }

    /// Makes one change to the checkout. Returns `true` if the next commit shall move the submodule.
    fn change(&mut self) -> bool {
        let files = self.files();
        let Some(file) = self.random.choose(&files).cloned() else { return false };
        let is_text = fs::symlink_metadata(&file).is_ok_and(|it| it.is_file()) && fs::read_to_string(&file).is_ok();
        match self.random.below(12) {
            0..=2 if is_text => self.edit(&file),
            3 => {
                let name = format!("{}/new{}.txt", ["a", "b", "c"][self.random.below(3)], self.random.below(3));
                self.replace(&name, b"new\n");
            }
            4 => fs::remove_file(&file).unwrap(),
            5 | 6 => {
                let to = format!("{}/moved{}.txt", ["a", "b", "d"][self.random.below(3)], self.random.below(3));
                let to = self.path(&to);
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                fs::rename(&file, to).unwrap();
            }
            7 => {
                let (from, to) = (["a", "b", "c"][self.random.below(3)], ["e", "f"][self.random.below(2)]);
                let (from, to) = (self.path(from), self.path(to));
                if from.is_dir() && !to.exists() {
                    fs::rename(from, to).unwrap();
                }
            }
            8 if is_text => {
                let mode = fs::metadata(&file).unwrap().permissions().mode();
                fs::set_permissions(&file, fs::Permissions::from_mode(mode ^ 0o111)).unwrap();
            }
            9 => {
                let bytes = [self.random.below(3) as u8, 0, 7].repeat(30);
                let folder = self.path("a");
                if folder.is_dir() {
                    self.replace("a/image.bin", &bytes);
                }
            }
            10 => {
                fs::remove_file(&file).unwrap();
                symlink(["a/one.txt", "b/two.txt", "nowhere"][self.random.below(3)], &file).unwrap();
            }
            _ => return true,
        }
        false
    }

    /// Writes a file. A symbolic link is replaced, not followed.
    fn replace(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        let _ = fs::remove_file(&path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn edit(&mut self, file: &Path) {
        let text = fs::read_to_string(file).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        if lines.is_empty() {
            return;
        }
        let at = self.random.below(lines.len());
        match self.random.below(3) {
            0 => lines[at] = format!("changed {}", self.random.below(4)),
            1 => lines.insert(at, format!("inserted {}", self.random.below(4))),
            _ => drop(lines.remove(at)),
        }
        fs::write(file, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    }

    /// Returns git's own result: the tree, or the unmerged paths and git's output.
    fn by_git(&self, scratch: &Path, strategy: Strategy) -> Result<String, (BTreeSet<String>, String)> {
        git(scratch, &["checkout", "-q", "-f", "-B", "target", "origin/main"]);
        let command: &[&str] = match strategy {
            Strategy::Merge => &["merge", "--no-edit", "--no-ff", "origin/work"],
            Strategy::Squash => &["merge", "--squash", "origin/work"],
            Strategy::CherryPick => &["cherry-pick", "--keep-redundant-commits", "origin/main..origin/work"],
        };
        let ran = Git::write(&at(scratch)).args(command).output().unwrap();
        let output = String::from_utf8_lossy(&ran.stdout).into_owned() + &ran.stderr;
        let result = match ran.code {
            Some(0) if strategy == Strategy::Squash => Ok(git(scratch, &["write-tree"])),
            Some(0) => Ok(git(scratch, &["rev-parse", "HEAD^{tree}"])),
            Some(1) => {
                let unmerged = Git::read(&at(scratch)).args(["ls-files", "-u", "-z"]).text().unwrap();
                let paths = unmerged.split_terminator('\0').filter_map(|it| Some(own(it.split_once('\t')?.1)));
                Err((paths.collect(), output))
            }
            code => panic!("git {command:?}: {code:?} {output}"),
        };
        let _ = Git::write(&at(scratch)).args(["cherry-pick", "--quit"]).output();
        git(scratch, &["reset", "-q", "--hard"]);
        git(scratch, &["clean", "-ffdxq"]);
        result
    }

    /// Checks that the radar predicts the result of the merge.
    fn check_radar(&self) -> Result<(), String> {
        let repo = &self.fixture.repo;
        let (main, work) = (tip(repo, "main").unwrap(), tip(repo, "work").unwrap());
        let merged = ScratchMerge::new(repo).merge_trees(&main, &work).map_err(|error| error.to_string())?;
        let conflicts: BTreeSet<String> = merged.err().into_iter().flatten().map(|it| it.path).collect();
        let scratch = radar::scratch().map_err(|error| error.to_string())?;
        let predicted = radar::merge_pairs(repo, &main, &[(main.clone(), work)], scratch.path());
        let predicted = predicted.map_err(|error| error.to_string())?;
        let Some(radar::MergeResult { conflicts: predicted, .. }) = &predicted[0] else {
            return Err("no prediction".to_owned());
        };
        if predicted.is_empty() == conflicts.is_empty() && predicted.iter().all(|path| conflicts.contains(path)) {
            return Ok(());
        }
        Err(format!("predicted: {predicted:?}, actual: {conflicts:?}"))
    }

    fn check(&self, scratch: &Path, strategy: Strategy) -> Result<bool, String> {
        let repo = &self.fixture.repo;
        let main = tip(repo, "main").unwrap();
        let (source, message) = ("work".to_owned(), "merge".to_owned());
        let step = IntegrationStep {
            source,
            tip: tip(repo, "work").unwrap(),
            strategy,
            message,
            is_last: true,
            contained: Vec::new(),
            withdrawn: Vec::new(),
        };
        let ours = ScratchMerge::new(repo).stack(&main, &step).map_err(|error| error.to_string())?.0;
        let dry = ScratchMerge::dry(repo).unwrap().stack(&main, &step).map_err(|error| error.to_string())?.0;
        if std::mem::discriminant(&ours) != std::mem::discriminant(&dry) {
            return Err(format!("dry run: {dry:?}, actual: {ours:?}"));
        }
        let tree = |commit: &str| self.fixture.git(&["rev-parse", &format!("{commit}^{{tree}}")]);
        let ours = match ours {
            Stacked::Clean(commit) => Ok(tree(&commit)),
            Stacked::Nothing => Ok(tree(&main)),
            Stacked::Conflicts(conflicts) => Err(conflicts),
        };
        match (ours, self.by_git(scratch, strategy)) {
            (Ok(ours), Ok(gits)) if ours == gits => Ok(true),
            (Err(ours), Err((unmerged, output))) => {
                let paths: BTreeSet<String> = ours.iter().map(|it| it.path.clone()).collect();
                let missing: Vec<_> = unmerged.difference(&paths).collect();
                let strange: Vec<_> =
                    paths.difference(&unmerged).filter(|path| !output.contains(path.as_str())).collect();
                let have_kinds = ours.iter().all(|it| !it.kind.is_empty());
                if missing.is_empty() && strange.is_empty() && have_kinds {
                    return Ok(false);
                }
                Err(format!("ours: {ours:?}\nmissing: {missing:?}, strange: {strange:?}\ngit: {output}"))
            }
            (ours, gits) => Err(format!("ours: {ours:?}\ngit's: {gits:?}")),
        }
    }
}

/// Removes the name of a side, which git appends if both sides need the same path.
fn own(path: &str) -> String {
    path.split('~').next().unwrap_or_default().to_owned()
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() && entry.file_name() != ".git" {
            walk(&entry.path(), found);
        } else if !kind.is_dir() && entry.file_name() != ".gitattributes" {
            found.push(entry.path());
        }
    }
}

#[test]
fn trees_and_conflicts_equal_those_of_git() {
    let cases = std::env::var("INTEGRATION_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let (next, counts, wrong) = (AtomicU64::new(0), Mutex::new([0; 2]), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= cases {
                        return;
                    }
                    let case = GeneratedRepository::new(seed);
                    let scratch = case.fixture.beside("scratch");
                    case.fixture.git(&["clone", "-q", "--shared", "--no-checkout", ".", scratch.to_str().unwrap()]);
                    identify(&scratch);
                    if let Err(why) = case.check_radar() {
                        wrong.lock().unwrap().push(format!("seed {seed}, radar: {why}"));
                    }
                    for strategy in [Strategy::Merge, Strategy::Squash, Strategy::CherryPick] {
                        match case.check(&scratch, strategy) {
                            Ok(clean) => counts.lock().unwrap()[usize::from(clean)] += 1,
                            Err(why) => wrong.lock().unwrap().push(format!("seed {seed}, {strategy:?}: {why}")),
                        }
                    }
                }
            });
        }
    });
    let (counts, wrong) = (counts.into_inner().unwrap(), wrong.into_inner().unwrap());
    eprintln!("{cases} repositories, each merged in three ways: {} clean, {} with conflicts", counts[1], counts[0]);
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases * 3, wrong.join("\n\n"));
    assert!(counts.iter().all(|count| *count > 0), "all ended alike: {counts:?}");
}
