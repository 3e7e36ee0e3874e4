//! One integration, from its commits to the moved branch. One or several branches form a train. They are stacked in
//! memory, verified as a whole if a command is given, and only then landed. Branches in conflict are left out. If the
//! whole does not pass, a bisection over the prefixes finds the cause, which is left out too. Nothing is changed before
//! the branch moves, by compare-and-swap, to exactly the commit that was verified. Then it is recorded.

use std::collections::{BTreeMap, HashSet};
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use super::actor_handle::ActorHandle;
use super::answers::*;
use super::blocking::blocking;
use super::context::Context;
use super::error::OrchestratorError;
use super::jobs::{Order, Source};
use super::mailbox::Ask;
use crate::git::origins::{self, CommitOrigins, EarlierIntegration, WorkerHistory};
use crate::git::{self, IntegrateError, IntegrationStep, Landing, MergeConflict, Repository, ScratchMerge, Stacked};
use crate::mission::hint::Advice;
use crate::mission::outcome::{Missing, Verification};
use crate::mission::registry::{Integrated, Worker};

mod answer;
mod run;

pub(super) use answer::answer;
use answer::{describe, notes};
pub(super) use run::run;

type Result<T> = std::result::Result<T, OrchestratorError>;

/// Maximum number of dependencies of a worker that are considered.
const MOST_BELOW: usize = 100;

/// A batch entry: a source, by its index in the order, and the commit that includes it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct BatchEntry {
    source: usize,
    commit: String,
}

#[derive(Debug, Clone)]
enum Why {
    Conflicts(Vec<MergeConflict>),
    NotVerified(Verification),
    /// The target alone does not pass.
    TargetFails(Verification),
    Refused(Arc<IntegrateError>),
}

#[derive(Debug, Clone, Default)]
struct Train {
    /// The commit of the target, on which everything else is stacked.
    from: String,
    stacked: Vec<BatchEntry>,
    /// Sources that bring nothing new, with the commit that includes them. True if that is recorded, false if git shows
    /// it.
    there: Vec<(BatchEntry, bool)>,
    left: Vec<(usize, Why)>,
    /// Commits of the sources that are not their workers' own, by index in the order.
    origins: BTreeMap<usize, CommitOrigins>,
    /// Commits of the sources up to which the user has integrated the changes by hand, by index in the order.
    by_hand: BTreeMap<usize, String>,
    verification: Option<Verification>,
    verifications: usize,
    /// The full log of the last verification that did not pass.
    log: Option<PathBuf>,
    /// Files and folders that its worktree lacked.
    lacks: Vec<Missing>,
}

impl Train {
    fn end(&self) -> &str {
        self.stacked.last().map_or(&self.from, |entry| &entry.commit)
    }
}

/// Tries an integration without writing, running a command or contacting a remote.
pub(super) async fn try_out(
    actor: &ActorHandle,
    order: &Order,
    left_out: Vec<(String, Advice)>,
) -> Result<IntegrationAnswer> {
    let recorded = recorded(actor, order).await?;
    let (context, order) = (Arc::clone(&actor.context), order.clone());
    let (answer, folder) = blocking(move || {
        let repository = &order.repository;
        refuse_without_identity(&context, repository)?;
        let from = git::integrate::tip(repository, &order.into)?;
        let scratch = ScratchMerge::dry(repository)?;
        // Runs in parallel, since each starts git.
        let (stack, bypassed, landing) = thread::scope(|scope| {
            let bypassed = scope.spawn(|| git::bypassed::bypassed(repository, order.push));
            let landing = scope.spawn(|| Landing::of(repository, &order.into));
            let stack = stack(&scratch, &order, &recorded, from).and_then(|train| {
                let changes = scratch.changes(&train.from, train.end())?;
                Ok((train, changes))
            });
            (stack, bypassed.join(), landing.join())
        });
        let ((train, changes), bypassed) =
            (stack?, bypassed.unwrap_or_else(|panic| resume_unwind(panic)).map_err(OrchestratorError::from));
        let would_move = !train.stacked.is_empty();
        if would_move {
            let landing = landing.unwrap_or_else(|panic| resume_unwind(panic))?;
            landing.check(&changes)?;
        }
        let mut answer = describe(&order, &train, left_out);
        if would_move {
            answer.status = IntegrationStatus::WouldMerge;
            answer.integrated.clear();
        }
        answer.commit = None;
        answer.notes = notes(&order, &train, || bypassed)?;
        if order.push {
            answer.push = Some(git::push(repository, &order.into, true)?);
        }
        Ok((answer, scratch.into_scratch()))
    })
    .await?;
    // Each freed block takes milliseconds on a disk that discards it, and no caller waits for this.
    tokio::task::spawn_blocking(move || drop(folder));
    Ok(answer)
}

