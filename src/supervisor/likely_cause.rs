//! The likely cause of a failed verification, if the work does not seem to be at fault. The worktree may lack files
//! that git does not bring into it: installed dependencies, submodules, local files. Or the base may fail too. The base
//! is verified in a fresh worktree, only after a failure, and once for each command and commit. Workers with the same
//! base share the result for a while.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::finish::{blocking, called_off};
use super::run::Attempt;
use super::verification_run;
use crate::attempt::sockets;
use crate::attempt::state_dir::StateDir;
use crate::attempt::verification::{self, VerificationAssignment};
use crate::attempt::verification_dir::VerificationDir;
use crate::files;
use crate::files::lease::{self, Lease};
use crate::git::{self, LackKind, Repository};
use crate::mission::id::ServerId;
use crate::mission::outcome::{LikelyCause, Missing, MissingKind, Verification};
use crate::process;

/// Maximum time by which this delays a settlement. The limit is lower after a short verification: three times its
/// duration, plus `LEAST`.
const LONGEST: Duration = Duration::from_secs(300);
const LEAST: Duration = Duration::from_secs(30);
/// Number of results that are kept.
const KEPT: usize = 100;
/// Time after which a base is verified again: the command may use other things than the commit.
const EXPIRY: Duration = Duration::from_secs(3_600);

/// The result of verifying a base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Base {
    Passes,
    Fails,
    /// No result: it took too long, or could not be verified.
    Unknown,
}

/// A result that is kept for the other workers with the same base.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    commit: String,
    command: String,
    base: Base,
}

impl Attempt {
    /// Determines the likely cause of a failed verification. `None` if there is no evidence, or in a user's own
    /// directory.
    pub(super) async fn likely_cause(&mut self, command: &str, found: &Verification) -> Option<LikelyCause> {
        let (seconds, commit) = match found {
            Verification::Failed { seconds, commit, .. } => (*seconds, commit.clone()),
            Verification::TimedOut { .. } | Verification::CouldNotRun { .. } => (0.0, None),
            _ => return None,
        };
        let repository = self.assignment.repository.clone().filter(|_| self.assignment.ours)?;
        let base = self.assignment.base_commit.clone()?;
        let worktree = self.assignment.mission.place.path().to_owned();
        let (inner, place, verification) = (repository.clone(), worktree.clone(), found.clone());
        let lacks = blocking(move || missing(&inner, &place, &verification)).await;
        let tried = match found {
            // The base would take as long again.
            Verification::TimedOut { .. } => Base::Unknown,
            // The worker changed nothing, so the base itself was verified.
            _ if commit.as_ref() == Some(&base) => Base::Fails,
            _ => {
                let allowance = Duration::from_secs_f64(seconds * 3.0).saturating_add(LEAST).min(LONGEST);
                self.board.set_phase(crate::attempt::status::Phase::Verifying, "verifying what it began at");
                self.base(&repository, &worktree, &base, command, allowance).await
            }
        };
        judge(lacks, tried, base)
    }

    /// Returns the known result for a base, or verifies it while other workers with the same base wait.
    async fn base(
        &mut self,
        repository: &Repository,
        worktree: &Path,
        commit: &str,
        command: &str,
        allowance: Duration,
    ) -> Base {
        let state = self.dir.state_dir();
        // The same command in another folder may have another result.
        let folder = self.assignment.mission.place.subfolder();
        let asked = folder.map_or_else(|| command.to_owned(), |folder| format!("{}: {command}", folder.display()));
        let shelf = Shelf::of(&state, commit, &asked);
        let began = Instant::now();
        let _turn = loop {
            match shelf.take() {
                Ok(Some(turn)) => break turn,
                Ok(None) if began.elapsed() < allowance && !self.inbox.is_over() => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                _ => return Base::Unknown,
            }
        };
        if let Some(known) = shelf.read(commit, &asked) {
            return known;
        }
        let base = self.try_base(&state, repository, worktree, commit, command, allowance).await;
        shelf.keep(&Answer { commit: commit.to_owned(), command: asked, base });
        base
    }

