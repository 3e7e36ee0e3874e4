//! Names of workers. A name is an id or the beginning of one (`w-3`, `W-3-fix`), a number (`3`), the key of a task, or
//! a branch. An ambiguous name is refused with all its meanings. Pure: the caller looks up the workers.

use std::sync::Arc;

use super::id::{TaskId, WorkerId};
use super::registry::Registry;
use super::worker::Worker;

/// A name of a worker, to be looked up by number, by task and by branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name<'a>(&'a str);

/// The property of a worker that a name matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    Id,
    Task,
    Branch,
}

/// The result of resolving a name.
#[derive(Debug, Clone, PartialEq)]
pub enum Named {
    Unknown,
    One(Arc<Worker>),
    /// Several workers, each listed once.
    Several(Vec<(Meaning, Arc<Worker>)>),
}

/// The workers that match a name by number, task or branch.
#[derive(Debug, Default)]
pub struct Candidates {
    /// The worker with the number in the name. The rest of the name may differ.
    pub numbered: Option<Arc<Worker>>,
    /// The newest worker of the task, or the racer that represents the task.
    pub task: Option<Arc<Worker>>,
    pub on_branch: Vec<Arc<Worker>>,
}

impl<'a> Name<'a> {
    pub fn new(text: &'a str) -> Self {
        Self(text.trim())
    }

    pub fn task(self) -> &'a str {
        self.0
    }

    pub fn branch(self) -> &'a str {
        self.0.strip_prefix("refs/heads/").unwrap_or(self.0)
    }

    /// Returns the number in `3`, `w-3` or `W-3-fix`.
    pub fn number(self) -> Option<u64> {
        WorkerId::number_in(&self.as_id())
    }

    /// Returns whether it is the worker's id, its number, or a prefix of the id that contains the whole number.
    pub fn is_id_of(self, worker: &Worker) -> bool {
        self.number().is_some() && worker.id.as_str().starts_with(&self.as_id())
    }

    /// Converts the name to the form of an id, which is lower case.
    fn as_id(self) -> String {
        let is_number = !self.0.is_empty() && self.0.bytes().all(|byte| byte.is_ascii_digit());
        let prefix = if is_number { "w-" } else { "" };
        format!("{prefix}{}", self.0.to_ascii_lowercase())
    }

    /// Picks the worker that the name means. A whole id always wins, since some workers could not be named otherwise.
    pub fn choose(self, candidates: Candidates) -> Named {
        let by_id = candidates.numbered.filter(|worker| self.is_id_of(worker));
        if let Some(worker) = by_id.as_ref().filter(|worker| worker.id.as_str() == self.as_id()) {
            return Named::One(Arc::clone(worker));
        }
        let by_task = candidates.task.into_iter().map(|worker| (Meaning::Task, worker));
        let by_branch = candidates.on_branch.into_iter().map(|worker| (Meaning::Branch, worker));
        let mut found: Vec<(Meaning, Arc<Worker>)> = Vec::new();
        for (meaning, worker) in by_id.map(|worker| (Meaning::Id, worker)).into_iter().chain(by_task).chain(by_branch) {
            if found.iter().all(|(_, known)| known.id != worker.id) {
                found.push((meaning, worker));
            }
        }
        match found.len() {
            0 => Named::Unknown,
            1 => Named::One(found.remove(0).1),
            _ => Named::Several(found),
        }
    }
}

impl Registry {
    /// Resolves a name to a worker: see [`Name`].
    pub fn named(&self, text: &str) -> Named {
        let name = Name::new(text);
        name.choose(Candidates {
            numbered: name.number().and_then(|number| self.by_number(number)).cloned(),
            task: self.task(&TaskId::from(name.task())).cloned(),
            on_branch: self.on_branch(name.branch()).cloned().collect(),
        })
    }
}

impl Named {
    pub fn one(self) -> Option<Arc<Worker>> {
        match self {
            Named::One(worker) => Some(worker),
            Named::Unknown | Named::Several(_) => None,
        }
    }

    pub fn all(self) -> Vec<Arc<Worker>> {
        match self {
            Named::Unknown => Vec::new(),
            Named::One(worker) => vec![worker],
            Named::Several(found) => found.into_iter().map(|(_, worker)| worker).collect(),
        }
    }
}

/// Returns a text such as `the number of w-3-fix and the task of w-7-tax`.
pub fn meanings(found: &[(Meaning, Arc<Worker>)]) -> String {
    const NAMED: usize = 4;
    let what = |meaning: &Meaning| match meaning {
        Meaning::Id => "number",
        Meaning::Task => "task",
        Meaning::Branch => "branch",
    };
    let named = found.iter().take(NAMED).map(|(meaning, worker)| format!("the {} of {}", what(meaning), worker.id));
    let more = found.len().saturating_sub(NAMED);
    named.chain((more > 0).then(|| format!("{more} more"))).collect::<Vec<_>>().join(" and ")
}

