//! Fits the columns of the workers' table into the width of a terminal. A row is never wrapped: the least important
//! columns are left out first, then titles and notes are cut. Pure.

use super::row::WorkerRow;
use crate::cli::terminal::Tone;
use crate::cli::text;

/// A part of a line with its tone; `None` is plain.
pub(super) type Span = (Option<Tone>, String);

/// Number of columns from which the gaps are wider.
const ROOMY: usize = 100;
/// Maximum width of a title before notes that have no column.
const SHORT_TITLE: usize = 18;
/// Width of the state: `✓ completed`.
const STATE: usize = 11;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Sign,
    DisplayState,
    Id,
    Title,
    Backend,
    Model,
    Time,
    Idle,
    Cost,
    Check,
    Branch,
    Conflicts,
    Note,
}

/// The order on the screen.
const ORDER: [Column; 13] = [
    Column::Sign,
    Column::DisplayState,
    Column::Id,
    Column::Title,
    Column::Backend,
    Column::Model,
    Column::Time,
    Column::Idle,
    Column::Cost,
    Column::Check,
    Column::Branch,
    Column::Conflicts,
    Column::Note,
];

/// The columns to add while there is room, the most important first.
const WANTED: [Column; 10] = [
    Column::Title,
    Column::Note,
    Column::Time,
    Column::Cost,
    Column::Backend,
    Column::Idle,
    Column::Check,
    Column::Branch,
    Column::Conflicts,
    Column::Model,
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    columns: Vec<(Column, usize)>,
    gap: usize,
}

impl Column {
    fn heading(self) -> &'static str {
        match self {
            Column::Sign => "",
            Column::DisplayState => "STATE",
            Column::Id => "ID",
            Column::Title => "TITLE",
            Column::Backend => "BACKEND",
            Column::Model => "MODEL",
            Column::Time => "TIME",
            Column::Idle => "IDLE",
            Column::Cost => "COST",
            Column::Check => "CHECK",
            Column::Branch => "BRANCH",
            Column::Conflicts => "CONFLICTS",
            Column::Note => "NOW",
        }
    }

    fn text(self, row: &WorkerRow, with_conflicts: bool) -> String {
        match self {
            Column::Sign => row.state.sign.to_owned(),
            Column::DisplayState => format!("{} {}", row.state.sign, row.state.word),
            Column::Id => row.short.clone(),
            Column::Title => row.title.clone(),
            Column::Backend => row.backend.clone(),
            Column::Model => row.model.clone(),
            Column::Time => row.time.clone(),
            Column::Idle => row.idle.clone(),
            Column::Cost => row.cost.clone(),
            Column::Check => row.check.clone(),
            Column::Branch => row.branch.clone(),
            Column::Conflicts => row.conflicts.clone(),
            Column::Note => row.note(with_conflicts),
        }
    }

    fn tone(self, row: &WorkerRow) -> Option<Tone> {
        match self {
            Column::Sign | Column::DisplayState => Some(row.state.tone),
            Column::Conflicts => Some(Tone::Waiting),
            Column::Check => Some(row.check_tone),
            Column::Model | Column::Idle | Column::Branch => Some(Tone::Quiet),
            _ => None,
        }
    }

    fn is_number(self) -> bool {
        matches!(self, Column::Time | Column::Idle | Column::Cost)
    }

    /// Returns the minimum width; `None`: all of its content.
    fn least(self) -> Option<usize> {
        match self {
            Column::Title => Some(14),
            Column::Note => Some(18),
            Column::Branch => Some(16),
            // The longest name of a built-in backend.
            Column::Backend => Some(10),
            Column::Model | Column::Conflicts => Some(8),
            _ => None,
        }
    }

    /// Returns the width before less important columns are added.
    fn comfortable(self) -> Option<usize> {
        match self {
            Column::Title => Some(18),
            Column::Note => Some(22),
            other => other.least(),
        }
    }
}

