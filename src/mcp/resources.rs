//! Resources: the state file, and the log, diff, transcript and prompt of each worker.
//!
//! They are for clients that let their users or models pick resources; the tools report the same data. The list holds
//! the workers of this boss, but any worker can be read by its id. A text over 40 kB comes in pages, and each page
//! names the next one.

use std::path::Path;

use rmcp::model::{ErrorData, ReadResourceResult, Resource, ResourceContents, ResourceTemplate};
use serde_json::json;

use super::transcript::{self, TextPage};
use super::{arguments, size};
use crate::attempt::assignment::Assignment;
use crate::attempt::prompt;
use crate::attempt::worker_dir::WorkerDir;
use crate::files;
use crate::mcp::hint;
use crate::mission::id::{BossId, WorkerId};
use crate::orchestrator::{Include, Orchestrator, OrchestratorError, Scope, WorkerView};

pub(super) const STATE: &str = "orchestrator://state";
const WORKERS: &str = "orchestrator://workers/";
/// Bytes for everything but the text.
const ENVELOPE: usize = 1_000;
const ROOM: usize = size::LONG_ANSWER - ENVELOPE;
/// Maximum number of workers in a list, newest first; each has four resources.
const LISTED: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Log,
    Diff,
    Transcript,
    Prompt,
}

impl Part {
    const ALL: [Part; 4] = [Part::Log, Part::Diff, Part::Transcript, Part::Prompt];

    fn name(self) -> &'static str {
        match self {
            Part::Log => "log",
            Part::Diff => "diff",
            Part::Transcript => "transcript",
            Part::Prompt => "prompt",
        }
    }

    fn about(self) -> &'static str {
        match self {
            Part::Log => "Its actions, one line for each event, newest page first",
            Part::Diff => "Its changes against its base, as a unified diff",
            Part::Transcript => "All its messages, commands and edits in full, attempt by attempt",
            Part::Prompt => "Its full prompt, with the text that the server adds",
        }
    }

    fn mime_type(self) -> &'static str {
        match self {
            Part::Diff => "text/x-diff",
            _ => "text/plain",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    State,
    Worker { name: String, part: Part },
}

impl Address {
    /// Parses an address and its cursor. Returns `None` for any other URI.
    pub(super) fn parse(uri: &str) -> Option<(Self, Option<usize>)> {
        let (path, cursor) = match uri.split_once('?') {
            Some((path, query)) => (path, Some(query.strip_prefix("cursor=")?.parse().ok()?)),
            None => (uri, None),
        };
        if path == STATE {
            return Some((Self::State, cursor));
        }
        let (name, part) = path.strip_prefix(WORKERS)?.split_once('/')?;
        let part = Part::ALL.into_iter().find(|known| known.name() == part)?;
        let name = arguments::line("worker_id", name.to_owned(), arguments::NAME).ok()?;
        Some((Self::Worker { name, part }, cursor))
    }

    fn uri(&self) -> String {
        match self {
            Self::State => STATE.to_owned(),
            Self::Worker { name, part } => format!("{WORKERS}{name}/{}", part.name()),
        }
    }
}

/// Lists the state and the resources of this boss's newest workers. Before the orchestrator has started, only the
/// state.
pub(super) async fn list(started: Option<(Orchestrator, BossId)>) -> Vec<Resource> {
    let mut resources = vec![state()];
    if let Some((orchestrator, boss)) = started
        && let Ok(list) = orchestrator.list(&boss, Scope::Mine).await
    {
        resources.extend(list.workers.iter().rev().take(LISTED).flat_map(of_worker));
    }
    resources
}

fn state() -> Resource {
    Resource::new(STATE, "state")
        .with_title("Orchestrator state")
        .with_description("orchestrator-state.json: all tasks with their status, worker, branch and attempts")
        .with_mime_type("application/json")
}

