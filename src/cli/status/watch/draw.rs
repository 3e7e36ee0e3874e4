//! The live screen as a picture: pure, from what is known to a buffer of cells, in any size.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::super::board::{Board, Group, Shown, spent_in_all};
use super::super::table::{Piece, Table};
use super::super::{detail, screen, text};
use super::log::LogLine;
use super::state::{App, Mode, Pane};
use super::timeline;
use crate::cli::terminal::Tone;

/// With fewer lines there is a table or a pane, not both.
const BOTH: u16 = 12;
/// Below this many columns there are no bars.
const BARS: usize = 60;
const KEYS: &str = "↑↓ select  tab pane  c cancel  m message  y path  ? help  q quit";
const HELP: [(&str, &str); 11] = [
    ("↑ ↓ j k", "select a worker (home, end: the first, the last)"),
    ("tab enter ← →", "log, diff, detail"),
    ("page up, down", "scroll"),
    ("z", "the pane on the whole screen, and back"),
    ("c", "cancel the worker, after a question"),
    ("m", "write it a message: it hears it when it can"),
    ("y", "copy the path of its directory"),
    ("q ctrl-c", "leave; the workers go on"),
    ("", ""),
    ("bars", "░ waits  █ works  ▓ is verified"),
    ("", "◆ needs you  ✓ completed  ✗ failed  – cancelled  ? lost"),
];

/// Returns how far the pane can be scrolled.
pub(in crate::cli::status) fn draw(app: &App, area: Rect, buffer: &mut Buffer) -> usize {
    let paper = &mut Paper { buffer, area, colours: app.colours };
    if area.width == 0 || area.height == 0 {
        return 0;
    }
    header(app, paper);
    let rows = area.height.saturating_sub(2);
    if area.height > 1 {
        footer(app, area.height - 1, paper);
    }
    if matches!(app.mode, Mode::Help) {
        help(rows, paper);
        return 0;
    }
    let Some(board) = app.board.as_ref().filter(|board| !board.groups.is_empty()) else {
        nothing(app, rows, paper);
        return 0;
    };
    if app.zoomed {
        return pane(app, 1, rows, paper);
    }
    if rows < BOTH {
        table(app, board, 1, rows, paper);
        return 0;
    }
    let items = board.workers().count() + board.groups.len() + 1;
    // The pane has half of the screen, and what the table does not need.
    let top = u16::try_from(items).unwrap_or(u16::MAX).min(rows / 2);
    table(app, board, 1, top, paper);
    pane(app, 1 + top, rows - top, paper)
}

/// Where is drawn: lines of pieces, cut at the edge.
struct Paper<'a> {
    buffer: &'a mut Buffer,
    area: Rect,
    colours: bool,
}

impl Paper<'_> {
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

    fn line(&mut self, column: usize, row: u16, pieces: &[Piece]) {
        let Some(left) = self.width().checked_sub(column).filter(|_| row < self.area.height) else { return };
        let spans: Vec<Span> =
            pieces.iter().map(|(tone, text)| Span::styled(text.as_str(), self.style(*tone))).collect();
        let (x, y) = (self.area.x + column as u16, self.area.y + row);
        self.buffer.set_line(x, y, &Line::from(spans), left as u16);
    }

    fn text(&mut self, column: usize, row: u16, tone: Option<Tone>, text: &str) {
        self.line(column, row, &[(tone, text.to_owned())]);
    }

    /// Swaps text and ground of a part of a line.
    fn reverse(&mut self, row: u16, columns: usize) {
        let area = Rect { y: self.area.y + row, height: 1, width: columns.min(self.width()) as u16, ..self.area };
        self.buffer.set_style(area, Style::reset().add_modifier(Modifier::REVERSED));
    }
}

/// What there is, in numbers, and where.
fn header(app: &App, paper: &mut Paper) {
    let Some(board) = &app.board else { return paper.text(0, 0, Some(Tone::Strong), "orchestrator-boss") };
    let mut pieces = screen::summary(board);
    let width: usize = pieces.iter().map(|(_, text)| text::width(text)).sum();
    let place =
        board.repository.as_deref().map(|path| text::clean(&super::super::board::shorten(path, app.home.as_deref())));
    if let Some(place) = place.filter(|place| width + 2 + text::width(place) <= paper.width()) {
        let gap = paper.width() - width - text::width(&place);
        pieces.push((None, " ".repeat(gap)));
        pieces.push((Some(Tone::Quiet), place));
    }
    paper.line(0, 0, &pieces);
}

