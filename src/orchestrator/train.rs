//! One integration, from its commits to the moved branch. One or several branches form a train. They are stacked in
//! memory, verified as a whole if a command is given, and only then landed. Branches in conflict are left out. If the
//! whole does not pass, a bisection over the prefixes finds the cause, which is left out too. Nothing is changed before
//! the branch moves, by compare-and-swap, to exactly the commit that was verified. Then it is recorded.

use std::collections::{BTreeMap, HashSet};
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use super::answers::*;
use super::context::Context;
use super::error::OrchestratorError;
use super::handle::{Orchestrator, blocking};
use super::jobs::{Done, Teller};
use super::mail::Ask;
use super::prove::{Proof, prove};
use crate::crash_point::{self, Point};
use crate::git::origins::{self, CommitOrigins, EarlierIntegration, WorkerHistory};
use crate::git::{
    self, BranchMove, IntegrateError, IntegrationStep, Landing, MergeConflict, Repository, ScratchMerge, Stacked,
    Strategy,
};
use crate::mission::entry::Entry;
use crate::mission::hint::with_hints;
use crate::mission::id::WorkerId;
use crate::mission::outcome::{Missing, Verification};
use crate::mission::registry::{Integrated, Worker};

mod answer;

pub(super) use answer::answer;
use answer::{notes, tell};

type Result<T> = std::result::Result<T, OrchestratorError>;

/// Maximum number of dependencies of a worker that are considered.
const MOST_BELOW: usize = 100;

/// A requested integration. Equal orders are the same job.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Order {
    pub repository: Repository,
    pub sources: Vec<Source>,
    pub into: String,
    pub strategy: Strategy,
    pub verify_command: Option<String>,
    /// The subfolder in which the command runs.
    pub directory: Option<PathBuf>,
    pub push: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Source {
    pub worker: Option<WorkerId>,
    /// The worker that owns the branch, if the branch was requested by name.
    pub made_by: Option<WorkerId>,
    pub branch: String,
    /// The commit of the branch when it was requested.
    pub tip: String,
    /// The message of the merge or squash commit.
    pub message: String,
    /// A note for the boss who integrates it.
    pub note: Option<String>,
}

impl Source {
    fn name(&self) -> String {
        self.worker.as_ref().map_or_else(|| self.branch.clone(), ToString::to_string)
    }

    fn by(&self) -> Option<&WorkerId> {
        self.worker.as_ref().or(self.made_by.as_ref())
    }
}

/// A batch entry: a source, by its index in the order, and the commit that includes it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Car {
    source: usize,
    commit: String,
}

#[derive(Debug, Clone, PartialEq)]
enum Why {
    Conflicts(Vec<MergeConflict>),
    Inconclusive(Verification),
    /// The target alone does not pass.
    TargetFails(Verification),
    Refused(String),
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Train {
    /// The commit of the target, on which everything else is stacked.
    from: String,
    cars: Vec<Car>,
    /// Sources that bring nothing new, with the commit that includes them. True if that is recorded, false if git shows
    /// it.
    there: Vec<(Car, bool)>,
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
        self.cars.last().map_or(&self.from, |car| &car.commit)
    }
}

/// Tries an integration without writing, running a command or contacting a remote.
pub(super) async fn try_out(
    orchestrator: &Orchestrator,
    order: &Order,
    left_out: Vec<(String, String)>,
) -> Result<IntegrationAnswer> {
    let recorded = recorded(orchestrator, order).await?;
    let (context, order) = (orchestrator.shared(), order.clone());
    let (answer, scratch) = blocking(move || {
        let repository = &order.repository;
        refuse_without_identity(&context, repository)?;
        let from = git::integrate::tip(repository, &order.into)?;
        let bench = ScratchMerge::dry(repository)?;
        // Runs in parallel, since each starts git.
        let (coupled, bypassed, landing) = thread::scope(|scope| {
            let bypassed = scope.spawn(|| git::bypassed::bypassed(repository, order.push));
            let landing = scope.spawn(|| Landing::of(repository, &order.into));
            let coupled = couple(&bench, &order, &recorded, from).and_then(|train| {
                let changes = bench.changes(&train.from, train.end())?;
                Ok((train, changes))
            });
            (coupled, bypassed.join(), landing.join())
        });
        let ((train, changes), bypassed) =
            (coupled?, bypassed.unwrap_or_else(|panic| resume_unwind(panic)).map_err(OrchestratorError::from));
        let would_move = !train.cars.is_empty();
        if would_move {
            let landing = landing.unwrap_or_else(|panic| resume_unwind(panic))?;
            landing.check(&changes)?;
        }
        let mut answer = tell(&order, &train, left_out);
        if would_move {
            answer.status = IntegrationStatus::WouldMerge;
            answer.integrated.clear();
        }
        answer.commit = None;
        answer.notes = notes(&order, &train, || bypassed)?;
        if order.push {
            answer.push = Some(git::push(repository, &order.into, true)?);
        }
        Ok((answer, bench.into_scratch()))
    })
    .await?;
    // Each freed block takes milliseconds on a disk that discards it, and no caller waits for this.
    tokio::task::spawn_blocking(move || drop(scratch));
    Ok(answer)
}