    /// Verifies a base in a fresh worktree.
    async fn try_base(
        &mut self,
        state: &StateDir,
        repository: &Repository,
        worktree: &Path,
        commit: &str,
        command: &str,
        allowance: Duration,
    ) -> Base {
        let Some(configuration) = self.assignment.configuration.clone() else { return Base::Unknown };
        // Named after the worker: no server has this name, so any server removes the folder if this process is killed.
        let dir = VerificationDir::new(state, &ServerId::from(self.assignment.worker_id.as_str()));
        let run = VerificationAssignment {
            tag: process::tag_at_depth(
                format!("base.{}", Uuid::new_v4().simple()),
                process::depth_of(&self.assignment.tag),
            ),
            repository: repository.clone(),
            configuration,
            tree: beside(repository, worktree),
            directory: self.assignment.mission.place.subfolder().map(Path::to_owned),
            commit: commit.to_owned(),
            command: command.to_owned(),
            sockets: self.assignment.socket.parent().map(sockets::new_folder_in),
            settings: self.assignment.settings.clone(),
        };
        if let Err(error) = dir.create(&run) {
            tracing::warn!(%error, "the base could not be tried");
            return Base::Unknown;
        }
        let Ok(Some(_lease)) = lease::take(&dir.lock()) else { return Base::Unknown };
        let unwanted = CancellationToken::new();
        let found = {
            let proving = verification_run::verify_commit(&run, &dir, self.me, &unwanted);
            tokio::pin!(proving);
            let stopped = async {
                tokio::select! {
                    () = called_off(&mut self.inbox, &self.dir) => {}
                    () = tokio::time::sleep(allowance) => {}
                }
            };
            tokio::select! {
                found = &mut proving => found,
                () = stopped => {
                    unwanted.cancel();
                    proving.await
                }
            }
        };
        let was_made = run.tree(&dir).join(".git").exists();
        let (tree, other) = (run.tree(&dir), worktree.to_owned());
        // A fresh worktree may fail only because it lacks dependencies that the worker has installed for itself.
        let is_fair = blocking(move || git::is_better_equipped(&other, &tree).is_ok_and(|better| !better)).await;
        let (made, place) = (run.clone(), dir.clone());
        let removed = blocking(move || made.remove_tree(&place)).await;
        if let Err(error) =
            removed.map_err(|error| error.to_string()).and_then(|()| dir.remove().map_err(|it| it.to_string()))
        {
            tracing::warn!(error, "the worktree in which the base was tried could not be taken away");
        }
        match found {
            Some(Verification::Passed { .. }) => Base::Passes,
            Some(Verification::Failed { .. } | Verification::CouldNotRun { .. }) if was_made && is_fair => Base::Fails,
            _ => Base::Unknown,
        }
    }
}

/// Returns a path beside the worker's own worktree, so that both have the same parent folders. `None` within the user's
/// checkout.
fn beside(repository: &Repository, worktree: &Path) -> Option<PathBuf> {
    let folder = worktree.parent().filter(|folder| !folder.starts_with(repository.root()))?;
    Some(folder.join(verification::tree_name()))
}

/// Decides on the cause. Missing files count only if the base fails too, or if the command's output points to one.
fn judge(lacks: Vec<Missing>, base: Base, commit: String) -> Option<LikelyCause> {
    let cause = match base {
        Base::Passes => return None,
        Base::Fails => LikelyCause { lacks, fails_without: Some(commit) },
        Base::Unknown if lacks.iter().any(|lack| lack.named) => LikelyCause { lacks, fails_without: None },
        Base::Unknown => return None,
    };
    (cause != LikelyCause::default()).then_some(cause)
}

