//! The references of a draft to other workers (`depends_on`, `context_from`): their resolution, and the detection of
//! cycles.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use super::{BatchRegistration, Draft, Rejection};
use crate::mission::id::TaskId;
use crate::mission::name::{Name, Named, meanings};
use crate::mission::spec::ContextSource;

impl BatchRegistration<'_> {
    pub(super) fn resolve_dependencies(&self, draft: &Draft) -> Result<Vec<TaskId>, Rejection> {
        draft.depends_on.iter().map(|name| self.resolve(name)).collect()
    }

    pub(super) fn resolve_context(&self, draft: &Draft) -> Result<Vec<ContextSource>, Rejection> {
        let mut sources = Vec::new();
        for name in &draft.context_from {
            let source = self.resolve_source(name)?;
            // Two names of one worker give one report.
            if !sources.contains(&source) {
                sources.push(source);
            }
        }
        Ok(sources)
    }

    /// Resolves the name of a dependency. A task of this batch takes precedence over one of the registry with the same
    /// key, since it is newer.
    fn resolve(&self, name: &str) -> Result<TaskId, Rejection> {
        let task = TaskId::from(name);
        if self.named.contains_key(&task) {
            return Ok(task);
        }
        match self.registry.named(name) {
            Named::One(worker) => Ok(worker.task().clone()),
            Named::Unknown => Err(Rejection::UnknownDependency { name: name.to_owned(), known: self.known_names() }),
            Named::Several(found) => {
                let meanings = meanings(&found);
                Err(Rejection::AmbiguousDependency { name: name.to_owned(), meanings })
            }
        }
    }

    /// Resolves the name of a source of context. The id of a worker means this worker, even if it races others.
    fn resolve_source(&self, name: &str) -> Result<ContextSource, Rejection> {
        let task = TaskId::from(name);
        if self.named.contains_key(&task) {
            return Ok(ContextSource::Task(task));
        }
        match self.registry.named(name) {
            Named::One(worker) if worker.boss != *self.boss => {
                Err(Rejection::ContextOfAnother { name: name.to_owned(), worker: worker.id.clone() })
            }
            Named::One(worker) if worker.task().as_str() == Name::new(name).task() => {
                Ok(ContextSource::Task(worker.task().clone()))
            }
            Named::One(worker) => Ok(ContextSource::Worker(worker.id.clone())),
            Named::Unknown => Err(Rejection::UnknownContext { name: name.to_owned(), known: self.known_names() }),
            Named::Several(found) => {
                Err(Rejection::AmbiguousContext { name: name.to_owned(), meanings: meanings(&found) })
            }
        }
    }

    fn known_names(&self) -> String {
        let known: Vec<&str> = self.known.iter().map(TaskId::as_str).collect();
        if known.is_empty() { "(there are none yet)".to_owned() } else { known.join(", ") }
    }

    /// Returns everything that a draft waits for.
    fn resolved(&self, draft: &Draft) -> Vec<ContextSource> {
        let tasks = draft.depends_on.iter().filter_map(|name| self.resolve(name).ok()).map(ContextSource::Task);
        let sources = draft.context_from.iter().filter_map(|name| self.resolve_source(name).ok());
        tasks.chain(sources).collect()
    }

    fn needs(&self, source: &ContextSource) -> Vec<ContextSource> {
        let worker = match source {
            ContextSource::Task(task) => match self.named.get(task) {
                Some(draft) => return self.resolved(draft),
                None => self.registry.task(task),
            },
            ContextSource::Worker(id) => self.registry.get(id),
        };
        worker.filter(|worker| !worker.status.is_settled()).map(|it| it.mission.waits_for()).unwrap_or_default()
    }

    /// Returns the tasks that are in no cycle, by topological order. Each dependency is visited once.
    pub(super) fn find_acyclic(&self) -> HashSet<ContextSource> {
        let mut needs: HashMap<ContextSource, Vec<ContextSource>> = HashMap::new();
        let mut todo: Vec<ContextSource> = self.named.keys().cloned().map(ContextSource::Task).collect();
        while let Some(task) = todo.pop() {
            if let Entry::Vacant(new) = needs.entry(task) {
                let below = self.needs(new.key());
                todo.extend(below.iter().cloned());
                new.insert(below);
            }
        }
        let mut needed_by: HashMap<&ContextSource, Vec<&ContextSource>> = HashMap::new();
        for (task, below) in &needs {
            below.iter().for_each(|it| needed_by.entry(it).or_default().push(task));
        }
        let mut left: HashMap<&ContextSource, usize> = needs.iter().map(|(task, below)| (task, below.len())).collect();
        let mut free: Vec<&ContextSource> =
            left.iter().filter(|(_, left)| **left == 0).map(|(task, _)| *task).collect();
        let mut acyclic = HashSet::new();
        while let Some(task) = free.pop() {
            acyclic.insert(task.clone());
            for above in needed_by.remove(task).unwrap_or_default() {
                let left = left.entry(above).or_default();
                *left -= 1;
                if *left == 0 {
                    free.push(above);
                }
            }
        }
        acyclic
    }

    /// Searches everything that this draft waits for, in the batch and the registry, for the draft itself. Accepted
    /// drafts of this batch are skipped, since they are in no cycle.
    pub(super) fn check_cycle(&self, task: &TaskId, draft: &Draft) -> Result<(), Rejection> {
        let own = ContextSource::Task(task.clone());
        let is_named = self.named.get(task).is_some_and(|named| std::ptr::eq(*named, draft));
        if draft.task_id.is_none() || is_named && self.acyclic.contains(&own) {
            return Ok(());
        }
        let is_accepted =
            |it: &ContextSource| matches!(it, ContextSource::Task(task) if self.taken_tasks.contains(task));
        let mut needed_by: HashMap<ContextSource, ContextSource> = HashMap::new();
        let mut todo = vec![(own.clone(), self.resolved(draft))];
        while let Some((at, below)) = todo.pop() {
            for next in below {
                if next == own {
                    return Err(Rejection::Cycle { path: cycle_path(&own, &at, &needed_by) });
                }
                if !is_accepted(&next) && !needed_by.contains_key(&next) {
                    needed_by.insert(next.clone(), at.clone());
                    let below = self.needs(&next);
                    todo.push((next, below));
                }
            }
        }
        Ok(())
    }
}

/// Returns the path from the task through what it waits for back to the task.
fn cycle_path(task: &ContextSource, last: &ContextSource, needed_by: &HashMap<ContextSource, ContextSource>) -> String {
    let mut path = vec![task.name()];
    let mut at = Some(last);
    while let Some(here) = at.filter(|here| *here != task) {
        path.push(here.name());
        at = needed_by.get(here);
    }
    path.push(task.name());
    path.reverse();
    path.join(" → ")
}
