//! The lines at the bottom of the live screen: the prompt of an open question, the actions in progress, the last
//! result, or the keys that apply now. Pure.

use super::super::dashboard::DashboardWorker;
use super::super::screen::ScreenLine;
use super::answer::{AnswerDraft, AnswerKind};
use super::applies::WorkerKey;
use super::state::{App, Mode};
use crate::cli::question;
use crate::cli::terminal::Tone;
use crate::cli::text;
use crate::mission::id::WorkerId;
use crate::mission::outcome::blocked_by;

/// Maximum number of lines of a text.
const MOST: usize = 4;
/// Minimum number of columns for typed text.
const TYPED: usize = 10;

/// Returns the lines, at least one, for a screen of this size.
pub(super) fn lines(app: &App, width: usize, height: usize) -> Vec<ScreenLine> {
    let most = (height / 3).clamp(1, MOST);
    let mut lines = match &app.mode {
        Mode::Cancel(worker) => {
            confirmation(&format!("Cancel {worker} and all its processes?"), Tone::Bad, width, most)
        }
        Mode::Merge(worker) => confirmation(&merge_question(app, worker), Tone::Strong, width, most),
        Mode::Message(worker, line) => message(app, worker, line, width, most),
        Mode::Answer(draft) => answer(app, draft, width, most),
        Mode::Retry(worker, line) => {
            let short = short(app, worker);
            let long = format!("retry {short} (enter: start, esc: discard), with feedback: ");
            vec![input(&[&long, &format!("retry {short}, feedback: "), "retry: "], line, width)]
        }
        Mode::Search(search) => vec![search_line(app, &search.text, "▏", width)],
        Mode::Suspended(label) => wrapped(&format!("{label} …"), Tone::Busy, width, most),
        Mode::Browse | Mode::Help => state(app, width, most),
    };
    // The last lines have the keys or the input, so the first ones are dropped.
    lines.drain(..lines.len().saturating_sub(most));
    lines
}

/// Returns the actions in progress and the last result, or the keys.
fn state(app: &App, width: usize, most: usize) -> Vec<ScreenLine> {
    let doing = app.doing.iter().map(|it| match it.step.as_str() {
        "" => it.what.to_string(),
        step => format!("{}: {step}", it.what),
    });
    let doing = doing.collect::<Vec<_>>().join(", ");
    let mut lines = if doing.is_empty() {
        Vec::new()
    } else {
        wrapped(&format!("{doing} …"), Tone::Busy, width, most.div_ceil(2))
    };
    match (&app.message, &app.error, &app.search) {
        (Some((tone, text)), ..) => lines.extend(wrapped(text, *tone, width, most)),
        (None, Some(error), _) => lines.extend(wrapped(error, Tone::Bad, width, most)),
        (None, None, _) if !lines.is_empty() => {}
        (None, None, Some(text)) => lines.push(search_line(app, text, "  n next  N previous  esc end", width)),
        (None, None, None) => lines.push(vec![(Some(Tone::Quiet), keys(app.current(), width))]),
    }
    lines
}

/// Returns a question that `y` answers. The last line, which has the keys, is always shown.
fn confirmation(question: &str, tone: Tone, width: usize, most: usize) -> Vec<ScreenLine> {
    const KEYS: &str = "y/n";
    let whole = text::clean(&format!("{question} {KEYS}"));
    let mut parts = text::wrap(&whole, width);
    let last = parts.pop().unwrap_or_default();
    let shown = parts.into_iter().take(most - 1).map(|part| vec![(Some(tone), part.to_owned())]);
    let mut lines: Vec<ScreenLine> = shown.collect();
    let text = last.strip_suffix(KEYS).unwrap_or_default().to_owned();
    lines.push(vec![(Some(tone), text), (Some(Tone::Strong), KEYS.to_owned())]);
    lines
}

fn merge_question(app: &App, worker: &WorkerId) -> String {
    let view = app.workers().find(|it| it.view.worker.id == *worker).map(|it| &it.view);
    let into = view.and_then(|view| view.meant_for.as_deref()).unwrap_or("its integration branch");
    match view.and_then(|view| view.worker.mission.verify_command.as_deref()) {
        Some(command) => {
            format!("Merge {} into {into} if `{}` passes on the result?", short(app, worker), text::cut(command, 40))
        }
        None => format!("Merge {} into {into}, without a check?", short(app, worker)),
    }
}

/// Returns the prompt of a message. For the answer to a blocked worker, its question is shown above.
fn message(app: &App, worker: &WorkerId, line: &str, width: usize, most: usize) -> Vec<ScreenLine> {
    let (shown, short) = (app.workers().find(|it| it.view.worker.id == *worker), short(app, worker));
    let asked = shown.filter(|it| it.view.worker.needs_you()).and_then(|it| it.view.worker.last());
    let Some(asked) = asked else {
        let long = format!("to {short} (enter: send, esc: discard): ");
        return vec![input(&[&long, &format!("to {short}: "), "> "], line, width)];
    };
    let question = blocked_by(&asked.final_message).unwrap_or_default();
    let question = text::clean(&format!("{short} is blocked: {question}"));
    let mut lines = wrapped(&question, Tone::Waiting, width, most - 1);
    let long = format!("answer {short} (enter: send and start its next attempt, esc: discard): ");
    lines.push(input(&[&long, &format!("answer {short} (enter: send): "), "answer: "], line, width));
    lines
}

