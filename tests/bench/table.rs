//! The Markdown output: a line of the table for each comparison.

use crate::stats::{Samples, number};

/// One line of the table. A missed target is marked.
pub struct Line {
    what: String,
    floor: String,
    ours: String,
    relation: String,
    target: String,
    reached: bool,
}

/// Both sides, measured alternately.
#[derive(Default)]
pub struct Sides {
    pub ours: Samples,
    pub floor: Samples,
}

impl Sides {
    /// Returns a line whose target is a maximum ratio of the medians.
    pub fn times(&self, what: &str, floor: &str, most: f64) -> Line {
        let ratio = self.ours.median() / self.floor.median();
        self.line(what, floor, format!("{ratio:.2} ×"), format!("{most} ×"), ratio <= most)
    }

    /// Returns a line whose targets are milliseconds above the floor, at the median and at the 95th percentile.
    pub fn plus(&self, what: &str, floor: &str, median: f64, p95: f64) -> Line {
        let more = self.ours.median() - self.floor.median();
        let more_p95 = self.ours.p95() - self.floor.p95();
        let relation = format!("+ {} ms, p95 + {} ms", number(more), number(more_p95));
        let target = format!("+ {median} ms, p95 + {p95} ms");
        self.line(what, floor, relation, target, more <= median && more_p95 <= p95)
    }

    /// Returns a line whose target is milliseconds above the floor, at the median.
    pub fn plus_median(&self, what: &str, floor: &str, most: f64) -> Line {
        let more = self.ours.median() - self.floor.median();
        self.line(what, floor, format!("+ {} ms", number(more)), format!("+ {most} ms"), more <= most)
    }

    fn line(&self, what: &str, floor: &str, relation: String, target: String, reached: bool) -> Line {
        let floor = format!("{floor}: {}", self.floor.show());
        Line { what: what.to_owned(), floor, ours: self.ours.show(), relation, target, reached }
    }
}

impl Line {
    /// Returns a line without a floor.
    pub fn alone(what: &str, ours: String, relation: String, target: &str, reached: bool) -> Self {
        let (what, floor) = (what.to_owned(), "–".to_owned());
        Self { what, floor, ours, relation, target: target.to_owned(), reached }
    }

    /// Adds the figure of a floor.
    pub fn beside(self, floor: String) -> Self {
        Self { floor, ..self }
    }

    /// Returns a line whose target is a maximum median, in milliseconds.
    pub fn at_most(what: &str, samples: &Samples, most: f64) -> Self {
        Self::alone(what, samples.show(), "–".to_owned(), &format!("{most} ms"), samples.median() <= most)
    }

    /// Returns a line with CPU seconds.
    pub fn seconds(what: &str, took: f64, most: f64) -> Self {
        Self::alone(what, format!("{took:.2} s"), "–".to_owned(), &format!("{most} s"), took < most)
    }

    pub fn print(&self, row: usize) {
        let mark = if self.reached { "yes" } else { "**missed**" };
        let Line { what, floor, ours, relation, target, .. } = self;
        println!("| {row} | {what} | {floor} | {ours} | {relation} | {target} | {mark} |");
    }

    pub fn is_reached(&self) -> bool {
        self.reached
    }
}

pub fn print_head() {
    println!("| | what | floor | ours | measured | to reach | reached |");
    println!("|---|---|---|---|---|---|---|");
}
