//! Changes of the main checkout, and of what all worktrees share, while a worker ran. Any process may have made them.

use crate::attempt::assignment::Assignment;
use crate::git::{self, Fingerprint, RefChange, Repository};
use crate::mission::hint::with_hints;
use crate::mission::words;

/// Maximum number of names in one sentence.
const NAMED_CHANGES: usize = 5;
/// The ref of the notes that Qwen Code attaches to each of its commits. It affects no work of the user.
const ATTRIBUTION_NOTES: &str = "refs/notes/ai-attribution";

/// Describes the changes since before the worktree was made. Commits that nothing reaches any more (a deleted branch, a
/// dropped stash) are put under a salvage ref, which is named too. Blocks.
pub fn changes(assignment: &Assignment) -> Vec<String> {
    let Some(before) = &assignment.main_checkout else { return Vec::new() };
    let after = assignment.repository.as_ref().map(|repository| (repository, git::fingerprint(repository)));
    let Some((repository, Ok(after))) = after else { return vec!["it can no longer be read".to_owned()] };
    let kept = keep_lost(repository, assignment, before, &after);
    // First, since only the beginning of this list is displayed.
    let integrated = |name: &str, from: &Option<String>, to: &Option<String>| match (from, to) {
        (Some(from), Some(to)) => git::only_integrated(repository, name, from, to).unwrap_or(false),
        _ => false,
    };
    kept.into_iter().chain(describe(before, &after, &assignment.settings.branch_prefix, integrated)).collect()
}

/// `integrated` returns whether a ref moved from one commit to the other only by integrations, which the boss
/// requested.
fn describe(
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
    // Each worker reports its own branch.
    let our_branches = format!("refs/heads/{our_branches}");
    let is_other = |name: &str| !name.starts_with(&our_branches) && name != ATTRIBUTION_NOTES;
    let others = changed.refs.iter().filter(|it| is_other(&it.name));
    words.extend(named("refs changed", others.map(describe_ref).collect()));
    words.extend(named("a stash was pushed", changed.stashes_pushed));
    words.extend(named("a stash was dropped", changed.stashes_dropped));
    words.extend(named("the repository's configuration changed", changed.configuration));
    words
}

fn describe_ref(changed: &RefChange) -> String {
    match (&changed.before, &changed.after) {
        (None, _) => format!("{} is new", changed.name),
        (_, None) => format!("{} was deleted (was {})", changed.name, short(&changed.before)),
        _ => format!("{} moved from {} to {}", changed.name, short(&changed.before), short(&changed.after)),
    }
}

fn short(commit: &Option<String>) -> &str {
    commit.as_deref().map_or("none", |id| &id[..id.len().min(12)])
}

fn named(label: &str, names: Vec<String>) -> Option<String> {
    (!names.is_empty()).then(|| format!("{label}: {}", words::first(&names, NAMED_CHANGES)))
}

/// Puts the commits of deleted refs and dropped stashes under one salvage ref, unless another ref reaches them.
fn keep_lost(
    repository: &Repository,
    assignment: &Assignment,
    before: &Fingerprint,
    after: &Fingerprint,
) -> Option<String> {
    let changed = before.compare(after);
    let moved = changed.refs.into_iter().filter_map(|it| it.before);
    let head = before.head.clone().filter(|_| changed.head);
    let lost: Vec<String> = moved.chain(changed.stashes_dropped).chain(head).collect();
    let name = format!("{}-outside", assignment.worker_id);
    match git::keep_lost(repository, &name, lost, "salvage: commits of refs and stashes outside the worktree") {
        Ok(kept) => kept.map(|kept| format!("lost commits are kept under {}", kept.name)),
        Err(error) => Some(format!("cannot keep the commits of changed refs: {}", with_hints(&error))),
    }
}