fn of_worker(view: &WorkerView) -> impl Iterator<Item = Resource> {
    let name = view.worker.id.to_string();
    let title = size::line(&view.worker.mission.title, 80);
    // Before the first attempt only the prompt exists.
    let has_attempt = view.worker.attempt > 0;
    Part::ALL.into_iter().filter(move |part| has_attempt || *part == Part::Prompt).map(move |part| {
        let address = Address::Worker { name: name.clone(), part };
        Resource::new(address.uri(), format!("{name} {}", part.name()))
            .with_title(format!("{title}: {}", part.name()))
            .with_mime_type(part.mime_type())
    })
}

pub(super) fn templates() -> Vec<ResourceTemplate> {
    let of_worker = Part::ALL.into_iter().map(|part| {
        let uri = format!("{WORKERS}{{id}}/{}{{?cursor}}", part.name());
        let about = format!("{}. id: a worker's, such as w-3. cursor: from the previous page.", part.about());
        ResourceTemplate::new(uri, format!("worker {}", part.name()))
            .with_description(about)
            .with_mime_type(part.mime_type())
    });
    of_worker.collect()
}

/// Reads one page. The error for an unknown address lists the known ones.
pub(super) async fn read(orchestrator: &Orchestrator, uri: &str) -> Result<ReadResourceResult, ErrorData> {
    let (address, cursor) = Address::parse(uri).ok_or_else(|| unknown(uri))?;
    let (text, mime_type) = match &address {
        Address::State => state_page(orchestrator, cursor).await?,
        Address::Worker { name, part } => {
            let view = orchestrator.get(name).await.map_err(|error| cannot(uri, &error))?;
            (part_page(orchestrator, view, *part, &address, cursor, uri).await?, part.mime_type())
        }
    };
    Ok(ReadResourceResult::new(vec![ResourceContents::text(text, uri).with_mime_type(mime_type)]))
}

/// Reads a page of the state file. Only the whole file has the type of JSON.
async fn state_page(orchestrator: &Orchestrator, cursor: Option<usize>) -> Result<(String, &'static str), ErrorData> {
    let path = orchestrator.state_file();
    let text = run_blocking(move || std::fs::read_to_string(path)).await?;
    let text = match text {
        Ok(text) => text,
        // It is listed before the first mission creates it, so it must be readable.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            json!({"tasks": [], "completed_tasks": [], "blocked_tasks": []}).to_string()
        }
        Err(error) => return Err(ErrorData::internal_error(format!("cannot read the state file: {error}"), None)),
    };
    let mut page = TextPage::new(cursor.unwrap_or(0), ROOM);
    page.push(&text);
    let (page, next) = page.end();
    let whole = cursor.is_none() && next.is_none();
    let mime_type = if whole { "application/json" } else { "text/plain" };
    Ok((with_next(page, next, &Address::State), mime_type))
}

async fn part_page(
    orchestrator: &Orchestrator,
    view: WorkerView,
    part: Part,
    address: &Address,
    cursor: Option<usize>,
    uri: &str,
) -> Result<String, ErrorData> {
    let folder = orchestrator.folder(&view.worker.id);
    let start = cursor.unwrap_or(0);
    let (text, next) = match part {
        Part::Diff => diff(orchestrator, &view.worker.id, start).await.map_err(|error| cannot(uri, &error))?,
        Part::Log => {
            let attempt = folder.attempt(view.worker.attempt);
            let nothing = if attempt.logs_are_removed() { "the log is old and was removed\n" } else { "nothing yet\n" };
            let events = attempt.events();
            let (text, first) = run_blocking(move || transcript::newest_lines(&events, cursor, ROOM)).await?;
            let text = if text.is_empty() { nothing.to_owned() } else { text };
            // The log is read backwards, so the link to earlier lines comes first.
            return Ok(match first {
                0 => text,
                first => format!("[earlier: {}?cursor={first}]\n{text}", address.uri()),
            });
        }
        Part::Transcript => {
            run_blocking(move || {
                let mut page = TextPage::new(start, ROOM);
                write_attempts(&folder, &mut page);
                page.end()
            })
            .await?
        }
        Part::Prompt => {
            run_blocking(move || {
                let mut page = TextPage::new(start, ROOM);
                page.push(&full_prompt(&folder, &view));
                page.end()
            })
            .await?
        }
    };
    Ok(with_next(text, next, address))
}

