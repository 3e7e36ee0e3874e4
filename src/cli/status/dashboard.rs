//! The data of the status screens: the workers grouped by boss, open ones first. Pure.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::row::{self, DisplayState, WorkerRow};
use crate::cli::text;
use crate::mission::budget::Spent;
use crate::orchestrator::{BossOverview, MessageView, Overview, WorkerView};

#[derive(Debug, Clone)]
pub(super) struct Dashboard {
    pub as_of: Timestamp,
    pub repository: Option<PathBuf>,
    pub integration_branch: Option<String>,
    pub groups: Vec<Group>,
    pub in_history: usize,
    pub repaired: Option<String>,
}

/// A boss and its workers.
#[derive(Debug, Clone)]
pub(super) struct Group {
    /// The boss's id in short, since users never type it.
    pub boss: String,
    pub directory: Option<PathBuf>,
    pub is_here: bool,
    pub spent: Spent,
    /// Workers that need an answer, then open ones in order of creation, then settled ones, the last settled first.
    pub workers: Vec<DashboardWorker>,
}

/// The drawn row of a worker, and the data from which it was made.
#[derive(Debug, Clone)]
pub(super) struct DashboardWorker {
    pub row: WorkerRow,
    pub view: WorkerView,
    pub is_led: bool,
    /// Messages to the worker; only for a worker that is shown in detail.
    pub messages: Vec<MessageView>,
}

impl DashboardWorker {
    /// Returns whether it has settled and needs no answer.
    pub fn is_over(&self) -> bool {
        self.view.worker.status.is_settled() && !self.view.worker.needs_you()
    }
}

impl Dashboard {
    pub fn of(overview: &Overview) -> Self {
        let is_led = |view: &WorkerView| overview.is_led(&view.worker);
        Self {
            as_of: overview.as_of,
            repository: overview.repository.clone(),
            integration_branch: overview.integration_branch.as_deref().map(text::clean),
            groups: overview.bosses.iter().map(|boss| Group::of(boss, overview.as_of, is_led)).collect(),
            in_history: overview.in_history,
            repaired: overview.repaired.as_deref().map(text::clean),
        }
    }

    pub fn workers(&self) -> impl Iterator<Item = &DashboardWorker> + Clone {
        self.groups.iter().flat_map(|group| &group.workers)
    }

    pub fn counts(&self) -> Vec<(DisplayState, usize)> {
        row::counts(self.workers().map(|shown| &shown.row.state))
    }

    /// Returns the spending of all bosses.
    pub fn spent(&self) -> Spent {
        let mut sum = Spent::default();
        self.groups.iter().for_each(|group| sum.add(group.spent));
        sum
    }
}

impl Group {
    pub(super) fn of(boss: &BossOverview, now: Timestamp, is_led: impl Fn(&WorkerView) -> bool) -> Self {
        let mut views: Vec<&WorkerView> = boss.workers.iter().collect();
        let ended = |view: &WorkerView| view.worker.last().map(|last| last.settled_at);
        // The sort is stable, so open workers stay in order of creation.
        views.sort_by_key(|view| {
            let settled = view.worker.status.is_settled();
            let place = if view.worker.needs_you() { 0 } else { 1 + u8::from(settled) };
            (place, settled.then(|| std::cmp::Reverse(ended(view))))
        });
        let shown = |view: &WorkerView| {
            let is_led = is_led(view);
            DashboardWorker { row: WorkerRow::of(view, is_led, now), view: view.clone(), is_led, messages: Vec::new() }
        };
        Self {
            boss: short_boss(boss.boss.as_str()),
            directory: boss.directory.clone(),
            is_here: boss.is_here,
            spent: boss.spent,
            workers: views.into_iter().map(shown).collect(),
        }
    }

    /// Formats the boss with its directory and spending.
    pub fn heading(&self, home: Option<&Path>) -> String {
        let mut parts = vec![format!("boss {}", self.boss)];
        parts.extend(self.directory.as_deref().map(|directory| text::clean(&shorten(directory, home))));
        parts.push(if self.is_here { "here" } else { "away" }.to_owned());
        parts.push(
            Some(spent_in_all(&self.spent)).filter(|spent| !spent.is_empty()).unwrap_or("nothing spent".to_owned()),
        );
        parts.join(" · ")
    }
}

/// Formats money and tokens, as far as they are known.
pub(super) fn spent_in_all(spent: &Spent) -> String {
    let cost = (spent.cost_usd > 0.0).then(|| format!("${:.2}", spent.cost_usd));
    let tokens = (spent.tokens > 0).then(|| format!("{} tokens", row::short(spent.tokens)));
    cost.into_iter().chain(tokens).collect::<Vec<_>>().join(", ")
}

/// Shortens a boss's id to the client and the beginning of its session: `claude:6f1c2f3a`.
fn short_boss(boss: &str) -> String {
    const KEPT: usize = 8;
    let boss = text::clean(boss);
    match boss.split_once(':') {
        Some((kind, id)) => format!("{kind}:{}", id.chars().take(KEPT).collect::<String>()),
        None => boss,
    }
}

/// Writes a path as a shell would, with `~` for the home.
pub(super) fn shorten(path: &Path, home: Option<&Path>) -> String {
    match home.filter(|home| home.components().count() > 1).and_then(|home| path.strip_prefix(home).ok()) {
        Some(below) if below.as_os_str().is_empty() => "~".to_owned(),
        Some(below) => format!("~/{}", below.display()),
        None => path.display().to_string(),
    }
}