impl Table {
    /// Chooses the columns for these rows; columns without content are left out. `notes`: the notes are shown too.
    pub fn fitting<'a>(rows: impl Iterator<Item = &'a WorkerRow> + Clone, width: usize, notes: bool) -> Self {
        let gap = if width < ROOMY { 1 } else { 2 };
        let ideal = |column: Column| {
            let widest = rows.clone().map(|row| text::width(&column.text(row, true))).max().unwrap_or(0);
            match column {
                // A fixed width, so that the table does not move when states change.
                Column::DisplayState => STATE.max(widest),
                _ if widest == 0 => 0,
                column => widest.max(text::width(column.heading())),
            }
        };
        let ideals: Vec<(Column, usize)> = ORDER.iter().map(|column| (*column, ideal(*column))).collect();
        let ideal = |column: Column| ideals.iter().find(|(it, _)| *it == column).map_or(0, |(_, width)| *width);

        let mut chosen = vec![if width < 40 { Column::Sign } else { Column::DisplayState }, Column::Id];
        let used = |columns: &[Column], width_of: &dyn Fn(Column) -> usize| -> usize {
            columns.iter().map(|column| width_of(*column)).sum::<usize>() + gap * columns.len().saturating_sub(1)
        };
        let least = |column: Column| column.least().unwrap_or(usize::MAX).min(ideal(column));
        let comfortable = |column: Column| column.comfortable().unwrap_or(usize::MAX).min(ideal(column));
        let enough = |column: Column| ideal(column).min(if column == Column::Branch { 24 } else { 40 });
        for column in WANTED.into_iter().filter(|column| ideal(*column) > 0 && (notes || *column != Column::Note)) {
            chosen.push(column);
            // The first two are kept even if they are narrow.
            let fits = match column {
                Column::Title | Column::Note => used(&chosen, &least) <= width,
                // The notes or ids show these too, or they are seldom needed.
                Column::Check | Column::Branch | Column::Conflicts | Column::Model => used(&chosen, &enough) <= width,
                _ => used(&chosen, &comfortable) <= width,
            };
            if !fits {
                chosen.pop();
            }
        }
        chosen.sort_by_key(|column| ORDER.iter().position(|it| it == column));
        let mut columns: Vec<(Column, usize)> = chosen.iter().map(|column| (*column, least(*column))).collect();
        let mut left = width.saturating_sub(used(&chosen, &least));
        // The remaining width goes to cut columns in turns: each gets enough before any gets all.
        for most in [&comfortable as &dyn Fn(Column) -> usize, &enough, &ideal] {
            for wanted in WANTED {
                let Some((_, width)) = columns.iter_mut().find(|(column, _)| *column == wanted) else { continue };
                let more = most(wanted).saturating_sub(*width).min(left);
                *width += more;
                left -= more;
            }
        }
        Self { columns, gap }
    }

    pub fn heading(&self) -> String {
        let cell = |(column, width): &(Column, usize)| pad(*column, column.heading(), *width);
        self.columns.iter().map(cell).collect::<Vec<_>>().join(&" ".repeat(self.gap)).trim_end().to_owned()
    }

    /// Returns the columns of a row up to its title, and then its notes, which get the rest of the width.
    pub fn cells_with_notes(&self, row: &WorkerRow, width: usize) -> Vec<Span> {
        let at = |(column, _): &(Column, usize)| ORDER.iter().position(|it| it == column);
        let title = ORDER.iter().position(|it| *it == Column::Title);
        let mut spans: Vec<Span> = Vec::new();
        let mut left = width;
        for (column, most) in self.columns.iter().filter(|column| at(column) <= title) {
            let columns = if *column == Column::Title { (*most).min(SHORT_TITLE) } else { *most };
            spans.extend([(column.tone(row), pad(*column, &column.text(row, true), columns)), (None, " ".to_owned())]);
            left = left.saturating_sub(columns + 1);
        }
        spans.push((Some(row.state.tone), text::cut(&row.notes.join(" · "), left)));
        spans
    }

    pub fn cells(&self, row: &WorkerRow) -> Vec<Span> {
        let with_conflicts = !self.columns.iter().any(|(column, _)| *column == Column::Conflicts);
        let mut spans: Vec<Span> = Vec::new();
        for (column, width) in &self.columns {
            if !spans.is_empty() {
                spans.push((None, " ".repeat(self.gap)));
            }
            spans.push((column.tone(row), pad(*column, &column.text(row, with_conflicts), *width)));
        }
        spans
    }
}

fn pad(column: Column, content: &str, width: usize) -> String {
    if column.is_number() { text::right(content, width) } else { text::left(content, width) }
}
