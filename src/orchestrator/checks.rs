//! Checks for errors that are known before anything is created. They run before a batch is answered, outside the
//! actor's thread.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::env;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::answers::Base;
use super::context::Context;
use super::error::OrchestratorError;
use super::{blocking, integration_branch, job_time, probe, setup_suggestion, worktree_places};
use crate::backend::Backend;
use crate::git::{self, Repository};
use crate::mission::create::{Draft, DraftPlace};
use crate::mission::id::{BackendName, TaskId, WorkerId};
use crate::mission::spec::{Permissions, Place};

type Result<T> = std::result::Result<T, OrchestratorError>;
type Checked = Result<Draft>;
/// A result that several missions of a batch share.
type Shared<T> = std::result::Result<T, Arc<OrchestratorError>>;

/// Checks the drafts of a batch and determines where its workers start. Drafts with a request id in `known` are not
/// checked again: their requirements may be gone, and their own worktrees would be in the way.
pub(super) async fn check_all(
    context: Arc<Context>,
    drafts: Vec<Checked>,
    known: HashSet<String>,
    recorded: Option<String>,
) -> (Vec<Checked>, Option<Base>) {
    let total = drafts.len();
    let is_known = move |draft: &Draft| draft.request_id.as_ref().is_some_and(|request| known.contains(request));
    let (inner, was_there) = (Arc::clone(&context), is_known.clone());
    let checked = blocking::blocking(move || {
        let start = integration_branch::determine(&inner, recorded).map_err(Arc::new);
        let mut checks = Checks {
            context: &inner,
            start,
            prefix: None,
            folder: None,
            bases: HashMap::new(),
            programs: HashMap::new(),
        };
        let mut check = |draft: Draft| if was_there(&draft) { Ok(draft) } else { checks.check(draft) };
        let checked = drafts.into_iter().map(|draft| check(draft?)).collect::<Vec<Checked>>();
        let mut base = checks.start.ok().filter(|_| !is_elsewhere(&inner, &checked));
        if let Some(base) = &mut base {
            let suggestion = setup_suggestion::note(&inner, checked.iter().flatten());
            let notes: Vec<String> = base.note.take().into_iter().chain(suggestion).collect();
            base.note = (!notes.is_empty()).then(|| notes.join("; "));
        }
        Ok((checked, base))
    });
    let (checked, base) = match checked.await {
        Ok(checked) => checked,
        Err(error) => {
            let error = Arc::new(error);
            return ((0..total).map(|_| Err(Arc::clone(&error).into())).collect(), None);
        }
    };
    let new = checked.iter().flatten().filter(|draft| !is_known(draft));
    let asked: BTreeSet<BackendName> = new.map(|draft| draft.backend.clone()).collect();
    let logged_out = probe::logged_out(&context, asked).await;
    let check = |draft: Draft| match logged_out.get(&draft.backend).filter(|_| !is_known(&draft)) {
        Some(why) => Err(OrchestratorError::from(Arc::clone(why)).of_draft(&draft)),
        None => Ok(draft),
    };
    let mut all = Vec::with_capacity(checked.len());
    for draft in checked {
        all.push(match draft.and_then(check) {
            Ok(draft) if !is_known(&draft) => {
                let fits = job_time::refuse_too_long(&context, &draft).await;
                fits.map_err(|error| error.of_draft(&draft)).map(|()| draft)
            }
            other => other,
        });
    }
    (all, base)
}

/// Returns whether all of these work in directories outside the repository of this server, which do not start at its
/// integration branch.
fn is_elsewhere(context: &Context, checked: &[Checked]) -> bool {
    let is_outside = |draft: &Draft| match &draft.place {
        DraftPlace::Directory(path) => Repository::discover(path, &context.trust).ok().flatten() != context.repository,
        DraftPlace::Worktree { .. } => false,
    };
    let mut drafts = checked.iter().flatten().peekable();
    drafts.peek().is_some() && drafts.all(is_outside)
}

