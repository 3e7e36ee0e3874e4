//! Draws the live screen into a buffer of cells of any size. Pure.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span as StyledSpan};

use super::super::dashboard::{Dashboard, DashboardWorker, Group, spent_in_all};
use super::super::screen::SEPARATOR;
use super::super::table::{Span, Table};
use super::super::{detail, screen};
use super::log::PaneLine;
use super::state::{App, Mode, Pane};
use super::{footer, timeline};
use crate::cli::terminal::Tone;
use crate::cli::text;

/// Minimum number of lines for a table and a pane.
const MIN_BOTH: u16 = 12;
/// Minimum number of columns for a column of notes.
const MIN_NOTES: usize = 100;
/// Minimum number of columns for bars.
const MIN_BARS: usize = 60;
const HELP: [(&str, &str); 18] = [
    ("↑ ↓ j k", "select a worker (home, end: the first, the last)"),
    ("/ n N", "search in ids, titles, branches, states, last lines"),
    ("tab enter ← →", "log, diff, detail"),
    ("page up, down", "scroll"),
    ("z", "show the pane on the whole screen, and back"),
    ("m", "send it a message: the answer if it needs you"),
    ("i", "merge its branch after its check passes, once you confirm"),
    ("r", "retry it, with your feedback or without"),
    ("c", "cancel the worker, after a confirmation"),
    ("o", "open its worktree in your editor"),
    ("a d", "allow or deny what it asks for, or answer its question"),
    ("a", "attach: continue its session here once it has finished"),
    ("y", "copy the path of its directory"),
    ("q ctrl-c", "quit; the workers keep running"),
    ("", ""),
    ("bars", "░ queued  █ running  ▓ verifying"),
    ("", "◆ needs you or an answer  ■ blocked  ! stalled"),
    ("", "✓ completed  ✗ failed  – cancelled  ? lost"),
];

/// Returns how far the pane can be scrolled.
pub(in crate::cli::status) fn draw(app: &App, area: Rect, buffer: &mut Buffer) -> usize {
    let canvas = &mut Canvas { buffer, area, colours: app.colours };
    if area.width == 0 || area.height == 0 {
        return 0;
    }
    header(app, canvas);
    let footer = footer::lines(app, canvas.width(), usize::from(area.height));
    let footer_rows = footer.len() as u16;
    let rows = area.height.saturating_sub(1 + footer_rows);
    if area.height > 1 {
        for (row, line) in (area.height.saturating_sub(footer_rows)..).zip(footer) {
            canvas.line(0, row, &line);
        }
    }
    if matches!(app.mode, Mode::Help) {
        help(rows, canvas);
        return 0;
    }
    let Some(dashboard) = app.dashboard.as_ref().filter(|dashboard| !dashboard.groups.is_empty()) else {
        nothing(app, rows, canvas);
        return 0;
    };
    if app.zoomed {
        return pane(app, 1, rows, canvas);
    }
    if rows < MIN_BOTH {
        table(app, dashboard, 1, rows, canvas);
        return 0;
    }
    let items = dashboard.workers().count() + dashboard.groups.len() + 1;
    // The pane has half of the screen, and what the table does not need.
    let top = u16::try_from(items).unwrap_or(u16::MAX).min(rows / 2);
    table(app, dashboard, 1, top, canvas);
    pane(app, 1 + top, rows - top, canvas)
}

/// The drawing area: lines of spans, cut at the edge.
struct Canvas<'a> {
    buffer: &'a mut Buffer,
    area: Rect,
    colours: bool,
}

