//! The one screen of `status`: counts first, then the bosses with their workers. Pure; lines of pieces, which whoever
//! prints them colours.

use std::path::Path;

use super::board::{Board, spent_in_all};
use super::table::{Piece, Table};
use super::text;
use crate::cli::terminal::Tone;

/// Settled workers that are shown unless all are asked for.
const SETTLED: usize = 20;

pub(super) type Line = Vec<Piece>;

/// No line is wider than `width`. `home` is written as `~`.
pub(super) fn lines(board: &Board, width: usize, all: bool, home: Option<&Path>) -> Vec<Line> {
    let width = width.max(20);
    let mut left = if all { usize::MAX } else { SETTLED };
    // The last settled workers of each boss, up to a limit over all bosses.
    let mut shown = Vec::new();
    for group in &board.groups {
        let (settled, open): (Vec<_>, Vec<_>) = group.workers.iter().partition(|it| it.is_over());
        let taken = settled.len().min(left);
        left -= taken;
        shown.push((group, open.into_iter().chain(settled.into_iter().take(taken)).collect::<Vec<_>>()));
    }
    let table = Table::fitting(shown.iter().flat_map(|(_, workers)| workers.iter().map(|it| &it.row)), width, true);

    let mut lines = vec![summary(board), place(board, home)];
    for (at, (group, workers)) in shown.iter().enumerate() {
        lines.push(Vec::new());
        lines.push(vec![(Some(Tone::Strong), group.heading(home))]);
        if at == 0 {
            lines.push(vec![(Some(Tone::Quiet), table.heading())]);
        }
        lines.extend(workers.iter().map(|it| table.cells(&it.row)));
    }
    let hidden = board.workers().count() - shown.iter().map(|(_, workers)| workers.len()).sum::<usize>();
    let notes = footer(hidden, board);
    if !notes.is_empty() {
        lines.push(Vec::new());
        lines.extend(notes.into_iter().map(|note| vec![(Some(Tone::Quiet), note)]));
    }
    lines.into_iter().map(|line| cut(line, width)).collect()
}

/// How many are in each state, and what all of them cost.
pub(super) fn summary(board: &Board) -> Line {
    let mut line: Line = Vec::new();
    for (state, count) in board.counts() {
        if !line.is_empty() {
            line.push((None, " · ".to_owned()));
        }
        line.push((Some(state.tone), format!("{count} {}", state.word.replace('_', " "))));
    }
    let spent = spent_in_all(&board.spent());
    if !spent.is_empty() {
        line.push((None, format!(" · {spent}")));
    }
    line
}

fn place(board: &Board, home: Option<&Path>) -> Line {
    let repository = board.repository.as_deref().map(|path| text::clean(&super::board::shorten(path, home)));
    let branch = board.integration_branch.as_deref().map(|branch| format!("integration branch {branch}"));
    let parts: Vec<String> = repository.into_iter().chain(branch).collect();
    vec![(Some(Tone::Quiet), parts.join(" · "))]
}

fn footer(hidden: usize, board: &Board) -> Vec<String> {
    let mut notes = Vec::new();
    if hidden > 0 {
        notes.push(format!("{hidden} more settled earlier: status --all shows them"));
    }
    if board.in_history > 0 {
        notes.push(format!("{} in the history: by name, status <worker> finds them", board.in_history));
    }
    notes.extend(board.repaired.clone());
    notes
}

/// A line that is too long all the same, as of a long directory.
fn cut(line: Line, width: usize) -> Line {
    let mut left = width;
    let mut kept: Line = Vec::new();
    for (tone, piece) in line {
        let piece = text::cut(&piece, left);
        left -= text::width(&piece);
        kept.push((tone, piece));
    }
    // Nothing is drawn by blanks at the end.
    if let Some((_, last)) = kept.last_mut() {
        last.truncate(last.trim_end().len());
    }
    kept
}

/// Where there is nothing to show.
pub(super) const NOTHING: &str = "\
No workers yet: nothing was asked for here.

Start your coding agent in the repository and have it lead workers.
  orchestrator-boss setup claude   registers this server with it (or codex, gemini, opencode)
  orchestrator-boss demo           shows how it goes, without any key";