/// The job. Dropping the future leaves nothing half done: the branch has moved or it has not.
pub(super) async fn run(
    orchestrator: Orchestrator,
    order: Order,
    left_out: Vec<(String, String)>,
    teller: Teller,
) -> Done {
    let context = orchestrator.shared();
    teller.doing(format!("waits for another integration into {}", order.into));
    let lane = context.jobs.lane(&order.repository, &order.into);
    let _turn = lane.lock().await;
    let answer = Run { orchestrator, order: &order, teller }.run(left_out).await;
    let target = blocking(move || Ok(git::integrate::tip(&order.repository, &order.into).ok())).await;
    (answer.map_err(Arc::new), target.ok().flatten())
}

/// Returns what the records contain about each source.
async fn recorded(orchestrator: &Orchestrator, order: &Order) -> Result<Vec<Recorded>> {
    let mut recorded = Vec::new();
    for source in &order.sources {
        let Some(worker) = source.by() else {
            recorded.push(Recorded::default());
            continue;
        };
        let Some(worker) = find(orchestrator, worker.as_str()).await else {
            recorded.push(Recorded::default());
            continue;
        };
        let below = built_on(orchestrator, &worker).await;
        recorded.push(Recorded {
            integrations: worker.integrations().cloned().collect(),
            worked: worker.last().is_some_and(|last| last.changes.commits > 0),
            known: known(&worker, &below, source, &order.into),
        });
    }
    Ok(recorded)
}

async fn find(orchestrator: &Orchestrator, name: &str) -> Option<Arc<Worker>> {
    let name = Some(name.to_owned());
    orchestrator.ask(|reply| Ask::Lookup { name, reply }).await.ok()?.ok()?.worker
}

