//! The likely cause of a failed verification, if the work does not seem to be at fault. The worktree may lack files
//! that git does not bring into it: installed dependencies, submodules, local files. Or the base may fail too. The base
//! is verified in a fresh worktree, only after a failure, and once for each command and commit. Workers with the same
//! base share the result for a while.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use super::attempt::LiveAttempt;
use super::blocking::blocking;
use super::missing::missing;
use super::verification_run;
use crate::attempt::sockets;
use crate::attempt::state_dir::StateDir;
use crate::attempt::status::Phase;
use crate::attempt::verification::{self, VerificationAssignment};
use crate::attempt::verification_dir::VerificationDir;
use crate::files;
use crate::files::lease::{self, Lease};
use crate::git::{self, Repository};
use crate::mission::id::ServerId;
use crate::mission::outcome::{LikelyCause, Missing, Verification};
use crate::process;

/// Maximum time by which this delays a settlement. The limit is lower after a short verification: three times its
/// duration, plus `LEAST`.
const LONGEST: Duration = Duration::from_secs(300);
const LEAST: Duration = Duration::from_secs(30);
/// Number of results that are kept.
const KEPT: usize = 100;
/// Time after which a base is verified again: the command may use other things than the commit.
const EXPIRY: Duration = Duration::from_secs(3_600);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum BaseResult {
    Passes,
    Fails,
    /// No result: it took too long, or could not be verified.
    Unknown,
}

/// A result that is kept for the other workers with the same base.
#[derive(Debug, Serialize, Deserialize)]
struct CachedResult {
    commit: String,
    command: String,
    base: BaseResult,
}

impl LiveAttempt {
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
        let base_result = match found {
            // The base would take as long again.
            Verification::TimedOut { .. } => BaseResult::Unknown,
            // The worker changed nothing, so the base itself was verified.
            _ if commit.as_ref() == Some(&base) => BaseResult::Fails,
            // Without the setup, a fresh worktree may fail for lack of it.
            _ if self.dir.worker().setup().is_ok_and(|setup| setup.is_some()) => BaseResult::Unknown,
            _ => {
                let allowance = Duration::from_secs_f64(seconds * 3.0).saturating_add(LEAST).min(LONGEST);
                self.status.set_phase(Phase::Verifying, "verifying the base");
                self.base_result(&repository, &worktree, &base, command, allowance).await
            }
        };
        judge(lacks, base_result, base)
    }

    /// Returns the known result for a base, or verifies it while other workers with the same base wait.
    async fn base_result(
        &mut self,
        repository: &Repository,
        worktree: &Path,
        commit: &str,
        command: &str,
        allowance: Duration,
    ) -> BaseResult {
        let state = self.dir.state_dir();
        // The same command in another folder may have another result.
        let folder = self.assignment.mission.place.subfolder();
        let cached_command =
            folder.map_or_else(|| command.to_owned(), |folder| format!("{}: {command}", folder.display()));
        let cache = BaseCache::of(&state, commit, &cached_command);
        let began = Instant::now();
        let _turn = loop {
            match cache.take() {
                Ok(Some(turn)) => break turn,
                Ok(None) if began.elapsed() < allowance && !self.inbox.must_stop() => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                _ => return BaseResult::Unknown,
            }
        };
        if let Some(known) = cache.read(commit, &cached_command) {
            return known;
        }
        let base = self.verify_base(&state, repository, worktree, commit, command, allowance).await;
        cache.keep(&CachedResult { commit: commit.to_owned(), command: cached_command, base });
        base
    }

    /// Verifies a base in a fresh worktree.
    async fn verify_base(
        &mut self,
        state: &StateDir,
        repository: &Repository,
        worktree: &Path,
        commit: &str,
        command: &str,
        allowance: Duration,
    ) -> BaseResult {
        // Named after the worker: no server has this name, so any server removes the folder if this process is killed.
        let dir = VerificationDir::new(state, &ServerId::from(self.assignment.worker_id.as_str()));
        let run = VerificationAssignment {
            tag: process::tag_at_depth(
                format!("base.{}", Uuid::new_v4().simple()),
                process::depth_of(&self.assignment.tag),
            ),
            repository: repository.clone(),
            tree: beside(repository, worktree),
            directory: self.assignment.mission.place.subfolder().map(Path::to_owned),
            commit: commit.to_owned(),
            command: command.to_owned(),
            // No base is verified if the worktree was set up.
            setup: None,
            seed: Vec::new(),
            ignored_of: None,
            sockets: self.assignment.socket.parent().map(sockets::new_folder_in),
            settings: self.assignment.settings.clone(),
            variables: self.assignment.variables(),
        };
        if let Err(error) = dir.create(&run) {
            tracing::warn!(%error, "cannot verify the base");
            return BaseResult::Unknown;
        }
        let Ok(Some(_lease)) = lease::take(&dir.lock()) else { return BaseResult::Unknown };
        let stopped = tokio::time::timeout(allowance, self.inbox.until_stopped()).map(drop);
        let found = verification_run::verify_commit_until(&run, &dir, self.supervisor, stopped).await;
        let was_made = run.tree(&dir).join(".git").exists();
        let (tree, other) = (repository.at(run.tree(&dir)), repository.at(worktree));
        // A fresh worktree may fail only because it lacks dependencies that the worker has installed for itself.
        let is_fair = blocking(move || git::is_better_equipped(&other, &tree).is_ok_and(|better| !better)).await;
        let (made, place) = (run.clone(), dir.clone());
        let removed = blocking(move || made.remove_tree(&place)).await;
        if let Err(error) =
            removed.map_err(|error| error.to_string()).and_then(|()| dir.remove().map_err(|it| it.to_string()))
        {
            tracing::warn!(error, "cannot remove the worktree of a base");
        }
        match found {
            Some(Verification::Passed { .. }) => BaseResult::Passes,
            Some(Verification::Failed { .. } | Verification::CouldNotRun { .. }) if was_made && is_fair => {
                BaseResult::Fails
            }
            _ => BaseResult::Unknown,
        }
    }
}