impl Canvas<'_> {
    fn width(&self) -> usize {
        usize::from(self.area.width)
    }

    fn style(&self, tone: Option<Tone>) -> Style {
        let colour = |colour: Color| if self.colours { Style::new().fg(colour) } else { Style::new() };
        match tone {
            None => Style::new(),
            Some(Tone::Good) => colour(Color::Green),
            Some(Tone::Bad) => colour(Color::Red),
            Some(Tone::Busy) => colour(Color::Cyan),
            Some(Tone::Waiting) => colour(Color::Yellow),
            Some(Tone::Quiet) => Style::new().add_modifier(Modifier::DIM),
            Some(Tone::Strong) => Style::new().add_modifier(Modifier::BOLD),
        }
    }

    fn line(&mut self, column: usize, row: u16, spans: &[Span]) {
        let Some(left) = self.width().checked_sub(column).filter(|_| row < self.area.height) else { return };
        let spans: Vec<StyledSpan> =
            spans.iter().map(|(tone, text)| StyledSpan::styled(text.as_str(), self.style(*tone))).collect();
        let (x, y) = (self.area.x + column as u16, self.area.y + row);
        self.buffer.set_line(x, y, &Line::from(spans), left as u16);
    }

    fn text(&mut self, column: usize, row: u16, tone: Option<Tone>, text: &str) {
        self.line(column, row, &[(tone, text.to_owned())]);
    }

    /// Reverses the colours of a part of a line.
    fn reverse(&mut self, row: u16, columns: usize) {
        let area = Rect { y: self.area.y + row, height: 1, width: columns.min(self.width()) as u16, ..self.area };
        self.buffer.set_style(area, Style::reset().add_modifier(Modifier::REVERSED));
    }
}

/// Draws the counts and the repository.
fn header(app: &App, canvas: &mut Canvas) {
    let Some(dashboard) = &app.dashboard else { return canvas.text(0, 0, Some(Tone::Strong), "orchestrator-boss") };
    let width_of = |spans: &[Span]| spans.iter().map(|(_, text)| text::width(text)).sum::<usize>();
    let parts = [false, true].map(|is_short| joined(screen::summary(dashboard, is_short)));
    let [long, short] = parts;
    let mut spans = if width_of(&long) <= canvas.width() { long } else { short };
    let width = width_of(&spans);
    let place = dashboard
        .repository
        .as_deref()
        .map(|path| text::clean(&super::super::dashboard::shorten(path, app.home.as_deref())));
    if let Some(place) = place.filter(|place| width + 2 + text::width(place) <= canvas.width()) {
        let gap = canvas.width() - width - text::width(&place);
        spans.push((None, " ".repeat(gap)));
        spans.push((Some(Tone::Quiet), place));
    }
    canvas.line(0, 0, &spans);
}

fn joined(parts: Vec<Span>) -> Vec<Span> {
    let between = |(at, part)| (at > 0).then(|| (None, SEPARATOR.to_owned())).into_iter().chain([part]);
    parts.into_iter().enumerate().flat_map(between).collect()
}

fn help(rows: u16, canvas: &mut Canvas) {
    for (row, (keys, what)) in (1..=rows).zip(HELP) {
        canvas.line(1, row, &[(Some(Tone::Strong), text::left(keys, 15)), (None, what.to_owned())]);
    }
}

fn nothing(app: &App, rows: u16, canvas: &mut Canvas) {
    let text = match (&app.error, app.is_loaded) {
        (Some(error), _) => error.clone(),
        (None, false) => "…".to_owned(),
        (None, true) => format!("{}\n\nThis screen shows them as soon as they exist.", screen::NOTHING),
    };
    let width = canvas.width();
    let lines = text.lines().flat_map(|line| if line.is_empty() { vec![""] } else { text::wrap(line, width) });
    for (row, line) in (1..=rows).zip(lines) {
        canvas.text(0, row, None, line);
    }
}

