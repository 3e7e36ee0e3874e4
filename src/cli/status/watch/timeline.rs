//! Draws the time of a worker as a bar: queued, running, verifying, settled. Pure.

use jiff::Timestamp;

use super::super::dashboard::Dashboard;
use crate::cli::terminal::{self, Tone};
use crate::mission::lifecycle::WorkerStatus;
use crate::orchestrator::WorkerView;

/// The time windows of the bars, in seconds.
const WINDOWS: [u64; 11] = [120, 300, 600, 1_200, 1_800, 3_600, 7_200, 14_400, 43_200, 86_400, 604_800];
/// Age in seconds from which an ended worker does not make the window longer.
const RECENT: u64 = 900;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BarSegment {
    /// Both in seconds before now.
    from: u64,
    to: u64,
    sign: char,
    tone: Tone,
    end: Option<char>,
}

/// The sign of a bar's cell, and its tone.
pub(super) type BarCell = (char, Tone);

/// Returns the seconds that the bars show, so that all open and recently ended workers fit.
pub(super) fn window(dashboard: &Dashboard) -> u64 {
    let age = |view: &WorkerView| segments(view, dashboard.as_of).first().map_or(0, |first| first.from);
    let is_recent = |view: &WorkerView| {
        let ended = view.worker.last().filter(|_| view.worker.status.is_settled());
        ended.is_none_or(|last| since(dashboard.as_of, last.settled_at) < RECENT)
    };
    let recent = dashboard.workers().filter(|it| is_recent(&it.view)).map(|it| age(&it.view)).max();
    // Without open or recent workers, the last one must fit.
    let needed = recent.or_else(|| dashboard.workers().map(|it| age(&it.view)).min()).unwrap_or(0);
    WINDOWS.into_iter().find(|window| *window >= needed).unwrap_or(WINDOWS[WINDOWS.len() - 1])
}

/// Formats the axis, with `-20m` at the left and `now` at the right.
pub(super) fn axis(window: u64, cells: usize) -> String {
    let whole = terminal::duration(window);
    let start = format!("-{}", whole.split(' ').next().unwrap_or_default());
    let middle = cells.saturating_sub(start.len() + 3);
    format!("{start}{}now", " ".repeat(middle))
}

pub(super) fn bar(view: &WorkerView, now: Timestamp, window: u64, cells: usize) -> Vec<BarCell> {
    let mut bar = vec![(' ', Tone::Quiet); cells];
    let at = |ago: u64| (window.saturating_sub(ago) as usize * cells) / window.max(1) as usize;
    for segment in segments(view, now).iter().filter(|segment| segment.to < window) {
        // A segment shorter than a cell gets one cell.
        let from = at(segment.from).min(cells.saturating_sub(1));
        let to = at(segment.to).max(from + 1).min(cells);
        for cell in &mut bar[from..to] {
            *cell = (segment.sign, segment.tone);
        }
        if let (Some(end), true) = (segment.end, to > from) {
            bar[to - 1] = (end, segment.tone);
        }
    }
    bar
}

