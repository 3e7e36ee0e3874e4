//! Whether a worker reached outside its worktree: what its CLI says that it edited elsewhere, and whether the main
//! checkout is another than before. The first is the worker's doing; the second only happened meanwhile.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::attempt::assignment::Assignment;
use crate::git::{self, Fingerprint, RefChange, Repository};
use crate::mission::hint::with_hints;

/// As many paths as a record names.
const NAMED_PATHS: usize = 20;

/// As many names as one sentence has.
const NAMED_CHANGES: usize = 5;

pub struct Outside {
    directory: PathBuf,
    edited: BTreeSet<String>,
}

impl Outside {
    pub fn of(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), edited: BTreeSet::new() }
    }

    /// Takes note of a path that the CLI says it edited.
    pub fn note_edit(&mut self, path: &str) {
        let outside = Path::new(path).is_absolute() && !Path::new(path).starts_with(&self.directory);
        if outside && self.edited.len() < NAMED_PATHS {
            self.edited.insert(path.to_owned());
        }
    }

    pub fn edited(&self) -> Vec<String> {
        self.edited.iter().cloned().collect()
    }
}

/// What is different in the main checkout, and in what all worktrees share, since before the worktree was made, in
/// words: it may have been anybody. What nothing reaches any more (a deleted branch, a dropped stash) is put under a
/// salvage ref, which is named too. Blocks.
pub fn main_checkout_changes(assignment: &Assignment) -> Vec<String> {
    let Some(before) = &assignment.main_checkout else { return Vec::new() };
    let told = assignment.repository.clone();
    let repository = told.or_else(|| Repository::discover(&assignment.directory).ok().flatten());
    let after = repository.as_ref().map(|repository| (repository, git::fingerprint(repository)));
    let Some((repository, Ok(after))) = after else { return vec!["it can no longer be read".to_owned()] };
    let kept = keep_lost(repository, assignment, before, &after);
    // First, since what is shown of all this is short.
    let integrated = |name: &str, from: &Option<String>, to: &Option<String>| match (from, to) {
        (Some(from), Some(to)) => git::only_integrated(repository, name, from, to).unwrap_or(false),
        _ => false,
    };
    kept.into_iter().chain(changes(before, &after, &assignment.settings.branch_prefix, integrated)).collect()
}

/// `integrated` tells whether a ref moved from one commit to the other by integrations alone, which the boss asked for.
fn changes(
    before: &Fingerprint,
    after: &Fingerprint,
    our_branches: &str,
    integrated: impl Fn(&str, &Option<String>, &Option<String>) -> bool,
) -> Vec<String> {
    let mut changed = before.compare(after);
    changed.head = changed.head && (changed.branch || !integrated("HEAD", &before.head, &after.head));
    changed.refs.retain(|it| !integrated(&it.name, &it.before, &it.after));
    let mut words = Vec::new();
    if changed.branch {
        let name = |branch: &Option<String>| branch.clone().unwrap_or_else(|| "no branch".to_owned());
        words.push(format!("another branch is checked out: {} (was {})", name(&after.branch), name(&before.branch)));
    }
    if changed.head {
        words.push(format!("its HEAD moved from {} to {}", short(&before.head), short(&after.head)));
    }
    words.extend(named("its index or files changed", changed.files));
    // Workers' branches come and go with them; they are told of by those workers.
    let others = changed.refs.iter().filter(|it| !it.name.starts_with(&format!("refs/heads/{our_branches}")));
    words.extend(named("refs changed", others.map(in_words).collect()));
    words.extend(named("a stash was pushed", changed.stashes_pushed));
    words.extend(named("a stash was dropped", changed.stashes_dropped));
    words.extend(named("the repository's configuration changed", changed.configuration));
    words
}

fn in_words(changed: &RefChange) -> String {
    match (&changed.before, &changed.after) {
        (None, _) => format!("{} is new", changed.name),
        (_, None) => format!("{} was deleted (was {})", changed.name, short(&changed.before)),
        _ => format!("{} moved from {} to {}", changed.name, short(&changed.before), short(&changed.after)),
    }
}

fn short(commit: &Option<String>) -> &str {
    commit.as_deref().map_or("none", |id| &id[..id.len().min(12)])
}

fn named(what: &str, names: Vec<String>) -> Option<String> {
    let rest = names.len().saturating_sub(NAMED_CHANGES);
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    let shown = names.iter().take(NAMED_CHANGES).cloned().collect::<Vec<_>>().join(", ");
    (!names.is_empty()).then(|| format!("{what}: {shown}{more}"))
}

/// Refs and stashes that are gone, and whose commits nothing else holds, are held by one ref of ours.
fn keep_lost(
    repository: &Repository,
    assignment: &Assignment,
    before: &Fingerprint,
    after: &Fingerprint,
) -> Option<String> {
    let changed = before.compare(after);
    let moved = changed.refs.into_iter().filter_map(|it| it.before);
    let head = before.head.clone().filter(|_| changed.head);
    let gone: Vec<String> = moved.chain(changed.stashes_dropped).chain(head).collect();
    let name = format!("{}-outside", assignment.worker_id);
    match git::keep_lost(repository, &name, gone, "salvage: what refs and stashes outside the worktree held") {
        Ok(kept) => kept.map(|kept| format!("what was lost is kept under {}", kept.name)),
        Err(error) => Some(format!("what refs held before is not kept: {}", with_hints(&error))),
    }
}