/// Returns the question that is being answered, and the prompt below it. A cut question is marked: its end may matter.
fn answer(app: &App, draft: &AnswerDraft, width: usize, most: usize) -> Vec<ScreenLine> {
    let short = short(app, &draft.worker);
    let (short, choices) = (short.as_str(), question::choices(&draft.question));
    let (more, prompt) = match &draft.kind {
        AnswerKind::Allow => {
            let keys = (Some(Tone::Strong), "y/n".to_owned());
            (String::new(), vec![(Some(Tone::Waiting), "Allow it once? ".to_owned()), keys])
        }
        AnswerKind::Deny(line) => {
            let long = format!("deny {short} (enter: deny, esc: discard), with a reason: ");
            (String::new(), input(&[&long, &format!("deny {short}, reason: "), "deny: "], line, width))
        }
        AnswerKind::Choose(line) => {
            let long = format!("answer {short} with a choice or in your words (enter: send, esc: discard): ");
            let prompt = input(&[&long, &format!("answer {short} (enter: send): "), "answer: "], line, width);
            (format!(" Choices: {choices}"), prompt)
        }
    };
    let asked = format!("{short} asks {}{more}", question::line(&draft.question));
    let mut lines = wrapped(&asked, Tone::Waiting, width, most - 1);
    lines.push(prompt);
    lines
}

/// Returns a line with the end of what is typed, and the first prompt that leaves room for it.
fn input(prompts: &[&str], line: &str, width: usize) -> ScreenLine {
    let fits = |prompt: &&&str| text::width(prompt) + TYPED < width;
    let prompt = prompts.iter().find(fits).or(prompts.last()).copied().unwrap_or_default();
    let blank = if line.ends_with(' ') { " " } else { "" };
    let line = format!("{}{blank}", text::clean_code(line));
    let tail = text::end(&line, width.saturating_sub(text::width(prompt) + 1)).to_owned();
    vec![(Some(Tone::Strong), prompt.to_owned()), (None, tail), (Some(Tone::Strong), "▏".to_owned())]
}

/// Returns the text of a search and the number of its matches.
fn search_line(app: &App, searched: &str, end: &str, width: usize) -> ScreenLine {
    let count = match app.place_among_found(searched) {
        _ if searched.trim().is_empty() => String::new(),
        (_, 0) => "  no worker matches".to_owned(),
        (None, count) => format!("  {count} found"),
        (Some(place), count) => format!("  {place} of {count}"),
    };
    let room = width.saturating_sub(2 + text::width(&count));
    let shown = text::clean_code(searched);
    let blank = if searched.ends_with(' ') { " " } else { "" };
    let shown = format!("{shown}{blank}");
    let (cursor, end) = if end == "▏" { (end, "") } else { ("", end) };
    vec![
        (Some(Tone::Strong), format!("/{}{cursor}", text::end(&shown, room))),
        (Some(if count.contains("no ") { Tone::Waiting } else { Tone::Busy }), count),
        (Some(Tone::Quiet), end.to_owned()),
    ]
}

/// Returns the keys that apply to the selected worker, the most important ones first if there is little room.
fn keys(selected: Option<&DashboardWorker>, width: usize) -> String {
    let general = [(2, "↑↓ select"), (3, "tab pane"), (1, "/ search"), (4, "y path")];
    let actions = selected.into_iter().flat_map(|shown| {
        let applying = WorkerKey::ALL.into_iter().filter(|it| it.obstacle(shown).is_none());
        applying.map(|it| (0, format!("{} {}", it.key(), it.name(shown))))
    });
    let mut keys: Vec<(usize, String)> = general[..2].iter().map(|(rank, key)| (*rank, (*key).to_owned())).collect();
    keys.extend(actions);
    keys.extend(general[2..].iter().map(|(rank, key)| (*rank, (*key).to_owned())));
    let mut chosen = vec![false; keys.len()];
    let end = "? help  q quit";
    let mut room = width.saturating_sub(text::width(end));
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by_key(|at| keys[*at].0);
    for at in order {
        let needed = text::width(&keys[at].1) + 2;
        if needed > room {
            break;
        }
        chosen[at] = true;
        room -= needed;
    }
    let shown = keys.into_iter().zip(chosen).filter(|(_, is_chosen)| *is_chosen).map(|((_, key), _)| key);
    shown.chain([end.to_owned()]).collect::<Vec<_>>().join("  ")
}

/// Wraps a text into at most this many lines. A cut is marked.
fn wrapped(content: &str, tone: Tone, width: usize, most: usize) -> Vec<ScreenLine> {
    let content = text::clean(content);
    let parts = text::wrap(&content, width);
    let is_cut = parts.len() > most;
    let line = |(at, part): (usize, &str)| {
        let is_last = is_cut && at + 1 == most;
        let part =
            if is_last { format!("{}…", text::split(part, width.saturating_sub(1)).0) } else { part.to_owned() };
        vec![(Some(tone), part)]
    };
    parts.into_iter().take(most).enumerate().map(line).collect()
}

fn short(app: &App, worker: &WorkerId) -> String {
    let known = app.workers().find(|it| it.view.worker.id == *worker);
    known.map_or_else(|| worker.to_string(), |it| it.row.short.clone())
}