async fn diff(
    orchestrator: &Orchestrator,
    id: &WorkerId,
    start: usize,
) -> Result<(String, Option<usize>), OrchestratorError> {
    let include = Include { diff: true, diff_offset: start, diff_bytes: ROOM, ..Include::default() };
    let Some(page) = orchestrator.details(id.as_str(), include).await?.diff else {
        return Ok(("there is no diff: the worker has not started, or works outside of a repository\n".into(), None));
    };
    let text = size::head(&page.text, ROOM);
    let is_whole = text.len() == page.text.len();
    let next = if is_whole { page.next_offset } else { Some(start + text.len()) };
    Ok((text.to_owned(), next))
}

fn write_attempts(folder: &WorkerDir, page: &mut TextPage) {
    for number in folder.attempts() {
        let attempt = folder.attempt(number);
        page.push(&format!("== attempt {number} ==\n"));
        transcript::write_attempt(&attempt.events(), page);
        if let Ok(Some(outcome)) = attempt.outcome() {
            page.push(&format!("== {} ==\n", outcome.status.as_str()));
        }
        if page.is_full() {
            return;
        }
    }
}

/// Returns the prompt of the newest attempt; before the first attempt, the mission's own.
fn full_prompt(folder: &WorkerDir, view: &WorkerView) -> String {
    match assignment(&folder.attempt(view.worker.attempt).assignment()) {
        Some(assignment) => prompt::first(&assignment).0,
        None => view.worker.mission.prompt.clone(),
    }
}

fn assignment(path: &Path) -> Option<Assignment> {
    files::read_json(path).ok().flatten()
}

fn with_next(text: String, next: Option<usize>, address: &Address) -> String {
    match next {
        Some(next) => format!("{text}\n[continued: {}?cursor={next}]", address.uri()),
        None => text,
    }
}

pub(super) fn unknown(uri: &str) -> ErrorData {
    let shown = size::line(uri, 200);
    let why = format!(
        "there is no resource {shown:?}: there are {STATE} and {WORKERS}<worker id>/log, /diff, /transcript and /prompt, each with ?cursor=<number> from the previous page"
    );
    ErrorData::resource_not_found(why, Some(json!({ "uri": shown })))
}

fn cannot(uri: &str, error: &OrchestratorError) -> ErrorData {
    let why = size::line(&hint::of(error), 2_000);
    match error {
        OrchestratorError::UnknownWorker { .. }
        | OrchestratorError::NoWorkers { .. }
        | OrchestratorError::AmbiguousWorker { .. } => {
            ErrorData::resource_not_found(why, Some(json!({ "uri": size::line(uri, 200) })))
        }
        _ => ErrorData::internal_error(why, None),
    }
}

async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ErrorData> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| ErrorData::internal_error("cannot read the resource because of a bug: see the log (stderr)", None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip() {
        let log = Address::Worker { name: "w-3".into(), part: Part::Log };
        assert_eq!(Address::parse("orchestrator://state"), Some((Address::State, None)));
        assert_eq!(Address::parse("orchestrator://workers/w-3/log"), Some((log.clone(), None)));
        assert_eq!(Address::parse(&format!("{}?cursor=7", log.uri())), Some((log, Some(7))));
        let strange = [
            "",
            "state",
            "file:///etc/passwd",
            "orchestrator://",
            "orchestrator://state/",
            "orchestrator://workers",
            "orchestrator://workers/w-3",
            "orchestrator://workers/w-3/logs",
            "orchestrator://workers//log",
            "orchestrator://workers/w-3/log/x",
            "orchestrator://workers/w-3/log?cursor=-1",
            "orchestrator://workers/w-3/log?page=1",
            "orchestrator://workers/a\nb/log",
        ];
        for uri in strange {
            assert_eq!(Address::parse(uri), None, "{uri}");
        }
    }
}