fn footer(app: &App, row: u16, paper: &mut Paper) {
    let pieces = match &app.mode {
        Mode::Cancel(worker) => vec![
            (Some(Tone::Bad), format!("Cancel {worker} and all that it started? ")),
            (Some(Tone::Strong), "y/n".to_owned()),
        ],
        Mode::Message(worker, line) => {
            let prompt = format!("to {} (enter sends, esc does not): ", short(app, worker));
            // The end of what is typed is seen.
            let room = paper.width().saturating_sub(text::width(&prompt) + 1);
            let shown = text::shown(line);
            let blank = if line.ends_with(' ') { " " } else { "" };
            let line = format!("{shown}{blank}");
            let tail = text::end(&line, room).to_owned();
            vec![(Some(Tone::Strong), prompt), (None, tail), (Some(Tone::Strong), "▏".to_owned())]
        }
        _ if !app.doing.is_empty() => vec![(Some(Tone::Busy), format!("{} …", app.doing.join(", ")))],
        _ => match (&app.said, &app.trouble) {
            (Some((tone, text)), _) => vec![(Some(*tone), text.clone())],
            (None, Some(trouble)) => vec![(Some(Tone::Bad), trouble.clone())],
            (None, None) => vec![(Some(Tone::Quiet), KEYS.to_owned())],
        },
    };
    paper.line(0, row, &pieces);
}

fn short(app: &App, worker: &crate::mission::id::WorkerId) -> String {
    let known = app.workers().find(|it| it.view.worker.id == *worker);
    known.map_or_else(|| worker.to_string(), |it| it.row.short.clone())
}

fn help(rows: u16, paper: &mut Paper) {
    for (row, (keys, what)) in (1..=rows).zip(HELP) {
        paper.line(1, row, &[(Some(Tone::Strong), text::left(keys, 15)), (None, what.to_owned())]);
    }
}

fn nothing(app: &App, rows: u16, paper: &mut Paper) {
    let text = match (&app.trouble, app.looked) {
        (Some(trouble), _) => trouble.clone(),
        (None, false) => "…".to_owned(),
        (None, true) => format!("{}\n\nThis screen shows them as soon as there are any.", screen::NOTHING),
    };
    let width = paper.width();
    let lines = text.lines().flat_map(|line| if line.is_empty() { vec![""] } else { text::wrap(line, width) });
    for (row, line) in (1..=rows).zip(lines) {
        paper.text(0, row, None, line);
    }
}