/// Returns what the records contain about each source.
async fn recorded(actor: &ActorHandle, order: &Order) -> Result<Vec<Recorded>> {
    let mut recorded = Vec::new();
    for source in &order.sources {
        let Some(worker) = source.by() else {
            recorded.push(Recorded::default());
            continue;
        };
        let Some(worker) = find(actor, worker.as_str()).await else {
            recorded.push(Recorded::default());
            continue;
        };
        let below = built_on(actor, &worker).await;
        recorded.push(Recorded {
            integrations: worker.integrations().cloned().collect(),
            worked: worker.last().is_some_and(|last| last.changes.commits > 0),
            known: known(&worker, &below, source, &order.into),
        });
    }
    Ok(recorded)
}

async fn find(actor: &ActorHandle, name: &str) -> Option<Arc<Worker>> {
    let name = Some(name.to_owned());
    actor.ask(|reply| Ask::Lookup { name, reply }).await.ok()?.ok()?.worker
}

/// Returns all direct and indirect dependencies of a worker, up to a limit.
async fn built_on(actor: &ActorHandle, worker: &Worker) -> Vec<Arc<Worker>> {
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    let mut left = worker.mission.depends_on.clone();
    while let Some(task) = left.pop().filter(|_| found.len() < MOST_BELOW) {
        if !seen.insert(task.clone()) {
            continue;
        }
        // An unknown task was integrated long ago, or never.
        let Some(below) = find(actor, task.as_str()).await else { continue };
        left.extend(below.mission.depends_on.iter().cloned());
        found.push(below);
    }
    found
}

fn known(worker: &Worker, below: &[Arc<Worker>], source: &Source, into: &str) -> WorkerHistory {
    let earlier_integrations = |worker: &Worker, own: bool| {
        let here = worker.integrations().filter(|it| it.into == into);
        let earlier_integrations = |it: &Integrated| {
            Some(EarlierIntegration { source: it.source.clone()?, commit: it.commit.clone(), partial: it.partial, own })
        };
        here.filter_map(earlier_integrations).collect::<Vec<_>>()
    };
    WorkerHistory {
        base: worker.base_commit.clone(),
        from_target: worker.base_branch.as_deref() == Some(into),
        began: below.iter().map(|it| it.created_at).fold(worker.created_at, Ord::min).as_second(),
        branches: [source.branch.as_str()]
            .into_iter()
            .chain(below.iter().filter_map(|it| it.branch()))
            .map(str::to_owned)
            .collect(),
        assigned: worker.mission.place.branch().filter(|branch| *branch != source.branch).map(str::to_owned),
        earlier_integrations: earlier_integrations(worker, true)
            .into_iter()
            .chain(below.iter().flat_map(|it| earlier_integrations(it, false)))
            .collect(),
    }
}

#[derive(Debug, Clone, Default)]
struct Recorded {
    integrations: Vec<Integrated>,
    worked: bool,
    known: WorkerHistory,
}

