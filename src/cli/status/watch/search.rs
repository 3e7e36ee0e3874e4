//! The search among the workers on the screen. Pure.

use super::super::dashboard::DashboardWorker;
use crate::mission::id::WorkerId;

/// A search whose text is being typed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::cli::status) struct Search {
    pub text: String,
    /// The selection before the search, and whether the user had chosen it. Esc returns to it.
    pub before: (Option<WorkerId>, bool),
}

/// Returns whether each word of the text is in the worker's id, task, title, branch, backend, model, state or last
/// line, ignoring case. No worker matches a text without words.
pub(super) fn matches(shown: &DashboardWorker, text: &str) -> bool {
    let row = &shown.row;
    let note = row.note(true);
    let parts = [
        row.id.as_str(),
        shown.view.worker.task().as_str(),
        &row.title,
        &row.branch,
        &row.backend,
        &row.model,
        row.state.word,
        shown.view.worker.status.as_str(),
        &note,
    ];
    let all = parts.join("\n").to_lowercase();
    let text = text.to_lowercase();
    let mut words = text.split_whitespace().peekable();
    words.peek().is_some() && words.all(|word| all.contains(word))
}

/// Returns the match after or before a place, and wraps around at the end. `include` also accepts the place itself.
pub(super) fn next(found: &[usize], at: usize, forward: bool, include: bool) -> Option<usize> {
    let is_beyond = |it: &usize| if forward { *it > at } else { *it < at };
    let is_next = |it: &usize| is_beyond(it) || (include && *it == at);
    if forward {
        found.iter().copied().find(is_next).or_else(|| found.first().copied())
    } else {
        found.iter().copied().rev().find(is_next).or_else(|| found.last().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{dashboard, mixed};
    use super::*;

    #[test]
    fn search_finds_workers_by_all_their_facts() {
        let dashboard = dashboard(mixed());
        for (text, found) in [
            ("w-3", &["w-3"][..]),
            ("W-3", &["w-3"]),
            ("parser", &["w-1"]),
            ("PARSER fix", &["w-1"]),
            ("タイトル", &["w-2"]),
            ("stalled", &["w-6"]),
            ("o/w-4", &["w-4"]),
            ("3 tests failed", &["w-5"]),
            ("free slot", &["w-3"]),
            ("cargo test", &["w-1", "w-2", "w-6"]),
            ("parser stalled", &[]),
            ("  ", &[]),
            ("", &[]),
        ] {
            let shown = dashboard.workers().filter(|it| matches(it, text));
            assert_eq!(shown.map(|it| it.row.short.as_str()).collect::<Vec<_>>(), found, "{text:?}");
        }
    }

    #[test]
    fn next_match_begins_again_at_the_other_end() {
        let found = [2, 5, 9];
        for (at, forward, include, expected) in [
            (0, true, false, 2),
            (2, true, false, 5),
            (2, true, true, 2),
            (9, true, false, 2),
            (9, false, false, 5),
            (2, false, false, 9),
            (3, false, true, 2),
        ] {
            assert_eq!(next(&found, at, forward, include), Some(expected), "{at} {forward} {include}");
        }
        assert_eq!(next(&[], 3, true, true), None);
    }
}