/// Returns all direct and indirect dependencies of a worker, up to a limit.
async fn built_on(orchestrator: &Orchestrator, worker: &Worker) -> Vec<Arc<Worker>> {
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    let mut left = worker.mission.depends_on.clone();
    while let Some(task) = left.pop().filter(|_| found.len() < MOST_BELOW) {
        if !seen.insert(task.clone()) {
            continue;
        }
        // An unknown task was integrated long ago, or never.
        let Some(below) = find(orchestrator, task.as_str()).await else { continue };
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
    /// True if it has commits.
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

fn couple(bench: &ScratchMerge<'_>, order: &Order, recorded: &[Recorded], from: String) -> Result<Train> {
    let mut train = Train { from, ..Train::default() };
    let mut rest = Vec::new();
    for (at, source) in order.sources.iter().enumerate() {
        match recorded[at].commit_in(order, source, &train.from) {
            Some(commit) => train.there.push((Car { source: at, commit }, true)),
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
    couple_on(bench, order, &mut train, &rest)?;
    Ok(train)
}

/// Returns the tips of earlier entries that this source is built on. They may be included as other commits.
fn had_of_train(order: &Order, train: &Train, at: usize) -> Vec<String> {
    let before =
        train.cars.iter().chain(train.there.iter().map(|(car, _)| car)).map(|car| &order.sources[car.source].tip);
    let is_below = |tip: &&String| git::integrate::contains(&order.repository, &order.sources[at].tip, tip);
    before.filter(is_below).cloned().collect()
}

fn refuse_without_identity(context: &Context, repository: &Repository) -> Result<()> {
    match context.repository.as_ref() == Some(repository) {
        true => context.require_identity(),
        false => repository.identity().map(drop).map_err(OrchestratorError::from),
    }
}

fn couple_on(bench: &ScratchMerge<'_>, order: &Order, train: &mut Train, sources: &[usize]) -> Result<()> {
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
        let coupled = bench.stack(train.end(), &step).map(|(coupled, by_hand)| {
            train.by_hand.remove(&at);
            train.by_hand.extend(by_hand.map(|commit| (at, commit)));
            coupled
        });
        match coupled {
            Ok(Stacked::Clean(commit)) if is_there(bench, train, &commit)? => {
                train.there.push((Car { source: at, commit: train.end().to_owned() }, false));
            }
            Ok(Stacked::Clean(commit)) => train.cars.push(Car { source: at, commit }),
            Ok(Stacked::Nothing) => train.there.push((Car { source: at, commit: train.end().to_owned() }, false)),
            Ok(Stacked::Conflicts(conflicts)) => train.left.push((at, Why::Conflicts(conflicts))),
            Err(error @ IntegrateError::MergeCommit { .. }) if order.sources.len() > 1 => {
                train.left.push((at, Why::Refused(with_hints(&error))));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Returns whether the target has all changes of the commit, as other commits: the user squashed, picked or copied
/// them. Not on top of others of the train, which may yet be left out.
fn is_there(bench: &ScratchMerge<'_>, train: &Train, commit: &str) -> Result<bool> {
    Ok(train.cars.is_empty() && bench.is_same(&train.from, commit)?)
}

struct Run<'a> {
    orchestrator: Orchestrator,
    order: &'a Order,
    teller: Teller,
}

impl Run<'_> {
    async fn run(&self, left_out: Vec<(String, String)>) -> Result<IntegrationAnswer> {
        let mut train = self.assemble().await?;
        if !train.cars.is_empty()
            && let Err(moved) = self.land(&train).await?
        {
            // Once more, with what is there now; whoever moves it all the time has to be told.
            let before = train.verifications;
            train = self.assemble().await?;
            train.verifications += before;
            if !train.cars.is_empty() {
                self.land(&train).await?.map_err(|_| OrchestratorError::from(moved))?;
            }
        }
        crash_point::at(Point::Merged);
        self.record(&train).await?;
        self.conclude(train, left_out).await
    }

    /// Returns the train that may land, on top of the current commit of the target.
    async fn assemble(&self) -> Result<Train> {
        self.teller.doing(format!("merges into {}", self.order.into));
        let recorded = recorded(&self.orchestrator, self.order).await?;
        let order = self.order.clone();
        let train = blocking(move || {
            let repository = &order.repository;
            repository.identity()?;
            let from = git::integrate::tip(repository, &order.into)?;
            let bench = ScratchMerge::new(repository);
            let train = couple(&bench, &order, &recorded, from)?;
            if !train.cars.is_empty() {
                let changes = bench.changes(&train.from, train.end())?;
                Landing::of(repository, &order.into).and_then(|it| it.check(&changes))?;
            }
            Ok(train)
        })
        .await?;
        match &self.order.verify_command {
            Some(command) if !train.cars.is_empty() => self.prove(train, command).await,
            _ => Ok(train),
        }
    }

    /// Leaves out the branches that keep the whole from passing. The remaining train has passed as it is, or is empty.
    async fn prove(&self, mut train: Train, command: &str) -> Result<Train> {
        // Number of leading batch entries that have passed together.
        let (mut good, mut passed) = (0, None);
        while train.cars.len() > good {
            let whole = self.verify(&mut train, None, command).await?;
            if is_passed(&whole) {
                passed = Some(whole);
                break;
            }
            let may_be = self.order.sources.len() > 1 || may_be_the_targets(&whole, &train.lacks);
            if good == 0 && may_be && train.left.iter().all(|(_, why)| !is_of_proof(why)) {
                let alone = self.verify(&mut train, Some(0), command).await?;
                if !is_passed(&alone) {
                    let cars = std::mem::take(&mut train.cars);
                    train.left.extend(cars.into_iter().map(|car| (car.source, Why::TargetFails(alone.clone()))));
                    train.verification = Some(alone);
                    return Ok(train);
                }
            }
            let (mut bad, mut why) = (train.cars.len(), whole);
            while bad - good > 1 {
                let middle = good + (bad - good) / 2;
                let part = self.verify(&mut train, Some(middle), command).await?;
                if is_passed(&part) {
                    (good, passed) = (middle, Some(part));
                } else {
                    (bad, why) = (middle, part);
                }
            }
            train.verification = Some(why.clone());
            let rest: Vec<usize> = train.cars.drain(good..).map(|car| car.source).collect();
            train.left.push((rest[0], Why::Inconclusive(why)));
            train = self.couple_rest(train, rest[1..].to_vec()).await?;
        }
        train.verification = passed.or(train.verification);
        crash_point::at(Point::Proven);
        Ok(train)
    }

    /// Verifies the first `first` batch entries. `None` means all of them.
    async fn verify(&self, train: &mut Train, first: Option<usize>, command: &str) -> Result<Verification> {
        let cars = &train.cars[..first.unwrap_or(train.cars.len())];
        let commit = cars.last().map_or(&train.from, |car| &car.commit).clone();
        train.verifications += 1;
        let names: Vec<String> = cars.iter().map(|car| self.order.sources[car.source].name()).collect();
        let with = if names.is_empty() { "alone".to_owned() } else { format!("with {}", names.join(", ")) };
        self.teller.doing(format!("verifies {} {with} (run {})", self.order.into, train.verifications));
        let (repository, directory) = (&self.order.repository, self.order.directory.as_deref());
        let Proof { result, log, lacks } = prove(&self.orchestrator, repository, &commit, command, directory).await?;
        train.log = log.or(train.log.take());
        if !is_passed(&result) {
            train.lacks = lacks;
        }
        Ok(result)
    }

    async fn couple_rest(&self, mut train: Train, rest: Vec<usize>) -> Result<Train> {
        let order = self.order.clone();
        blocking(move || {
            couple_on(&ScratchMerge::new(&order.repository), &order, &mut train, &rest)?;
            Ok(train)
        })
        .await
    }

    /// Moves the branch. The inner error means that the target has moved meanwhile and nothing was done.
    async fn land(&self, train: &Train) -> Result<std::result::Result<(), IntegrateError>> {
        let (order, train) = (self.order.clone(), train.clone());
        blocking(move || {
            let what = train.cars.iter().map(|car| order.sources[car.source].branch.clone()).collect::<Vec<_>>();
            let what = what.join(", ");
            adopt_target(&order)?;
            let step = BranchMove { branch: &order.into, from: &train.from, to: train.end(), what: &what };
            match git::land(&order.repository, step) {
                Ok(()) => Ok(Ok(())),
                Err(moved @ IntegrateError::TargetMoved { .. }) => Ok(Err(moved)),
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    /// Records what was integrated now, and what was integrated but not recorded because a server died before recording
    /// it.
    async fn record(&self, train: &Train) -> Result<()> {
        let recorded = recorded(&self.orchestrator, self.order).await?;
        let found = train.there.iter().filter(|(_, known)| !known).map(|(car, _)| car);
        let found = found.filter(|car| recorded[car.source].worked);
        for car in train.cars.iter().chain(found) {
            let source = &self.order.sources[car.source];
            let Some(worker) = source.by().cloned() else { continue };
            let (into, commit, source) = (self.order.into.clone(), car.commit.clone(), Some(source.tip.clone()));
            let partial = train.origins.get(&car.source).is_some_and(|origins| !origins.dropped.is_empty());
            let entry = Entry::Integrated { worker: worker.clone(), into, commit, source, partial };
            self.orchestrator.ask(|reply| Ask::Record { worker, entry, reply }).await??;
        }
        Ok(())
    }

    async fn conclude(&self, train: Train, left_out: Vec<(String, String)>) -> Result<IntegrationAnswer> {
        let is_in = !train.cars.is_empty() || !train.there.is_empty();
        let push = self.order.push && is_in;
        if push {
            self.teller.doing(format!("pushes {}", self.order.into));
        }
        let order = self.order.clone();
        blocking(move || {
            let mut answer = tell(&order, &train, left_out);
            let bypassed = || git::bypassed::bypassed(&order.repository, order.push).map_err(OrchestratorError::from);
            answer.notes = notes(&order, &train, bypassed)?;
            if push {
                adopt_target(&order)?;
                // The merge is done, even if the push fails.
                let pushed = git::push(&order.repository, &order.into, false);
                answer.push = Some(pushed.unwrap_or_else(|error| Pushed {
                    result: PushResult::Failed,
                    remote: None,
                    branch: None,
                    said: with_hints(&error),
                }));
            }
            Ok(answer)
        })
        .await
    }
}

/// Creates a target branch that only a remote has from the remote's, and not anew. Called last, so that a refused order
/// creates none.
fn adopt_target(order: &Order) -> Result<()> {
    git::names::adopt(&order.repository, &order.into).map(drop).map_err(OrchestratorError::from)
}

fn is_passed(verification: &Verification) -> bool {
    matches!(verification, Verification::Passed { .. })
}

/// Returns whether a single source may have failed because of the target. After a timeout, verifying the target alone
/// would take as long again. If the command did not run, it would show nothing, unless something was missing.
fn may_be_the_targets(verification: &Verification, lacks: &[Missing]) -> bool {
    match verification {
        Verification::Failed { .. } => true,
        Verification::CouldNotRun { .. } => !lacks.is_empty(),
        _ => false,
    }
}

fn is_of_proof(why: &Why) -> bool {
    matches!(why, Why::Inconclusive(_))
}