/// Returns a path for a worktree beside the worker's own, so that both have the same parent folders. `None` within the
/// user's checkout.
pub(super) fn beside(repository: &Repository, worktree: &Path) -> Option<PathBuf> {
    let folder = worktree.parent().filter(|folder| !folder.starts_with(repository.root()))?;
    Some(folder.join(verification::tree_name()))
}

/// Decides on the cause. Missing files count only if the base fails too, or if the command's output points to one.
fn judge(lacks: Vec<Missing>, base: BaseResult, commit: String) -> Option<LikelyCause> {
    let cause = match base {
        BaseResult::Passes => return None,
        BaseResult::Fails => LikelyCause { lacks, fails_without: Some(commit) },
        BaseResult::Unknown if lacks.iter().any(|lack| lack.named) => LikelyCause { lacks, fails_without: None },
        BaseResult::Unknown => return None,
    };
    (cause != LikelyCause::default()).then_some(cause)
}

/// The cached result for one commit and command, with the lock for determining it.
struct BaseCache {
    folder: PathBuf,
    name: String,
}

impl BaseCache {
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

    fn read(&self, commit: &str, command: &str) -> Option<BaseResult> {
        let path = self.path();
        // A time in the future is that of another clock.
        let age = path.metadata().ok()?.modified().ok()?.elapsed().ok()?;
        let result: CachedResult = files::read_json(&path).ok().flatten().filter(|_| age < EXPIRY)?;
        (result.commit == commit && result.command == command).then_some(result.base)
    }

    /// Keeps a result, unless it is unknown: the next worker may learn more. Removes the oldest ones.
    fn keep(&self, result: &CachedResult) {
        let kept = || files::replace_json(&self.path(), result, false);
        if let Err(error) = (result.base != BaseResult::Unknown).then(kept).transpose() {
            tracing::warn!(%error, "cannot cache the result of a base");
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
        Missing { path: path.to_owned(), kind: crate::mission::outcome::MissingKind::Dependencies, named: false }
    }

    fn cache(state: &StateDir, commit: &str) -> (BaseCache, Lease) {
        let cache = BaseCache::of(state, commit, "make");
        let lease = cache.take().unwrap().unwrap();
        (cache, lease)
    }

    fn result(commit: &str, base: BaseResult) -> CachedResult {
        CachedResult { commit: commit.to_owned(), command: "make".to_owned(), base }
    }

    #[test]
    fn result_expires_and_unknown_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, _lease) = cache(&StateDir::at(folder.path()), "c");
        cache.keep(&result("c", BaseResult::Unknown));
        assert_eq!(cache.read("c", "make"), None);
        cache.keep(&result("c", BaseResult::Fails));
        assert_eq!((cache.read("c", "make"), cache.read("c", "test")), (Some(BaseResult::Fails), None));
        let file = fs::File::options().append(true).open(cache.path()).unwrap();
        file.set_modified(std::time::SystemTime::now() - EXPIRY).unwrap();
        assert_eq!(cache.read("c", "make"), None);
    }

    #[test]
    fn only_free_locks_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::at(folder.path());
        let old = std::time::SystemTime::now() - EXPIRY;
        let locks = ["taken", "free"].map(|commit| {
            let (cache, lease) = cache(&state, commit);
            cache.keep(&result(commit, BaseResult::Fails));
            let lock = cache.path().with_extension("lock");
            fs::File::options().append(true).open(&lock).unwrap().set_modified(old).unwrap();
            (lock, (commit == "taken").then_some(lease))
        });
        for n in 0..KEPT {
            let commit = n.to_string();
            cache(&state, &commit).0.keep(&result(&commit, BaseResult::Passes));
        }
        let is_there = |lock: &Path| (lock.exists(), lock.with_extension("json").exists());
        assert_eq!(locks.map(|(lock, _)| is_there(&lock)), [(true, true), (false, false)]);
    }

    #[test]
    fn missing_file_is_cause_only_with_evidence() {
        let judge = |named: &[bool], base| {
            let lacks = named.iter().map(|named| Missing { named: *named, ..lack("node_modules") }).collect();
            judge(lacks, base, "c".to_owned())
        };
        assert_eq!(judge(&[true], BaseResult::Passes), None, "the work is at fault");
        assert_eq!(judge(&[false], BaseResult::Unknown), None);
        assert_eq!(judge(&[], BaseResult::Unknown), None);
        let words = |cause: Option<LikelyCause>| cause.expect("there is one").words();
        let found = words(judge(&[true], BaseResult::Unknown));
        assert_eq!(found, "the worktree lacks what the main checkout has: node_modules (installed dependencies)");
        let found = words(judge(&[], BaseResult::Fails));
        assert_eq!(found, "the command also fails in a fresh worktree of c, without this work");
        assert!(
            words(judge(&[true], BaseResult::Fails)).contains("node_modules (installed dependencies); the command")
        );
        let cause = judge(&[false], BaseResult::Fails).expect("the base fails");
        assert_eq!(cause.fix(), None);
        assert!(cause.words().contains("possible cause") && cause.short() == "base fails too", "{}", cause.words());
    }
}