impl Recorded {
    /// Returns the commit that integrated exactly this tip, if the target still contains it.
    fn commit_in(&self, order: &Order, source: &Source, from: &str) -> Option<String> {
        let same = |it: &&Integrated| it.into == order.into && it.source.as_deref() == Some(&source.tip);
        let is_there = |it: &&Integrated| git::integrate::contains(&order.repository, from, &it.commit);
        self.integrations.iter().rev().filter(same).find(is_there).map(|found| found.commit.clone())
    }
}

fn stack(scratch: &ScratchMerge<'_>, order: &Order, recorded: &[Recorded], from: String) -> Result<Train> {
    let mut train = Train { from, ..Train::default() };
    let mut rest = Vec::new();
    for (at, source) in order.sources.iter().enumerate() {
        match recorded[at].commit_in(order, source, &train.from) {
            Some(commit) => train.there.push((BatchEntry { source: at, commit }, true)),
            None => {
                let (repository, known) = (&order.repository, &recorded[at].known);
                if source.by().is_some() {
                    let origins = origins::commit_origins(repository, &order.into, &train.from, &source.tip, known)?;
                    train.origins.insert(at, origins);
                }
                rest.push(at);
            }
        }
    }
    stack_on(scratch, order, &mut train, &rest)?;
    Ok(train)
}

/// Returns the tips of earlier entries that this source is built on. They may be included as other commits.
fn had_of_train(order: &Order, train: &Train, at: usize) -> Vec<String> {
    let before = train
        .stacked
        .iter()
        .chain(train.there.iter().map(|(entry, _)| entry))
        .map(|entry| &order.sources[entry.source].tip);
    let is_below = |tip: &&String| git::integrate::contains(&order.repository, &order.sources[at].tip, tip);
    before.filter(is_below).cloned().collect()
}

fn refuse_without_identity(context: &Context, repository: &Repository) -> Result<()> {
    if context.repository.as_ref() == Some(repository) {
        context.require_identity()
    } else {
        repository.identity().map(drop).map_err(OrchestratorError::from)
    }
}

fn stack_on(scratch: &ScratchMerge<'_>, order: &Order, train: &mut Train, sources: &[usize]) -> Result<()> {
    for &at in sources {
        let source = &order.sources[at];
        let origins = train.origins.get(&at).cloned().unwrap_or_default();
        let step = IntegrationStep {
            source: source.branch.clone(),
            tip: source.tip.clone(),
            strategy: order.strategy,
            message: source.message.clone(),
            is_last: sources.last() == Some(&at),
            contained: origins.contained.into_iter().chain(had_of_train(order, train, at)).collect(),
            withdrawn: origins.withdrawn,
        };
        let stack = scratch.stack(train.end(), &step).map(|(stack, by_hand)| {
            train.by_hand.remove(&at);
            train.by_hand.extend(by_hand.map(|commit| (at, commit)));
            stack
        });
        match stack {
            Ok(Stacked::Clean(commit)) if is_there(scratch, train, &commit)? => {
                train.there.push((BatchEntry { source: at, commit: train.end().to_owned() }, false));
            }
            Ok(Stacked::Clean(commit)) => train.stacked.push(BatchEntry { source: at, commit }),
            Ok(Stacked::Nothing) => {
                train.there.push((BatchEntry { source: at, commit: train.end().to_owned() }, false))
            }
            Ok(Stacked::Conflicts(conflicts)) => train.left.push((at, Why::Conflicts(conflicts))),
            Err(error @ IntegrateError::MergeCommit { .. }) if order.sources.len() > 1 => {
                train.left.push((at, Why::Refused(Arc::new(error))));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Returns whether the target has all changes of the commit, as other commits: the user squashed, picked or copied
/// them. Not on top of others of the train, which may yet be left out.
fn is_there(scratch: &ScratchMerge<'_>, train: &Train, commit: &str) -> Result<bool> {
    Ok(train.stacked.is_empty() && scratch.is_same(&train.from, commit)?)
}