/// Returns the worker that an unknown name probably means.
pub fn closest(registry: &Registry, text: &str) -> Option<WorkerId> {
    let name = Name::new(text);
    if let Some(number) = name.number() {
        // The number matches and the title differs. An unknown number has no close match.
        return registry.by_number(number).map(|worker| worker.id.clone());
    }
    let text = name.0.to_ascii_lowercase();
    let most = (text.chars().count() / 4).min(3);
    let distance = |worker: &Worker| {
        let slug = worker.id.as_str().splitn(3, '-').nth(2);
        let names = [Some(worker.task().as_str()), worker.mission.place.branch(), slug].into_iter().flatten();
        names.map(|name| edits(&text, &name.to_ascii_lowercase(), most)).min().unwrap_or(usize::MAX)
    };
    let near = registry.workers().rev().map(|worker| (distance(worker), worker)).filter(|(edits, _)| *edits <= most);
    near.min_by_key(|(edits, _)| *edits).map(|(_, worker)| worker.id.clone())
}

/// Returns the edit distance of two texts. Distances above `most` are not exact.
fn edits(one: &str, other: &str, most: usize) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    if one.len().abs_diff(other.len()) > most {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, left) in one.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], at + 1);
        for (to, right) in other.iter().enumerate() {
            let changed = diagonal + usize::from(left != right);
            diagonal = row[to + 1];
            row[to + 1] = changed.min(row[to] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mission::create::DraftPlace;
    use crate::mission::testing;

    fn registry() -> Registry {
        let mut registry = Registry::default();
        let mut fix = testing::draft("Fix parser");
        fix.task_id = None;
        let mut numeric = testing::draft("Numeric");
        numeric.task_id = Some("1".into());
        let mut named = testing::draft("Named");
        named.task_id = Some("tax".into());
        let branch = Some("feature/tax".to_owned());
        named.place = DraftPlace::Worktree { branch, base: None, path: None, directory: None };
        let mut four = testing::draft("Four");
        four.task_id = Some("4".into());
        testing::create(&mut registry, &[fix, numeric, named, four]).into_iter().for_each(|made| drop(made.unwrap()));
        registry
    }

    #[test]
    fn workers_have_six_kinds_of_names() {
        let registry = registry();
        for (name, number) in [
            ("w-3", 3),
            ("W-3", 3),
            ("3", 3),
            (" w-3 ", 3),
            ("w-3-named", 3),
            ("W-3-Named", 3),
            ("w-3-na", 3),
            ("tax", 3),
            ("feature/tax", 3),
            ("refs/heads/feature/tax", 3),
            ("o/w-1-fix-parser", 1),
            ("w-1-fix-parser", 1),
            // Its number and its task mean the same worker.
            ("4", 4),
        ] {
            let found = registry.named(name).one().unwrap_or_else(|| panic!("{name:?}: {:?}", registry.named(name)));
            assert_eq!(found.number(), Some(number), "{name:?}");
        }
        for name in ["", "w-", "w-5", "5", "03", "-3", "3.0", "w-3-other", "Tax", "o/w-1"] {
            assert_eq!(registry.named(name), Named::Unknown, "{name:?}");
        }
    }

    #[test]
    fn ambiguous_name_is_refused_with_all_meanings() {
        let mut registry = registry();
        let Named::Several(found) = registry.named("1") else { panic!("{:?}", registry.named("1")) };
        assert_eq!(meanings(&found), "the number of w-1-fix-parser and the task of w-2-numeric");
        // A later worker on the same branch, after the first has settled.
        let first = registry.named("tax").one().unwrap().id.clone();
        testing::settle(&mut registry, &first, crate::mission::lifecycle::Ending::Failed);
        let mut again = testing::draft("Again");
        let branch = Some("feature/tax".to_owned());
        again.place = DraftPlace::Worktree { branch, base: None, path: None, directory: None };
        testing::create(&mut registry, &[again]);
        let Named::Several(found) = registry.named("feature/tax") else { panic!("one of two was guessed") };
        assert_eq!(meanings(&found), "the branch of w-3-named and the branch of w-5-again");
    }

    #[test]
    fn unknown_name_has_a_close_one_or_none() {
        let registry = registry();
        let close = |name: &str| closest(&registry, name).map(|id| id.to_string());
        assert_eq!(close("w-1-fix-parsr").as_deref(), Some("w-1-fix-parser"));
        assert_eq!(close("fix-parsr").as_deref(), Some("w-1-fix-parser"));
        assert_eq!(close("feature/tex").as_deref(), Some("w-3-named"));
        for name in ["w-33", "9", "q", "something else"] {
            assert_eq!(close(name), None, "{name:?}");
        }
    }
}
