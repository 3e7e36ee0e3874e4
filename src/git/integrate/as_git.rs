//! Comparison of computed integrations with the results of `git merge`, `git merge --squash` and `git cherry-pick` in a
//! scratch clone of generated repositories. `INTEGRATION_CASES` sets their number; each is identified by its seed.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::git::radar;
use crate::git::testing::{Fixture, git};

const CASES: u64 = 60;

/// Numbers that only look random: the same seed makes the same repository.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        // splitmix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % sides as u64) as usize
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        if all.is_empty() { None } else { Some(&all[self.roll(all.len())]) }
    }
}

struct Case {
    fixture: Fixture,
    dice: Dice,
    links: usize,
}

impl Case {
    fn new(seed: u64) -> Case {
        let fixture = Fixture::empty(&[]);
        let mut case = Case { fixture, dice: Dice(seed), links: 0 };
        for folder in ["a", "b", "c/deep"] {
            for file in ["one.txt", "two.txt", "three.txt"] {
                let lines: String = (0..12).map(|n| format!("{folder} {file} line {n}\n")).collect();
                case.fixture.write(&format!("{folder}/{file}"), &lines);
            }
        }
        fs::write(case.path("a/image.bin"), [0, 1, 2, 3, 0, 255].repeat(40)).unwrap();
        case.fixture.write("run.sh", "#!/bin/sh\necho\n");
        symlink("a/one.txt", case.path("link")).unwrap();
        match case.dice.roll(6) {
            0 => case.fixture.write(".gitattributes", "*.txt merge=union\n"),
            1 => case.fixture.write(".gitattributes", "b/* -merge\n*.sh text eol=crlf\n"),
            _ => {}
        }
        case.commit(true);
        case.fixture.git(&["branch", "base"]);
        for branch in ["work", "main"] {
            case.fixture.git(&["checkout", "-q", "-B", branch, "base"]);
            for _ in 0..1 + case.dice.roll(3) {
                let mut link = false;
                for _ in 0..1 + case.dice.roll(4) {
                    link |= case.change();
                }
                case.commit(link);
            }
        }
        // What is checked out has no say.
        if case.dice.roll(2) == 0 {
            case.fixture.git(&["checkout", "-q", "--detach", "base"]);
        }
        case
    }

    fn path(&self, name: &str) -> PathBuf {
        self.fixture.root().join(name)
    }

