//! Registration of a batch: which drafts become workers, and why the others are refused. Each draft is decided by
//! itself, so that a bad one fails alone. Pure.

mod references;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use super::entry::NewWorker;
use super::hint::{Hint, Hinted};
use super::id::{BackendName, BossId, RaceId, TaskId, WorkerId};
use super::race::{self, Race};
use super::registry::{Registry, Worker};
use super::spec::{ContextSource, Mission, Permissions, Place};

/// A mission as the boss gave it. Its fields are checked one by one, but not yet against the other missions.
#[derive(Debug, Clone)]
pub struct Draft {
    pub title: String,
    pub prompt: String,
    pub backend: BackendName,
    pub model: Option<String>,
    pub effort: Option<String>,
    pub place: DraftPlace,
    pub setup_command: Option<String>,
    pub verify_command: Option<String>,
    pub task_id: Option<TaskId>,
    pub depends_on: Vec<String>,
    pub context_from: Vec<String>,
    pub timeout_minutes: u32,
    pub max_cost_usd: Option<f64>,
    pub max_tokens: Option<u64>,
    pub fallback_backends: Vec<BackendName>,
    pub max_attempts: u32,
    pub request_id: Option<String>,
    pub permissions: Permissions,
    /// See [`Mission::run_on`].
    pub run_on: Option<String>,
    pub profile: Option<AppliedProfile>,
    /// See [`NewWorker::needs`].
    pub needs: Vec<String>,
}

/// The profile that completed a draft, and the names of the fields that it supplied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedProfile {
    pub name: String,
    pub fields: Vec<&'static str>,
}

