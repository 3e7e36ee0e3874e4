//! The paths that the CLI, the setup and the verification of a confined worker can write. The kernel enforces it
//! ([`crate::process::confine`]); this file decides the rules, once for each attempt, before anything is started.
//!
//! The folder that all worktrees share is taken from what the server knew, never from a worktree's `.git` file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::caches;
use super::isolation::{SocketFolder, TemporaryFolder};
use crate::attempt::assignment::Assignment;
use crate::attempt::verification::VerificationAssignment;
use crate::attempt::verification_dir::VerificationDir;
use crate::backend::StateFolder;
use crate::config::{Confine, ConfineGit, Settings};
use crate::files::FileError;
use crate::git;
use crate::mission::confined::{CliState, GitGrant};
use crate::mission::hint::{Hint, Hinted};
use crate::mission::spec::{Permissions, Place};
use crate::process::confine::{self, GrantKind, Links, Support, WriteRules};
use crate::process::{depth_of, network_file_system};

/// The rules of one attempt. Without rules it is not confined.
#[derive(Debug, Default)]
pub(super) struct AttemptRules {
    pub cli: Option<WriteRules>,
    /// The rules of the setup, which may write to the worktree of a worker that only reads.
    pub commands: Option<WriteRules>,
    pub verification: Option<WriteRules>,
    pub git: Option<GitGrant>,
    pub cli_state: CliState,
}

