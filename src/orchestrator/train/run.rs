//! The job: verifies, lands, records and describes a train.

use std::sync::Arc;

use super::answer::{describe, notes};
use super::{Result, Train, Why, recorded, stack, stack_on};
use crate::crash_point::{self, Point};
use crate::git::{self, BranchMove, IntegrateError, Landing, ScratchMerge};
use crate::mission::entry::Entry;
use crate::mission::hint::{Advice, with_hints};
use crate::mission::outcome::{Missing, Verification};
use crate::orchestrator::actor_handle::ActorHandle;
use crate::orchestrator::answers::*;
use crate::orchestrator::blocking::blocking;
use crate::orchestrator::error::OrchestratorError;
use crate::orchestrator::jobs::{Done, Order, Progress};
use crate::orchestrator::mailbox::Ask;
use crate::orchestrator::verify::{Verified, verify};

/// The job. Dropping the future leaves nothing half done: the branch has moved or it has not.
pub(in crate::orchestrator) async fn run(
    actor: ActorHandle,
    order: Order,
    left_out: Vec<(String, Advice)>,
    progress: Progress,
) -> Done {
    progress.doing(format!("waits for another integration into {}", order.into));
    let queue = actor.jobs.branch_queue(&order.repository, &order.into);
    let _turn = queue.lock().await;
    let answer = TrainRun { actor, order: &order, progress }.run(left_out).await;
    let target = blocking(move || Ok(git::integrate::tip(&order.repository, &order.into).ok())).await;
    (answer.map_err(Arc::new), target.ok().flatten())
}

struct TrainRun<'a> {
    actor: ActorHandle,
    order: &'a Order,
    progress: Progress,
}

