//! The whole page. It is self-contained: no script, font, picture or style comes from elsewhere, and its policy forbids
//! a browser to load any. All texts of models, users and programs go through the template's escaping.

use std::collections::BTreeMap;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::gather::{BossReport, ReportData, WorkerSection};
use super::text;
use super::timeline::{Scale, timeline};
use super::worker::{anchor, badge, lines, verification, worker};
use crate::cli::text::short_commit;
use crate::mission::budget::Spent;
use crate::mission::lifecycle::{Ending, WorkerStatus};

/// Marks the file as a report, which a later report may overwrite.
pub const GENERATOR: &str = "orchestrator-boss report";
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
const STYLE: &str = include_str!("style.css");
const TITLE: usize = 120;

pub fn page(data: &ReportData) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="generator" content=(GENERATOR);
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="referrer" content="no-referrer";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (data.name) " · " (text::count(data.workers().count(), "worker")) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip href="#workers" { "Skip to the workers" }
                main {
                    (head(data))
                    @for (at, boss) in data.bosses.iter().enumerate() {
                        section {
                            (boss_head(data, at, boss))
                            (timeline(&boss.workers, data.as_of))
                        }
                    }
                    section {
                        h2 { "Outcomes" }
                        (outcomes(data))
                    }
                    (backends(data))
                    section id="workers" {
                        h2 { "Workers" }
                        @for report in data.workers() { (worker(report)) }
                    }
                }
                (foot(data))
            }
        }
    }
}

fn head(data: &ReportData) -> Markup {
    html! {
        header.top {
            p.kicker { "orchestrator-boss report" }
            h1 { (data.name) }
            p.sub {
                (text::moment(data.as_of)) " " (text::zone(data.as_of))
                @if let Some(branch) = &data.integration_branch { " · integration branch " code { (branch) } }
                @if let Some(since) = data.since { " · since " (text::moment(since)) }
            }
            (figures(data))
        }
    }
}

/// Renders the most important numbers.
fn figures(data: &ReportData) -> Markup {
    let workers: Vec<&WorkerSection> = data.workers().collect();
    let count = |is: &dyn Fn(&WorkerSection) -> bool| workers.iter().filter(|report| is(report)).count();
    let needs_you = count(&|report| report.view.worker.needs_you());
    let is_completed = |report: &WorkerSection| {
        let worker = &report.view.worker;
        worker.status == WorkerStatus::Settled(Ending::Completed) && !worker.needs_you()
    };
    let completed = count(&is_completed);
    let open = count(&|report| !report.view.worker.status.is_settled());
    let merged = count(&|report| report.view.worker.integrated.is_some());
    let retried = count(&|report| is_completed(report) && report.attempts.len() > 1);
    let changes = || workers.iter().filter_map(|report| report.changes());
    let plus: u64 = changes().map(|it| u64::from(it.insertions)).sum();
    let minus: u64 = changes().map(|it| u64::from(it.deletions)).sum();
    let spent = sum(workers.iter().copied());
    let bosses = data.bosses.iter().map(|boss| Scale::of(&boss.workers, data.as_of).seconds());
    let took = bosses.fold(0.0, f64::max) as u64;
    let figure = |value: Markup, name: &str, more: Option<String>| {
        html! { div { dt { (name) @if let Some(more) = more { small { (more) } } } dd { (value) } } }
    };
    html! {
        dl.figures {
            (figure(html! { (workers.len()) }, "workers", (open > 0).then(|| format!("{open} open"))))
            @if needs_you > 0 { (figure(html! { (needs_you) }, "needs you", None)) }
            (figure(html! { (completed) }, "completed", (retried > 0).then(|| format!("{retried} after a retry"))))
            (figure(html! { (merged) }, "merged", None))
            (figure(lines(plus, minus), "lines", None))
            (figure(html! { (text::seconds(took)) }, "elapsed", Some(format!("{} of work", text::seconds(spent.seconds)))))
            @if spent.tokens > 0 { (figure(html! { (text::tokens(spent.tokens)) }, "tokens", None)) }
            @if spent.cost_usd > 0.0 { (figure(html! { (text::dollars(spent.cost_usd)) }, "cost", None)) }
        }
    }
}

fn sum<'a>(workers: impl Iterator<Item = &'a WorkerSection>) -> Spent {
    workers.fold(Spent::default(), |mut sum, report| {
        sum.add(report.spent);
        sum
    })
}

fn boss_head(data: &ReportData, at: usize, boss: &BossReport) -> Markup {
    let spent = sum(boss.workers.iter());
    html! {
        @if data.bosses.len() == 1 {
            h2 { "Timeline" }
        } @else {
            h2 { "Timeline of boss " (at + 1) }
            p.sub {
                code { (text::head(boss.id.as_str(), 80)) }
                @if let Some(directory) = &boss.directory { " in " code { (directory.to_string_lossy()) } }
                " · " (text::count(boss.workers.len(), "worker")) " · " (text::seconds(spent.seconds)) " of work"
                @if spent.tokens > 0 { " · " (text::tokens(spent.tokens)) " tokens" }
                @if spent.cost_usd > 0.0 { " · " (text::dollars(spent.cost_usd)) }
            }
        }
    }
}

