//! The demo's display: a line for each worker while they run (redrawn on a terminal, otherwise printed at each change),
//! and a table at the end.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::Value;

use super::answer::{text, worker_id};
use crate::cli::text as columns;

pub struct Display {
    /// `None` without a terminal.
    bars: Option<MultiProgress>,
    bar_of: BTreeMap<String, ProgressBar>,
    last_line_of: BTreeMap<String, String>,
}

impl Display {
    pub fn new() -> Self {
        let bars = (io::stdout().is_terminal() && io::stderr().is_terminal()).then(MultiProgress::new);
        Self { bars, bar_of: BTreeMap::new(), last_line_of: BTreeMap::new() }
    }

    /// Prints an action of the boss.
    pub fn print(&self, line: &str) {
        match &self.bars {
            // The demo continues if the terminal cannot be drawn on.
            Some(bars) => drop(bars.println(line)),
            None => print(line),
        }
    }

    /// Shows the state of the workers, as `list_worker_missions` reports it.
    pub fn update(&mut self, workers: &[Value]) {
        let mut workers: Vec<&Value> = workers.iter().collect();
        workers.sort_by_key(|worker| worker_id(worker));
        for worker in workers {
            let id = worker_id(worker);
            let status = text(worker, "/status");
            let waits_for = text(worker, "/waits_for");
            let activity = if waits_for.is_empty() { text(worker, "/last_activity") } else { waits_for };
            let line = format!("{id:<26} {status:<10} {activity}");
            if self.last_line_of.get(id) != Some(&line) {
                self.draw(id, &line, is_settled(status));
                self.last_line_of.insert(id.to_owned(), line);
            }
        }
    }

    fn draw(&mut self, id: &str, line: &str, settled: bool) {
        let Some(bars) = &self.bars else {
            print(&format!("  {}", line.trim_end()));
            return;
        };
        let bar = self.bar_of.entry(id.to_owned()).or_insert_with(|| bars.add(spinner()));
        bar.set_message(line.to_owned());
        if settled {
            bar.disable_steady_tick();
        } else {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
    }

    /// Keeps the last lines on the screen.
    pub fn finish(&self) {
        for bar in self.bar_of.values() {
            bar.abandon();
        }
    }
}

/// Prints a line. The demo continues after stdout is closed, so that it can end its workers.
pub fn print(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

fn spinner() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {wide_msg}");
    ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

fn is_settled(status: &str) -> bool {
    !matches!(status, "queued" | "starting" | "running" | "verifying")
}

/// Renders the table of all workers from the answers of `get_worker_status`.
pub fn table(workers: &[Value]) -> String {
    let heading = ["worker", "status", "attempts", "verification", "commits", "seconds"].map(str::to_owned);
    let row = |worker: &Value| {
        [
            worker_id(worker).to_owned(),
            text(worker, "/status").to_owned(),
            number(worker, "/attempt"),
            text(worker, "/outcome/verification/result").to_owned(),
            number(worker, "/outcome/changes/commits"),
            number(worker, "/elapsed_seconds"),
        ]
    };
    let rows: Vec<[String; 6]> = std::iter::once(heading).chain(workers.iter().map(row)).collect();
    let widths: [usize; 6] =
        std::array::from_fn(|at| rows.iter().map(|row| columns::width(&row[at])).max().unwrap_or(0));
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| columns::left(cell, width));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn number(worker: &Value, pointer: &str) -> String {
    worker.pointer(pointer).map(Value::to_string).unwrap_or_default()
}
