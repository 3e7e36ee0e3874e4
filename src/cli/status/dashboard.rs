//! The data of the status screens: the workers grouped by boss, those that wait for the user first. Pure.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::row::{self, DisplayState, WorkerRow};
use crate::cli::text;
use crate::mission::budget::Spent;
use crate::mission::id::BossId;
use crate::mission::lifecycle::WorkerStatus;
use crate::orchestrator::{BossOverview, BuildsSurvey, MessageView, Overview, WorkerView};

#[derive(Debug, Clone)]
pub(super) struct Dashboard {
    pub as_of: Timestamp,
    pub repository: Option<PathBuf>,
    pub integration_branch: Option<String>,
    pub groups: Vec<Group>,
    pub in_history: usize,
    pub repaired: Option<String>,
    /// The builds of settled workers, if they were measured.
    pub builds: Option<BuildsSurvey>,
}

/// A boss and its workers.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub id: BossId,
    /// The boss's id in short, since users never type it.
    pub boss: String,
    pub directory: Option<PathBuf>,
    pub is_here: bool,
    pub spent: Spent,
    /// Workers that wait for the user, then running ones, then queued ones, each in order of creation, then settled
    /// ones, the last settled first.
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
    /// Its builds and its last pruning, one line each; only for a worker that is shown in detail.
    pub builds: String,
}

impl DashboardWorker {
    /// Returns whether it has settled and needs no answer.
    pub fn is_over(&self) -> bool {
        self.view.worker.status.is_settled() && !self.view.worker.needs_you()
    }

    /// Returns whether it waits for the user: it needs an answer, or is blocked or stalled.
    pub fn waits_for_user(&self) -> bool {
        let view = &self.view;
        let is_stalled = view.live.as_ref().is_some_and(|live| live.stalled.is_some());
        match view.worker.status {
            WorkerStatus::Settled(_) => view.worker.needs_you(),
            WorkerStatus::Queued => view.block.is_some(),
            WorkerStatus::NeedsAnswer => true,
            live => live.is_live() && is_stalled,
        }
    }

    /// Returns the sort key among the workers of its boss. Workers with equal keys stay in order of creation.
    fn place(&self) -> (u8, Option<Reverse<Timestamp>>) {
        let worker = &self.view.worker;
        let ended = worker.last().map(|last| Reverse(last.settled_at));
        match worker.status {
            _ if self.waits_for_user() => (0, None),
            WorkerStatus::Queued => (2, None),
            WorkerStatus::Settled(_) => (3, ended),
            _ => (1, None),
        }
    }
}

impl Dashboard {
    pub fn of(overview: &Overview) -> Self {
        let is_led = |view: &WorkerView| overview.is_led(&view.worker);
        let mut groups: Vec<Group> =
            overview.bosses.iter().map(|boss| Group::of(boss, overview.as_of, is_led)).collect();
        // Bosses keep their order, except that those with a worker that waits for the user come first.
        groups.sort_by_key(|group| !group.workers.first().is_some_and(DashboardWorker::waits_for_user));
        Self {
            as_of: overview.as_of,
            repository: overview.repository.clone(),
            integration_branch: overview.integration_branch.as_deref().map(text::clean),
            groups,
            in_history: overview.in_history,
            repaired: overview.repaired.as_deref().map(text::clean),
            builds: None,
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
        let shown = |view: &WorkerView| {
            let is_led = is_led(view);
            let row = WorkerRow::of(view, is_led, now);
            DashboardWorker { row, view: view.clone(), is_led, messages: Vec::new(), builds: String::new() }
        };
        let mut workers: Vec<DashboardWorker> = boss.workers.iter().map(shown).collect();
        workers.sort_by_key(DashboardWorker::place);
        Self {
            id: boss.boss.clone(),
            boss: short_boss(boss.boss.as_str()),
            directory: boss.directory.clone(),
            is_here: boss.is_here,
            spent: boss.spent,
            workers,
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