/// Returns the segments in order of time. The durations of attempts come from a monotonic clock.
fn segments(view: &WorkerView, now: Timestamp) -> Vec<BarSegment> {
    let worker = &view.worker;
    let ago = |then: Timestamp| since(now, then);
    let mut segments = Vec::new();
    let mut add = |from: u64, to: u64, sign, tone, end: Option<char>| {
        if from > to || end.is_some() {
            segments.push(BarSegment { from, to, sign, tone, end });
        }
    };
    let mut before = ago(worker.created_at);
    for (at, brief) in worker.settled.iter().enumerate() {
        let end = ago(brief.settled_at).min(before);
        let begin = (end + brief.elapsed()).min(before);
        let verified = (end + brief.verification.seconds().max(0.0) as u64).min(begin);
        if at == 0 {
            add(before, begin, '░', Tone::Quiet, None);
        }
        let tone = terminal::tone(WorkerStatus::Settled(brief.status));
        add(begin, verified, '█', tone, None);
        let is_last = at + 1 == worker.settled.len();
        let word = if is_last && worker.needs_you() { super::super::row::NEEDS_YOU } else { brief.status.as_str() };
        let sign = super::super::row::sign_of(word).chars().next();
        add(verified, end, '▓', tone, sign);
        before = end;
    }
    let queued = ago(worker.queued_at).min(before);
    let begin = view.elapsed_seconds.unwrap_or(0).min(queued);
    match worker.status {
        WorkerStatus::Settled(_) => {}
        WorkerStatus::Queued => add(queued, 0, '░', Tone::Quiet, None),
        WorkerStatus::Starting | WorkerStatus::Running | WorkerStatus::NeedsAnswer => {
            add(queued, begin, '░', Tone::Quiet, None);
            add(begin, 0, '█', Tone::Busy, None);
        }
        WorkerStatus::Verifying => {
            // Its CLI has been idle since the verification began.
            let turned = view.idle_seconds.unwrap_or(0).min(begin);
            add(queued, begin, '░', Tone::Quiet, None);
            add(begin, turned, '█', Tone::Busy, None);
            add(turned, 0, '▓', Tone::Waiting, None);
        }
    }
    segments
}

fn since(now: Timestamp, then: Timestamp) -> u64 {
    super::super::row::seconds_since(now, then)
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{ago, dashboard, mixed, now, settled};
    use super::*;
    use crate::mission::lifecycle::Ending;
    use crate::mission::outcome::Verification;

    fn drawn(view: &WorkerView, window: u64, cells: usize) -> String {
        bar(view, now(), window, cells).into_iter().map(|(sign, _)| sign).collect()
    }

    fn changed(number: usize, change: impl FnOnce(&mut crate::mission::registry::Worker)) -> WorkerView {
        let mut view = mixed().swap_remove(number);
        change(std::sync::Arc::make_mut(&mut view.worker));
        view
    }

    #[test]
    fn bar_shows_queued_running_verifying_and_end() {
        let at = |worker: &mut crate::mission::registry::Worker, seconds| {
            (worker.created_at, worker.queued_at) = (ago(seconds), ago(seconds));
        };
        let mut running = changed(0, |worker| at(worker, 100));
        running.elapsed_seconds = Some(60);
        assert_eq!(drawn(&running, 100, 10), "░░░░██████");
        assert_eq!(drawn(&running, 200, 10), "     ░░███");

        let queued = changed(2, |worker| at(worker, 50));
        assert_eq!(drawn(&queued, 100, 10), "     ░░░░░");

        let mut verifying = changed(0, |worker| {
            at(worker, 100);
            worker.status = WorkerStatus::Verifying;
        });
        (verifying.elapsed_seconds, verifying.idle_seconds) = (Some(80), Some(30));
        assert_eq!(drawn(&verifying, 100, 10), "░░█████▓▓▓");

        let done = changed(3, |worker| {
            at(worker, 100);
            worker.settled = vec![settled(Ending::Completed, |brief| {
                (brief.seconds, brief.elapsed_seconds, brief.settled_at) = (30, Some(60), ago(20));
                brief.verification = Verification::Passed { commit: None, seconds: 30.0 };
            })];
        });
        assert_eq!(drawn(&done, 100, 10), "░░███▓▓✓  ");
        // A short bar is still visible.
        assert_eq!(drawn(&done, 10_000, 10).trim_start(), "✓");
        assert_eq!(drawn(&done, 10, 10), " ".repeat(10));
    }

    #[test]
    fn window_fits_all_open_workers() {
        for (seconds, window_is) in
            [(0, 120), (100, 120), (500, 600), (4_000, 7_200), (90_000, 604_800), (9_999_999, 604_800)]
        {
            let view = changed(2, |worker| (worker.created_at, worker.queued_at) = (ago(seconds), ago(seconds)));
            assert_eq!(window(&dashboard(vec![view])), window_is);
        }
        assert_eq!(window(&dashboard(Vec::new())), 120);
        assert_eq!(axis(7_200, 12), "-2h      now");
    }
}