/// Returns how surely the output points to a missing file or folder: 3 by its path, 2 by its name, 1 by the words of a
/// package manager or shell, 0 not at all.
/// `roots` are the names of the folders that contain the repository's files.
fn evidence(said: &str, main: &Path, roots: &[String], lack: &Missing) -> u8 {
    let path = Path::new(&lack.path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let folders: Vec<String> = match path.parent().and_then(Path::file_name) {
        Some(parent) => vec![parent.to_string_lossy().into_owned()],
        None => roots.to_vec(),
    };
    if mentions(said, &lack.path, roots) {
        3
    } else if mentions(said, &name, &folders) {
        2
    } else {
        u8::from(lack.kind == MissingKind::Dependencies && misses_installed(said, &name, &main.join(&lack.path)))
    }
}

/// Returns whether the text has this path or name, not only as a part of a longer word, and not in another folder than
/// `folders`. A name that may be a word of prose (`data`, `node_modules`) counts only beside a slash or on a line about
/// something that is missing.
fn mentions(said: &str, path: &str, folders: &[String]) -> bool {
    const MISSING: [&str; 6] = ["No such file", "ENOENT", "not found", "Cannot find", "does not exist", "missing"];
    let of_a_name = |it: char| it.is_alphanumeric() || "._-".contains(it);
    let is_word = path.chars().all(|it| it.is_alphanumeric() || it == '_');
    said.lines().any(|line| {
        let about = MISSING.iter().any(|words| line.contains(words));
        !path.is_empty()
            && line.match_indices(path).any(|(at, _)| {
                let (before, after) = (line[..at].chars().next_back(), line[at + path.len()..].chars().next());
                // A full stop may end the sentence.
                let goes_on = match after {
                    Some('.') => line[at + path.len() + 1..].starts_with(of_a_name),
                    after => after.is_some_and(of_a_name),
                };
                let bounded = !before.is_some_and(of_a_name) && !goes_on && is_in_one_of(folders, &line[..at]);
                bounded && (!is_word || about || before == Some('/') || after == Some('/'))
            })
    })
}

/// Returns whether a path that begins as `before` is in one of these folders, or does not name its folder.
fn is_in_one_of(folders: &[String], before: &str) -> bool {
    let Some(before) = before.strip_suffix('/') else { return true };
    let is_of_a_name = |it: char| it.is_alphanumeric() || "._-@~".contains(it);
    let folder = before.rsplit(|it| !is_of_a_name(it)).next().unwrap_or_default();
    ["", ".", "..", "@", "~"].contains(&folder) || folders.iter().any(|it| it == folder)
}

/// Returns whether a package manager or a shell missed something that this folder of installed dependencies has.
/// `folder` is that of the main checkout.
fn misses_installed(said: &str, name: &str, folder: &Path) -> bool {
    let says = |words: &[&str]| words.iter().any(|words| said.contains(words));
    let modules = || {
        let named = ["Cannot find module ", "Cannot find package "].iter().flat_map(|words| said.split(words).skip(1));
        named.map(|rest| rest.trim_start_matches(['\'', '"', '`'])).any(|rest| !rest.starts_with(['.', '/']))
    };
    let by_manager = match name {
        "node_modules" | ".pnp.cjs" => modules(),
        "vendor" | "bundle" | ".bundle" => says(&["vendor/autoload.php", "cannot find package", "bundler: failed"]),
        _ if folder.join("pyvenv.cfg").exists() || name == "site-packages" => {
            says(&["ModuleNotFoundError", "No module named"])
        }
        _ => false,
    };
    by_manager || commands_not_found(said).any(|command| has_program(folder, command))
}

/// Returns the commands that a shell did not find: `sh: 1: tsc: not found`, `bash: line 1: tsc: command not found`.
fn commands_not_found(said: &str) -> impl Iterator<Item = &str> {
    said.lines().filter_map(|line| {
        let before = line.split_once(": command not found").or_else(|| line.split_once(": not found"))?.0;
        before.rsplit(": ").next().map(str::trim).filter(|command| !command.is_empty() && !command.contains('/'))
    })
}

fn has_program(folder: &Path, command: &str) -> bool {
    [".bin", "bin"].iter().any(|place| folder.join(place).join(command).exists())
}

/// Lists what a worktree lacks, as far as it matters, in the order of the evidence in the command's output. Untracked
/// files count only if the output names them.
pub(super) fn missing(repository: &Repository, worktree: &Path, found: &Verification) -> Vec<Missing> {
    if matches!(found, Verification::Passed { .. }) {
        return Vec::new();
    }
    let Some(main) = &repository.main_worktree else { return Vec::new() };
    let said = found.note().unwrap_or_default();
    let lacks = git::lacks(main, worktree).unwrap_or_else(|error| {
        tracing::warn!(%error, "could not look what the worktree lacks");
        Vec::new()
    });
    let lacks = lacks.into_iter().map(|lack| Missing { kind: kind(lack.kind), path: lack.path, named: false });
    let name = |folder: &Path| Some(folder.file_name()?.to_string_lossy().into_owned());
    let roots: Vec<String> = [worktree, main].into_iter().filter_map(name).collect();
    ranked(&said, main, &roots, lacks.collect())
}

fn ranked(said: &str, main: &Path, roots: &[String], lacks: Vec<Missing>) -> Vec<Missing> {
    let ranked = lacks.into_iter().map(|lack| (evidence(said, main, roots, &lack), lack));
    let mut ranked: Vec<_> = ranked.filter(|(rank, lack)| *rank > 0 || lack.kind != MissingKind::Untracked).collect();
    // The longer path says more: `app/node_modules` has the name `node_modules` in it.
    ranked.sort_by_key(|(rank, lack)| std::cmp::Reverse((*rank, if *rank > 1 { lack.path.len() } else { 0 })));
    let best = ranked.first().map_or(0, |(rank, _)| *rank);
    ranked.into_iter().map(|(rank, lack)| Missing { named: rank > 0 && rank == best, ..lack }).collect()
}

fn kind(kind: LackKind) -> MissingKind {
    match kind {
        LackKind::Dependencies => MissingKind::Dependencies,
        LackKind::Submodule => MissingKind::Submodule,
        LackKind::LargeFile => MissingKind::LargeFile,
        LackKind::Encrypted => MissingKind::Encrypted,
        LackKind::LocalFile => MissingKind::LocalFile,
        LackKind::Untracked => MissingKind::Untracked,
    }
}

/// The place where the result for one commit and command is kept, with the lock for determining it.
struct Shelf {
    folder: PathBuf,
    name: String,
}

impl Shelf {
    fn of(state: &StateDir, commit: &str, command: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        command.hash(&mut hasher);
        Self { folder: state.bases(), name: format!("{commit}-{:016x}", hasher.finish()) }
    }

    fn path(&self) -> PathBuf {
        self.folder.join(format!("{}.json", self.name))
    }

    fn take(&self) -> Result<Option<Lease>, files::FileError> {
        let state = self.folder.parent().unwrap_or(&self.folder);
        files::refuse_no_folder(&self.folder)?;
        files::make_private_dir_within(state, &self.folder)?;
        lease::take(&self.folder.join(format!("{}.lock", self.name)))
    }

    fn read(&self, commit: &str, command: &str) -> Option<Base> {
        let path = self.path();
        // A time in the future is that of another clock.
        let age = path.metadata().ok()?.modified().ok()?.elapsed().ok()?;
        let answer: Answer = files::read_json(&path).ok().flatten().filter(|_| age < EXPIRY)?;
        (answer.commit == commit && answer.command == command).then_some(answer.base)
    }

    /// Keeps a result, unless it is unknown: the next worker may learn more. Removes the oldest ones.
    fn keep(&self, answer: &Answer) {
        let kept = || files::replace_json(&self.path(), answer, false);
        if let Err(error) = (answer.base != Base::Unknown).then(kept).transpose() {
            tracing::warn!(%error, "what was found out of a base could not be kept");
        }
        let locks = fs::read_dir(&self.folder).into_iter().flatten().flatten().filter_map(|it| {
            let is_lock = it.path().extension().is_some_and(|extension| extension == "lock");
            is_lock.then_some((it.metadata().ok()?.modified().ok()?, it.path()))
        });
        let mut locks: Vec<_> = locks.collect();
        locks.sort();
        for (_, lock) in locks.iter().rev().skip(KEPT) {
            // A lock that a process holds stays, or another process would take a new one in its place.
            if let Ok(Some(_lease)) = lease::take(lock) {
                let _ = fs::remove_file(lock.with_extension("json"));
                let _ = fs::remove_file(lock);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lack(path: &str) -> Missing {
        Missing { path: path.to_owned(), kind: MissingKind::Dependencies, named: false }
    }

    fn shelf(state: &StateDir, commit: &str) -> (Shelf, Lease) {
        let shelf = Shelf::of(state, commit, "make");
        let lease = shelf.take().unwrap().unwrap();
        (shelf, lease)
    }

    fn answer(commit: &str, base: Base) -> Answer {
        Answer { commit: commit.to_owned(), command: "make".to_owned(), base }
    }

    #[test]
    fn a_result_expires_and_an_unknown_one_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (shelf, _lease) = shelf(&StateDir::at(folder.path()), "c");
        shelf.keep(&answer("c", Base::Unknown));
        assert_eq!(shelf.read("c", "make"), None);
        shelf.keep(&answer("c", Base::Fails));
        assert_eq!((shelf.read("c", "make"), shelf.read("c", "test")), (Some(Base::Fails), None));
        let file = fs::File::options().append(true).open(shelf.path()).unwrap();
        file.set_modified(std::time::SystemTime::now() - EXPIRY).unwrap();
        assert_eq!(shelf.read("c", "make"), None);
    }

    #[test]
    fn only_locks_that_no_process_holds_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::at(folder.path());
        let old = std::time::SystemTime::now() - EXPIRY;
        let held = ["held", "free"].map(|commit| {
            let (shelf, lease) = shelf(&state, commit);
            shelf.keep(&answer(commit, Base::Fails));
            let lock = shelf.path().with_extension("lock");
            fs::File::options().append(true).open(&lock).unwrap().set_modified(old).unwrap();
            (lock, (commit == "held").then_some(lease))
        });
        for n in 0..KEPT {
            let commit = n.to_string();
            shelf(&state, &commit).0.keep(&answer(&commit, Base::Passes));
        }
        let is_there = |lock: &Path| (lock.exists(), lock.with_extension("json").exists());
        assert_eq!(held.map(|(lock, _)| is_there(&lock)), [(true, true), (false, false)]);
    }

    #[test]
    fn what_is_missing_is_a_cause_only_with_evidence() {
        let judge = |named: &[bool], base| {
            let lacks = named.iter().map(|named| Missing { named: *named, ..lack("node_modules") }).collect();
            judge(lacks, base, "c".to_owned())
        };
        assert_eq!(judge(&[true], Base::Passes), None, "the work is to blame");
        assert_eq!(judge(&[false], Base::Unknown), None);
        assert_eq!(judge(&[], Base::Unknown), None);
        let words = |cause: Option<LikelyCause>| cause.expect("there is one").words();
        let found = words(judge(&[true], Base::Unknown));
        assert_eq!(found, "the worktree lacks what the main checkout has: node_modules (installed dependencies)");
        let found = words(judge(&[], Base::Fails));
        assert_eq!(found, "the command fails in a fresh worktree of c, without this work, too");
        assert!(words(judge(&[true], Base::Fails)).contains("node_modules (installed dependencies); the command"));
        let cause = judge(&[false], Base::Fails).expect("the base fails");
        assert_eq!(cause.fix(), None);
        assert!(cause.words().contains("only possible") && cause.short() == "base fails too", "{}", cause.words());
    }

    #[test]
    fn what_the_output_points_to_comes_first() {
        let main = tempfile::tempdir().unwrap();
        for path in ["node_modules/.bin/tsc", ".venv/pyvenv.cfg"] {
            let path = main.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let named = |said: &str| {
            use MissingKind::{LocalFile, Untracked};
            let rest = [(".env", LocalFile), ("gen", Untracked), ("data", LocalFile)];
            let rest = rest.map(|(path, kind)| Missing { kind, ..lack(path) });
            let folders = [".venv", "node_modules", "pkg/app/node_modules"].map(lack);
            let roots = ["w-1-fix".to_owned()];
            let found = ranked(said, main.path(), &roots, folders.into_iter().chain(rest).collect());
            found.into_iter().filter(|lack| lack.named).map(|lack| lack.path).collect::<Vec<_>>()
        };
        let cases: [(&str, &[&str]); 20] = [
            ("cat: .env: No such file or directory", &[".env"]),
            ("could not read .env.", &[".env"]),
            ("cat: gen/g.js: No such file or directory", &["gen"]),
            ("cat: data: No such file or directory", &["data"]),
            ("cat: node_modules/y/i: No such file", &["node_modules"]),
            ("open pkg/app/node_modules/y: no", &["pkg/app/node_modules"]),
            ("cannot open /work/w-1-fix/gen/g.js", &["gen"]),
            ("cannot open ../gen/g.js", &["gen"]),
            ("FAIL tests/gen/api.test.js: expected 1", &[]),
            ("cannot open /work/w-1-fix/tests/gen/g.js", &[]),
            ("warning: node_modules is ignored by eslint", &[]),
            ("node_modules missing, run npm install", &["node_modules"]),
            ("Error: Cannot find module 'left-pad'", &["node_modules", "pkg/app/node_modules"]),
            ("Error: Cannot find module './left'", &[]),
            ("ModuleNotFoundError: No module named 'yaml'", &[".venv"]),
            ("sh: 1: tsc: not found", &["node_modules"]),
            ("sh: 1: no-such-cmd: not found", &[]),
            ("expected data to be 1, generated .env.example and .environment", &[]),
            ("1 test failed", &[]),
            ("", &[]),
        ];
        for (said, expected) in cases {
            assert_eq!(named(said), expected, "{said}");
        }
    }
}