struct Checks<'a> {
    context: &'a Context,
    /// The start of a worker whose mission names no base.
    start: Shared<Base>,
    /// The result of checking that branches with generated names can be created. `None` before the check.
    prefix: Option<Shared<()>>,
    /// The result of checking that the folder for worktrees can be created. `None` before the check.
    folder: Option<Shared<()>>,
    /// Commits by base, shared by the missions of a batch so that each base is resolved once.
    bases: HashMap<Option<String>, Shared<String>>,
    /// Results of program lookups, which are slow on a long PATH.
    programs: HashMap<BackendName, Shared<()>>,
}

/// Returns the variables in the environment of this process that hold keys of a backend.
fn keys_of(backend: &dyn Backend) -> Vec<String> {
    let is_set = |name: &String| env::var_os(name).is_some_and(|value| !value.is_empty());
    backend.probe().key_variables.into_iter().filter(is_set).collect()
}

impl Checks<'_> {
    fn check(&mut self, mut draft: Draft) -> Checked {
        draft.needs = self.needs(&draft).map_err(|error| error.of_draft(&draft))?;
        match &mut draft.place {
            DraftPlace::Directory(path) => {
                let named = self.context.directory.join(&path);
                *path = existing_directory("working_directory", &named, "leave it out to get a worktree")?;
            }
            DraftPlace::Worktree { branch, base, path, directory } => {
                if let Some(branch) = branch {
                    *branch = git::names::branch_name(branch).to_owned();
                }
                let start = self.worktree(branch.as_deref(), base, path.as_deref())?;
                if let Some(path) = path {
                    // As git records it, since the two are compared later.
                    let repository = self.context.repository()?;
                    *path = git::check::resolve(repository, path)?;
                }
                let may_come = !draft.depends_on.is_empty();
                *directory = self.directory(directory.as_deref(), &start, may_come)?;
            }
        }
        Ok(draft)
    }

    /// Checks the backend of a draft and what it has to enforce. Returns the variables that the backend needs.
    fn needs(&mut self, draft: &Draft) -> Result<Vec<String>> {
        if draft.permissions == Permissions::Full && !self.context.settings.allow_full_permissions {
            return Err(OrchestratorError::FullPermissions);
        }
        let backend = self.context.backends.get(draft.backend.as_str())?;
        // The task and the place are not known yet, and no backend needs them to check.
        let place = Place::Directory { path: PathBuf::new() };
        let mission = draft.mission(TaskId::from(WorkerId::new(0, "").to_string()), Vec::new(), Vec::new(), place);
        self.context.check_mission(&mission)?;
        let keys = keys_of(backend.as_ref());
        match &draft.run_on {
            None => self.program(&draft.backend)?,
            Some(name) => self.context.check_launcher(name, &draft.backend, &keys)?,
        }
        for name in &draft.fallback_backends {
            let fallback = self.context.backends.get(name.as_str())?;
            if let Some(launcher) = &draft.run_on {
                self.context.check_launcher(launcher, name, &keys_of(fallback.as_ref()))?;
            }
        }
        Ok(keys)
    }

    fn program(&mut self, backend: &BackendName) -> Result<()> {
        let find = || probe::find_program(self.context, backend).map(drop).map_err(Arc::new);
        Ok(self.programs.entry(backend.clone()).or_insert_with(find).clone()?)
    }

    /// Checks a worktree request. Returns the commit that it would start from now.
    fn worktree(&mut self, branch: Option<&str>, base: &Option<String>, path: Option<&Path>) -> Result<String> {
        if branch.is_none() {
            self.prefix()?;
        }
        if path.is_none() {
            self.folder()?;
        }
        if branch.is_none() && path.is_none() {
            // Generated names of branches and folders are free. Only the base can be wrong, or the identity missing.
            return self.base(base);
        }
        let repository = self.context.repository()?;
        let request = git::Request {
            branch: branch.map_or_else(|| format!("{}w-0", self.context.settings.branch_prefix), str::to_owned),
            base: base.clone(),
            start: self.start.as_ref().ok().map(|start| start.commit.clone()),
            tree: Some(self.context.tree().to_owned()),
            is_made_up: branch.is_none(),
            path: path.map(Path::to_owned),
            folder: Some(self.context.worktrees()),
            allowed_roots: self.context.allowed_roots(repository),
        };
        let plan = git::check(repository, &request)?;
        if plan.new_branch && plan.from_remote.is_none() {
            self.base(base)
        } else {
            // An existing branch starts at its own commit. Only the identity can be missing.
            self.context.require_identity()?;
            Ok(plan.base_commit)
        }
    }

    /// Returns the subfolder to run in. The default corresponds to the boss's own directory, if the start commit
    /// contains it.
    fn directory(&self, asked: Option<&Path>, start: &str, may_come: bool) -> Result<Option<PathBuf>> {
        let repository = self.context.repository()?;
        let is_there = |folder: &Path| git::has_folder(repository, start, folder);
        let Some(asked) = asked else {
            let own = self.context.subfolder();
            return Ok((!own.as_os_str().is_empty() && is_there(own)).then(|| own.to_owned()));
        };
        let tops = [self.context.tree(), repository.root()];
        let inner = tops.into_iter().find_map(|top| asked.strip_prefix(top).ok()).unwrap_or(asked);
        let inner: PathBuf = inner.components().filter(|part| !matches!(part, Component::CurDir)).collect();
        if inner.components().any(|part| !matches!(part, Component::Normal(_))) {
            return Err(OrchestratorError::NotASubfolder { directory: asked.to_owned() });
        }
        if !inner.as_os_str().is_empty() && !may_come && !is_there(&inner) {
            return Err(OrchestratorError::NoFolderAtStart { directory: inner, start: start[..10].to_owned() });
        }
        Ok(Some(inner).filter(|inner| !inner.as_os_str().is_empty()))
    }

    fn prefix(&mut self) -> Result<()> {
        if self.prefix.is_none() {
            let prefix = &self.context.settings.branch_prefix;
            let repository = self.context.repository()?;
            let blocked = |source| OrchestratorError::Prefix { prefix: prefix.clone(), source: Box::new(source) };
            self.prefix = Some(git::check_prefix(repository, prefix).map_err(|error| Arc::new(blocked(error))));
        }
        Ok(self.prefix.clone().unwrap_or(Ok(()))?)
    }

    /// Refuses a folder in which no worktree can ever be created. A full disk is no reason: its workers are queued.
    fn folder(&mut self) -> Result<()> {
        let check = || {
            let folder = self.context.worktrees();
            let is_full = |error: &io::Error| matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
            worktree_places::check_folder(&folder).or_else(|error| {
                if is_full(&error) {
                    Ok(())
                } else {
                    Err(Arc::new(OrchestratorError::WorktreesFolder { folder, source: error }))
                }
            })
        };
        Ok(self.folder.get_or_insert_with(check).clone()?)
    }

    fn base(&mut self, base: &Option<String>) -> Result<String> {
        if let Some(known) = self.bases.get(base) {
            return Ok(known.clone()?);
        }
        let found = self.new_base(base).map_err(Arc::new);
        self.bases.insert(base.clone(), found.clone());
        Ok(found?)
    }

    fn new_base(&self, base: &Option<String>) -> Result<String> {
        // The identity does not matter if there is no commit to start at.
        let start = if base.is_none() { Some(self.start.clone()?) } else { None };
        self.context.require_identity()?;
        match (start, base) {
            (Some(start), _) => Ok(start.commit),
            (None, base) => {
                let base = base.as_deref().unwrap_or_default();
                Ok(git::names::commit(self.context.repository()?, &self.context.checkout(), base)?)
            }
        }
    }
}

/// Returns the real path of a directory that a caller names in `field`, or why it cannot be used and an alternative.
pub(super) fn existing_directory(field: &'static str, path: &Path, otherwise: &str) -> Result<PathBuf> {
    let why = match path.canonicalize() {
        Ok(found) if found.is_dir() => return Ok(found),
        Ok(_) => "it is not a directory",
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound => "it does not exist",
            io::ErrorKind::NotADirectory => "a part of it is not a directory",
            io::ErrorKind::PermissionDenied => "it is not readable for this user",
            _ => "it leads nowhere",
        },
    };
    let (path, why, otherwise) = (path.to_owned(), why.to_owned(), otherwise.to_owned());
    Err(OrchestratorError::Directory { field, path, why, otherwise })
}