/// One line of the table.
enum Item<'a> {
    Boss(&'a Group),
    Worker(&'a Shown),
}

fn table(app: &App, board: &Board, top: u16, rows: u16, paper: &mut Paper) {
    const MARK: usize = 2;
    let width = paper.width();
    let bars = if width < BARS { 0 } else { (width / 4).clamp(16, 60) };
    let room = width.saturating_sub(MARK + if bars > 0 { bars + 1 } else { 0 });
    let table = Table::fitting(board.workers().map(|it| &it.row), room, width >= 100);
    let window = timeline::window(board);
    let items: Vec<Item> = board
        .groups
        .iter()
        .flat_map(|group| std::iter::once(Item::Boss(group)).chain(group.workers.iter().map(Item::Worker)))
        .collect();

    let mut row = top;
    // If there is little room, all of it is for workers.
    if rows > 3 {
        paper.text(MARK, row, Some(Tone::Quiet), &table.heading());
        if bars > 0 {
            paper.text(width - bars, row, Some(Tone::Quiet), &timeline::axis(window, bars));
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
            paper.text(MARK, row, Some(Tone::Quiet), &text);
            row += 1;
            continue;
        }
        match item {
            Item::Boss(group) => {
                let heading = text::cut(&group.heading(app.home.as_deref()), width);
                paper.text(0, row, Some(Tone::Strong), &heading);
            }
            Item::Worker(shown) => {
                paper.line(MARK, row, &table.cells(&shown.row));
                if is_selected(item) {
                    paper.text(0, row, None, "›");
                    paper.reverse(row, MARK + room);
                }
                let cells = timeline::bar(&shown.view, board.as_of, window, bars);
                let cells: Vec<Piece> = cells.into_iter().map(|(sign, tone)| (Some(tone), sign.to_string())).collect();
                paper.line(width - bars, row, &cells);
            }
        }
        row += 1;
    }
}

/// Describes how many workers are not shown there, and how many of them run.
fn more(arrow: char, items: &[Item]) -> String {
    let workers: Vec<&Shown> = items
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

fn pane(app: &App, top: u16, rows: u16, paper: &mut Paper) -> usize {
    let Some(shown) = app.current() else { return 0 };
    tabs(app, shown, top, paper);
    let (top, visible) = (top + 1, usize::from(rows.saturating_sub(1)));
    let width = paper.width();
    match app.pane {
        Pane::Log if app.log.is_empty() => {
            let empty = if shown.view.worker.attempt == 0 { "it has not begun" } else { "nothing yet" };
            paper.text(0, top, Some(Tone::Quiet), empty);
            0
        }
        Pane::Log => {
            let (lines, most) = newest(app.log.iter(), width, visible, app.scroll);
            for (row, line) in (top..).zip(lines) {
                paper.line(0, row, &line);
            }
            most
        }
        Pane::Diff => match &app.diff {
            None => put(app, &[vec![(Some(Tone::Quiet), "…".to_owned())]], top, visible, paper),
            Some(Err(why)) => put(app, &[vec![(Some(Tone::Waiting), text::clean(why))]], top, visible, paper),
            Some(Ok(lines)) if lines.is_empty() => {
                put(app, &[vec![(Some(Tone::Quiet), "no changes".to_owned())]], top, visible, paper)
            }
            Some(Ok(lines)) => {
                let lines: Vec<_> = lines.iter().map(|line| vec![(tone_of_diff(line), line.clone())]).collect();
                put(app, &lines, top, visible, paper)
            }
        },
        Pane::Detail => put(app, &detail::lines(shown, width, app.home.as_deref()), top, visible, paper),
    }
}

/// From the top, or as far below it as is scrolled.
fn put(app: &App, lines: &[Vec<Piece>], top: u16, visible: usize, paper: &mut Paper) -> usize {
    let most = lines.len().saturating_sub(visible);
    for (row, line) in (top..).zip(lines.iter().skip(app.scroll.min(most)).take(visible)) {
        paper.line(0, row, line);
    }
    most
}

/// Which pane it is, of whom, and what is the matter with it.
fn tabs(app: &App, shown: &Shown, row: u16, paper: &mut Paper) {
    let mut pieces: Vec<Piece> = vec![(Some(Tone::Quiet), "── ".to_owned())];
    for pane in Pane::ALL {
        let is_it = pane == app.pane;
        let name = if is_it { format!("[{}]", pane.name()) } else { format!(" {} ", pane.name()) };
        pieces.push((Some(if is_it { Tone::Strong } else { Tone::Quiet }), name));
    }
    let who = format!(" {} {} ", shown.row.short, shown.row.title);
    pieces.push((Some(Tone::Strong), who));
    let spent = spent_in_all(&shown.view.spent());
    let about = [shown.row.note(true), shown.row.branch.clone(), spent].into_iter().filter(|it| !it.is_empty());
    pieces.push((None, about.map(|it| format!("· {it} ")).collect::<String>()));
    let used: usize = pieces.iter().map(|(_, text)| text::width(text)).sum();
    pieces.push((Some(Tone::Quiet), "─".repeat(paper.width().saturating_sub(used))));
    paper.line(0, row, &pieces);
}

/// Returns the visible wrapped lines of a log, `scroll` lines above its end. Also returns how far it can be scrolled,
/// as far as that is known without wrapping all lines.
fn newest<'a>(
    log: impl DoubleEndedIterator<Item = &'a LogLine> + ExactSizeIterator,
    width: usize,
    visible: usize,
    scroll: usize,
) -> (Vec<Vec<Piece>>, usize) {
    const TIME: usize = 10;
    let indent = if width < 40 { 0 } else { TIME };
    let mut lines: Vec<Vec<Piece>> = Vec::new();
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
    let mut shown: Vec<Vec<Piece>> = lines.into_iter().skip(scroll).take(visible).collect();
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
