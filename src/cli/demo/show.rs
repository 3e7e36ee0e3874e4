//! What a person sees: a line for each worker while they run (redrawn on a terminal, printed when it changes elsewhere),
//! and the table at the end.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use comfy_table::{Table, presets};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::Value;

use super::answer::{text, worker_id};

pub struct Show {
    /// `None`: not a terminal.
    bars: Option<MultiProgress>,
    bar_of: BTreeMap<String, ProgressBar>,
    last_line_of: BTreeMap<String, String>,
}

impl Show {
    pub fn new() -> Self {
        let bars = (io::stdout().is_terminal() && io::stderr().is_terminal()).then(MultiProgress::new);
        Self { bars, bar_of: BTreeMap::new(), last_line_of: BTreeMap::new() }
    }

    /// Something that the boss did.
    pub fn say(&self, line: &str) {
        match &self.bars {
            // A terminal that cannot be drawn on is no reason to stop.
            Some(bars) => drop(bars.println(line)),
            None => print(line),
        }
    }

    /// How the workers are doing, as `list_worker_missions` says.
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

    /// Leaves the last lines standing.
    pub fn finish(&self) {
        for bar in self.bar_of.values() {
            bar.abandon();
        }
    }
}

/// When nobody reads any more the demo goes on all the same, so that it leaves nothing running.
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

/// The table of all workers, as `get_worker_status` tells of each.
pub fn table(workers: &[Value]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY);
    table.set_header(["worker", "status", "attempts", "verification", "commits", "seconds"]);
    for worker in workers {
        table.add_row([
            worker_id(worker).to_owned(),
            text(worker, "/status").to_owned(),
            number(worker, "/attempt"),
            text(worker, "/outcome/verification/result").to_owned(),
            number(worker, "/outcome/changes/commits"),
            number(worker, "/elapsed_seconds"),
        ]);
    }
    table
}

fn number(worker: &Value, pointer: &str) -> String {
    worker.pointer(pointer).map(Value::to_string).unwrap_or_default()
}