/// A line of the table.
enum Item<'a> {
    Boss(&'a Group),
    Worker(&'a DashboardWorker),
}

fn table(app: &App, dashboard: &Dashboard, top: u16, rows: u16, canvas: &mut Canvas) {
    const MARK: usize = 2;
    let width = canvas.width();
    let bars = if width < MIN_BARS { 0 } else { (width / 4).clamp(16, 60) };
    let room = width.saturating_sub(MARK + if bars > 0 { bars + 1 } else { 0 });
    let has_notes = width >= MIN_NOTES;
    let table = Table::fitting(dashboard.workers().map(|it| &it.row), room, has_notes);
    let window = timeline::window(dashboard);
    let items = items_of(dashboard);

    let mut row = top;
    // If there is little room, all of it is for workers.
    if rows > 3 {
        canvas.text(MARK, row, Some(Tone::Quiet), &table.heading());
        if bars > 0 {
            canvas.text(width - bars, row, Some(Tone::Quiet), &timeline::axis(window, bars));
        }
        row += 1;
    }
    let visible = usize::from(top + rows - row);
    let is_selected =
        |item: &Item| matches!(item, Item::Worker(it) if Some(&it.view.worker.id) == app.selected.as_ref());
    let workers = items.iter().enumerate().filter(|(_, item)| matches!(item, Item::Worker(_)));
    let at = workers.map(|(at, _)| at).nth(app.anchor).unwrap_or(0);
    // The place of the last selection is in the middle, except near the beginning and the end.
    let first = at.saturating_sub(visible / 2).min(items.len().saturating_sub(visible));
    // If there is little room, all of it is for workers.
    let says_more = visible > 4;
    let end = (first + visible).min(items.len());
    for (at, item) in items.iter().enumerate().take(end).skip(first) {
        let above = (says_more && at == first && first > 0).then(|| more('↑', &items[..=at]));
        let below = (says_more && at + 1 == end && end < items.len()).then(|| more('↓', &items[at..]));
        if let Some(text) = above.or(below) {
            canvas.text(MARK, row, Some(Tone::Quiet), &text);
            row += 1;
            continue;
        }
        match item {
            Item::Boss(group) => {
                let heading = text::cut(&group.heading(app.home.as_deref()), width);
                canvas.text(0, row, Some(Tone::Strong), &heading);
            }
            // Why it waits for the user matters more than its times.
            Item::Worker(shown) if !has_notes && shown.waits_for_user() => {
                canvas.line(MARK, row, &table.cells_with_notes(&shown.row, width.saturating_sub(MARK)));
                if is_selected(item) {
                    mark_selected(row, width, canvas);
                }
            }
            Item::Worker(shown) => {
                canvas.line(MARK, row, &table.cells(&shown.row));
                if is_selected(item) {
                    mark_selected(row, MARK + room, canvas);
                }
                let cells = timeline::bar(&shown.view, dashboard.as_of, window, bars);
                let cells: Vec<Span> = cells.into_iter().map(|(sign, tone)| (Some(tone), sign.to_string())).collect();
                canvas.line(width - bars, row, &cells);
            }
        }
        row += 1;
    }
}

fn items_of(dashboard: &Dashboard) -> Vec<Item<'_>> {
    let groups = dashboard.groups.iter();
    groups.flat_map(|group| std::iter::once(Item::Boss(group)).chain(group.workers.iter().map(Item::Worker))).collect()
}

fn mark_selected(row: u16, width: usize, canvas: &mut Canvas) {
    canvas.text(0, row, None, "›");
    canvas.reverse(row, width);
}

/// Describes how many workers are not shown there, and how many of them run.
fn more(arrow: char, items: &[Item]) -> String {
    let workers: Vec<&DashboardWorker> = items
        .iter()
        .filter_map(|item| match item {
            Item::Worker(shown) => Some(*shown),
            Item::Boss(_) => None,
        })
        .collect();
    let run = workers.iter().filter(|it| it.view.worker.status.is_live()).count();
    let running = if run > 0 { format!(", {run} running") } else { String::new() };
    format!("{arrow} {} more{running}", workers.len())
}

fn pane(app: &App, top: u16, rows: u16, canvas: &mut Canvas) -> usize {
    let Some(shown) = app.current() else { return 0 };
    tabs(app, shown, top, canvas);
    let (top, visible) = (top + 1, usize::from(rows.saturating_sub(1)));
    let width = canvas.width();
    match app.pane {
        Pane::Log if app.log.is_empty() => {
            let empty = if shown.view.worker.attempt == 0 { "not started" } else { "nothing yet" };
            canvas.text(0, top, Some(Tone::Quiet), empty);
            0
        }
        Pane::Log => {
            let (lines, most) = newest(app.log.iter(), width, visible, app.scroll);
            for (row, line) in (top..).zip(lines) {
                canvas.line(0, row, &line);
            }
            most
        }
        Pane::Diff => match &app.diff {
            None => put(app, &[vec![(Some(Tone::Quiet), "…".to_owned())]], top, visible, canvas),
            Some(Err(why)) => {
                put(app, &[vec![(Some(Tone::Waiting), text::clean(&why.to_string()))]], top, visible, canvas)
            }
            Some(Ok(lines)) if lines.is_empty() => {
                put(app, &[vec![(Some(Tone::Quiet), "no changes".to_owned())]], top, visible, canvas)
            }
            Some(Ok(lines)) => {
                let lines: Vec<_> = lines.iter().map(|line| vec![(tone_of_diff(line), line.clone())]).collect();
                put(app, &lines, top, visible, canvas)
            }
        },
        Pane::Detail => put(app, &detail::lines(shown, width, app.home.as_deref()), top, visible, canvas),
    }
}

