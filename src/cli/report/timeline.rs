//! Renders the time of each worker as bars: queued, running, verifying. Lengths are in percent of the whole time, so
//! that the bars are as wide as the page.

use std::collections::BTreeSet;

use jiff::Timestamp;
use maud::{Markup, html};

use super::gather::{AttemptSection, WorkerSection};
use super::text;
use super::worker::anchor;
use crate::mission::lifecycle::WorkerStatus;

/// Maximum length of a name, which would take the bars' place.
const NAME: usize = 60;

pub struct Scale {
    from: Timestamp,
    until: Timestamp,
}

struct Bar {
    kind: &'static str,
    status: WorkerStatus,
    from: f64,
    until: f64,
    words: String,
}

impl Scale {
    /// Returns the scale from the first creation to the last end.
    pub fn of(workers: &[WorkerSection], as_of: Timestamp) -> Self {
        let from = workers.iter().map(|report| report.view.worker.created_at).min().unwrap_or(as_of);
        let ended = |report: &WorkerSection| {
            if report.view.worker.status.is_settled() { report.attempts.last()?.ended } else { Some(as_of) }
        };
        let until = workers.iter().filter_map(ended).max().unwrap_or(as_of);
        Self { from, until: until.max(from) }
    }

    pub fn seconds(&self) -> f64 {
        self.until.duration_since(self.from).as_secs_f64()
    }

    /// Returns the position of a time. Clocks may jump, so it is limited to the scale.
    fn percent(&self, at: Timestamp) -> f64 {
        let whole = self.seconds().max(0.001);
        (at.duration_since(self.from).as_secs_f64() / whole * 100.0).clamp(0.0, 100.0)
    }

    /// Returns about five ticks at round times.
    fn ticks(&self) -> Vec<(f64, String)> {
        /// The steps in seconds, up to 30 days.
        const STEPS: [u32; 21] = [
            1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 43_200, 86_400, 172_800,
            604_800, 2_592_000,
        ];
        let whole = self.seconds();
        let step = STEPS.into_iter().map(f64::from).find(|step| whole / step <= 5.5).unwrap_or(whole / 5.0);
        let times = (0..).map(|n| f64::from(n) * step).take_while(|at| *at <= whole);
        // A last tick near the edge would not fit.
        times.map(|at| (at / whole.max(0.001) * 100.0, at)).filter(|(percent, _)| *percent < 94.0).map(tick).collect()
    }
}

fn tick((percent, seconds): (f64, f64)) -> (f64, String) {
    let words = text::seconds(seconds as u64);
    let short = ["m", "h", "d"].into_iter().find_map(|unit| {
        let (whole, rest) = words.split_once(&format!("{unit} "))?;
        rest.starts_with('0').then(|| format!("{whole}{unit}"))
    });
    (percent, short.unwrap_or(words))
}

pub fn timeline(workers: &[WorkerSection], as_of: Timestamp) -> Markup {
    let scale = Scale::of(workers, as_of);
    let all = workers.iter().flat_map(|report| &report.attempts).map(|attempt| attempt.status);
    let endings: BTreeSet<WorkerStatus> = all.collect();
    let has = |kind: &str| workers.iter().any(|report| bars(report, &scale, as_of).iter().any(|it| it.kind == kind));
    html! {
        div.timeline role="list" aria-label="Timeline" {
            div.axis aria-hidden="true" {
                span {}
                svg width="100%" height="18" {
                    @for (at, words) in scale.ticks() {
                        text x={ (at) "%" } y="12" { (words) }
                    }
                }
            }
            @for report in workers {
                (row(report, &scale, as_of))
            }
        }
        p.legend {
            @for status in endings {
                span.key { svg width="18" height="10" { rect.ran.(status.as_str()) width="18" height="10" rx="2" {} } (status.as_str().replace('_', " ")) }
            }
            @if has("queued") { span.key { svg width="18" height="10" { rect.queued y="4" width="18" height="2" {} } "waiting" } }
            @if has("verified") { span.key { svg width="18" height="10" { rect.verified.any width="18" height="10" rx="2" {} } "verifying" } }
        }
    }
}

fn row(report: &WorkerSection, scale: &Scale, as_of: Timestamp) -> Markup {
    let worker = &report.view.worker;
    let bars = bars(report, scale, as_of);
    let words = bars.iter().map(|bar| bar.words.as_str()).collect::<Vec<_>>().join("; ");
    let title = text::clean(&worker.mission.title);
    html! {
        div.row role="listitem" {
            a.name href={ "#" (anchor(&worker.id)) } title=(text::head(&title, 300)) {
                (text::head(&title, NAME))
            }
            svg.bar width="100%" height="16" role="img" aria-label={ (worker.id.as_str()) ": " (words) } {
                @for bar in &bars {
                    @let (y, height) = if bar.kind == "queued" { (7, 2) } else { (2, 12) };
                    rect class={ (bar.kind) " " (bar.status.as_str()) }
                        x={ (percent(bar.from)) "%" } y=(y)
                        width={ (percent(bar.until - bar.from)) "%" } height=(height) rx="2" {
                        title { (bar.words) }
                    }
                }
            }
        }
    }
}

fn percent(value: f64) -> String {
    format!("{value:.2}")
}

fn bars(report: &WorkerSection, scale: &Scale, as_of: Timestamp) -> Vec<Bar> {
    let worker = &report.view.worker;
    let mut bars = Vec::new();
    let mut free_since = worker.created_at;
    for attempt in &report.attempts {
        let ended = attempt.ended.unwrap_or(as_of);
        let began = attempt.began.unwrap_or(ended);
        push(&mut bars, scale, "queued", WorkerStatus::Queued, free_since, began, "waiting".to_owned());
        let verified_since = verified_since(attempt, began, ended);
        let words = format!("attempt {} {} after {}", attempt.number, attempt.status, text::seconds(attempt.seconds));
        push(&mut bars, scale, "ran", attempt.status, began, verified_since, words);
        if verified_since < ended {
            let words = format!("verifying for {}", text::seconds(attempt.verifying_seconds.round() as u64));
            push(&mut bars, scale, "verified", attempt.status, verified_since, ended, words);
        }
        free_since = ended;
    }
    if worker.status == WorkerStatus::Queued {
        push(&mut bars, scale, "queued", WorkerStatus::Queued, free_since, as_of, "queued".to_owned());
    }
    bars
}

fn verified_since(attempt: &AttemptSection, began: Timestamp, ended: Timestamp) -> Timestamp {
    let took = jiff::SignedDuration::try_from_secs_f64(attempt.verifying_seconds).unwrap_or_default();
    ended.checked_sub(took).unwrap_or(ended).max(began).min(ended.max(began))
}

fn push(
    bars: &mut Vec<Bar>,
    scale: &Scale,
    kind: &'static str,
    status: WorkerStatus,
    from: Timestamp,
    until: Timestamp,
    words: String,
) {
    let (from, until) = (scale.percent(from), scale.percent(until.max(from)));
    bars.push(Bar { kind, status, from, until, words });
}
