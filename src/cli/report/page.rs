//! The whole page. It is self-contained: no script, font, picture or style comes from elsewhere, and its policy forbids
//! a browser to load any. All texts of models, users and programs go through the template's escaping.

use std::collections::BTreeMap;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::gather::{Boss, Story, Told};
use super::text;
use super::timeline::{Scale, timeline};
use super::worker::{anchor, badge, lines, short, verification, worker};
use crate::mission::budget::Spent;
use crate::mission::lifecycle::{Ending, WorkerStatus};

/// By this a later report knows the file for one of ours.
pub const GENERATOR: &str = "orchestrator-boss report";
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
const STYLE: &str = include_str!("style.css");
const TITLE: usize = 120;

pub fn page(story: &Story) -> Markup {
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
                title { (story.name) " · " (text::count(story.workers().count() as u64, "worker")) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip href="#workers" { "Skip to the workers" }
                main {
                    (head(story))
                    @for (at, boss) in story.bosses.iter().enumerate() {
                        section {
                            (boss_head(story, at, boss))
                            (timeline(&boss.workers, story.as_of))
                        }
                    }
                    section {
                        h2 { "Outcomes" }
                        (outcomes(story))
                    }
                    (backends(story))
                    section id="workers" {
                        h2 { "Workers" }
                        @for told in story.workers() { (worker(told)) }
                    }
                }
                (foot(story))
            }
        }
    }
}

fn head(story: &Story) -> Markup {
    html! {
        header.top {
            p.kicker { "orchestrator-boss report" }
            h1 { (story.name) }
            p.sub {
                (text::moment(story.as_of)) " " (text::zone(story.as_of))
                @if let Some(branch) = &story.integration_branch { " · integration branch " code { (branch) } }
                @if let Some(since) = story.since { " · since " (text::moment(since)) }
            }
            (figures(story))
        }
    }
}

/// Renders the most important numbers.
fn figures(story: &Story) -> Markup {
    let workers: Vec<&Told> = story.workers().collect();
    let count = |is: &dyn Fn(&Told) -> bool| workers.iter().filter(|told| is(told)).count();
    let needs_you = count(&|told| told.view.worker.needs_you());
    let is_completed = |told: &Told| {
        let worker = &told.view.worker;
        worker.status == WorkerStatus::Settled(Ending::Completed) && !worker.needs_you()
    };
    let completed = count(&is_completed);
    let open = count(&|told| !told.view.worker.status.is_settled());
    let merged = count(&|told| told.view.worker.integrated.is_some());
    let retried = count(&|told| is_completed(told) && told.attempts.len() > 1);
    let changes = || workers.iter().filter_map(|told| told.changes());
    let plus: u64 = changes().map(|it| u64::from(it.insertions)).sum();
    let minus: u64 = changes().map(|it| u64::from(it.deletions)).sum();
    let spent = sum(workers.iter().copied());
    let bosses = story.bosses.iter().map(|boss| Scale::of(&boss.workers, story.as_of).seconds());
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

fn sum<'a>(workers: impl Iterator<Item = &'a Told>) -> Spent {
    workers.fold(Spent::default(), |mut sum, told| {
        sum.add(told.spent);
        sum
    })
}

fn boss_head(story: &Story, at: usize, boss: &Boss) -> Markup {
    let spent = sum(boss.workers.iter());
    html! {
        @if story.bosses.len() == 1 {
            h2 { "Timeline" }
        } @else {
            h2 { "Timeline of boss " (at + 1) }
            p.sub {
                code { (text::head(boss.id.as_str(), 80)) }
                @if let Some(directory) = &boss.directory { " in " code { (directory.to_string_lossy()) } }
                " · " (text::count(boss.workers.len() as u64, "worker")) " · " (text::seconds(spent.seconds)) " of work"
                @if spent.tokens > 0 { " · " (text::tokens(spent.tokens)) " tokens" }
                @if spent.cost_usd > 0.0 { " · " (text::dollars(spent.cost_usd)) }
            }
        }
    }
}

fn outcomes(story: &Story) -> Markup {
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
            tbody { @for told in story.workers() { (outcome(told)) } }
        }
    }
}

fn outcome(told: &Told) -> Markup {
    let worker = &told.view.worker;
    let none = || html! { span.none { "–" } };
    let backend = told.attempts.last().map_or(worker.next.backend.as_str(), |attempt| &attempt.backend);
    html! {
        tr {
            th scope="row" {
                a href={ "#" (anchor(&worker.id)) } { (text::head(&text::clean(&worker.mission.title), TITLE)) }
                small { (backend) @if told.attempts.len() > 1 { " · " (told.attempts.len()) " attempts" } }
            }
            td data-name="Outcome" { (badge(worker)) }
            td data-name="Verified" {
                @match told.brief().and_then(|brief| verification(&brief.verification)) {
                    Some(result) => { (result) }
                    None => { (none()) }
                }
            }
            td data-name="Changes" {
                @match told.changes().filter(|changes| changes.files_changed > 0) {
                    Some(changes) => { (lines(changes.insertions.into(), changes.deletions.into())) }
                    None => { (none()) }
                }
            }
            td data-name="Merged" {
                @match &worker.integrated {
                    Some(it) => { code title={ "into " (it.into) } { (short(&it.commit)) } }
                    None => { (none()) }
                }
            }
            td.number data-name="Time" { (text::seconds(told.spent.seconds)) }
            td.number data-name="Tokens" {
                @if told.spent.tokens > 0 { (text::tokens(told.spent.tokens)) } @else { (none()) }
            }
            td.number data-name="Cost" {
                @if told.spent.cost_usd > 0.0 { (text::dollars(told.spent.cost_usd)) } @else { (none()) }
            }
        }
    }
}

#[derive(Default)]
struct Of {
    attempts: usize,
    completed: usize,
    seconds: u64,
    tokens: u64,
    cost_usd: f64,
}

/// Told by attempts: a worker may have gone from one to another.
fn backends(story: &Story) -> Markup {
    let mut backends: BTreeMap<&str, Of> = BTreeMap::new();
    for told in story.workers() {
        for attempt in &told.attempts {
            let of = backends.entry(&attempt.backend).or_default();
            of.attempts += 1;
            of.completed += usize::from(attempt.is_completed());
            let settled = &told.view.worker.settled;
            let before = settled.iter().take_while(|brief| brief.attempt < attempt.number).count();
            let live = told.view.live.as_ref().map(|live| Spent::of(&live.usage, attempt.seconds));
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

fn foot(story: &Story) -> Markup {
    html! {
        footer {
            @if story.left_out > 0 {
                p { (text::count(story.left_out as u64, "older worker")) " left out; --since and --boss choose others." }
            }
            p {
                "Of " code { (story.place.to_string_lossy()) } ", made from " code { (story.state_root.to_string_lossy()) }
                ", where all of it is kept. Costs and tokens are as the CLIs told them; a cost that none told is not counted."
            }
            p { "It holds what agents were told, said and printed: read it before you hand it on." }
        }
    }
}