impl TrainRun<'_> {
    async fn run(&self, left_out: Vec<(String, Advice)>) -> Result<IntegrationAnswer> {
        let mut train = self.assemble().await?;
        if !train.stacked.is_empty()
            && let Err(moved) = self.land(&train).await?
        {
            // Once more, on the current commit. If the target moves again, the caller gets the error.
            let before = train.verifications;
            train = self.assemble().await?;
            train.verifications += before;
            if !train.stacked.is_empty() {
                self.land(&train).await?.map_err(|_| OrchestratorError::from(moved))?;
            }
        }
        crash_point::at(Point::Merged);
        self.record(&train).await?;
        self.conclude(train, left_out).await
    }

    /// Returns the train that may land, on top of the current commit of the target.
    async fn assemble(&self) -> Result<Train> {
        self.progress.doing(format!("merges into {}", self.order.into));
        let recorded = recorded(&self.actor, self.order).await?;
        let order = self.order.clone();
        let train = blocking(move || {
            let repository = &order.repository;
            repository.identity()?;
            let from = git::integrate::tip(repository, &order.into)?;
            let scratch = ScratchMerge::new(repository);
            let train = stack(&scratch, &order, &recorded, from)?;
            if !train.stacked.is_empty() {
                let changes = scratch.changes(&train.from, train.end())?;
                Landing::of(repository, &order.into).and_then(|it| it.check(&changes))?;
            }
            Ok(train)
        })
        .await?;
        match &self.order.verify_command {
            Some(command) if !train.stacked.is_empty() => self.verify(train, command).await,
            _ => Ok(train),
        }
    }

    /// Leaves out the branches that keep the whole from passing. The remaining train has passed as it is, or is empty.
    async fn verify(&self, mut train: Train, command: &str) -> Result<Train> {
        // Number of leading batch entries that have passed together.
        let (mut good, mut passed) = (0, None);
        while train.stacked.len() > good {
            let whole = self.verify_prefix(&mut train, None, command).await?;
            if is_passed(&whole) {
                passed = Some(whole);
                break;
            }
            let may_be = self.order.sources.len() > 1 || may_be_the_targets(&whole, &train.lacks);
            if good == 0 && may_be && train.left.iter().all(|(_, why)| !is_of_verification(why)) {
                let alone = self.verify_prefix(&mut train, Some(0), command).await?;
                if !is_passed(&alone) {
                    let stacked = std::mem::take(&mut train.stacked);
                    train.left.extend(stacked.into_iter().map(|entry| (entry.source, Why::TargetFails(alone.clone()))));
                    train.verification = Some(alone);
                    return Ok(train);
                }
            }
            let (mut bad, mut why) = (train.stacked.len(), whole);
            while bad - good > 1 {
                let middle = good + (bad - good) / 2;
                let part = self.verify_prefix(&mut train, Some(middle), command).await?;
                if is_passed(&part) {
                    (good, passed) = (middle, Some(part));
                } else {
                    (bad, why) = (middle, part);
                }
            }
            train.verification = Some(why.clone());
            let rest: Vec<usize> = train.stacked.drain(good..).map(|entry| entry.source).collect();
            train.left.push((rest[0], Why::NotVerified(why)));
            train = self.stack_rest(train, rest[1..].to_vec()).await?;
        }
        train.verification = passed.or(train.verification);
        crash_point::at(Point::Proven);
        Ok(train)
    }

    /// Verifies the first `first` batch entries. `None` means all of them.
    async fn verify_prefix(&self, train: &mut Train, first: Option<usize>, command: &str) -> Result<Verification> {
        let stacked = &train.stacked[..first.unwrap_or(train.stacked.len())];
        let commit = stacked.last().map_or(&train.from, |entry| &entry.commit).clone();
        train.verifications += 1;
        let names: Vec<String> = stacked.iter().map(|entry| self.order.sources[entry.source].name()).collect();
        let with = if names.is_empty() { "alone".to_owned() } else { format!("with {}", names.join(", ")) };
        self.progress.doing(format!("verifies {} {with} (run {})", self.order.into, train.verifications));
        let Verified { result, log, lacks } = verify(&self.actor, self.order, &commit, command).await?;
        train.log = log.or(train.log.take());
        if !is_passed(&result) {
            train.lacks = lacks;
        }
        Ok(result)
    }

    async fn stack_rest(&self, mut train: Train, rest: Vec<usize>) -> Result<Train> {
        let order = self.order.clone();
        blocking(move || {
            stack_on(&ScratchMerge::new(&order.repository), &order, &mut train, &rest)?;
            Ok(train)
        })
        .await
    }

    /// Moves the branch. The inner error means that the target has moved meanwhile and nothing was done.
    async fn land(&self, train: &Train) -> Result<std::result::Result<(), IntegrateError>> {
        let (order, train) = (self.order.clone(), train.clone());
        blocking(move || {
            let what = train.stacked.iter().map(|entry| order.sources[entry.source].branch.clone()).collect::<Vec<_>>();
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
        let recorded = recorded(&self.actor, self.order).await?;
        let found = train.there.iter().filter(|(_, known)| !known).map(|(entry, _)| entry);
        let found = found.filter(|entry| recorded[entry.source].worked);
        for entry in train.stacked.iter().chain(found) {
            let source = &self.order.sources[entry.source];
            let Some(worker) = source.by().cloned() else { continue };
            let (into, commit, source) = (self.order.into.clone(), entry.commit.clone(), Some(source.tip.clone()));
            let partial = train.origins.get(&entry.source).is_some_and(|origins| !origins.dropped.is_empty());
            let entry = Entry::Integrated { worker: worker.clone(), into, commit, source, partial };
            self.actor.ask(|reply| Ask::Record { worker, entry, reply }).await??;
        }
        Ok(())
    }

    async fn conclude(&self, train: Train, left_out: Vec<(String, Advice)>) -> Result<IntegrationAnswer> {
        let is_in = !train.stacked.is_empty() || !train.there.is_empty();
        let push = self.order.push && is_in;
        if push {
            self.progress.doing(format!("pushes {}", self.order.into));
        }
        let order = self.order.clone();
        blocking(move || {
            let mut answer = describe(&order, &train, left_out);
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

fn is_of_verification(why: &Why) -> bool {
    matches!(why, Why::NotVerified(_))
}