/// The reason why a worker cannot be confined as the settings require.
#[derive(Debug, Error)]
pub enum ConfinementError {
    #[error("cannot confine the worker, which `confine = \"require\"` demands: {why}")]
    Unsupported { why: String },
    #[error("cannot confine the worker, which `confine = \"require\"` demands: {why}")]
    WithoutEffect { why: String },
    #[error("cannot keep the worker from writing: its CLI cannot, and {why}")]
    ReadOnly { why: String },
    #[error("cannot confine the worker: {setting} names {path}, which does not exist")]
    Missing { setting: &'static str, path: PathBuf },
    #[error("cannot confine the worker: confine_unreadable names {path}, but the worker needs {needed} ({what})")]
    Needed { path: PathBuf, needed: PathBuf, what: &'static str },
    #[error("cannot confine the worker: its home folder is unknown")]
    NoHome,
    #[error("cannot confine the worker: cannot record the settings of its CLI")]
    Settings(#[from] FileError),
    #[error(transparent)]
    Clone(#[from] git::CloneError),
}

impl Hinted for ConfinementError {
    fn hints(&self) -> Vec<Hint> {
        match self {
            Self::Unsupported { .. } => vec![Hint::to("use a newer kernel"), Hint::Set("confine")],
            Self::WithoutEffect { .. } => {
                vec![Hint::to("move the repository to another file system"), Hint::Set("confine")]
            }
            Self::ReadOnly { .. } => vec![Hint::to("use a backend that can")],
            Self::Missing { .. } => vec![Hint::to("create it, or remove it there")],
            Self::Needed { .. } => vec![Hint::to("remove it there, or name a folder that no worker needs")],
            Self::NoHome => vec![Hint::to("set HOME")],
            Self::Settings(error) => error.hints(),
            Self::Clone(error) => error.hints(),
        }
    }
}

/// Paths that all workers of one user share.
struct Home {
    path: PathBuf,
    confine_writable: Vec<PathBuf>,
    confine_unreadable: Vec<PathBuf>,
}

impl AttemptRules {
    /// Returns the rules of an attempt of a confined worker, and those of the CLI's `folders` that it can write.
    /// `state` is the state directory. A worker that has a clone in its worktree writes nothing of the repository. The
    /// caller has created the caches that tools need, and grants the folders of the attempt.
    pub fn of(
        assignment: &Assignment,
        folders: &[StateFolder],
        state: &Path,
        has_clone: bool,
    ) -> Result<(Self, Vec<PathBuf>), ConfinementError> {
        let home = Home::of(&assignment.settings)?;
        let mut shared = common_rules(&home);
        let mut commands = shared.clone();
        let git = grant_work(&mut commands, assignment, has_clone);
        for folder in nested_folders(assignment, state) {
            shared.add(&folder, GrantKind::Folder, Links::Followed);
            commands.add(&folder, GrantKind::Folder, Links::Followed);
        }
        let only_reads = assignment.mission.permissions == Permissions::ReadOnly;
        let mut cli = if only_reads { shared.clone() } else { commands.clone() };
        let cli_state = grant_state(&mut cli, &home.path, folders, |name| std::env::var_os(name));
        refuse_unreadable(&home, assignment, state, &cli_state)?;
        let git = if only_reads { GitGrant::None } else { git };
        // Outside of a repository, it runs in a copy in the temporary folder.
        let verification = if only_reads { shared } else { commands.clone() };
        let (cli, commands, verification, git) = (Some(cli), Some(commands), Some(verification), Some(git));
        let granted = if cli_state.is_empty() { CliState::None } else { CliState::Whole };
        Ok((Self { cli, commands, verification, git, cli_state: granted }, cli_state))
    }

    /// Grants the folders for the sockets and the temporary files of the attempt.
    pub fn grant_folders(&mut self, folders: &SocketFolder) {
        for rules in [&mut self.cli, &mut self.commands, &mut self.verification].into_iter().flatten() {
            grant_folders(rules, folders);
        }
    }
}

/// Returns the rules for the commands of a verification run, whose worktree gets a clone where the settings ask for it.
/// The clone goes with the worktree: nothing is fetched from it. `Err`: the settings demand what the kernel cannot do.
pub(super) fn rules_of_verification(
    run: &VerificationAssignment,
    dir: &VerificationDir,
    sockets: &mut SocketFolder,
) -> Result<Option<WriteRules>, ConfinementError> {
    if why_not(run.settings.confine)?.is_some() {
        return Ok(None);
    }
    let tree = run.tree(dir);
    let has_clone =
        run.settings.confine_git == ConfineGit::Clone && matches!(git::clone_refusal(&run.repository, &tree), Ok(None));
    if has_clone {
        let name = tree.file_name().unwrap_or_default().to_string_lossy();
        git::enter_clone(&run.repository, &tree, "", &name)?;
    }
    let home = Home::of(&run.settings)?;
    caches::create_needed(&home.path, |name| std::env::var_os(name));
    if let Some(path) = &run.sockets {
        sockets.add_temporary(TemporaryFolder::beside(path));
    }
    sockets.add_signing();
    let mut rules = common_rules(&home);
    grant_folders(&mut rules, sockets);
    rules.add(&tree, GrantKind::Folder, Links::Refused);
    if !has_clone {
        rules.add(&run.repository.common_dir, GrantKind::Folder, Links::Refused);
    }
    home.refuse_unreadable_in("the worktree of the verification", &tree)?;
    home.refuse_unreadable_in("the repository", &run.repository.common_dir)?;
    let why = why_without_effect(run.settings.confine, &rules)?;
    Ok(why.is_none().then_some(rules))
}

/// The rules of a program that `doctor` tries.
pub(super) struct CheckRules {
    pub rules: WriteRules,
    /// False if folders for the state of the CLI are missing, which the start of a worker creates.
    pub is_complete: bool,
}

impl CheckRules {
    pub fn of(settings: &Settings, work: &[&Path], state: &[StateFolder]) -> Result<Self, ConfinementError> {
        let home = Home::of(settings)?;
        let mut rules = common_rules(&home);
        for folder in work {
            rules.add(folder, GrantKind::Folder, Links::Followed);
        }
        let existing: Vec<StateFolder> = state.iter().cloned().map(StateFolder::if_exists).collect();
        let granted = grant_state(&mut rules, &home.path, &existing, |name| std::env::var_os(name));
        let needed = state.iter().filter(|folder| folder.is_created).count();
        Ok(Self { rules, is_complete: granted.len() >= needed })
    }
}

/// Returns why the kernel cannot confine programs with these rules although it supports it: it would let them write
/// nothing. `None` if it can.
pub(super) fn why_without_effect(confine: Confine, rules: &WriteRules) -> Result<Option<String>, ConfinementError> {
    let Some(folder) = confine::without_effect(rules) else { return Ok(None) };
    let kind = network_file_system(&folder).map(|kind| format!(" ({kind})")).unwrap_or_default();
    let why = format!("it would be able to write nothing on the file system of {}{kind}", folder.display());
    if confine == Confine::Require { Err(ConfinementError::WithoutEffect { why }) } else { Ok(Some(why)) }
}

/// Returns why workers are not confined. `None` if they are.
pub(super) fn why_not(confine: Confine) -> Result<Option<String>, ConfinementError> {
    if confine == Confine::Off {
        return Ok(Some("the setting confine is off".to_owned()));
    }
    match confine::support() {
        Support::Yes(_) => Ok(None),
        Support::No { why } if confine == Confine::Require => Err(ConfinementError::Unsupported { why }),
        Support::No { why } => Ok(Some(why)),
    }
}

impl Home {
    fn of(settings: &Settings) -> Result<Self, ConfinementError> {
        let path = etcetera::home_dir().map_err(|_| ConfinementError::NoHome)?;
        if let Some((setting, path)) = settings.missing_confined() {
            return Err(ConfinementError::Missing { setting, path });
        }
        let (confine_writable, confine_unreadable) = (settings.confine_writable(), settings.confine_unreadable());
        let home = Self { path, confine_writable, confine_unreadable };
        home.refuse_unreadable("the home folder", &home.path)?;
        for path in &home.confine_writable {
            home.refuse_unreadable_in("the setting confine_writable", path)?;
        }
        Ok(home)
    }

    /// Fails if a path that a worker must read is unreadable.
    fn refuse_unreadable(&self, what: &'static str, needed: &Path) -> Result<(), ConfinementError> {
        self.refuse(what, needed, |path, needed| needed.starts_with(path))
    }

    /// Fails if a path that a worker must write contains something unreadable: new files there would be too.
    fn refuse_unreadable_in(&self, what: &'static str, needed: &Path) -> Result<(), ConfinementError> {
        self.refuse(what, needed, |path, needed| needed.starts_with(path) || path.starts_with(needed))
    }

    fn refuse(
        &self,
        what: &'static str,
        needed: &Path,
        is_in_the_way: impl Fn(&Path, &Path) -> bool,
    ) -> Result<(), ConfinementError> {
        let real = needed.canonicalize().unwrap_or_else(|_| needed.to_owned());
        match self.confine_unreadable.iter().find(|path| is_in_the_way(path, &real)) {
            Some(path) => Err(ConfinementError::Needed { path: path.clone(), needed: needed.to_owned(), what }),
            None => Ok(()),
        }
    }
}

/// Returns the rules that all processes of a worker share: devices, caches, and what the user allows.
fn common_rules(home: &Home) -> WriteRules {
    let mut rules = WriteRules::devices();
    rules.forbid_reading(&home.confine_unreadable);
    caches::grant(&mut rules, &home.path, |name| std::env::var_os(name));
    for path in &home.confine_writable {
        let kind = if path.is_dir() { GrantKind::Folder } else { GrantKind::File };
        rules.add(path, kind, Links::Followed);
    }
    rules
}

fn grant_folders(rules: &mut WriteRules, folders: &SocketFolder) {
    for path in folders.paths() {
        rules.add(path, GrantKind::Folder, Links::Followed);
    }
}

/// Grants the directory of the mission, and the repository that the server knows it to be in.
fn grant_work(rules: &mut WriteRules, assignment: &Assignment, has_clone: bool) -> GitGrant {
    rules.add(&assignment.directory, GrantKind::Folder, Links::Refused);
    let Some(repository) = &assignment.repository else { return GitGrant::None };
    if has_clone {
        return GitGrant::Clone;
    }
    if let Place::Directory { .. } = &assignment.mission.place {
        let Some(top) = git::top_in(&assignment.directory, repository) else { return GitGrant::None };
        // Tools of a project write beside the folder too, such as the lock file and the builds of a workspace.
        rules.add(top, GrantKind::Folder, Links::Refused);
    }
    rules.add(&repository.common_dir, GrantKind::Folder, Links::Refused);
    GitGrant::Shared
}

/// Returns the folders that a worker needs that starts workers itself: the state, and the place of worktrees.
fn nested_folders(assignment: &Assignment, state: &Path) -> Vec<PathBuf> {
    if depth_of(&assignment.tag) >= assignment.settings.max_depth {
        return Vec::new();
    }
    let around = assignment.directory.parent().filter(|_| assignment.ours);
    let sockets = assignment.socket.parent();
    [Some(state), around, sockets].into_iter().flatten().map(Path::to_owned).collect()
}

/// Fails if something that this worker needs is unreadable.
fn refuse_unreadable(
    home: &Home,
    assignment: &Assignment,
    state: &Path,
    cli_state: &[PathBuf],
) -> Result<(), ConfinementError> {
    home.refuse_unreadable_in("the directory of the worker", &assignment.directory)?;
    if let Some(repository) = &assignment.repository {
        home.refuse_unreadable("the repository", repository.root())?;
        home.refuse_unreadable_in("the repository", &repository.common_dir)?;
    }
    home.refuse_unreadable("the state directory", state)?;
    home.refuse_unreadable("the program of the CLI", &assignment.program)?;
    cli_state.iter().try_for_each(|folder| home.refuse_unreadable_in("the state of the CLI", folder))
}

/// Grants the folders in which the CLI keeps its state, which it may not have created yet, and returns them. None is the
/// home folder or above it, where a CLI's variable could point.
fn grant_state(
    rules: &mut WriteRules,
    home: &Path,
    folders: &[StateFolder],
    variable: impl Fn(&str) -> Option<OsString>,
) -> Vec<PathBuf> {
    let mut granted = Vec::new();
    for folder in folders {
        let named = folder.variable.and_then(&variable).map(PathBuf::from).filter(|path| path.is_absolute());
        let path = named.map_or_else(|| home.join(&*folder.default), |named| named.join(&*folder.below));
        if folder.is_created
            && let Err(error) = std::fs::create_dir_all(&path)
        {
            tracing::warn!(%error, path = %path.display(), "cannot create the folder for the state of the CLI");
        }
        if path.is_dir() && !home.starts_with(&path) {
            rules.add(&path, GrantKind::Folder, Links::Followed);
            granted.push(path);
        }
    }
    granted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_is_no_state_folder() {
        let home = tempfile::tempdir().unwrap();
        let granted = |variable: Option<&Path>| {
            let mut rules = WriteRules::default();
            let folder = StateFolder::named("CLI_HOME", ".cli");
            grant_state(&mut rules, home.path(), &[folder], |_| variable.map(|path| path.as_os_str().to_owned()))
        };
        assert_eq!(granted(None), [home.path().join(".cli")]);
        assert_eq!(granted(Some(&home.path().join("moved"))), [home.path().join("moved")]);
        for above in [home.path(), home.path().parent().unwrap(), Path::new("/")] {
            assert!(granted(Some(above)).is_empty());
        }
    }
}