/// Draws lines from the top or the scroll position.
fn put(app: &App, lines: &[Vec<Span>], top: u16, visible: usize, canvas: &mut Canvas) -> usize {
    let most = lines.len().saturating_sub(visible);
    for (row, line) in (top..).zip(lines.iter().skip(app.scroll.min(most)).take(visible)) {
        canvas.line(0, row, line);
    }
    most
}

/// Draws the panes' names, and the selected worker with its notes.
fn tabs(app: &App, shown: &DashboardWorker, row: u16, canvas: &mut Canvas) {
    let mut spans: Vec<Span> = vec![(Some(Tone::Quiet), "── ".to_owned())];
    for pane in Pane::ALL {
        let is_open = pane == app.pane;
        let name = if is_open { format!("[{}]", pane.name()) } else { format!(" {} ", pane.name()) };
        spans.push((Some(if is_open { Tone::Strong } else { Tone::Quiet }), name));
    }
    let worker = format!(" {} {} ", shown.row.short, shown.row.title);
    spans.push((Some(Tone::Strong), worker));
    let spent = spent_in_all(&shown.view.spent());
    let about = [shown.row.note(true), shown.row.branch.clone(), spent].into_iter().filter(|it| !it.is_empty());
    spans.push((None, about.map(|it| format!("· {it} ")).collect::<String>()));
    let used: usize = spans.iter().map(|(_, text)| text::width(text)).sum();
    spans.push((Some(Tone::Quiet), "─".repeat(canvas.width().saturating_sub(used))));
    canvas.line(0, row, &spans);
}

/// Returns the visible wrapped lines of a log, `scroll` lines above its end. Also returns how far it can be scrolled,
/// as far as that is known without wrapping all lines.
fn newest<'a>(
    log: impl DoubleEndedIterator<Item = &'a PaneLine> + ExactSizeIterator,
    width: usize,
    visible: usize,
    scroll: usize,
) -> (Vec<Vec<Span>>, usize) {
    const TIME: usize = 10;
    let indent = if width < 40 { 0 } else { TIME };
    let mut lines: Vec<Vec<Span>> = Vec::new();
    let mut log = log.rev();
    while lines.len() < visible + scroll {
        let Some(line) = log.next() else { break };
        let wrapped = text::wrap(&line.text, width.saturating_sub(indent));
        for (at, part) in wrapped.into_iter().enumerate().rev() {
            let time = if at == 0 { line.time.as_str() } else { "" };
            lines.push(vec![(Some(Tone::Quiet), text::left(time, indent)), (line.tone, part.to_owned())]);
        }
    }
    let most = log.len() + lines.len().saturating_sub(visible);
    let scroll = scroll.min(lines.len().saturating_sub(visible));
    let mut shown: Vec<Vec<Span>> = lines.into_iter().skip(scroll).take(visible).collect();
    shown.reverse();
    (shown, most)
}

fn tone_of_diff(line: &str) -> Option<Tone> {
    match line.as_bytes() {
        [b'+', b'+', b'+', ..] | [b'-', b'-', b'-', ..] => Some(Tone::Strong),
        [b'd', b'i', b'f', b'f', b' ', ..] => Some(Tone::Strong),
        [b'+', ..] => Some(Tone::Good),
        [b'-', ..] => Some(Tone::Bad),
        [b'@', b'@', ..] => Some(Tone::Busy),
        [b' ', ..] => None,
        _ => Some(Tone::Quiet),
    }
}
