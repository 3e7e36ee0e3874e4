//! Lays out the screen of `status`: counts first, then the bosses with their workers. Pure: the caller colours the
//! spans.

use std::path::Path;

use super::builds;
use super::dashboard::{Dashboard, DashboardWorker, spent_in_all};
use super::row::{self, DisplayState};
use super::table::{Span, Table};
use crate::cli::terminal::Tone;
use crate::cli::text;
use crate::mission::lifecycle::WorkerStatus;

/// Maximum number of settled workers without `--all`.
const SETTLED: usize = 20;
/// Maximum number of workers for which the command that answers them is shown.
const ANSWERS: usize = 3;

/// The text between the parts of a line.
pub(super) const SEPARATOR: &str = " · ";

pub(super) type ScreenLine = Vec<Span>;

/// Lays out the screen in lines of at most `width` columns. `home` is written as `~`.
pub(super) fn lines(dashboard: &Dashboard, width: usize, all: bool, home: Option<&Path>) -> Vec<ScreenLine> {
    let width = width.max(20);
    let mut left = if all { usize::MAX } else { SETTLED };
    // The last settled workers of each boss, up to a limit over all bosses.
    let mut shown = Vec::new();
    for group in &dashboard.groups {
        let (settled, open): (Vec<_>, Vec<_>) = group.workers.iter().partition(|it| it.is_over());
        let taken = settled.len().min(left);
        left -= taken;
        shown.push((group, open.into_iter().chain(settled.into_iter().take(taken)).collect::<Vec<_>>()));
    }
    let table = Table::fitting(shown.iter().flat_map(|(_, workers)| workers.iter().map(|it| &it.row)), width, true);

    let mut lines = wrapped(summary(dashboard, false), width);
    lines.extend(wrapped(place(dashboard, home), width));
    for (at, (group, workers)) in shown.iter().enumerate() {
        lines.push(Vec::new());
        lines.push(vec![(Some(Tone::Strong), group.heading(home))]);
        if at == 0 {
            lines.push(vec![(Some(Tone::Quiet), table.heading())]);
        }
        lines.extend(workers.iter().map(|it| table.cells(&it.row)));
    }
    let hidden = dashboard.workers().count() - shown.iter().map(|(_, workers)| workers.len()).sum::<usize>();
    let notes = footer(hidden, dashboard);
    if !notes.is_empty() {
        lines.push(Vec::new());
        lines.extend(notes.into_iter().map(|note| vec![(Some(Tone::Quiet), note)]));
    }
    lines.into_iter().map(|line| cut(line, width)).collect()
}

/// Formats the number of workers in each state, and the spending. The short form has signs instead of words, and no
/// tokens if the cost is known.
pub(super) fn summary(dashboard: &Dashboard, is_short: bool) -> Vec<Span> {
    let word = |state: &DisplayState| if is_short { state.sign.to_owned() } else { state.word.replace('_', " ") };
    let counts = dashboard.counts().into_iter();
    let counts = counts.map(|(state, count)| (Some(state.tone), format!("{count} {}", word(&state))));
    let spent = if is_short { row::spent } else { spent_in_all };
    let spent = Some(spent(&dashboard.spent())).filter(|spent| !spent.is_empty());
    counts.chain(spent.map(|spent| (None, spent))).collect()
}

/// Joins the parts to lines. A part that does not fit begins a new line.
fn wrapped(parts: Vec<Span>, width: usize) -> Vec<ScreenLine> {
    let (mut lines, mut line) = (Vec::new(), ScreenLine::new());
    let mut used = 0;
    for (tone, part) in parts {
        let columns = text::width(&part);
        if used > 0 && used + text::width(SEPARATOR) + columns > width {
            lines.push(std::mem::take(&mut line));
            used = 0;
        }
        if used > 0 {
            line.push((tone.filter(|tone| *tone == Tone::Quiet), SEPARATOR.to_owned()));
            used += text::width(SEPARATOR);
        }
        line.push((tone, part));
        used += columns;
    }
    lines.push(line);
    lines
}

fn place(dashboard: &Dashboard, home: Option<&Path>) -> Vec<Span> {
    let repository = dashboard.repository.as_deref().map(|path| text::clean(&super::dashboard::shorten(path, home)));
    let branch = dashboard.integration_branch.as_deref().map(|branch| format!("integration branch {branch}"));
    repository.into_iter().chain(branch).map(|part| (Some(Tone::Quiet), part)).collect()
}

fn footer(hidden: usize, dashboard: &Dashboard) -> Vec<String> {
    let answer = |it: &DashboardWorker| {
        let short = &it.row.short;
        if it.view.worker.status == WorkerStatus::NeedsAnswer {
            Some(format!("answer {short}: orchestrator-boss answer {short}"))
        } else {
            it.view.worker.needs_you().then(|| format!("answer {short}: orchestrator-boss message {short} TEXT"))
        }
    };
    let mut notes: Vec<String> = dashboard.workers().filter_map(answer).take(ANSWERS).collect();
    if hidden > 0 {
        notes.push(format!("{hidden} more finished earlier: see status --all"));
    }
    if dashboard.in_history > 0 {
        notes.push(format!("{} in the history: see status <worker>", dashboard.in_history));
    }
    notes.extend(dashboard.repaired.clone());
    notes.extend(dashboard.builds.as_ref().map(builds::line));
    notes
}

/// Cuts a line that is still too long, for example because of a long directory.
fn cut(line: ScreenLine, width: usize) -> ScreenLine {
    let mut left = width;
    let mut kept: ScreenLine = Vec::new();
    for (tone, span) in line {
        let span = text::cut(&span, left);
        left -= text::width(&span);
        kept.push((tone, span));
    }
    // Blanks at the end are removed.
    if let Some((_, last)) = kept.last_mut() {
        last.truncate(last.trim_end().len());
    }
    kept
}

/// The screen without workers.
pub(super) const NOTHING: &str = "\
No workers here yet.

Start your coding agent in the repository and let it create workers.
  orchestrator-boss setup claude   registers this server with it (or codex, gemini, opencode)
  orchestrator-boss demo           runs a demo, without any key";