impl Draft {
    pub fn mission(
        &self,
        task_id: TaskId,
        depends_on: Vec<TaskId>,
        context_from: Vec<ContextSource>,
        place: Place,
    ) -> Mission {
        Mission {
            title: self.title.clone(),
            prompt: self.prompt.clone(),
            backend: self.backend.clone(),
            model: self.model.clone(),
            effort: self.effort.clone(),
            place,
            setup_command: self.setup_command.clone(),
            verify_command: self.verify_command.clone(),
            task_id,
            depends_on,
            context_from,
            timeout_minutes: self.timeout_minutes,
            max_cost_usd: self.max_cost_usd,
            max_tokens: self.max_tokens,
            fallback_backends: self.fallback_backends.clone(),
            max_attempts: self.max_attempts,
            request_id: self.request_id.clone(),
            permissions: self.permissions,
            run_on: self.run_on.clone(),
            profile: self.profile.as_ref().map(|profile| profile.name.clone()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DraftPlace {
    Directory(PathBuf),
    /// A worktree of the worker's own. An omitted path or branch is derived from the worker's id.
    Worktree {
        branch: Option<String>,
        base: Option<String>,
        path: Option<PathBuf>,
        /// The subfolder to run in, relative to the root of the worktree.
        directory: Option<PathBuf>,
    },
}

/// The result of registering one draft.
#[derive(Debug, Clone, PartialEq)]
pub enum Registered {
    New(Box<NewWorker>),
    /// An existing worker with the same `request_id`.
    Existing(WorkerId),
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Rejection {
    #[error("cannot use task_id {:?}: it belongs to worker {worker}, which is still {status}", task.as_str())]
    TaskOpen { task: TaskId, worker: WorkerId, status: &'static str },
    #[error("cannot use task_id {:?}: it is in this batch more than once", task.as_str())]
    TaskTwice { task: TaskId },
    #[error("cannot depend on {name:?}: no task or worker here has this name; there are {known}")]
    UnknownDependency { name: String, known: String },
    #[error("cannot depend on {name:?}: it is {meanings}")]
    AmbiguousDependency { name: String, meanings: String },
    #[error("cannot take context from {name:?}: no task or worker here has this name; there are {known}")]
    UnknownContext { name: String, known: String },
    #[error("cannot take context from {name:?}: it is {meanings}")]
    AmbiguousContext { name: String, meanings: String },
    #[error("cannot take context from {name:?}: {worker} is a worker of another boss")]
    ContextOfAnother { name: String, worker: WorkerId },
    #[error("cannot depend in a cycle: {path}")]
    Cycle { path: String },
    #[error("cannot work in {path}: worker {worker} already works there")]
    PlaceTaken { worker: WorkerId, path: PathBuf },
    #[error("cannot use request_id {request:?}: another boss used it for its worker {worker}")]
    RequestTaken { request: String, worker: WorkerId },
    #[error("cannot race one mission: a race needs two or more")]
    RaceOfOne,
    #[error("cannot race these missions: {field} of mission {index} differs from that of the first")]
    RaceDiffers { field: &'static str, index: usize },
    #[error("cannot use request_id {request:?}: it is known, but not as a part of this race")]
    RaceRequest { request: String },
    #[error("cannot start the race: its mission {index} was refused")]
    RaceRefused { index: usize },
    #[error("cannot use branch {branch:?}: it belongs to worker {worker}, which is not settled")]
    BranchTaken { worker: WorkerId, branch: String },
}

impl Hinted for Rejection {
    fn hints(&self) -> Vec<Hint> {
        match self {
            Self::TaskOpen { worker, .. } => {
                vec![Hint::to("choose another task_id"), Hint::Cancel(worker.to_string())]
            }
            Self::TaskTwice { .. } => vec![Hint::to("give each mission a task_id of its own")],
            Self::UnknownDependency { .. } | Self::UnknownContext { .. } => {
                vec![Hint::to("name a task_id of this batch, or one of those")]
            }
            Self::ContextOfAnother { .. } => vec![Hint::to("name one of your own workers")],
            Self::AmbiguousDependency { .. } | Self::AmbiguousContext { .. } => {
                vec![Hint::to("use the whole id of one")]
            }
            Self::Cycle { .. } => vec![Hint::to("remove one of these dependencies")],
            Self::PlaceTaken { worker, .. } => {
                let other = Hint::to("name another directory, or none to get a worktree");
                vec![other, Hint::WaitFor(worker.to_string())]
            }
            Self::RequestTaken { .. } => {
                vec![
                    Hint::to("use another request_id"),
                    Hint::to("leave this mission to that worker, if it is the same"),
                ]
            }
            Self::RaceOfOne => {
                let more = Hint::to("add a mission with another backend or model_override");
                vec![more, Hint::to("leave out `race`")]
            }
            Self::RaceDiffers { .. } => {
                vec![Hint::to("make it the same"), Hint::to("leave out `race`, and give each a task_id of its own")]
            }
            Self::RaceRequest { .. } => {
                vec![Hint::to("repeat the whole race as it was"), Hint::to("use new request_ids")]
            }
            Self::RaceRefused { .. } => vec![Hint::to("fix that mission and create the race again")],
            Self::BranchTaken { .. } => vec![Hint::to("choose another branch name")],
        }
    }
}

/// Defaults for the worktrees and branches that a boss does not specify.
#[derive(Debug, Clone, Copy)]
pub struct Defaults<'a> {
    pub worktrees: &'a Path,
    pub branch_prefix: &'a str,
    /// The integration branch to record: see [`NewWorker::integration_branch`].
    pub integration_branch: Option<&'a str>,
}

/// Decides on a batch, in order. The registry must be up to date and must not change until the result is journalled.
pub fn register(
    registry: &Registry,
    boss: &BossId,
    drafts: &[Draft],
    defaults: Defaults<'_>,
) -> Vec<Result<Registered, Rejection>> {
    let mut batch = BatchRegistration::new(registry, boss, drafts);
    drafts.iter().map(|draft| batch.register(draft, defaults)).collect()
}

/// Decides on missions that race each other. All of them are registered, or none.
pub fn register_race(
    registry: &Registry,
    boss: &BossId,
    drafts: &[Draft],
    defaults: Defaults<'_>,
) -> Vec<Result<Registered, Rejection>> {
    let refuse_all = |why: Rejection| drafts.iter().map(|_| Err(why.clone())).collect();
    if let Err(why) = check_race(drafts) {
        return refuse_all(why);
    }
    let id = RaceId::from(format!("race-{}", registry.last_number + 1));
    let drafts: Vec<Draft> = drafts
        .iter()
        .map(|draft| Draft { task_id: draft.task_id.clone().or_else(|| Some(id.as_str().into())), ..draft.clone() })
        .collect();
    let mut batch = BatchRegistration { is_race: true, ..BatchRegistration::new(registry, boss, &drafts) };
    let mut made: Vec<_> = drafts.iter().map(|draft| batch.register(draft, defaults)).collect();
    if let Some(refused) = made.iter().position(Result::is_err) {
        for other in made.iter_mut().filter(|it| it.is_ok()) {
            *other = Err(Rejection::RaceRefused { index: refused });
        }
        return made;
    }
    if let Some(request) = known_request(registry, &drafts, &made) {
        return refuse_all(Rejection::RaceRequest { request });
    }
    let racers: Vec<WorkerId> = made.iter().flatten().filter_map(|it| Some(it.new_worker()?.id.clone())).collect();
    for new in made.iter_mut().flatten() {
        if let Registered::New(new) = new {
            new.race = Some(Race::new(id.clone(), racers.clone()));
        }
    }
    made
}

/// Refuses missions that are not one task.
fn check_race(drafts: &[Draft]) -> Result<(), Rejection> {
    let Some(first) = drafts.first().filter(|_| drafts.len() > 1) else { return Err(Rejection::RaceOfOne) };
    for (index, draft) in drafts.iter().enumerate() {
        let same = [
            ("prompt", draft.prompt == first.prompt),
            ("task_id", draft.task_id == first.task_id),
            ("verify_command", draft.verify_command == first.verify_command),
            ("depends_on", draft.depends_on == first.depends_on),
            ("context_from", draft.context_from == first.context_from),
            ("permissions", draft.permissions == first.permissions),
        ];
        if let Some((field, _)) = same.into_iter().find(|(_, same)| !same) {
            return Err(Rejection::RaceDiffers { field, index });
        }
    }
    Ok(())
}

/// Returns a request id of an existing worker, unless all of them are those of one race, which is then a repeated
/// request.
fn known_request(registry: &Registry, drafts: &[Draft], made: &[Result<Registered, Rejection>]) -> Option<String> {
    let existing = |it: &Result<Registered, Rejection>| match it {
        Ok(Registered::Existing(id)) => Some(id.clone()),
        _ => None,
    };
    let known: Vec<WorkerId> = made.iter().filter_map(existing).collect();
    let race = known.first().and_then(|id| registry.get(id)?.race.as_ref());
    if known.is_empty() || race.is_some_and(|race| race.racers == known) && known.len() == made.len() {
        return None;
    }
    let at = made.iter().position(|it| existing(it).is_some())?;
    drafts[at].request_id.clone()
}

impl Registered {
    pub fn new_worker(&self) -> Option<&NewWorker> {
        match self {
            Registered::New(new) => Some(new),
            Registered::Existing(_) => None,
        }
    }
}

/// Maximum number of tasks that an error names.
const MOST_KNOWN: usize = 10;

struct BatchRegistration<'a> {
    registry: &'a Registry,
    boss: &'a BossId,
    next_number: u64,
    /// Task ids that any draft of this batch bears, so that the order within it does not matter.
    named: HashMap<TaskId, &'a Draft>,
    taken_tasks: HashSet<TaskId>,
    requests: HashMap<&'a str, WorkerId>,
    paths: HashMap<PathBuf, WorkerId>,
    branches: HashMap<String, WorkerId>,
    /// Tasks that are in no cycle and depend on none, determined once for the whole batch.
    acyclic: HashSet<ContextSource>,
    /// The names that an error lists as known.
    known: Vec<TaskId>,
    /// All of them bear the same task id.
    is_race: bool,
}

impl<'a> BatchRegistration<'a> {
    fn new(registry: &'a Registry, boss: &'a BossId, drafts: &'a [Draft]) -> Self {
        let named: HashMap<_, _> = drafts.iter().filter_map(|draft| Some((draft.task_id.clone()?, draft))).collect();
        let mut known: Vec<TaskId> = named.keys().cloned().collect();
        known.sort_unstable();
        known.extend(registry.workers().rev().map(|worker| worker.task().clone()).take(MOST_KNOWN));
        known.truncate(MOST_KNOWN);
        let mut paths = HashMap::new();
        let mut branches = HashMap::new();
        for worker in registry.workers().filter(|worker| !worker.status.is_settled()) {
            if worker.mission.permissions != Permissions::ReadOnly {
                paths.insert(worker.mission.place.path().to_owned(), worker.id.clone());
            }
            if let Some(branch) = worker.mission.place.branch() {
                branches.insert(branch.to_owned(), worker.id.clone());
            }
        }
        let mut batch = Self {
            registry,
            boss,
            next_number: registry.last_number + 1,
            named,
            taken_tasks: HashSet::new(),
            requests: HashMap::new(),
            paths,
            branches,
            acyclic: HashSet::new(),
            known,
            is_race: false,
        };
        batch.acyclic = batch.find_acyclic();
        batch
    }

    fn register(&mut self, draft: &'a Draft, defaults: Defaults<'_>) -> Result<Registered, Rejection> {
        if let Some(existing) = self.same_request(draft)? {
            return Ok(Registered::Existing(existing));
        }
        let id = WorkerId::new(self.next_number, &draft.title);
        let task_id = draft.task_id.clone().unwrap_or_else(|| TaskId::from(id.to_string()));
        self.check_task(&task_id)?;
        let depends_on = self.resolve_dependencies(draft)?;
        let context_from = self.resolve_context(draft)?;
        self.check_cycle(&task_id, draft)?;
        let place = self.claim_place(&id, draft, defaults)?;

        self.next_number += 1;
        self.taken_tasks.insert(task_id.clone());
        if let Some(request) = &draft.request_id {
            self.requests.insert(request, id.clone());
        }
        let mission = draft.mission(task_id, depends_on, context_from, place);
        Ok(Registered::New(Box::new(NewWorker {
            id,
            boss: self.boss.clone(),
            mission,
            needs: draft.needs.clone(),
            race: None,
            integration_branch: defaults.integration_branch.map(str::to_owned),
        })))
    }

    /// Returns the worker that was created by an earlier request with the same id. Another boss's request id is
    /// refused, since the two requests may or may not be the same.
    fn same_request(&self, draft: &Draft) -> Result<Option<WorkerId>, Rejection> {
        let Some(request) = draft.request_id.as_deref() else { return Ok(None) };
        match self.registry.by_request(request) {
            Some(worker) if worker.boss != *self.boss => {
                Err(Rejection::RequestTaken { request: request.to_owned(), worker: worker.id.clone() })
            }
            Some(worker) => Ok(Some(worker.id.clone())),
            None => Ok(self.requests.get(request).cloned()),
        }
    }

    fn check_task(&self, task: &TaskId) -> Result<(), Rejection> {
        if self.taken_tasks.contains(task) && !self.is_race {
            return Err(Rejection::TaskTwice { task: task.clone() });
        }
        let open = |worker: &&Arc<Worker>| !worker.status.is_settled();
        let newest = self.registry.task(task);
        let racers = newest.into_iter().flat_map(|worker| race::racers(self.registry, worker));
        match newest.into_iter().chain(racers).find(open) {
            None => Ok(()),
            Some(worker) => Err(Rejection::TaskOpen {
                task: task.clone(),
                worker: worker.id.clone(),
                status: worker.status.as_str(),
            }),
        }
    }

    fn claim_place(&mut self, id: &WorkerId, draft: &Draft, defaults: Defaults<'_>) -> Result<Place, Rejection> {
        let place = match &draft.place {
            DraftPlace::Directory(path) => Place::Directory { path: path.clone() },
            DraftPlace::Worktree { branch, base, path, directory } => Place::Worktree {
                path: path.clone().unwrap_or_else(|| defaults.worktrees.join(id.as_str())),
                branch: branch.clone().unwrap_or_else(|| format!("{}{id}", defaults.branch_prefix)),
                base: base.clone(),
                directory: directory.clone(),
            },
        };
        let writes = draft.permissions != Permissions::ReadOnly;
        if let Some(worker) = self.paths.get(place.path()).filter(|_| writes) {
            return Err(Rejection::PlaceTaken { worker: worker.clone(), path: place.path().to_owned() });
        }
        if let Some(branch) = place.branch() {
            if let Some(worker) = self.branches.get(branch) {
                return Err(Rejection::BranchTaken { worker: worker.clone(), branch: branch.to_owned() });
            }
            self.branches.insert(branch.to_owned(), id.clone());
        }
        if writes {
            self.paths.insert(place.path().to_owned(), id.clone());
        }
        Ok(place)
    }
}

#[cfg(test)]
mod tests;
