//! Errors of requests: what could not be done and why, with the next steps as values beside the text. The edge that
//! shows an error renders both.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use super::question_error::QuestionError;
use crate::attempt::servers::STILL;
use crate::backend::{Refusal, UnknownBackend};
use crate::config::UnknownLauncher;
use crate::files::FileError;
use crate::git::{
    BuildsError, CloneError, CommandError, DiffError, IndexError, IntegrateError, PlaceError, RemoveError,
    RepositoryError, SalvageError, UncommittedError, WorktreeError,
};
use crate::launcher::local::LaunchError;
use crate::launcher::slurm::JobMinutes;
use crate::mission::create::{Draft, Rejection};
use crate::mission::hint::{Hint, Hinted};
use crate::mission::lifecycle::WorkerStatus;
use crate::mission::registry::Worker;
use crate::store::journal::JournalError;
use crate::store::state_file::StateFileError;

#[derive(Debug, Error)]
pub enum OrchestratorError {
    #[error("no worker is called {name:?}: there are {known}")]
    UnknownWorker {
        name: String,
        /// A worker with a similar name.
        close: Option<String>,
        /// Some of the existing workers, in words.
        known: String,
    },
    #[error("no worker is called {name:?}: there are no workers yet")]
    NoWorkers { name: String },
    #[error("{name:?} is {meanings}")]
    AmbiguousWorker { name: String, meanings: String },
    #[error("cannot {what} {name:?}: it is a worker of another boss")]
    NotYours { name: String, what: &'static str },
    #[error("cannot {what} {worker}: it is still {status}")]
    NotSettled { worker: String, status: &'static str, what: &'static str },
    #[error("cannot {what} {name}: several workers race for it and none has won ({racers})")]
    Undecided { name: String, what: &'static str, racers: String },

    #[error("cannot retry {worker}: it has not begun, since it is blocked ({why})")]
    Blocked { worker: String, why: String },
    #[error("cannot retry {worker}: it was started again a moment ago")]
    StartedAgain { worker: String },

    #[error("cannot start {backend}: {why}")]
    NoProgram { backend: String, why: String, fix: String },
    #[error("cannot run {backend} on {launcher}: its key is in {keys}, which is not passed to the cluster")]
    KeyNotPassed { backend: String, launcher: String, keys: String, login: Option<String> },
    #[error(
        "cannot run on {launcher}: its jobs are limited to {allowed} minutes{}, but this mission needs {} \
         ({needed})",
        of_partition(partition), needed.total()
    )]
    TooLongForPartition { launcher: String, partition: Option<String>, needed: JobMinutes, allowed: u64 },
    #[error(transparent)]
    Launcher(#[from] UnknownLauncher),
    #[error("cannot start {backend}: it is not logged in")]
    LoggedOut { backend: String, login: String },
    #[error("cannot use {} as the worktree: the worktree there was not created for this worker", path.display())]
    WorktreeOfAnother { path: PathBuf },
    #[error("cannot run in {}: there is no such folder in the worktree {}", directory.display(), worktree.display())]
    NoSuchFolder { directory: PathBuf, worktree: PathBuf },
    #[error(
        "cannot use the worktree {}: the repository was moved since the worker began, and the worktree with it to {}; \
         its commits are on branch {branch}",
        path.display(),
        now.display()
    )]
    WorktreeMoved { path: PathBuf, now: PathBuf, branch: String },
    #[error(
        "cannot use the worktree {}: its `.git` file names a folder that does not exist, as after a move of the \
         repository; its commits are on branch {branch}",
        path.display()
    )]
    CutOff { path: PathBuf, branch: String },

    #[error("cannot integrate {worker}: it has no branch of its own, since it worked in {}", path.display())]
    NoBranch { worker: String, path: PathBuf },
    #[error("cannot integrate {worker} by its name: it ended as {status}")]
    NotCompleted { worker: String, status: WorkerStatus, branch: String },
    #[error("cannot integrate {worker}: its branch {branch} was deleted")]
    BranchDeleted { worker: String, branch: String, head: String },
    #[error("cannot integrate branch {branch:?} here: it is the branch of {worker} in the repository {}", repository.display())]
    BranchElsewhere { branch: String, worker: String, repository: PathBuf },
    #[error("cannot integrate {worker} in {}: its work is in the repository {}", here.display(), repository.display())]
    WorkElsewhere { worker: String, repository: PathBuf, here: PathBuf },
    #[error("cannot find the repository of worker {worker}: {} does not exist any more", path.display())]
    RepositoryGone { worker: String, path: PathBuf },
    #[error("cannot choose the target branch: the workers were started from different branches ({named})")]
    SeveralTargets { named: String },
    #[error(
        "cannot integrate: the git configuration of {} differs from that before the first worker: {changes}. It can make \
         git run programs",
        root.display()
    )]
    ConfigurationChanged { root: PathBuf, hooks: PathBuf, record: PathBuf, changes: String },
    #[error(
        "cannot integrate: settings of a CLI changed while its worker ran: {changes}. They can make the CLI run programs \
         outside of any confinement"
    )]
    CliSettingsChanged { records: PathBuf, changes: String },

    #[error("cannot remove {}: it was not created for this worker", path.display())]
    MadeByRequest { path: PathBuf },
    #[error("cannot remove {}: it is the user's own directory, not a worktree of this program", path.display())]
    UsersDirectory { path: PathBuf },
    #[error("cannot remove {}: this server was started in it", path.display())]
    OwnDirectory { path: PathBuf },
    #[error("cannot remove {}: {why}", path.display())]
    NotOnBranch { path: PathBuf, why: String },
    #[error("cannot determine whether the work of {worker} is merged: git gives no answer")]
    MergeUnknown { worker: String },

    #[error("cannot give the worker full permissions: the settings do not allow them")]
    FullPermissions,
    #[error("cannot take {} from the profile {profile:?}", fields.join(" and "))]
    FromProfile { profile: String, fields: Vec<&'static str>, source: Box<OrchestratorError> },
    #[error("cannot run in {}: it is not a subfolder of the worktree", directory.display())]
    NotASubfolder { directory: PathBuf },
    #[error("cannot run in {}: there is no such folder in {start}, where the worktree starts", directory.display())]
    NoFolderAtStart { directory: PathBuf, start: String },
    #[error("cannot create branches whose names begin with {prefix:?}")]
    Prefix { prefix: String, source: Box<WorktreeError> },
    #[error("cannot create the folder {} for worktrees", folder.display())]
    WorktreesFolder { folder: PathBuf, source: io::Error },
    /// A mission whose arguments do not make one.
    #[error("{reason}")]
    Malformed { reason: String },
    #[error("cannot use {field} {}: {why}", path.display())]
    Directory { field: &'static str, path: PathBuf, why: String, otherwise: String },
    #[error("the directory {} is not in a git repository", path.display())]
    NoRepository { path: PathBuf },
    #[error(
        "cannot use {} for the state: git tracks files in it, so the author of the repository could start missions through it",
        path.display()
    )]
    TrackedState { path: PathBuf },
    #[error("cannot use {}: {who} on {host} owns this state directory", path.display())]
    ForeignOwner { path: PathBuf, who: &'static str, host: String },
    #[error(
        "cannot use {} yet: {who} on {host} may still own this state directory; this is known within {} s",
        path.display(),
        STILL.as_secs()
    )]
    WatchedOwner { path: PathBuf, who: &'static str, host: String },
    #[error("cannot use {}: whether a server on another host owns this state directory is unknown", path.display())]
    UnknownOwner { path: PathBuf, source: Arc<FileError> },
    #[error("cannot find {}: it was moved or removed; workers that ran there are stopped, and nothing is created at the old place", path.display())]
    Moved { path: PathBuf },
    #[error("cannot work in {}: its path is not UTF-8", path.display())]
    NotText { path: PathBuf },
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    #[error("the server is shutting down; everything is saved and the workers keep running")]
    ShuttingDown,

    /// An error that several items of a batch, or several callers of a job, share.
    #[error(transparent)]
    Shared(#[from] Arc<OrchestratorError>),
    #[error(transparent)]
    Rejected(#[from] Rejection),
    #[error(transparent)]
    Question(#[from] QuestionError),
    #[error(transparent)]
    Git(#[from] CommandError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error(transparent)]
    Worktree(#[from] WorktreeError),
    #[error(transparent)]
    Clone(#[from] CloneError),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Leftovers(#[from] UncommittedError),
    #[error(transparent)]
    Remove(#[from] RemoveError),
    #[error(transparent)]
    Builds(#[from] BuildsError),
    #[error(transparent)]
    Integrate(#[from] IntegrateError),
    #[error(transparent)]
    Salvage(#[from] SalvageError),
    #[error(transparent)]
    Diff(#[from] DiffError),
    #[error(transparent)]
    UnknownBackend(#[from] UnknownBackend),
    #[error(transparent)]
    Backend(#[from] Refusal),
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    StateFile(#[from] StateFileError),
}

impl OrchestratorError {
    /// Returns the error of a draft, with the profile if it supplied a refused field.
    pub(super) fn of_draft(self, draft: &Draft) -> Self {
        let Some(profile) = &draft.profile else { return self };
        let refused = self.refused_fields();
        let fields: Vec<_> = profile.fields.iter().copied().filter(|field| refused.contains(field)).collect();
        if fields.is_empty() {
            return self;
        }
        Self::FromProfile { profile: profile.name.clone(), fields, source: Box::new(self) }
    }

    /// Returns the fields of the mission that caused the error, as far as a profile can supply them.
    fn refused_fields(&self) -> Vec<&'static str> {
        match self {
            Self::Shared(inner) => inner.refused_fields(),
            Self::FullPermissions => vec!["permissions"],
            Self::TooLongForPartition { .. } => vec!["timeout_minutes", "run_on"],
            Self::Backend(refusal) => refusal.fields().to_vec(),
            Self::NoProgram { .. } | Self::LoggedOut { .. } => vec!["backend"],
            _ => Vec::new(),
        }
    }

    pub(super) fn not_settled(worker: &Worker, what: &'static str) -> Self {
        Self::NotSettled { worker: worker.id.to_string(), status: worker.status.as_str(), what }
    }
}

impl Hinted for OrchestratorError {
    fn hints(&self) -> Vec<Hint> {
        match self.inner() {
            Some(inner) => inner.hints(),
            None => [self.hints_on_workers(), self.hints_on_places(), self.hints_on_settings()].concat(),
        }
    }
}

/// The hints, in groups. Each variant has hints in at most one of them.
impl OrchestratorError {
    /// Returns the error of another room that this one passes on unchanged.
    fn inner(&self) -> Option<&dyn Hinted> {
        Some(match self {
            Self::Shared(error) => &**error,
            Self::Rejected(error) => error,
            Self::Question(error) => error,
            Self::Git(error) => error,
            Self::Repository(error) => error,
            Self::Worktree(error) => error,
            Self::Clone(error) => error,
            Self::Place(error) => error,
            Self::Index(error) => error,
            Self::Leftovers(error) => error,
            Self::Remove(error) => error,
            Self::Builds(error) => error,
            Self::Integrate(error) => error,
            Self::Salvage(error) => error,
            Self::Diff(error) => error,
            Self::UnknownBackend(error) => error,
            Self::Backend(error) => error,
            Self::Launch(error) => error,
            Self::Launcher(error) => error,
            Self::Journal(error) => error,
            Self::File(error) => error,
            Self::StateFile(error) => error,
            _ => return None,
        })
    }

    fn hints_on_workers(&self) -> Vec<Hint> {
        match self {
            Self::UnknownWorker { close: Some(close), .. } => {
                vec![Hint::to(format!("use {close}")), Hint::ListWorkers]
            }
            Self::NoWorkers { .. } => vec![Hint::CreateWorkers],
            Self::UnknownWorker { .. } => vec![Hint::ListWorkers],
            Self::AmbiguousWorker { .. } => vec![Hint::to("use the whole id of one")],
            Self::NotYours { .. } => vec![Hint::to("leave it to its own boss; `scope: all` lists such workers")],
            Self::NotSettled { worker, .. } => {
                vec![Hint::WaitFor(worker.clone()), Hint::Message(worker.clone()), Hint::Cancel(worker.clone())]
            }
            Self::Undecided { .. } => vec![Hint::to("use the id of one of them")],
            Self::Blocked { worker, .. } => vec![Hint::Cancel(worker.clone())],
            Self::NotCompleted { worker, branch, .. } => {
                let unfinished = Hint::IntegrateUnfinished { worker: worker.clone(), branch: branch.clone() };
                vec![Hint::Retry(worker.clone()), unfinished]
            }
            Self::BranchDeleted { branch, head, .. } => {
                vec![Hint::Run(format!("git branch {branch} {head}"))]
            }
            Self::BranchElsewhere { worker, repository, .. } => vec![
                Hint::to(format!("name the repository as `repo_path`: {}", repository.display())),
                Hint::Integrate(worker.clone()),
            ],
            Self::WorkElsewhere { worker, .. } => {
                vec![Hint::to(format!("integrate {worker} in a call of its own, without `repo_path`"))]
            }
            Self::SeveralTargets { .. } => vec![Hint::to("name one of the branches as `into`")],
            Self::ShuttingDown => vec![Hint::to("start the server again and repeat the call")],
            _ => Vec::new(),
        }
    }

    fn hints_on_places(&self) -> Vec<Hint> {
        match self {
            Self::WorktreeOfAnother { .. } => {
                vec![Hint::to("choose another path"), Hint::to("work in it with `working_directory`")]
            }
            Self::NoSuchFolder { .. } => vec![Hint::to("name another folder as `worktree.directory`, or none")],
            Self::WorktreeMoved { now: path, branch, .. } | Self::CutOff { path, branch } => vec![
                Hint::Run(format!("git worktree repair {}", path.display())),
                Hint::to(format!("integrate branch {branch} by its name")),
            ],
            Self::MadeByRequest { path } => vec![Hint::RemoveWorktree(path.display().to_string())],
            Self::NotASubfolder { .. } => vec![Hint::to("name a folder such as packages/app")],
            Self::NoFolderAtStart { .. } => vec![Hint::to("name a folder that exists there, or none")],
            Self::Directory { otherwise, .. } => {
                vec![Hint::to("name an existing directory"), Hint::to(otherwise)]
            }
            Self::NoRepository { .. } => vec![
                Hint::to("name a repository as `repo_path`"),
                Hint::to("start the server in one"),
                Hint::to("use `working_directory` in the mission instead of a worktree"),
            ],
            Self::TrackedState { path } => vec![
                Hint::to(format!("read its content, then remove it with `git rm -r --cached {}`", path.display())),
                Hint::to("choose another folder with --state-dir"),
            ],
            Self::Moved { .. } => vec![
                Hint::to("move it back"),
                Hint::to("start this server where it is now; `git worktree repair` there repairs the links"),
            ],
            Self::ForeignOwner { host, .. } => {
                vec![Hint::OnHost(host.clone()), Hint::to("name another --state-dir")]
            }
            Self::WatchedOwner { host, .. } => vec![
                Hint::to("repeat the call after that time"),
                Hint::OnHost(host.clone()),
                Hint::to("name another --state-dir"),
            ],
            Self::UnknownOwner { source, .. } => source
                .hints()
                .into_iter()
                .chain([Hint::to("repeat the call"), Hint::to("name another --state-dir")])
                .collect(),
            Self::NotText { .. } => vec![Hint::to("rename the folder"), Hint::to("start the server in another one")],
            _ => Vec::new(),
        }
    }

    fn hints_on_settings(&self) -> Vec<Hint> {
        match self {
            Self::NoProgram { fix, .. } => vec![Hint::to(fix), Hint::to("choose another backend"), Hint::CheckBackends],
            Self::KeyNotPassed { login, launcher, .. } => {
                let log_in = |login| format!("ask the user to run `{login}`, since the nodes share the home folder");
                let pass = format!("ask the user to set pass_keys in [launchers.{launcher}]");
                login.iter().map(log_in).chain([pass]).map(Hint::to).collect()
            }
            Self::TooLongForPartition { launcher, needed, allowed, .. } => {
                let longest = allowed.saturating_sub(needed.beside_timeout());
                let partition = Hint::to(format!(
                    "ask the user to name a partition with a longer time limit in [launchers.{launcher}]"
                ));
                let shorter = Hint::to(format!("set timeout_minutes to {longest} or less"));
                Some(shorter).filter(|_| longest > 0).into_iter().chain([partition]).collect()
            }
            Self::LoggedOut { login, .. } => {
                let login = Hint::to(format!("ask the user to run `{login}`"));
                vec![login, Hint::to("choose another backend"), Hint::CheckBackends]
            }
            Self::ConfigurationChanged { root, hooks, record, .. } => vec![Hint::to(format!(
                "check `git -C {} config --show-origin --list` and the folder {}, then ask the user to undo the change \
                 (`git config --unset NAME`, or delete the file) or to accept it by deleting {}",
                root.display(),
                hooks.display(),
                record.display()
            ))],
            Self::CliSettingsChanged { records, .. } => vec![Hint::to(format!(
                "ask the user to undo the change, or, if it is the user's own, to accept it by deleting the folder {}",
                records.display()
            ))],
            Self::FromProfile { fields, source, .. } => {
                let own = Hint::to(format!("give the mission its own {}", fields.join(" or ")));
                source.hints().into_iter().chain([own]).collect()
            }
            Self::FullPermissions => {
                vec![Hint::to("use the permissions `edit`"), Hint::Set("allow_full_permissions")]
            }
            Self::Prefix { source, .. } => {
                let other = [Hint::Set("branch_prefix")];
                source.hints().into_iter().chain(other).collect()
            }
            Self::WorktreesFolder { .. } => vec![Hint::Set("worktrees_dir")],
            _ => Vec::new(),
        }
    }
}

fn of_partition(partition: &Option<String>) -> String {
    partition.as_ref().map_or_else(String::new, |name| format!(" (partition {name})"))
}