    /// With another commit of a submodule, of which only the id is known.
    fn commit(&mut self, link: bool) {
        fs::create_dir_all(self.path("sub")).unwrap();
        self.fixture.git(&["add", "-A"]);
        if link {
            self.links += 1 + self.dice.roll(2);
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

    /// One change of the checkout; `true`: the submodule is to change with the commit.
    fn change(&mut self) -> bool {
        let files = self.files();
        let Some(file) = self.dice.one_of(&files).cloned() else { return false };
        let is_text = fs::symlink_metadata(&file).is_ok_and(|it| it.is_file()) && fs::read_to_string(&file).is_ok();
        match self.dice.roll(12) {
            0..=2 if is_text => self.edit(&file),
            3 => {
                let name = format!("{}/new{}.txt", ["a", "b", "c"][self.dice.roll(3)], self.dice.roll(3));
                self.replace(&name, b"new\n");
            }
            4 => fs::remove_file(&file).unwrap(),
            5 | 6 => {
                let to = format!("{}/moved{}.txt", ["a", "b", "d"][self.dice.roll(3)], self.dice.roll(3));
                let to = self.path(&to);
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                fs::rename(&file, to).unwrap();
            }
            7 => {
                let (from, to) = (["a", "b", "c"][self.dice.roll(3)], ["e", "f"][self.dice.roll(2)]);
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
                let bytes = [self.dice.roll(3) as u8, 0, 7].repeat(30);
                let folder = self.path("a");
                if folder.is_dir() {
                    self.replace("a/image.bin", &bytes);
                }
            }
            10 => {
                fs::remove_file(&file).unwrap();
                symlink(["a/one.txt", "b/two.txt", "nowhere"][self.dice.roll(3)], &file).unwrap();
            }
            _ => return true,
        }
        false
    }

    /// Not through a symlink.
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
        let at = self.dice.roll(lines.len());
        match self.dice.roll(3) {
            0 => lines[at] = format!("changed {}", self.dice.roll(4)),
            1 => lines.insert(at, format!("inserted {}", self.dice.roll(4))),
            _ => drop(lines.remove(at)),
        }
        fs::write(file, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    }

    /// What git itself makes of it: the tree, or the unmerged paths and what it said.
    fn by_git(&self, scratch: &Path, strategy: Strategy) -> Result<String, (BTreeSet<String>, String)> {
        git(scratch, &["checkout", "-q", "-f", "-B", "target", "origin/main"]);
        let command: &[&str] = match strategy {
            Strategy::Merge => &["merge", "--no-edit", "--no-ff", "origin/work"],
            Strategy::Squash => &["merge", "--squash", "origin/work"],
            Strategy::CherryPick => &["cherry-pick", "--keep-redundant-commits", "origin/main..origin/work"],
        };
        let ran = Git::write(scratch).args(command).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stdout).into_owned() + &ran.stderr;
        let result = match ran.code {
            Some(0) if strategy == Strategy::Squash => Ok(git(scratch, &["write-tree"])),
            Some(0) => Ok(git(scratch, &["rev-parse", "HEAD^{tree}"])),
            Some(1) => {
                let unmerged = Git::read(scratch).args(["ls-files", "-u", "-z"]).text().unwrap();
                let paths = unmerged.split_terminator('\0').filter_map(|it| Some(own(it.split_once('\t')?.1)));
                Err((paths.collect(), said))
            }
            code => panic!("git {command:?}: {code:?} {said}"),
        };
        let _ = Git::write(scratch).args(["cherry-pick", "--quit"]).output();
        git(scratch, &["reset", "-q", "--hard"]);
        git(scratch, &["clean", "-ffdxq"]);
        result
    }

    /// What is foretold is what a merge comes to.
    fn check_radar(&self) -> Result<(), String> {
        let repo = &self.fixture.repo;
        let (main, work) = (tip(repo, "main").unwrap(), tip(repo, "work").unwrap());
        let merged = ScratchMerge::new(repo).merge_trees(&main, &work).map_err(|error| error.to_string())?;
        let conflicts: BTreeSet<String> = merged.err().into_iter().flatten().map(|it| it.path).collect();
        let scratch = radar::scratch().map_err(|error| error.to_string())?;
        let foretold = radar::collisions(repo, &main, &[(main.clone(), work)], scratch.path());
        let foretold = foretold.map_err(|error| error.to_string())?;
        let Some(foretold) = &foretold[0] else { return Err("nothing is foretold".to_owned()) };
        match foretold.is_empty() == conflicts.is_empty() && foretold.iter().all(|path| conflicts.contains(path)) {
            true => Ok(()),
            false => Err(format!("foretold: {foretold:?}, and then it is {conflicts:?}")),
        }
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
            return Err(format!("a dry run says {dry:?}, and then it is {ours:?}"));
        }
        let tree = |commit: &str| self.fixture.git(&["rev-parse", &format!("{commit}^{{tree}}")]);
        let ours = match ours {
            Stacked::Clean(commit) => Ok(tree(&commit)),
            Stacked::Nothing => Ok(tree(&main)),
            Stacked::Conflicts(conflicts) => Err(conflicts),
        };
        match (ours, self.by_git(scratch, strategy)) {
            (Ok(ours), Ok(gits)) if ours == gits => Ok(true),
            (Err(ours), Err((unmerged, said))) => {
                let paths: BTreeSet<String> = ours.iter().map(|it| it.path.clone()).collect();
                let missing: Vec<_> = unmerged.difference(&paths).collect();
                let strange: Vec<_> =
                    paths.difference(&unmerged).filter(|path| !said.contains(path.as_str())).collect();
                let none_without_word = ours.iter().all(|it| !it.kind.is_empty());
                match missing.is_empty() && strange.is_empty() && none_without_word {
                    true => Ok(false),
                    false => Err(format!("ours: {ours:?}\nmissing: {missing:?}, strange: {strange:?}\ngit: {said}")),
                }
            }
            (ours, gits) => Err(format!("ours: {ours:?}\ngit's: {gits:?}")),
        }
    }
}

/// Where one side of a path was moved aside, git adds a name of the side.
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
fn trees_and_conflicts_are_those_of_git_itself() {
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
                    let case = Case::new(seed);
                    let scratch = case.fixture.beside("scratch");
                    case.fixture.git(&["clone", "-q", "--shared", "--no-checkout", ".", scratch.to_str().unwrap()]);
                    for setting in [["user.name", "S"], ["user.email", "s@example.org"]] {
                        git(&scratch, &[&["config"][..], &setting].concat());
                    }
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
