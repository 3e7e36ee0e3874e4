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

use super::apart;
use super::finish::{blocking, called_off};
use super::run::Attempt;
use super::trial::{self, Trial};
use crate::git::{self, LackKind, Repository};
use crate::mission::id::ServerId;
use crate::mission::outcome::{LikelyCause, Missing, MissingKind, Verification};
use crate::process;
use crate::store::file;
use crate::store::lease::{self, Lease};
use crate::store::state_dir::StateDir;
use crate::store::trial_dir::TrialDir;

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
                self.board.set_phase(super::assignment::Phase::Verifying, "verifying what it began at");
                self.base(&repository, &worktree, &base, command, allowance).await
            }
        };
        judge(lacks, tried, base, &said(found))
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
        let Some(state) = self.dir.root().ancestors().nth(4).map(StateDir::at) else { return Base::Unknown };
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
        let dir = TrialDir::new(state, &ServerId::from(self.assignment.worker_id.as_str()));
        let trial = Trial {
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
            sockets: self.assignment.socket.parent().map(apart::new_folder_in),
            settings: self.assignment.settings.clone(),
        };
        if let Err(error) = dir.create(&trial) {
            tracing::warn!(%error, "the base could not be tried");
            return Base::Unknown;
        }
        let Ok(Some(_lease)) = lease::take(&dir.lock()) else { return Base::Unknown };
        let unwanted = CancellationToken::new();
        let found = {
            let proving = trial::prove(&trial, &dir, self.me, &unwanted);
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
        let was_made = trial.tree(&dir).join(".git").exists();
        let (tree, other) = (trial.tree(&dir), worktree.to_owned());
        // A fresh worktree may fail only because it lacks dependencies that the worker has installed for itself.
        let is_fair = blocking(move || git::is_better_equipped(&other, &tree).is_ok_and(|better| !better)).await;
        let (made, place) = (trial.clone(), dir.clone());
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
    Some(folder.join(trial::tree_name()))
}

/// Decides on the cause. Missing files count only if the base fails too, or if the command's output points to them.
fn judge(lacks: Vec<Missing>, base: Base, commit: String, said: &str) -> Option<LikelyCause> {
    let cause = match base {
        Base::Passes => return None,
        Base::Fails => LikelyCause { lacks, fails_without: Some(commit) },
        Base::Unknown => {
            LikelyCause { lacks: if speaks_of_a_lack(said, &lacks) { lacks } else { Vec::new() }, fails_without: None }
        }
    };
    (cause != LikelyCause::default()).then_some(cause)
}

fn speaks_of_a_lack(said: &str, lacks: &[Missing]) -> bool {
    const WORDS: [&str; 9] = [
        "command not found",
        ": not found",
        "Cannot find module",
        "Cannot find package",
        "ModuleNotFoundError",
        "No module named",
        "vendor/autoload.php",
        "cannot find package",
        "bundler: failed",
    ];
    WORDS.iter().any(|words| said.contains(words)) || lacks.iter().any(|lack| is_named(said, lack))
}

fn is_named(said: &str, lack: &Missing) -> bool {
    let name = Path::new(&lack.path).file_name().unwrap_or_default().to_string_lossy();
    said.contains(name.as_ref())
}

/// Lists what a worktree lacks, as far as it matters. Untracked files count only if the command's output names them.
pub(super) fn missing(repository: &Repository, worktree: &Path, found: &Verification) -> Vec<Missing> {
    if matches!(found, Verification::Passed { .. }) {
        return Vec::new();
    }
    let Some(main) = &repository.main_worktree else { return Vec::new() };
    let said = said(found);
    let lacks = git::lacks(main, worktree).unwrap_or_else(|error| {
        tracing::warn!(%error, "could not look what the worktree lacks");
        Vec::new()
    });
    let missing = lacks.into_iter().map(|lack| Missing { kind: kind(lack.kind), path: lack.path });
    missing.filter(|lack| lack.kind != MissingKind::Untracked || is_named(&said, lack)).collect()
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

fn said(found: &Verification) -> String {
    found.note().unwrap_or_default()
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

    fn take(&self) -> Result<Option<Lease>, file::FileError> {
        let state = self.folder.parent().unwrap_or(&self.folder);
        file::refuse_no_folder(&self.folder)?;
        file::make_private_dir_within(state, &self.folder)?;
        lease::take(&self.folder.join(format!("{}.lock", self.name)))
    }

    fn read(&self, commit: &str, command: &str) -> Option<Base> {
        let path = self.path();
        // A time in the future is that of another clock.
        let age = path.metadata().ok()?.modified().ok()?.elapsed().ok()?;
        let answer: Answer = file::read_json(&path).ok().flatten().filter(|_| age < EXPIRY)?;
        (answer.commit == commit && answer.command == command).then_some(answer.base)
    }

    /// Keeps a result, unless it is unknown: the next worker may learn more. Removes the oldest ones.
    fn keep(&self, answer: &Answer) {
        let kept = || file::replace_json(&self.path(), answer, false);
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
        Missing { path: path.to_owned(), kind: MissingKind::Dependencies }
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
        let judge = |lacks: &[Missing], base, said: &str| judge(lacks.to_vec(), base, "c".to_owned(), said);
        let modules = [lack("node_modules")];
        assert_eq!(judge(&modules, Base::Passes, "Cannot find module 'x'"), None, "the work is to blame");
        assert_eq!(judge(&modules, Base::Unknown, "1 test failed"), None);
        assert_eq!(judge(&[], Base::Unknown, "Cannot find module 'x'"), None);
        let words = |cause: Option<LikelyCause>| cause.expect("there is one").words();
        let found = words(judge(&modules, Base::Unknown, "Cannot find module 'x'"));
        assert_eq!(found, "the worktree lacks what the main checkout has: node_modules (installed dependencies)");
        let found = words(judge(&[], Base::Fails, "1 test failed"));
        assert_eq!(found, "the command fails in a fresh worktree of c, without this work, too");
        assert!(words(judge(&modules, Base::Fails, "")).contains("node_modules (installed dependencies); the command"));
    }
}