fn outcomes(data: &ReportData) -> Markup {
    html! {
        table.outcomes {
            thead {
                tr {
                    th scope="col" { "Worker" }
                    th scope="col" { "Outcome" }
                    th scope="col" { "Verified" }
                    th scope="col" { "Changes" }
                    th scope="col" { "Merged" }
                    th.number scope="col" { "Time" }
                    th.number scope="col" { "Tokens" }
                    th.number scope="col" { "Cost" }
                }
            }
            tbody { @for report in data.workers() { (outcome(report)) } }
        }
    }
}

fn outcome(report: &WorkerSection) -> Markup {
    let worker = &report.view.worker;
    let none = || html! { span.none { "–" } };
    let backend = report.attempts.last().map_or(worker.next.backend.as_str(), |attempt| &attempt.backend);
    html! {
        tr {
            th scope="row" {
                a href={ "#" (anchor(&worker.id)) } { (text::head(&text::clean(&worker.mission.title), TITLE)) }
                small { (backend) @if report.attempts.len() > 1 { " · " (report.attempts.len()) " attempts" } }
            }
            td data-name="Outcome" { (badge(worker)) }
            td data-name="Verified" {
                @match report.brief().and_then(|brief| verification(&brief.verification)) {
                    Some(result) => { (result) }
                    None => { (none()) }
                }
            }
            td data-name="Changes" {
                @match report.changes().filter(|changes| changes.files_changed > 0) {
                    Some(changes) => { (lines(changes.insertions.into(), changes.deletions.into())) }
                    None => { (none()) }
                }
            }
            td data-name="Merged" {
                @match &worker.integrated {
                    Some(it) => { code title={ "into " (it.into) } { (short_commit(&it.commit)) } }
                    None => { (none()) }
                }
            }
            td.number data-name="Time" { (text::seconds(report.spent.seconds)) }
            td.number data-name="Tokens" {
                @if report.spent.tokens > 0 { (text::tokens(report.spent.tokens)) } @else { (none()) }
            }
            td.number data-name="Cost" {
                @if report.spent.cost_usd > 0.0 { (text::dollars(report.spent.cost_usd)) } @else { (none()) }
            }
        }
    }
}

#[derive(Default)]
struct BackendTotals {
    attempts: usize,
    completed: usize,
    seconds: u64,
    tokens: u64,
    cost_usd: f64,
}

/// Renders the totals of each backend. They count attempts, since a worker may have used several backends.
fn backends(data: &ReportData) -> Markup {
    let mut backends: BTreeMap<&str, BackendTotals> = BTreeMap::new();
    for report in data.workers() {
        for attempt in &report.attempts {
            let of = backends.entry(&attempt.backend).or_default();
            of.attempts += 1;
            of.completed += usize::from(attempt.is_completed());
            let settled = &report.view.worker.settled;
            let before = settled.iter().take_while(|brief| brief.attempt < attempt.number).count();
            let live = report.view.live.as_ref().map(|live| Spent::of(&live.usage, attempt.seconds));
            let spent = match &attempt.brief {
                Some(brief) => Spent::by(brief, &settled[..before]),
                None => live.unwrap_or_default(),
            };
            of.seconds += spent.seconds;
            of.tokens = of.tokens.saturating_add(spent.tokens);
            of.cost_usd += spent.cost_usd;
        }
    }
    if backends.len() < 2 {
        return html! {};
    }
    html! {
        section {
            h2 { "Backends" }
            table.outcomes {
                thead {
                    tr {
                        th scope="col" { "Backend" }
                        th.number scope="col" { "Attempts" }
                        th.number scope="col" { "Completed" }
                        th.number scope="col" { "Time" }
                        th.number scope="col" { "Tokens" }
                        th.number scope="col" { "Cost" }
                    }
                }
                tbody {
                    @for (name, of) in &backends {
                        tr {
                            th scope="row" { (name) }
                            td.number data-name="Attempts" { (of.attempts) }
                            td.number data-name="Completed" { (of.completed) }
                            td.number data-name="Time" { (text::seconds(of.seconds)) }
                            td.number data-name="Tokens" {
                                @if of.tokens > 0 { (text::tokens(of.tokens)) } @else { span.none { "–" } }
                            }
                            td.number data-name="Cost" {
                                @if of.cost_usd > 0.0 { (text::dollars(of.cost_usd)) } @else { span.none { "–" } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn foot(data: &ReportData) -> Markup {
    html! {
        footer {
            @if data.left_out > 0 {
                p { (text::count(data.left_out, "older worker")) " left out; --since and --boss choose others." }
            }
            p {
                "Report on " code { (data.place.to_string_lossy()) } ", generated from " code { (data.state_root.to_string_lossy()) }
                ", which holds the complete data. Costs and tokens are those that the CLIs reported."
            }
            p { "This report contains prompts, messages and output of agents: read it before you share it." }
        }
    }
}
